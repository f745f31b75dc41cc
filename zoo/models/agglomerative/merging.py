r"""In which order clusters merge: all reciprocal nearest neighbours at once, along a chain, or always the closest pair.

For a *reducible* linkage, $d(i \cup j, k) \ge \min(d_{ik}, d_{jk})$ where i and j are nearest neighbours of
each other, such a pair merges sooner or later whatever happens elsewhere. So all of them may merge at once, in
whole-tensor operations, and the distance of a cluster to its last known neighbour stays a lower bound when that
neighbour is gone.

Sources: Bruynooghe 1978, *Classification ascendante hiérarchique des grands ensembles de données* (reciprocal pairs);
Benzécri 1982 and Murtagh 1983, *A Survey of Recent Advances in Hierarchical Clustering Algorithms* (chain); Müllner
2011, *Modern Hierarchical, Agglomerative Clustering Algorithms*, fig. 3 (closest pair with neighbour candidates, for
the linkages that are not reducible).

Deviation: only the clusters with the smallest bounds look for their neighbour again in a round; the others wait,
often until their own merge makes it needless. Where rounds merge too little for what they search (chaining, ties),
the chain takes over, so that the work stays within O(n²).

Legend: N positions of clusters; Q rows searched; P pairs merged.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from zoo.models.agglomerative.cluster_spaces import MatrixSpace

__all__ = ["Merger", "Space", "merge_closest"]

_SEARCHED = 0.2  # share of the clusters in doubt that search in a round
_FEW = 256  # positions up to which the chain is quick enough, and lets ties fall as SciPy does
_SPARSE = 16  # searches for one merge above which the chain is cheaper
_SHRINK = 0.6  # share of living positions below which the space is compacted


class Space(Protocol):
    """Positions that hold clusters: what a merging order needs of them."""

    size: int

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]: ...

    def merge(self, left: Tensor, right: Tensor, gap: Tensor) -> None: ...

    def keep(self, rows: Tensor) -> None: ...


class Merger:
    """Merges the clusters of a space under a reducible linkage down to one.

    Args:
        space: the clusters; it is consumed.
        device: where it lives.
    """

    def __init__(self, space: Space, device: torch.device) -> None:
        self.space = space
        self.leaf = torch.arange(space.size, device=device)  # a point of the cluster at each position
        self.alive = torch.ones(space.size, dtype=torch.bool, device=device)
        self.near = torch.zeros_like(self.leaf)
        self.gap = torch.zeros(
            space.size, dtype=torch.float64, device=device
        )  # distance to near; a lower bound while in doubt
        self.doubt = self.alive.clone()
        self.remaining = space.size
        self.log: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(self) -> tuple[Tensor, Tensor]:
        """Merges everything.

        Returns:
            A point of each of the two clusters of every merge (N - 1, 2), and their distances (N - 1,), in the order
            of merging.
        """
        wasted = 0
        if self.remaining > _FEW:
            self._search(self.alive.nonzero()[:, 0])
        else:
            self._follow_chain()
        while self.remaining > 1 and wasted <= self.space.size:
            left, right = self._reciprocal_pairs()
            self._merge(left, right)
            wasted = max(0, wasted + self._search(self._first_in_doubt()) - _SPARSE * len(left))
        if self.remaining > 1:
            self._follow_chain()
        left, right, gap = (torch.cat(column) for column in zip(*self.log, strict=True))
        return torch.stack([left, right], 1), gap

    def _reciprocal_pairs(self) -> tuple[Tensor, Tensor]:
        index = torch.arange(len(self.near), device=self.near.device)
        sure = self.alive & ~self.doubt
        mutual = sure & sure[self.near] & (self.near[self.near] == index) & (index < self.near)
        left = mutual.nonzero()[:, 0]
        if len(left) or bool(self.doubt.any()):
            return left, self.near[left]
        # Distances that differ by rounding alone can point in a circle; the closest pair is always right.
        closest = self.gap.masked_fill(~self.alive, math.inf).argmin()
        pair = torch.stack([closest, self.near[closest]]).sort().values
        return pair[:1], pair[1:]

    def _merge(self, left: Tensor, right: Tensor, gap: Tensor | None = None) -> None:
        if not len(left):
            return
        gap = self.gap[left] if gap is None else gap
        self.log.append((self.leaf[left], self.leaf[right], gap))
        self.space.merge(left, right, gap)
        self.alive[right] = False
        self.remaining -= len(left)
        changed = torch.zeros_like(self.alive)
        changed[left] = changed[right] = True
        self.doubt = self.alive & (self.doubt | changed | changed[self.near])
        if self.remaining < _SHRINK * self.space.size:
            self._shrink()

    def _shrink(self) -> None:
        rows = self.alive.nonzero()[:, 0]
        self.moved = torch.zeros_like(self.near)
        self.moved[rows] = torch.arange(len(rows), device=rows.device)
        self.space.keep(rows)
        self.leaf, self.gap, self.doubt = self.leaf[rows], self.gap[rows], self.doubt[rows]
        self.near, self.alive = self.moved[self.near[rows]], self.alive[rows]

    def _first_in_doubt(self) -> Tensor:
        rows = self.doubt.nonzero()[:, 0]
        if len(rows) < 8:
            return rows
        bound = self.gap[rows]
        return rows[bound <= bound.kthvalue(math.ceil(_SEARCHED * len(rows))).values]

    def _search(self, rows: Tensor) -> int:
        if len(rows) and self.remaining > 1:
            self.near[rows], self.gap[rows] = self.space.nearest(rows)
            self.doubt[rows] = False
        return len(rows)

    def _follow_chain(self) -> None:
        """From any cluster to its nearest neighbour, to that one's, … until two are nearest to each other."""
        chain: list[tuple[int, Tensor]] = []
        device = self.near.device
        while self.remaining > 1:
            if not chain:
                chain = [(int(self.alive.nonzero()[0]), torch.tensor([math.inf], dtype=torch.float64, device=device))]
            tip, last = chain[-1]
            near, gap = self.space.nearest(torch.tensor([tip], device=device))
            if bool(gap < last):
                chain.append((int(near), gap))
                continue
            pair = torch.tensor(sorted((tip, chain[-2][0]), reverse=True), device=device)  # the later one lives on
            del chain[-2:]
            size = self.space.size
            self._merge(pair[:1], pair[1:], last)
            if self.space.size < size:
                chain = [(int(self.moved[position]), gap) for position, gap in chain]


