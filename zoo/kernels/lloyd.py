"""Lloyd's algorithm over rows in memory: operators of `torch.library` over `lloyd.c`, for float32 and float64 on a CPU.

`zoo::lloyd_statistics` adds up in one pass what `zoo.models.kmeans.lloyd` adds up in torch operations,
`zoo::lloyd_assign` finds nearest centroids, `zoo::lloyd_iterate` makes all iterations; where there is no kernel
(`available(x)`), that form is taken. Labels are the same but where rounding decides between two centroids.

Letters: N rows, D features, R restarts, K clusters.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "lloyd_assign", "lloyd_iterate", "lloyd_statistics"]


class _Rows(ctypes.Structure):
    """`Rows` of lloyd.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("number", "features", "restarts", "clusters", "single")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "reference", "weight")),
    ]


class _Lloyd(ctypes.Structure):
    """`Lloyd` of lloyd.c."""

    _fields_ = [
        ("rows", _Rows),
        ("rounding", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("centroids", "moments", "gain", "norm", "longest", "label", "distance")),
    ]


class _Iterate(ctypes.Structure):
    """`Iterate` of lloyd.c."""

    _fields_ = [
        ("rows", _Rows),
        *((name, ctypes.c_int64) for name in ("threads", "max_iter")),
        *((name, ctypes.c_double) for name in ("tolerance", "eps")),
        *((name, ctypes.c_void_p) for name in ("centroids", "label", "own_iter", "at_rest", "num_iter")),
        *((name, ctypes.c_void_p) for name in ("nearest", "distance")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    known = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"
    return known and function("lloyd_iterate", _Iterate) is not None


def _fake_statistics(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None
) -> Any:
    shapes = (restarts, centroids.shape[0] // restarts, x.shape[1] + 1), (restarts,), ()
    return tuple(x.new_empty(shape, dtype=torch.float64) for shape in shapes)


@operator(_fake_statistics)
def lloyd_statistics(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of each cluster's rows and weights, of the rows' scores, and of their squares, all float64.

    Args:
        x: rows, (N, D), float32 or float64.
        reference: what is subtracted from them, (D,), of their type.
        scale: what they are multiplied by then.
        centroids: (R*K, D + 1), of their type, in the same way, with −½‖c‖² in the last column.
        restarts: R.
        weight: of each row, (N,), float64, or None.

    Returns:
        (R, K, D + 1), the weights in the last column; (R,); ().

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    clusters = _check(x, reference, centroids, restarts, weight)
    moments = torch.zeros(restarts, clusters, x.shape[1] + 1, dtype=torch.float64)
    gain, norm = torch.zeros(restarts, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    inputs = {"centroids": centroids, "moments": moments, "gain": gain, "norm": norm}
    _call("lloyd_statistics", _Lloyd, (x, reference, weight), (restarts, clusters, scale), inputs)
    return moments, gain, norm


def _fake_assign(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, longest: Tensor, rounding: float
) -> Any:
    shape = longest.shape[0], x.shape[0]
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float64)


@operator(_fake_assign)
def lloyd_assign(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, longest: Tensor, rounding: float
) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row and the squared distance to it, (R, N) each, int64 and float64.

    Args:
        x: rows, (N, D), float32 or float64.
        reference: what is subtracted from them, (D,), of their type.
        scale: what they are multiplied by then; distances are scaled so.
        centroids: (R*K, D + 1), of their type, in the same way, with −½‖c‖² in the last column.
        longest: the greatest ‖c‖² of each restart, (R,), float64.
        rounding: a distance is 0 up to this share of ‖x‖² + longest.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    restarts = len(longest)
    clusters = _check(x, reference, centroids, restarts, None)
    if longest.shape != (restarts,) or longest.dtype != torch.float64:
        raise RuntimeError(f"zoo::lloyd_assign: longest must be (R,), float64, not {tuple(longest.shape)}")
    label = torch.empty(restarts, len(x), dtype=torch.int64)
    distance = torch.empty(restarts, len(x), dtype=torch.float64)
    tensors = {"centroids": centroids, "longest": longest, "label": label, "distance": distance}
    _call("lloyd_assign", _Lloyd, (x, reference, None), (restarts, clusters, scale), tensors, rounding=rounding)
    return label, distance


def _fake_iterate(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, weight: Tensor | None, max_iter: int,
    tolerance: float, threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    each, all_rows = centroids.new_empty(len(centroids), dtype=torch.int64), (len(centroids), len(x))
    found = torch.empty_like(centroids), each.new_empty(each.shape, dtype=torch.bool), each, each.new_empty(())
    return *found, each.new_empty(all_rows), centroids.new_empty(all_rows)


@operator(_fake_iterate)
def lloyd_iterate(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, weight: Tensor | None, max_iter: int,
    tolerance: float, threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Iterate until the centroids are at rest, for `max_iter` iterations, or until a cluster would be empty.

    Args:
        x: rows, (N, D), float32 or float64.
        reference: what is subtracted from them, (D,), of their type.
        scale: what they are multiplied by then.
        centroids: (R, K, D), float64, in the same way.
        weight: of each row, (N,), float64, or None.
        max_iter: iterations at most.
        tolerance: Σ‖Δc‖² at which centroids are at rest, as a share of the mean variance of the features.
        threads: that share the rows.

    Returns:
        Centroids (R, K, D), whether they are at rest (R,), iterations of each restart (R,) and of all (); and, unless
        a cluster would be empty, the nearest centroid of each row and the squared distance to it, (R, N) each.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    fits = centroids.ndim == 3 and centroids.shape[2:] == x.shape[1:] and centroids.dtype == torch.float64
    if not fits or threads < 1:
        raise RuntimeError("zoo::lloyd_iterate: centroids must be (R, K, D), float64, for rows (N, D), threads above 0")
    restarts, clusters, _ = centroids.shape
    _check(x, reference, x.new_empty(restarts * clusters, x.shape[1] + 1), restarts, weight)
    found = centroids.clone(memory_format=torch.contiguous_format)
    at_rest, own_iter = torch.zeros(restarts, dtype=torch.uint8), torch.zeros(restarts, dtype=torch.int64)
    num_iter, label = torch.zeros((), dtype=torch.int64), torch.empty(restarts, len(x), dtype=torch.int32)
    nearest, distance = torch.empty(restarts, len(x), dtype=torch.int64), found.new_empty(restarts, len(x))
    outputs = {"centroids": found, "label": label, "own_iter": own_iter, "at_rest": at_rest, "num_iter": num_iter}
    outputs |= {"nearest": nearest, "distance": distance}
    numbers = {"threads": threads, "max_iter": max_iter, "tolerance": tolerance, "eps": torch.finfo(x.dtype).eps}
    _call("lloyd_iterate", _Iterate, (x, reference, weight), (restarts, clusters, scale), outputs, **numbers)
    return found, at_rest.bool(), own_iter, num_iter, nearest, distance


def _check(x: Tensor, reference: Tensor, centroids: Tensor, restarts: int, weight: Tensor | None) -> int:
    """Return K; refuse what does not fit together, since the kernel would read whatever lies there."""
    known = x.dtype in (torch.float32, torch.float64)
    alike = known and all(t.dtype == x.dtype and t.device.type == "cpu" for t in (x, reference, centroids))
    width = x.shape[1] if x.ndim == 2 else 0
    fits = alike and width > 0 and reference.shape == (width,) and centroids.ndim == 2
    fits = fits and centroids.shape[1] == width + 1 and restarts > 0 and len(centroids) > 0
    fits = fits and len(centroids) % restarts == 0
    if weight is not None:
        fits = fits and weight.shape == x.shape[:1] and weight.dtype == torch.float64 and weight.device.type == "cpu"
    if not fits:
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, reference, centroids, weight)]
        raise RuntimeError(f"zoo::lloyd: inputs do not fit together: {found}, {restarts} restarts")
    return len(centroids) // restarts


def _call(
    name: str,
    struct: type[ctypes.Structure],
    rows: tuple[Tensor, Tensor, Tensor | None],
    numbers: tuple[int, int, float],
    tensors: dict[str, Tensor],
    **others: float,
) -> None:
    run = function(name, struct)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    x, reference, weight = (None if t is None else t.contiguous() for t in rows)  # alive until it has run
    whole = {key: t.contiguous() for key, t in tensors.items()}
    assert x is not None
    assert reference is not None
    addresses = x.data_ptr(), reference.data_ptr(), None if weight is None else weight.data_ptr()
    task = _Rows(*x.shape, *numbers[:2], x.dtype == torch.float32, numbers[2], *addresses)
    run(struct(rows=task, **others, **{key: t.data_ptr() for key, t in whole.items()}))
