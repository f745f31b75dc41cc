r"""Two spaces in which clusters merge: a stored matrix of distances, and for Ward centres alone.

```math
d(i \cup j, k) = \alpha_i\, d_{ik} + \alpha_j\, d_{jk} + \beta\, d_{ij} + \gamma\, |d_{ik} - d_{jk}|
```

| linkage | α_i | α_j | β | γ |
|---|---|---|---|---|
| single | 1/2 | 1/2 | 0 | −1/2 |
| complete | 1/2 | 1/2 | 0 | 1/2 |
| average | s_i / (s_i+s_j) | s_j / (s_i+s_j) | 0 | 0 |
| weighted | 1/2 | 1/2 | 0 | 0 |
| ward | (s_i+s_k) / s | (s_j+s_k) / s | −s_k / s | 0 |
| centroid | s_i / (s_i+s_j) | s_j / (s_i+s_j) | −s_i s_j / (s_i+s_j)² | 0 |
| median | 1/2 | 1/2 | −1/4 | 0 |

with sizes s, s = s_i + s_j + s_k in Ward's row; Ward, centroid and median act on squared distances. Source: Lance &
Williams 1967, *A General Theory of Classificatory Sorting Strategies*. Deviation: single and complete are written as
minimum and maximum, which round nothing.

Legend: N positions, each holding a cluster or dead; Q query rows; P pairs merged at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.models.agglomerative.lower_bounds import (
    SquaredDistances,
    block_rows,
    nearest_by_bounds,
    padded,
    row_minimum,
)

__all__ = ["MatrixSpace", "WardSpace"]

# (row of i, row of j, d_ij, s_i, s_j, s_k), (P, N), (P, N), (P, 1), … -> row of the union, in place of the first
Update = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _ward(a: Tensor, b: Tensor, gap: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    return ((i + k) * a + (j + k) * b - k * gap) / (i + j + k)


def _average(a: Tensor, b: Tensor, gap: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    total = i + j
    return a.mul_(i / total).add_(b.mul_(j / total))


UPDATES: dict[str, Update] = {
    "single": lambda a, b, gap, i, j, k: torch.minimum(a, b, out=a),
    "complete": lambda a, b, gap, i, j, k: torch.maximum(a, b, out=a),
    "average": _average,
    "weighted": lambda a, b, gap, i, j, k: a.add_(b).mul_(0.5),
    "ward": _ward,
    "centroid": lambda a, b, gap, i, j, k: _average(a, b, gap, i, j, k).sub_(i * j / (i + j).square() * gap),
    "median": lambda a, b, gap, i, j, k: a.add_(b).mul_(0.5).sub_(0.25 * gap),
}


class MatrixSpace:
    """Clusters under any linkage by updates of a stored matrix, which it consumes.

    Args:
        matrix: distances (N, N), infinity on the diagonal; squared for Ward, centroid and median.
        method: the linkage, a key of `UPDATES`.
        sizes: points in each cluster (N,).
    """

    def __init__(self, matrix: Tensor, method: str, sizes: Tensor) -> None:
        self.matrix = matrix
        self.size = len(matrix)
        self.update = UPDATES[method]
        self.sizes = sizes
        self.penalty = torch.zeros_like(sizes)  # infinity for dead positions
        self._make_buffers()

    def _make_buffers(self) -> None:
        rows = min(self.size, block_rows(self.size))
        self.first, self.second = (self.matrix.new_empty(rows, self.size) for _ in range(2))

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest living cluster of each of `rows` (Q,), ascending, and its distance."""
        near, gap = torch.empty_like(rows), self.matrix.new_empty(len(rows))
        for start in range(0, len(rows), len(self.first)):
            stop = min(start + len(self.first), len(rows))
            if len(rows) == self.size:  # all of them, in order, none dead
                block = self.matrix[start:stop]
            else:
                block = torch.index_select(self.matrix, 0, rows[start:stop], out=self.first[: stop - start])
                block.add_(self.penalty)
            gap[start:stop], near[start:stop] = row_minimum(block)
        return near, gap

    def row(self, position: int) -> Tensor:
        """Distances of one cluster to all, infinite to dead ones and itself."""
        return self.matrix[position] + self.penalty

    def merge(self, left: Tensor, right: Tensor, gap: Tensor) -> None:
        """Merges disjoint pairs (P,) at distances `gap`: the union takes the left position, the right one dies."""
        sizes = self.sizes.index_add(0, left, self.sizes[right])
        gap, i, j = gap[:, None], self.sizes[left, None], self.sizes[right, None]
        for start in range(0, len(left), len(self.first)):
            part = slice(start, start + len(self.first))
            rows, count = left[part], len(left[part])
            a = torch.index_select(self.matrix, 0, rows, out=self.first[:count])
            b = torch.index_select(self.matrix, 0, right[part], out=self.second[:count])
            new = self.update(a, b, gap[part], i[part], j[part], self.sizes)
            columns = left.expand(count, -1)  # the pairs also merge among the columns
            cross = new.gather(1, columns), new.gather(1, right.expand(count, -1))
            new.scatter_(1, columns, self.update(*cross, gap.T, i.T, j.T, sizes[rows, None]))
            new[torch.arange(count, device=rows.device), rows] = math.inf
            self.matrix.index_copy_(0, rows, new)
        self.sizes = sizes
        self.penalty[right] = math.inf
        self._mirror(left)

    def _mirror(self, left: Tensor) -> None:
        """Copies the new rows to their columns, exactly symmetric between themselves."""
        if len(left) > 1:
            cross = self.matrix[left[:, None], left]
            self.matrix[left[:, None], left] = torch.minimum(cross, cross.T)
        for start in range(0, self.size, 1024):
            rows = slice(start, start + 1024)
            self.matrix[rows].index_copy_(1, left, self.matrix[:, rows].index_select(0, left).T)

    def keep(self, rows: Tensor) -> None:
        """Shrinks the matrix to the ascending positions `rows`, in its own memory, reading ahead of writing."""
        size = len(rows)
        target = self.matrix.view(-1)[: size * size].view(size, size)
        for start in range(0, size, len(self.first)):
            part = rows[start : start + len(self.first)]
            values = torch.index_select(self.matrix, 0, part, out=self.first[: len(part)])
            target[start : start + len(part)] = values.gather(1, rows.expand(len(part), -1))
        self.matrix, self.size = target, size
        self.sizes, self.penalty = self.sizes[rows], self.penalty[rows]
        self._make_buffers()


