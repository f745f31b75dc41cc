"""Sequence to sequence: torch's layers inside, padding, decoding with a state and without, texts in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from zoo.analysis import sequential_jacobian
from zoo.data.base import ZooDataModule
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.objectives import IGNORED
from zoo.text import Tokenizer

SPEC = DataSpec("pairs", (6, 5), "tokens", vocab_size=9)
VARIANTS = [
    {},
    {"attention": "multiplicative", "cell": "lstm", "num_layers": 2},
    {"input_feeding": True, "tie_embeddings": False},
    {"input_feeding": True, "cell": "lstm", "attention": "multiplicative"},
]


def model_of(spec: DataSpec = SPEC, **options: Any) -> Any:
    torch.manual_seed(0)
    return zoo.create_model("seq2seq", spec, **{"hidden_size": 8, **options}).eval()


@pytest.fixture(scope="module")
def dates() -> ZooDataModule:
    return zoo.create_data("dates", num_pairs=60)


def reading(data: ZooDataModule, **options: Any) -> Any:
    model = model_of(data.spec, **options)
    model.preprocessing = data.preprocessing
    return model


def padded(more: int, fill: int) -> Batch:
    """Three pairs of different lengths, with `more` steps of padding."""
    generator = torch.Generator().manual_seed(0)
    lengths = [(6, 2), (1, 5), (3, 1)]
    source, target = torch.full((3, 6 + more), fill), torch.full((3, 5 + more), fill)
    y, masks = torch.full(target.shape, IGNORED), [torch.zeros(t.shape, dtype=torch.bool) for t in (source, target)]
    for row, (s, t) in enumerate(lengths):
        source[row, :s], target[row, :t], y[row, :t] = (torch.randint(9, (n,), generator=generator) for n in (s, t, t))
        masks[0][row, :s], masks[1][row, :t] = True, True
    return Batch(source=source, source_mask=masks[0], target=target, target_mask=masks[1], y=y)


@pytest.mark.parametrize("options", VARIANTS)
def test_torchs_layers_give_the_same(options: dict[str, Any]) -> None:
    batch, gradients = padded(0, 0), []
    for layers in ("zoo", "torch"):
        model = model_of(layers=layers, **options).double()
        output = model.output(batch)
        output.square().mean().backward()
        gradients.append((output.detach(), *(p.grad for p in model.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS)
def test_padding_changes_no_answer_loss_or_gradient(options: dict[str, Any]) -> None:
    model, found = model_of(**options).double(), []
    for more, fill in ((0, 0), (4, 7)):
        batch = padded(more, fill)
        model.zero_grad()
        loss = model.objective.loss(model.output(batch), batch)
        loss.backward()
        found.append([loss, *model.evaluate(batch).values(), *(p.grad.clone() for p in model.parameters())])
        for row, (s, t) in enumerate([(6, 2), (1, 5), (3, 1)]):
            alone = model(batch.source[row : row + 1, :s], batch.target[row : row + 1, :t])[0]
            torch.testing.assert_close(model.output(batch)[row, :t], alone, rtol=1e-9, atol=1e-12)
        assert bool((model.predict_batch(batch)["prediction"][~batch.target_mask] == IGNORED).all())
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS)
def test_no_step_sees_a_later_one_and_all_see_the_source(options: dict[str, Any]) -> None:
    model = model_of(**options).double()
    batch = Batch(source=torch.randint(9, (2, 6)), target=torch.randint(9, (2, 5)))
    ahead = torch.ones(5, 5).triu(1).bool()
    assert (sequential_jacobian(model, batch, of="target").norms[:, ahead] == 0).all()
    assert (sequential_jacobian(model, batch).norms > 0).all()


TEXTS = [
    "May 3, 1979",
    "",
    "the 22nd of December 2031 and much longer than any source of the training",
    "6.1.80",
]
DECODINGS: list[dict[str, Any]] = [{"decoding": "greedy"}, {"decoding": "beam", "num_beams": 3}, {"top_k": 4}]


@pytest.mark.parametrize("decoding", DECODINGS, ids=["greedy", "beam", "sample"])
@pytest.mark.parametrize("options", VARIANTS)
def test_a_text_is_translated_alike_alone_in_a_batch_and_read_anew(
    options: dict[str, Any], decoding: dict[str, Any], dates: ZooDataModule
) -> None:
    model = reading(dates, **options)
    together = model.generate(TEXTS, steps=6, **decoding)
    assert together == [model.generate(text, steps=6, **decoding) for text in TEXTS]
    assert together == model.generate(TEXTS, steps=6, cache=False, **decoding)


@pytest.mark.parametrize("decoding", DECODINGS, ids=["greedy", "beam", "sample"])
def test_no_special_token_is_part_of_a_translation(
    decoding: dict[str, Any], dates: ZooDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However probable the marks of beginning, padding and unknown signs are: they are no text."""
    model, tokenizer, batch = reading(dates), Tokenizer.from_json(dates.spec.tokenizer), dates.rows("val")[:4]
    marks, logits = torch.tensor([tokenizer.special(role) for role in ("begin", "pad", "unknown")]), model.logits
    monkeypatch.setattr(model, "logits", lambda readouts: logits(readouts).index_fill(-1, marks, 100.0))
    assert bool(torch.isin(model.output(batch).argmax(-1), marks).all())
    texts = [*model.generate(TEXTS, steps=6, **decoding), *model.predict(TEXTS)]
    assert any(texts)
    assert not any("[" in text for text in texts)
    assert not torch.isin(model.predict_batch(batch)["prediction"], marks).any()


