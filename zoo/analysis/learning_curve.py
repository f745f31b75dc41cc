r"""Learning curves: what a model reaches on rows it has not seen, and on those it was trained on, by their number.

Of each fold's training rows growing beginnings are taken, each of which is part of the next. Where both curves have met
far from what is hoped for, the model is too small (bias); where they are far apart and still approach each other, more
rows will help (variance).

Source: Cortes, Jackel, Solla, Vapnik & Denker 1993, "Learning curves: asymptotic values and rate of convergence".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from zoo import visual
from zoo.analysis.cross_validation import Division, divisions, rows_of
from zoo.analysis.folds import balanced_order
from zoo.analysis.learners import ArrayLearner, Job, Learner, Result, main_metric, train_all
from zoo.checks import Range
from zoo.errors import ZooError
from zoo.training.analyses import Findings, Subject
from zoo.training.terminal import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SIZES", "Curve", "analyze", "learning_curve"]

SIZES = (0.1, 0.325, 0.55, 0.775, 1.0)


@dataclass(frozen=True)
class Curve:
    """Metrics over something that is varied.

    Attributes:
        name: what is varied.
        values: of it, (V,).
        train: of each value, the metrics of each fold's training rows.
        held: the same of the rows that were asked; none of a training that diverged.
    """

    name: str
    values: list[Any]
    train: list[list[dict[str, float]]]
    held: list[list[dict[str, float]]]

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured."""
        return next((list(fold) for folds in self.held for fold in folds if fold), [])

    def means(self, metric: str, of: str = "held") -> tuple[list[float], list[float]]:
        """Return mean and deviation over the folds for each value, of rows asked (`held`) or trained on (`train`)."""
        numbers = [
            torch.tensor([fold.get(metric, float("nan")) for fold in folds], dtype=torch.float64)
            for folds in getattr(self, of)
        ]
        return [float(n.mean()) for n in numbers], [float(n.std(correction=0)) for n in numbers]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each value: each metric's mean and deviation, of the rows asked and of those trained on."""
        columns: dict[str, list[Any]] = {self.name.rpartition(".")[2]: self.values}
        for metric in self.metrics:
            for of in ("held", "train"):
                name = metric if of == "held" else f"train_{metric}"
                columns[name], columns[f"{name}_std"] = self.means(metric, of)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def shown(self, metric: str) -> list[dict[str, Any]]:
        """Return the table of one metric."""
        first = self.name.rpartition(".")[2]
        names = (first, metric, f"{metric}_std", f"train_{metric}", f"train_{metric}_std")
        return [{name: row[name] for name in names} for row in self.table()]

    def figure(self, metric: str | None = None, *, log_x: bool = False) -> Figure:
        """Draw a metric of the rows trained on and of those asked."""
        metric = metric or main_metric(self.metrics)
        series = {"training": self.means(metric, "train"), "validation": self.means(metric)}
        return visual.bands(series, self.values, title="", xlabel=self.name, ylabel=metric, log_x=log_x)

    def __str__(self) -> str:
        return text_table(self.shown(main_metric(self.metrics)))


def curve_of(name: str, values: Sequence[Any], results: list[list[Result]]) -> Curve:
    """Return the curve of the results of each value."""
    if not any(result.held for folds in results for result in folds):
        raise ZooError(f"All trainings diverged. {results[0][0].failure}")
    return Curve(name, list(values), [[r.train for r in f] for f in results], [[r.held for r in f] for f in results])


