r"""What a hierarchy of clusters tells: labels at a cut, cophenetic distances, the order of its leaves.

```math
r = \frac{\sum_{i<j} (d_{ij} - \bar d)(c_{ij} - \bar c)}
         {\sqrt{\sum_{i<j} (d_{ij} - \bar d)^2 \sum_{i<j} (c_{ij} - \bar c)^2}}
```

is the cophenetic correlation between the distances d and the heights c at which two points first share a cluster
(Sokal & Rohlf 1962, *The Comparison of Dendrograms by Objective Methods*). The optimal leaf order turns the subtrees
so that the distances between neighbouring leaves sum to the least (Bar-Joseph, Gifford & Jaakkola 2001, *Fast Optimal
Leaf Ordering for Hierarchical Clustering*, §3):

```math
M_v(u, w) = \min_{m, k} \; M_l(u, m) + d_{mk} + M_r(k, w)
```

is the least sum of subtree v with outer leaves u and w, for its children l and r: two products in the (min, +)
algebra.

Legend: N points; a hierarchy is SciPy's matrix (N - 1, 4): the two clusters merged (N + t is that of row t), height,
number of points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels import linkage as kernel

__all__ = [
    "cophenetic_correlation",
    "cophenetic_distances",
    "cut_at_height",
    "cut_into",
    "label_merges",
    "leaf_order",
    "optimal_leaf_order",
]


def label_merges(pairs: Tensor, heights: Tensor, ascending: bool = True) -> Tensor:
    """The hierarchy (N - 1, 4) of merges given by a point of each of the two clusters.

    Args:
        pairs: a point of either cluster (N - 1, 2).
        heights: their distance (N - 1,).
        ascending: sort by height (stable), which every reducible linkage allows.

    >>> label_merges(torch.tensor([[2, 1], [0, 1]]), torch.tensor([1.0, 2.0]))
    tensor([[1., 2., 1., 2.],
            [0., 3., 2., 3.]], dtype=torch.float64)
    """
    if ascending:
        heights, order = heights.sort(stable=True)
        pairs = pairs[order]
    if kernel.available(heights.double()):
        return kernel.label_merges(pairs, heights.double())
    count = len(pairs) + 1
    parent, size = list(range(2 * count - 1)), [1] * (2 * count - 1)
    first, second = [], []
    for node, a, b in zip(range(count, 2 * count), *pairs.T.tolist(), strict=False):
        a, b = _root(parent, a), _root(parent, b)
        parent[a] = parent[b] = node
        size[node] = size[a] + size[b]
        first.append(min(a, b))
        second.append(max(a, b))
    return torch.tensor(
        [first, second, heights.tolist(), size[count:]], dtype=torch.float64, device=heights.device
    ).T.contiguous()


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = node = parent[parent[node]]
    return node


def cut_into(hierarchy: Tensor, num_clusters: int) -> Tensor:
    """Labels (N,) of the clusters before the last `num_clusters - 1` merges, numbered by their first point.

    Raises:
        ZooError: for more clusters than points, or fewer than one.

    >>> cut_into(torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 2.0, 3.0]]), 2)
    tensor([0, 1, 1])
    """
    count = len(hierarchy) + 1
    if not 1 <= num_clusters <= count:
        raise ZooError(f"{count} rows cannot form {num_clusters} clusters: pass num_clusters between 1 and {count}")
    return _labels(hierarchy, torch.arange(1, count, device=hierarchy.device) <= count - num_clusters)


def cut_at_height(hierarchy: Tensor, height: float) -> Tensor:
    """Labels (N,) of the largest clusters in which no merge lies above `height`, numbered by their first point.

    >>> cut_at_height(torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 2.0, 3.0]]), 1.5)
    tensor([0, 1, 1])
    """
    count = len(hierarchy) + 1
    highest = [-math.inf] * count  # under linkages that are not reducible a merge may lie below an earlier one
    for a, b, own, _ in hierarchy.tolist():
        highest.append(max(own, highest[int(a)], highest[int(b)]))
    return _labels(hierarchy, torch.tensor(highest[count:], device=hierarchy.device, dtype=torch.float64) <= height)


def _labels(hierarchy: Tensor, merged: Tensor) -> Tensor:
    count = len(hierarchy) + 1
    parent = torch.arange(2 * count - 1, device=hierarchy.device)
    children = hierarchy[merged, :2].long()
    parent[children] = (count + merged.nonzero()).expand(-1, 2)
    while not torch.equal(parent, parent[parent]):
        parent = parent[parent]
    inverse = parent[:count].unique(return_inverse=True)[1]
    first = inverse.new_full((count,), count).scatter_reduce(
        0, inverse, torch.arange(count, device=inverse.device), "amin"
    )
    return first.argsort().argsort()[inverse]


def leaf_order(hierarchy: Tensor) -> Tensor:
    """The points (N,) from left to right, each merge's first cluster left of its second.

    >>> leaf_order(torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 2.0, 3.0]]))
    tensor([0, 1, 2])
    """
    count = len(hierarchy) + 1
    children = hierarchy[:, :2].long().tolist()
    stack, order = [2 * count - 2], []
    while stack:
        node = stack.pop()
        if node < count:
            order.append(node)
        else:
            stack.extend(reversed(children[node - count]))
    return torch.tensor(order, device=hierarchy.device)


def _spans(hierarchy: Tensor) -> list[tuple[int, int, int]]:
    """For each merge the places in the leaf order where its first cluster begins, its second begins, and it ends."""
    count = len(hierarchy) + 1
    start = [0] * (2 * count - 1)
    for place, leaf in enumerate(leaf_order(hierarchy).tolist()):
        start[leaf] = place
    size = [1] * count + hierarchy[:, 3].long().tolist()
    spans = []
    for node, (a, b) in enumerate(hierarchy[:, :2].long().tolist(), start=count):
        start[node] = start[a]
        spans.append((start[a], start[b], start[b] + size[b]))
    return spans


def cophenetic_distances(hierarchy: Tensor) -> Tensor:
    """The height at which each pair of points first shares a cluster, in condensed form (N (N - 1) / 2,).

    >>> cophenetic_distances(torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 2.0, 3.0]]))
    tensor([2., 2., 1.], dtype=torch.float64)
    """
    count = len(hierarchy) + 1
    square = torch.zeros(count, count, dtype=torch.float64, device=hierarchy.device)
    for (left, middle, right), height in zip(_spans(hierarchy), hierarchy[:, 2].tolist(), strict=True):
        square[left:middle, middle:right] = height
    place = leaf_order(hierarchy).argsort()
    row, column = torch.triu_indices(count, count, 1, device=hierarchy.device)
    return square[torch.minimum(place[row], place[column]), torch.maximum(place[row], place[column])]


def cophenetic_correlation(hierarchy: Tensor, distances: Tensor) -> float:
    """Correlation of condensed distances (N (N - 1) / 2,) with the cophenetic ones; NaN where either is constant."""
    a = distances.double() - distances.double().mean()
    b = cophenetic_distances(hierarchy)
    b -= b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def optimal_leaf_order(hierarchy: Tensor, distances: Tensor) -> Tensor:
    """The same hierarchy with the two clusters of each merge swapped where that brings near leaves together.

    Time O(N³) and memory O(N²).

    Args:
        hierarchy: merges (N - 1, 4).
        distances: between all points (N, N).
    """
    count = len(hierarchy) + 1
    if count < 3:
        return hierarchy.clone()
    leaves, spans = leaf_order(hierarchy), _spans(hierarchy)
    distance = distances.double()[leaves][:, leaves]
    least = torch.zeros_like(distance)
    for node, (left, middle, right) in enumerate(spans):
        first, second = slice(left, middle), slice(middle, right)
        a, b = (_ends(least, spans, int(child) - count) for child in hierarchy[node, :2])
        least[first, second] = _min_plus(_min_plus(a, distance[first, second]), b)
        least[second, first] = least[first, second].T
    place = torch.empty(count, dtype=torch.long, device=hierarchy.device)
    place[leaves[_unfold_order(hierarchy, spans, distance, least)]] = torch.arange(count, device=hierarchy.device)
    rank = place.tolist()
    ordered = hierarchy.clone()
    for node, (a, b) in enumerate(hierarchy[:, :2].long().tolist()):
        rank.append(min(rank[a], rank[b]))
        if rank[a] > rank[b]:
            ordered[node, :2] = hierarchy[node, [1, 0]]
    return ordered


def _ends(least: Tensor, spans: list[tuple[int, int, int]], node: int) -> Tensor:
    """The least sums of a subtree by its outer leaves, one on each side of its root; zero for a leaf (node < 0)."""
    if node < 0:
        return least.new_zeros(1, 1)
    left, middle, right = spans[node]
    sums = least[left:right, left:right].clone()
    sums[: middle - left, : middle - left] = sums[middle - left :, middle - left :] = math.inf
    return sums


def _min_plus(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices in the (min, +) algebra."""
    rows = max(1, (1 << 20) // b.numel())
    return torch.cat([(part[:, :, None] + b).amin(1) for part in a.split(rows)])


def _unfold_order(hierarchy: Tensor, spans: list[tuple[int, int, int]], distance: Tensor, least: Tensor) -> Tensor:
    """Places in the old leaf order (N,) from left to right in the best one."""
    count = len(spans) + 1
    children = hierarchy[:, :2].long().tolist()
    left, middle, right = spans[-1]
    best = int(least[left:middle, middle:right].argmin())
    stack = [(2 * count - 2, best // (right - middle), middle + best % (right - middle))]
    order = []
    while stack:
        node, begin, end = stack.pop()
        if node < count:
            order.append(begin)
            continue
        (left, middle, right), (a, b) = spans[node - count], children[node - count]
        turned = begin >= middle
        outer, inner = (end, begin) if turned else (begin, end)
        before = _ends(least, spans, a - count)[outer - left]
        after = _ends(least, spans, b - count)[inner - middle]
        cost = before[:, None] + distance[left:middle, middle:right] + after
        m, k = divmod(int(cost.argmin()), right - middle)
        halves = [(a, outer, left + m), (b, middle + k, inner)]
        if turned:
            halves = [(child, stop, start) for child, start, stop in reversed(halves)]
        stack.extend(reversed(halves))
    return torch.tensor(order, device=hierarchy.device)
