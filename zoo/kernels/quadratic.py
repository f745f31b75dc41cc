"""Coordinate descent on a quadratic with an L1 penalty: an operator of `torch.library` over `quadratic.c`.

`zoo::quadratic_sweeps` is the loop over coordinates of `zoo.models.linear.quadratic`, which takes Python's where there
is no kernel (`available(hessian)`). Both give the same to rounding.

Letters: D dimensions.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "quadratic_sweeps"]


class _Sweeps(ctypes.Structure):
    """`Sweeps` of quadratic.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("size", "sweeps", "patience")),
        *((name, ctypes.c_void_p) for name in ("hessian", "l1", "hold", "above", "slope", "x")),
    ]


def available(hessian: Tensor) -> bool:
    """Return whether the kernel descends on such a Hessian."""
    fits = hessian.dtype == torch.float64 and hessian.device.type == "cpu"
    return fits and function("quadratic_sweeps", _Sweeps) is not None


def _fake_sweeps(hessian, l1, hold, above, slope, x, sweeps, patience):  # type: ignore[no-untyped-def]
    return None


@operator(_fake_sweeps, mutates_args=("slope", "x"))
def quadratic_sweeps(
    hessian: Tensor, l1: Tensor, hold: Tensor, above: Tensor, slope: Tensor, x: Tensor, sweeps: int, patience: int
) -> None:
    """Minimize ½ xᵀHx + cᵀx + Σ λ_j |x_j| over one coordinate after the other, again and again, in place.

    Args:
        hessian: H, symmetric, (D, D), float64. Coordinates without curvature stay as they are.
        l1: λ ≥ 0, (D,), float64.
        hold: the slope up to which a zero stays one, λ or more, (D,), float64.
        above: which coordinates may not be negative, (D,), bool.
        slope: H x + c, contiguous, (D,), float64; changed with x.
        x: the point, contiguous, (D,), float64.
        sweeps: at most.
        patience: how many sweeps in which no sign changes end it.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
    """
    run, size, vectors = function("quadratic_sweeps", _Sweeps), len(x), (l1, hold, slope, x)
    fits = hessian.shape == (size, size) and all(t.shape == (size,) for t in (*vectors, above))
    fits = fits and all(t.dtype == torch.float64 for t in (hessian, *vectors)) and above.dtype == torch.bool
    fits = fits and all(t.device.type == "cpu" for t in (hessian, *vectors, above))
    if not fits or not (slope.is_contiguous() and x.is_contiguous()):
        found = [(*t.shape, t.dtype, t.device) for t in (hessian, *vectors, above)]
        raise RuntimeError(f"zoo::quadratic_sweeps: inputs do not fit together: {found}")
    if run is None:
        raise RuntimeError(
            "zoo::quadratic_sweeps needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    whole = [t.contiguous() for t in (hessian, l1, hold, above)]
    run(_Sweeps(size, sweeps, patience, *(t.data_ptr() for t in (*whole, slope, x))))