def test_a_translation_ends_with_the_vocabularys_own_mark(tmp_path: Path) -> None:
    """That of BERT's vocabulary is [SEP]."""
    (tmp_path / "pairs.tsv").write_text("a b\tc d\n" * 20)
    marks = ["pad", "unknown", "cls", "sep"]
    data = zoo.create_data("parallel_text", path=str(tmp_path / "pairs.tsv"), tokenizer="word", special_tokens=marks)
    model, size = reading(data), data.spec.vocab_size
    model.logits = lambda readouts: 9.0 * F.one_hot(torch.full(readouts.shape[:-1], marks.index("sep")), size)
    assert [model.generate("a b", steps=3, **decoding) for decoding in DECODINGS] == [""] * 3


def test_pairs_are_learnt_by_heart_and_looked_at(dates: ZooDataModule) -> None:
    """What is said is what was to be said, end included: tokens, targets and what follows them are rightly aligned."""
    model, batch = reading(dates, hidden_size=32, dropout=0.0), dates.rows("train")[torch.arange(3)]
    optimizer = torch.optim.Adam(model.train().parameters(), lr=2e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.objective.loss(model.output(batch), batch).backward()
        optimizer.step()
    pairs = [list(dates.pairs())[i] for i in dates.rows("train").index[:3].tolist()]
    assert model.predict([source for source, _ in pairs]).tolist() == [target for _, target in pairs]
    model.eval()
    ((name, figure),) = [found for found in model.pictures(batch, {}) if found[0] == "alignment"]
    assert name == "alignment"
    first = figure.axes[0]
    assert "".join(label.get_text() for label in first.get_yticklabels()) == pairs[0][1] + "[EOS]"
    assert "".join(label.get_text() for label in first.get_xticklabels()).replace("␣", " ") == pairs[0][0] + "[EOS]"
    shown = torch.as_tensor(first.images[0].get_array())
    torch.testing.assert_close(shown.sum(1), torch.ones(len(shown)).double())


def test_a_step_by_hand() -> None:
    """The first readout of a GRU with additive attention, written out."""
    model = model_of().double()
    source, target = torch.tensor([[1, 2, 3]]), torch.tensor([[4]])
    state = model.encode(source)
    memory, last = model.encoder(model.embedding(source))
    h0 = (torch.cat([last[0], last[1]], -1) @ model.bridges[0].weight.T + model.bridges[0].bias).tanh()
    h1 = model.decoder(model.embedding(target), h0.unsqueeze(0))[0][0, 0]
    attention = model.attention
    scores = torch.stack([
        attention.weight_score @ (attention.weight_query @ h1 + attention.weight_memory @ m + attention.bias).tanh()
        for m in memory[0]
    ])  # fmt: skip
    weights: Tensor = scores.softmax(0)
    readout = (model.readout.weight @ torch.cat([weights @ memory[0], h1])).tanh()
    readouts, looked, _ = model.decode(target, state)
    torch.testing.assert_close(readouts[0, 0], readout)
    torch.testing.assert_close(looked[0, 0], weights)
    torch.testing.assert_close(model(source, target)[0, 0], model.embedding.weight @ readout)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden_size": 0}, r"model\.hidden_size must be"), ({"num_layers": 0}, r"model\.num_layers must be"),
     ({"dropout": 2.0}, r"model\.dropout must be"), ({"cell": "rnn"}, r"model\.cell must be"),
     ({"attention": "dot"}, r"model\.attention must be")],
)  # fmt: skip
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("seq2seq", **options)
