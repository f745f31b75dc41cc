"""A pass of Lloyd's algorithm over rows in memory: operators of `torch.library` over `lloyd.c`, for float32 on a CPU.

`zoo::lloyd_statistics` adds up what `zoo.models.kmeans.lloyd` adds up in torch operations, `zoo::lloyd_assign` finds
nearest centroids; where there is no kernel (`available(x)`), that form is taken. Labels are the same but where rounding
decides between two centroids.

Letters: N rows, D features, R restarts, K clusters.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "lloyd_assign", "lloyd_statistics"]


class _Lloyd(ctypes.Structure):
    """The struct of lloyd.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "restarts", "clusters")),
        *((name, ctypes.c_double) for name in ("scale", "rounding")),
        *((name, ctypes.c_void_p) for name in ("x", "reference", "centroids", "weight")),
        *((name, ctypes.c_void_p) for name in ("moments", "gain", "norm", "longest", "label", "distance")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and function("lloyd_statistics", _Lloyd) is not None


@torch.library.custom_op("zoo::lloyd_statistics", mutates_args=())
def lloyd_statistics(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of each cluster's rows and weights, of the rows' scores, and of their squares, all float64.

    Args:
        x: rows, (N, D), float32.
        reference: what is subtracted from them, (D,), float32.
        scale: what they are multiplied by then.
        centroids: (R*K, D + 1), float32, in the same way, with −½‖c‖² in the last column.
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
    inputs = {"x": x, "reference": reference, "centroids": centroids, "weight": weight}
    _call("lloyd_statistics", (restarts, clusters, scale), inputs, {"moments": moments, "gain": gain, "norm": norm})
    return moments, gain, norm


@lloyd_statistics.register_fake
def _(x: Tensor, reference: Tensor, scale: float, centroids: Tensor, restarts: int, weight: Tensor | None) -> Any:
    shapes = (restarts, centroids.shape[0] // restarts, x.shape[1] + 1), (restarts,), ()
    return tuple(x.new_empty(shape, dtype=torch.float64) for shape in shapes)


@torch.library.custom_op("zoo::lloyd_assign", mutates_args=())
def lloyd_assign(
    x: Tensor, reference: Tensor, scale: float, centroids: Tensor, longest: Tensor, rounding: float
) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row and the squared distance to it, (R, N) each, int64 and float64.

    Args:
        x: rows, (N, D), float32.
        reference: what is subtracted from them, (D,), float32.
        scale: what they are multiplied by then; distances are scaled so.
        centroids: (R*K, D + 1), float32, in the same way, with −½‖c‖² in the last column.
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
    inputs = {"x": x, "reference": reference, "centroids": centroids, "longest": longest}
    numbers = restarts, clusters, scale, rounding
    _call("lloyd_assign", numbers, inputs, {"label": label, "distance": distance})
    return label, distance


@lloyd_assign.register_fake
def _(x: Tensor, reference: Tensor, scale: float, centroids: Tensor, longest: Tensor, rounding: float) -> Any:
    shape = longest.shape[0], x.shape[0]
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float64)


def _check(x: Tensor, reference: Tensor, centroids: Tensor, restarts: int, weight: Tensor | None) -> int:
    """Return K; refuse what does not fit together, since the kernel would read whatever lies there."""
    floats = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, reference, centroids))
    width = x.shape[1] if x.ndim == 2 else 0
    fits = floats and width > 0 and reference.shape == (width,) and centroids.ndim == 2
    fits = fits and centroids.shape[1] == width + 1 and restarts > 0 and len(centroids) > 0
    fits = fits and len(centroids) % restarts == 0
    if weight is not None:
        fits = fits and weight.shape == x.shape[:1] and weight.dtype == torch.float64 and weight.device.type == "cpu"
    if not fits:
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, reference, centroids, weight)]
        raise RuntimeError(f"zoo::lloyd: inputs do not fit together: {found}, {restarts} restarts")
    return len(centroids) // restarts


def _call(name: str, numbers: tuple, inputs: dict[str, Tensor | None], outputs: dict[str, Tensor]) -> None:
    run = function(name, _Lloyd)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    whole = {key: t.contiguous() for key, t in (inputs | outputs).items() if t is not None}  # alive until it has run
    restarts, clusters, scale, *rounding = numbers
    rows, features = whole["x"].shape
    pointers = {key: t.data_ptr() for key, t in whole.items()}
    run(_Lloyd(rows, features, restarts, clusters, scale, *rounding, **pointers))
