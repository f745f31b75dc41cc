"""The product of a matrix and one row of numbers: an operator of `torch.library` over `row_product.c`.

`zoo::row_product` is `torch.nn.functional.linear` for one row in single precision on a CPU, in two thirds of the time
that MKL takes. Where there is no kernel (`available(x, weight)`), that is taken.

Letters: D numbers of the row, E of the result.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "row_product"]

LARGE = 1 << 16  # numbers of a matrix from which on calling the kernel costs little beside it
_OF_THREAD = 1 << 19  # numbers of a matrix that are worth another thread


class _RowProduct(ctypes.Structure):
    """The struct of row_product.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("outputs", "inputs", "threads")),
        *((name, ctypes.c_void_p) for name in ("weight", "x", "bias", "y")),
    ]


def available(x: Tensor, weight: Tensor) -> bool:
    """Return whether the kernel multiplies such a row by such a matrix, which has to lie in memory row by row."""
    return (
        x.numel() == weight.shape[-1]
        and weight.numel() >= LARGE
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and weight.is_contiguous()
        and function("row_product", _RowProduct) is not None
    )


def row_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x Wᵀ + b` for one row; it has no gradient.

    Args:
        x: (…, D), D numbers in all, float32.
        weight: W, (E, D), float32.
        bias: b, (E,), float32.

    Returns:
        (…, E).

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.row_product(x, weight, bias)


def _row_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    tensors = [t for t in (x, weight, bias) if t is not None]
    fits = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors) and weight.ndim == 2
    fits = fits and x.ndim > 0 and x.numel() == x.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        raise RuntimeError(f"zoo::row_product: inputs do not fit together: {[(*t.shape, t.dtype) for t in tensors]}")
    run = function("row_product", _RowProduct)
    if run is None:
        raise RuntimeError("zoo::row_product needs the compiled kernels: zoo.kernels.status() says why there are none")
    y = _fake(x, weight, bias)
    whole = [None if t is None else t.contiguous() for t in (weight, x, bias, y)]
    threads = min(torch.get_num_threads(), 1 + weight.numel() // _OF_THREAD)
    run(_RowProduct(*weight.shape, threads, *(None if t is None else t.data_ptr() for t in whole)))
    return y


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define("row_product(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_LIBRARY.impl("row_product", _row_product, "CPU")
torch.library.register_fake("zoo::row_product", _fake, lib=_LIBRARY)
