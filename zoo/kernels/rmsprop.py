"""RMSprop's step of a list of tensors: an operator of `torch.library` over `rmsprop.c`, on a CPU.

`zoo::rmsprop_step` passes once over what `zoo.optimizers.rmsprop` else takes ten operations for; where there is no
kernel, or for other tensors (`available(params, grads)`), those are taken. Both give the same to rounding.
"""

from __future__ import annotations

import ctypes
from array import array

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.lists import addresses, along_memory, are_like, are_plain, copy_back, in_order, numbers_of
from zoo.kernels.operators import operator

__all__ = ["available", "rmsprop_step", "takes"]

PARALLEL = 100_000  # numbers of a thread at least


class _Rmsprop(ctypes.Structure):
    """`Rmsprop` of rmsprop.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "threads", "wide", "wide_steps")),
        *((name, ctypes.c_int64) for name in ("centered", "has_momentum", "maximize")),
        *((name, ctypes.c_double) for name in ("rate", "alpha", "eps", "weight_decay", "momentum")),
        *((name, ctypes.c_void_p) for name in ("sizes", "tensors", "steps")),
    ]


def takes(parameter: Tensor) -> bool:
    """Return whether the kernel takes such a parameter."""
    return are_plain([parameter]) and function("rmsprop_step", _Rmsprop) is not None


def available(params: list[Tensor], grads: list[Tensor]) -> bool:
    """Return whether the kernel takes such parameters, which are of one type and device, and gradients."""
    return takes(params[0]) and are_like(params[0], params, grads)


def _fake_step(params, grads, squares, means, sums, steps, rate, alpha, eps, weight_decay, momentum, maximize):  # type: ignore[no-untyped-def]
    return None


@operator(_fake_step, mutates_args=("params", "squares", "means", "sums", "steps"))
def rmsprop_step(
    params: list[Tensor], grads: list[Tensor], squares: list[Tensor], means: list[Tensor], sums: list[Tensor],
    steps: list[Tensor], rate: float, alpha: float, eps: float, weight_decay: float, momentum: float, maximize: bool,
) -> None:  # fmt: skip
    """Take a step of RMSprop in place.

    Args:
        params: θ, all float32 or all float64.
        grads: ∇, of the same type and shapes, as are the next three.
        squares: v.
        means: ḡ; none where steps are not centered.
        sums: u; none where there is no momentum.
        steps: the count of each parameter, to which one is added; all float32 or all float64.
        rate: η.
        alpha: α.
        eps: ε.
        weight_decay: λ.
        momentum: μ.
        maximize: ascend.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
    """
    run = function("rmsprop_step", _Rmsprop)
    if run is None:
        raise RuntimeError("zoo::rmsprop_step needs the compiled kernels: zoo.kernels.status() says why there are none")
    if not params:
        return
    written, sizes = [*params, *squares, *means, *sums], numbers_of(params)
    every, kinds = [*written, *grads], 3 + bool(means) + bool(sums)
    fits = numbers_of(every) == sizes * kinds and numbers_of(steps) == [1] * len(params)
    if not (fits and are_plain(every) and are_plain(steps)):
        raise RuntimeError("zoo::rmsprop_step: parameters, gradients and what is kept of them do not fit together")
    laid = along_memory(every, params)
    ordered = in_order(laid)
    places, counts, numbers = addresses(ordered), addresses(steps), array("q", sizes)
    threads = max(1, min(torch.get_num_threads(), sum(sizes) // PARALLEL))
    run(
        _Rmsprop(
            len(params), threads, params[0].dtype == torch.float64, steps[0].dtype == torch.float64, bool(means),
            bool(sums), maximize, rate, alpha, eps, weight_decay, momentum, numbers.buffer_info()[0],
            places.buffer_info()[0], counts.buffer_info()[0],
        )
    )  # fmt: skip
    if ordered is not laid:
        copy_back(laid[: len(written)], ordered)
    torch.autograd.graph.increment_version(written + steps)
