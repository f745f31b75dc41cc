r"""Exact nearest neighbours found through lower bounds: a cheap block of bounds, a few exact distances, a proof.

```math
\underline{d}(a, b) = (1 - \gamma)(\lVert a \rVert^2 + \lVert b \rVert^2) - 2\, a^\top b \le \lVert a - b \rVert^2
```

The product is taken in float32, and γ = 2 (F + 6) ε bounds the relative rounding error of its F + 2 terms, with the
machine epsilon ε (Higham 2002, *Accuracy and Stability of Numerical Algorithms*, §3.1).

For a query the entries of its row of bounds are compared by groups: the minimum of each group, the few best groups,
the few best entries of those. What was not looked at is no nearer than the largest bound looked at, so a row is
settled when its best exact distance is not above that. Rows that are not (ties, duplicates) look at every entry whose
bound is not above their best.

Legend: Q query rows; N points of F features; K candidates; G groups of W entries; M = G W ≥ N the padded width of a
block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Bounded",
    "Pairs",
    "SquaredDistances",
    "block_rows",
    "nearest_by_bounds",
    "row_minimum",
    "settle",
    "smallest_entries",
]

_BLOCK = 1 << 19  # entries of a block, to stay in the cache
_PAIRS = 1 << 16  # exact distances computed at once
WIDTH = 16


Pairs = Callable[[Tensor, Tensor], Tensor]  # distances of pairs of points, given by their numbers


class Bounded(Protocol):
    """Points that give lower bounds of whole rows of distances and exact distances of pairs."""

    def bound(self, rows: Tensor, out: Tensor) -> Tensor: ...

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor: ...


class SquaredDistances:
    r"""Weighted squared Euclidean distances between centres: exact for given pairs, bounded from below for whole rows.

    ```math
    d(a, b) = \frac{2}{1 / s_a + 1 / s_b} \lVert a - b \rVert^2
    ```

    With sizes s this is Ward's distance between clusters; without, the plain squared distance. Rows are centred, and
    scaled by a power of two, which loses nothing, so that float32 neither overflows nor underflows; `scale`
    turns a distance back.

    Args:
        x: centres (N, F).
        sizes: number of points in each cluster (N,), or None.
    """

    def __init__(self, x: Tensor, sizes: Tensor | None = None) -> None:
        centres = x.double() - x.double().mean(0)
        largest = float(centres.abs().amax()) if centres.numel() else 0.0
        self.scale = 2.0 ** math.frexp(largest * math.sqrt(max(1, x.shape[1])))[1]
        self.centres = centres / self.scale
        self.sizes = sizes
        # A reduced-precision float32 product (TF32, bfloat16) would break the bound.
        low = torch.get_float32_matmul_precision() == "highest"
        dtype = torch.float32 if low else torch.float64
        self.dtype = dtype
        self.gamma = 2 * (x.shape[1] + 6) * torch.finfo(dtype).eps
        self.left, self.right = (factor.to(dtype) for factor in self._factors(self.centres))
        self.inverse = None if sizes is None else (0.5 / sizes).to(dtype)

    def _factors(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        norm = (1 - self.gamma) * centres.square().sum(1, keepdim=True)  # (N, 1)
        one = torch.ones_like(norm)
        return torch.cat([-2 * centres, norm, one], 1), torch.cat([centres, one, norm], 1)  # (N, F + 2)

    def bound(self, rows: Tensor, out: Tensor) -> Tensor:
        """Lower bounds of the distances of `rows` (Q,) to every centre, written to `out` (Q, N)."""
        torch.mm(self.left[rows], self.right.T, out=out)
        if self.inverse is not None:
            out.div_(self.inverse[rows, None] + self.inverse)
        return out

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances of pairs of centres, from differences; the two index tensors broadcast."""
        squared = (self.centres[rows] - self.centres[columns]).square().sum(-1)
        if self.sizes is None:
            return squared
        return squared * (2 / (1 / self.sizes[rows] + 1 / self.sizes[columns]))

    def merge(self, left: Tensor, right: Tensor) -> None:
        """Moves centres `left` to the weighted means of the pairs and puts `right` infinitely far away."""
        assert self.sizes is not None
        assert self.inverse is not None
        a, b = self.sizes[left], self.sizes[right]
        self.centres[left] += (b / (a + b))[:, None] * (self.centres[right] - self.centres[left])
        self.sizes[left] = a + b
        self.inverse[left] = (0.5 / (a + b)).to(self.inverse.dtype)
        self.left[left], self.right[left] = (f.to(self.left.dtype) for f in self._factors(self.centres[left]))
        self.right[right, -1] = math.inf

    def keep(self, rows: Tensor) -> None:
        """Forgets all centres but `rows`."""
        for name in ("centres", "sizes", "left", "right", "inverse"):
            setattr(self, name, getattr(self, name)[rows])


