"""Attention of sequences of up to some thousand steps in single precision on a CPU, by `attention.c`, both ways.

Letters: B rows, H heads, G heads of keys and values, T queries, S keys, d and e widths of a head.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.masks import LEVELS

if TYPE_CHECKING:
    from zoo.kernels.attention import Inputs

__all__ = ["backward", "compiled", "fits", "forward"]

LONGEST = 1 << 17  # numbers of the keys or the values of a head, which are to stay in the second cache
_ALONE = 1 << 18  # scores up to which one thread takes them all
_SHARED = 1 << 21  # scores from which on it counts that threads are idle
_SIZES = ("rows", "heads", "groups", "queries", "keys", "width", "other")
_OPTIONS = ("causal", "window", "offset", "dropped", "seed", "threads")
_PLACES = ("q", "k", "v", "mask", "out", "d_out", "d_q", "d_k", "d_v")  # of numbers by rows, heads and steps


class _Attention(ctypes.Structure):
    """The struct of attention.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (*_SIZES, *_OPTIONS)),
        ("scale", ctypes.c_double),
        *((f"{name}_{axis}", ctypes.c_int64) for name in _PLACES for axis in ("row", "head", "step")),
        *((name, ctypes.c_void_p) for name in (*_PLACES, "slopes", "top", "log")),
    ]


def compiled(x: Tensor, size: int = 0) -> bool:
    """Return whether there is a kernel for numbers of this type, here, and for `size` keys or values of a head."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and size <= LONGEST
    return fits and function("attention", _Attention) is not None


def fits(x: Inputs) -> bool:
    """Return whether the kernel takes such inputs, and is faster than operations of torch."""
    (rows, heads, queries, width), (groups, keys), other = x.q.shape, x.k.shape[1:3], x.v.shape[3]
    if not min(rows, heads, groups, queries, keys, width, other) or not compiled(x.q, keys * max(width, other)):
        return False
    if x.seed is not None:  # which the torch form would draw other numbers from: nothing that may change counts here
        return _dropped(x) < LEVELS
    # the way back shares out heads alone: of few and long ones products in torch use more threads, at half the speed
    return 2 * rows * groups >= torch.get_num_threads() or rows * heads * queries * keys <= _SHARED


def _dropped(x: Inputs) -> int:
    return 0 if x.seed is None else round(x.dropout * LEVELS)


def forward(x: Inputs, out: Tensor, norm: Tensor) -> None:
    """Fill the results (B, H, T, e) and the norms (2, B, H, T, 1)."""
    _call("attention", x, norm, out, None, None, None, None)


def backward(x: Inputs, out: Tensor, norm: Tensor, d_out: Tensor, results: tuple[Tensor, ...]) -> None:
    """Fill the gradients of queries, keys and values."""
    _call("attention_back", x, norm.contiguous(), out, d_out, *results)


def _call(name: str, x: Inputs, norm: Tensor, *others: Tensor | None) -> None:
    (rows, heads, queries, width), (groups, keys), other = x.q.shape, x.k.shape[1:3], x.v.shape[3]
    threads = torch.get_num_threads() if rows * heads * queries * keys > _ALONE else 1
    mask = None if x.mask is None else x.mask.float().expand(rows, heads, queries, keys)
    slopes = None if x.slopes is None else x.slopes.float().contiguous()
    held: list[Tensor] = []  # what is made contiguous stays until the kernel is done
    steps: list[int] = []
    pointers: list[int | None] = []
    for tensor in (x.q, x.k, x.v, mask, *others):
        if tensor is None:
            steps += (0, 0, 0)
            pointers.append(None)
            continue
        by_step = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        held.append(by_step)
        steps += by_step.stride()[:3]
        pointers.append(by_step.data_ptr())
    kernel = function(name, _Attention)
    assert kernel is not None
    kernel(
        _Attention(
            rows, heads, groups, queries, keys, width, other, x.causal, x.window, x.offset, _dropped(x),
            0 if x.seed is None else int(x.seed), threads, x.scale, *steps, *pointers,
            None if slopes is None else slopes.data_ptr(), norm.data_ptr(), norm.data_ptr() + norm.nbytes // 2,
        )
    )  # fmt: skip
