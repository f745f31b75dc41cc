r"""Hierarchies of clusters: start with every point alone, merge the two nearest clusters, over and over.

```math
(A, B) = \arg\min_{A \neq B} d(A, B)
```

| linkage | d(A, B) |
|---|---|
| single | $\min_{a, b} d(a, b)$ |
| complete | $\max_{a, b} d(a, b)$ |
| average | $\tfrac{1}{|A| |B|} \sum_{a, b} d(a, b)$ |
| weighted | $\tfrac12 (d(A_1, B) + d(A_2, B))$ for A merged from A₁ and A₂ |
| ward | $\sqrt{2 |A| |B| / (|A| + |B|)}\, \lVert \bar A - \bar B \rVert$ |
| centroid | $\lVert \bar A - \bar B \rVert$ |
| median | $\lVert m_A - m_B \rVert$, $m_A = \tfrac12 (m_{A_1} + m_{A_2})$ |

| linkage | how | memory |
|---|---|---|
| single | minimum spanning tree: point by point, or of many points by all components at once | linear in N |
| ward (from points) | all reciprocal nearest neighbours at once, by centres | linear in N |
| complete, average, weighted, others | the same on a stored matrix | 8 N² bytes |
| centroid, median | closest pair, with neighbour candidates, on a stored matrix | 8 N² bytes |
| these, from points of up to 64 features | compiled: a row is measured when it is first asked for | 1 to 3 N² bytes |

Source: Müllner 2011, *Modern Hierarchical, Agglomerative Clustering Algorithms*. The result is SciPy's: the same
merges where no two distances are equal, and the same matrix. Among equal distances the choice is free: up to 256
points it is SciPy's, by the same chain, beyond that hierarchies may differ.

Legend: N points; F features; D distinct points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import ZooError, unknown_name
from zoo.kernels import linkage as kernel
from zoo.models.agglomerative.cluster_spaces import MatrixSpace, WardSpace
from zoo.models.agglomerative.dendrogram import label_merges, optimal_leaf_order
from zoo.models.agglomerative.distance_matrix import SMALL, distance_matrix, empty_square, matrix_copy, unfold
from zoo.models.agglomerative.lower_bounds import SquaredDistances
from zoo.models.agglomerative.merging import Merger, merge_closest
from zoo.models.agglomerative.spanning_tree import DirectDistances, spanning_tree
from zoo.numerics.distances import Metric, euclidean_rows, from_squared, is_euclidean, metric_name

__all__ = ["LINKAGES", "linkage"]

LINKAGES = ("single", "complete", "average", "weighted", "ward", "centroid", "median")
_EUCLIDEAN = ("ward", "centroid", "median")

# The most clusters that the compiled chain merges sooner than rounds of whole-tensor operations do: of a matrix, and of
# points that are measured row by row. Ward's rounds need no matrix; centroid and median have none.
_CHAINED = {"ward": 3000, "others": 4000}
_MEASURED = {"ward": 5000, "others": 20_000, "centroid": math.inf, "median": math.inf}
_NARROW = 64  # the most features of such points: of more, one product of matrices is the quicker
_SPANNED = 20_000  # the most points whose tree is grown one by one sooner than all components at once

Merges = tuple[Tensor, Tensor]  # a point of each of the two clusters (N - 1, 2), their distance (N - 1,)


def linkage(
    data: Tensor, method: str = "single", metric: Metric = "euclidean", *, optimal_ordering: bool = False
) -> Tensor:
    """The hierarchy of clusters as SciPy's matrix.

    Args:
        data: points (N, F); or distances, condensed (N (N - 1) / 2,) or, for `metric="precomputed"`, square (N, N).
        method: one of `LINKAGES`; Ward, centroid and median take distances as Euclidean.
        metric: one of `zoo.numerics.distances.METRICS`, "precomputed", or a function of (A, F) and (B, F) that
            returns (A, B).
        optimal_ordering: turn the subtrees so that near leaves are neighbours; O(N³).

    Returns:
        Float64 (N - 1, 4): the clusters merged (N + t is that of row t), their distance, the number of points of the
        union.

    Raises:
        ZooError: for an unknown name, numbers that are not finite, or distances that are none.

    >>> linkage(torch.tensor([[0.0], [1.0], [5.0]]), "average")
    tensor([[0.0000, 1.0000, 1.0000, 2.0000],
            [2.0000, 3.0000, 4.5000, 3.0000]], dtype=torch.float64)
    """
    metric = check_names(method, metric)
    data = torch.as_tensor(data).detach()
    if data.dim() == 1:
        data, metric = unfold(check_distances(data)), "precomputed"
    elif data.dim() != 2 or not len(data):
        raise ZooError(f"linkage takes points (N, F) or condensed distances, not shape {tuple(data.shape)}")
    if metric == "precomputed":
        matrix = check_square(data)
        pairs, heights = _from_matrix(matrix_copy(matrix), method)
    else:
        found = _at_once(data, method, metric)
        if found is not None:
            return optimal_leaf_order(found, distance_matrix(data, metric)) if optimal_ordering else found
        points, scale = power_of_two(check_points(data).double(), metric)
        pairs, heights = _from_points(points, method, metric)
        heights = heights * scale
    hierarchy = label_merges(pairs, heights, ascending=method not in ("centroid", "median"))
    if optimal_ordering:
        distances = data if metric == "precomputed" else distance_matrix(data, metric)
        hierarchy = optimal_leaf_order(hierarchy, distances)
    return hierarchy


def _at_once(x: Tensor, method: str, metric: Metric) -> Tensor | None:
    """The hierarchy of points (N, F) by one kernel, whose distances are differences; None where that is not the way.

    Tensor operations take most of the time of some hundred points.
    """
    most = _SPANNED if method == "single" else _CHAINED["ward" if method == "ward" else "others"]
    size, width = x.shape
    few = 1 < size <= most and width > 0 and (method == "single" or size**2 * width <= SMALL)
    if not few or metric != "euclidean" or x.is_complex() or not kernel.available(x := x.double().contiguous()):
        return None
    found, strange = kernel.hierarchy(x, empty_square(0 if method == "single" else size, x.device), method)
    return None if int(strange) else found


def check_names(method: str, metric: Metric) -> Metric:
    """The metric by its first name, or one line unless it and the linkage exist and go together."""
    if method not in LINKAGES:
        raise unknown_name("linkage", method, LINKAGES)
    metric = metric_name(metric) if isinstance(metric, str) else metric
    if method in _EUCLIDEAN and metric not in ("euclidean", "precomputed"):
        raise ZooError(f"linkage '{method}' is defined for the metric 'euclidean' alone, not {metric!r}")
    return metric


def power_of_two(x: Tensor, metric: Metric) -> tuple[Tensor, float]:
    """The points over a power of two, so that no square overflows or vanishes, and what takes distances back.

    It rounds nothing. Where the metric is not of degree one in the points, they stay as they are.
    """
    largest = float(x.abs().amax()) if x.numel() else 0.0
    metric = metric_name(metric) if isinstance(metric, str) else metric
    if metric not in ("euclidean", "manhattan", "chebyshev") or 1e-100 < largest < 1e100 or largest == 0:
        return x, 1.0
    scale = 2.0 ** math.frexp(largest)[1]
    return x / scale, scale


def check_points(x: Tensor) -> Tensor:
    """The points, or one line that says what is wrong with them."""
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x)).any(1).nonzero()[0])
        raise ZooError(f"row {row} holds NaN or infinity: drop or fill such rows before clustering")
    return x


def check_distances(distances: Tensor) -> Tensor:
    """The distances, or one line that says what is wrong with them."""
    if not bool((distances >= 0).all() & torch.isfinite(distances).all()):
        raise ZooError("precomputed distances must be finite and not negative")
    return distances


def check_square(matrix: Tensor) -> Tensor:
    """The square matrix of distances, or one line that says what is wrong with it."""
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ZooError(f"metric 'precomputed' takes a square matrix of distances, not shape {tuple(matrix.shape)}")
    off = matrix.clone().fill_diagonal_(0)
    check_distances(off)
    if not torch.allclose(off, off.T, rtol=1e-8, atol=1e-12):
        raise ZooError("the precomputed distances are not symmetric: pass (D + D.T) / 2 if that is what is meant")
    return matrix


def _from_points(x: Tensor, method: str, metric: Metric) -> Merges:
    kept, sizes, copies = _distinct(x, known=isinstance(metric, str))
    distinct = x if len(kept) == len(x) else x[kept]
    if len(distinct) == 1:
        pairs, heights = torch.zeros(0, 2, dtype=torch.long, device=x.device), sizes[:0]
    elif method == "single":
        pairs, heights = _single(distinct, metric)
    elif method in ("centroid", "median"):
        found = _by_rows(x, x.new_ones(len(x)), method, metric)
        return found or _by_closest(distance_matrix(x, "sqeuclidean"), method)
    elif (found := _by_rows(distinct, sizes, method, metric)) is not None:
        pairs, heights = found
    elif method == "ward" and len(distinct) <= _CHAINED["ward"] and kernel.available(x.new_empty(0)):
        matrix, size = distance_matrix(distinct, "sqeuclidean"), sizes[:, None]
        if len(copies):
            matrix *= 2 * size * sizes / (size + sizes)
        pairs, heights = kernel.merge_chain(matrix, sizes, method)
        heights = heights.clamp_min(0).sqrt()
    elif method == "ward":
        space = WardSpace(distinct, sizes)
        pairs, heights = Merger(space, x.device).run()
        heights = heights.sqrt() * space.scale
    else:
        pairs, heights = _by_matrix(distance_matrix(distinct, metric), method, sizes)
    return torch.cat([copies, kept[pairs]]), torch.cat([heights.new_zeros(len(copies)), heights])


def _by_rows(x: Tensor, sizes: Tensor, method: str, metric: Metric) -> Merges | None:
    """Merges of clusters of points (N, F) by a kernel that measures a row when it is first asked for, from differences.

    None where that is not the way.
    """
    size, width = x.shape
    fits = size <= _MEASURED.get(method, _MEASURED["others"]) and width <= _NARROW and size**2 * width > SMALL
    if not fits or metric != "euclidean" or not kernel.available(x.new_empty(0)):
        return None
    room = empty_square(len(x), x.device)  # most of which is never touched
    if method in ("centroid", "median"):
        pairs, heights = kernel.merge_closest(room, sizes, method == "median", x)
    else:
        pairs, heights = kernel.merge_chain(room, sizes, method, x)
    return pairs, heights.clamp_min(0).sqrt() if method in _EUCLIDEAN else heights


def _from_matrix(matrix: Tensor, method: str) -> Merges:
    """Merges of a matrix of distances (N, N), which is consumed."""
    if len(matrix) == 1:
        return torch.zeros(0, 2, dtype=torch.long, device=matrix.device), matrix[0, :0]
    if method == "single":
        return _span(matrix)
    if method in ("centroid", "median"):
        return _by_closest(matrix.square_(), method)
    if method == "ward":
        matrix.square_()
    sizes = torch.ones(len(matrix), dtype=torch.float64, device=matrix.device)
    pairs, heights = _by_matrix(matrix, method, sizes)
    return pairs, heights.sqrt() if method == "ward" else heights


def _by_matrix(matrix: Tensor, method: str, sizes: Tensor) -> Merges:
    """Merges under a reducible linkage, of a matrix of distances (N, N) and the clusters' sizes (N,)."""
    if len(matrix) <= _CHAINED["others"] and kernel.available(matrix):
        return kernel.merge_chain(matrix, sizes, method)
    return Merger(MatrixSpace(matrix, method, sizes), matrix.device).run()


