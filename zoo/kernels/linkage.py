"""Clusters merged on a matrix of distances: operators of `torch.library` over `linkage.c`, for float64 on a CPU.

`zoo::merge_closest` does what `zoo.models.agglomerative.merging.merge_closest` does in torch operations under centroid
and median linkage, `zoo::merge_chain` what `Merger` does there along a chain; where there is no kernel
(`available(matrix)`), those forms are taken.

Letters: N clusters at the start.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["CHAINED", "available", "merge_chain", "merge_closest"]

CHAINED = ("complete", "average", "weighted", "ward")
"""The linkages that are merged along a chain."""


class _Closest(ctypes.Structure):
    """`Closest` and `Chain` of linkage.c, which are alike."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("clusters", "kind")),
        *((name, ctypes.c_void_p) for name in ("matrix", "sizes", "pairs", "heights")),
    ]


def available(matrix: Tensor) -> bool:
    """Return whether the kernel takes such distances."""
    fits = matrix.dtype == torch.float64 and matrix.device.type == "cpu" and matrix.is_contiguous()
    return fits and function("merge_chain", _Closest) is not None


def merge_closest(matrix: Tensor, sizes: Tensor, median: bool) -> tuple[Tensor, Tensor]:
    """Return the positions that merge (N - 1, 2), the lower first, and their squared distances (N - 1,).

    Args:
        matrix: squared distances (N, N), float64, exactly symmetric; it is consumed.
        sizes: points of each cluster, (N,), float64.
        median: whether the linkage is median, or else centroid.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.merge_closest(matrix, sizes, median)


def merge_chain(matrix: Tensor, sizes: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Return the positions that merge (N - 1, 2), of which the first goes on with the union, and their distances.

    Args:
        matrix: distances (N, N), float64, exactly symmetric, infinite on the diagonal, squared for Ward; it is
            consumed.
        sizes: points of each cluster, (N,), float64.
        method: one of `CHAINED`.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.merge_chain(matrix, sizes, CHAINED.index(method))


def _merge_closest(matrix: Tensor, sizes: Tensor, median: bool) -> tuple[Tensor, Tensor]:
    return _merge("merge_closest", matrix, sizes, int(median))


def _merge_chain(matrix: Tensor, sizes: Tensor, method: int) -> tuple[Tensor, Tensor]:
    return _merge("merge_chain", matrix, sizes, method)


def _merge(name: str, matrix: Tensor, sizes: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    size = len(sizes)
    types = all(t.dtype == torch.float64 and t.device.type == "cpu" for t in (matrix, sizes))
    if matrix.shape != (size, size) or sizes.ndim != 1 or not size or not types or not matrix.is_contiguous():
        raise RuntimeError(
            f"zoo::{name}: distances must be (N, N) and dense, sizes (N,), float64, on the CPU, not "
            f"{tuple(matrix.shape)}, {tuple(sizes.shape)}"
        )
    run = function(name, _Closest)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    pairs, heights = torch.empty(size - 1, 2, dtype=torch.int64), matrix.new_empty(size - 1)
    sizes = sizes.clone(memory_format=torch.contiguous_format)
    run(_Closest(size, kind, matrix.data_ptr(), sizes.data_ptr(), pairs.data_ptr(), heights.data_ptr()))
    return pairs, heights


def _fake(matrix: Tensor, sizes: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    return sizes.new_empty(len(sizes) - 1, 2, dtype=torch.int64), sizes.new_empty(len(sizes) - 1)


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define("merge_closest(Tensor(a!) matrix, Tensor sizes, bool median) -> (Tensor pairs, Tensor heights)")
_LIBRARY.define("merge_chain(Tensor(a!) matrix, Tensor sizes, int method) -> (Tensor pairs, Tensor heights)")
for _name, _form in (("merge_closest", _merge_closest), ("merge_chain", _merge_chain)):
    _LIBRARY.impl(_name, _form, "CPU")
    torch.library.register_fake(f"zoo::{_name}", _fake, lib=_LIBRARY)
