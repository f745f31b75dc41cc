"""The slope of a squared error over float32 rows: an operator of `torch.library` over `slope.c`, on a CPU.

`zoo::least_squares_slope` sums in float64 what `zoo.models.linear.single_precision` else does block by block in torch
operations, which widen the rows in memory; where there is no kernel (`available(x)`), that form is taken.

Letters: N rows, F features, K targets.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "least_squares_slope"]

PARALLEL = 1 << 24  # products from which rows are shared among threads


class _Slope(ctypes.Structure):
    """`Slope` of slope.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "targets", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "at", "w", "sums", "squares")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu"
    return fits and function("least_squares_slope", _Slope) is not None


def _fake_slope(x, y, at, w):  # type: ignore[no-untyped-def]
    width = y.shape[1] + 1
    return y.new_zeros(width, x.shape[1]), y.new_zeros(width, width)


@operator(_fake_slope)
def least_squares_slope(x: Tensor, y: Tensor, at: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $\sum_i (r_i, 1) (x_i - a)^\top$ (K + 1, F) and $\sum_i (r_i, 1) (r_i, 1)^\top$ (K + 1, K + 1).

    Residuals are $r_i = (y_i - a_y) - W^\top (x_i - a)$.

    Args:
        x: rows, (N, F), float32.
        y: targets, (N, K), float64.
        at: a and a_y, (F + K,), float64.
        w: W, (F, K), float64.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run, fits = function("least_squares_slope", _Slope), x.ndim == y.ndim == 2 and len(x) == len(y)
    fits = fits and w.shape == (x.shape[1], y.shape[1]) and at.shape == (x.shape[1] + y.shape[1],)
    fits = fits and x.dtype == torch.float32 and all(t.dtype == torch.float64 for t in (y, at, w))
    if not fits or any(t.device.type != "cpu" for t in (x, y, at, w)):
        found = [(*t.shape, t.dtype, t.device) for t in (x, y, at, w)]
        raise RuntimeError(f"zoo::least_squares_slope: inputs do not fit together: {found}")
    if run is None:
        raise RuntimeError(
            "zoo::least_squares_slope needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    sums, squares = _fake_slope(x, y, at, w)
    whole = [t.contiguous() for t in (x, y, at, w.T)]
    threads = min(torch.get_num_threads(), 1 + x.numel() * (2 * y.shape[1] + 1) // PARALLEL)
    run(_Slope(*x.shape, y.shape[1], threads, *(t.data_ptr() for t in (*whole, sums, squares))))
    return sums, squares