def _single(x: Tensor, metric: Metric) -> Merges:
    if not is_euclidean(metric):
        if len(x) <= _CHAINED["others"] and kernel.available(x.new_empty(0)):
            return _span(distance_matrix(x, metric))
        return spanning_tree(DirectDistances(x, metric), len(x), x.device)
    rows = euclidean_rows(x, metric)
    if len(x) <= _SPANNED and kernel.available(rows):
        largest = float(rows.abs().amax())
        scale = 2.0 ** math.frexp(largest)[1]  # so that no square overflows or vanishes; it rounds nothing
        pairs, squared = kernel.span(rows / scale, False)
        return pairs, from_squared(squared * scale**2, metric)
    points = SquaredDistances(rows)
    pairs, squared = spanning_tree(points, len(x), x.device)
    return pairs, from_squared(squared * points.scale**2, metric)


def _span(matrix: Tensor) -> Merges:
    """Single linkage of a matrix of distances (N, N)."""
    if kernel.available(matrix):
        return kernel.span(matrix, True)
    return spanning_tree(DirectDistances(matrix, "precomputed"), len(matrix), matrix.device)


def _by_closest(squared: Tensor, method: str) -> Merges:
    sizes = torch.ones(len(squared), dtype=torch.float64, device=squared.device)
    if kernel.available(squared):
        pairs, heights = kernel.merge_closest(squared, sizes, method == "median")
    else:
        pairs, heights = merge_closest(MatrixSpace(squared, method, sizes))
    return pairs, heights.clamp_min(0).sqrt()


def _distinct(x: Tensor, known: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Equal rows merge first, at height zero, if the metric is known to be zero for them.

    Returns:
        The last of each (D,), ascending, how many there are (D,), and the pairs merged (N - D, 2).
    """
    rows = torch.arange(len(x), device=x.device)
    probe = torch.linspace(1.0, 2.0, x.shape[1], dtype=x.dtype, device=x.device).sin()
    if not known or len((x @ probe).unique()) == len(x):
        return rows, torch.ones(len(x), dtype=torch.float64, device=x.device), rows[:0].expand(2, 0).T
    inverse, counts = x.unique(dim=0, return_inverse=True, return_counts=True)[1:]
    last, order = torch.zeros_like(counts).scatter_reduce(0, inverse, rows, "amax").sort()
    pairs = torch.stack([rows, last[order.argsort()[inverse]]], 1)
    return last, counts[order].double(), pairs[pairs[:, 0] != pairs[:, 1]]
