"""The log loss of rows with its derivatives, and its minimum: operators of `torch.library`, on a CPU.

`zoo::log_loss` is what `zoo.models.linear.log_loss.derivatives` adds up in torch operations, in one pass over the rows.
`zoo::log_loss_minimize` makes all passes, with the steps of `zoo.models.linear.minimizers`, where there is no penalty
but a ridge. Where there is no kernel (`available(x)`), those forms are taken; both give the same to rounding.

Letters: B rows, F features, P columns (F, and one more for an intercept), C classes, K rows of weights (1 or C).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "log_loss", "log_loss_minimize"]

PARALLEL = 2**27  # products from which rows are shared among threads: tens of milliseconds of one


class _LogLoss(ctypes.Structure):
    """The struct of log_loss.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("rows", "features", "columns", "outputs", "classes", "threads", "single")
        ),
        *((name, ctypes.c_void_p) for name in ("x", "shift", "scale", "y", "weight", "class_weight", "point")),
        *((name, ctypes.c_void_p) for name in ("sums", "gradient", "hessian")),
    ]


class _Descent(ctypes.Structure):
    """`Descent` of log_loss.c."""

    _fields_ = [
        ("loss", _LogLoss),
        *((name, ctypes.c_int64) for name in ("newton", "max_passes")),
        *((name, ctypes.c_double) for name in ("total", "tolerance", "limit")),
        *((name, ctypes.c_void_p) for name in ("ridge", "factor", "unit", "origin", "found")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    floats = x.dtype in (torch.float64, torch.float32)
    return floats and x.device.type == "cpu" and function("log_loss_minimize", _Descent) is not None


def log_loss(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the sums of losses and of misplaced weights (2,), the gradient (K, P) and the Hessian (K P, K P).

    Args:
        x: rows, (B, F), float64 or float32; what is added up is float64.
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


def log_loss_minimize(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    start: Tensor, ridge: Tensor, units: tuple[Tensor, Tensor], *, factor: Tensor | None = None, total: float,
    newton: bool, tolerance: float, limit: float | None, max_passes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the weights of the least Σ losses / total + Σ ridge w², what is known there, and how they were found.

    Args:
        x, shift, scale, y, weight, class_weight: as for `log_loss`.
        start: first weights, (K, P).
        ridge: (K, P).
        units: what a derivative by a weight is multiplied by, and how much of that by the intercept is added to it,
            (F,) each, to have it in the user's units.
        factor: for L-BFGS, the lower factor of about how the mean loss bends in each row of weights, (P, P).
        total: weight of all rows.
        newton: whether by Newton's method, instead of L-BFGS.
        tolerance: as of `Minimizer`.
        limit: the search ends, too, where no derivative in the user's units is above this.
        max_passes: at most.

    Returns:
        Weights (K, P), gradient there (K, P), sums as of `log_loss` (2,), and (5,): passes, whether it converged,
        value, promise and step as of `Minimizer`. Passes are 0 where a system of Newton's method was not definite.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    numbers = total, newton, tolerance, -1.0 if limit is None else limit, max_passes
    operator = torch.ops.zoo.log_loss_minimize
    return operator(x, shift, scale, y, weight, class_weight, start, ridge, factor, *units, *numbers)


def _log_loss(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _check(x, shift, scale, y, weight, class_weight, point)
    outputs = _outputs(point, hessian)
    task, alive = _task(x, shift, scale, y, weight, class_weight, point, *outputs)
    _run("log_loss", _LogLoss, task)
    del alive
    return outputs


def _minimize(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    start: Tensor, ridge: Tensor, factor: Tensor | None, unit: Tensor, origin: Tensor, total: float, newton: bool,
    tolerance: float, limit: float, max_passes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check(x, shift, scale, y, weight, class_weight, start)
    others = [(ridge, start.shape), (unit, shift.shape), (origin, shift.shape)]
    if factor is not None:
        others.append((factor, torch.Size([start.shape[1]] * 2)))
    if any(t.shape != shape or t.dtype != torch.float64 or t.device.type != "cpu" for t, shape in others):
        raise RuntimeError(
            "zoo::log_loss_minimize: ridge must be (K, P), factor (P, P), units (F,), float64, on the CPU"
        )
    point, found = start.clone(memory_format=torch.contiguous_format), start.new_zeros(5)
    sums, gradient, hessian = _outputs(point, newton)
    task, alive = _task(x, shift, scale, y, weight, class_weight, point, sums, gradient, hessian)
    columns = [None if t is None else t.contiguous() for t in (ridge, factor, unit, origin, found)]
    pointers = (None if t is None else t.data_ptr() for t in columns)
    _run("log_loss_minimize", _Descent, _Descent(task, newton, max_passes, total, tolerance, limit, *pointers))
    del alive
    return point, gradient, sums, found


def _task(x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, *others: Tensor | None) -> tuple[_LogLoss, list]:
    """The struct, and what must be alive until the kernel has run."""
    _, class_weight, point, *_, hessian = others
    assert point is not None
    assert hessian is not None
    (rows, features), (outputs, columns) = x.shape, point.shape
    work = rows * columns * outputs * max(1, len(hessian))
    threads = min(torch.get_num_threads(), 1 + work // PARALLEL)
    given = (x, shift, scale, y, *others[:-1], hessian if len(hessian) else None)
    whole = [None if t is None else t.contiguous() for t in given]
    pointers = (None if t is None else t.data_ptr() for t in whole)
    classes = 0 if class_weight is None else len(class_weight)
    single = x.dtype == torch.float32
    return _LogLoss(rows, features, columns, outputs, classes, threads, single, *pointers), whole


def _run(name: str, struct: type[ctypes.Structure], task: ctypes.Structure) -> None:
    run = function(name, struct)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    run(task)


def _outputs(point: Tensor, hessian: bool) -> tuple[Tensor, Tensor, Tensor]:
    size = point.numel() if hessian else 0
    return point.new_zeros(2), point.new_zeros(point.shape), point.new_zeros(size, size)


def _check(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor,
) -> None:  # fmt: skip
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    floats = [t for t in (shift, scale, weight, class_weight, point) if t is not None]
    fits = y.dtype == torch.int64 and all(t.dtype == torch.float64 for t in floats)
    fits = fits and x.dtype in (torch.float64, torch.float32) and x.ndim == point.ndim == 2
    fits = fits and all(t.device.type == "cpu" for t in (x, *floats, y))
    fits = fits and shift.shape == scale.shape == x.shape[1:] and y.shape == x.shape[:1] and len(point) > 0
    fits = fits and point.shape[1] > 0 and point.shape[1] - x.shape[1] in (0, 1)
    fits = fits and (weight is None or weight.shape == y.shape) and (class_weight is None or class_weight.ndim == 1)
    if not fits:
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, shift, scale, y, *floats[2:])]
        raise RuntimeError(f"zoo::log_loss: inputs do not fit together: {found}")


def _fake(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    point: Tensor, hessian: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _outputs(point, hessian)


def _fake_minimize(
    x: Tensor, shift: Tensor, scale: Tensor, y: Tensor, weight: Tensor | None, class_weight: Tensor | None,
    start: Tensor, *others: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return start.new_zeros(start.shape), start.new_zeros(start.shape), start.new_zeros(2), start.new_zeros(5)


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_ROWS = "Tensor x, Tensor shift, Tensor scale, Tensor y, Tensor? weight, Tensor? class_weight"
_LIBRARY.define(f"log_loss({_ROWS}, Tensor point, bool hessian) -> (Tensor sums, Tensor gradient, Tensor hessian)")
_LIBRARY.define(
    f"log_loss_minimize({_ROWS}, Tensor start, Tensor ridge, Tensor? factor, Tensor unit, Tensor origin, "
    "float total, bool newton, float tolerance, float limit, int max_passes) "
    "-> (Tensor point, Tensor gradient, Tensor sums, Tensor found)"
)
for _name, _form, _shapes in (("log_loss", _log_loss, _fake), ("log_loss_minimize", _minimize, _fake_minimize)):
    _LIBRARY.impl(_name, _form, "CPU")
    torch.library.register_fake(f"zoo::{_name}", _shapes, lib=_LIBRARY)
