r"""Lloyd's algorithm: give each row to its nearest centroid, move each centroid to the mean of its rows, and again.

```math
\ell_i = \operatorname{argmin}_k \|x_i - c_k\| = \operatorname{argmax}_k s(x_i, c_k), \qquad
s(x, c) = x \cdot c - \tfrac12 \|c\|^2, \qquad
c_k \leftarrow \frac{\sum_{i:\,\ell_i = k} w_i x_i}{\sum_{i:\,\ell_i = k} w_i}
```

The score s, by $\|x - c\|^2 = \|x\|^2 - 2 s(x, c)$, spares the distances. Rows are moved by a reference point close to
them first: in float32 the formula would otherwise lose the digits that distinguish rows far from the origin. Scores are
computed in the rows' own type, sums in float64. Where that type is float32 and two centroids are so near to each other,
beside a third far away, that rounding would mix up their rows (`too_close`), scores are computed in float64, too;
distances are those of differences.

- `assign`: labels and distances; `cluster_statistics`: what a pass over the rows adds up, to which a stream adds batch
  by batch; `cluster_means` and `refill`: what follows from it.
- `lloyd`: the whole of it for rows in memory, which makes once what each pass would make anew.

Letters: B rows, D features, K clusters, R restarts side by side (all of them share one pass over the rows).

On a CPU a pass is one kernel (`zoo.kernels.lloyd`), which writes no score: half the time and less; and so are all
iterations, of which each but the first moves only those rows from sum to sum that change clusters. In torch operations,
chosen by measurement (float32, 32 features, 64 clusters, one core, a million rows): scores by oneDNN 21 ms (by
`torch.mm`, which is MKL's, 40 ms on an AMD processor), laid out (K, B) so that max-pooling finds maximum and index
together over contiguous rows in 7 ms (`argmax`: 220 ms); adding rows to their clusters with `index_add_` 12 ms (one-hot
matrix product: 70 ms). Threads each take a span of rows through all steps in chunks that stay in the cache,
which needs one rendezvous a pass where a parallel loop in each operation needs hundreds.

Source: S. Lloyd, "Least squares quantization in PCM", 1957, printed 1982.

Deviations: none; the source leaves open what becomes of an empty cluster.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.lloyd import (
    available,
    check_extent,
    lloyd_assign,
    lloyd_iterate,
    lloyd_statistics,
    lloyd_too_close,
)
from zoo.kernels.onednn import product

__all__ = [
    "Iterations",
    "Statistics",
    "assign",
    "cluster_means",
    "cluster_statistics",
    "is_still",
    "lloyd",
    "nearest",
    "num_spans",
    "reference_point",
    "refill",
]

Result = TypeVar("Result")

_CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
_WORK_PER_THREAD = 1 << 23  # multiplications, of which a thread does some ten thousand in a microsecond

_CLOSE, _NEAR = 64, 2.0**20  # what is told apart in single precision, in ε of a square, and in ε² of it
_FAR = 2.0**-20  # share of the greatest distance from the middle, less than which the usual one is lost beside it
_ON_A_CENTROID = 2.0**-88  # share of the squares up to which a squared distance is 0: a centroid is a rounded mean
_WIDENED = 1 << 16  # rows made double at a time

_num_threads: ContextVar[int] = ContextVar("num_threads", default=0)  # as they were outside of all `serial` blocks


@contextmanager
def serial() -> Iterator[int]:
    """Keep torch's loops to one thread, since its idle threads spin; yield how many there were."""
    outer = torch.get_num_threads()
    threads = _num_threads.get() or outer
    if outer == 1:  # within another block, mostly
        yield threads
        return
    token = _num_threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        _num_threads.reset(token)
        torch.set_num_threads(outer)


