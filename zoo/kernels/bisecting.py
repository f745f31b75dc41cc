"""Bisecting k-means over rows in memory: operators of `torch.library` over `bisecting.c`, on a CPU.

`zoo::bisecting_splits` makes one split after the other, `zoo::bisecting_descend` takes rows down the tree of them, as
`zoo.models.kmeans.bisecting_kmeans` does in torch operations where there is no kernel (`available(x)`). Both give the
same but where rounding decides.

Letters: N rows, D features, K clusters, R restarts of a split, S splits.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.lloyd import RowsStruct, check_extent
from zoo.kernels.operators import operator

__all__ = ["available", "bisecting_descend", "bisecting_splits"]


class _Bisecting(ctypes.Structure):
    """The struct of bisecting.c."""

    _fields_ = [
        ("rows", RowsStruct),
        *((name, ctypes.c_int64) for name in ("greedy", "by_weight", "threads", "max_iter")),
        *((name, ctypes.c_double) for name in ("tolerance", "eps")),
        *((name, ctypes.c_void_p) for name in ("content", "offset", "label", "centroids", "split_of", "leaves")),
        *((name, ctypes.c_void_p) for name in ("inertia", "mass", "number", "restless", "extent")),
    ]


class _Descent(ctypes.Structure):
    """`Descent` of bisecting.c."""

    _fields_ = [
        ("rows", RowsStruct),
        *((name, ctypes.c_int64) for name in ("threads", "splits")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("centroids", "split_of", "leaves", "label", "distance", "extent")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernels take such rows."""
    known = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu" and x.ndim == 2 and x.numel() > 0
    return known and function("bisecting_splits", _Bisecting) is not None


_STATE = ("label", "centroids", "split_of", "leaves", "inertia", "mass", "number")


def _fake_splits(x: Tensor, *others: object) -> Tensor:
    return x.new_empty((), dtype=torch.int64)


@operator(_fake_splits, mutates_args=_STATE)
def bisecting_splits(
    x: Tensor, weight: Tensor | None, content: Tensor, offset: Tensor, greedy: bool, by_weight: bool, max_iter: int,
    tolerance: float, threads: int, label: Tensor, centroids: Tensor, split_of: Tensor, leaves: Tensor, inertia: Tensor,
    mass: Tensor, number: Tensor,
) -> Tensor:  # fmt: skip
    """Go on to split clusters until there are K, or no rows of a cluster differ, or a split meets an empty cluster.

    Args:
        x: rows, (N, D), float32 or float64.
        weight: of each row, (N,), float64, or None.
        content: hashes of the rows, (N,), int64.
        offset: what is added to the hashes for the first and the second draw of each split, (K - 1, 2, R), int64.
        greedy: whether centroids are drawn by k-means++, in place of rows at random.
        by_weight: whether the heaviest cluster is split, in place of that of the greatest inertia.
        max_iter: iterations of a split at most.
        tolerance: as of `lloyd_iterate`.
        threads: that share the rows.
        label: the clusters of the rows, (N,), int64.
        centroids: of each split, (K - 1, 2, D), float64.
        split_of: the cluster that it split, (K - 1,), int64.
        leaves: centroids of the clusters, (K, D), float64.
        inertia: of the clusters, (K,), float64.
        mass: weights of the clusters, (K,), float64.
        number: of splits made so far, (), int64.

    Returns:
        How many iterations were not enough for one of the splits, (), int64; 0 where all came to rest.

    Raises:
        RuntimeError: for tensors of other types or shapes.
        ZooError: if what lies between the rows has a square that no number holds.
    """
    (rows, width), clusters = _check_rows(x), len(offset) + 1
    restarts = offset.shape[2] if offset.ndim == 3 else 0
    _check("content", content, torch.int64, rows)
    _check("offset", offset, torch.int64, clusters - 1, 2, restarts)
    if weight is not None:
        _check("weight", weight, torch.float64, rows)
    written = {"label": label, "centroids": centroids, "split_of": split_of, "leaves": leaves, "inertia": inertia}
    written |= {"mass": mass, "number": number}
    shapes = (rows,), (clusters - 1, 2, width), (clusters - 1,), (clusters, width), (clusters,), (clusters,), ()
    for (name, tensor), shape in zip(written.items(), shapes, strict=True):
        _check(name, tensor, torch.int64 if name in ("label", "split_of", "number") else torch.float64, *shape)
    if threads < 1 or restarts < 1 or not 0 <= int(number) < clusters:
        raise RuntimeError("zoo::bisecting: threads and restarts must be above 0, and splits fewer than clusters")
    if not all(tensor.is_contiguous() for tensor in written.values()):
        raise RuntimeError("zoo::bisecting: what is written must be contiguous")
    run = function("bisecting_splits", _Bisecting)
    if run is None:
        raise RuntimeError("zoo::bisecting needs the compiled kernels: zoo.kernels.status() says why there are none")
    x, extent, restless = x.contiguous(), ctypes.c_double(), torch.zeros((), dtype=torch.int64)
    kept = content.contiguous(), offset.contiguous(), None if weight is None else weight.contiguous()
    struct = RowsStruct(
        rows, width, restarts, clusters, x.dtype == torch.float32, 1.0, x.data_ptr(), None,
        None if kept[2] is None else kept[2].data_ptr(), None,
    )  # fmt: skip
    pointers = (tensor.data_ptr() for tensor in (*kept[:2], *written.values(), restless))
    numbers = int(greedy), int(by_weight), threads, max_iter, tolerance, torch.finfo(x.dtype).eps
    run(_Bisecting(struct, *numbers, *pointers, ctypes.addressof(extent)))
    check_extent(extent.value)
    return restless


