"""Adafactor's step of a list of tensors: an operator of `torch.library` over `adafactor.c`, on a CPU.

`zoo::adafactor_step` passes three times over what `zoo.optimizers.adafactor` else takes twenty operations for; where
there is no kernel, or for other tensors (`available(params, grads)`), those are taken. Both give the same to
rounding: the kernel adds squares up in float64.

Letters: B matrices of a tensor, M rows, N columns.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from array import array

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.lists import addresses, are_like, are_plain, copy_back, in_order, numbers_of
from zoo.kernels.operators import operator

__all__ = ["adafactor_step", "available", "takes"]

PARALLEL = 100_000  # numbers of a thread at least


class _Adafactor(ctypes.Structure):
    """`Adafactor` of adafactor.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "threads", "wide", "wide_steps", "factored", "maximize")),
        *((name, ctypes.c_double) for name in ("rate", "decay", "floor", "least_size", "cut", "weight_decay")),
        *((name, ctypes.c_void_p) for name in ("shapes", "tensors", "steps")),
    ]


def takes(parameter: Tensor) -> bool:
    """Return whether the kernel takes such a parameter."""
    return are_plain([parameter]) and function("adafactor_step", _Adafactor) is not None


def available(params: list[Tensor], grads: list[Tensor]) -> bool:
    """Return whether the kernel takes such parameters, which are of one type and device, and gradients."""
    return takes(params[0]) and are_like(params[0], params, grads)


def _fake_step(params, grads, rows, columns, steps, rate, decay, floor, least_size, cut, weight_decay, maximize):  # type: ignore[no-untyped-def]
    return None


@operator(_fake_step, mutates_args=("params", "rows", "columns", "steps"))
def adafactor_step(
    params: list[Tensor], grads: list[Tensor], rows: list[Tensor], columns: list[Tensor], steps: list[Tensor],
    rate: float, decay: float, floor: float, least_size: float, cut: float, weight_decay: float, maximize: bool,
) -> None:  # fmt: skip
    """Take a step of Adafactor in place, of matrices or of vectors.

    Args:
        params: θ, (..., M, N) each, or vectors, all float32 or all float64.
        grads: G, of the same type and shapes.
        rows: R, (..., M, 1); of vectors V, of their shapes.
        columns: C, (..., 1, N); none of vectors.
        steps: the count of each parameter, to which one is added; all float32 or all float64.
        rate: η.
        decay: τ.
        floor: ε₁.
        least_size: ε₂.
        cut: d.
        weight_decay: λ.
        maximize: ascend.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("adafactor_step", _Adafactor)
    if run is None:
        raise RuntimeError(
            "zoo::adafactor_step needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    if not params:
        return
    written, sizes = [*params, *rows, *columns], numbers_of(params)
    every, shapes = [*written, *grads], [_shape(p) if columns else (p.numel(), 1, 1) for p in params]
    of_rows, of_columns = [b * m for b, m, _ in shapes], [b * n for b, _, n in shapes] if columns else []
    fits = numbers_of(every) == sizes + of_rows + of_columns + sizes and numbers_of(steps) == [1] * len(params)
    if not (fits and are_plain(every) and are_plain(steps)):
        raise RuntimeError("zoo::adafactor_step: parameters, gradients and what is kept of them do not fit together")
    ordered = in_order(every)
    places, counts = addresses(ordered), addresses(steps)
    numbers = array("q", itertools.chain.from_iterable(zip(*shapes, strict=True)))
    threads = max(1, min(torch.get_num_threads(), sum(sizes) // PARALLEL))
    run(
        _Adafactor(
            len(params), threads, params[0].dtype == torch.float64, steps[0].dtype == torch.float64, bool(columns),
            maximize, rate, decay, floor, least_size, cut, weight_decay, numbers.buffer_info()[0],
            places.buffer_info()[0], counts.buffer_info()[0],
        )
    )  # fmt: skip
    if ordered is not every:
        copy_back(every[: len(written)], ordered)
    torch.autograd.graph.increment_version(written + steps)


def _shape(parameter: Tensor) -> tuple[int, int, int]:
    """B, M and N of a parameter."""
    *axes, rows, columns = (1, 1, *parameter.shape)
    return math.prod(axes), rows, columns