class Statistics(NamedTuple):
    """What one pass of Lloyd's algorithm needs to know of the rows.

    Attributes:
        moments: (R, K, D + 1), float64: for each cluster Σ w (x − reference), and Σ w in the last column.
        inertia: Σ w ‖x − c‖² over the rows, (R,), float64, to the rounding of the squares that it is the difference of.
        spread: Σ w ‖x − reference‖², (), float64.
        distance: of the rows from their nearest centroids, squared, (R, B), float64, as `assign` returns them; or of
            none, (R, 0).
    """

    moments: Tensor
    inertia: Tensor
    spread: Tensor
    distance: Tensor

    def __add__(self, other: Statistics) -> Statistics:  # type: ignore[override]
        moments, inertia, spread = (a + b for a, b in zip(self[:3], other[:3], strict=True))
        return Statistics(moments, inertia, spread, torch.cat([self.distance, other.distance], 1))


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the nearest centroid and its score x·c − ½‖c‖², both (R, B); a tie goes to the first one.

    Args:
        x: rows (B, D).
        centroids: (R, K, D), of the same type.

    Example:
        >>> labels, score = nearest(torch.tensor([[0.0], [3.0]]), torch.tensor([[[1.0], [4.0]]]))
        >>> labels.tolist()
        [[0, 1]]
    """
    flat = centroids.flatten(0, 1)  # (RK, D)
    bias = flat.square().sum(1, keepdim=True).mul_(-0.5)
    return best_scores(torch.addmm(bias, flat, x.t()).view(*centroids.shape[:2], len(x)))


def with_bias(centroids: Tensor) -> Tensor:
    """Return centroids (R, K, D) as (RK, D + 1), the last column −½‖c‖²: their product with rows that end in 1 is s."""
    flat = centroids.flatten(0, 1)
    return torch.cat([flat, flat.square().sum(1, keepdim=True).mul_(-0.5)], 1)


def score_rows(centroids: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the products of centroids (RK, D + 1), with their bias, and rows (B, D + 1) that end in 1, as (RK, B)."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu":
        return product(centroids, rows)
    return torch.mm(centroids, rows.t(), out=out)


def best_scores(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return index and value of the greatest of scores (R, K, B) along K, both (R, B)."""
    if scores.device.type != "cpu" or scores.shape[2] == 0:
        value, index = scores.max(1)
        return index, value
    # As an image of B channels, K × 1 pixels, the channels last: a window over all pixels.
    image = scores.unsqueeze(2).permute(0, 3, 1, 2)  # (R, B, K, 1)
    value, index = F.max_pool2d(image, (scores.shape[1], 1), return_indices=True)
    return index.flatten(1), value.flatten(1)


def cluster_statistics(
    x: Tensor,
    centroids: Tensor,
    weight: Tensor | None = None,
    reference: Tensor | None = None,
    *,
    measured: bool = False,
) -> Statistics:
    """Assign each row to its nearest centroid and return the statistics of the clusters.

    Args:
        x: rows (B, D), float32 or float64.
        centroids: (R, K, D), float64.
        weight: sample weights (B,), or None.
        reference: the point (D,), from which rows are measured; None takes `reference_point(centroids, x.dtype)`.
        measured: whether the distance of each row is wanted, too.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [9.0]])
        >>> cluster_statistics(x, torch.tensor([[[0.0], [9.0]]], dtype=torch.float64)).inertia
        tensor([4.], dtype=torch.float64)
    """
    reference = reference_point(centroids, x.dtype) if reference is None else reference
    if len(x) and too_close(centroids, reference, x.dtype):
        if x.dtype == torch.float64:
            return _statistics_apart(x, centroids, weight, reference)
        masses = [None] * len(x) if weight is None else weight.split(_WIDENED)
        parts = [
            cluster_statistics(part.double(), centroids, mass, reference, measured=measured)
            for part, mass in zip(x.split(_WIDENED), masses, strict=False)
        ]
        return functools.reduce(Statistics.__add__, parts)
    scale = unit_scale(x, centroids, reference)
    compiled = available(x)
    flat = with_bias(((centroids - reference) * scale).to(x.dtype))  # (RK, D + 1)

    def span(x: Tensor, weight: Tensor | None) -> Statistics:
        if compiled:
            weight = None if weight is None else weight.double()
            numbers = reference.to(x.dtype), scale, flat, len(centroids), weight, centroids if measured else None
            moments, gain, norm, distance = lloyd_statistics(x, *numbers)
            return Statistics(moments, norm - 2 * gain, norm, distance)
        work = _Workspace(x, centroids, reference, scale, flat, measured)
        for rows, mass in _chunks(x, weight, centroids):
            work.add(rows, mass)
        return Statistics(*work.sums, torch.cat(work.distances, 1))

    with serial() as threads:
        first, *others = _in_threads(threads, span, x, weight, centroids)
        for other in others:
            first = first + other
    if scale != 1:
        first.moments[..., :-1] /= scale
        first = Statistics(first.moments, first.inertia / scale**2, first.spread / scale**2, first.distance)
    return first._replace(inertia=first.inertia.clamp_min(0))