def _fake_descend(
    x: Tensor, centroids: Tensor, split_of: Tensor, leaves: Tensor, threads: int
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), dtype=torch.int64), x.new_empty(len(x), dtype=torch.float64)


@operator(_fake_descend)
def bisecting_descend(
    x: Tensor, centroids: Tensor, split_of: Tensor, leaves: Tensor, threads: int
) -> tuple[Tensor, Tensor]:
    """Return the cluster of each row, found down the tree, and the squared distance to its centroid, (N,) each.

    Args:
        x: rows, (N, D), float32 or float64.
        centroids: of each split, (S, 2, D), float64.
        split_of: the cluster that it split, (S,), int64.
        leaves: centroids of the clusters, (S + 1, D), float64.
        threads: that share the rows.

    Raises:
        RuntimeError: for tensors of other types or shapes.
        ZooError: if what lies between the rows has a square that no number holds.
    """
    (rows, width), splits = _check_rows(x), len(split_of)
    _check("split_of", split_of, torch.int64, splits)
    _check("centroids", centroids, torch.float64, splits, 2, width)
    _check("leaves", leaves, torch.float64, splits + 1, width)
    parted = split_of - torch.arange(splits)
    if threads < 1 or (splits and (int(parted.max()) > 0 or int(split_of.min()) < 0)):
        raise RuntimeError("zoo::bisecting: a split must part a cluster that there is, and threads be above 0")
    run = function("bisecting_descend", _Descent)
    if run is None:
        raise RuntimeError("zoo::bisecting needs the compiled kernels: zoo.kernels.status() says why there are none")
    x, extent = x.contiguous(), ctypes.c_double()
    kept = centroids.contiguous(), split_of.contiguous(), leaves.contiguous()
    label, distance = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.float64)
    struct = RowsStruct(rows, width, 1, 2, x.dtype == torch.float32, 1.0, x.data_ptr(), None, None, None)
    pointers = (tensor.data_ptr() for tensor in (*kept, label, distance))
    run(_Descent(struct, threads, splits, torch.finfo(x.dtype).eps, *pointers, ctypes.addressof(extent)))
    check_extent(extent.value)
    return label, distance


def _check_rows(x: Tensor) -> tuple[int, int]:
    if x.ndim != 2 or x.dtype not in (torch.float32, torch.float64) or x.device.type != "cpu" or not x.shape[1]:
        raise RuntimeError(f"zoo::bisecting: rows must be (N, D), float32 or float64, not {tuple(x.shape)}, {x.dtype}")
    return x.shape[0], x.shape[1]


def _check(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> None:
    """Refuse what does not fit together, since the kernel would read and write whatever lies there."""
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
        found = f"{tuple(tensor.shape)}, {tensor.dtype}"
        raise RuntimeError(f"zoo::bisecting: {name} must be {shape}, {dtype}, not {found}")
