r"""Validation curves: what a model reaches by one of its settings, on the rows it was trained on and on others.

Too small a capacity shows as both curves far from what is hoped for, too large a one as a gap between them.

Source: Hastie, Tibshirani & Friedman 2009, §7.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from zoo.analysis.cross_validation import Division, divisions, rows_of
from zoo.analysis.learners import ArrayLearner, Job, Learner, train_all
from zoo.analysis.learning_curve import Curve, curve_of, findings
from zoo.checks import Range
from zoo.errors import ZooError
from zoo.training.analyses import Findings, Subject

__all__ = ["analyze", "validation_curve"]


def validation_curve(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    parameter: str,
    values: Sequence[Any],
    folds: int = 5,
    stratified: bool | None = None,
    groups: Any = None,
    processes: int = 1,
    seed: int = 0,
    **fit_options: Any,
) -> Curve:
    """Return what a model reaches with each value of a parameter, by cross-validation.

    A training that diverges leaves a gap in the curve.

    Args:
        model: of `zoo.create_model`; it stays as it is.
        x: rows, as `zoo.fit` takes them.
        y: targets (N,).
        sample_weight: weights (N,).
        parameter: a hyperparameter such as `max_depth`, or an argument of `zoo.fit`: `lr`, `l1`, `l2`, `max_epochs`, ….
        values: what it becomes.
        folds: of the cross-validation, the same for each value.
        stratified: whether each fold has its share of each class; None: where there are classes.
        groups: what a row belongs to, (N,): rows of a group are in one fold.
        processes: trainings at a time.
        seed: of folds and parameters.
        **fit_options: further arguments of `zoo.fit`.

    Raises:
        ZooError: for a parameter that is not there or a value out of its range, or what `cross_validation` refuses.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(40.0).view(-1, 1)
        >>> model = zoo.create_model("decision_tree")
        >>> found = validation_curve(model, x, x[:, 0].sin(), parameter="max_depth", values=[1, 3])
        >>> train = found.means("mse", "train")[0]
        >>> train[0] > train[1]
        True
    """
    learner = ArrayLearner.of(model, x, y, sample_weight, fit_options)
    pairs = divisions(learner.population(), folds, stratified=stratified, groups=groups, seed=seed)
    return vary(learner, pairs, parameter, values, processes=processes, seed=seed)


def vary(
    learner: Learner,
    pairs: Sequence[Division],
    parameter: str,
    values: Sequence[Any],
    *,
    processes: int = 1,
    seed: int = 0,
) -> Curve:
    """Return what `validation_curve` does, of any learner and any division of the rows."""
    if not len(values):
        raise ZooError("values are empty: pass what the parameter becomes.")
    learner.check([parameter])
    for value in values:  # one that is out of range is refused before anything is trained
        learner.model({parameter: value})
    jobs = [Job(train, held, seed, {parameter: value}) for value in values for train, held in pairs]
    found = train_all(learner, jobs, processes, keep_failures=True)
    starts = range(0, len(found), len(pairs))
    return curve_of(parameter, values, [found[start : start + len(pairs)] for start in starts])


def analyze(
    subject: Subject,
    *,
    parameter: str | None = None,
    values: list[Any] | None = None,
    folds: Annotated[int, Range(2)] = 5,
    stratified: bool | None = None,
    groups: str | None = None,
    metric: str | None = None,
    processes: Annotated[int, Range(1)] = 1,
    seed: Annotated[int, Range(0)] = 0,
) -> Findings:
    """Train the recipe of a finished run with each value of one of its settings, on the rows that it did not test."""
    if parameter is None or not values:
        raise ZooError(
            "validation_curve needs what is varied: pass validation_curve.parameter=model.KEY (or optimizer.lr, …) and "
            "validation_curve.values=[…]."
        )
    learner, population, belongs = rows_of(subject, groups)
    pairs = divisions(population, folds, stratified=stratified, groups=belongs, seed=seed)
    found = vary(learner, pairs, parameter, values, processes=processes, seed=seed)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    wide = len(numbers) == len(values) > 2 and min(numbers) > 0 and max(numbers) / min(numbers) > 50
    return findings(found, "validation_curve", metric, f"{folds} folds of {len(population.pool):,} rows", log_x=wide)