def _statistics_apart(x: Tensor, centroids: Tensor, weight: Tensor | None, reference: Tensor) -> Statistics:
    """The same of float64 rows by differences."""
    label, distance = assign(x, centroids)
    mass = torch.ones_like(x[:, 0]) if weight is None else weight.double()
    extended = torch.cat([x - reference, torch.ones_like(x[:, :1])], 1)  # (B, D + 1)
    moments = x.new_zeros(*centroids.shape[:2], extended.shape[1])
    for cluster_moments, index in zip(moments, label, strict=True):
        cluster_moments.index_add_(0, index, extended * mass.unsqueeze(1))
    return Statistics(moments, distance @ mass, extended[:, :-1].square().sum(1) @ mass, distance)


class _Workspace:
    """The tensors that one thread fills anew with every chunk: fresh ones would cost more than what is computed."""

    def __init__(
        self, x: Tensor, centroids: Tensor, reference: Tensor, scale: float, flat: Tensor, measured: bool
    ) -> None:
        num_restarts, num_clusters, num_features = centroids.shape
        size = min(len(x), _chunk_size(x, centroids))
        self.reference, self.scale, self.flat = reference.to(x.dtype), scale, flat
        self.rows = x.new_ones(size, num_features + 1)  # a row, then 1
        self.scores = x.new_empty(num_restarts * num_clusters, size)
        self.double = self.rows if x.dtype == torch.float64 else torch.empty_like(self.rows, dtype=torch.float64)
        self.sums = (
            centroids.new_zeros(num_restarts, num_clusters, num_features + 1),
            centroids.new_zeros(num_restarts),
            centroids.new_zeros(()),
        )
        self.points = (centroids, reference) if measured else None
        self.distances = [centroids.new_zeros(num_restarts, 0)]

    def add(self, x: Tensor, weight: Tensor | None) -> None:
        """Add rows (B, D) with weights (B,) to the sums, and measure them."""
        moments, inertia, spread = self.sums
        num_rows = len(x)
        rows, extended = self.rows[:num_rows], self.double[:num_rows]
        torch.sub(x, self.reference, out=rows[:, :-1])
        if self.scale != 1:
            rows[:, :-1] *= self.scale
        scores = score_rows(self.flat, rows, self.scores if num_rows == len(self.rows) else None)
        label, score = best_scores(scores.view(*moments.shape[:2], num_rows))  # (R, B)
        if self.points is not None:
            self.distances.append(_distances(x, label, *self.points))
        if extended.dtype != rows.dtype:
            extended.copy_(rows)
        if weight is None:
            flat = extended.view(-1)
            norm = flat.dot(flat) - num_rows  # less the ones
            gain = score.sum(1, dtype=torch.float64)  # (R,)
        else:
            weight = weight.double()
            norm = extended[:, :-1].square().sum(1) @ weight
            gain = score.double() @ weight
            extended = extended * weight.unsqueeze(1)
        for cluster_moments, index in zip(moments, label, strict=True):
            cluster_moments.index_add_(0, index, extended)
        spread.add_(norm)
        inertia.add_(norm - 2 * gain)


