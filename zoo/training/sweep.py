"""What a sweep ends in: a table of its runs, best first, on the screen and as `sweep.csv`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo.training.terminal import make_console, print_folded, shown_path

__all__ = ["Outcome", "Run", "Sweep"]


class Outcome(NamedTuple):
    """What a run ended with.

    Attributes:
        value: of the metric by which runs are compared; None where there is none.
        name: of that metric.
        mode: whether the smallest value of it is the best (`min`) or the largest (`max`).
        metrics: all of them.
        folder: of the run.
    """

    value: float | None
    name: str = ""
    mode: str = "min"
    metrics: dict[str, float] = {}
    folder: str = ""


@dataclass(frozen=True)
class Run:
    """A run of a sweep: its number, what it was told, and what it ended with or why it failed."""

    number: int
    overrides: dict[str, str]
    outcome: Outcome | None = None
    failure: str = ""

    @property
    def failed(self) -> bool:
        """Whether it failed, and was not stopped by a search."""
        return bool(self.failure) and not self.failure.startswith("pruned")

    @property
    def name(self) -> str:
        return self.outcome.name if self.outcome else ""


def parts_of(overrides: Iterable[str]) -> dict[str, str]:
    """Return overrides as keys and values.

    >>> parts_of(["model=mlp", "+trainer.max_time=1"])
    {'model': 'mlp', 'trainer.max_time': '1'}
    """
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf8", newline="")
    os.replace(partial, path)


@dataclass
class Sweep:
    """The runs of a sweep, told as they end.

    Args:
        folder: where `sweep.csv` goes.
    """

    folder: Path | None = None
    runs: list[Run] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)  # that prints the table

    def add(self, run: Run) -> None:
        """Take a run that has ended, and write the table anew: a sweep that is stopped has its own, too.

        A run in a process of its own, which a launcher has started, leaves what it ended with for `collect`.
        """
        if os.getpid() != self.process and self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / f".run_{run.number}.json", json.dumps(asdict(run)))
            return
        self.runs.append(run)
        if self.folder is not None:
            self.write(self.folder / "sweep.csv")

    def collect(self) -> None:
        """Take the runs that have ended in processes of their own."""
        for file in sorted(self.folder.glob(".run_*.json")) if self.folder is not None else ():
            said = json.loads(file.read_text(encoding="utf8"))
            outcome = said.pop("outcome")
            self.add(Run(**said, outcome=None if outcome is None else Outcome(*outcome)))
            file.unlink()

    @property
    def keys(self) -> list[str]:
        """The keys in which the runs differ; of a single run all that it was told."""
        keys = dict.fromkeys(key for run in self.runs for key in run.overrides)
        return [key for key in keys if len({run.overrides.get(key) for run in self.runs}) > 1 or len(self.runs) == 1]

    @property
    def ranked(self) -> list[Run]:
        """The runs, best first: side by side those of one metric; those without a value, and failed ones, last."""
        names = list(dict.fromkeys(run.name for run in self.runs))

        def rank(run: Run) -> tuple[bool, int, float, int]:
            value = run.outcome.value if run.outcome else None
            known = value is not None and not math.isnan(value)
            sign = -1 if run.outcome and run.outcome.mode == "max" else 1
            return run.outcome is None, names.index(run.name), sign * value if known else math.inf, run.number  # type: ignore[operator]

        return sorted(self.runs, key=rank)

    def write(self, path: Path) -> None:
        """Write the table with all metrics of the runs, whole or not at all."""
        metrics = dict.fromkeys(m for run in self.runs if run.outcome for m in run.outcome.metrics)
        names = ["run", *self.keys, "metric", "value", "failure", "folder", *metrics]
        text = io.StringIO()
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        for run in self.ranked:
            row: dict[str, Any] = {"run": run.number, "failure": run.failure}
            row |= {key: run.overrides.get(key, "") for key in self.keys}
            if run.outcome:
                row |= {"metric": run.name, "value": run.outcome.value, "folder": run.outcome.folder}
                row |= run.outcome.metrics
            writer.writerow(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text.getvalue())

    def leave_nothing_if_refused(self) -> None:
        """Take the sweep's folder away if none of its runs came to an end; what others wrote there stays."""
        if self.folder is None or any(run.outcome for run in self.runs):
            return
        if self.runs:
            (self.folder / "sweep.csv").unlink(missing_ok=True)
        if not (self.folder / "sweep.csv").exists():  # else Hydra's file is of a sweep before
            (self.folder / "multirun.yaml").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for folder in (self.folder, *self.folder.parents[:2]):
                folder.rmdir()
        self.folder = None

    def print(self, console: Console | None = None) -> None:
        """Print the table, and below it why runs failed."""
        console = console or make_console()
        ranked, metrics = self.ranked, list(dict.fromkeys(run.name for run in self.runs if run.outcome))
        by = f" by {metrics[0]}, best first" if len(metrics) == 1 else ", best first"
        console.print(Text(f"sweep of {len(self.runs)} run{'s' * (len(self.runs) != 1)}{by}", "bold"))
        header = [
            "run",
            *self.keys,
            *(["metric"] if len(metrics) > 1 else []),
            metrics[0] if len(metrics) == 1 else "value",
        ]
        rows = [self._row(run, len(metrics) > 1) for run in ranked]
        folders = [shown_path(run.outcome.folder) if run.outcome and run.outcome.folder else "" for run in ranked]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        wide = any(folders) and sum(widths) + 2 * len(widths) + max(map(len, folders), default=0) <= console.width
        table = Table(*header, *(["folder"] if wide else []), box=None, header_style="bold", pad_edge=False)
        for column in table.columns:
            column.overflow = "fold"
        for row, folder in zip(rows, folders, strict=True):
            table.add_row(*map(Text, row), *([Text(folder)] if wide else []))
        console.print(table)
        for run in ranked:
            if run.failure:
                print_folded(console, run.failure, f"run {run.number} {'failed' if run.failed else 'was stopped'}: ")
        if self.folder is not None:
            console.print(
                Text.assemble((f"{'table':<13}", "dim"), shown_path(self.folder / "sweep.csv")), soft_wrap=True
            )

    def _row(self, run: Run, with_metric: bool) -> list[str]:
        value = run.outcome.value if run.outcome else None
        shown = (
            ("failed" if run.failed else "pruned") if run.outcome is None else "" if value is None else f"{value:.6g}"
        )
        told = [run.overrides.get(key, "") for key in self.keys]
        return [str(run.number), *told, *([run.name] if with_metric else []), shown]
