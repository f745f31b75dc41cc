"""Counts and joins of itemsets: operators of `torch.library` over `itemsets.c`, on a CPU.

`zoo::count_sets` counts what `zoo.models.apriori.itemsets.count_packed` does in torch operations where there is no
kernel (`available(device)`): sets that differ in their last item alone share what the others have in common.
`zoo::join_sets` makes the candidates of `join_itemsets`.

Letters: M items, W words of 64 baskets, C sets, k items of a set.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "count_sets", "join_sets"]

LARGE = 1 << 24  # words of all sets from which on threads pay


class _Itemsets(ctypes.Structure):
    """`Itemsets` of itemsets.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_sets", "size", "words", "threads")),
        *((name, ctypes.c_void_p) for name in ("bits", "sets", "counts")),
    ]


class _Join(ctypes.Structure):
    """`Join` of itemsets.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_sets", "size")),
        *((name, ctypes.c_void_p) for name in ("sets", "joined", "found")),
    ]


def available(device: torch.device) -> bool:
    """Return whether sets on this device are counted and joined by the kernels."""
    return device.type == "cpu" and function("count_sets", _Itemsets) is not None


def _fake(bits: Tensor, sets: Tensor) -> Tensor:
    return sets.new_empty(len(sets))


@operator(_fake)
def count_sets(bits: Tensor, sets: Tensor) -> Tensor:
    """Return how many bits the strings of all items of a set have in common, (C,), int64.

    Args:
        bits: a string of bits for each item, (M, W), int64.
        sets: rows of `bits`, (C, k), int64, k at least 1.

    Raises:
        RuntimeError: for tensors of other types or shapes, or rows that there are not.
    """
    run = function("count_sets", _Itemsets)
    if run is None:
        raise RuntimeError("zoo::count_sets needs the compiled kernels: zoo.kernels.status() says why there are none")
    if any(x.ndim != 2 or x.dtype != torch.int64 or x.device.type != "cpu" for x in (bits, sets)) or not sets.shape[1]:
        raise RuntimeError("zoo::count_sets: bits must be (M, W), sets (C, k) of some items, int64, on the CPU")
    counts = torch.zeros(len(sets), dtype=torch.int64)
    if sets.numel():
        low, high = sets.aminmax()
        if int(low) < 0 or int(high) >= len(bits):
            raise RuntimeError("zoo::count_sets: a set has an item of which there is no string of bits")
        bits, sets = bits.contiguous(), sets.contiguous()
        threads = torch.get_num_threads() if len(sets) * bits.shape[1] >= LARGE else 1
        run(_Itemsets(*sets.shape, bits.shape[1], threads, bits.data_ptr(), sets.data_ptr(), counts.data_ptr()))
    return counts


def _fake_join(sets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    found = torch.library.get_ctx().new_dynamic_size()
    return sets.new_empty(found, sets.shape[1] + 1), sets.new_empty(1)


@operator(_fake_join)
def join_sets(sets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return all sets of k + 1 items of which each subset of k items is there, and how many pairs were looked at.

    Args:
        sets: in lexicographic order, each with its items ascending, (C, k), int64, k at least 2.
        most: pairs of sets that differ in their last item alone, from which on none are joined.

    Returns:
        The sets in lexicographic order (C', k + 1), and the number of such pairs (1,).

    Raises:
        RuntimeError: for a tensor of another type or shape.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("join_sets", _Join)
    if run is None:
        raise RuntimeError("zoo::join_sets needs the compiled kernels: zoo.kernels.status() says why there are none")
    if sets.ndim != 2 or sets.dtype != torch.int64 or sets.device.type != "cpu" or sets.shape[1] < 2:
        raise RuntimeError("zoo::join_sets: sets must be (C, k) of two items or more, int64, on the CPU")
    sets, pairs, found = sets.contiguous(), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    run(_Join(*sets.shape, sets.data_ptr(), None, pairs.data_ptr()))
    room = int(pairs) if int(pairs) <= most else 0
    joined = torch.empty(room, sets.shape[1] + 1, dtype=torch.int64)
    if room:
        run(_Join(*sets.shape, sets.data_ptr(), joined.data_ptr(), found.data_ptr()))
    return joined[: int(found)].clone(), pairs
