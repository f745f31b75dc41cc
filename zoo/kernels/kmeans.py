"""k-means on few rows in memory: operators of `torch.library` over `kmeans.c`, for float64 on a CPU.

`zoo::kmeans_draw` makes the draws of greedy k-means++, `zoo::kmeans_iterate` Lloyd's iterations, as
`zoo.models.kmeans.seeding` and `zoo.models.kmeans.lloyd` make them in torch operations; that form is taken where there
is no kernel (`available(x)`). Both give the same but where rounding decides.

Letters: N rows, D features, R restarts, K clusters.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["MOST_CANDIDATES", "available", "kmeans_draw", "kmeans_iterate"]

MOST_CANDIDATES = 64


class _KMeans(ctypes.Structure):
    """The struct of kmeans.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "restarts", "clusters")),
        *((name, ctypes.c_void_p) for name in ("x", "weight")),
        ("candidates", ctypes.c_int64),
        ("rounding", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("norm", "content", "offset", "chosen")),
        ("max_iter", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("limit", "eps")),
        *((name, ctypes.c_void_p) for name in ("reference", "centroids", "own_iter", "at_rest", "num_iter")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    fits = x.dtype == torch.float64 and x.device.type == "cpu" and x.ndim == 2 and x.numel() > 0
    return fits and function("kmeans_draw", _KMeans) is not None


def kmeans_draw(
    x: Tensor, norm: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, candidates: int, rounding: float
) -> Tensor:
    """Return the rows that greedy k-means++ draws, (R, K).

    Args:
        x: centred rows, (N, D), float64.
        norm: their squares, (N,).
        content: hashes of the rows, (N,), int64.
        offset: what is added to the hashes for a centroid of a restart, (K, R), int64.
        weight: of each row, (N,), float64, or None.
        candidates: rows drawn for a centroid, at most `MOST_CANDIDATES`.
        rounding: share of the squares below which a distance is 0.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.kmeans_draw(x, norm, content, offset, weight, candidates, rounding)


def _draw(
    x: Tensor, norm: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, candidates: int, rounding: float
) -> Tensor:
    _check(x, norm=(norm, torch.float64), content=(content, torch.int64), weight=(weight, torch.float64))
    if offset.ndim != 2 or offset.dtype != torch.int64 or not 0 < candidates <= MOST_CANDIDATES:
        raise RuntimeError("zoo::kmeans_draw: offset must be (K, R), int64, and candidates at most 64")
    clusters, restarts = offset.shape
    chosen = torch.zeros(restarts, clusters, dtype=torch.int64)
    inputs = {"x": x, "norm": norm, "content": content, "offset": offset, "weight": weight, "chosen": chosen}
    _call("kmeans_draw", inputs, restarts=restarts, clusters=clusters, candidates=candidates, rounding=rounding)
    return chosen


def _fake_draw(
    x: Tensor, norm: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, candidates: int, rounding: float
) -> Tensor:
    return content.new_empty(offset.shape[1], offset.shape[0])


def kmeans_iterate(
    x: Tensor, reference: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, limit: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate until the centroids are at rest, for `max_iter` iterations, or until a cluster would be empty.

    Args:
        x: rows from the reference point, (N, D), float64.
        reference: where that lies, (D,).
        centroids: from the reference point, (R, K, D).
        weight: of each row, (N,), float64, or None.
        max_iter: iterations at most.
        limit: Σ‖Δc‖² at which centroids are at rest.
        eps: relative rounding of a number.

    Returns:
        Centroids (R, K, D), whether they are at rest (R,), iterations of each restart (R,) and of all ().

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.kmeans_iterate(x, reference, centroids, weight, max_iter, limit, eps)


def _iterate(
    x: Tensor, reference: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, limit: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, weight=(weight, torch.float64))
    if centroids.ndim != 3 or centroids.shape[2] != x.shape[1] or reference.shape != x.shape[1:]:
        raise RuntimeError("zoo::kmeans_iterate: centroids must be (R, K, D) and reference (D,) for rows (N, D)")
    if centroids.dtype != torch.float64 or reference.dtype != torch.float64:
        raise RuntimeError("zoo::kmeans_iterate: centroids and reference must be float64")
    restarts, clusters, _ = centroids.shape
    found = centroids.clone(memory_format=torch.contiguous_format)
    at_rest, own_iter = torch.zeros(restarts, dtype=torch.uint8), torch.zeros(restarts, dtype=torch.int64)
    num_iter = torch.zeros((), dtype=torch.int64)
    inputs = {"x": x, "reference": reference, "weight": weight, "centroids": found}
    outputs = {"at_rest": at_rest, "own_iter": own_iter, "num_iter": num_iter}
    numbers = {"max_iter": max_iter, "limit": limit, "eps": eps}
    _call("kmeans_iterate", inputs | outputs, restarts=restarts, clusters=clusters, **numbers)
    return found, at_rest.bool(), own_iter, num_iter


def _fake_iterate(
    x: Tensor, reference: Tensor, centroids: Tensor, weight: Tensor | None, max_iter: int, limit: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    each = centroids.new_empty(len(centroids), dtype=torch.int64)
    return torch.empty_like(centroids), each.new_empty(each.shape, dtype=torch.bool), each, each.new_empty(())


def _check(x: Tensor, **columns: tuple[Tensor | None, torch.dtype]) -> None:
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    if x.ndim != 2 or x.dtype != torch.float64 or x.device.type != "cpu" or not x.numel():
        raise RuntimeError("zoo::kmeans: rows must be (N, D), float64, on the CPU")
    for name, (tensor, dtype) in columns.items():
        if tensor is not None and (tensor.shape != x.shape[:1] or tensor.dtype != dtype):
            raise RuntimeError(f"zoo::kmeans: {name} must be (N,), {dtype}, not {tuple(tensor.shape)}, {tensor.dtype}")


def _call(name: str, tensors: dict[str, Tensor | None], **numbers: float) -> None:
    run = function(name, _KMeans)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    whole = {key: t.contiguous() for key, t in tensors.items() if t is not None}  # alive until it has run
    rows, features = whole["x"].shape
    pointers = {key: t.data_ptr() for key, t in whole.items()}
    run(_KMeans(rows=rows, features=features, **numbers, **pointers))


# Defined without `custom_op`, whose wrappers take as long as the work on few rows.
_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define(
    "kmeans_draw(Tensor x, Tensor norm, Tensor content, Tensor offset, Tensor? weight, int candidates, float rounding)"
    " -> Tensor"
)
_LIBRARY.define(
    "kmeans_iterate(Tensor x, Tensor reference, Tensor centroids, Tensor? weight, int max_iter, float limit, float eps)"
    " -> (Tensor centroids, Tensor at_rest, Tensor own_iter, Tensor num_iter)"
)
for _name, _form, _shapes in (("kmeans_draw", _draw, _fake_draw), ("kmeans_iterate", _iterate, _fake_iterate)):
    _LIBRARY.impl(_name, _form, "CPU")
    torch.library.register_fake(f"zoo::{_name}", _shapes, lib=_LIBRARY)
