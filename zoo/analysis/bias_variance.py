r"""What the error of a model is made of: its bias, its variance over training samples, and the noise of the targets.

A model is trained on S samples, and $f_s(x)$ is what it then says. For squared error, with the mean answer
$\bar f = \frac1S \sum_s f_s$ and $y = g(x) + \varepsilon$,

```math
\mathbb E (y - f_s)^2 = \underbrace{(\bar f - g)^2}_{\text{bias}^2}
+ \underbrace{\mathbb E (f_s - \bar f)^2}_{\text{variance}} + \underbrace{\mathbb E\, \varepsilon^2}_{\text{noise}}
```

averaged over rows. The estimates are unbiased: the variance is divided by S − 1, and what the mean of S answers still
varies by, variance / S, is taken off the bias², which may come out slightly negative. Where neither the truth g nor the
noise nor rows with several targets are there, bias² has the noise in it.

For 0–1 loss it is Domingos' decomposition. With the main prediction m (the most frequent answer) and the best answer g
(the truth, or the most frequent target of equal rows; else the target),

```math
\text{error} = \underbrace{[m \ne g]}_{\text{bias}} + \underbrace{P(f_s \ne m)\,[m = g]}_{\text{variance}_u}
- \underbrace{P(f_s = g)\,[m \ne g]}_{\text{variance}_b} + \text{noise}
```

Variance makes the error of rows larger whose main prediction is right, and smaller where it is wrong; the variance is
the difference. The noise is what the error against the targets has beyond that against g: $c_1 N$ for two classes.

Letters: M rows that are asked, S samples, K targets.

Sources: Geman, Bienenstock & Doursat 1992; Domingos 2000 (0–1 loss).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor

from zoo import visual
from zoo.analysis.folds import assign_folds, draw_samples
from zoo.analysis.learners import ArrayLearner, Job, Learner, Population, RunLearner, train_all
from zoo.checks import Range
from zoo.data.arrays import to_tensor
from zoo.errors import ZooError
from zoo.training.analyses import Findings, Subject
from zoo.training.terminal import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BiasVariance", "Parts", "analyze", "bias_variance", "squared_error_parts", "zero_one_parts"]


@dataclass(frozen=True)
class Parts:
    """What an error is made of: bias (squared, of values) + variance + noise = error.

    Attributes:
        bias: bias², or the share of rows whose main prediction is wrong; with the noise in it where that is unknown.
        variance: of the answers; of classes the part that is added less the part that helps.
        noise: of the targets; None where it is unknown.
        error: measured by itself, over all samples and rows.
        variance_unbiased: of classes, how often answers leave a main prediction that is right.
        variance_biased: of classes, how often they leave a wrong one for the right one.
    """

    bias: float
    variance: float
    noise: float | None
    error: float
    variance_unbiased: float | None = None
    variance_biased: float | None = None


def squared_error_parts(
    answers: Tensor, y: Tensor, *, truth: Tensor | None = None, noise: float | None = None, rows: Tensor | None = None
) -> Parts:
    """Return the parts of the squared error, averaged over rows (and targets).

    Args:
        answers: of S trained models, (S, M) or (S, M, K), two of them at least.
        y: targets, (M,) or (M, K).
        truth: what the targets are without noise, of the same shape.
        noise: variance of the noise; where it is None and `rows` has repeats, that within rows of equal inputs.
        rows: to which of several different inputs each row belongs, (M,).

    Example:
        >>> answers = torch.tensor([[1.0], [3.0]], dtype=torch.float64)  # mean 2, variance 2
        >>> squared_error_parts(answers, torch.tensor([5.0]), truth=torch.tensor([4.0]), noise=0.5)
        Parts(bias=3.0, variance=2.0, noise=0.5, error=5.5, variance_unbiased=None, variance_biased=None)
    """
    answers, y = answers.double(), y.double()
    count = len(answers)
    mean = answers.mean(0)
    variance = float((answers - mean).square().sum(0).mean()) / (count - 1)
    aim = y if truth is None else truth.double().view_as(y)
    away = float((mean - aim).square().mean()) - variance / count
    error = float((answers - aim).square().mean())
    if truth is not None:
        noise = float((y - aim).square().mean()) if noise is None else float(noise)
        return Parts(away, variance, noise, error + noise)
    if noise is None and rows is not None:
        noise = _within(y, rows)
    return Parts(away - (noise or 0.0), variance, noise, error)


def _within(y: Tensor, rows: Tensor) -> float | None:
    """The variance of targets of equal rows about their mean, pooled; None where each row is there once."""
    count = torch.bincount(rows).double()
    spare = float((count - 1).clamp_min(0).sum())
    if not spare:
        return None
    flat = y.view(len(y), -1)
    total = flat.new_zeros(len(count), flat.shape[1]).index_add_(0, rows, flat)
    inner = (flat - (total / count.clamp_min(1)[:, None])[rows]).square()
    return float(inner.sum()) / (spare * flat.shape[1])


def zero_one_parts(
    answers: Tensor,
    y: Tensor,
    *,
    truth: Tensor | None = None,
    rows: Tensor | None = None,
    num_classes: int | None = None,
) -> Parts:
    """Return the parts of the share of wrong answers, after Domingos.

    Args:
        answers: classes that S trained models say, (S, M).
        y: targets, (M,).
        truth: the best answer to each row, (M,).
        rows: to which of several different inputs each row belongs, (M,): the most frequent target of equal rows is
            their best answer.
        num_classes: C; None takes the largest that occurs.

    Example:
        >>> answers = torch.tensor([[0, 0], [0, 1], [1, 0]])  # main prediction 0, 0
        >>> found = zero_one_parts(answers, torch.tensor([0, 1]))
        >>> found.bias, round(found.variance_unbiased, 3), round(found.variance_biased, 3), round(found.error, 3)
        (0.5, 0.167, 0.167, 0.5)
    """
    size = num_classes or int(max(answers.max(), y.max())) + 1
    votes = torch.zeros(answers.shape[1], size, dtype=torch.float64)
    votes.scatter_add_(1, answers.T, torch.ones_like(answers.T, dtype=torch.float64))
    main = votes.argmax(1)  # of equally frequent ones the first
    aim, noisy = (y, False) if truth is None else (truth.view_as(y), True)
    if truth is None and rows is not None and bool((torch.bincount(rows) > 1).any()):
        counts = torch.zeros(int(rows.max()) + 1, size, dtype=torch.float64)
        aim, noisy = counts.index_put_((rows, y), torch.ones(len(y), dtype=torch.float64), True).argmax(1)[rows], True
    wrong = main != aim
    error = float((answers != y).double().mean())
    unbiased = float(((answers != main) & ~wrong).double().mean())
    biased = float(((answers == aim) & wrong).double().mean())
    bias = float(wrong.double().mean())
    noise = error - float((answers != aim).double().mean()) if noisy else None
    return Parts(bias, unbiased - biased, noise, error, unbiased, biased)


@dataclass(frozen=True)
class BiasVariance:
    """The parts of the error, for each value of a parameter where one was varied.

    Attributes:
        parts: for each value.
        loss: `squared_error` or `zero_one`.
        samples: S.
        parameter: what was varied; empty for nothing.
        values: of the parameter.
    """

    parts: list[Parts]
    loss: str
    samples: int
    parameter: str = ""
    values: Sequence[Any] = ("",)

    @property
    def best(self) -> Any:
        """The value of the parameter with the smallest error."""
        return min(zip(self.values, self.parts, strict=True), key=lambda pair: pair[1].error)[0]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each value."""
        bias = "bias2" if self.loss == "squared_error" else "bias"
        found = []
        for value, part in zip(self.values, self.parts, strict=True):
            name = f"{bias}_and_noise" if part.noise is None else bias
            row = {self.parameter.rpartition(".")[2]: value} if self.parameter else {}
            row |= {name: part.bias, "variance": part.variance}
            if part.variance_unbiased is not None:
                row |= {"variance_unbiased": part.variance_unbiased, "variance_biased": part.variance_biased}
            row |= {"noise": part.noise} if part.noise is not None else {}
            found.append(row | {"error": part.error})
        return found

    def figure(self) -> Figure:
        """Draw the parts over the parameter: the curve of the error is a U where both ends are too far."""
        bias = "bias²" if self.loss == "squared_error" else "bias"
        known = all(part.noise is not None for part in self.parts)
        series = {bias if known else f"{bias} and noise": [part.bias for part in self.parts]}
        series["variance"] = [part.variance for part in self.parts]
        if known:
            series["noise"] = [float(part.noise or 0) for part in self.parts]
        series["error"] = [part.error for part in self.parts]
        what = "squared error" if self.loss == "squared_error" else "share of wrong answers"
        return visual.error_parts(series, self.values, self.parameter.rpartition(".")[2], what)

    def __str__(self) -> str:
        return text_table(self.table())


