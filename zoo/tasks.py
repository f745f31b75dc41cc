"""The one table of what data ask of a model: (kind of data, kind of target) → task, objective, head, metrics, monitor.

A model says which pairs it accepts; whether `lstm` is a classifier, a language model or a forecaster follows from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from zoo.errors import unknown_name

__all__ = ["KINDS", "TASKS", "Task", "check_pair", "find_task", "task_names"]

KINDS = ("tabular", "image", "sequence", "tokens", "pairs", "series", "transactions")


@dataclass(frozen=True)
class Task:
    """What a supervised model is asked to do.

    Attributes:
        name: `classification`, `regression`, ...
        objective: the class of `zoo.models.base.objectives` that has its loss and metrics.
        head: whether the model answers `once` for each example or at `each_step` of it.
        metrics: what is reported beside the loss.
        monitor: the validation value that decides which checkpoint is the best.
        mode: whether that is the smallest (`min`) or the largest (`max`).
    """

    name: str
    objective: str
    head: Literal["once", "each_step"]
    metrics: tuple[str, ...]
    monitor: str
    mode: Literal["min", "max"]


CLASSIFICATION = Task("classification", "Classification", "once", ("accuracy", "f1"), "val/accuracy", "max")
REGRESSION = Task("regression", "Regression", "once", ("mse", "mae", "r2"), "val/loss", "min")
FORECASTING = Task("forecasting", "Regression", "once", ("mse", "mae", "r2"), "val/loss", "min")
LANGUAGE_MODELING = Task("language_modeling", "TokenPrediction", "each_step", ("perplexity",), "val/loss", "min")
BIT_PREDICTION = Task("bit_prediction", "BitPrediction", "each_step", ("bits", "error"), "val/loss", "min")
TRANSLATION = Task("translation", "TokenPrediction", "each_step", ("perplexity",), "val/loss", "min")

TASKS: dict[tuple[str, str], Task] = {
    **{(kind, "class"): CLASSIFICATION for kind in ("tabular", "image", "sequence", "tokens", "pairs")},
    **{(kind, "value"): REGRESSION for kind in ("tabular", "image", "sequence", "tokens", "pairs")},
    ("series", "series"): FORECASTING,
    ("sequence", "bits"): BIT_PREDICTION,
    ("tokens", "tokens"): LANGUAGE_MODELING,
    ("pairs", "tokens"): TRANSLATION,
}


def find_task(kind: str, target: str | None) -> Task | None:
    """Return the task that data of a kind pose with a kind of target; None where there is nothing to learn from.

    >>> find_task("tokens", "tokens").name
    'language_modeling'
    """
    return TASKS.get((kind, target)) if target is not None else None


def task_names(accepts: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    """Return the names of the tasks that pairs of (kind, target) pose, without repeats, in their order."""
    tasks = (find_task(kind, target) for kind, target in accepts)
    return tuple(dict.fromkeys(task.name for task in tasks if task is not None))


def check_pair(kind: str, target: str | None) -> None:
    """Raise one line unless the table knows a pair of (kind, target)."""
    if kind not in KINDS:
        raise unknown_name("kind of data", kind, KINDS)
    if target is not None and (kind, target) not in TASKS:
        raise unknown_name(f"target of {kind} data", str(target), [t for k, t in TASKS if k == kind])
