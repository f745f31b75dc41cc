"""The rows of a pass, in an order that follows from what stands in them.

So the answer of a model that needs all rows at once is the same, to the bit, for any batch size, any number of
processes and any order in which they came.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.hashing import content_order
from zoo.numerics.sparse import stored, take_rows

__all__ = ["Collected", "in_order"]


class Collected(NamedTuple):
    """The rows of a pass.

    Attributes:
        x: rows with a weight above 0, (N, F), float64; a sparse matrix (CSR) where the batches held such.
        y: targets, (N,) or (N, K).
        weight: sample weights, (N,).
        place: of each row among those that came, (N,).
        rank: place of each row in an order that does not depend on how they came, (N,).
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    place: Tensor
    rank: Tensor

    def take(self, index: Tensor) -> Collected:
        """Return some of the rows, by their numbers."""
        return Collected(*(take_rows(column, index) for column in self))


def in_order(name: str, x: Tensor, y: Tensor, weight: Tensor | None = None, *, sort: bool = True) -> Collected:
    """Return rows in an order that follows from what stands in them, without those of weight 0.

    Args:
        name: of the model, for messages.
        x: rows (N, F), dense or sparse.
        y: targets (N, K).
        weight: sample weights (N,); None for one each.
        sort: whether to put them in that order, or say in `rank` alone which it is.

    Raises:
        ZooError: where there is no row of a positive weight, or a weight below 0, or an infinite value.

    Example:
        >>> x = torch.tensor([[5.0], [1.0], [3.0]])
        >>> found, moved = (in_order("kernel_svm", rows, rows) for rows in (x, x[[2, 0, 1]]))
        >>> torch.equal(found.x, moved.x), torch.equal(x[found.place], found.x)
        (True, True)
    """
    place = torch.arange(len(x), device=x.device)
    if weight is None:
        weight = stored(x).new_ones(len(x))
    elif bool((weight <= 0).any()):
        if bool((weight < 0).any()):
            raise ZooError(f"{name} was given a sample weight below 0: weights must be 0 or more.")
        place = (weight > 0).nonzero().flatten()
        x, y, weight = take_rows(x, place), y[place], weight[place]
    if not len(y):
        raise ZooError(f"There is no row with a positive weight to fit {name} to.")
    numbers = stored(x)
    # A sum is cheaper than a look at each number; that of finite ones may overflow.
    if not math.isfinite(numbers.sum()) and not bool(numbers.isfinite().all()):
        raise ZooError(f"{name} met NaN or infinite values in the data: drop those rows or fill them in first.")
    order = content_order(x, y, weight)
    if not sort:
        return Collected(x, y.squeeze(1), weight, place, order.argsort())
    found = Collected(x, y.squeeze(1), weight, place, order).take(order)
    return found._replace(rank=torch.arange(len(order), device=order.device))