def assign(x: Tensor, centroids: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row, and the squared distance to it with rounding below zero cut off.

    Args:
        x: rows (B, D), float32 or float64.
        centroids: (R, K, D), float64.
        index: which rows, in place of all of them, (B,).

    Returns:
        Labels (R, B) and squared distances (R, B) in float64. What rounding cannot tell from zero is zero.

    Example:
        >>> label, distance = assign(torch.tensor([[0.0], [2.0]]), torch.tensor([[[0.0]]], dtype=torch.float64))
        >>> distance
        tensor([[0., 4.]], dtype=torch.float64)
    """
    if available(x):
        return lloyd_assign(x, centroids, max(1, num_spans(torch.get_num_threads(), x, centroids)), index)
    x = x if index is None else x[index]
    reference = reference_point(centroids, x.dtype)
    if len(x) and too_close(centroids, reference, x.dtype):
        if x.dtype == torch.float64:
            return _assign_apart(x, centroids)
        widened = [assign(part.double(), centroids) for part in x.split(_WIDENED)]
        return torch.cat([label for label, _ in widened], 1), torch.cat([distance for _, distance in widened], 1)
    scale = unit_scale(x, centroids, reference)
    flat = with_bias(((centroids - reference) * scale).to(x.dtype))  # (RK, D + 1)

    def span(x: Tensor, _: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        parts = []
        for part, _ in _chunks(x, None, centroids):
            rows = x.new_ones(len(part), x.shape[1] + 1)
            torch.sub(part, reference.to(x.dtype), out=rows[:, :-1])
            rows[:, :-1] *= scale
            label = best_scores(score_rows(flat, rows).view(*centroids.shape[:2], len(part)))[0]
            parts.append((label, _distances(part, label, centroids, reference)))
        return parts

    with serial() as threads:
        parts = [part for parts in _in_threads(threads, span, x, None, centroids) for part in parts]
        return torch.cat([label for label, _ in parts], 1), torch.cat([distance for _, distance in parts], 1)


def _assign_apart(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The same by differences, whose digits no far centroid takes."""
    labels = [torch.zeros(len(centroids), 0, dtype=torch.int64, device=x.device)]
    for part in x.split(max(1, _CHUNK_ELEMENTS["cpu"] // max(1, centroids[0].numel()))):
        apart = [(part.unsqueeze(1) - points).square_().sum(2) for points in centroids]  # (B, K) each
        labels.append(torch.stack([distance.argmin(1) for distance in apart]))
    label = torch.cat(labels, 1)
    return label, _distances(x, label, centroids, torch.zeros_like(x[0]))


def _distances(rows: Tensor, label: Tensor, centroids: Tensor, reference: Tensor) -> Tensor:
    """Squared distances (R, B) of rows (B, D) from those of centroids (R, K, D) that labels (R, B) name."""
    none = _ON_A_CENTROID * (centroids.square() + reference.square()).sum(2)  # (R, K): up to which they are zero
    found = []
    for points, nearest, on in zip(centroids, label, none, strict=True):
        distance = (rows.double() - points[nearest]).square_().sum(1)
        found.append(distance.masked_fill_(distance <= on[nearest], 0.0))
    return torch.stack(found)


def too_close(centroids: Tensor, reference: Tensor, dtype: torch.dtype) -> bool:
    """Whether two of a restart's centroids (R, K, D) are too near to each other for scores in that precision.

    Scores are rounded by some ε of the greatest square that rows have from the reference point (D,). A centroid far
    from the others, as one on an outlier is, makes that more than what lies between the others.
    """
    eps = torch.finfo(dtype).eps
    if available(centroids):
        return bool(lloyd_too_close(centroids, reference, eps))
    local = centroids - reference
    limit = _CLOSE * eps * local.square().sum(2).amax()
    apart = torch.cdist(local, local, compute_mode="donot_use_mm_for_euclid_dist").square_()
    return bool(((apart > 0) & (apart < limit)).any())


def reference_point(centroids: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a point amid the rows, (D,), float64, that the rows' type holds exactly.

    It is the mean of all centroids (R, K, D) on a grid about as coarse as they are spread, so that rows of whole
    numbers keep few digits: their distances are then exact, and ties are ties however rows are batched. Where some lie
    a million times as far from the middle as most do, it is their median, as sums of rows would lose digits.
    """
    with serial():
        flat = centroids.flatten(0, 1)
        mean, median = flat.mean(0), flat.median(0).values
        spread, usual = float((flat - mean).abs().max()), float((flat - median).abs().amax(1).median())
        if 0 < usual < _FAR * spread:
            mean, spread = median, usual
    grid = math.ldexp(1.0, math.frexp(spread)[1] - 1) if 0 < spread < math.inf else 1.0
    return (mean / grid).round().mul(grid).to(dtype).double()


def unit_scale(x: Tensor, centroids: Tensor, reference: Tensor) -> float:
    """Return the power of two that brings rows to about 1, judged by some of them; 1 where they are not far away.

    Beside the one that ends a row, squares of smaller numbers would lose their digits; those of huge ones overflow.

    Raises:
        ZooError: if what lies between the rows has a square that no number holds.
    """
    count = min(256, 16 + 65536 // max(1, x.shape[1]))  # where rows are wide, few have numbers enough
    some = x[:: max(1, len(x) // count)].double()
    parts = [(part - reference).abs_().amax() for part in (some, centroids.flatten(0, 1)) if len(part)]
    size = float(torch.stack(parts).amax())
    check_extent(size)
    return 1.0 if not math.isfinite(size) or size == 0 or 0.25 < size < 2.0**30 else 2.0 ** -math.frexp(size)[1]


def mean_variance(moments: Tensor, spread: Tensor) -> Tensor:
    """Return the variance of the rows, averaged over the features, (...).

    Args:
        moments: Σ w (x − reference), and Σ w in the last column, (..., D + 1).
        spread: Σ w ‖x − reference‖², (...).
    """
    weight = moments[..., -1].clamp_min(torch.finfo(moments.dtype).tiny)
    offset = moments[..., :-1] / weight.unsqueeze(-1)
    return (spread / weight - offset.square().sum(-1)).clamp_min(0) / offset.shape[-1]


# -- iterations -------------------------------------------------------------------------------------------------------


class Iterations(NamedTuple):
    """Where Lloyd's algorithm stopped.

    Attributes:
        centroids: (R, K, D), float64.
        at_rest: whether the last iteration moved the centroids by less than the tolerance, (R,).
        num_iter: iterations made.
        own_iter: those that each restart took to come to rest, (R,).
        empty: clusters that the last iteration left without rows, (R, K); None where it refilled them.
        label: the nearest of the centroids, (R, B), where they are known; None where `assign` is to find them.
        distance: the squared distance to it, (R, B), or None.
    """

    centroids: Tensor
    at_rest: Tensor
    num_iter: int
    own_iter: Tensor
    empty: Tensor | None = None
    label: Tensor | None = None
    distance: Tensor | None = None


def lloyd(
    x: Tensor,
    centroids: Tensor,
    weight: Tensor | None = None,
    *,
    max_iter: int = 300,
    tolerance: float = 0.0,
    index: Tensor | None = None,
) -> Iterations:
    """Iterate until the centroids are at rest, for `max_iter` iterations, or until one that leaves a cluster empty.

    Args:
        x: rows (B, D), float32 or float64.
        centroids: (R, K, D), float64.
        weight: sample weights (B,), or None.
        max_iter: iterations at most.
        tolerance: Σ‖Δc‖² at which centroids are at rest, as a share of the mean variance of the features.
        index: which rows, in place of all of them, (B,).

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
        >>> lloyd(x, x[None, :2]).centroids.tolist()
        [[[0.5], [10.0]]]
    """
    with serial() as threads:
        if not available(x):
            return _checked(x if index is None else x[index], centroids, weight, max_iter, tolerance)
        mass, spans = None if weight is None else weight.double(), max(1, num_spans(threads, x, centroids))
        found, at_rest, own, number, empty, label, distance = lloyd_iterate(
            x, centroids, mass, max_iter, tolerance, spans, index
        )
        if int(number) < 0:
            return _lloyd_apart(x if index is None else x[index], centroids, mass, max_iter, tolerance)
    if int(number) < max_iter and not bool(at_rest.all()):  # as a cluster is empty
        return Iterations(found, at_rest, int(number), own, empty)
    return Iterations(found, at_rest, int(number), own, empty, label, distance)


def _checked(x: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, tolerance: float) -> Iterations:
    """The same in torch operations: in double, where centroids are, or become, too near to each other or to rows."""
    reference = reference_point(centroids, torch.float64)
    if not too_close(centroids, reference, x.dtype):
        found = _lloyd(x, centroids, weight, max_iter, tolerance)
        ended = found.num_iter == max_iter or bool(found.at_rest.all())
        if not too_close(found.centroids, reference, x.dtype):
            reach = (found.centroids - reference).square().sum(2).amax()
            if x.dtype == torch.float64 or not ended or not bool(reach.isfinite()):
                return found
            label, distance = assign(x, found.centroids)
            if distance.mean() >= _NEAR * torch.finfo(x.dtype).eps ** 2 * reach:
                return found._replace(label=label, distance=distance)
    if x.dtype == torch.float64:
        return _lloyd_apart(x, centroids, weight, max_iter, tolerance)
    return _checked(x.double(), centroids, weight, max_iter, tolerance)


def _lloyd_apart(x: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, tolerance: float) -> Iterations:
    """The same where one centroid lies so far away that scores lose the digits of all others even in double.

    Distances are those of differences, and a centroid moves by the mean of its rows' differences from it.
    """
    rows, centroids = x.double(), centroids.clone()
    mass = torch.ones_like(rows[:, 0]) if weight is None else weight.double()
    total = mass.sum()
    spread = rows - mass @ rows / total
    limit = tolerance * (mass @ spread.square()).mean() / total
    at_rest = torch.zeros(len(centroids), dtype=torch.bool, device=x.device)
    own_iter = torch.zeros(len(centroids), dtype=torch.int64, device=x.device)
    empty = torch.zeros(centroids.shape[:2], dtype=torch.bool, device=x.device)
    before, step = torch.full((len(centroids), len(x)), -1, device=x.device), 0
    while step < max_iter and not bool(at_rest.all() | empty.any()):
        label = assign(rows, centroids)[0]
        own_iter += ~at_rest
        for restart in (~at_rest).nonzero()[:, 0].tolist():
            own, points = label[restart], centroids[restart]
            sizes = torch.zeros_like(points[:, 0]).index_add_(0, own, mass)
            away = torch.zeros_like(points).index_add_(0, own, (rows - points[own]) * mass.unsqueeze(1))
            shift = torch.where(sizes.unsqueeze(1) > 0, away / sizes.unsqueeze(1), 0.0)
            points += shift
            empty[restart] = sizes == 0
            still = torch.equal(own, before[restart]) or bool(shift.square().sum() <= limit)
            at_rest[restart] = still and not bool(empty[restart].any())
        before, step = label, step + 1
    return Iterations(centroids, at_rest, step, own_iter, empty)


def _lloyd(x: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, tolerance: float) -> Iterations:
    """The same in torch operations."""
    reference = reference_point(centroids, x.dtype)
    scale = unit_scale(x, centroids, reference)
    rows = torch.cat([(x - reference.to(x.dtype)) * scale, x.new_ones(len(x), 1)], 1)  # (B, D + 1)
    massive = rows.double() if weight is None else rows.double() * weight.double().unsqueeze(1)
    spread = (massive[:, :-1] * rows[:, :-1]).sum()
    limit = tolerance * mean_variance(massive.sum(0), spread)
    local = (centroids - reference) * scale
    at_rest = torch.zeros(len(centroids), dtype=torch.bool, device=x.device)
    own_iter = torch.zeros(len(centroids), dtype=torch.int64, device=x.device)
    empty = torch.zeros(centroids.shape[:2], dtype=torch.bool, device=x.device)
    step = 0
    while step < max_iter and not bool(at_rest.all() | empty.any()):
        score = score_rows(with_bias(local.to(x.dtype)), rows).view(*centroids.shape[:2], len(rows))
        moments = torch.zeros(*centroids.shape[:2], rows.shape[1], dtype=torch.float64, device=x.device)
        for cluster_moments, label in zip(moments, best_scores(score)[0], strict=True):
            cluster_moments.index_add_(0, label, massive)
        without = (moments[..., -1] == 0) & ~at_rest.unsqueeze(1)  # (R, K)
        means = torch.where(without.unsqueeze(2), local, moments[..., :-1] / moments[..., -1:])
        if len(local) > 1:
            means = torch.where(at_rest.view(-1, 1, 1), local, means)
        shift = (means - local).square_().sum((1, 2))  # (R,)
        still = is_still(shift, means, reference * scale, x.dtype, limit)
        if not bool(torch.isfinite(shift).all()):
            break
        own_iter += ~at_rest
        local, at_rest, empty = means, at_rest | (still & ~without.any(1)), without
        step += 1
    return Iterations(local / scale + reference, at_rest, step, own_iter, empty)


def is_still(shift: Tensor, local: Tensor, reference: Tensor, dtype: torch.dtype, limit: Tensor) -> Tensor:
    """Whether centroids are at rest, (R,): moved by no more than the limit, or than what rounding alone would do.

    Args:
        shift: Σ‖Δc‖², (R,).
        local: where they are now, from the reference point, (R, K, D).
        reference: from where rows are measured, (D,).
        dtype: of the rows.
        limit: (), or (R,).
    """
    near = torch.linalg.vector_norm(local, dim=(1, 2)) * torch.finfo(dtype).eps
    far = torch.linalg.vector_norm(local + reference, dim=(1, 2)) * torch.finfo(local.dtype).eps
    return shift <= torch.maximum((8 * (near + far)).square(), limit)


def cluster_means(centroids: Tensor, moments: Tensor, mass: Tensor, reference: Tensor) -> Tensor:
    """Return the means of all rows that the clusters were given, (R, K, D); an empty cluster keeps its centroid.

    Args:
        centroids: means of the rows given before, (R, K, D).
        moments: Σ w (x − reference) of the rows given now, and Σ w in the last column, (R, K, D + 1).
        mass: Σ w of the rows given before, (R, K); zero where they are to be forgotten.
        reference: (D,).
    """
    total = (mass + moments[..., -1]).unsqueeze(2)
    kept = mass.unsqueeze(2) * (centroids - reference) + moments[..., :-1]
    return torch.where(total > 0, kept / torch.where(total > 0, total, 1.0) + reference, centroids)


def refill(centroids: Tensor, empty: Tensor, rows: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the first empty cluster on the farthest row, the second on the next one, and so on.

    Args:
        centroids: (R, K, D).
        empty: (R, K).
        rows: those farthest from their centroid, the farthest first, (R, K, D).
        distance: how far they are, 0 where there is no such row, (R, K).

    Returns:
        The centroids; which of them are on such a row now, (R, K); and for which restarts there is an empty cluster but
        no row away from all centroids, (R,).
    """
    rank = (empty.cumsum(1) - 1).clamp_min(0)  # (R, K)
    free = empty & (distance.gather(1, rank) > 0)
    rows = rows.gather(1, rank.unsqueeze(2).expand_as(centroids))
    stuck = empty.any(1) & ~(distance[:, 0] > 0)
    return torch.where(free.unsqueeze(2), rows, centroids), free, stuck


# -- chunks and threads -----------------------------------------------------------------------------------------------


def _chunk_size(x: Tensor, centroids: Tensor) -> int:
    width = centroids.shape[0] * centroids.shape[1] + 3 * centroids.shape[2]
    return max(256, _CHUNK_ELEMENTS["cuda" if x.is_cuda else "cpu"] // width)


def _chunks(x: Tensor, weight: Tensor | None, centroids: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cut the rows so that the scores and the copies of a chunk stay in the cache."""
    rows = x.split(_chunk_size(x, centroids))
    weights = weight.split(_chunk_size(x, centroids)) if weight is not None else [None] * len(rows)
    return zip(rows, weights, strict=True)


@functools.cache
def _thread_pool(workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work; making them anew for each pass would cost half a millisecond."""
    return ThreadPoolExecutor(workers, "kmeans", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)


def num_spans(threads: int, x: Tensor, centroids: Tensor) -> int:
    """How many threads rows (B, D) and centroids (R, K, D) are worth; none for little work."""
    work = len(x) * centroids.shape[0] * (8 + centroids.shape[1]) * centroids.shape[2]
    return min(threads, work // _WORK_PER_THREAD, len(x)) if x.device.type == "cpu" else 1


def _in_threads(
    threads: int, function: Callable[..., Result], x: Tensor, weight: Tensor | None, centroids: Tensor
) -> list[Result]:
    """Call `function` on as many spans of rows as there is work for, each in a thread of its own."""
    workers = num_spans(threads, x, centroids)
    if workers <= 1:
        return [function(x, weight)]
    weights = weight.tensor_split(workers) if weight is not None else [None] * workers
    return list(_thread_pool(workers).map(function, x.tensor_split(workers), weights))
