r"""The dual problem of support vector machines, of which classification, regression and novelty detection are cases.

```math
\min_β \ \tfrac12 β^\top K β + \tfrac12 \sum_i d_i β_i^2 - t^\top β + ε \sum_i |β_i|,
\qquad l_i \le β_i \le h_i
```

The decision is f(x) = Σ β_i k(x_i, x) + b. With an intercept b that is not penalized Σ β_i is given, too.

| | t | ε | l, h | d | Σ β |
|---|---|---|---|---|---|
| hinge | y = ±1 | 0 | 0 and y C_i, in order | 0 | 0 |
| squared hinge | y = ±1 | 0 | 0 and y ∞ | 1 / (2 C_i) | 0 |
| ε-insensitive | y | ε | ∓ C_i | 0 | 0 |
| squared ε-insensitive | y | ε | ∓ ∞ | 1 / (2 C_i) | 0 |
| one class | 0 | 0 | 0, 1 | 0 | νN |

The sign of the coefficients is that of the class, β = y α, or says on which side of the tube a value is, β = α − α*;
so the usual dual of each case needs no signs, and no second set of variables.

Legend: N rows, C_i the cost of a row (that of the model times the row's weight).
Source: Cortes & Vapnik 1995; Smola & Schölkopf, "A tutorial on support vector regression", 2004; Schölkopf et al.,
"Estimating the support of a high-dimensional distribution", 2001.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Dual", "classification", "novelty", "regression"]


class Dual(NamedTuple):
    """What the rows ask of their coefficients.

    Attributes:
        target: t, (N,).
        low: l, (N,).
        high: h, (N,).
        diagonal: d, (N,).
        epsilon: ε.
        start: coefficients within the bounds, whose sum is kept by a solver that moves pairs, (N,).
    """

    target: Tensor
    low: Tensor
    high: Tensor
    diagonal: Tensor
    epsilon: float
    start: Tensor


def classification(sign: Tensor, cost: Tensor, *, squared: bool = False) -> Dual:
    """Return the dual of hinge or squared hinge.

    Args:
        sign: classes as −1 and 1, (N,), float64.
        cost: C_i, (N,).
        squared: whether the hinge is squared.

    Example:
        >>> classification(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0])).low.tolist()
        [0.0, -3.0]
    """
    top, diagonal = _bounds(cost, squared)
    signed = sign * top
    return Dual(sign, signed.clamp_max(0), signed.clamp_min(0), diagonal, 0.0, torch.zeros_like(sign))


def regression(value: Tensor, cost: Tensor, epsilon: float, *, squared: bool = False) -> Dual:
    """Return the dual of the (squared) ε-insensitive loss.

    Args:
        value: targets, (N,), float64.
        cost: C_i, (N,).
        epsilon: ε, 0 or more.
        squared: whether the loss is squared.
    """
    top, diagonal = _bounds(cost, squared)
    return Dual(value, -top, top, diagonal, epsilon, torch.zeros_like(value))


def novelty(weight: Tensor, nu: float) -> Dual:
    """Return the dual of the one-class machine: each row has its weight at most, and all together a share ν of them.

    Args:
        weight: of the rows, (N,), float64.
        nu: ν, above 0 and at most 1.

    Example:
        >>> novelty(torch.ones(4), 0.625).start.tolist()
        [1.0, 1.0, 0.5, 0.0]
    """
    before = weight.cumsum(0) - weight
    start = torch.minimum((nu * weight.sum() - before).clamp_min(0), weight)
    zero = torch.zeros_like(weight)
    return Dual(zero, zero, weight, zero, 0.0, start)


def _bounds(cost: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """The largest size of the coefficients, and d."""
    if squared:
        return torch.full_like(cost, torch.inf), 1 / (2 * cost)
    return cost, torch.zeros_like(cost)