def bias_variance(
    model: Any,
    x: Any,
    y: Any,
    test: tuple[Any, Any],
    *,
    samples: int | Sequence[Any] = 20,
    resample: Literal["bootstrap", "disjoint"] = "bootstrap",
    size: int | None = None,
    truth: Any = None,
    noise: float | None = None,
    parameter: str = "",
    values: Sequence[Any] = ("",),
    processes: int = 1,
    seed: int = 0,
    **fit_options: Any,
) -> BiasVariance:
    """Return bias, variance and noise of what a model says of test rows after trainings on samples of others.

    Squared error for values, 0–1 loss for classes. Each training has a seed of its own, so that what initial parameters
    and the order of rows do is part of the variance.

    Args:
        model: of `zoo.create_model`; it stays as it is.
        x: rows to draw samples from, as `zoo.fit` takes them.
        y: their targets.
        test: rows that are asked, and their targets.
        samples: S, or the row numbers of each sample.
        resample: `bootstrap`, with replacement, or `disjoint`.
        size: rows of a sample; None is all of a bootstrap, and the S-th part of disjoint samples.
        truth: what the targets of the test rows are without noise, (M,).
        noise: variance of the noise, of values. Without it equal test rows tell it; without those it is part of bias².
        parameter: a hyperparameter, or an argument of `zoo.fit` such as `l2`, that is varied.
        values: of the parameter.
        processes: trainings at a time.
        seed: of samples and trainings.
        **fit_options: further arguments of `zoo.fit`.

    Raises:
        ZooError: for a model without targets, too few rows, or a parameter that is not there.

    Example:
        >>> import torch, zoo
        >>> x = torch.linspace(-1, 1, 60).view(-1, 1).double()
        >>> truth, generator = x[:, 0].square(), torch.Generator().manual_seed(0)
        >>> y = truth + 0.1 * torch.randn(60, generator=generator).double()
        >>> model = zoo.create_model("linear_regression")
        >>> found = bias_variance(model, x, y, (x, y), truth=truth, noise=0.01).parts[0]
        >>> found.bias > found.variance, abs(found.bias + found.variance + found.noise - found.error) < 1e-12
        (True, True)
    """
    rows_x, rows_y = test
    learner = ArrayLearner.of(model, stacked(x, rows_x), stacked(y, rows_y), None, fit_options)
    population = learner.population()
    pool, held = torch.arange(len(y)), torch.arange(len(y), len(population.y))
    best = None
    if truth is not None:
        classes = population.spec.target == "class"
        best = coded(learner, population, truth, len(held)) if classes else to_tensor(truth, "truth").double()
        if len(best) != len(held):
            raise ZooError(f"truth has {len(best)} values: one for each of the {len(held)} test rows is needed.")
    chosen = samples if isinstance(samples, int) else [torch.as_tensor(sample).long() for sample in samples]
    return decompose(
        learner, population, pool, held, samples=chosen, resample=resample, size=size, truth=best, noise=noise,
        parameter=parameter, values=values, processes=processes, seed=seed,
    )  # fmt: skip


