"""The first centroids of rows in memory: operators of `torch.library` over `kmeans.c`, for float64 on a CPU.

`zoo::kmeans_draw` makes the draws of greedy k-means++, `zoo::kmeans_sample` those of a round, as
`zoo.models.kmeans.seeding` makes them in torch operations, `zoo::kmeans_rounds` all rounds of k-means||; that form is
taken where there is no kernel (`available(x)`). Both give the same but where rounding decides.

Letters: N rows, D features, R restarts, K clusters.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.lloyd import RowsStruct, check_extent
from zoo.kernels.operators import operator

__all__ = ["MOST_CANDIDATES", "available", "kmeans_draw", "kmeans_rounds", "kmeans_sample"]

MOST_CANDIDATES = 64


class _KMeans(ctypes.Structure):
    """The struct of kmeans.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "restarts", "clusters", "candidates", "threads")),
        ("rounding", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "norm", "content", "offset", "chosen")),
    ]


class _Draw(ctypes.Structure):
    """`Draw` of kmeans.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "size", "offset")),
        *((name, ctypes.c_void_p) for name in ("near", "weight", "content", "chosen", "number")),
    ]


class _Rounds(ctypes.Structure):
    """`Rounds` of kmeans.c."""

    _fields_ = [
        ("rows", RowsStruct),
        *((name, ctypes.c_int64) for name in ("size", "rounds", "threads")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("content", "offset", "pool", "shares", "extent")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    fits = x.dtype == torch.float64 and x.device.type == "cpu" and x.ndim == 2 and x.numel() > 0
    return fits and function("kmeans_draw", _KMeans) is not None


def _fake_sample(content: Tensor, offset: int, near: Tensor | None, weight: Tensor | None, size: int) -> Tensor:
    return content.new_empty(torch.library.get_ctx().new_dynamic_size())


@operator(_fake_sample)
def kmeans_sample(content: Tensor, offset: int, near: Tensor | None, weight: Tensor | None, size: int) -> Tensor:
    """Return the different rows of greatest score, 1 / −log u times what they weigh; of none if that is 0.

    Args:
        content: hashes of the rows, (N,), int64.
        offset: what is added to them, which sets u.
        near: weight of each row, (N,), float64, or None.
        weight: another, which it is multiplied by, (N,), float64, or None.
        size: how many rows, at most `MOST_CANDIDATES`.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    fits = content.ndim == 1 and content.dtype == torch.int64 and 0 < size <= MOST_CANDIDATES
    for tensor in (near, weight):
        fits = fits and (tensor is None or (tensor.shape == content.shape and tensor.dtype == torch.float64))
    if not fits:
        raise RuntimeError("zoo::kmeans_sample: content must be (N,), int64, weights (N,), float64, and size 1 to 64")
    run = function("kmeans_sample", _Draw)
    if run is None:
        raise RuntimeError(
            "zoo::kmeans_sample needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    chosen, number = torch.empty(size, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    tensors = {"near": near, "weight": weight, "content": content, "chosen": chosen, "number": number}
    whole = {key: t.contiguous() for key, t in tensors.items() if t is not None}  # alive until it has run
    run(_Draw(len(content), size, offset, **{key: t.data_ptr() for key, t in whole.items()}))
    return chosen[: int(number)].clone()


def _fake_rounds(
    x: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, size: int, threads: int
) -> tuple[Tensor, Tensor]:
    drawn = len(offset) * size
    return x.new_empty(drawn, x.shape[1], dtype=torch.float64), x.new_empty(drawn, dtype=torch.float64)


@operator(_fake_rounds)
def kmeans_rounds(
    x: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, size: int, threads: int
) -> tuple[Tensor, Tensor]:
    """Return the rows that the rounds of k-means|| draw, (P, D), and the weight of the rows nearest to each, (P,).

    Args:
        x: rows, (N, D), float32 or float64.
        content: hashes of the rows, (N,), int64.
        offset: what is added to the hashes in each round, (1 + rounds,), int64; P is `size` times as many.
        weight: of each row, (N,), float64, or None.
        size: how many rows a round draws, at most `MOST_CANDIDATES`.
        threads: that share the rows.

    Raises:
        RuntimeError: for tensors of other types or shapes.
        ZooError: if what lies between the rows has a square that no number holds.
    """
    fits = x.ndim == 2 and x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu" and x.numel() > 0
    fits = fits and content.shape == x.shape[:1] and content.dtype == offset.dtype == torch.int64
    fits = fits and offset.ndim == 1 and len(offset) > 0 and 0 < size <= MOST_CANDIDATES and threads > 0
    if not fits or (weight is not None and (weight.shape != content.shape or weight.dtype != torch.float64)):
        raise RuntimeError(
            "zoo::kmeans_rounds: rows must be (N, D), float32 or float64, hashes and weights (N,), int64 and float64, "
            "offsets int64, size 1 to 64, and threads above 0"
        )
    run = function("kmeans_rounds", _Rounds)
    if run is None:
        raise RuntimeError(
            "zoo::kmeans_rounds needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    x, content, offset = x.contiguous(), content.contiguous(), offset.contiguous()
    weight = None if weight is None else weight.contiguous()
    drawn = len(offset) * size
    pool, shares = torch.empty(drawn, x.shape[1], dtype=torch.float64), torch.empty(drawn, dtype=torch.float64)
    address = None if weight is None else weight.data_ptr()
    rows = RowsStruct(*x.shape, 1, size, x.dtype == torch.float32, 1.0, x.data_ptr(), None, address, None)
    addresses = content.data_ptr(), offset.data_ptr(), pool.data_ptr(), shares.data_ptr()
    extent = ctypes.c_double()
    numbers = size, len(offset) - 1, threads, torch.finfo(x.dtype).eps
    run(_Rounds(rows, *numbers, *addresses, ctypes.addressof(extent)))
    check_extent(extent.value)
    return pool, shares


def _fake(
    x: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, candidates: int, rounding: float, threads: int
) -> Tensor:
    return content.new_empty(offset.shape[1], offset.shape[0])


@operator(_fake)
def kmeans_draw(
    x: Tensor, content: Tensor, offset: Tensor, weight: Tensor | None, candidates: int, rounding: float, threads: int
) -> Tensor:
    """Return the rows that greedy k-means++ draws, (R, K).

    Args:
        x: centred rows, (N, D), float64.
        content: hashes of the rows, (N,), int64.
        offset: what is added to the hashes for a centroid of a restart, (K, R), int64.
        weight: of each row, (N,), float64, or None.
        candidates: rows drawn for a centroid, at most `MOST_CANDIDATES`.
        rounding: share of the squares below which a distance is 0.
        threads: that share the rows.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    if x.ndim != 2 or x.dtype != torch.float64 or x.device.type != "cpu" or not x.numel():
        raise RuntimeError("zoo::kmeans_draw: rows must be (N, D), float64, on the CPU")
    for name, tensor, dtype in (("content", content, torch.int64), ("weight", weight, torch.float64)):
        if tensor is not None and (tensor.shape != x.shape[:1] or tensor.dtype != dtype):
            found = f"{tuple(tensor.shape)}, {tensor.dtype}"
            raise RuntimeError(f"zoo::kmeans_draw: {name} must be (N,), {dtype}, not {found}")
    if offset.ndim != 2 or offset.dtype != torch.int64 or not 0 < candidates <= MOST_CANDIDATES or threads < 1:
        raise RuntimeError("zoo::kmeans_draw: offset must be (K, R), int64, candidates 1 to 64, and threads above 0")
    run = function("kmeans_draw", _KMeans)
    if run is None:
        raise RuntimeError("zoo::kmeans_draw needs the compiled kernels: zoo.kernels.status() says why there are none")
    clusters, restarts = offset.shape
    chosen = torch.zeros(restarts, clusters, dtype=torch.int64)
    tensors = {"x": x, "content": content, "offset": offset, "weight": weight, "chosen": chosen}
    tensors["norm"] = x.new_empty(len(x))  # room
    whole = {key: t.contiguous() for key, t in tensors.items() if t is not None}  # alive until it has run
    pointers = {key: t.data_ptr() for key, t in whole.items()}
    run(_KMeans(*x.shape, restarts, clusters, candidates, threads, rounding, **pointers))
    return chosen
