r"""What least squares need of the rows, added up batch by batch: a triangular factor beside a reference.

```math
R^\top R = Z^\top Z, \qquad Z = \sqrt{s}\, [1, X - r_x, Y - r_y], \qquad
R = \begin{bmatrix} \sqrt n & \sqrt n\, m \\ 0 & [A, B] \end{bmatrix}
```

The reference r is the first row that weighs anything: differences to it are exact where rows lie close together,
however far from zero. m are the means beside it, and [A, B] is the factor of the centred rows. Another reference
changes the first row of R alone, by √n times the difference, so that the factors of two processes can be stacked.
R is triangular where there are as many rows as columns; of fewer it is one reflection of them.

Of many more rows than columns, [A, B] is Cholesky's factor of the centred rows' Gram matrix, where that keeps twelve
digits (`zoo.numerics.triangular.gram_factor`), and comes of their QR factorization else.

Legend: F features, K targets, C = 1 + F + K columns, M ≤ C rows of the factor, s sample weights of sum n.

Source: Demmel, Grigori, Hoemmen & Langou 2012 (TSQR); Chan, Golub & LeVeque 1979 (centred Gram matrices).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import moments as compiled
from zoo.numerics.moments import average, gram, mean_shift
from zoo.numerics.triangular import gram_factor, qr_update

__all__ = ["Statistics"]

_TALL = 4  # rows for each column, from which on a Gram matrix is the cheaper one
_BLOCK = 1 << 17  # numbers that are centred at once, in the cache


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
        at = self.reference if self.num_rows else first
        found = _by_gram(x, y, weight, at) if len(x) >= _TALL * (1 + len(at)) else None
        if found is None:
            found = at.new_empty(len(x), 1 + len(at))  # (B, C)
            found[:, 0] = 1
            _measure(x, y, at, found[:, 1:])
            if weight is not None:
                found *= weight.sqrt().unsqueeze(1)
            found = _joined(self.factor, found)
        elif len(self.factor):
            found = qr_update(self.factor, found)
        added = len(x) if weight is None else weight.sum()
        return Statistics(found, at, self.total_weight + added, self.num_rows + len(x))

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
        features, mean = w.shape[0], self.factor[0, 1:] / self.factor[0, 0]  # beside the reference
        change = mean[features:] - mean[:features] @ w
        return self.reference[features:] + change - self.reference[:features] @ w


def _joined(factor: Tensor, rows: Tensor) -> Tensor:
    """The factor of more rows (B, C); of fewer than columns one reflection is enough, which centres them."""
    whole = torch.cat([factor, rows]) if len(factor) else rows
    if len(whole) >= whole.shape[1]:
        return qr_update(factor, rows)
    length = torch.linalg.vector_norm(whole[:, 0])
    normal = whole[:, 0].clone()
    normal[0] += length  # so that nothing cancels; the first row changes its sign
    found = whole - torch.outer(normal, 2 * (normal @ whole) / normal.square().sum())
    found[0] *= -1
    found[0, 0], found[1:, 0] = length, 0.0
    return found


def _measure(x: Tensor, y: Tensor, at: Tensor, out: Tensor) -> None:
    """Write rows [x, y] less a point to `out` (B, F + K)."""
    torch.sub(x, at[: x.shape[1]], out=out[:, : x.shape[1]])
    torch.sub(y, at[x.shape[1] :], out=out[:, x.shape[1] :])


def _by_gram(x: Tensor, y: Tensor, weight: Tensor | None, at: Tensor) -> Tensor | None:
    """The factor of [1, Z] (C, C) by the Gram matrix of Z; None where that would cost too many digits."""
    weight = None if weight is None else weight.to(at.dtype)
    if compiled.available(x, len(at)):
        count, mean, scatter = compiled.moments(x, y.to(at.dtype), weight, at)
    else:
        count, mean, scatter = _moments(x, y, weight, at)
    inner = gram_factor(scatter)
    if inner is None:
        return None
    factor = at.new_zeros(1 + len(at), 1 + len(at))
    factor[0, 0], factor[0, 1:], factor[1:, 1:] = count.sqrt(), count.sqrt() * mean, inner
    return factor


def _moments(x: Tensor, y: Tensor, weight: Tensor | None, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weight of rows [x, y] (), their mean beside a point (C,), and their scatter about it (C, C)."""
    step = max(1024, _BLOCK // len(at))
    buffer = at.new_empty(min(step, len(x)), len(at))
    count, mean, scatter = at.new_zeros(()), torch.zeros_like(at), at.new_zeros(len(at), len(at))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        mass = None if weight is None else weight[part]
        rows = buffer[: min(step, len(x) - start)]
        _measure(x[part], y[part], at, rows)
        middle = average(rows, mass)
        rows -= middle
        if mass is not None:
            rows *= mass.sqrt().unsqueeze(1)
        scatter += gram(rows)
        added = count.new_tensor(len(rows)) if mass is None else mass.sum()
        count, mean, joint = mean_shift(count, mean, added, middle)
        scatter += torch.outer(joint, joint)
    return count, mean, scatter


def _moved(factor: Tensor, shift: Tensor) -> Tensor:
    """The factor of [1, Z + shift] from that of [1, Z]."""
    moved = factor.clone()
    moved[:, 1:] += factor[:, :1] * shift
    return moved
