r"""What least squares need of the rows, added up batch by batch: a triangular factor beside a reference.

```math
R^\top R = Z^\top Z, \qquad Z = \sqrt{s}\, [1, X - r_x, Y - r_y], \qquad
R = \begin{bmatrix} \sqrt n & \sqrt n\, m \\ 0 & [A, B] \end{bmatrix}
```

The reference r is the first row that weighs anything: differences to it are exact where rows lie close together,
however far from zero. m are the means beside it, and [A, B] is the factor of the centred rows. Another reference
changes the first row of R alone, by √n times the difference, so that the factors of two processes can be stacked.

Legend: F features, K targets, C = 1 + F + K columns, M ≤ C rows of the factor, s sample weights of sum n.

Source: Demmel, Grigori, Hoemmen & Langou 2012 (TSQR).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.numerics.triangular import qr_update

__all__ = ["Statistics"]


class Statistics(NamedTuple):
    """Statistics of rows [x, y].

    Attributes:
        factor: R, (M, C).
        reference: r, (F + K,).
        total_weight: n, ().
        num_rows: rows that weigh anything, ().

    Example:
        >>> rows = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
        >>> a, b = Statistics.of_none(1, 1).add(rows, 3 * rows).problem(1)
        >>> (b / a).round(decimals=6).item()
        3.0
    """

    factor: Tensor
    reference: Tensor
    total_weight: Tensor
    num_rows: Tensor

    @classmethod
    def of_none(cls, num_features: int, num_targets: int) -> Statistics:
        """Statistics of no rows."""
        width, zero = num_features + num_targets, torch.zeros((), dtype=torch.float64)
        return cls(zero.new_zeros(0, 1 + width), zero.new_zeros(width), zero, zero.long())

    def add(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Statistics:
        """Statistics with some rows more.

        Args:
            x: features, (B, F).
            y: targets, (B, K).
            weight: weights, (B,); one each by default.
        """
        if weight is not None and not bool(weight.all()):  # what weighs nothing must not be the reference
            x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
        if not len(x):
            return self
        first = torch.cat([x[0], y[0]]).to(self.reference.dtype)
        at, split = self.reference if self.num_rows else first, 1 + x.shape[1]
        rows = at.new_empty(len(x), 1 + len(at))  # (B, C)
        rows[:, 0] = 1
        torch.sub(x, at[: split - 1], out=rows[:, 1:split])
        torch.sub(y, at[split - 1 :], out=rows[:, split:])
        if weight is not None:
            rows *= weight.sqrt().unsqueeze(1)
        added = len(x) if weight is None else weight.sum()
        return Statistics(qr_update(self.factor, rows), at, self.total_weight + added, self.num_rows + len(x))

    def merge(self, other: Statistics) -> Statistics:
        """Statistics of both sets of rows."""
        if not (self.num_rows and other.num_rows):
            return self if self.num_rows else other
        factor = qr_update(self.factor, _moved(other.factor, other.reference - self.reference))
        counts = self.total_weight + other.total_weight, self.num_rows + other.num_rows
        return Statistics(factor, self.reference, *counts)

    def problem(self, num_features: int, intercept: bool = True) -> tuple[Tensor, Tensor]:
        """A (M, F) and B (M, K) with ‖A W − B‖ that of the rows: centred ones where there is an intercept."""
        columns = self.factor[1:, 1:] if intercept else _moved(self.factor, self.reference)[:, 1:]
        return columns[:, :num_features], columns[:, num_features:]

    def intercepts(self, w: Tensor) -> Tensor:
        """The intercepts (K,) that belong to coefficients W (F, K)."""
        sizes = list(w.shape)
        x, y = self.reference.split(sizes)
        x_mean, y_mean = (self.factor[0, 1:] / self.factor[0, 0]).split(sizes)  # beside the reference
        return y + (y_mean - x_mean @ w) - x @ w


def _moved(factor: Tensor, shift: Tensor) -> Tensor:
    """The factor of [1, Z + shift] from that of [1, Z]."""
    moved = factor.clone()
    moved[:, 1:] += factor[:, :1] * shift
    return moved
