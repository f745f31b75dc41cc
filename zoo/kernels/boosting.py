r"""Derivatives and losses of the rows of a round of boosting: operators of `torch.library` over `boosting.c`.

| `loss` | m | g | h | loss of a row |
|---|---|---|---|---|
| `log_loss`, two classes | $\sigma(F)$ | $(y - m) w$ | $m (1 - m) w$ | $\log(1 + e^F) - y F$ |
| `squared_error` | F | $(y - m) w$ | w | $(y - F)^2$ |

The integers are those that `zoo.models.trees.criteria.Units` makes of g and h in torch operations, to the bit; that
form is taken where there is no kernel (`available(x)`).

Letters: N rows, M nodes.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["LOSSES", "add_leaves", "available", "fixed_derivatives", "largest_derivatives"]

LOSSES = ("log_loss", "squared_error")

_ROWS_FOR_THREADS = 1 << 15
_BLOCK = 1024  # rows, as in boosting.c

_INTEGERS, _NUMBER, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Derive(ctypes.Structure):
    """`Derive` of boosting.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("rows", "loss", "threads")),
        *((name, _NUMBER) for name in ("weight_unit", "gradient_unit")),
        *((name, _POINTER) for name in ("mean", "y", "weight", "largest", "fixed_weight", "fixed_gradient")),
    ]


class _Step(ctypes.Structure):
    """`Step` of boosting.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("rows", "loss", "threads")),
        *((name, _POINTER) for name in ("output", "y", "weight", "leaf", "value", "held_out", "after", "sums")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes numbers of this type and device."""
    return x.dtype == torch.float64 and x.device.type == "cpu" and function("add_leaves", _Step) is not None


def _fake_largest(loss, mean, y, weight):  # type: ignore[no-untyped-def]
    return mean.new_empty(2)


@operator(_fake_largest)
def largest_derivatives(loss: int, mean: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return the largest h and the largest |g| of all rows, (2,).

    Args:
        loss: its place in `LOSSES`.
        mean: m, (N,), float64, as all that follow.
        y: targets, (N,).
        weight: w, at least 0, (N,).

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
    """
    run = function("largest_derivatives", _Derive)
    _check(run is not None, "largest_derivatives", "there is no kernel")
    mean, y, weight = _rows("largest_derivatives", loss, mean, y, weight)
    threads = _threads(len(mean))
    largest = torch.empty(threads, 2, dtype=torch.float64)
    assert run is not None
    run(
        _Derive(
            len(mean), loss, threads, 1.0, 1.0, mean.data_ptr(), y.data_ptr(), weight.data_ptr(), largest.data_ptr()
        )
    )
    return largest.amax(0)


def _fake_fixed(loss, mean, y, weight, weight_unit, gradient_unit):  # type: ignore[no-untyped-def]
    return torch.empty_like(mean, dtype=torch.int64), torch.empty_like(mean, dtype=torch.int64)


@operator(_fake_fixed)
def fixed_derivatives(
    loss: int, mean: Tensor, y: Tensor, weight: Tensor, weight_unit: float, gradient_unit: float
) -> tuple[Tensor, Tensor]:
    """Return h and g of each row as integers, (N,) each, int64; h is at least 1 where w is above 0, else 0.

    Args:
        loss: as all others of `largest_derivatives`.
        mean: …
        y: …
        weight: …
        weight_unit: what is 1 of h.
        gradient_unit: what is 1 of g.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
    """
    run = function("fixed_derivatives", _Derive)
    _check(run is not None, "fixed_derivatives", "there is no kernel")
    mean, y, weight = _rows("fixed_derivatives", loss, mean, y, weight)
    h, g = torch.empty(len(mean), dtype=torch.int64), torch.empty(len(mean), dtype=torch.int64)
    assert run is not None
    run(
        _Derive(
            len(mean), loss, _threads(len(mean)), weight_unit, gradient_unit, mean.data_ptr(), y.data_ptr(),
            weight.data_ptr(), None, h.data_ptr(), g.data_ptr(),
        )
    )  # fmt: skip
    return h, g


def _fake_step(loss, output, leaf, value, y, weight, held_out):  # type: ignore[no-untyped-def]
    return torch.empty_like(output), output.new_empty(2)


@operator(_fake_step)
def add_leaves(
    loss: int, output: Tensor, leaf: Tensor, value: Tensor, y: Tensor, weight: Tensor, held_out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return outputs grown by the values of their rows' leaves, (N,), and the weighted sums of their losses, (2,).

    The sums are of the rows that train and of those held out, the same for any number of threads.

    Args:
        loss: its place in `LOSSES`.
        output: F, (N,), float64.
        leaf: of each row, (N,), int64.
        value: of each node, (M,), float64.
        y: targets, (N,), float64.
        weight: w, (N,), float64.
        held_out: the rows whose losses are added up apart, (N,), bool; None for none.

    Raises:
        RuntimeError: for tensors of other types or shapes, leaves out of range, or where there is no kernel.
    """
    run = function("add_leaves", _Step)
    _check(run is not None, "add_leaves", "there is no kernel")
    output, y, weight = _rows("add_leaves", loss, output, y, weight)
    _check(leaf.dtype == torch.int64 and leaf.shape == output.shape, "add_leaves", "leaf must be (N,), int64")
    _check(value.dtype == torch.float64 and value.ndim == 1, "add_leaves", "value must be (M,), float64")
    fits = held_out is None or (held_out.dtype == torch.bool and held_out.shape == output.shape)
    _check(fits, "add_leaves", "held_out must be (N,), bool")
    if len(leaf):
        low, high = leaf.aminmax()
        _check(int(low) >= 0 and int(high) < len(value), "add_leaves", "leaves out of range")
    leaf, value = leaf.contiguous(), value.contiguous()
    held_out = None if held_out is None else held_out.contiguous()
    after, sums = torch.empty_like(output), torch.empty(-(-len(output) // _BLOCK), 2, dtype=torch.float64)
    assert run is not None
    run(
        _Step(
            len(output), loss, _threads(len(output)), output.data_ptr(), y.data_ptr(), weight.data_ptr(),
            leaf.data_ptr(), value.data_ptr(), None if held_out is None else held_out.data_ptr(), after.data_ptr(),
            sums.data_ptr(),
        )
    )  # fmt: skip
    return after, sums.sum(0)


def _rows(name: str, loss: int, *numbers: Tensor) -> list[Tensor]:
    """The numbers of the rows, one after the other in memory."""
    _check(0 <= loss < len(LOSSES), name, f"loss must be a place in {LOSSES}")
    shape = numbers[0].shape
    for number in numbers:
        fits = number.dtype == torch.float64 and number.device.type == "cpu" and number.ndim == 1
        _check(fits and number.shape == shape, name, "rows must have one float64 each, on the CPU")
    return [number.contiguous() for number in numbers]


def _threads(num_rows: int) -> int:
    return torch.get_num_threads() if num_rows >= _ROWS_FOR_THREADS else 1


def _check(fits: bool, name: str, wanted: str) -> None:
    if not fits:
        raise RuntimeError(f"zoo::{name}: {wanted}.")
