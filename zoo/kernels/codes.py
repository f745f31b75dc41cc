"""Codes of rows, by given edges or by their own values: operators of `torch.library` over `codes.c` and `bins.c`.

`zoo::code_rows` gives the bins and codes that `zoo.models.trees.bins` finds in torch operations, to the bit; where
there is no kernel (`available(x)`), that form is taken. `zoo::encode_rows` has its torch form here.

Letters: N rows, F features, B bins, W the width that bins of all features have.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "code_rows", "encode_rows"]

_ROWS_FOR_THREADS = 10_000

_INTEGERS, _POINTER = ctypes.c_int64, ctypes.c_void_p


class _Encode(ctypes.Structure):
    """`Encode` of codes.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "num_edges", "missing", "threads")),
        *((name, _POINTER) for name in ("x", "edges", "count", "narrow", "narrow_rows", "wide")),
    ]


class _Bins(ctypes.Structure):
    """`Bins` of bins.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "num_bins", "room", "threads")),
        *((name, _POINTER) for name in ("x", "sampled", "number", "crowded", "code", "first", "last")),
        ("width", _INTEGERS),
        *((name, _POINTER) for name in ("lower", "upper", "narrow", "narrow_rows", "wide")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the bins of such rows are found by the kernel."""
    found = function("rank_values", _Bins), function("lay_out_codes", _Bins)
    return x.device.type == "cpu" and x.dtype == torch.float64 and None not in found


# -- by given edges ----------------------------------------------------------------------------------------------------


