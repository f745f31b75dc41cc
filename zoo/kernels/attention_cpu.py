"""Attention of sequences of up to some thousand steps in single precision on a CPU, by `attention.c`, both ways.

Letters: B rows, H heads, G heads of keys and values, T queries, S keys, d and e widths of a head.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo.kernels import again, function
from zoo.kernels.masks import LEVELS

if TYPE_CHECKING:
    from zoo.kernels.attention import Inputs

__all__ = ["KERNELS", "Packed", "backward", "compiled", "fits", "forward"]

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


KERNELS = ("attention", _Attention), ("attention_back", _Attention)


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


class Packed(NamedTuple):
    """Attention among the steps of each row, of what one product made: queries, keys and values side by side.

    The product is (B T, (H + 2 G) d), and the results (B T, H d), all contiguous.
    """

    rows: int
    steps: int
    heads: int
    groups: int
    width: int
    mask: Tensor | None = None  # as `Inputs` has it, like all that follows
    slopes: Tensor | None = None
    scale: float = 1.0
    causal: bool = False
    window: int = 0

    def fits(self) -> bool:
        """Return whether the kernel, where there is one, is faster at it than operations of torch."""
        scores = self.rows * self.heads * self.steps**2
        few = 2 * self.rows * self.groups < torch.get_num_threads() and scores > _SHARED
        return self.steps * self.width <= LONGEST and not few

    def forward(self, product: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results, and the norms (2, B, H, T)."""
        out = product.new_empty(self.rows * self.steps, self.heads * self.width)
        norm = product.new_empty(2, self.rows, self.heads, self.steps)
        self._call("attention", product, norm, out)
        return out, norm

    def backward(self, product: Tensor, out: Tensor, norm: Tensor, d_out: Tensor) -> Tensor:
        """Return the gradients of the product."""
        d_product = torch.empty_like(product)
        self._call("attention_back", product, norm, out, d_out, d_product)
        return d_product

    def _call(self, name: str, product: Tensor, norm: Tensor, out: Tensor, *back: Tensor) -> None:
        rows, steps, heads, groups, width = self[:5]
        mask = None if self.mask is None else self.mask.float().expand(rows, heads, steps, steps)
        mask = mask if mask is None or mask.stride(-1) == 1 else mask.contiguous()
        slopes = None if self.slopes is None else self.slopes.float().contiguous()
        parts = 0, heads * width * 4, (heads + groups) * width * 4  # where queries, keys and values begin
        whole, single = (heads + 2 * groups) * width, heads * width
        apart, joined = (steps * whole, width, whole), (steps * single, width, single)
        first, last = product.data_ptr(), back[1].data_ptr() if back else None
        again(name, _Attention)(
            _Attention(
                rows, heads, groups, steps, steps, width, width, self.causal, self.window, 0, 0, 0,
                torch.get_num_threads() if rows * heads * steps**2 > _ALONE else 1, self.scale,
                *apart * 3, *((0, 0, 0) if mask is None else mask.stride()[:3]), *joined * 2, *apart * 3,
                *(first + part for part in parts), None if mask is None else mask.data_ptr(), out.data_ptr(),
                back[0].data_ptr() if back else None, *(last and last + part for part in parts),
                None if slopes is None else slopes.data_ptr(), norm.data_ptr(), norm.data_ptr() + norm.nbytes // 2,
            )
        )  # fmt: skip


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
        *apart, beside = tensor.stride()
        if beside != 1:
            tensor = tensor.contiguous()
            apart = list(tensor.stride()[:3])
            held.append(tensor)
        steps += apart
        pointers.append(tensor.data_ptr())
    kernel = function(name, _Attention)
    assert kernel is not None
    kernel(
        _Attention(
            rows, heads, groups, queries, keys, width, other, x.causal, x.window, x.offset, _dropped(x),
            0 if x.seed is None else int(x.seed), threads, x.scale, *steps, *pointers,
            None if slopes is None else slopes.data_ptr(), norm.data_ptr(), norm.data_ptr() + norm.nbytes // 2,
        )
    )  # fmt: skip
