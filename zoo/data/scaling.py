"""Scaling: what is subtracted from the inputs, and what the difference is divided by.

Legend: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from zoo.data.spec import Batch

__all__ = ["Standardize"]


class Standardize:
    """Scale features to mean 0 and (population) standard deviation 1; a constant one is centred and no more.

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
        count, mean, square = 0, torch.zeros(()), torch.zeros(())
        low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        for x in parts:
            if not len(x):
                continue
            part_mean = x.mean(0)
            delta = part_mean - mean
            total = count + len(x)
            square = square + ((x - part_mean) ** 2).sum(0) + delta**2 * (count * len(x) / total)
            mean = mean + delta * (len(x) / total)
            low, high, count = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0)), total
        std = (square / count).sqrt()
        constant = (low == high) | (std == 0)  # exact, where rounding leaves a deviation of 1e-17
        return cls(torch.where(low == high, low, mean), torch.where(constant, 1.0, std).to(std.dtype))

    def __call__(self, batch: Batch) -> Batch:
        return batch._replace(x=torch.sub(batch.x, self.mean).div_(self.std))  # one copy, not two
