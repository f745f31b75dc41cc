"""How often each feature is in each row of tokens: an operator of `torch.library` over `row_counts.c`, on a CPU.

`zoo::row_counts` gives without a sort what `zoo.data.text_view` counts in torch operations where there is no kernel
(`available()`).

Letters: N rows, M tokens of all, V tokens that there are, F features, K pairs of a row and a feature that is in it.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "row_counts"]


class _RowCounts(ctypes.Structure):
    """`RowCounts` of row_counts.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_rows", "num_features")),
        *((name, ctypes.c_void_p) for name in ("tokens", "ends", "features", "crow", "columns", "counts")),
    ]


def available() -> bool:
    """Return whether there is the kernel."""
    return function("row_counts", _RowCounts) is not None


def _fake(tokens: Tensor, lengths: Tensor, features: Tensor, num_features: int) -> tuple[Tensor, Tensor, Tensor]:
    found = torch.library.get_ctx().new_dynamic_size()
    crow = lengths.new_empty(len(lengths) + 1)
    return crow, lengths.new_empty(found), lengths.new_empty(found, dtype=torch.float32)


@operator(_fake)
def row_counts(tokens: Tensor, lengths: Tensor, features: Tensor, num_features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each row begins (N + 1,), its features in ascending order (K,), int64, and their counts (K,).

    Args:
        tokens: of all rows, one after the other, (M,), int32.
        lengths: how many each row has, (N,), int64.
        features: of each token, negative where it has none, (V,), int32.
        num_features: F.

    Raises:
        RuntimeError: for tensors of other types or shapes, or numbers that are out of range.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("row_counts", _RowCounts)
    if run is None:
        raise RuntimeError("zoo::row_counts needs the compiled kernels: zoo.kernels.status() says why there are none")
    given = (tokens, torch.int32), (lengths, torch.int64), (features, torch.int32)
    if any(x.ndim != 1 or x.dtype != dtype or x.device.type != "cpu" for x, dtype in given):
        raise RuntimeError("zoo::row_counts: tokens and features must be rows, int32, lengths int64, on the CPU")
    if not _within(tokens, 0, len(features)) or not _within(features, -(2**31), num_features):
        raise RuntimeError("zoo::row_counts: a token or a feature is out of range")
    ends = lengths.cumsum(0)
    if not _within(lengths, 0, len(tokens) + 1) or (int(ends[-1]) if len(ends) else 0) != len(tokens):
        raise RuntimeError("zoo::row_counts: the lengths do not add up to the number of tokens")
    tokens, features = tokens.contiguous(), features.contiguous()
    crow, columns = torch.zeros(len(lengths) + 1, dtype=torch.int64), torch.empty(len(tokens), dtype=torch.int64)
    counts = torch.empty(len(tokens))
    tensors = tokens, ends, features, crow, columns, counts
    run(_RowCounts(len(lengths), num_features, *(tensor.data_ptr() for tensor in tensors)))
    found = int(crow[-1])
    return crow, columns[:found].clone(), counts[:found].clone()


def _within(x: Tensor, low: int, high: int) -> bool:
    """Whether all numbers are at least `low` and below `high`."""
    if not len(x):
        return True
    least, most = x.aminmax()
    return low <= int(least) and int(most) < high
