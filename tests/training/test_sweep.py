"""A sweep ends in a table of its runs: best first in the right direction, failed ones named, the same as a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from zoo.training.sweep import Outcome, Run, Sweep


def sweep_of(values: list[float | None], mode: str, folder: Path | None = None) -> Sweep:
    """A sweep over a learning rate, a run for each value; None is one that failed."""
    sweep = Sweep(folder)
    for number, value in enumerate(values):
        told = {"model": "mlp", "optimizer.lr": f"0.{number + 1}", "model.widths": "[64,64]"}
        metrics = {"val/loss": 0.5, "test/r2": 0.25}
        outcome = (
            None if value is None else Outcome(value, "val/score", mode, metrics, f"/runs/{'x' * 60}/now_{number}")
        )
        sweep.add(Run(number, told, outcome, "" if outcome else "The loss is nan at step 3: no update was made."))
    return sweep


def shown(sweep: Sweep, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    sweep.print(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_is_first_and_what_failed_last(mode: str, tmp_path: Path) -> None:
    values = [0.3, None, 0.1, float("nan"), 0.2, float("inf")]
    sweep = sweep_of(values, mode, tmp_path)
    order = [run.number for run in sweep.ranked]
    finite = [2, 4, 0] if mode == "min" else [0, 4, 2]
    assert order == ([*finite, 3, 5, 1] if mode == "min" else [5, *finite, 3, 1])
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["run"]) for row in rows] == order
    assert [row["optimizer.lr"] for row in rows] == [f"0.{number + 1}" for number in order]
    assert "model" not in rows[0]  # in which they do not differ
    assert rows[-1]["failure"] == "The loss is nan at step 3: no update was made."
    assert rows[0]["test/r2"] == "0.25"
    assert rows[0]["folder"].endswith(f"now_{order[0]}")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_and_names_what_failed(width: int, tmp_path: Path) -> None:
    out = shown(sweep_of([0.5, None, 0.25], "max", tmp_path), width)
    lines = out.splitlines()
    assert lines[0] == "sweep of 3 runs by val/score, best first"
    assert [line.split()[0] for line in lines[2:5]] == ["0", "2", "1"]
    assert "failed" in lines[4]
    assert "run 1 failed: The loss is nan at step 3: no update was made." in " ".join(out.split())
    assert all(len(line) <= width or line.startswith("table") for line in lines)
    assert "…" not in out
    assert ("now_0" in out) == (width == 200)  # folders where there is room for them
    assert "sweep.csv" in lines[-1]


def test_what_runs_were_told_is_never_cut() -> None:
    sweep, told = Sweep(), "[1024,512,256,128,64,32,16,8,4,2]"
    for number in range(2):
        overrides = {"model.widths": told + str(number), "regularization.early_stopping.patience": str(number)}
        sweep.add(Run(number, overrides, Outcome(1.0, "val/accuracy", "max", {}, "")))
    out = shown(sweep, 50)
    assert "…" not in out
    assert all(len(line) <= 50 for line in out.splitlines())
    assert all(part in "".join(out.split()) for part in ("1024", "512", "patience"))


def test_runs_of_different_metrics_stand_side_by_side_by_metric() -> None:
    sweep = Sweep()
    for number, (name, mode, value) in enumerate(
        [("val/accuracy", "max", 0.5), ("val/loss", "min", 2.0), ("val/accuracy", "max", 0.9), ("val/loss", "min", 1.0)]
    ):
        sweep.add(Run(number, {"model": f"m{number}"}, Outcome(value, name, mode)))
    sweep.add(Run(4, {"model": "m4"}, Outcome(None)))
    assert [run.number for run in sweep.ranked] == [2, 0, 3, 1, 4]
    out = shown(sweep)
    assert out.splitlines()[1].split() == ["run", "model", "metric", "value"]


def test_runs_in_processes_of_their_own_are_collected(tmp_path: Path) -> None:
    parent, child = Sweep(tmp_path), Sweep(tmp_path, process=-1)
    child.add(Run(1, {"model.depth": "2"}, failure="it stumbled"))
    child.add(Run(0, {"model.depth": "1"}, Outcome(0.5, "val/loss", "min", {"val/loss": 0.5}, "runs/0")))
    assert not (tmp_path / "sweep.csv").exists()
    parent.collect()
    assert parent.ranked == [
        Run(0, {"model.depth": "1"}, Outcome(0.5, "val/loss", "min", {"val/loss": 0.5}, "runs/0")),
        Run(1, {"model.depth": "2"}, failure="it stumbled"),
    ]
    assert isinstance(parent.ranked[0].outcome, Outcome)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_a_sweep_of_one_run_says_what_it_was_told() -> None:
    sweep = Sweep()
    sweep.add(Run(0, {"seed": "3"}, Outcome(1.0, "val/loss")))
    assert sweep.keys == ["seed"]
    assert shown(sweep).startswith("sweep of 1 run by val/loss")
