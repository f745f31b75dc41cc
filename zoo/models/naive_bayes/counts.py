r"""The likelihoods of counts and of yes or no: multinomial, complement and Bernoulli.

Multinomial, with $x_d$ how often word $d$ occurs, and $N_{cd} = \sum_{i : y_i = c} w_i x_{id}$:

```math
\log p(x \mid c) = \sum_d x_d \log \theta_{cd},\qquad
\theta_{cd} = \frac{N_{cd} + \alpha_d}{\sum_e N_{ce} + \alpha_e}
```

Complement, for classes of very different size: the score of a class is how little the row is like all others,

```math
s_c(x) = -\sum_d x_d \log \tilde \theta_{cd},\qquad
\tilde \theta_{cd} = \frac{\alpha_d + \sum_{k \ne c} N_{kd}}{\sum_e \alpha_e + \sum_{k \ne c} N_{ke}}
```

without a prior; with `norm` the weights $\log \tilde \theta_{cd}$ of each class are divided by their sum. Bernoulli,
with $b_d = [x_d > t]$, which counts what is absent too:

```math
\log p(x \mid c) = \sum_d b_d \log p_{cd} + (1 - b_d) \log(1 - p_{cd}),\qquad
p_{cd} = \frac{N_{cd} + \alpha_d}{n_c + 2 \alpha_d}
```

- $N$ $(C, D)$: `feature_count`; $n$ $(C,)$: `class_count`; $\alpha$: `alpha`, one number or one a feature
- $t$: `threshold`
- `feature_log_prob` $(C, D)$: $\log \theta$, $-\log \tilde \theta$ or $\log p$

Sources: A. McCallum and K. Nigam, "A comparison of event models for naive Bayes text classification", 1998; J. Rennie,
L. Shih, J. Teevan and D. Karger, "Tackling the poor assumptions of naive Bayes text classifiers", 2003, table 4.

Deviation: with $\alpha = 0$ a probability of 0 counts as the smallest normal number when rows are scored, so that
what is absent ($0 \cdot \log 0$) says nothing, and two impossible classes are told apart by how often they are.

Letters: B rows, D features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.naive_bayes.likelihood import Likelihood, Statistics, class_counts, class_sums, scaled_rows
from zoo.numerics.sparse import is_sparse, sparse_rows, stored

__all__ = ["Bernoulli", "Complement", "Multinomial"]

SMALLEST = math.log(torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Counts(Likelihood):
    """What the likelihoods of counts share.

    Attributes:
        alpha: added to every count, one number or one a feature.
    """

    alpha: float | Sequence[float] = 1.0
    parameters = ("feature_log_prob",)

    def check(self, num_features: int) -> None:
        if not isinstance(self.alpha, int | float) and len(self.alpha) != num_features:
            raise ZooError(
                f"model.alpha has {len(self.alpha)} numbers for {num_features} features: give one, or one a feature."
            )

    def smoothing(self, like: Tensor) -> Tensor:
        """The alpha of each feature, (D,)."""
        return torch.as_tensor(self.alpha, dtype=like.dtype, device=like.device).expand(like.shape[1])

    def events(self, x: Tensor) -> Tensor:
        """The numbers that are counted, from rows (B, D)."""
        numbers = stored(x)
        if not torch.compiler.is_exporting() and numbers.numel():
            low, high = numbers.aminmax()
            if not bool(torch.isfinite(high - low)):
                raise ZooError("The features hold NaN or infinite values: drop those rows or fill them in first.")
            if low < 0:
                raise ZooError(
                    f"Counts cannot be negative, and the features hold {low.item():g}: pass counts (of a data set that "
                    "is scaled, data.standardize=false), or model.likelihood=gaussian."
                )
        return x

    def summarize(self, x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int) -> Statistics:
        counted = scaled_rows(self.events(x), weight)
        return {
            "class_count": class_counts(y, weight, num_classes),
            "feature_count": class_sums(counted, y, num_classes).double(),
        }

    def occurrences(self, statistics: Statistics) -> Tensor:
        return statistics["feature_count"]


class Multinomial(Counts):
    """Counts, such as how often a word occurs in a text."""

    def estimate(self, statistics: Statistics) -> Statistics:
        smoothed = statistics["feature_count"] + self.smoothing(statistics["feature_count"])
        return {"feature_log_prob": smoothed.log() - smoothed.sum(1, keepdim=True).log()}

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        return self.events(x) @ bounded(parameters["feature_log_prob"]).T


@dataclass(frozen=True)
class Complement(Counts):
    """Counts, each class judged by the rows of all others.

    Attributes:
        norm: whether the weights of each class are divided by their sum.
    """

    norm: bool = False
    uses_prior = False

    def estimate(self, statistics: Statistics) -> Statistics:
        counts = statistics["feature_count"]
        others = counts.sum(0) + self.smoothing(counts) - counts
        logs = others.log() - others.sum(1, keepdim=True).log()
        if self.norm:
            logs = bounded(logs)
            return {"feature_log_prob": logs / logs.sum(1, keepdim=True)}
        return {"feature_log_prob": -logs}

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        return self.events(x) @ bounded(parameters["feature_log_prob"]).T


@dataclass(frozen=True)
class Bernoulli(Counts):
    """Yes or no, such as whether a word occurs in a text.

    Attributes:
        threshold: yes is what lies above; None where features are 0 and 1 already.
    """

    threshold: float | None = 0.0

    def events(self, x: Tensor) -> Tensor:
        numbers = stored(x)
        if not torch.compiler.is_exporting() and bool(numbers.isnan().any()):
            raise ZooError("The features hold NaN values: drop those rows or fill them in first.")
        if self.threshold is None:
            return x
        if not is_sparse(x):
            return (x > self.threshold).to(x.dtype)
        if self.threshold < 0:
            raise ZooError("A sparse matrix needs model.threshold at least 0, so that what it leaves out is no.")
        above = (numbers > self.threshold).to(numbers.dtype)
        return sparse_rows(x.crow_indices(), x.col_indices(), above, x.shape)

    def estimate(self, statistics: Statistics) -> Statistics:
        counts = statistics["feature_count"]
        alpha = self.smoothing(counts)
        return {"feature_log_prob": (counts + alpha).log() - (statistics["class_count"].unsqueeze(1) + 2 * alpha).log()}

    def log_likelihood(self, x: Tensor, parameters: Statistics) -> Tensor:
        yes = bounded(parameters["feature_log_prob"])
        no = bounded((-torch.expm1(yes)).log())
        return self.events(x) @ (yes - no).T + no.sum(1)


def bounded(logs: Tensor) -> Tensor:
    """Logarithms without infinite ones, which a count of 0 would turn into NaN."""
    return logs.clamp(SMALLEST, -SMALLEST)
