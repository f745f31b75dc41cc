r"""The minimum spanning tree of points in linear memory: single linkage is its edges in order of length.

Each component joins along the shortest edge that leaves it (Borůvka 1926, *O jistém problému minimálním*), all
components at once. A point keeps its K nearest candidates outside its component and a bound below which no other
point lies; so one pass over all pairs decides nearly every edge, and only the points whose bound leaves their
component undecided search again. The largest component need not search at all: the others find their edges to it.

Legend: N points; C components; Q query rows; K candidates; M ≥ N the padded width of a block.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from zoo.models.agglomerative.lower_bounds import Pairs, block_rows, padded, settle, smallest_entries
from zoo.numerics.distances import Metric, pairwise_distances

__all__ = ["DirectDistances", "spanning_tree"]

_CANDIDATES = 8
_WIDTH = 64


class Distances(Protocol):
    """Points that give rows of distances, or bounds of them and a method `exact` for the distances of pairs."""

    dtype: torch.dtype

    def bound(self, rows: Tensor, out: Tensor) -> Tensor: ...


class DirectDistances:
    """Rows of distances under any metric, or of a stored matrix: exact, so that nothing is left to bound.

    Args:
        x: points (N, F), or the matrix (N, N) for the metric "precomputed".
        metric: a name, a function, or "precomputed".
    """

    dtype = torch.float64

    def __init__(self, x: Tensor, metric: Metric) -> None:
        self.x, self.metric = x, metric

    def bound(self, rows: Tensor, out: Tensor) -> Tensor:
        """The distances of `rows` (Q,) to every point, written to `out` (Q, N)."""
        return out.copy_(pairwise_distances(self.x[rows], self.x, self.metric))


def spanning_tree(points: Distances, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The edges of a minimum spanning tree.

    Args:
        points: the distances.
        size: number of points, N.
        device: where they live.

    Returns:
        Ends (N - 1, 2) and lengths (N - 1,) of the edges, in no order.
    """
    return _Forest(points, size, device).grow()


class _Forest:
    def __init__(self, points: Distances, size: int, device: torch.device) -> None:
        self.points, self.size = points, size
        self.exact = getattr(points, "exact", None)
        width = padded(size, _WIDTH)
        self.buffer = torch.full((block_rows(width), width), math.inf, dtype=points.dtype, device=device)
        self.component = torch.arange(size, device=device)
        self.count = size
        self.columns = torch.zeros(size, _CANDIDATES, dtype=torch.long, device=device)
        self.length = torch.full((size, _CANDIDATES), math.inf, dtype=torch.float64, device=device)
        self.unseen = torch.zeros(size, dtype=torch.float64, device=device)
        self.edges: list[Tensor] = []
        self.lengths: list[Tensor] = []

    def grow(self) -> tuple[Tensor, Tensor]:
        rows = self.component
        while self.count > 1:
            for part in rows.split(len(self.buffer)):
                self._search(part)
            undecided = self._join()
            while undecided is None:
                undecided = self._join()
            rows = undecided
        return torch.cat(self.edges), torch.cat(self.lengths)

    def _search(self, rows: Tensor) -> None:
        """Finds the nearest candidates of `rows` (Q,) outside their components."""
        block = self.buffer[: len(rows)]
        self.points.bound(rows, block[:, : self.size])
        if self.count == self.size:
            block[torch.arange(len(rows), device=rows.device), rows] = math.inf
        else:
            block[:, : self.size].masked_fill_(self.component[rows, None] == self.component, math.inf)
        values, columns, unseen = smallest_entries(block, _CANDIDATES, _WIDTH)
        columns, kept, unseen = columns.clamp(max=self.size - 1), values.shape[1], unseen.double()
        exact = self.exact
        if exact is None:
            length = values.double()
        else:
            length = exact(rows[:, None], columns).masked_fill_(values.isinf(), math.inf)
            _settle(exact, rows, block, columns, length, unseen)
        self.columns[rows, :kept], self.length[rows, :kept], self.unseen[rows] = columns, length, unseen

    def _join(self) -> Tensor | None:
        """Joins the components whose shortest edge is known; where there is none, returns the rows that must search."""
        outside = self.component[self.columns] != self.component[:, None]
        length, place = self.length.masked_fill(~outside, math.inf).min(1)
        infinite = length.new_full((self.count,), math.inf)
        shortest = infinite.scatter_reduce(0, self.component, length, "amin")  # (C,)
        blocked = infinite.scatter_reduce(0, self.component, self.unseen, "amin")
        decided = (shortest <= blocked) & shortest.isfinite()
        if not bool(decided.any()):
            return self._undecided(shortest) if self.count > 1 else self.component[:0]
        rows = (length == shortest[self.component]).nonzero()[:, 0]
        first = self.component.new_full((self.count,), self.size)
        first = first.scatter_reduce(0, self.component[rows], rows, "amin")[decided]
        self._unite(first, self.columns[first, place[first]], shortest[decided])
        return None

    def _undecided(self, shortest: Tensor) -> Tensor:
        largest = self.component.bincount().argmax()
        return ((self.unseen < shortest[self.component]) & (self.component != largest)).nonzero()[:, 0]

    def _unite(self, row: Tensor, column: Tensor, length: Tensor) -> None:
        """Joins components along edges, the shortest first; where equal lengths close a circle, the last is dropped."""
        order = length.argsort()
        row, column, length = row[order], column[order], length[order]
        parent = list(range(self.count))

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = node = parent[parent[node]]
            return node

        kept = []
        ends = zip(self.component[row].tolist(), self.component[column].tolist(), strict=True)
        for edge, (a, b) in enumerate(ends):
            a, b = root(a), root(b)
            if a != b:
                parent[a] = b
                kept.append(edge)
        self.edges.append(torch.stack([row[kept], column[kept]], 1))
        self.lengths.append(length[kept])
        roots = torch.tensor([root(node) for node in range(self.count)], device=row.device)
        self.component = roots.unique(return_inverse=True)[1][self.component]
        self.count -= len(kept)


def _settle(exact: Pairs, rows: Tensor, block: Tensor, columns: Tensor, length: Tensor, unseen: Tensor) -> None:
    """Finds the nearest point of the rows whose bounds leave it open."""
    doubtful = (length.amin(1) > unseen).nonzero()[:, 0]
    if len(doubtful):
        nearest = length[doubtful].amin(1, keepdim=True)
        near, gap = settle(exact, rows[doubtful], block[doubtful] <= nearest)
        length[doubtful] = math.inf
        columns[doubtful, 0], length[doubtful, 0], unseen[doubtful] = near, gap, gap
