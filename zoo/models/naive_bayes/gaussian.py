r"""The Gaussian likelihood: each feature is normal within a class.

```math
\log p(x \mid c) = -\frac12 \sum_d \log(2 \pi \sigma^2_{cd}) + \frac{(x_d - \mu_{cd})^2}{\sigma^2_{cd}},\qquad
\sigma^2_{cd} = \frac{M_{cd}}{n_c} + \varepsilon,\qquad
\varepsilon = \nu \max_d \operatorname{Var}(x_d)
```

Rows of two batches merge by the counts $n$, the means $\mu$ and the squared deviations $M$ of each class,

```math
n = n_a + n_b,\qquad \mu = \mu_a + \frac{n_b}{n} \delta,\qquad
M = M_a + M_b + \frac{n_a n_b}{n} \delta^2,\qquad \delta = \mu_b - \mu_a
```

so that nothing cancels where rows lie far from zero. Beside each mean stands what rounding left of it, so that small
differences of large means keep their digits over any number of batches. Squares are of differences, at prediction too.

- $n_c$: number of rows of a class, or the sum of their weights; $\mu$, $M$, $\sigma^2$ $(C, D)$
- $\nu$: `var_smoothing`; $\operatorname{Var}(x_d)$: variance of a feature over all rows

Source: T. Chan, G. Golub and R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
1979, and 1983 for the mean that is corrected by what rounding left.

Deviations: a class without a row has density 0 everywhere (infinite variance). A variance of 0, which needs $\nu = 0$
or rows that are all equal, counts as the smallest normal number, so that the density is a spike and not 0/0.

Letters: B rows, D features, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import FAINT, ZooError, warn_of_faint
from zoo.kernels import gaussian as compiled
from zoo.models.naive_bayes.likelihood import Likelihood, Statistics, class_counts, class_sums, row_blocks, scaled_rows

__all__ = ["Gaussian", "class_moments", "gaussian_log_density"]

NAMES = ("class_count", "class_mean", "class_rest", "class_scatter")


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Normal features.

    Attributes:
        var_smoothing: share of the largest variance of a feature that is added to all.
    """

    var_smoothing: float = 1e-9
    parameters = ("mean", "variance", "epsilon")

    def blank(self, num_features: int, num_classes: int) -> tuple[Statistics, Statistics]:
        zeros = torch.zeros(num_classes, num_features, dtype=torch.float64)
        count, epsilon = zeros.new_zeros(num_classes), zeros.new_zeros(())
        statistics = dict(zip(NAMES, (count, zeros, zeros, zeros), strict=True))
        return statistics, {"mean": zeros.clone(), "variance": zeros.clone(), "epsilon": epsilon}

    def summarize(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        return dict(zip(NAMES, class_moments(x, y, num_classes, weight), strict=True))

    def statistics(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        if not compiled.available(x):
            return super().statistics(x, y, weight, num_classes)
        weight = None if weight is None else weight.double()
        return dict(zip(NAMES, compiled.class_moments(x, y.long(), weight, num_classes), strict=True))

    def merge(self, one: Statistics, other: Statistics) -> Statistics:
        if not bool(one["class_count"].any()):  # the first rows
            return other
        n, mu, rest, scatter = (one[name] for name in NAMES)
        n_other, mu_other, rest_other, scatter_other = (other[name] for name in NAMES)
        count = n + n_other
        share = torch.where(count > 0, n_other / count, 0.0).unsqueeze(1)  # nothing and nothing is nothing
        mu = torch.where((n > 0).unsqueeze(1), mu, mu_other)
        shift = (mu_other - mu) + (rest_other - rest)
        step = rest + share * shift
        mean = mu + step
        scatter = scatter + scatter_other + n.unsqueeze(1) * share * shift.square()
        return dict(zip(NAMES, (count, mean, step - (mean - mu), scatter), strict=True))

    def estimate(self, statistics: Statistics) -> Statistics:
        count, mean, rest, scatter = (statistics[name] for name in NAMES)
        mean = mean + rest
        total = count.sum()
        between = count @ (mean - count @ mean / total).square()  # (D,)
        whole = (scatter.sum(0) + between) / total
        least, largest = (float(bound) for bound in whole.aminmax())
        smoothing = self.var_smoothing * largest
        if total > 0:
            _check_scale(mean, largest)
            if least < FAINT * smoothing:
                warn_of_faint("naive_bayes", whole / smoothing)
        variance = (scatter / count.unsqueeze(1)).add_(smoothing).masked_fill_((count <= 0).unsqueeze(1), torch.inf)
        epsilon = count.new_tensor(smoothing)
        return {"mean": mean, "variance": variance, "epsilon": epsilon}

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        return gaussian_log_density(x, parameters["mean"], parameters["variance"])

    def scores(self, x: Tensor, parameters: Statistics) -> Tensor:
        if torch.compiler.is_exporting() or not compiled.available(x):
            return super().scores(x, parameters)
        return compiled.class_densities(x, parameters["mean"], *_precision(parameters["variance"]))


def _check_scale(mean: Tensor, spread: float) -> None:
    """Raise one line where squares vanish or overflow, by the means (C, D) and the largest variance of a feature."""
    if 1e-305 <= spread < torch.inf:
        return
    largest = float(mean.abs().max())
    if not spread < torch.inf or (0 < largest < 1e-140 and spread < 1e-305):
        size = "large" if not spread < torch.inf else "small"
        raise ZooError(
            f"The features are too {size} for naive_bayes ({largest:.0e} on average): their squares leave float64. "
            "Scale them first, as standardize=true does."
        )


def class_moments(
    x: Tensor, y: Tensor, num_classes: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count, mean and squared deviations of the rows of each class.

    Args:
        x: rows, (B, D).
        y: their classes, (B,).
        num_classes: number of classes C.
        weight: non-negative weights, (B,).

    Returns:
        The (weighted) number of rows (C,), their mean (C, D), what rounding left of the mean (C, D), and the sum of the
        squared deviations (C, D); 0 for a class without rows.

    Example:
        >>> n, mean, rest, scatter = class_moments(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1]), 3)
        >>> n.tolist(), mean.flatten().tolist(), scatter.flatten().tolist()
        ([2.0, 1.0, 0.0], [2.0, 7.0, 0.0], [2.0, 0.0, 0.0])
    """
    count = class_counts(y, weight, num_classes)  # (C,)
    divisor = torch.where(count > 0, count, 1.0).to(x.dtype).unsqueeze(1)
    mean = class_sums(scaled_rows(x, weight), y, num_classes) / divisor  # (C, D)
    centred = x - mean[y]
    rest = class_sums(scaled_rows(centred, weight), y, num_classes) / divisor
    squares = class_sums(scaled_rows(centred.square_(), weight), y, num_classes)
    return count, mean, rest, (squares - divisor * rest.square()).clamp_min_(0)


def _precision(variance: Tensor) -> tuple[Tensor, Tensor]:
    """One over the variances (C, D), and the sum of log 2πσ² of each class, (C,)."""
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
    return variance.reciprocal(), (variance.log() + math.log(2 * math.pi)).sum(1)


def gaussian_log_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    r"""Sum over the features of the log density of normal distributions.

    Args:
        x: rows, (B, D).
        mean: means, (C, D).
        variance: variances, (C, D); infinite for a class of density 0.

    Returns:
        (B, C).

    Example:
        >>> gaussian_log_density(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2)).item()  # -log 2π
        -1.8378770351409912
    """
    precision, constant = _precision(variance)
    result = x.new_empty(x.shape[0], len(mean), dtype=torch.promote_types(x.dtype, mean.dtype))
    for rows in row_blocks(x, mean.numel()):
        squares = (x[rows].unsqueeze(1) - mean).square_().mul_(precision)  # (b, C, D)
        result[rows] = -0.5 * (squares.sum(-1) + constant)
    return result.masked_fill_(constant.isposinf(), -torch.inf)  # far rows give 0 × ∞ there
