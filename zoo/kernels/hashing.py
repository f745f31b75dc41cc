"""Hashes of rows by their content: an operator of `torch.library` over `hashing.c`, for float32 and float64 on a CPU.

`zoo::hash_rows` gives in one pass the bits that `zoo.numerics.hashing.content_hash` makes in torch operations; that
form is taken where there is no kernel (`available(x)`).

Letters: N rows, D features.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "hash_rows"]


class _Hashes(ctypes.Structure):
    """`Hashes` of hashing.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "single", "mix")),
        *((name, ctypes.c_void_p) for name in ("x", "factors", "hash")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes such rows."""
    known = x.dtype in (torch.float32, torch.float64) and x.layout == torch.strided and x.device.type == "cpu"
    return known and function("hash_rows", _Hashes) is not None


def _fake(x: Tensor, factors: Tensor, mix: bool) -> Tensor:
    return factors.new_empty(len(x))


@operator(_fake)
def hash_rows(x: Tensor, factors: Tensor, mix: bool) -> Tensor:
    """Return the sum of each row's bits times the factors of its columns modulo 2⁶⁴, (N,), int64.

    Args:
        x: rows, (N, D), float32 or float64.
        factors: of the columns, (D,), int64.
        mix: whether the sums are mixed at once, as `zoo.numerics.hashing.splitmix64` does.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    run = function("hash_rows", _Hashes)
    if run is None:
        raise RuntimeError("zoo::hash_rows needs the compiled kernels: zoo.kernels.status() says why there are none")
    if x.ndim != 2 or factors.shape != x.shape[1:] or factors.dtype != torch.int64 or not available(x):
        raise RuntimeError("zoo::hash_rows: rows must be (N, D), float32 or float64, factors (D,), int64, on the CPU")
    x, factors, found = x.contiguous(), factors.contiguous(), torch.empty(len(x), dtype=torch.int64)
    run(_Hashes(*x.shape, x.dtype == torch.float32, mix, x.data_ptr(), factors.data_ptr(), found.data_ptr()))
    return found
