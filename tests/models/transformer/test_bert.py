"""BERT: which tokens are hidden, padding, fine-tuning, torch's layers inside, and `transformers` as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.objectives import IGNORED
from zoo.models.transformer.masking import hide_tokens
from zoo.training.checkpoint import load_model, save_model
from zoo.training.fit import fit

TINY: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "max_length": 8}
MASKED = DataSpec("tokens", (6,), "tokens", vocab_size=9)
CLASSES = DataSpec("tokens", (6,), "class", num_classes=3, vocab_size=9)


def model_of(spec: DataSpec, **options: Any) -> Any:
    torch.manual_seed(0)
    return zoo.create_model("bert", spec, **{**TINY, **options}).double().eval()


def test_of_fifteen_percent_four_fifths_read_mask() -> None:
    tokens = torch.randint(1000, (400, 100))
    read, guessed = hide_tokens(tokens, None, vocab_size=1000, mask_token=1000)
    hidden = guessed != IGNORED
    assert bool((hidden.sum(1) == 15).all())
    assert torch.equal(guessed[hidden], tokens[hidden])
    assert torch.equal(read[~hidden], tokens[~hidden])
    shares = [float((found[hidden]).double().mean()) for found in (read == 1000, read == tokens)]
    assert shares == pytest.approx([0.8, 0.1], abs=0.02)
    places = hidden.double().mean(0)  # every place alike: 400 draws of 0.15, of deviation 0.018
    assert float(places.min()) > 0.07
    assert float(places.max()) < 0.23
    other = read[hidden & (read != 1000) & (read != tokens)]
    assert other.unique().numel() > 300


def test_what_is_hidden_follows_from_the_text_and_the_draw_alone() -> None:
    tokens, lengths = torch.randint(9, (4, 6)), (6, 2, 5, 1)
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    found = []
    for fill in (0, 7):
        wide = torch.cat([tokens.where(mask, fill), torch.full((4, 3), fill)], 1)
        there = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], 1)
        found.append([t[there] for t in hide_tokens(wide, there, vocab_size=9, mask_token=9)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    for row, length in enumerate(lengths):
        alone = hide_tokens(tokens[row : row + 1, :length], None, vocab_size=9, mask_token=9)
        together = hide_tokens(tokens, mask, vocab_size=9, mask_token=9)
        assert all(torch.equal(a[0], t[row, :length]) for a, t in zip(alone, together, strict=True))
    text = torch.arange(99).view(1, 99)
    draws = [hide_tokens(text, None, vocab_size=99, mask_token=99, draw=number)[1] for number in (0, 1, 1)]
    assert torch.equal(draws[1], draws[2])
    assert not torch.equal(draws[0], draws[1])
    special = hide_tokens(torch.tensor([[3, 4, 3, 3]]), None, vocab_size=9, mask_token=9, kept=(3,))[1]
    assert special.tolist() == [[IGNORED, 4, IGNORED, IGNORED]]
    assert bool((hide_tokens(torch.tensor([[3]]), None, vocab_size=9, mask_token=9, kept=(3,))[1] == 3).all())


@pytest.mark.parametrize("spec", [MASKED, CLASSES], ids=["masked", "classes"])
def test_torchs_layers_give_the_same(spec: DataSpec) -> None:
    tokens, mask = torch.randint(9, (4, 6)), torch.arange(6) < torch.tensor([[6], [2], [5], [1]])
    found = []
    for layers in ("zoo", "torch"):
        model = model_of(spec, layers=layers)
        output = model(tokens, mask)
        kept = output[mask] if spec is MASKED else output
        kept.square().mean().backward()
        found.append((kept.detach(), *(p.grad for p in model.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_a_text_longer_than_the_positions_is_one_line() -> None:
    model = model_of(CLASSES)
    assert model(torch.zeros(1, 6, dtype=torch.long)).shape == (1, 3)
    with pytest.raises(zoo.ZooError, match=r"A text has 7 tokens, and model\.max_length=8 holds 6"):
        model.predict(torch.zeros(1, 7, dtype=torch.long), raw=False)


def test_training_hides_others_at_each_step_and_evaluation_always_the_same() -> None:
    model = model_of(DataSpec("tokens", (40,), "tokens", vocab_size=9), max_length=42)
    batch = Batch(tokens=torch.randint(9, (2, 40)))
    assert torch.equal(model.objective.hide(batch)[1], model.objective.hide(batch)[1])
    model.train()
    first = model.objective.hide(batch)[1]
    model.objective.step = 1
    assert not torch.equal(first, model.objective.hide(batch)[1])


def test_what_pre_training_learnt_is_fine_tuned_and_goes_along(tmp_path: Path) -> None:
    texts = [[1, 2, 3], [4], [2, 2, 5, 1]] * 4
    before = fit(zoo.create_model("bert", **TINY, num_layers=1), texts, max_epochs=1, device="cpu")
    save_model(before, tmp_path / "pre.ckpt")
    options = {**TINY, "num_layers": 1, "pretrained": str(tmp_path / "pre.ckpt")}
    spec = DataSpec.from_dict({**before.spec.to_dict(), "target": "class", "num_classes": 2})
    tuned = zoo.create_model("bert", spec, **options)
    for name in ("embedding.weight", "positions.weight", "core.layers.0.linear1.weight"):
        assert torch.equal(tuned.state_dict()[name], before.state_dict()[name])
    tuned = fit(tuned, texts, [0, 1, 0] * 4, max_epochs=1, device="cpu")
    save_model(tuned, tmp_path / "tuned.ckpt")
    (tmp_path / "pre.ckpt").unlink()
    again = load_model(tmp_path / "tuned.ckpt")
    assert torch.equal(again.predict(texts), tuned.predict(texts))
    with pytest.raises(zoo.ZooError, match=r"no file or folder .*pre\.ckpt"):
        zoo.create_model("bert", CLASSES, **options)


def test_a_pre_trained_model_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    save_model(model_of(MASKED).float(), tmp_path / "pre.ckpt")
    for options, spec, message in (
        ({"hidden_size": 8}, CLASSES, r"does not fit: its embedding\.weight is \[12, 16\]"),
        ({"num_layers": 1}, CLASSES, r"has more layers"),
        ({}, DataSpec("tokens", (6,), "class", num_classes=3, vocab_size=8), "reads another vocabulary"),
    ):
        with pytest.raises(zoo.ZooError, match=message):
            zoo.create_model("bert", spec, **{**TINY, **options, "pretrained": str(tmp_path / "pre.ckpt")})


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "##s", "a", "dog", "ran", "."]


SMALL = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 12,
}  # fmt: skip


def folder_of(path: Path, transformers: Any, sizes: dict[str, int], std: float) -> Any:
    """A folder with random weights as `transformers` writes it, and its model."""
    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=std)
    theirs.tie_weights()
    theirs.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return theirs


@pytest.mark.parametrize(
    ("sizes", "std"), [(SMALL, 0.3), pytest.param({}, 0.03, marks=pytest.mark.slow)], ids=["small", "bert_base"]
)
def test_folders_of_hugging_face_are_read_and_written(sizes: dict[str, int], std: float, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = folder_of(tmp_path / "theirs", transformers, sizes, std)
    ours = zoo.load_pretrained(tmp_path / "theirs")
    assert ours.entry.name == "bert"
    assert ours.hparams.num_layers == theirs.config.num_hidden_layers == (2 if sizes else 12)
    tokens = torch.randint(5, len(WORDS), (3, 7))
    lengths = torch.tensor([7, 3, 1])
    mask = torch.arange(7) < lengths.unsqueeze(1)
    ids, there = torch.full((3, 9), 3), torch.arange(9) < lengths.unsqueeze(1) + 2
    ids[:, 0] = 2
    ids[:, 1:8] = tokens.where(mask, 3)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=there.long()).logits[:, 1:8][mask]
        torch.testing.assert_close(ours(tokens, mask)[mask], wanted, rtol=1e-5, atol=1e-5)
        zoo.save_pretrained(ours, tmp_path / "ours")
        again = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours").eval()
        found = again(input_ids=ids, attention_mask=there.long()).logits[:, 1:8][mask]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