def coded(learner: ArrayLearner, population: Population, y: Any, count: int) -> Tensor:
    """Return classes of `count` rows as the learner's targets are coded."""
    model = learner.model({})
    data = learner.data({"train": population.pool}, {})
    model.build(population.spec)
    model.preprocessing = data.preprocessing
    return model.encode_targets(y, count)


def stacked(first: Any, second: Any) -> Any:
    """Return rows of two arrays, tables or lists, one after the other.

    >>> stacked(["a"], ["b", "c"])
    ['a', 'b', 'c']
    """
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return torch.cat([to_tensor(part, "X", missing=True) for part in (first, second)])
    if isinstance(first, list | tuple):
        return [*first, *second]
    from zoo.data.arrays import column_names

    if column_names(first) is None:
        import numpy as np

        return np.concatenate([np.asarray(first), np.asarray(second)])
    import pyarrow as pa

    from zoo.data.preprocessing import as_table

    return pa.concat_tables([as_table(first), as_table(second, "test")], promote_options="permissive")


def decompose(
    learner: Learner,
    population: Population,
    pool: Tensor,
    held: Tensor,
    *,
    samples: int | Sequence[Tensor] = 20,
    resample: str = "bootstrap",
    size: int | None = None,
    truth: Tensor | None = None,
    noise: float | None = None,
    parameter: str = "",
    values: Sequence[Any] = ("",),
    processes: int = 1,
    seed: int = 0,
) -> BiasVariance:
    """Return what `bias_variance` does, of any learner, by row numbers."""
    count = samples if isinstance(samples, int) else len(samples)
    if count < 2:
        raise ZooError(f"samples must be at least 2, as one tells no variance, not {count}.")
    if not len(held):
        raise ZooError("There is no row to ask: pass test rows.")
    if noise is not None and not noise >= 0:
        raise ZooError(f"noise must be a variance, at least 0, not {noise}.")
    if bool(parameter) != (tuple(values) != ("",)) or not len(values):
        raise ZooError("parameter and values go together: what is varied, and what it becomes.")
    if parameter:
        learner.check([parameter])
    drawn = draw_samples(len(pool), samples, resample, size=size, seed=seed) if isinstance(samples, int) else samples
    jobs = [
        Job(pool[sample], held, seed + number, {parameter: value} if parameter else {}, True)
        for value in values
        for number, sample in enumerate(drawn)
    ]
    found = train_all(learner, jobs, processes)
    targets, inputs = population.y[held], _equal_rows(learner, population, held)
    parts = []
    for start in range(0, len(found), count):
        answers = torch.stack([result.answers for result in found[start : start + count]])  # type: ignore[misc]
        if population.spec.target == "class":
            parts.append(
                zero_one_parts(answers, targets, truth=truth, rows=inputs, num_classes=population.spec.num_classes)
            )
        else:
            parts.append(squared_error_parts(answers, targets, truth=truth, noise=noise, rows=inputs))
    loss = "zero_one" if population.spec.target == "class" else "squared_error"
    return BiasVariance(parts, loss, count, parameter, list(values))


