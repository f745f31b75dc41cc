r"""Cross-validation: how well a model answers rows that it has not seen, from rows that each take their turn.

The mean of the folds' metrics, and an interval about it. Trainings share most of their rows, so that folds are not
independent and the usual standard error is too small; with J folds of all repeats, and n₂ rows asked for n₁ rows
trained on, that of Nadeau and Bengio is

```math
\mathrm{se}^2 = \Bigl(\frac1J + \frac{n_2}{n_1}\Bigr) s^2, \qquad \bar m \pm t_{J-1,\,0.975}\,\mathrm{se}
```

with the variance s² of the folds' metrics (divided by J − 1).

Sources: Stone 1974; Kohavi 1995 (stratified); Nadeau & Bengio 2003, §3 (the interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from torch import Tensor

from zoo import visual
from zoo.analysis.folds import assign_folds
from zoo.analysis.learners import ArrayLearner, Job, Learner, Population, RunLearner, main_metric, train_all
from zoo.checks import Range
from zoo.errors import ZooError
from zoo.training.analyses import Findings, Subject
from zoo.training.terminal import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CrossValidation", "Interval", "analyze", "cross_validation", "interval"]


@dataclass(frozen=True)
class Interval:
    """A mean of folds, and within what it lies in 95 of 100 cases."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], share: float) -> Interval:
    """Return mean and interval of J values, of which each was asked `share` times as many rows as it was trained on.

    >>> found = interval([0.9, 0.8, 0.7], 0.5)
    >>> round(found.mean, 3), round(found.high - found.mean, 3)
    (0.8, 0.393)
    """
    from scipy.stats import t

    numbers = torch.tensor(list(values), dtype=torch.float64)
    mean, count = float(numbers.mean()), len(numbers)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(t.ppf(0.975, count - 1)) * math.sqrt((1 / count + share) * float(numbers.var()))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class CrossValidation:
    """The metrics of J folds.

    Attributes:
        folds: what was measured of each fold, in their order, repeat by repeat.
        train: the same of the rows that were trained on.
        sizes: rows asked and trained on, of each fold.
        repeats: how often all rows took their turn.
    """

    folds: list[dict[str, float]]
    train: list[dict[str, float]]
    sizes: list[tuple[int, int]]
    repeats: int

    def values(self, metric: str) -> list[float]:
        """Return a metric of each fold."""
        return [fold[metric] for fold in self.folds]

    def intervals(self) -> dict[str, Interval]:
        """Return mean and interval of each metric."""
        share = sum(held for held, _ in self.sizes) / max(1, sum(trained for _, trained in self.sizes))
        return {metric: interval(self.values(metric), share) for metric in self.folds[0]}

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each fold, with its metrics of the rows asked and of those trained on."""
        per_repeat = len(self.folds) // self.repeats
        return [
            {"repeat": number // per_repeat, "fold": number % per_repeat, "rows": held, "train_rows": trained}
            | fold
            | {f"train_{name}": value for name, value in train.items()}
            for number, (fold, train, (held, trained)) in enumerate(
                zip(self.folds, self.train, self.sizes, strict=True)
            )
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for each metric: mean, interval, the folds' deviation, and the mean of the training rows."""
        found = []
        for metric, about in self.intervals().items():
            numbers = torch.tensor(self.values(metric), dtype=torch.float64)
            trained = sum(fold[metric] for fold in self.train) / len(self.train)
            found.append(
                {"metric": metric, "mean": about.mean, "low": about.low, "high": about.high,
                 "std": float(numbers.std()), "training": trained}
            )  # fmt: skip
        return found

    def figure(self, metric: str | None = None) -> Figure:
        """Draw a metric of each fold, its mean and its interval."""
        metric = metric or main_metric(list(self.folds[0]))
        about = self.intervals()[metric]
        return visual.folds(self.values(metric), about.mean, (about.low, about.high), metric)

    def __str__(self) -> str:
        return text_table(self.summary())


class Division(NamedTuple):
    """The row numbers of a training, and those that are asked then."""

    train: Tensor
    held: Tensor


