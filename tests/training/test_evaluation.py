"""evaluate.py: metrics, predictions and pictures of a finished run, right to the number."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from support import CPU, TINY, default_data, model_config, run_command

import zoo
from zoo.data.registry import create_data

PNG = b"\x89PNG\r\n\x1a\n"


class Runs:
    """A finished and evaluated run of each model, made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cache  # noqa: B019
    def __getitem__(self, name: str) -> Path:
        short = ["trainer.max_epochs=1", *(f"trainer.limit_{split}_batches=12" for split in ("train", "val", "test"))]
        arguments = [] if zoo.create_model(name).streaming else short
        run = self.folder / name
        assert run_command([f"model={name}", *TINY.get(name, []), *arguments, CPU, f"run_dir={run}"]) == 0
        assert run_command([f"run={run}", "accelerator=cpu"], "evaluate", pictures=True) == 0
        return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def test_a_prompt_for_a_model_without_text_is_refused_before_anything_is_written(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the evaluation that lies there stays as it is."""
    written = runs["kmeans"] / "evaluation" / "metrics.json"
    before = written.stat().st_mtime_ns
    assert run_command([f"run={runs['kmeans']}", "accelerator=cpu", "prompt=hello"], "evaluate") == 1
    assert "kmeans has nothing to go on with: leave prompt, steps and generate out." in capsys.readouterr().err
    assert written.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_run_is_evaluated(name: str, runs: Runs) -> None:
    folder = runs[name] / "evaluation"
    metrics = json.loads((folder / "metrics.json").read_text())
    split = metrics.pop("split")
    assert split == ("test" if default_data(name).has("test") else "train")
    assert metrics
    assert all(key.startswith(f"{split}/") for key in metrics)
    assert all(isinstance(value, float) for value in metrics.values())
    pictures = list((folder / "pictures").glob("*.png"))
    assert pictures
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 2000
    assert list(runs[name].glob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", zoo.list_models())
def test_predictions_have_a_row_for_each_row(name: str, runs: Runs) -> None:
    table = pq.read_table(runs[name] / "evaluation" / "predictions.parquet")
    options = dict(model_config(name)["data"])
    data = create_data(options.pop("name"), **options)
    rows = data.rows("test") if data.has("test") else data.rows("train")
    assert table.num_rows == len(rows)
    names = table.column_names
    batch = rows[torch.arange(min(3, len(rows)))]
    assert ("target" in names) == (batch.y is not None)
    assert "prediction" in names
    spec = data.spec
    if spec.target == "class" and "probability_0" in names:
        assert {f"probability_{i}" for i in range(spec.num_classes or 0)} <= set(names)


def test_the_numbers_agree_with_each_other_and_with_the_model(runs: Runs) -> None:
    run = runs["mlp"]
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    table = pq.read_table(run / "evaluation" / "predictions.parquet").to_pydict()
    hits = [p == t for p, t in zip(table["prediction"], table["target"], strict=True)]
    assert metrics["test/accuracy"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)
    data, model = create_data("digits"), zoo.load_model(run)
    rows = data.rows("test")
    batch = rows[torch.arange(len(rows))]
    assert table["target"] == batch.y.tolist()  # type: ignore[union-attr]
    columns = model.predict_columns(batch)
    assert table["prediction"] == columns["prediction"].tolist()
    assert table["prediction_name"] == [str(p) for p in table["prediction"]]
    ours = torch.tensor([table[f"probability_{i}"] for i in range(10)]).T
    assert torch.allclose(ours, columns["probability"], atol=1e-6)
    loss = torch.nn.functional.nll_loss(columns["probability"].log(), batch.y)  # type: ignore[arg-type]
    assert metrics["test/loss"] == pytest.approx(float(loss), rel=1e-4)


def test_regression_metrics_are_those_of_the_predictions(runs: Runs) -> None:
    run = runs["linear_regression"]
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    table = pq.read_table(run / "evaluation" / "predictions.parquet").to_pydict()
    prediction, target = torch.tensor(table["prediction"]).double(), torch.tensor(table["target"]).double()
    residual = target - prediction
    r2 = 1 - residual.square().sum() / (target - target.mean()).square().sum()
    assert metrics["test/mse"] == pytest.approx(float(residual.square().mean()), rel=1e-5)
    assert metrics["test/mae"] == pytest.approx(float(residual.abs().mean()), rel=1e-5)
    assert metrics["test/r2"] == pytest.approx(float(r2), rel=1e-4)


def test_other_splits_and_checkpoints(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["mlp"]
    assert run_command([f"run={run}", "split=val", "checkpoint=last", "accelerator=cpu"], "evaluate") == 0
    metrics = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())
    assert metrics.pop("split") == "val"
    assert {"val/loss", "val/accuracy"} <= set(metrics)
    assert all(key.count("/") == 1 for key in metrics)
    assert "mlp on digits" in capsys.readouterr().out
    data = create_data("digits")
    table = pq.read_table(run / "evaluation" / "val" / "predictions.parquet")
    assert table.num_rows == len(data.rows("val"))
    test = pq.read_table(run / "evaluation" / "predictions.parquet")  # of the test rows still
    assert test.num_rows == len(data.rows("test"))


def test_other_lengths_and_paths(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    ntm, ram = runs["ntm"], runs["ram"]
    before = (ntm / "evaluation" / "metrics.json").read_text()
    assert run_command([f"run={ntm}", "data.test_length=2", "accelerator=cpu"], "evaluate") == 0
    table = pq.read_table(ntm / "evaluation" / "test_length=2" / "predictions.parquet")
    assert {len(row) for row in table["prediction"].to_pylist()} == {8 * (2 * 2 + 1)}
    assert (ntm / "evaluation" / "metrics.json").read_text() == before
    assert run_command([f"run={ram}", "model.num_paths=3", "accelerator=cpu"], "evaluate") == 0
    table = pq.read_table(ram / "evaluation" / "num_paths=3" / "predictions.parquet")
    model, data = zoo.load_model(ram), create_data("digits")
    model.hparams.num_paths = 3
    batch = data.rows("test")[torch.arange(table.num_rows)]
    said = model.predict_columns(batch)["probability"]
    assert torch.allclose(torch.tensor(table["probability_0"].to_pylist()), said[:, 0], atol=1e-6)
    refused = {
        (ntm, "model.num_paths=3"): "A trained ntm has no model.num_paths to be given anew",
        (ram, "model.num_paths=0"): "num_paths must be",
        (ram, "data.test_length=3"): "has no option 'test_length'",
    }
    for (run, argument), line in refused.items():
        capsys.readouterr()
        assert run_command([f"run={run}", argument, "accelerator=cpu"], "evaluate") == 1
        assert line in capsys.readouterr().err


def test_evaluation_gives_what_training_ended_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert run_command(["model=mlp", "data=wine", "trainer.max_epochs=3", CPU, f"run_dir={run}"]) == 0
    printed = capsys.readouterr().out
    assert run_command([f"run={run}", "accelerator=cpu"], "evaluate") == 0
    table = [line for line in capsys.readouterr().out.splitlines() if "test/" in line]
    assert table
    assert all(line in printed for line in table)


def test_tensorboard_shows_the_pictures_that_are_written(runs: Runs) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs["mlp"]), size_guidance={"images": 0})
    events.Reload()
    files = sorted((runs["mlp"] / "evaluation" / "pictures").glob("*.png"))
    assert len(files) > 2
    for file in files:
        shown = [(image.encoded_image_string, (image.width, image.height)) for image in events.Images(file.stem)]
        assert (file.read_bytes(), Image.open(file).size) in shown


def test_the_hparams_of_a_run_are_in_its_events(runs: Runs) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs["mlp"]))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "val/loss", "val/accuracy", "test/accuracy"} <= scalars
    assert "confusion_matrix" in events.Tags()["images"]
    assert events.Tags()["graph"]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert "_hparams_/session_end_info" in events.summary_metadata
    assert "_hparams_/experiment" not in events.summary_metadata
