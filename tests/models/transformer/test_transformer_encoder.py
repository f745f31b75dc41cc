"""The encoder by itself: torch's layers inside, patches, positions, what is read off, and forecasts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.transformer.transformer_encoder import patches

TINY: dict[str, Any] = {"hidden_size": 16, "num_heads": 2}
SPECS = {
    "image": DataSpec("image", (3, 6, 7), "class", num_classes=4),
    "sequence": DataSpec("sequence", (5, 3), "value", num_targets=2),
    "tokens": DataSpec("tokens", (5,), "class", num_classes=3, vocab_size=9),
    "series": DataSpec("series", (8, 1), "series", num_targets=2),
}


def model_of(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return zoo.create_model("transformer_encoder", SPECS[kind], **{**TINY, **options}).double().eval()


def inputs_of(kind: str, rows: int = 4, steps: int | None = None) -> torch.Tensor:
    shape = SPECS[kind].shape if steps is None else (steps, *SPECS[kind].shape[1:])
    if kind == "tokens":
        return torch.randint(9, (rows, *shape))
    return torch.randn(rows, *shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("options", [{}, {"norm_first": False}, {"readout": "cls", "positions": "learned"}])
def test_torchs_layers_give_the_same(kind: str, options: dict[str, Any]) -> None:
    ours, theirs = (model_of(kind, layers=layers, **options) for layers in ("zoo", "torch"))
    x = inputs_of(kind)
    mask = torch.arange(5) < torch.tensor([[5], [2], [4], [1]]) if kind in ("sequence", "tokens") else None
    found = []
    for model in (ours, theirs):
        output = model(x, mask)
        output.square().mean().backward()
        found.append((output.detach(), *(p.grad for p in model.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 1, 1, 1), (2, 2, 5, 7), (0, 1, 4, 4)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_patches_are_those_of_unfold(shape: tuple[int, ...], size: int) -> None:
    images = torch.randn(shape)
    padded = F.pad(images, (0, -shape[3] % size, 0, -shape[2] % size))
    if shape[0]:
        torch.testing.assert_close(patches(images, size), F.unfold(padded, size, stride=size).mT)
    else:
        assert patches(images, size).shape[0] == 0


@pytest.mark.parametrize(("shape", "size"), [((1, 8, 8), 2), ((3, 32, 32), 4), ((1, 28, 28), 4), ((1, 1, 1), 2)])
def test_an_image_is_cut_into_at_most_64_patches(shape: tuple[int, ...], size: int) -> None:
    model = zoo.create_model("transformer_encoder", DataSpec("image", shape, "class", num_classes=2), **TINY)
    assert model.embedding.in_features == shape[0] * size**2
    assert model(torch.zeros(2, *shape)).shape == (2, 2)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "alibi"])
@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_a_text_is_read_alike_alone_and_padded(positions: str, readout: str) -> None:
    model = model_of("tokens", positions=positions, readout=readout)
    tokens, lengths = inputs_of("tokens"), (5, 2, 4, 1)
    mask = torch.arange(5) < torch.tensor(lengths).unsqueeze(1)
    together = model.output(Batch(tokens=tokens, mask=mask))
    for row, length in enumerate(lengths):
        torch.testing.assert_close(together[row], model(tokens[row : row + 1, :length])[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(model(tokens), model(tokens.roll(1, 1))), "the order of tokens counts"


def test_a_sequence_longer_than_learned_positions_is_one_line() -> None:
    for readout in ("mean", "cls"):
        model = model_of("tokens", positions="learned", readout=readout)
        assert model(inputs_of("tokens", steps=5)).shape == (4, 3)
        with pytest.raises(zoo.ZooError, match="has 6 steps, and the learned positions end at 5"):
            model.predict(inputs_of("tokens", steps=6), raw=False)
    assert model_of("tokens")(inputs_of("tokens", steps=40)).shape == (4, 3)


def test_a_forecast_has_the_scale_and_the_level_of_its_window() -> None:
    model, x = model_of("series"), inputs_of("series")
    torch.testing.assert_close(model(300 * x + 7000), 300 * model(x) + 7000, rtol=1e-7, atol=1e-6)
    history = torch.randn(20, dtype=torch.float64)
    ahead = model.forecast(history, 3)
    torch.testing.assert_close(ahead[:2], model(history[-8:].view(1, 8, 1))[0])
    again = torch.cat([history[-6:], ahead[:2]])
    torch.testing.assert_close(ahead[2], model(again.view(1, 8, 1))[0, 0])
    with pytest.raises(zoo.ZooError, match="A forecast needs 8 steps of history"):
        model.forecast(history[:3], 1)


@pytest.mark.parametrize("kind", SPECS)
def test_pictures_of_each_kind(kind: str) -> None:
    model = model_of(kind, readout="cls")
    y = {"class": torch.tensor([0, 1, 2, 0]), "value": torch.randn(4, 2), "series": torch.randn(4, 2)}
    batch = Batch.of(kind, inputs_of(kind), y[SPECS[kind].target])  # type: ignore[index]
    with torch.no_grad():
        names = [name for name, _ in model.pictures(batch, model.predict_batch(batch))]
    assert names[-1] == "attention"
    assert ("forecast" in names) == (kind == "series")


def test_texts_of_the_user_are_read_again_after_a_second_fit() -> None:
    texts, y = ["good day", "", "bad night bad", "good"] * 4, ["yes", "no", "no", "yes"] * 4
    model = zoo.create_model("transformer_encoder", **TINY, num_layers=1)
    for _ in range(2):
        zoo.fit(model, [[ord(sign) - 97 if sign != " " else 26 for sign in text] or [27] for text in texts], y,
                max_epochs=2, device="cpu")  # fmt: skip
    assert set(model.predict([[1, 2], [27]]).tolist()) <= {"yes", "no"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, r"must be a multiple of model\.num_heads=4"),
        ({"patch_size": 0}, r"model\.patch_size must be"),
        ({"layers": "torch", "positions": "rotary"}, "no rotary positions: use model.layers=zoo"),
        ({"hidden_size": 6, "num_heads": 2, "positions": "rotary"}, "heads of even width, not 3"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("transformer_encoder", **options)


def test_one_class_is_one_line() -> None:
    with pytest.raises(zoo.ZooError, match="at least two classes"):
        zoo.create_model("transformer_encoder", DataSpec("tokens", (5,), "class", num_classes=1, vocab_size=3))
