r"""Exact nearest neighbours of all rows, in chunks whose size bounds the memory.

For rows x_i and a metric δ, the k nearest of row i are the k smallest δ(x_i, x_j) over j ≠ i.

Euclidean distances are screened by one matrix product per chunk, |x|² − 2 x·y + |y|² on centred rows, which cancels for
rows that are much nearer to each other than to the mean. So more than k candidates are kept, their distances are taken
again from the differences x − y, and these decide: distances are exact to rounding, and so is the choice wherever the
screening's error (about 1e-7 of the squared norm in float32) does not exceed the gap that the spare candidates span.

Shapes: N rows, D features, Q queries, C rows of a chunk, K neighbours. Ties are broken by the lower index among the
candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.distances import (
    euclidean_rows,
    from_squared,
    is_euclidean,
    metric_name,
    pairwise_distances,
    traceable_distances,
)

__all__ = ["nearest_neighbors", "traceable_neighbors"]

_SPARE = 16  # candidates beyond k, for what the matrix product's rounding may have put in the wrong order
_CHUNK_ELEMENTS = 1 << 23  # entries of one chunk's distance matrix: 32 MB in float32


def nearest_neighbors(
    rows: Tensor, k: int, queries: Tensor | None = None, metric: str = "euclidean"
) -> tuple[Tensor, Tensor]:
    r"""Return the k nearest rows of each query, the nearest first.

    Args:
        rows: (N, D), floating; a square matrix of distances for `precomputed`.
        k: neighbours wanted, at most N (N − 1 without `queries`).
        queries: (Q, D), or (Q, N) distances for `precomputed`; None asks for the neighbours of the rows themselves, of
            which each leaves itself out (by its index: a duplicate of it counts).
        metric: one of `zoo.numerics.distances.METRICS`, or `precomputed`.

    Returns:
        Distances (Q, K) and indices (Q, K), int64.

    Raises:
        ZooError: for an unknown metric or a k that the rows cannot give.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [3.0]]), k=1)
        (tensor([[1.],
                [1.],
                [2.]]), tensor([[1],
                [0],
                [1]]))
    """
    metric = metric_name(metric)
    most = len(rows) - (queries is None)
    if not 1 <= k <= most:
        raise ZooError(f"{k} neighbours were asked of {len(rows)} rows: pass k from 1 to {most}.")
    if queries is not None and not len(queries):
        return rows.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=rows.device)
    screen = _euclidean_screen if is_euclidean(metric) else _full_screen
    found = list(screen(rows, k, queries, metric))
    return torch.cat([distance for distance, _ in found]), torch.cat([index for _, index in found])


def traceable_neighbors(rows: Tensor, k: int, queries: Tensor, metric: str = "euclidean") -> tuple[Tensor, Tensor]:
    """Return the same as `nearest_neighbors` at once, for a trace of any number of queries.

    >>> traceable_neighbors(torch.tensor([[0.0], [1.0], [3.0]]), 1, torch.tensor([[0.75]]))
    (tensor([[0.2500]]), tensor([[1]]))
    """
    metric = metric_name(metric)
    most = min(k + _SPARE, len(rows))
    screened = queries if metric == "precomputed" else traceable_distances(queries, rows, metric)
    distance, index = screened.topk(most, largest=False)
    if is_euclidean(metric):
        rows, queries = euclidean_rows(rows, metric), euclidean_rows(queries, metric)
        distance = torch.linalg.vector_norm(rows[index] - queries[:, None], dim=2)  # (Q, M)
        distance = distance if metric == "euclidean" else from_squared(distance.square(), metric)
    best = distance.topk(k, largest=False)
    return best.values, index.gather(1, best.indices)


def _chunks(count: int, width: int) -> Iterator[slice]:
    size = max(1, min(count, _CHUNK_ELEMENTS // max(width, 1)))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _leave_out_itself(distance: Tensor, chunk: slice) -> None:
    own = torch.arange(chunk.start, chunk.stop, device=distance.device)
    distance[own - chunk.start, own] = float("inf")


def _smallest(distance: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of candidates (C, M), ordered, the lower index first among equals."""
    by_index = index.argsort(dim=1)
    distance, index = distance.gather(1, by_index), index.gather(1, by_index)
    order = distance.argsort(dim=1, stable=True)[:, :k]
    return distance.gather(1, order), index.gather(1, order)


def _full_screen(rows: Tensor, k: int, queries: Tensor | None, metric: str) -> Iterator[tuple[Tensor, Tensor]]:
    asked = rows if queries is None else queries
    for chunk in _chunks(len(asked), len(rows)):
        distance = pairwise_distances(asked[chunk], rows, metric)
        if queries is None:
            distance = distance.clone() if metric == "precomputed" else distance
            _leave_out_itself(distance, chunk)
        best = distance.topk(k, largest=False)
        yield _smallest(best.values, best.indices, k)


def _euclidean_screen(rows: Tensor, k: int, queries: Tensor | None, metric: str) -> Iterator[tuple[Tensor, Tensor]]:
    rows, queries = euclidean_rows(rows, metric), None if queries is None else euclidean_rows(queries, metric)
    centre = rows.mean(0)
    centred = rows - centre  # (N, D)
    norm = centred.square().sum(1)  # (N,)
    asked = rows if queries is None else queries
    most = min(k + _SPARE, len(rows) - (queries is None))
    for chunk in _chunks(len(asked), len(rows)):
        # |x_j|² − 2 q·x_j orders the rows as the distance does.
        key = torch.addmm(norm, asked[chunk] - centre, centred.T, alpha=-2)  # (C, N)
        if queries is None:
            _leave_out_itself(key, chunk)
        index = key.topk(most, largest=False, sorted=False).indices  # (C, M)
        distance = _distances_to(asked[chunk], rows, index, metric)
        yield _smallest(distance, index, k)


def _distances_to(queries: Tensor, rows: Tensor, index: Tensor, metric: str) -> Tensor:
    """Distances (C, M) of each query to its own candidates, from the differences."""
    parts = []
    size = max(1, _CHUNK_ELEMENTS // (index.shape[1] * rows.shape[1]))
    for query, candidates in zip(queries.split(size), index.split(size), strict=True):
        difference = rows[candidates] - query[:, None]  # (C', M, D)
        parts.append(torch.linalg.vector_norm(difference, dim=2))
    distance = torch.cat(parts)
    return distance if metric == "euclidean" else from_squared(distance.square_(), metric)
