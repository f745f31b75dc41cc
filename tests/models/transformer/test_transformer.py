"""The transformer for pairs: torch's layers inside, padding, decoding with a cache and without, texts in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import Held
from torch import Tensor

import zoo
from zoo.data.base import ZooDataModule
from zoo.data.new_rows import read_new_rows
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.objectives import IGNORED
from zoo.models.transformer.encoder_parts import recorded
from zoo.training.checkpoint import load_model, save_model
from zoo.training.trainer import make_trainer

SPEC = DataSpec("pairs", (6, 5), "tokens", vocab_size=9)
TINY: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "num_encoder_layers": 2, "num_decoder_layers": 2}


def model_of(spec: DataSpec = SPEC, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return zoo.create_model("transformer", spec, **{**TINY, **options}).eval()


@pytest.fixture(scope="module")
def dates() -> ZooDataModule:
    return zoo.create_data("dates", num_pairs=60)


def reading(data: ZooDataModule, **options: Any) -> Any:
    model = model_of(data.spec, **options)
    model.preprocessing = data.preprocessing
    return model


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_torchs_layers_give_the_same(norm_first: bool, tie_embeddings: bool) -> None:
    options = {"norm_first": norm_first, "tie_embeddings": tie_embeddings, "activation": "gelu_tanh"}
    ours, theirs = (model_of(layers=layers, **options).double() for layers in ("zoo", "torch"))
    source, target = torch.randint(9, (3, 6)), torch.randint(9, (3, 5))
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    gradients = []
    for model in (ours, theirs):
        output = model(source, target, mask)
        output.square().mean().backward()
        gradients.append((output.detach(), *(p.grad for p in model.parameters())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_no_step_sees_a_later_one() -> None:
    model, source, target = model_of(), torch.randint(9, (1, 6)), torch.randint(9, (1, 5))
    changed = target.clone()
    changed[0, 3] = (target[0, 3] + 1) % 9
    before, after = model(source, target), model(source, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def pairs_of(lengths: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(torch.randint(9, (s,)), torch.randint(9, (t,)), torch.randint(9, (t,))) for s, t in lengths]


def padded(pairs: list[tuple[Tensor, Tensor, Tensor]], more: int, fill: int) -> Batch:
    sizes = [max(len(pair[side]) for pair in pairs) + more for side in (0, 1)]
    source, target = (torch.full((len(pairs), size), fill) for size in sizes)
    y, masks = torch.full(target.shape, IGNORED), [torch.zeros(t.shape, dtype=torch.bool) for t in (source, target)]
    for row, (s, t, said) in enumerate(pairs):
        source[row, : len(s)], target[row, : len(t)], y[row, : len(t)] = s, t, said
        masks[0][row, : len(s)], masks[1][row, : len(t)] = True, True
    return Batch(source=source, source_mask=masks[0], target=target, target_mask=masks[1], y=y)


@pytest.mark.parametrize("layers", ["zoo", "torch"])
def test_padding_changes_no_answer_loss_metric_or_gradient(layers: str) -> None:
    model, pairs = model_of(layers=layers).double(), pairs_of([(6, 2), (1, 5), (3, 1)])
    found = []
    for more, fill in ((0, 0), (4, 7)):
        batch = padded(pairs, more, fill)
        model.zero_grad()
        loss = model.objective.loss(model.output(batch), batch)
        loss.backward()
        metrics = model.evaluate(batch)
        found.append([loss, *metrics.values(), *(p.grad.clone() for p in model.parameters())])
        predicted = model.predict_batch(batch)["prediction"]
        assert bool((predicted[~batch.target_mask] == IGNORED).all())
        for row, (source, target, _) in enumerate(pairs):
            alone = model(source.unsqueeze(0), target.unsqueeze(0))[0]
            torch.testing.assert_close(model.output(batch)[row, : len(target)], alone, rtol=1e-9, atol=1e-12)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


TEXTS = [
    "May 3, 1979",
    "",
    "the 22nd of December 2031 and a good deal longer than any source of the training",
    "6.1.80",
]


@pytest.mark.parametrize("options", [{"decoding": "greedy"}, {"decoding": "beam", "num_beams": 3}, {"top_k": 4}])
def test_a_text_is_translated_alike_alone_in_a_batch_and_without_a_cache(
    options: dict[str, Any], dates: ZooDataModule
) -> None:
    model = reading(dates)
    together = model.generate(TEXTS, steps=8, **options)
    assert together == [model.generate(text, steps=8, **options) for text in TEXTS]
    assert together == model.generate(TEXTS, steps=8, cache=False, **options)
    assert not model.training


def test_a_draft_that_translates_changes_no_greedy_text(dates: ZooDataModule) -> None:
    model, draft = reading(dates), reading(dates, hidden_size=4, num_encoder_layers=1)
    greedy = {"decoding": "greedy", "steps": 8}
    assert model.generate(TEXTS, draft=draft, **greedy) == model.generate(TEXTS, **greedy)
    assert "".join(model.stream(TEXTS[0], draft=draft, **greedy)) == model.generate(TEXTS[0], **greedy)
    assert len(model.generate(TEXTS, steps=3, num_return=2, draft=draft)[0]) == 2
    other = zoo.DataSpec("tokens", (4,), "tokens", vocab_size=SPEC.vocab_size)
    with pytest.raises(zoo.ZooError, match="draft is a model of tokens, and this one"):
        model.generate(TEXTS, draft=zoo.create_model("gpt", other, hidden_size=4))


def test_predict_translates_texts_and_a_table_holds_them(dates: ZooDataModule, tmp_path: Path) -> None:
    model = reading(dates)
    answers = model.predict(TEXTS)
    steps = dates.spec.shape[1]
    assert answers.tolist() == model.generate(TEXTS, steps=steps, decoding="greedy")
    assert answers.tolist() == model.predict(TEXTS, batch_size=1).tolist()
    assert model.predict([]).tolist() == []
    (tmp_path / "new.txt").write_text("\n".join(["May 3, 1979", "6.1.80"]))
    ((rows, where, _),) = read_new_rows(str(tmp_path / "new.txt"), model.spec, model.preprocessing, {})
    table = model.answers(model.predict_columns(model.prepare(rows, where=where)))
    assert table.to_pydict() == {"prediction": [answers[0], answers[3]]}
    save_model(model, tmp_path / "model.ckpt")
    assert load_model(tmp_path / "model.ckpt").predict(TEXTS).tolist() == answers.tolist()
    with pytest.raises(zoo.ZooError, match="X must be texts to translate"):
        model.predict([[1, 2]])


def test_a_test_says_the_bleu_of_beam_search(tmp_path: Path) -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="the peer that BLEU is checked against is not installed")
    lines = ["a b c\tc b a a b", "b c a\tb a c b a", "c a b\ta c b a c", "a b c\ta a a a a", "b b b\tb b b b b"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    options = {"path": str(tmp_path / "pairs.txt"), "tokenizer": "word", "val_fraction": 0.0, "test_fraction": 0.0}
    data = zoo.create_data("parallel_text", batch_size=2, **options)
    model, batch = reading(data, dropout=0.0), data.rows("train")[torch.arange(5)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(12):
        optimizer.zero_grad()
        model.objective.loss(model.output(batch), batch).backward()
        optimizer.step()
    sources, right = zip(*(line.split("\t") for line in [*lines[:3], lines[4]]), strict=True)  # each source once
    said = model.generate(sources, steps=data.spec.shape[1], decoding="beam", num_beams=4)
    theirs = sacrebleu.corpus_bleu(said, [list(right)]).score
    assert 0 < theirs < 100
    assert zoo.evaluate(model, data, split="train")["bleu"] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("layers", ["zoo", "torch"])
def test_pairs_are_learnt_by_heart(layers: str, dates: ZooDataModule) -> None:
    """What is said is what was to be said, end included: tokens, targets and what follows them are rightly aligned."""
    model, batch = reading(dates, dropout=0.0, layers=layers), dates.rows("train")[torch.arange(3)]
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.objective.loss(model.output(batch), batch).backward()
        optimizer.step()
    pairs = [list(dates.pairs())[i] for i in dates.rows("train").index[:3].tolist()]
    assert model.predict([source for source, _ in pairs]).tolist() == [target for _, target in pairs]
    ((name, table),) = model.samples(batch)
    assert name == "translations"
    assert f"|{pairs[0][0]}|{pairs[0][1]}|{pairs[0][1]}|" in table


def test_a_second_fit_takes_longer_pairs() -> None:
    model = zoo.create_model("transformer", **TINY)
    for lengths in ([(3, 2)] * 4, [(6, 7)] * 4):
        batch = padded(pairs_of(lengths), 0, 0)
        spec = DataSpec("pairs", lengths[0], "tokens", vocab_size=9)
        make_trainer(model, accelerator="cpu", progress=False, max_epochs=1).fit(model, datamodule=Held(spec, batch))


def test_pictures_show_what_each_head_looks_at(dates: ZooDataModule) -> None:
    batch = dates.rows("train")[torch.arange(3)]
    maps = {}
    for layers in ("zoo", "torch"):
        model = reading(dates, layers=layers)
        names = [name for name, _ in model.pictures(batch, model.predict_batch(batch))]
        assert names == ["attention_source", "attention_target", "attention_memory"]
        with torch.no_grad(), recorded(layer.multihead_attn for layer in model.core.decoder.layers) as weights:
            model.output(batch)
        maps[layers] = torch.stack(weights)  # (L, B, H, T, S)
    assert maps["zoo"].shape == (2, 3, 2, batch.target.shape[1], batch.source.shape[1])
    torch.testing.assert_close(maps["zoo"].sum(-1), torch.ones(maps["zoo"].shape[:-1]))
    torch.testing.assert_close(maps["zoo"], maps["torch"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, r"model\.hidden_size=10 must be a multiple of model\.num_heads=4"),
        ({"num_decoder_layers": 0}, r"model\.num_decoder_layers must be"),
        ({"label_smoothing": 1.5}, r"model\.label_smoothing must be"),
        ({"dropout": -0.1}, r"model\.dropout must be"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("transformer", **options)


def test_dates_are_said_as_iso_does() -> None:
    data = zoo.create_data("dates", num_pairs=200, seed=3)
    pairs = list(data.pairs())
    assert pairs == list(zoo.create_data("dates", num_pairs=200, seed=3).pairs())
    assert pairs != list(zoo.create_data("dates", num_pairs=200, seed=4).pairs())
    for source, target in pairs:
        year, _, day = target.split("-")
        assert year in source
        assert str(int(day)) in source
    with pytest.raises(zoo.ZooError, match=r"data\.num_pairs must be at least 1"):
        zoo.create_data("dates", num_pairs=0)