def _fake_codes(x: Tensor, edges: Tensor, count: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    dtype = torch.uint8 if missing < 256 else torch.int32
    rows = x.new_empty(x.shape if dtype == torch.uint8 else (0, 0), dtype=dtype)
    return x.new_empty(x.shape[1], x.shape[0], dtype=dtype), rows


@operator(_fake_codes)
def encode_rows(x: Tensor, edges: Tensor, count: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    """Return the codes of rows: how many edges are below each value, `missing` for NaN.

    Args:
        x: rows, (N, F), float64.
        edges: upper ends of the bins, (F, E), float64, ascending, +∞ behind the last.
        count: how many edges each feature has, (F,), int64.
        missing: the code of missing values, at least E.

    Returns:
        Codes column by column (F, N) and row by row (N, F), uint8; of more than 256 codes int32, and none row by row
        (0, 0).

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    _check(x.dtype == edges.dtype == torch.float64, "encode_rows", "x and edges must be float64")
    _check(
        x.ndim == 2 and edges.ndim == 2 and len(edges) == x.shape[1], "encode_rows", "edges must be (F, E) for x (N, F)"
    )
    _check(count.shape == edges.shape[:1] and count.dtype == torch.int64, "encode_rows", "count must be (F,), int64")
    in_range = not len(count) or (int(count.min()) >= 0 and int(count.max()) <= edges.shape[1])
    _check(in_range and missing >= edges.shape[1], "encode_rows", "count and missing must fit the edges")
    dtype = torch.uint8 if missing < 256 else torch.int32
    run = function("encode_rows", _Encode) if x.device.type == "cpu" else None
    if run is None:
        columns = torch.searchsorted(edges.contiguous(), x.T.contiguous(), out_int32=True)
        columns = columns.masked_fill_(x.T.isnan(), missing).to(dtype)
        return columns, columns.T.clone(
            memory_format=torch.contiguous_format
        ) if dtype == torch.uint8 else columns.new_empty(0, 0)
    (num_rows, num_features), x, edges, count = x.shape, x.contiguous(), edges.contiguous(), count.contiguous()
    columns = torch.empty(num_features, num_rows, dtype=dtype)
    rows = torch.empty(num_rows, num_features, dtype=dtype) if dtype == torch.uint8 else columns.new_empty(0, 0)
    narrow = {"narrow": columns.data_ptr(), "narrow_rows": rows.data_ptr()}
    run(
        _Encode(
            num_rows=num_rows, num_features=num_features, num_edges=edges.shape[1], missing=missing,
            threads=_threads(num_rows), x=x.data_ptr(), edges=edges.data_ptr(), count=count.data_ptr(),
            **(narrow if dtype == torch.uint8 else {"wide": columns.data_ptr()}),
        )
    )  # fmt: skip
    return columns, rows


# -- by their own values -----------------------------------------------------------------------------------------------


def _fake_bins(x, num_bins, sampled):  # type: ignore[no-untyped-def]
    width, (num_rows, num_features) = torch.library.get_ctx().new_dynamic_size(), x.shape
    ends = x.new_empty(num_features, width), x.new_empty(num_features, width if num_bins else 0)
    number = x.new_empty(num_features, dtype=torch.int64)
    codes = x.new_empty(num_features, num_rows, dtype=torch.int32), x.new_empty(0, 0, dtype=torch.int32)
    return *ends, number, number.bool(), *codes


@operator(_fake_bins)
def code_rows(
    x: Tensor, num_bins: int, sampled: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the bins and the codes of rows, as `zoo.models.trees.bins` does.

    Args:
        x: rows, (N, F), float64; NaN is a missing value.
        num_bins: B; 0 gives every distinct value a bin.
        sampled: the rows that bins of a feature with more values are made of, (N,), bool; None for all.

    Returns:
        The smallest and the largest value of each bin, (F, W) each, NaN behind the last, and none of the largest where
        each value has its bin, (F, 0); the number of bins, (F,);
        whether a feature has more values than bins, (F,); codes column by column (F, N) and row by row (N, F), W for
        NaN, uint8; of more than 256 codes int32, and none row by row (0, 0).

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    rank, lay_out = function("rank_values", _Bins), function("lay_out_codes", _Bins)
    fits = x.dtype == torch.float64 and x.device.type == "cpu" and x.ndim == 2 and len(x) < 1 << 31
    _check(fits, "code_rows", "x must be (N, F), float64, on the CPU")
    fits = sampled is None or (sampled.dtype == torch.bool and sampled.shape == x.shape[:1])
    _check(fits and num_bins >= 0, "code_rows", "sampled must be (N,), bool, and num_bins at least 0")
    (num_rows, num_features), x = x.shape, x.contiguous()
    sampled = None if sampled is None else sampled.contiguous()
    room = max(1, min(num_bins, num_rows) if num_bins else num_rows)
    first = torch.empty(num_features, room, dtype=torch.float64)
    last = torch.empty_like(first) if num_bins else first
    number, crowded = torch.empty(num_features, dtype=torch.int64), torch.empty(num_features, dtype=torch.bool)
    code = torch.empty(num_features, num_rows, dtype=torch.int32)
    task = _Bins(
        num_rows, num_features, num_bins, room, _threads(num_rows), x.data_ptr(),
        None if sampled is None else sampled.data_ptr(), number.data_ptr(), crowded.data_ptr(), code.data_ptr(),
        first.data_ptr(), last.data_ptr(),
    )  # fmt: skip
    _check(rank is not None and lay_out is not None, "code_rows", "there is no kernel")
    assert rank is not None
    assert lay_out is not None
    rank(task)
    task.width = width = max(1, int(number.max()) if num_features else 1)
    lower = torch.empty(num_features, width, dtype=torch.float64)
    upper = torch.empty(num_features, width if num_bins else 0, dtype=torch.float64)
    columns = torch.empty(num_features, num_rows, dtype=torch.uint8) if width < 256 else code
    rows = torch.empty(num_rows, num_features, dtype=torch.uint8) if width < 256 else code.new_empty(0, 0)
    task.lower, task.upper = lower.data_ptr(), (upper if num_bins else lower).data_ptr()
    if width < 256:
        task.narrow, task.narrow_rows = columns.data_ptr(), rows.data_ptr()
    else:
        task.wide = columns.data_ptr()
    lay_out(task)
    return lower, upper, number, crowded, columns, rows


def _threads(num_rows: int) -> int:
    return torch.get_num_threads() if num_rows >= _ROWS_FOR_THREADS else 1


def _check(fits: bool, operator: str, wanted: str) -> None:
    if not fits:
        raise RuntimeError(f"zoo::{operator}: {wanted}.")
