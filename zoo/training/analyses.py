"""What `evaluate.py analysis=NAME` asks of a finished run: the table of analyses, each imported when it is asked for.

An analysis is a module of `zoo.analysis` with one function, `analyze(subject) -> Findings`. They stand above training,
since some train models of their own, so that the table has their names, as the registry has those of models.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import visual
from zoo.checks import check_type
from zoo.data.spec import Batch
from zoo.errors import unknown_name
from zoo.models.base import ZooModel
from zoo.training.pictures import spread, write_csv
from zoo.training.terminal import shown_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ANALYSES", "Findings", "Subject", "check_analyses", "run_analyses"]

ANALYSES: dict[str, str] = {
    "gradients": "zoo.analysis.gradients",
    "sequential_jacobian": "zoo.analysis.jacobian",
}


@dataclass(frozen=True)
class Subject:
    """What an analysis looks at.

    Attributes:
        model: the trained model.
        data: its DataModule.
        split: the rows that are held out.
        settings: the run's config.
    """

    model: ZooModel
    data: Any
    split: str
    settings: dict[str, Any]

    def rows(self, most: int) -> Batch:
        """Return up to `most` of the held-out rows, spread evenly over them, as the model takes them."""
        rows = self.data.rows(self.split)
        return self.model.as_batch(rows[spread(len(rows), most)])


@dataclass(frozen=True)
class Findings:
    """What an analysis found: figures and tables by name, and what it says of them in words."""

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    text: str = ""


def check_analyses(asked: str | Sequence[str] | None) -> list[str]:
    """Return the names of the analyses that were asked for.

    Raises:
        ZooError: for one that is not there, with the nearest.

    Example:
        >>> check_analyses("sequential_jacobian"), check_analyses(None)
        (['sequential_jacobian'], [])
    """
    check_type("analysis", asked, str | list[str] | None)
    names = [asked] if isinstance(asked, str) else list(asked or ())
    for name in names:
        if name not in ANALYSES:
            raise unknown_name("analysis", str(name), ANALYSES)
    return names


def run_analyses(names: Sequence[str], subject: Subject, folder: Path, writer: Any = None) -> None:
    """Run analyses, and write what they found: `NAME.png`, `NAME.csv` and TensorBoard's figures.

    Args:
        names: of `ANALYSES`.
        subject: what they look at.
        folder: where the files go.
        writer: TensorBoard's SummaryWriter, or None.
    """
    for name in names:
        folder.mkdir(parents=True, exist_ok=True)
        with visual.rows_of(subject.split):
            found: Findings = importlib.import_module(ANALYSES[name]).analyze(subject)
        for title, figure in found.figures.items():
            figure.savefig(folder / f"{title}.png", dpi=120, bbox_inches="tight")
            if writer is not None:
                writer.add_figure(f"{name}/{title}", figure, global_step=subject.model.global_step)
        for title, rows in found.tables.items():
            write_csv(folder / f"{title}.csv", rows)
        if writer is not None:
            writer.flush()
        print("\n".join(filter(None, [found.text, f"{name}: {shown_path(folder)}"])))
