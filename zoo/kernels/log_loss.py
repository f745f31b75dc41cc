"""The log loss of rows with gradient and Hessian in one pass: an operator of `torch.library`, for float64 on a CPU.

`zoo::log_loss` is what `zoo.models.linear.log_loss.derivatives` adds up in torch operations; where there is no kernel
(`available(x)`), that form is taken. Both give the same to rounding.

Letters: B rows, F features, P columns (F, and one more for an intercept), C classes, K rows of weights (1 or C).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "log_loss"]

PARALLEL = 2**27  # products from which rows are shared among threads: tens of milliseconds of one


class _LogLoss(ctypes.Structure):
    """The struct of log_loss.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "columns", "outputs", "classes", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "shift", "scale", "y", "weight", "class_weight", "point")),
        *((name, ctypes.c_void_p) for name in ("sums", "gradient", "hessian")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    return x.dtype == torch.float64 and x.device.type == "cpu" and function("log_loss", _LogLoss) is not None


def log_loss(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the sums of losses and of misplaced weights (2,), the gradient (K, P) and the Hessian (K P, K P).

    Args:
        x: rows, (B, F), float64.
        shift: what is subtracted from them, (F,).
        scale: what they are multiplied by then, (F,).
        y: classes, (B,), int64; with one row of weights 0 and 1.
        weight: of each row, (B,), float64, or None.
        class_weight: what losses of each class count times, beside that, (C,), float64, or None.
        point: weights, (K, P), with the intercepts last where P = F + 1.
        hessian: whether to add it up; it is (0, 0) otherwise.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.log_loss(x, shift, scale, y, weight, class_weight, point, hessian)


def _log_loss(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    run = function("log_loss", _LogLoss)
    if run is None:
        raise RuntimeError("zoo::log_loss needs the compiled kernels: zoo.kernels.status() says why there are none")
    _check(x, shift, scale, y, weight, class_weight, point)
    (rows, features), (outputs, columns) = x.shape, point.shape
    sums, gradient, bend = _outputs(point, hessian)
    work = rows * columns * outputs * (columns * outputs if hessian else 1)
    threads = min(torch.get_num_threads(), 1 + work // PARALLEL)
    classes = 0 if class_weight is None else len(class_weight)
    given = (x, shift, scale, y, weight, class_weight, point, sums, gradient, bend if hessian else None)
    whole = [None if t is None else t.contiguous() for t in given]  # alive until it has run
    pointers = (None if t is None else t.data_ptr() for t in whole)
    run(_LogLoss(rows, features, columns, outputs, classes, threads, *pointers))
    return sums, gradient, bend


def _outputs(point: Tensor, hessian: bool) -> tuple[Tensor, Tensor, Tensor]:
    size = point.numel() if hessian else 0
    return point.new_zeros(2), point.new_zeros(point.shape), point.new_zeros(size, size)


def _check(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor,
) -> None:  # fmt: skip
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    floats = [t for t in (x, shift, scale, weight, class_weight, point) if t is not None]
    fits = y.dtype == torch.int64 and all(t.dtype == torch.float64 for t in floats)
    fits = fits and all(t.device.type == "cpu" for t in (*floats, y)) and x.ndim == point.ndim == 2
    fits = fits and shift.shape == scale.shape == x.shape[1:] and y.shape == x.shape[:1] and len(point) > 0
    fits = fits and point.shape[1] > 0 and point.shape[1] - x.shape[1] in (0, 1)
    fits = fits and (weight is None or weight.shape == y.shape) and (class_weight is None or class_weight.ndim == 1)
    if not fits:
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, shift, scale, y, *floats[3:])]
        raise RuntimeError(f"zoo::log_loss: inputs do not fit together: {found}")


def _fake(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _outputs(point, hessian)


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define(
    "log_loss(Tensor x, Tensor shift, Tensor scale, Tensor y, Tensor? weight, Tensor? class_weight, "
    "Tensor point, bool hessian)"
    " -> (Tensor sums, Tensor gradient, Tensor hessian)"
)
_LIBRARY.impl("log_loss", _log_loss, "CPU")
torch.library.register_fake("zoo::log_loss", _fake, lib=_LIBRARY)