def cross_validation(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    stratified: bool | None = None,
    groups: Any = None,
    processes: int = 1,
    seed: int = 0,
    **fit_options: Any,
) -> CrossValidation:
    """Return what a model reaches on each fold of the rows after it was trained on the others.

    Args:
        model: of `zoo.create_model`; it stays as it is, and each training makes one of its hyperparameters.
        x: rows, as `zoo.fit` takes them.
        y: targets (N,).
        sample_weight: weights (N,), in training and in the metrics.
        folds: K.
        repeats: how often the rows are divided anew.
        stratified: whether each fold gets its share of each class; None: where there are classes.
        groups: what a row belongs to, (N,): rows of a group are in one fold.
        processes: trainings at a time.
        seed: of folds and parameters.
        **fit_options: further arguments of `zoo.fit`. Scaling and the coding of columns are learnt in each training
            from its own rows.

    Raises:
        ZooError: for more folds than rows or groups, one class, or a model without targets.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(20.0).view(-1, 1)
        >>> found = cross_validation(zoo.create_model("linear_regression"), x, 2 * x[:, 0])
        >>> round(found.intervals()["r2"].mean, 6)
        1.0
    """
    learner = ArrayLearner.of(model, x, y, sample_weight, fit_options)
    pairs = divisions(learner.population(), folds, repeats, stratified=stratified, groups=groups, seed=seed)
    return validate(learner, pairs, repeats, processes=processes, seed=seed)


def validate(
    learner: Learner, pairs: Sequence[Division], repeats: int, *, processes: int = 1, seed: int = 0
) -> CrossValidation:
    """Return what `cross_validation` does, of any learner and any division of the rows."""
    jobs = [Job(train, held, seed) for train, held in pairs]
    found = train_all(learner, jobs, processes)
    sizes = [(len(held), len(train)) for train, held in pairs]
    return CrossValidation([r.held for r in found], [r.train for r in found], sizes, repeats)


def divisions(
    population: Population,
    folds: int,
    repeats: int = 1,
    *,
    stratified: bool | None = None,
    groups: Any = None,
    seed: int = 0,
) -> list[Division]:
    """Return for each fold, repeat by repeat, the row numbers to train on and those to ask.

    Args:
        population: the rows.
        folds: K.
        repeats: how often the rows are divided anew.
        stratified: whether each fold gets its share of each class; None: where there are classes.
        groups: what each row of the pool belongs to.
        seed: of the draw.
    """
    if repeats < 1:
        raise ZooError(f"repeats must be at least 1, not {repeats}.")
    if stratified and population.strata is None:
        raise ZooError("stratified divides the rows of each class, and the targets are values: leave it out.")
    strata, pool = None if stratified is False else population.strata, population.pool
    found = []
    for repeat in range(repeats):
        fold = assign_folds(len(pool), folds, strata=strata, groups=groups, seed=seed + repeat)
        found += [Division(pool[fold != k], pool[fold == k]) for k in range(folds)]
    return found


def rows_of(subject: Subject, groups: str | None) -> tuple[RunLearner, Population, Any]:
    """Return the recipe of a run, its rows, and what those of the pool belong to by the column `groups`."""
    learner = RunLearner.of(subject)
    population = learner.population()
    return learner, population, None if groups is None else learner.column(groups)[population.pool.numpy()]


def analyze(
    subject: Subject,
    *,
    folds: Annotated[int, Range(2)] = 5,
    repeats: Annotated[int, Range(1)] = 1,
    stratified: bool | None = None,
    groups: str | None = None,
    processes: Annotated[int, Range(1)] = 1,
    seed: Annotated[int, Range(0)] = 0,
) -> Findings:
    """Cross-validate the recipe of a finished run on the rows that it did not test."""
    learner, population, belongs = rows_of(subject, groups)
    pairs = divisions(population, folds, repeats, stratified=stratified, groups=belongs, seed=seed)
    found = validate(learner, pairs, repeats, processes=processes, seed=seed)
    times = f", {repeats} times" if repeats > 1 else ""
    title = f"{folds} folds of {len(population.pool):,} rows{times}; mean and 95 % interval"
    tables = {"cross_validation": found.table(), "cross_validation_summary": found.summary()}
    return Findings({"cross_validation": found.figure()}, tables, f"{title}\n{found}")
