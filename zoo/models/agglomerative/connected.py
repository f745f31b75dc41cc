r"""Hierarchies of clusters that merge only along the edges of a graph, such as that of an image's neighbouring pixels.

The nearest two clusters with an edge between them merge; the edges of both are then those of the union. Distances
of clusters are those of edges alone: the least of them (single), the greatest (complete), their mean weighted by the
points of both clusters (average), each edge of one cluster counting for itself where the other has none. Ward's is
exact,

```math
d(A, B) = \sqrt{\frac{2 |A| |B|}{|A| + |B|}}\, \lVert \bar A - \bar B \rVert .
```

A graph of several components is completed by the shortest edge between any two of them.

Legend: N points of F features; E edges.

Source: G. Michel et al., "A supervised clustering approach for fMRI-based inference of brain states", 2012 (Ward's with
connectivity); the rules for edges of complete and average linkage are scikit-learn's.
"""

from __future__ import annotations

import heapq
import math

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.agglomerative.distance_matrix import distance_matrix
from zoo.models.agglomerative.linkage import check_names
from zoo.numerics.distances import Metric, pairwise_distances

__all__ = ["complete_graph", "connected_components", "connected_linkage"]

_METHODS = ("single", "complete", "average", "ward")


def connected_components(edges: Tensor, num_points: int) -> Tensor:
    """Return the component of each point, numbered by its first one, (N,).

    >>> connected_components(torch.tensor([[0, 2], [2, 3]]), 4).tolist()
    [0, 1, 0, 0]
    """
    label = torch.arange(num_points, device=edges.device)
    while True:  # each point takes the least label around it, and that one's label
        near = label.clone()
        near.scatter_reduce_(0, edges.flatten(), label[edges.flip(1)].flatten(), "amin")
        near = near[near]
        if torch.equal(near, label):
            return label.unique(return_inverse=True)[1]
        label = near


