"""Runs on texts: the tokenizer lies in the run and stays the same, and a moved run reads raw texts as it did."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support import CHECKOUT, CPU, free_port, run_command

import zoo
from zoo.text import Tokenizer
from zoo.training import pictures
from zoo.training.checkpoint import load_model

WORDS = {"spam": "free call now win cash prize", "ham": "home later see you at the bus"}


@pytest.fixture
def messages(tmp_path: Path) -> tuple[Path, list[str]]:
    random, rows = np.random.default_rng(0), [("kind", "text")]
    for number in range(80):
        kind = ("ham", "spam")[number % 2]
        rows.append((kind, " ".join(random.choice(WORDS[kind].split(), random.integers(0, 6)))))
    file = tmp_path / "files" / "m.csv"
    file.parent.mkdir()
    with open(file, "w", newline="") as target:
        csv.writer(target).writerows(rows)
    return file, [text for _, text in rows[1:]]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param("mlp", ["data.tokenizer=bpe", "data.vocab_size=300"], marks=pytest.mark.slow),
        ("naive_bayes", ["data.view=tfidf", "data.ngrams=2"]),
    ],
)
def test_a_moved_run_reads_raw_texts_as_it_did(
    model: str, options: list[str], messages, tmp_path: Path, capsys, monkeypatch
) -> None:
    file, texts = messages
    run, split = tmp_path / "run", ["data.val_fraction=0", "data.test_fraction=0"]
    if model == "mlp":
        options = [*options, "trainer.max_epochs=2", "model.widths=[]"]
    else:
        options = [*options, "model.likelihood=multinomial"]
    source = ["data=csv", f"data.path={file}", "data.text=text", "data.target=kind"]
    assert run_command([f"model={model}", *source, *split, *options, CPU, f"run_dir={run}"]) == 0
    assert run_command([f"run={run}", "split=train", "accelerator=cpu"], "evaluate") == 0
    said = pq.read_table(run / "evaluation" / "predictions.parquet")["prediction"].to_pylist()
    fitted = zoo.load_model(run)
    assert fitted.spec is not None
    assert Tokenizer.load(run).to_json() == Tokenizer.from_json(fitted.spec.tokenizer).to_json()
    new = tmp_path / "new.csv"
    shutil.copy(file, new)
    shutil.rmtree(file.parent)
    shutil.move(run, tmp_path / "moved")
    assert zoo.load_model(tmp_path / "moved").predict(texts).tolist() == said
    out = tmp_path / "out.parquet"
    assert run_command([f"run={tmp_path}/moved", f"data.path={new}", f"output={out}"], "predict") == 0
    assert pq.read_table(out)["prediction"].to_pylist() == said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    capsys.readouterr()
    assert run_command([f"run={tmp_path}/moved", "data.path=-"], "predict") == 1
    assert "Standard input is not UTF-8 text" in capsys.readouterr().err
    assert "" in texts
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in texts))  # an empty text is a text
    assert run_command([f"run={tmp_path}/moved", f"data.path={tmp_path}/lines.txt", f"output={out}"], "predict") == 0
    assert pq.read_table(out)["prediction"].to_pylist() == said


def test_a_resumed_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    """What Unigram learns differs in its last digits from one time to the next, so a run must learn it once."""
    text = " ".join(np.random.default_rng(0).choice(WORDS["ham"].split() + WORDS["spam"].split(), 3000))
    (tmp_path / "a.txt").write_text(text)
    options = ["model=rnn", "data=text_file", f"data.path={tmp_path}/a.txt", "data.tokenizer=unigram", CPU]
    options += ["data.vocab_size=40", "data.sequence_length=16", "data.batch_size=8", "model.hidden_size=8"]
    run = tmp_path / "run"
    assert run_command([*options, f"run_dir={run}", "trainer.max_epochs=1"]) == 0
    first = (run / "tokenizer.json").read_text()
    json.loads(first)
    other = json.loads(first)
    other["model"]["vocab"][-1][1] -= 1e-3  # as if it had been learnt at another time
    (run / "tokenizer.json").write_text(json.dumps(other, ensure_ascii=False))
    assert run_command([*options, f"run_dir={run}", "trainer.max_epochs=2"]) == 0
    model = zoo.load_model(run)
    assert model.spec is not None
    kept = json.loads(Tokenizer.from_json(model.spec.tokenizer).to_json())
    assert kept["model"]["vocab"][-1][1] == pytest.approx(other["model"]["vocab"][-1][1], abs=1e-9)
    assert torch.isfinite(next(model.parameters())).all()


def test_a_run_goes_on_with_a_text_as_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(" ".join(np.random.default_rng(0).choice(WORDS["ham"].split(), 800)))
    run = tmp_path / "run"
    options = ["data=text_file", f"data.path={tmp_path}/a.txt", "data.sequence_length=16", "data.batch_size=8", CPU]
    assert run_command(["model=gru", *options, f"run_dir={run}", "model.hidden_size=8", "trainer.max_epochs=1"]) == 0
    capsys.readouterr()
    model = zoo.load_model(run)

    def said(*asked: str) -> str:
        assert run_command([f"run={run}", "accelerator=cpu", *asked], "evaluate") == 0
        text = (run / "evaluation" / "continuation.txt").read_text()
        assert capsys.readouterr().out.endswith(text)
        return text.removesuffix("\n")

    assert said("prompt=the ", "steps=20") == model.generate("the ", 20)
    beam = ["generate.decoding=beam", "generate.num_beams=3", "generate.num_return=2", "generate.steps=6"]
    expected = model.generate("the", 6, decoding="beam", num_beams=3, num_return=2)
    assert said("generate.prompt=the", *beam) == "\n\n".join(expected)
    pair = model.generate(["at", "the bus"], 9, decoding="greedy")
    greedy = ["generate.decoding=greedy", "generate.steps=9", f"generate.draft={run}"]
    assert said("generate.prompt=[at,the bus]", *greedy) == "\n\n".join(pair)
    for wrong, why in (
        (
            ["generate.decoding=beam", "generate.num_beams=0"],
            "generate.num_beams must be an integer of at least 1, not",
        ),
        (["generate.top_p=2"], "generate.top_p must be a number above 0 and at most 1 or null, not 2."),
        (["generate.num_beams=9"], "num_beams does nothing with decoding=sample"),
        (["generate.draft=nowhere"], "There is no run or checkpoint at nowhere"),
    ):
        assert run_command([f"run={run}", *wrong], "evaluate") == 1
        assert why in capsys.readouterr().err


def test_the_options_of_generation_are_those_of_the_decoding() -> None:
    from dataclasses import asdict

    from support import compose

    from zoo.text import Decoding

    section = compose(name="evaluate")["generate"]
    assert section.pop("prompt") is None
    assert section.pop("draft") is None
    assert section == {**asdict(Decoding()), "steps": 200}


def test_a_prompt_is_read_as_it_stands() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from zoo.training.main import quoted_text

    for text in ("def ", " To be, or not: {a}", 'say "hi" \\', "it's\n", 'a\\"b', "\\n", "12", "null ", "a=b"):
        (override,) = OverridesParser.create().parse_overrides([quoted_text(f"generate.prompt={text}")])
        assert override.value() == text


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["unigram", "word"])
def test_two_processes_that_torchrun_starts_have_one_tokenizer(tokenizer: str, tmp_path: Path) -> None:
    """Unigram, as the library learns it, is not the same each time: the second process takes that of the first."""
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 400, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    arguments = ["model=gru", CPU, "data=text_file", "data.path=text.txt", f"data.tokenizer={tokenizer}",
                 "data.vocab_size=60", "data.sequence_length=16", "data.batch_size=4", "model.hidden_size=8",
                 "trainer.max_epochs=2", "trainer.devices=2", "trainer.strategy=ddp", "run_dir=run"]  # fmt: skip
    done = subprocess.run(
        [*torchrun, str(CHECKOUT / "train.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "run")
    assert model.spec is not None
    assert Tokenizer.load(tmp_path / "run").to_json() == Tokenizer.from_json(model.spec.tokenizer).to_json()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert metrics["val/loss"] < math.log(model.spec.vocab_size or 0)  # both learned the same tokens


def test_pictures_of_a_language_model_hold_few_scores() -> None:
    """2,000 windows of 128 tokens, each with a score for 4,096 others, would take four gigabytes."""
    data = zoo.create_data("text_file", path=__file__, sequence_length=8, batch_size=4)
    model = zoo.create_model("gru", data.spec, hidden_size=4)
    rows, spec = data.rows("train"), data.spec
    assert pictures.held_out(model, data, "train").size == min(len(rows), pictures.MAX_ROWS)
    with mock.patch.object(pictures, "MAX_SCORES", 5 * 8 * (spec.vocab_size or 0) + 1):
        assert pictures.held_out(model, data, "train").size == 5