def learning_curve(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    sizes: Sequence[float] = SIZES,
    folds: int = 5,
    stratified: bool | None = None,
    groups: Any = None,
    processes: int = 1,
    seed: int = 0,
    **fit_options: Any,
) -> Curve:
    """Return what a model reaches after trainings on more and more rows, by cross-validation.

    Args:
        model: of `zoo.create_model`; it stays as it is.
        x: rows, as `zoo.fit` takes them.
        y: targets (N,).
        sample_weight: weights (N,).
        sizes: shares of the training rows, above 0 and at most 1, or numbers of rows.
        folds: of the cross-validation.
        stratified: whether each sample has its share of each class; None: where there are classes.
        groups: what a row belongs to, (N,): rows of a group are in one fold.
        processes: trainings at a time.
        seed: of folds, samples and parameters.
        **fit_options: further arguments of `zoo.fit`.

    Raises:
        ZooError: for sizes out of range, or what `cross_validation` refuses.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(40.0).view(-1, 1)
        >>> found = learning_curve(zoo.create_model("linear_regression"), x, 2 * x[:, 0], sizes=[0.5, 1.0])
        >>> found.values
        [16, 32]
    """
    learner = ArrayLearner.of(model, x, y, sample_weight, fit_options)
    population = learner.population()
    pairs = divisions(population, folds, stratified=stratified, groups=groups, seed=seed)
    classes = None if stratified is False or population.strata is None else population.y
    return grow(learner, pairs, sizes, classes, processes=processes, seed=seed)


def grow(
    learner: Learner,
    pairs: Sequence[Division],
    sizes: Sequence[float],
    classes: Tensor | None,
    *,
    processes: int = 1,
    seed: int = 0,
) -> Curve:
    """Return what `learning_curve` does, of any learner and any division; samples have their share of `classes`."""
    numbers = _numbers(sizes, min(len(train) for train, _ in pairs))
    jobs = []
    for train, held in pairs:
        strata = None if classes is None else classes[train]
        order: Tensor = train[balanced_order(len(train), strata=strata, seed=seed)]
        jobs += [Job(order[:number].sort().values, held, seed) for number in numbers]
    found = train_all(learner, jobs, processes)
    return curve_of("rows", numbers, [found[number :: len(numbers)] for number in range(len(numbers))])


def _numbers(sizes: Sequence[float], most: int) -> list[int]:
    """Return numbers of rows for shares or numbers of them, in order and without repeats.

    >>> _numbers([0.5, 1.0], 10), _numbers([3, 7], 10)
    ([5, 10], [3, 7])
    """
    found = []
    for size in sizes:
        number = round(size * most) if isinstance(size, float) and 0 < size <= 1 else size
        if not 1 <= number <= most or number != int(number):
            raise ZooError(
                f"sizes must be shares above 0 and at most 1.0, or numbers up to the {most:,} rows of a training, "
                f"not {size}."
            )
        found.append(int(number))
    if not found:
        raise ZooError("sizes are empty: pass shares or numbers of rows.")
    return sorted(set(found))


def analyze(
    subject: Subject,
    *,
    sizes: list[float] | None = None,
    folds: Annotated[int, Range(2)] = 5,
    stratified: bool | None = None,
    groups: str | None = None,
    metric: str | None = None,
    processes: Annotated[int, Range(1)] = 1,
    seed: Annotated[int, Range(0)] = 0,
) -> Findings:
    """Train the recipe of a finished run on more and more of the rows that it did not test."""
    learner, population, belongs = rows_of(subject, groups)
    pairs = divisions(population, folds, stratified=stratified, groups=belongs, seed=seed)
    classes = None if stratified is False or population.strata is None else population.y
    found = grow(learner, pairs, SIZES if sizes is None else sizes, classes, processes=processes, seed=seed)
    return findings(found, "learning_curve", metric, f"{folds} folds of {len(population.pool):,} rows")


def findings(found: Curve, name: str, metric: str | None, about: str, *, log_x: bool = False) -> Findings:
    """Return a curve as findings: its picture and its text of one metric, its table of all."""
    metric = metric or main_metric(found.metrics)
    if metric not in found.metrics:
        raise ZooError(f"{name}.metric must be one of {', '.join(found.metrics)}, not {metric}.")
    figure, said = found.figure(metric, log_x=log_x), f"{about}; mean and deviation\n{text_table(found.shown(metric))}"
    return Findings({name: figure}, {name: found.table()}, said)
