"""Scaling: what is subtracted from the inputs, or from target values, and what the difference is divided by.

Legend: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from zoo.data.spec import Batch

__all__ = ["Moments", "Standardize"]


class Standardize:
    """Scale features to mean 0 and (population) standard deviation 1; a constant one is centred and no more.

    Missing values (NaN) are left out of the measurement, and stay missing.

    Args:
        mean: (F,).
        std: (F,), 1 in place of 0.

    Example:
        >>> Standardize.fit([torch.tensor([[1.0, 5.0], [3.0, 5.0]])])(Batch(torch.tensor([[2.0, 6.0]]))).x
        tensor([[0., 1.]])
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, parts: Iterable[Tensor]) -> Standardize:
        """Measure rows that come part by part, each (N, F), joined as Chan, Golub & LeVeque 1979 join them."""
        moments = Moments()
        for x in parts:
            moments.add(x)
        return cls(*moments.solve())

    def __call__(self, batch: Batch) -> Batch:
        return batch._replace(x=torch.sub(batch.x, self.mean).div_(self.std))  # one copy, not two


class Moments:
    """Number, mean, squares about it, and range of each column, of the rows added so far."""

    def __init__(self) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.mean, self.square = torch.zeros(()), torch.zeros(())
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def add(self, x: Tensor) -> None:
        """Add rows (N, F)."""
        if not len(x):
            return
        number, mean, square, low, high = _of_those_there(x) if bool(x.sum().isnan()) else _of_all(x)
        delta, total = mean - self.mean, (self.count + number).clamp_min(1)
        self.square = self.square + square + delta**2 * (self.count * number / total).to(x.dtype)
        self.mean = self.mean + delta * (number / total).to(x.dtype)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count = self.count + number

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return means and deviations, (F,) each."""
        std = (self.square / self.count.to(self.square.dtype)).sqrt()
        equal = self.low == self.high
        # Squares of 1e-160 vanish and those of 1e160 overflow; the range does neither.
        lost = ~equal & ((std == 0) | ~std.isfinite())
        std = torch.where(lost, self.high / 2 - self.low / 2, std)
        # Exact, where rounding leaves a deviation of 1e-17; a column without a value stays as it is.
        constant = equal | (std == 0) | (self.count == 0)
        return torch.where(equal, self.low, self.mean), torch.where(constant, 1.0, std).to(std.dtype)


def _of_all(x: Tensor) -> tuple[Tensor, ...]:
    mean = x.mean(0)
    number = torch.tensor(len(x), dtype=torch.float64)
    return number, mean, ((x - mean) ** 2).sum(0), x.amin(0), x.amax(0)


def _of_those_there(x: Tensor) -> tuple[Tensor, ...]:
    there = ~x.isnan()
    number = there.sum(0).double()
    mean = torch.where(there, x, 0.0).sum(0) / number.clamp_min(1).to(x.dtype)
    square = torch.where(there, x - mean, 0.0).square().sum(0)
    low, high = (torch.where(there, x, edge) for edge in (torch.inf, -torch.inf))
    return number, mean, square, low.amin(0), high.amax(0)
