"""Lloyd's algorithm over rows in memory: operators of `torch.library` over `lloyd.c`, for float32 and float64 on a CPU.

`zoo::lloyd_statistics` adds up in one pass what `zoo.models.kmeans.lloyd` adds up in torch operations,
`zoo::lloyd_assign` finds nearest centroids, `zoo::lloyd_iterate` makes all iterations; where there is no kernel
(`available(x)`), that form is taken. Labels are the same but where rounding decides between two centroids.

Letters: N rows, D features, R restarts, K clusters.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = [
    "RowsStruct",
    "available",
    "check_extent",
    "lloyd_assign",
    "lloyd_iterate",
    "lloyd_statistics",
    "lloyd_too_close",
]


class RowsStruct(ctypes.Structure):
    """`Rows` of lloyd.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("number", "features", "restarts", "clusters", "single")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "reference", "weight", "index")),
    ]


class _Lloyd(ctypes.Structure):
    """`Lloyd` of lloyd.c."""

    _fields_ = [
        ("rows", RowsStruct),
        *((name, ctypes.c_void_p) for name in ("centroids", "moments", "gain", "norm", "points", "distance")),
    ]


class _Iterate(ctypes.Structure):
    """`Iterate` of lloyd.h."""

    _fields_ = [
        ("rows", RowsStruct),
        *((name, ctypes.c_int64) for name in ("threads", "max_iter")),
        *((name, ctypes.c_double) for name in ("tolerance", "eps")),
        *((name, ctypes.c_void_p) for name in ("centroids", "label", "empty", "own_iter", "at_rest", "num_iter")),
        *((name, ctypes.c_void_p) for name in ("nearest", "distance", "extent")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    known = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"
    return known and function("lloyd_iterate", _Iterate) is not None


def _fake_statistics(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None,
    points: Tensor | None = None,
) -> Any:  # fmt: skip
    sums = restarts, centroids.shape[0] // restarts, x.shape[1] + 1
    shapes: tuple[tuple[int, ...], ...] = sums, (restarts,), (), (restarts, 0 if points is None else len(x))
    return tuple(x.new_empty(shape, dtype=torch.float64) for shape in shapes)


@operator(_fake_statistics)
def lloyd_statistics(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None,
    points: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the sums of each cluster's rows and weights, of the rows' scores, and of their squares, all float64.

    Args:
        x: rows, (N, D), float32 or float64.
        reference: what is subtracted from them, (D,), of their type.
        scale: what they are multiplied by then.
        centroids: (R*K, D + 1), of their type, in the same way, with −½‖c‖² in the last column.
        restarts: R.
        weight: of each row, (N,), float64, or None.
        points: the centroids where the rows are, (R, K, D), float64, where distances are wanted, too; or None.

    Returns:
        (R, K, D + 1), the weights in the last column; (R,); (); and squared distances to the nearest centroids as those
        of `lloyd_assign`, (R, N), or (R, 0) where they are not wanted.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    clusters = _check(x, reference, centroids, restarts, weight, points)
    moments = torch.zeros(restarts, clusters, x.shape[1] + 1, dtype=torch.float64)
    gain, norm = torch.zeros(restarts, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    distance = torch.empty(restarts, 0 if points is None else len(x), dtype=torch.float64)
    run = _kernel("lloyd_statistics", _Lloyd)
    x, reference, centroids = x.contiguous(), reference.contiguous(), centroids.contiguous()
    weight, points = (None if tensor is None else tensor.contiguous() for tensor in (weight, points))
    inputs = x.data_ptr(), reference.data_ptr(), None if weight is None else weight.data_ptr()
    rows = RowsStruct(*x.shape, restarts, clusters, x.dtype == torch.float32, scale, *inputs, None)
    task = _Lloyd(rows=rows, centroids=centroids.data_ptr(), points=None if points is None else points.data_ptr())
    task.moments, task.gain, task.norm, task.distance = (t.data_ptr() for t in (moments, gain, norm, distance))
    run(task)
    return moments, gain, norm, distance


def _fake_assign(x: Tensor, centroids: Tensor, threads: int, index: Tensor | None = None) -> Any:
    shape = centroids.shape[0], len(x if index is None else index)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float64)


@operator(_fake_assign)
def lloyd_assign(x: Tensor, centroids: Tensor, threads: int, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row and the squared distance to it, (R, N) each, int64 and float64.

    What rounding cannot tell from a distance of zero is zero.

    Args:
        x: rows, (N, D), float32 or float64.
        centroids: (R, K, D), float64.
        threads: that share the rows.
        index: which rows, (N,), int64, in place of all of them.

    Raises:
        RuntimeError: for tensors of other types or shapes.
        ZooError: if what lies between the rows has a square that no number holds.
    """
    local, number = _check_centroids(x, centroids, threads), _check_index(x, index)
    found = _nearest(number, centroids)
    _iterate("lloyd_assign", x, local, None, index, found, {}, threads=threads)
    return found["nearest"], found["distance"]


def _fake_iterate(
    x: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, tolerance: float, threads: int,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    each = centroids.new_empty(len(centroids), dtype=torch.int64)
    all_rows = len(centroids), len(x if index is None else index)
    found = torch.empty_like(centroids), each.new_empty(each.shape, dtype=torch.bool), each, each.new_empty(())
    empty = centroids.new_empty(centroids.shape[:2], dtype=torch.bool)
    return *found, empty, each.new_empty(all_rows), centroids.new_empty(all_rows)


@operator(_fake_iterate)
def lloyd_iterate(
    x: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, tolerance: float, threads: int,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Iterate until the centroids are at rest, for `max_iter` iterations, or until one that leaves a cluster empty.

    Args:
        x: rows, (N, D), float32 or float64.
        centroids: (R, K, D), float64.
        weight: of each row, (N,), float64, or None.
        max_iter: iterations at most.
        tolerance: Σ‖Δc‖² at which centroids are at rest, as a share of the mean variance of the features.
        threads: that share the rows.
        index: which rows, (N,), int64, in place of all of them; N are then as many.

    Returns:
        Centroids (R, K, D), whether they are at rest (R,), iterations of each restart (R,) and of all (), which
        clusters the last one left empty (R, K); and, unless there are some and iterations left, the nearest centroid
        of each row and the squared distance to it, (R, N) each.

    Raises:
        RuntimeError: for tensors of other types or shapes.
        ZooError: if what lies between the rows has a square that no number holds.
    """
    found, rows = _check_centroids(x, centroids, threads), _check_index(x, index)
    if weight is not None:
        _check_weight(rows, weight)
    restarts = len(centroids)
    at_rest, own_iter = torch.zeros(restarts, dtype=torch.uint8), torch.zeros(restarts, dtype=torch.int64)
    num_iter, label = torch.zeros((), dtype=torch.int64), torch.empty(restarts, rows, dtype=torch.int32)
    empty = torch.zeros(centroids.shape[:2], dtype=torch.uint8)
    more = {"label": label, "empty": empty, "own_iter": own_iter, "at_rest": at_rest, "num_iter": num_iter}
    nearest = _nearest(rows, centroids)
    _iterate("lloyd_iterate", x, found, weight, index, nearest, more, threads, max_iter, tolerance)
    return found, at_rest.bool(), own_iter, num_iter, empty.bool(), nearest["nearest"], nearest["distance"]


def _fake_too_close(centroids: Tensor, reference: Tensor, eps: float) -> Tensor:
    return centroids.new_empty((), dtype=torch.bool)


@operator(_fake_too_close)
def lloyd_too_close(centroids: Tensor, reference: Tensor, eps: float) -> Tensor:
    """Return whether rounding of scores would mix up the rows of two of a restart's centroids, ().

    Args:
        centroids: (R, K, D), float64.
        reference: the point that rows are measured from, (D,), float64.
        eps: rounding of a row's number.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    fits = centroids.ndim == 3 and centroids.numel() > 0 and reference.shape == centroids.shape[2:]
    if not fits or any(t.dtype != torch.float64 or t.device.type != "cpu" for t in (centroids, reference)):
        found = [(*t.shape, t.dtype, t.device) for t in (centroids, reference)]
        raise RuntimeError(f"zoo::lloyd_too_close: inputs do not fit together: {found}")
    centroids, reference, close = centroids.contiguous(), reference.contiguous(), ctypes.c_double()
    restarts, clusters, features = centroids.shape
    rows = RowsStruct(0, features, restarts, clusters, reference=reference.data_ptr())
    task = _Iterate(rows, eps=eps, centroids=centroids.data_ptr(), extent=ctypes.addressof(close))
    _kernel("lloyd_too_close", _Iterate)(task)
    return torch.tensor(close.value > 0)


def check_extent(size: float) -> None:
    """Raise one line unless numbers hold the squares of what lies between rows that are so far apart."""
    if 1e150 < size < math.inf or 0 < size < 1e-150:
        raise ZooError(f"The rows lie some {size:.0e} apart, the square of which no number holds: scale them first.")


def _check_centroids(x: Tensor, centroids: Tensor, threads: int) -> Tensor:
    """Return a copy of the centroids; refuse what does not fit to rows."""
    fits = x.ndim == 2 and x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu" and x.shape[1] > 0
    fits = fits and centroids.ndim == 3 and centroids.shape[2:] == x.shape[1:] and centroids.dtype == torch.float64
    if not fits or not centroids.numel() or centroids.device.type != "cpu" or threads < 1:
        found = tuple(x.shape), x.dtype, tuple(centroids.shape), centroids.dtype
        raise RuntimeError(
            "zoo::lloyd: rows, (N, D), float32 or float64, and centroids, (R, K, D), float64, do not fit together, or "
            f"threads are not above 0: {found}"
        )
    return centroids.clone(memory_format=torch.contiguous_format)


def _check_index(x: Tensor, index: Tensor | None) -> int:
    """Return how many rows there are; refuse places that there are not."""
    if index is None:
        return len(x)
    fits = index.ndim == 1 and index.dtype == torch.int64 and index.device.type == "cpu"
    if fits and len(index):
        low, high = index.aminmax()
        fits = int(low) >= 0 and int(high) < len(x)
    if not fits:
        raise RuntimeError(f"zoo::lloyd: rows and index, (N,), int64, do not fit together: {tuple(index.shape)}")
    return len(index)


def _check_weight(rows: int, weight: Tensor) -> None:
    if weight.shape != (rows,) or weight.dtype != torch.float64 or weight.device.type != "cpu":
        found = tuple(weight.shape), weight.dtype
        raise RuntimeError(f"zoo::lloyd: rows and weights, (N,), float64, do not fit together: {found}")


def _nearest(rows: int, centroids: Tensor) -> dict[str, Tensor]:
    """Room for the nearest centroids and their distances."""
    shape = len(centroids), rows
    return {"nearest": torch.empty(shape, dtype=torch.int64), "distance": torch.empty(shape, dtype=torch.float64)}


def _iterate(
    name: str,
    x: Tensor,
    centroids: Tensor,
    weight: Tensor | None,
    index: Tensor | None,
    nearest: dict[str, Tensor],
    more: dict[str, Tensor],
    threads: int,
    max_iter: int = 0,
    tolerance: float = 0.0,
) -> None:
    """Call a kernel of iterations, which writes to all tensors but the rows."""
    run = _kernel(name, _Iterate)
    x, weight, extent = x.contiguous(), None if weight is None else weight.contiguous(), ctypes.c_double()
    index = None if index is None else index.contiguous()
    addresses = [None if tensor is None else tensor.data_ptr() for tensor in (x, None, weight, index)]
    number = len(x if index is None else index)
    rows = RowsStruct(number, x.shape[1], *centroids.shape[:2], x.dtype == torch.float32, 1.0, *addresses)
    outputs = {key: tensor.data_ptr() for key, tensor in (nearest | more).items()}
    numbers = threads, max_iter, tolerance, torch.finfo(x.dtype).eps
    run(_Iterate(rows, *numbers, centroids.data_ptr(), extent=ctypes.addressof(extent), **outputs))
    check_extent(extent.value)


def _check(
    x: Tensor, reference: Tensor, centroids: Tensor, restarts: int, weight: Tensor | None, points: Tensor | None
) -> int:
    """Return K; refuse what does not fit together, since the kernel would read whatever lies there."""
    known = x.dtype in (torch.float32, torch.float64)
    alike = known and all(t.dtype == x.dtype and t.device.type == "cpu" for t in (x, reference, centroids))
    width = x.shape[1] if x.ndim == 2 else 0
    fits = alike and width > 0 and reference.shape == (width,) and centroids.ndim == 2
    fits = fits and centroids.shape[1] == width + 1 and restarts > 0 and len(centroids) > 0
    fits = fits and len(centroids) % restarts == 0
    if fits and points is not None:
        shape = restarts, len(centroids) // restarts, width
        fits = points.shape == shape and points.dtype == torch.float64 and points.device.type == "cpu"
    if weight is not None:
        _check_weight(len(x), weight)
    if not fits:
        found = [(*t.shape, t.dtype, t.device) for t in (x, reference, centroids)]
        raise RuntimeError(f"zoo::lloyd: inputs do not fit together: {found}, {restarts} restarts")
    return len(centroids) // restarts


def _kernel(name: str, struct: type[ctypes.Structure]) -> Callable[[ctypes.Structure], None]:
    run = function(name, struct)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    return run
