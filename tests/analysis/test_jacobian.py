"""The sequential Jacobian: torch.func.jacrev's numbers, no knowledge of what is to come, padding counts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import CPU, run_command
from torch import nn
from torch.func import jacrev

import zoo
from zoo import Batch, DataSpec, layers
from zoo.analysis import sequential_jacobian
from zoo.analysis.jacobian import analyze, check
from zoo.errors import ZooError
from zoo.training.analyses import Subject

TEXT = DataSpec(kind="tokens", shape=(6,), target="tokens", vocab_size=7)
ROWS = DataSpec(kind="sequence", shape=(6, 3), target="class", num_classes=4)
BITS = DataSpec(kind="sequence", shape=(6, 3), target="bits", num_targets=2)
SERIES = DataSpec(kind="series", shape=(6, 1), target="series", num_targets=2)
PAIRS = DataSpec(kind="pairs", shape=(5, 4), target="tokens", vocab_size=7)


def build(name: str, spec: DataSpec, **options) -> zoo.models.base.ZooModel:
    torch.manual_seed(0)
    return zoo.create_model(name, spec, **options).double()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(1))


def by_jacrev(call, x: torch.Tensor) -> torch.Tensor:
    """∂y_t/∂x_s of a row (S, D) as (T, S, K, D)."""
    return jacrev(lambda row: call(row.unsqueeze(0))[0])(x).movedim(2, 1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (layers.RNN, {}), (layers.LSTM, {"num_layers": 2}), (layers.GRU, {}), (nn.LSTM, {}), (nn.GRU, {}),
        (layers.LSTM, {"bidirectional": True, "proj_size": 2}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk_size", [5, 1000])
def test_layers_as_jacrev_has_them(make, options, chunk_size) -> None:
    torch.manual_seed(0)
    layer, x = make(3, 4, batch_first=True, dtype=torch.float64, **options), drawn(2, 6, 3)
    found = sequential_jacobian(layer, x, chunk_size=chunk_size)
    for row in range(2):
        expected = by_jacrev(lambda part: layer(part)[0], x[row])
        torch.testing.assert_close(found.blocks[row], expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.norms[row], expected.flatten(2).norm(dim=2), rtol=1e-12, atol=0)
    ahead = torch.ones(6, 6).triu(1).bool()
    if not options.get("bidirectional"):
        assert (found.norms[:, ahead] == 0).all()
    assert (found.norms[:, ~ahead] > 0).all()


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gpt"])
@pytest.mark.parametrize("layers_of", ["zoo", "torch"])
def test_language_models_by_their_tokens_vectors(name: str, layers_of: str) -> None:
    sizes = {"hidden_size": 8, "num_layers": 2} | ({"num_heads": 2} if name == "gpt" else {})
    model, x = build(name, TEXT, layers=layers_of, **sizes), tokens(2, 6)
    found = sequential_jacobian(model, x)
    assert found.blocks.shape == (2, 6, 6, 7, 8)
    assert (found.norms[:, torch.ones(6, 6).triu(1).bool()] == 0).all()
    vectors = model.embedding(x).detach()

    def call(rows: torch.Tensor) -> torch.Tensor:
        handle = model.embedding.register_forward_hook(lambda *_: rows)
        try:
            return model(x[:1])
        finally:
            handle.remove()

    torch.testing.assert_close(found.blocks[0], by_jacrev(call, vectors[0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["lstm", "transformer_encoder"])
@pytest.mark.parametrize("spec", [ROWS, SERIES], ids=["classes", "forecast"])
def test_one_answer_an_example(name: str, spec: DataSpec) -> None:
    model, x = build(name, spec, hidden_size=8).eval(), drawn(3, *spec.shape)
    found = sequential_jacobian(model, x)
    assert found.norms.shape == (3, 1, 6)
    for row in range(3):
        expected = jacrev(lambda part: model(part.unsqueeze(0))[0])(x[row])  # (K, S, D)
        torch.testing.assert_close(found.blocks[row, 0], expected.movedim(1, 0), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.by_lag(), found.norms[:, 0].mean(0).flip(0))


@pytest.mark.parametrize("name", ["lstm", "transformer_encoder"])
def test_padding_counts_nothing(name: str) -> None:
    model, x = build(name, ROWS, hidden_size=8), drawn(2, 6, 3)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    x[1, 4:] = torch.nan
    found = sequential_jacobian(model, x, mask)
    alone = sequential_jacobian(model, x[1:, :4])
    torch.testing.assert_close(found.blocks[1:, :, :4], alone.blocks, rtol=0, atol=1e-10)
    assert (found.norms[1, :, 4:] == 0).all()
    assert (found.blocks[1, :, 4:] == 0).all()
    assert found.by_lag().isfinite().all()


def test_padded_steps_of_a_language_model_have_no_answer() -> None:
    model, x = build("gru", TEXT, hidden_size=8), tokens(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    found = sequential_jacobian(model, Batch(tokens=x, mask=mask))
    torch.testing.assert_close(found.blocks[1:, :2, :2], sequential_jacobian(model, x[1:, :2]).blocks)
    assert (found.norms[1, 2:] == 0).all()
    assert (found.norms[1, :, 2:] == 0).all()
    lags = found.by_lag()
    expected = (found.norms[0].diagonal().sum() + found.norms[1].diagonal().sum()) / 8
    torch.testing.assert_close(lags[0], expected)
    torch.testing.assert_close(lags[5], found.norms[0, 5, 0])


def test_translations_by_source_and_by_what_was_said() -> None:
    model = build("transformer", PAIRS, hidden_size=8, num_heads=2)
    here = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    batch = Batch(source=tokens(2, 5), source_mask=here, target=tokens(2, 4), target_mask=here[:, 1:])
    by_source, by_target = (sequential_jacobian(model, batch, of=of) for of in ("source", "target"))
    assert by_source.norms.shape == (2, 4, 5)
    assert (by_source.norms[0] > 0).all()
    assert (by_source.norms[1, :, 3:] == 0).all()
    assert (by_source.norms[1, 2:] == 0).all()
    assert (by_target.norms[:, torch.ones(4, 4).triu(1).bool()] == 0).all()
    with pytest.raises(ZooError, match="two different sequences"):
        by_source.by_lag()


def test_directions() -> None:
    model, x = build("rnn", TEXT, hidden_size=8), tokens(1, 6)
    whole = sequential_jacobian(model, x)
    one = sequential_jacobian(model, x, directions=torch.eye(7)[2:3], blocks=False)
    assert one.blocks is None
    torch.testing.assert_close(one.norms, whole.blocks[:, :, :, 2].norm(dim=-1))
    signs = 2.0 * torch.randint(2, (4000, 7), generator=torch.Generator().manual_seed(0)) - 1
    some = sequential_jacobian(model, x, directions=signs / 4000**0.5, blocks=False, chunk_size=4096)
    torch.testing.assert_close(some.norms, whole.norms, rtol=0.05, atol=0)


def test_gradients_too_small_to_be_squared_in_float32() -> None:
    found = sequential_jacobian(lambda x: 1e-30 * x.cumsum(1), torch.ones(1, 3, 1))
    torch.testing.assert_close(found.norms, torch.full((1, 3, 3), 1e-30).double().tril(), rtol=1e-6, atol=0)


def test_the_model_stays_as_it_was() -> None:
    model = build("lstm", ROWS, hidden_size=8, dropout=0.5).train()
    model.head.bias.requires_grad_(False)
    with torch.inference_mode():
        first, second = (sequential_jacobian(model, drawn(1, 6, 3)).norms for _ in range(2))
    assert torch.equal(first, second)
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert all(p.grad is None for p in model.parameters())
    assert not model.embedding


def test_mistakes() -> None:
    rows, mlp = build("lstm", ROWS), DataSpec(kind="tabular", shape=(3,), target="class", num_classes=2)
    with pytest.raises(ZooError, match="have no steps"):
        sequential_jacobian(build("mlp", mlp), drawn(2, 3))
    with pytest.raises(ZooError, match=r"shape \(P, 4\)"):
        sequential_jacobian(rows, drawn(2, 6, 3), directions=torch.eye(3))
    with pytest.raises(ZooError, match="at least 1"):
        sequential_jacobian(rows, drawn(2, 6, 3), chunk_size=0)
    with pytest.raises(ZooError, match=r"\(B, S, D\)"):
        sequential_jacobian(nn.LSTM(3, 3, batch_first=True), tokens(2, 3))
    copies = build("ntm", BITS, hidden_size=4, num_slots=3)
    wrong = {r"\(N, T, 3\)": drawn(2, 6), r"\(N, T, 3\), got \(2, 6, 4\)": drawn(2, 6, 4), "no steps": drawn(2, 0, 3)}
    for what, x in wrong.items():
        with pytest.raises(ZooError, match=what):
            sequential_jacobian(copies, x)
    with pytest.raises(ZooError, match="batch_first=True"):  # whose steps would be taken for examples
        sequential_jacobian(nn.LSTM(3, 4), drawn(2, 6, 3))
    with pytest.raises(ZooError, match=r"mask must be of shape \(2, 6\)"):
        sequential_jacobian(rows, drawn(2, 6, 3), torch.ones(2, 5))
    with pytest.raises(ZooError, match="of must be"):
        sequential_jacobian(rows, drawn(2, 6, 3), of="both")  # type: ignore[arg-type]
    for nothing in (lambda x: torch.zeros(len(x), 4), lambda x: x.detach()):
        with pytest.raises(ZooError, match="does not depend on x"):
            sequential_jacobian(nothing, drawn(2, 6, 3))
    with pytest.raises(ZooError, match="not NoneType"):
        sequential_jacobian(lambda x: None, drawn(2, 6, 3))
    with pytest.raises(ZooError, match="has seen no data"):
        sequential_jacobian(zoo.create_model("lstm"), drawn(2, 6, 3))


def test_numbers_masks_and_directions_of_any_type() -> None:
    model, x = build("lstm", ROWS, hidden_size=8), drawn(2, 6, 3).round()
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    expected = sequential_jacobian(model, x, mask.bool(), directions=torch.eye(4))
    found = sequential_jacobian(model, x.int().numpy(), mask.numpy(), directions=torch.eye(4).numpy())
    assert torch.equal(found.blocks, expected.blocks)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["model.hidden_size=8", "trainer.max_epochs=1", "trainer.limit_train_batches=2", CPU, f"run_dir={tmp_path}"]
    assert run_command(["model=gru", "data=digits_rows", *short]) == 0
    asked = [f"run={tmp_path}", "accelerator=cpu"]
    assert run_command([*asked, "analysis=sequential_jacobin"], "evaluate") == 1
    assert "sequential_jacobian" in capsys.readouterr().err
    assert run_command([*asked, "analysis=[sequential_jacobian]"], "evaluate", pictures=True) == 0
    folder = tmp_path / "evaluation" / "analysis"
    assert (folder / "sequential_jacobian.png").read_bytes().startswith(b"\x89PNG")
    assert [row.split(",")[0] for row in (folder / "memory.csv").read_text().split()] == ["steps_back", *"01234567"]
    assert "sequential_jacobian: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_of_texts(name: str) -> None:
    data = zoo.create_data("dates", num_pairs=60) if name == "transformer" else zoo.create_data("python_docs")
    torch.manual_seed(0)
    sizes = {"num_heads": 2} if name == "transformer" else {}
    model = zoo.create_model(name, data.spec, hidden_size=8, **sizes)
    found = analyze(Subject(model, data, "test", {}))
    assert set(found.figures) == (
        {"sequential_jacobian"} if name == "transformer" else {"sequential_jacobian", "memory"}
    )
    names = [label.get_text() for label in found.figures["sequential_jacobian"].axes[0].get_xticklabels()]
    assert all(len(each) == 1 or each.startswith("[") for each in names)
    digits = zoo.create_data("digits")
    with pytest.raises(ZooError, match="have no steps"):
        check(Subject(zoo.create_model("cnn", digits.spec), digits, "test", {}))
