r"""What a split is worth, from the integers that rows add up to.

A node holds S sums over its rows. Each criterion has a score that the sums decide, and a split gains

```math
G = s(L) + s(R) - s(L + R)
```

| criterion | sums | score |
|---|---|---|
| `gini` | weight $n_c$ of each class | $\sum_c n_c^2 / n$ |
| `entropy` | weight $n_c$ of each class | $\sum_c n_c \log_2 n_c - n \log_2 n$ |
| `newton` | $h$, and $g_k$ of each target | $\sum_k g_k^2 / (h + \lambda)$ |
| `poisson` | $w$ and $g = \sum w y$ | $g \log (g / w)$ |
| `absolute_error` | weight $n_q$ of each target value $y_q$ | $-\sum_q n_q \lvert y_q - \tilde y \rvert$, $\tilde y$
their median |

so that $G$ is the weight of the node times the fall of its mean impurity. `newton` is squared error for $h = w$, $g = w
y$.

Sums are integers: a weight or hessian is rounded to a multiple of $2^{-a}$ and holds the number of rows in its lower
bits, $p = 2^c \operatorname{round}(2^a w) + 1$, a gradient to a multiple of $2^{-b}$. They are the same for any order
of rows, whatever adds them up, and $a$, $b$ and $c$ are such that no sum overflows.

Sources: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984; Chen & Guestrin, "XGBoost",
2016, §2.2 (Newton).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Criterion", "Units", "power_of_two", "units_for"]

CriterionName = Literal["gini", "entropy", "newton", "poisson", "absolute_error"]


@dataclass(frozen=True)
class Units:
    """How numbers are integers: the lower `count_bits` of a weight count rows, and what is one of the others.

    Attributes:
        count_bits: c.
        weight: 2^a.
        gradient: 2^b.
    """

    count_bits: int
    weight: float
    gradient: float = 1.0

    def fixed_weight(self, weight: Tensor) -> Tensor:
        """Return weights as integers, without a count of rows."""
        return (weight.double() * self.weight).round().long()

    def fixed_gradient(self, gradient: Tensor) -> Tensor:
        """Return gradients as integers."""
        return (gradient.double() * self.gradient).round().long()

    def count(self, packed: Tensor) -> Tensor:
        """Return the numbers of rows in packed sums."""
        return packed & ((1 << self.count_bits) - 1)

    def unpack(self, packed: Tensor) -> Tensor:
        """Return the weights in packed sums, float64."""
        return (packed >> self.count_bits).double() / self.weight


def units_for(num_rows: int, weight: float, gradient: float = 0.0) -> Units:
    """Return units in which no sum over `num_rows` rows overflows.

    Args:
        num_rows: rows that are added up, at most.
        weight: the largest weight of a row.
        gradient: the largest absolute gradient of a row.

    >>> units_for(1000, 1.0).count_bits
    10
    """
    count_bits = max(1, int(num_rows).bit_length())

    def unit(bits: int, largest: float) -> float:
        return 2.0 ** min(bits - math.frexp(largest)[1] - count_bits, 1000) if largest > 0 else 1.0

    return Units(count_bits, unit(62 - count_bits, weight), unit(62, gradient))


def power_of_two(value: float) -> float:
    """The power of two above a value; 1 for 0."""
    return 2.0 ** min(max(math.frexp(value)[1], -1022), 1023) if value > 0 else 1.0


@dataclass(frozen=True)
class Criterion:
    """A criterion with its units.

    Attributes:
        name: of the table above.
        units: of the sums.
        l2: λ of `newton`.
        values: the target values y_q of `absolute_error`, ascending, (S,).
    """

    name: CriterionName
    units: Units
    l2: float = 0.0
    values: Tensor | None = None

    @property
    def by_value(self) -> bool:
        """Whether each sum is the weight of the rows with one class or value."""
        return self.name in ("gini", "entropy", "absolute_error")

    def count(self, sums: Tensor) -> Tensor:
        """Return the number of rows of sums (..., S), (...)."""
        return self.units.count(sums).sum(-1) if self.by_value else self.units.count(sums[..., 0])

    def weight(self, sums: Tensor) -> Tensor:
        """Return the weight (or hessian) of sums (..., S), (...)."""
        return self.units.unpack(sums).sum(-1) if self.by_value else self.units.unpack(sums[..., 0])

    def score(self, sums: Tensor) -> Tensor:
        """Return the scores of sums (..., S), (...), float64."""
        if self.by_value:
            weight = self.units.unpack(sums)
            total = weight.sum(-1)
            if self.name == "gini":
                return weight.square().sum(-1) / total
            if self.name == "entropy":
                return _xlog2(weight).sum(-1) - _xlog2(total)
            assert self.values is not None
            return -(weight * (self.values - self.median(weight).unsqueeze(-1)).abs()).sum(-1)
        weight, gradient = self.units.unpack(sums[..., 0]), sums[..., 1:].double() / self.units.gradient
        if self.name == "newton":
            return (gradient.square() / (weight + self.l2).unsqueeze(-1)).sum(-1)
        gradient = gradient[..., 0]
        return torch.where(gradient > 0, gradient * (gradient / weight).log(), 0.0)

    def value(self, sums: Tensor) -> Tensor:
        """Return what a leaf of sums (..., S) predicts: class shares (..., C), or values (..., K)."""
        return self.leaves(sums)[0]

    def leaves(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what leaves of sums (..., S) predict, (..., C) or (..., K), their weights and numbers of rows, (...).

        Of `newton` and `poisson` the units may be those of each leaf, (...) and (..., 1).
        """
        units = self.units
        if self.by_value:
            weight = units.unpack(sums)
            total = weight.sum(-1)
            value = self.median(weight) if self.name == "absolute_error" else weight / total.unsqueeze(-1)
            return value.unsqueeze(-1) if self.name == "absolute_error" else value, total, units.count(sums).sum(-1)
        packed, gradient = sums[..., 0], sums[..., 1:].double() / units.gradient
        weight = units.unpack(packed)
        bend = (weight + self.l2).unsqueeze(-1)
        value = torch.where(bend > 0, gradient / bend, 0.0)  # a tree that sees no row takes no step
        return value, weight, units.count(packed)

    def median(self, weight: Tensor) -> Tensor:
        """Return the weighted medians (the middle of the two, where there are two) of weights (..., S), (...)."""
        assert self.values is not None
        below, half = weight.cumsum(-1), weight.sum(-1, keepdim=True) / 2
        low = (below < half).sum(-1).clamp_max(weight.shape[-1] - 1)
        high = (below <= half).sum(-1).clamp_max(weight.shape[-1] - 1)
        return (self.values[low] + self.values[high]) / 2

    def pure(self, sums: Tensor) -> Tensor:
        """Return whether all rows of sums (..., S) have one class or value; False where the sums do not tell."""
        if self.by_value:
            return (self.units.count(sums) > 0).sum(-1) <= 1
        return torch.zeros(sums.shape[:-1], dtype=torch.bool, device=sums.device)

    def gain(self, left: Tensor, right: Tensor, parent: Tensor) -> Tensor:
        """Return the gains of splits from the scores of both sides and their parent's; −∞ where there is none.

        What the rounding of the scores could make is none. A node that is not pure may split without a gain, as on
        exclusive or: the classes tell that it is not.
        """
        gain = left + right - parent
        noise = gain <= 1e-12 * (left.abs() + right.abs())
        return torch.where(noise, 0.0 if self.by_value else -torch.inf, gain)


def _xlog2(x: Tensor) -> Tensor:
    return torch.where(x > 0, x * x.clamp_min(torch.finfo(x.dtype).tiny).log2(), 0.0)
