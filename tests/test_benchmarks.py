"""Grids of benchmarks: what is measured in a run, what of earlier runs stands, and what is said of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import Job, Later
from benchmarks import __main__ as command
from benchmarks.__main__ import Choice, run_grid
from benchmarks._grid import Cell, read, save, summary

CELLS = {100: "Ridge, 100 × 2", 1_000: "Ridge, 1,000 × 2", 10_000: "Lasso, 10,000 × 2"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is written to."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    return tmp_path


def jobs(calls: list[str], fail: Callable[[], None] = lambda: None) -> Iterator[Job]:
    """A grid of three cells, of which the last takes some time, or fails."""
    for rows, name in CELLS.items():

        def ours(name: str = name, rows: int = rows) -> None:
            calls.append(name)
            if rows == 10_000:
                fail()

        where = {"rows": rows, "features": 2}
        yield Job(name, ours, lambda: time.sleep(1e-3), "a nap", pairs=1, where=where, quick=rows == 100)


def found(folder: Path) -> dict[str, Cell]:
    """The cells that lie in a folder."""
    (path,) = folder.glob("*.json")
    return read(path)


def test_a_grid_is_measured_in_parts(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_grid("linear", jobs(calls := []), Choice(only="Lasso*"))
    assert list(found(results)) == ["Lasso, 10,000 × 2"]
    assert set(calls) == {"Lasso, 10,000 × 2"}
    assert "1 cells" in capsys.readouterr().out
    lasso = found(results)["Lasso, 10,000 × 2"]
    assert run_grid("linear", jobs(calls := []), Choice(rest=True))
    assert set(calls) == {"Ridge, 100 × 2", "Ridge, 1,000 × 2"}
    assert list(found(results)) == list(CELLS.values()), "in the order of the grid"
    assert found(results)["Lasso, 10,000 × 2"] == lasso, "and not measured anew"
    assert run_grid("linear", jobs(calls := []), Choice())
    assert set(calls) == set(CELLS.values())
    section = next(results.glob("*.md")).read_text()
    assert section.count("| a nap |") == 3
    assert "3 cells: geometric mean" in section
    assert "Load of the machine" in section
    assert list(results.glob("*-linear.png"))


def test_what_is_ended_keeps_what_was_measured_and_what_stands(results: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_grid("linear", jobs([]), Choice())
    before = found(results)
    assert not run_grid("linear", jobs([], interrupted), Choice())
    after = found(results)
    assert after["Lasso, 10,000 × 2"] == before["Lasso, 10,000 × 2"]
    assert after["Ridge, 100 × 2"] != before["Ridge, 100 × 2"]
    assert "Ended before its last cell." in next(results.glob("*.md")).read_text()
    assert run_grid("linear", jobs(calls := []), Choice(end=time.monotonic() - 1))
    assert not calls
    assert found(results) == after


def test_a_quick_grid_writes_nothing(results: Path) -> None:
    assert run_grid("linear", jobs(calls := []), Choice(quick=True))
    assert set(calls) == {"Ridge, 100 × 2"}
    assert not list(results.iterdir())


def test_cells_of_several_threads_are_kept_apart(results: Path) -> None:
    def here() -> Iterator[Job]:
        yield Job("threads", seen, seen, "a nap", pairs=1, where={"rows": 1, "features": 2})

    def seen() -> None:
        found.add(torch.get_num_threads())

    before, found = torch.get_num_threads(), set[int]()
    assert run_grid("linear", here(), Choice(threads=before + 2))
    assert found == {before + 2}
    assert torch.get_num_threads() == before
    assert run_grid("linear", here(), Choice())
    assert found == {before + 2, 1}
    assert torch.get_num_threads() == before
    text = next(results.glob("*.md")).read_text()
    assert "## linear-grid\n" in text
    assert f"## linear-grid-{before + 2}-threads\n" in text
    assert len(list(results.glob("*.json"))) == len(list(results.glob("*.png"))) == 2


def test_of_jobs_that_take_long_to_make_only_the_measured_ones_are_made(results: Path) -> None:
    made = []

    def later() -> Iterator[Later]:
        for job in jobs([]):
            yield Later(job.name, lambda job=job: made.append(job.name) or job)

    assert run_grid("linear", later(), Choice(only="Lasso*"))
    assert made == ["Lasso, 10,000 × 2"]
    assert run_grid("linear", later(), Choice(rest=True))
    assert sorted(made) == sorted(CELLS.values())
    assert run_grid("linear", later(), Choice(quick=True))
    assert len(made) == 3


def test_the_summary_names_the_worst_cells(tmp_path: Path) -> None:
    ratios = {100: 4.0, 1_000: 0.5, 10_000: 0.5}
    cells = [Cell(CELLS[n], {"rows": n, "features": 2}, r, 1.0, "a nap", r, r, r, 1.0, 0.5) for n, r in ratios.items()]
    said = summary(cells, missing=2)
    assert said == (
        "3 cells: geometric mean 1.00, worst 4.00 (Ridge, 100 × 2); from 1,000 rows on worst 0.50 (Ridge, 1,000 × 2); "
        "2 more not measured."
    )
    save(tmp_path / "cells.json", cells)
    assert list(read(tmp_path / "cells.json").values()) == cells
