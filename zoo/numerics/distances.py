r"""Distances between rows: the metrics, and which of them are Euclidean distances in disguise.

| metric | δ(a, b) |
|---|---|
| euclidean (l2), sqeuclidean | $\lVert a - b \rVert$, $\lVert a - b \rVert^2$ |
| manhattan (cityblock, l1), chebyshev | $\sum_f |a_f - b_f|$, $\max_f |a_f - b_f|$ |
| cosine | $1 - \cos \angle(a, b) = \tfrac12 \lVert a / |a| - b / |b| \rVert^2$ |
| correlation | the same of the rows less their own mean |
| canberra | $\sum_f |a_f - b_f| / (|a_f| + |b_f|)$ |
| braycurtis | $\sum_f |a_f - b_f| / \sum_f |a_f + b_f|$ |
| hamming | share of the features in which a and b differ |
| jaccard | of the features in which either is not zero, the share in which one of them is |

A row of zeros has no direction. Its cosine distance is 1 to every row that has one, and 0 to another row of zeros,
since equal rows are nowhere apart; so is the correlation distance of constant rows.

Legend: a, b rows of the matrices A and B of F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from zoo.errors import unknown_name

__all__ = [
    "METRICS",
    "Metric",
    "euclidean_rows",
    "from_squared",
    "is_euclidean",
    "metric_name",
    "pairwise_distances",
    "squared_distances",
    "traceable_distances",
]

Metric = str | Callable[[Tensor, Tensor], Tensor]

METRICS = (
    "euclidean",
    "sqeuclidean",
    "manhattan",
    "chebyshev",
    "cosine",
    "correlation",
    "canberra",
    "braycurtis",
    "hamming",
    "jaccard",
)
ALIASES = {"cityblock": "manhattan", "l1": "manhattan", "l2": "euclidean"}

_EUCLIDEAN = {"euclidean", "sqeuclidean", "cosine", "correlation"}  # functions of a squared Euclidean distance
_CHUNK = 1 << 18  # numbers a block holds: 2 MB of float64, to stay in the cache


def metric_name(metric: str) -> str:
    """Return the name in `METRICS` of a metric, which may be given by another name, or `precomputed`.

    Raises:
        ZooError: for an unknown metric, with the nearest ones.

    >>> metric_name("cityblock")
    'manhattan'
    """
    name = ALIASES.get(metric, metric)
    if name not in (*METRICS, "precomputed"):
        raise unknown_name("metric", metric, (*METRICS, *ALIASES, "precomputed"))
    return name


def pairwise_distances(a: Tensor, b: Tensor, metric: Metric = "euclidean") -> Tensor:
    r"""Return the distance of every row of `a` to every row of `b`, from differences and so exact for near rows too.

    Args:
        a: rows (A, F); for `precomputed` their distances to the rows of `b` themselves, (A, B).
        b: rows (B, F); not looked at for `precomputed`.
        metric: one of `METRICS`, another name of it, `precomputed`, or a function of (A, F) and (B, F) that returns
            (A, B).

    Returns:
        (A, B), of the rows' floating type; float64 of whole numbers.

    Raises:
        ZooError: for an unknown metric.

    >>> pairwise_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "l1")
    tensor([[7.]])
    """
    if callable(metric):
        return metric(a, b).double()
    metric = metric_name(metric)
    if metric == "precomputed":
        return a
    a, b = euclidean_rows(a, metric), euclidean_rows(b, metric)
    if metric in _EUCLIDEAN:
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return distance if metric == "euclidean" else from_squared(distance.square_(), metric)
    if metric in ("manhattan", "chebyshev"):
        return torch.cdist(a, b, p=1.0 if metric == "manhattan" else math.inf)
    rows = max(1, _CHUNK // max(1, b.numel()))
    return torch.cat([_BROADCAST[metric](part[:, None], b[None]) for part in a.split(rows)])


def traceable_distances(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Return the same as `pairwise_distances` by plain products and differences, for a trace of any number of rows.

    >>> traceable_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "chebyshev")
    tensor([[4.]])
    """
    metric = metric_name(metric)
    a, b = euclidean_rows(a, metric), euclidean_rows(b, metric)
    if metric in _EUCLIDEAN:
        return from_squared(squared_distances(a, b), metric)
    if metric in ("manhattan", "chebyshev"):
        apart = (a[:, None] - b[None]).abs()
        return apart.sum(-1) if metric == "manhattan" else apart.amax(-1)
    return _BROADCAST[metric](a[:, None], b[None])


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    r"""Return ‖a − b‖² of rows (..., A, F) and (..., B, F) by one product, (..., A, B), zero or more.

    ```math
    \lVert a - b \rVert^2 = \lVert a \rVert^2 + \lVert b \rVert^2 - 2\, a^\top b
    ```

    It is many times faster than the differences, and its rounding error is absolute: some ε of the largest squared
    distance from the mean of `b`, to which the rows are moved first.

    >>> squared_distances(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]]))
    tensor([[9.],
            [4.]])
    """
    reference = b.mean(-2, keepdim=True)
    a, b = a - reference, b - reference
    norms = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
    return torch.sub(norms, a @ b.mT, alpha=2).clamp_min_(0)


def is_euclidean(metric: Metric) -> TypeGuard[str]:
    """Whether a metric is a function of the squared Euclidean distance of the rows of `euclidean_rows`."""
    return isinstance(metric, str) and ALIASES.get(metric, metric) in _EUCLIDEAN


def euclidean_rows(x: Tensor, metric: str) -> Tensor:
    """Return the rows (N, F) whose squared Euclidean distance `from_squared` turns into the metric.

    For cosine and correlation they have unit length and a column more, in which a row without direction has its one:
    at a right angle to all others. The distance of such rows does not cancel for near-parallel ones, as 1 − cos does.

    >>> euclidean_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "cosine")
    tensor([[0.6000, 0.8000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    x = x if x.is_floating_point() else x.double()
    if metric not in ("cosine", "correlation"):
        return x
    largest = x.abs().amax(1, keepdim=True) if x.shape[1] else x.new_zeros(x.shape[0], 1)
    x = x / torch.where(largest > 0, largest, 1.0)  # so that no square overflows, or vanishes
    if metric == "correlation":
        x = x - x.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    # What is left of a constant row less its mean is rounding, and no direction.
    still = length <= 4 * math.sqrt(x.shape[1]) * torch.finfo(x.dtype).eps if metric == "correlation" else length == 0
    return torch.cat([torch.where(still, 0.0, x / length), still.to(x.dtype)], 1)


def from_squared(squared: Tensor, metric: str) -> Tensor:
    """Turn squared Euclidean distances of `euclidean_rows` into distances under the metric."""
    metric = ALIASES.get(metric, metric)
    if metric == "euclidean":
        return squared.sqrt()
    return squared if metric == "sqeuclidean" else squared / 2


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0.0)


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    one, either = ((a != 0) ^ (b != 0)).sum(-1), ((a != 0) | (b != 0)).sum(-1)
    return _ratio(one.to(a.dtype), either.to(a.dtype))


_BROADCAST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "canberra": lambda a, b: _ratio((a - b).abs(), a.abs() + b.abs()).sum(-1),
    "braycurtis": lambda a, b: _ratio((a - b).abs().sum(-1), (a + b).abs().sum(-1)),
    "hamming": lambda a, b: (a != b).to(a.dtype).mean(-1),
    "jaccard": _jaccard,
}