def complete_graph(x: Tensor, edges: Tensor, metric: Metric = "euclidean") -> tuple[Tensor, int]:
    """Return the edges (E', 2) with the shortest one between any two components, and how many components there were.

    Args:
        x: points (N, F), or distances (N, N) for `precomputed`.
        edges: pairs of points (E, 2).
        metric: one of `zoo.numerics.distances.METRICS`, or `precomputed`.

    >>> complete_graph(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0, 1]]))
    (tensor([[0, 1],
            [2, 1]]), 2)
    """
    component = connected_components(edges, len(x))
    count = int(component.max()) + 1
    members = [(component == number).nonzero()[:, 0] for number in range(count)]
    added = []
    for first in range(count):
        for second in range(first):
            a, b = members[first], members[second]
            gaps = x[a][:, b] if metric == "precomputed" else pairwise_distances(x[a], x[b], metric)
            place = int(gaps.argmin())
            added.append([int(a[place // len(b)]), int(b[place % len(b)])])
    more = torch.tensor(added, dtype=edges.dtype, device=edges.device).view(-1, 2)
    return torch.cat([edges, more]), count


def connected_linkage(x: Tensor, edges: Tensor, method: str = "ward", metric: Metric = "euclidean") -> Tensor:
    """The hierarchy of clusters that merge along edges, as SciPy's matrix, in the order of merging.

    Args:
        x: points (N, F), or distances (N, N) for `precomputed`.
        edges: pairs of points (E, 2) that make one component.
        method: `single`, `complete`, `average` or `ward`.
        metric: one of `zoo.numerics.distances.METRICS`, or `precomputed`; Ward's is Euclidean.

    Returns:
        Float64 (N - 1, 4): the clusters merged, their distance, the number of points of the union.

    Raises:
        ZooError: for another method, or edges that leave points apart.

    >>> x = torch.tensor([[0.0], [5.0], [1.0]])
    >>> connected_linkage(x, torch.tensor([[0, 1], [1, 2]]), "single")
    tensor([[1., 2., 4., 2.],
            [0., 3., 5., 3.]], dtype=torch.float64)
    """
    if method not in _METHODS:
        raise ZooError(f"Along edges clusters merge by {', '.join(_METHODS)} linkage, not by {method!r}.")
    metric = check_names(method, metric)
    x, count = x.double(), len(x)
    edges = edges[edges[:, 0] != edges[:, 1]].sort(1).values.unique(dim=0)
    if int(connected_components(edges, count).max()) > 0:
        raise ZooError("The edges leave some points apart: complete the graph first (complete_graph).")
    if method == "ward":
        return _ward(x, edges)
    return _by_edges(_lengths(x, edges, metric), edges, count, method)


def _lengths(x: Tensor, edges: Tensor, metric: Metric) -> Tensor:
    """Distances of the ends of edges, (E,)."""
    a, b = edges.T
    if metric == "precomputed":
        return x[a, b]
    if metric == "euclidean":
        return torch.linalg.vector_norm(x[a] - x[b], dim=1)
    return distance_matrix(x, metric)[a, b]


def _by_edges(lengths: Tensor, edges: Tensor, count: int, method: str) -> Tensor:
    near: list[dict[int, float]] = [{} for _ in range(count)]
    heap = []
    for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
        near[a][b] = near[b][a] = length
        heap.append((length, b, a))
    heapq.heapify(heap)
    size, merges = [1] * count, []
    for node in range(count, 2 * count - 1):
        length, i, j = _pop(heap, size)
        merges.append([j, i, length, size[i] + size[j]])
        joined = _joined(near[i], near[j], size[i], size[j], method)
        size.append(size[i] + size[j])
        size[i] = size[j] = 0
        del joined[i], joined[j]
        for other, gap in joined.items():
            ends = near[other]
            ends.pop(i, None)
            ends.pop(j, None)
            ends[node] = gap
            heapq.heappush(heap, (gap, node, other))
        near[i] = near[j] = {}
        near.append(joined)
    return torch.tensor(merges, dtype=torch.float64, device=edges.device).view(-1, 4)


def _pop(heap: list[tuple[float, int, int]], size: list[int]) -> tuple[float, int, int]:
    """The nearest two clusters that live."""
    while True:
        gap, i, j = heapq.heappop(heap)
        if size[i] and size[j]:
            return gap, i, j


def _joined(a: dict[int, float], b: dict[int, float], size_a: int, size_b: int, method: str) -> dict[int, float]:
    """The edges of the union of two clusters."""
    both = dict(a)
    for other, gap in b.items():
        mine = both.get(other)
        if mine is None:
            both[other] = gap
        elif method == "average":
            both[other] = (size_a * mine + size_b * gap) / (size_a + size_b)
        else:
            both[other] = max(mine, gap) if method == "complete" else min(mine, gap)
    return both


def _ward(x: Tensor, edges: Tensor) -> Tensor:
    count = len(x)
    total = torch.cat([x, x.new_zeros(count - 1, x.shape[1])])  # Σ x of each cluster
    size = [1] * count
    near: list[set[int]] = [set() for _ in range(count)]
    for a, b in edges.tolist():
        near[a].add(b)
        near[b].add(a)
    gaps = (x[edges[:, 0]] - x[edges[:, 1]]).square().sum(1) / 2  # by how much the sum of squares grows
    heap = [(gap, b, a) for (a, b), gap in zip(edges.tolist(), gaps.tolist(), strict=True)]
    heapq.heapify(heap)
    merges = []
    for node in range(count, 2 * count - 1):
        gap, i, j = _pop(heap, size)
        mass = size[i] + size[j]
        merges.append([j, i, math.sqrt(2 * gap), mass])
        total[node] = total[i] + total[j]
        size.append(mass)
        size[i] = size[j] = 0
        around = near[i] | near[j]
        around -= {i, j}
        near[i] = near[j] = set()
        near.append(around)
        others = sorted(around)
        masses = x.new_tensor([size[other] for other in others])
        offset = total[others] / masses.unsqueeze(1) - total[node] / mass
        growth = offset.square().sum(1) * (masses * mass / (masses + mass))
        for other, value in zip(others, growth.tolist(), strict=True):
            near[other] -= {i, j}
            near[other].add(node)
            heapq.heappush(heap, (value, node, other))
    return torch.tensor(merges, dtype=torch.float64, device=x.device).view(-1, 4)