def _equal_rows(learner: Learner, population: Population, held: Tensor) -> Tensor | None:
    """Return to which of the different inputs each of some rows belongs; None where that is not looked at."""
    if population.spec.kind != "tabular" or population.spec.sparse:
        return None
    rows = learner.data({"train": held}, {}).rows("train")
    inputs = torch.cat([rows[index].x for index in torch.arange(len(rows)).split(65536)])
    if bool(inputs.isnan().any()):
        return None
    return torch.unique(inputs, dim=0, return_inverse=True)[1]


def analyze(
    subject: Subject,
    *,
    samples: Annotated[int, Range(2)] = 20,
    resample: Literal["bootstrap", "disjoint"] = "bootstrap",
    size: Annotated[int, Range(1)] | None = None,
    noise: Annotated[float, Range(0)] | None = None,
    parameter: str | None = None,
    values: list[Any] | None = None,
    processes: Annotated[int, Range(1)] = 1,
    seed: Annotated[int, Range(0)] = 0,
) -> Findings:
    """Train the recipe of a finished run on samples of its rows, and ask its test rows."""
    learner = RunLearner.of(subject)
    population = learner.population()
    if population.spec.target == "class" and noise is not None:
        raise ZooError("bias_variance.noise is a variance, and the targets are classes: leave it out.")
    pool, held = population.pool, population.test
    if held is None or not len(held):  # a run without test rows
        fold = assign_folds(len(pool), 5, strata=population.strata, seed=seed)
        pool, held = pool[fold > 0], pool[fold == 0]
    found = decompose(
        learner, population, pool, held, samples=samples, resample=resample, size=size, noise=noise,
        parameter=parameter or "", values=("",) if values is None else values, processes=processes, seed=seed,
    )  # fmt: skip
    said = f"{samples} {resample} samples of {len(pool):,} rows, asked {len(held):,} rows; {_in_words(found)}"
    if parameter:
        said += f"; the smallest error at {parameter}={found.best}"
    return Findings({"bias_variance": found.figure()}, {"bias_variance": found.table()}, f"{said}\n{found}")


def _in_words(found: BiasVariance) -> str:
    loss = "squared error" if found.loss == "squared_error" else "0-1 loss"
    return loss if all(part.noise is not None for part in found.parts) else f"{loss}, of which bias holds the noise"


def checked(parts: Parts) -> float:
    """Return bias + variance + noise − error, relative to the error: 0 to rounding.

    >>> checked(Parts(1.0, 2.0, None, 3.0))
    0.0
    """
    total = parts.bias + parts.variance + (parts.noise or 0.0)
    return (total - parts.error) / parts.error if parts.error else math.copysign(0.0, total) if not total else math.inf
