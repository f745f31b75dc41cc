"""What `evaluate.py analysis=NAME` asks of a finished run: the table of analyses, each imported when it is asked for.

An analysis is a module of `zoo.analysis` with one function, `analyze(subject, *, ...) -> Findings`, whose keyword
arguments are the keys of its section in configs/evaluate.yaml; `check(subject)` beside it refuses a run that it is not
for, before anything is computed or written. They stand above training, since some train models of their own, so that
the table has their names, as the registry has those of models.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import visual
from zoo.checks import check_type
from zoo.data.spec import Batch
from zoo.errors import ZooError, unknown_name
from zoo.models.base import ZooModel
from zoo.training.catalogue import config_dir
from zoo.training.pictures import keep_picture, spread, write_csv
from zoo.training.terminal import shown_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ANALYSES", "Findings", "Subject", "check_analyses", "check_subject", "run_analyses"]

ANALYSES: dict[str, str] = {
    "bias_variance": "zoo.analysis.bias_variance",
    "calibration": "zoo.analysis.calibration",
    "cross_validation": "zoo.analysis.cross_validation",
    "gradients": "zoo.analysis.gradients",
    "learning_curve": "zoo.analysis.learning_curve",
    "loss_surface": "zoo.analysis.loss_surface",
    "permutation_importance": "zoo.analysis.permutation",
    "sequential_jacobian": "zoo.analysis.jacobian",
    "validation_curve": "zoo.analysis.validation_curve",
}


@dataclass(frozen=True)
class Subject:
    """What an analysis looks at.

    Attributes:
        model: the trained model.
        data: its DataModule.
        split: the rows that are held out.
        settings: the run's config, with whole paths of its data.
        accelerator: what computes.
        folder: of the run.
    """

    model: ZooModel
    data: Any
    split: str
    settings: dict[str, Any]
    accelerator: str = "auto"
    folder: Path | None = None

    def batches(self) -> Iterator[Batch]:
        """Yield all held-out rows, as the model takes them."""
        for batch in self.data.loader(self.split):
            yield self.model.as_batch(batch)

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


def check_analyses(asked: str | Sequence[str] | None, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the analyses that were asked for, each with its options.

    Args:
        asked: a name, or several.
        options: the config of the command, with a section for each analysis that has options.

    Raises:
        ZooError: for an analysis that is not there, with the nearest; an option out of range; and one that differs from
            its default in the section of an analysis that was not asked for.

    Example:
        >>> check_analyses("sequential_jacobian"), check_analyses(None)
        ({'sequential_jacobian': {}}, {})
    """
    check_type("analysis", asked, str | list[str] | None)
    names = [asked] if isinstance(asked, str) else list(asked or ())
    for name in names:
        if name not in ANALYSES:
            raise unknown_name("analysis", str(name), ANALYSES)
    sections = {name: dict((options or {}).get(name) or {}) for name in ANALYSES}
    for name, section in sections.items():
        if not section:
            continue
        defaults = configured(name)
        given = [key for key, value in section.items() if value != defaults[key]]
        if given and name not in names:
            raise ZooError(f"{name}.{given[0]} is of use with analysis={name} alone: ask for it, or leave it out.")
    return {name: _checked(name, sections[name]) for name in names}


def _checked(name: str, section: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an analysis, of which each fits what its function says."""
    types = options_of(name)
    return {key: check_type(f"{name}.{key}", value, types[key]) for key, value in section.items()}


def options_of(name: str) -> dict[str, Any]:
    """Return the options of an analysis with their types."""
    analyze = importlib.import_module(ANALYSES[name]).analyze
    options = [key for key, p in inspect.signature(analyze).parameters.items() if p.kind is p.KEYWORD_ONLY]
    types = typing.get_type_hints(analyze, include_extras=True) if options else {}
    return {key: types[key] for key in options}


@functools.cache
def configured(name: str) -> dict[str, Any]:
    """Return the section of an analysis as configs/evaluate.yaml has it."""
    from omegaconf import OmegaConf

    settings: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "evaluate.yaml"))
    return settings.get(name) or {}


def check_subject(names: Iterable[str], subject: Subject) -> None:
    """Raise in one line where an analysis is not for a subject, by the `check(subject)` of its module if it has one."""
    for name in names:
        check = getattr(importlib.import_module(ANALYSES[name]), "check", None)
        if check is not None:
            check(subject)


def run_analyses(names: Mapping[str, Any], subject: Subject, folder: Path, writer: Any = None) -> None:
    """Run analyses, and write what they found: `NAME.png`, `NAME.csv` and TensorBoard's figures.

    Args:
        names: of `ANALYSES`, each with its options.
        subject: what they look at.
        folder: where the files go.
        writer: TensorBoard's SummaryWriter, or None.
    """
    for name, options in names.items():
        with visual.rows_of(subject.split):
            found: Findings = importlib.import_module(ANALYSES[name]).analyze(subject, **options)
        folder.mkdir(parents=True, exist_ok=True)
        for title, figure in found.figures.items():
            keep_picture(figure, folder / f"{title}.png", writer, f"{name}/{title}", subject.model.global_step)
        for title, rows in found.tables.items():
            write_csv(folder / f"{title}.csv", rows)
        if writer is not None:
            writer.flush()
        print("\n".join(filter(None, [found.text, f"{name}: {shown_path(folder)}"])))