def merge_closest(space: MatrixSpace) -> tuple[Tensor, Tensor]:
    """Merges the closest pair over and over: for any linkage, also those under which distances shrink.

    Returns:
        A point of each of the two clusters of every merge (N - 1, 2), and their distances (N - 1,).
    """
    near, gap = space.nearest(torch.arange(space.size, device=space.sizes.device))
    doubt = torch.zeros_like(near, dtype=torch.bool)
    merges = []
    for _ in range(space.size - 1):
        row = gap.argmin()
        while bool(doubt[row]):
            near[row : row + 1], gap[row : row + 1] = space.nearest(row[None])
            doubt[row] = False
            row = gap.argmin()
        left, right = torch.stack([row, near[row]]).sort().values.split(1)
        merges.append((torch.cat([left, right]), gap[row].clone()))
        space.merge(left, right, gap[row][None])
        gap[right] = math.inf
        doubt |= (near == left) | (near == right)
        new = space.row(int(left))
        closer = new <= gap
        gap, near = torch.where(closer, new, gap), torch.where(closer, left, near)
        doubt &= ~closer
        doubt[right] = False
        gap[right] = math.inf
        near[left], gap[left] = space.nearest(left)
        doubt[left] = False
    pairs, gaps = zip(*merges, strict=True)
    return torch.stack(pairs), torch.stack(gaps)
