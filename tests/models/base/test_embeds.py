"""Tokens' vectors that come from a file of word vectors: by word, tuned or frozen, and part of the checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, run_command

import zoo
from zoo.data.spec import DataSpec
from zoo.text import Tokenizer, WordVectors
from zoo.training.checkpoint import load_model, save_model

MODELS = ("rnn", "lstm", "gru", "mlp")
TEXTS = ["good the film was", "bad the film was", "good good", "Bad bad film"] * 6


@pytest.fixture
def vectors(tmp_path: Path) -> WordVectors:
    words = WordVectors(["the", "good", "bad", "elsewhere"], 0.1 * torch.randn(4, 5))
    words.save(tmp_path / "vectors.bin")
    return words


def spec_of(**fields: Any) -> DataSpec:
    tokenizer = Tokenizer.train(TEXTS, "word")  # [UNK] good film the was bad Bad
    fields = {"vocab_size": tokenizer.vocab_size, "tokenizer": tokenizer.to_json(), **fields}
    return DataSpec("tokens", (4,), **{"target": "class", "num_classes": 2, **fields})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("freeze", [True, False])
def test_words_take_their_vectors_and_a_saved_model_needs_no_file(
    name: str, freeze: bool, vectors: WordVectors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of()
    caplog.set_level(logging.INFO, "zoo")
    model = zoo.create_model(name, spec, embedding=str(tmp_path), freeze_embedding=freeze)
    assert "has vectors for 4 of 7 tokens" in caplog.text  # Bad is bad
    table = model.embedding.weight
    vocabulary = Tokenizer.from_json(spec.tokenizer).vocabulary
    for number, word in enumerate(vocabulary):
        if word.lower() in vectors:
            assert torch.equal(table[number], vectors[word.lower()])
    others = table[[number for number, word in enumerate(vocabulary) if word.lower() not in vectors]]
    assert 0 < others.std().item() < 0.5  # of the spread of the others, not of 1
    assert table.requires_grad != freeze
    assert all(p.requires_grad for n, p in model.named_parameters() if n != "embedding.weight")
    model(torch.zeros(2, 4, dtype=torch.long)).sum().backward()

    save_model(model, tmp_path / "model.ckpt")
    (tmp_path / "vectors.bin").unlink()
    again = load_model(tmp_path / "model.ckpt")
    assert torch.equal(again.embedding.weight, table)
    assert again.embedding.weight.requires_grad != freeze
    assert (again.hparams.embedding, again.hparams.embedding_size) == (None, 5)


def test_what_does_not_fit_is_one_line(vectors: WordVectors, tmp_path: Path) -> None:
    path = str(tmp_path / "vectors.bin")
    for fields, options, line in (
        ({}, {"embedding_size": 4}, "leave model.embedding_size=4 out"),
        ({"tokenizer": None}, {}, "bare numbers of tokens"),
        ({"tokenizer": Tokenizer.train(["xyz"], "char").to_json()}, {}, "has a vector for none of the tokens"),
    ):
        with pytest.raises(zoo.ZooError, match=line):
            zoo.create_model("mlp", spec_of(**fields), embedding=path, **options)
    for name, kind in (("mlp", "tabular"), ("gru", "sequence")):
        spec = DataSpec(kind, (4, 3), "class", num_classes=2)  # type: ignore[arg-type]
        with pytest.raises(zoo.ZooError, match=r"model\.embedding is for tokens"):
            zoo.create_model(name, spec, embedding=path)
    with pytest.raises(zoo.ZooError, match="There are no word vectors at"):
        zoo.create_model("mlp", spec_of(), embedding=str(tmp_path / "none"))


def test_a_run_tunes_vectors_or_leaves_them(
    vectors: WordVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{text},{'yes' if 'good' in text else 'no'}" for text in TEXTS]
    Path("texts.csv").write_text("\n".join(["text,fine", *rows]) + "\n", encoding="utf-8")
    command = ["model=mlp", CPU, "data=csv", "data.path=texts.csv", "data.text=text", "data.target=fine",
               "data.batch_size=4", "model.widths=[]", "model.embedding=vectors.bin",
               "trainer.max_epochs=1"]  # fmt: skip
    for freeze in ("true", "false"):
        assert run_command([*command, f"model.freeze_embedding={freeze}", f"run_dir=run-{freeze}"]) == 0
        assert "vectors.bin has vectors for 4 of 7 tokens" in capsys.readouterr().out
        model = load_model(f"run-{freeze}")
        number = Tokenizer.from_json(model.spec.tokenizer).vocabulary.index("good")  # type: ignore[union-attr]
        assert torch.equal(model.embedding.weight[number], vectors["good"]) == (freeze == "true")


@pytest.mark.parametrize("name", ["gpt", "transformer_encoder"])
def test_transformers_begin_with_vectors_of_their_width(name: str, vectors: WordVectors, tmp_path: Path) -> None:
    spec = spec_of() if name == "transformer_encoder" else spec_of(num_classes=None, target="tokens")
    options = {"hidden_size": 5, "num_heads": 1, "num_layers": 1}
    model = zoo.create_model(name, spec, embedding=str(tmp_path), **options)
    for number, word in enumerate(Tokenizer.from_json(spec.tokenizer).vocabulary):
        if word in vectors:
            torch.testing.assert_close(model.embedding(torch.tensor([number]))[0], vectors[word], rtol=1e-6, atol=1e-7)
    with pytest.raises(zoo.ZooError, match=r"vectors of 5 numbers, not 8: pass model\.hidden_size=5"):
        zoo.create_model(name, spec, embedding=str(tmp_path), **{**options, "hidden_size": 8})
    save_model(model, tmp_path / "model.ckpt")
    (tmp_path / "vectors.bin").unlink()
    again = load_model(tmp_path / "model.ckpt")
    assert torch.equal(again.embedding.weight, model.embedding.weight)
    assert again.hparams.embedding is None
    with pytest.raises(zoo.ZooError, match=r"model\.embedding=.* does nothing for image data"):
        zoo.create_model("transformer_encoder", DataSpec("image", (1, 8, 8), "class", num_classes=2), embedding="x")