class WardSpace:
    """Clusters under Ward's linkage by their centres and sizes.

    Source: Murtagh & Legendre 2014, *Ward's Hierarchical Agglomerative Clustering Method*; the memory-linear form
    after Müllner 2013, *fastcluster*, §2.

    Args:
        x: points (N, F).
        sizes: how many points each row stands for (N,).
    """

    def __init__(self, x: Tensor, sizes: Tensor) -> None:
        self.points = SquaredDistances(x, sizes)
        self.scale = self.points.scale
        self._make_buffer()

    def _make_buffer(self) -> None:
        self.size = len(self.points.centres)
        width = padded(self.size)
        self.buffer = self.points.left.new_full((min(self.size, block_rows(width)), width), math.inf)

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest living cluster of each of `rows` (Q,) and its squared distance."""
        chunks = rows.split(len(self.buffer))
        near, gap = zip(*(nearest_by_bounds(self.points, part, self.buffer, self.size) for part in chunks), strict=True)
        return torch.cat(near), torch.cat(gap)

    def merge(self, left: Tensor, right: Tensor, gap: Tensor) -> None:
        """Merges pairs (P,) of disjoint clusters: the union takes the left position, the right one dies."""
        self.points.merge(left, right)

    def keep(self, rows: Tensor) -> None:
        """Forgets all positions but `rows`."""
        self.points.keep(rows)
        self._make_buffer()