def padded(size: int, width: int = WIDTH) -> int:
    """The next multiple of the group width."""
    return -(-size // width) * width


def block_rows(columns: int) -> int:
    """How many rows of that many columns one block takes."""
    return max(1, _BLOCK // max(1, columns))


def row_minimum(block: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum of each row of a block (Q, N) and the first column that holds it; by groups, to be vectorised.

    >>> row_minimum(torch.tensor([[3.0, 1.0, 2.0, 1.0]]))
    (tensor([1.]), tensor([1]))
    """
    size = block.shape[1]
    groups = size // WIDTH
    minima = block[:, : WIDTH * groups].unflatten(1, (WIDTH, groups)).amin(1)  # (Q, G)
    minima = torch.cat([minima, block[:, WIDTH * groups :]], 1)
    least, group = minima.min(1)
    columns = group[:, None] + groups * torch.arange(WIDTH, device=block.device)  # (Q, W)
    columns = torch.where(group[:, None] < groups, columns, group[:, None] + (WIDTH - 1) * groups)
    place = _first(block.gather(1, columns) == least[:, None], columns)
    tied = ((minima == least[:, None]).sum(1) > 1).nonzero()[:, 0]
    if len(tied):
        place[tied] = _first(block[tied] == least[tied, None], torch.arange(size, device=block.device))
    return least, place


def _first(chosen: Tensor, columns: Tensor) -> Tensor:
    """The least of the chosen columns of each row (Q,)."""
    return torch.where(chosen, columns, torch.iinfo(torch.int64).max).amin(1)


def smallest_entries(block: Tensor, count: int, width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` smallest entries of each row.

    Args:
        block: bounds (Q, M), M a multiple of `width`.
        count: entries wanted, K.
        width: entries of a group, W.

    Returns:
        Values (Q, K), columns (Q, K), and a number for each row (Q,) below which none of its other entries lies.
    """
    groups = block.shape[1] // width
    if groups <= 2 * count:
        values, columns = block.topk(min(count + 1, block.shape[1]), dim=1, largest=False)
        unseen = values[:, -1] if values.shape[1] > count else torch.full_like(values[:, 0], math.inf)
        return values[:, :count], columns[:, :count], unseen
    minima = block.view(len(block), width, groups).amin(1)  # (Q, G)
    least, chosen = minima.topk(count + 1, dim=1, largest=False)  # (Q, K + 1)
    pool = chosen[:, :, None] + groups * torch.arange(width, device=block.device)
    pool = pool.flatten(1)  # (Q, (K + 1) W)
    values, place = block.gather(1, pool).topk(count + 1, dim=1, largest=False)
    unseen = torch.minimum(least[:, -1], values[:, -1])
    return values[:, :count], pool.gather(1, place[:, :count]), unseen


def nearest_by_bounds(points: Bounded, rows: Tensor, buffer: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The nearest other point of each row and its exact distance; of equally near ones the first.

    Args:
        points: the bounds and distances.
        rows: queries (Q,).
        buffer: scratch (at least Q, M) whose columns from `size` on are infinite.
        size: number of points, N.
    """
    block = buffer[: len(rows)]
    points.bound(rows, block[:, :size])
    block[torch.arange(len(rows), device=rows.device), rows] = math.inf
    values, columns, unseen = smallest_entries(block, 2)
    distance = points.exact(rows[:, None], columns.clamp(max=size - 1)).masked_fill_(values.isinf(), math.inf)
    gap = distance.amin(1)
    near = columns.masked_fill(distance > gap[:, None], size).amin(1).clamp_(max=size - 1)
    doubtful = (gap > unseen).nonzero()[:, 0]
    if len(doubtful):
        near[doubtful], gap[doubtful] = settle(points.exact, rows[doubtful], block[doubtful] <= gap[doubtful, None])
    return near, gap


def settle(exact: Pairs, rows: Tensor, possible: Tensor) -> tuple[Tensor, Tensor]:
    """Decides each row (Q,) among all its possible columns (Q, M) by exact distances of pairs."""
    row, column = possible.nonzero(as_tuple=True)
    pairs = zip(row.split(_PAIRS), column.split(_PAIRS), strict=True)
    distance = torch.cat([exact(rows[r], c) for r, c in pairs])
    gap = distance.new_full((len(rows),), math.inf).scatter_reduce_(0, row, distance, "amin")
    tied = distance == gap[row]
    near = column.new_full((len(rows),), possible.shape[1]).scatter_reduce_(0, row[tied], column[tied], "amin")
    return near, gap
