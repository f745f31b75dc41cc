"""Hierarchies of clusters: operators of `torch.library` over `linkage.c`, for float64 on a CPU.

`zoo::merge_closest` does what `zoo.models.agglomerative.merging.merge_closest` does in torch operations under centroid
and median linkage, `zoo::merge_chain` what `Merger` does there along a chain, `zoo::span` what `spanning_tree` does for
single linkage, `zoo::label_merges` what `dendrogram.label_merges` does in Python, `zoo::hierarchy` all that comes
between points and their hierarchy; where there is no kernel (`available(matrix)`), those forms are taken.

Letters: N clusters at the start, F features.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["CHAINED", "available", "hierarchy", "label_merges", "merge_chain", "merge_closest", "span"]

CHAINED = ("complete", "average", "weighted", "ward")
"""The linkages that are merged along a chain."""

_METHODS = (*CHAINED, "single", "centroid", "median")


class _Merging(ctypes.Structure):
    """`Merging` of linkage.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("clusters", "features", "method")),
        *((name, ctypes.c_void_p) for name in ("x", "matrix", "sizes", "pairs", "heights")),
    ]


class _Span(ctypes.Structure):
    """`Span` of linkage.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("points", "features")),
        *((name, ctypes.c_void_p) for name in ("x", "pairs", "heights")),
    ]


class _Hierarchy(ctypes.Structure):
    """`Hierarchy` of linkage.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("points", "features", "method")),
        *((name, ctypes.c_void_p) for name in ("x", "matrix", "hierarchy", "strange")),
    ]


class _Label(ctypes.Structure):
    """`Label` of linkage.c."""

    _fields_ = [("merges", ctypes.c_int64), *((name, ctypes.c_void_p) for name in ("pairs", "heights", "hierarchy"))]


def available(matrix: Tensor) -> bool:
    """Return whether the kernel takes such distances."""
    fits = matrix.dtype == torch.float64 and matrix.device.type == "cpu" and matrix.is_contiguous()
    return fits and function("label_merges", _Label) is not None


def merge_closest(matrix: Tensor, sizes: Tensor, median: bool, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the positions that merge (N - 1, 2), the lower first, and their squared distances (N - 1,).

    Args:
        matrix: squared distances (N, N), float64, exactly symmetric; it is consumed. Where points are given it is room
            for theirs, most of which is not touched.
        sizes: points of each cluster, (N,), float64.
        median: whether the linkage is median, or else centroid.
        x: points (N, F), float64, whose Euclidean distances are taken.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.merge_closest(matrix, sizes, median, x)


def merge_chain(matrix: Tensor, sizes: Tensor, method: str, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the positions that merge (N - 1, 2), of which the first goes on with the union, and their distances.

    Args:
        matrix: distances (N, N), float64, exactly symmetric, infinite on the diagonal, squared for Ward; it is
            consumed. Where points are given it is room for theirs, most of which is not touched.
        sizes: points of each cluster, (N,), float64.
        method: one of `CHAINED`.
        x: points (N, F), float64, whose Euclidean distances are taken, for Ward's linkage those of clusters of these
            sizes.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.merge_chain(matrix, sizes, CHAINED.index(method), x)


def _merge_closest(matrix: Tensor, sizes: Tensor, median: bool, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return _merge("merge_closest", matrix, sizes, _METHODS.index("median" if median else "centroid"), x)


def _merge_chain(matrix: Tensor, sizes: Tensor, method: int, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return _merge("merge_chain", matrix, sizes, method, x)


def _merge(name: str, matrix: Tensor, sizes: Tensor, method: int, x: Tensor | None) -> tuple[Tensor, Tensor]:
    size = len(sizes)
    given = [matrix, sizes] if x is None else [matrix, sizes, x]
    fits = all(t.dtype == torch.float64 and t.device.type == "cpu" for t in given) and matrix.is_contiguous()
    fits = fits and matrix.shape == (size, size) and sizes.ndim == 1 and size > 0
    if not fits or (x is not None and (x.ndim != 2 or len(x) != size or not x.shape[1])):
        raise RuntimeError(
            f"zoo::{name}: distances must be (N, N) and dense, sizes (N,), points (N, F), float64, on the CPU, not "
            f"{', '.join(str(tuple(t.shape)) for t in given)}"
        )
    run = _kernel(name, _Merging)
    pairs, heights = torch.empty(size - 1, 2, dtype=torch.int64), matrix.new_empty(size - 1)
    sizes = sizes.clone(memory_format=torch.contiguous_format)
    x = x if x is None else x.contiguous()
    addresses = (t if t is None else t.data_ptr() for t in (x, matrix, sizes, pairs, heights))
    run(_Merging(size, 0 if x is None else x.shape[1], method, *addresses))
    return pairs, heights


def _fake(matrix: Tensor, sizes: Tensor, method: int, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return sizes.new_empty(len(sizes) - 1, 2, dtype=torch.int64), sizes.new_empty(len(sizes) - 1)


def _fake_span(x: Tensor, precomputed: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x) - 1, 2, dtype=torch.int64), x.new_empty(len(x) - 1)


@operator(_fake_span)
def span(x: Tensor, precomputed: bool) -> tuple[Tensor, Tensor]:
    """Return the merges of single linkage: a point of each of two clusters (N - 1, 2) and their distance (N - 1,).

    They are in the order in which Prim's algorithm comes to the points; of equally near ones to the first of them.

    Args:
        x: points (N, F), float64, whose squared distances are taken; or distances (N, N), symmetric.
        precomputed: whether these are distances.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    fits = x.ndim == 2 and len(x) > 0 and x.shape[1] > 0 and x.dtype == torch.float64 and x.device.type == "cpu"
    if not fits or (precomputed and x.shape[0] != x.shape[1]):
        raise RuntimeError(f"zoo::span: points must be (N, F), distances (N, N), float64, not {tuple(x.shape)}")
    run = _kernel("span", _Span)
    x, pairs, heights = x.contiguous(), torch.empty(len(x) - 1, 2, dtype=torch.int64), x.new_empty(len(x) - 1)
    addresses = x.data_ptr(), pairs.data_ptr(), heights.data_ptr()
    run(_Span(len(x), 0 if precomputed else x.shape[1], *addresses))
    return pairs, heights


def _fake_label(pairs: Tensor, heights: Tensor) -> Tensor:
    return heights.new_empty(len(pairs), 4)


@operator(_fake_label)
def label_merges(pairs: Tensor, heights: Tensor) -> Tensor:
    """Return the hierarchy (N - 1, 4), SciPy's matrix, of merges in the order in which they are made.

    Args:
        pairs: a point of each of the two clusters, (N - 1, 2), int64, from 0 to N - 1.
        heights: their distance, (N - 1,), float64.

    Raises:
        RuntimeError: for tensors of other types or shapes, or points out of range.
    """
    fits = pairs.shape == (len(heights), 2) and pairs.dtype == torch.int64 and heights.dtype == torch.float64
    fits = fits and heights.ndim == 1 and pairs.device.type == heights.device.type == "cpu"
    if fits and len(pairs):
        least, most = pairs.aminmax()
        fits = int(least) >= 0 and int(most) <= len(pairs)
    if not fits:
        raise RuntimeError("zoo::label_merges: pairs must be (N - 1, 2), int64, of N points, heights (N - 1,), float64")
    run = _kernel("label_merges", _Label)
    pairs, heights, found = pairs.contiguous(), heights.contiguous(), heights.new_empty(len(pairs), 4)
    run(_Label(len(pairs), pairs.data_ptr(), heights.data_ptr(), found.data_ptr()))
    return found


def _fake_hierarchy(x: Tensor, matrix: Tensor, method: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x) - 1, 4), x.new_empty((), dtype=torch.int64)


@operator(_fake_hierarchy, mutates_args=["matrix"])
def hierarchy(x: Tensor, matrix: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Return the hierarchy (N - 1, 4) of points in Euclidean distance, and whether it is none, ().

    That is so where points are equal, not finite or of a size whose squares are not.

    Args:
        x: points (N, F), float64.
        matrix: room for distances, (N, N), float64; (0, 0) will do for single linkage.
        method: any linkage.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    fits = x.ndim == 2 and len(x) > 0 and x.shape[1] > 0 and all(t.dtype == torch.float64 for t in (x, matrix))
    fits = fits and x.device.type == matrix.device.type == "cpu" and matrix.is_contiguous()
    if not fits or (matrix.shape != (len(x), len(x)) and method != "single") or method not in _METHODS:
        raise RuntimeError(f"zoo::hierarchy: points must be (N, F), room (N, N), float64, not {tuple(x.shape)}")
    run = _kernel("hierarchy", _Hierarchy)
    x, found, strange = x.contiguous(), x.new_empty(len(x) - 1, 4), torch.zeros((), dtype=torch.int64)
    addresses = x.data_ptr(), matrix.data_ptr(), found.data_ptr(), strange.data_ptr()
    run(_Hierarchy(*x.shape, _METHODS.index(method), *addresses))
    return found, strange


def _kernel(name: str, struct: type[ctypes.Structure]) -> Callable[[ctypes.Structure], None]:
    run = function(name, struct)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    return run


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
for _name, _form, _kind in (
    ("merge_closest", _merge_closest, "bool median"),
    ("merge_chain", _merge_chain, "int method"),
):
    _LIBRARY.define(
        f"{_name}(Tensor(a!) matrix, Tensor sizes, {_kind}, Tensor? x=None) -> (Tensor pairs, Tensor heights)"
    )
    _LIBRARY.impl(_name, _form, "CPU")
    torch.library.register_fake(f"zoo::{_name}", _fake, lib=_LIBRARY)
