"""What trees are grown from and into: the structs of `tree_gains.h` and `tree_order.c`, and room for nodes.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = [
    "ENTRIES", "Grow", "Grown", "Order", "Room", "address", "capacity_of", "check", "coded", "in_order", "joined",
    "threads_of", "within",
]  # fmt: skip

ENTRIES = (  # what rows store whose codes are mostly those of 0
    "row_starts", "row_features", "row_codes", "column_starts", "column_rows", "column_codes", "zero_code",
)  # fmt: skip
_ROWS_FOR_THREADS = 10_000

Grown = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

_INTEGERS, _REALS, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class Grow(ctypes.Structure):
    """`Grow` of tree_gains.h."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "num_trees", "num_sums", "width", "threads")),
        *(
            (name, _POINTER)
            for name in (
                "narrow",
                "narrow_rows",
                "wide",
                *ENTRIES,
                "lower",
                "upper",
                "index",
                "weight",
                "gradient",
                "values",
            )
        ),
        *((name, _POINTER) for name in ("content", "tree_key", "poisson", "path", "monotone", "categorical")),
        *((name, _INTEGERS) for name in ("criterion", "count_bits")),
        *((name, _REALS) for name in ("weight_unit", "gradient_unit", "l2")),
        *((name, _INTEGERS) for name in ("max_depth", "min_samples_split", "min_samples_leaf", "max_leaf_nodes")),
        *((name, _INTEGERS) for name in ("max_features", "random_thresholds")),
        *((name, _REALS) for name in ("min_weight_leaf", "min_gain")),
        ("capacity", _INTEGERS),
        *((name, _POINTER) for name in ("num_nodes", "feature", "code", "next_code", "child", "depth", "missing_left")),
        *((name, _POINTER) for name in ("subset", "gain", "threshold", "sums", "leaf")),
    ]


class Order(ctypes.Structure):
    """`Order` of tree_order.c."""

    _fields_ = [
        ("grown", ctypes.POINTER(Grow)),
        *((name, _POINTER) for name in ("root", "feature", "left", "depth", "threshold", "gain", "missing_left")),
        *((name, _POINTER) for name in ("subset", "sums", "leaf")),
    ]


def coded(
    operator: str, columns: Tensor, rows: Tensor, entries: Sequence[Tensor], lower: Tensor, upper: Tensor,
    categorical: Tensor | None, num_rows: int,
) -> dict[str, Tensor | None]:  # fmt: skip
    """Return codes and bins by their names in `Grow`, checked: arguments are those of `grow_trees`."""
    num_features, width, is_sparse = len(upper), upper.shape[1] + 1, len(entries) > 0
    is_narrow = columns.dtype == torch.uint8 and not is_sparse
    if is_sparse:
        _check_entries(operator, entries, num_rows, num_features, width)
        check(operator, categorical is None, "entries have no categories, drawn thresholds or absolute errors")
    else:
        check(operator, columns.dtype in (torch.uint8, torch.int32), "codes must be uint8 or int32")
        check(operator, columns.shape == (num_features, num_rows), "columns must be (F, N)")
        check(operator, within(columns, width), "codes or index out of range")
    fits = not is_narrow or (rows.dtype == torch.uint8 and rows.shape == (num_rows, num_features))
    check(operator, fits, "rows must be (N, F)")
    check(operator, lower.shape == upper.shape == (num_features, width - 1), "lower and upper must be (F, W − 1)")
    check(operator, lower.dtype == upper.dtype == torch.float64, "lower and upper must be float64")
    fits = categorical is None or (categorical.dtype == torch.uint8 and categorical.shape == (num_features,))
    fits = fits and (categorical is None or is_narrow)
    check(operator, fits, "categorical must be (F,), uint8, of uint8 codes")
    return {
        "narrow": columns if is_narrow else None, "narrow_rows": rows if is_narrow else None,
        "wide": None if is_narrow or is_sparse else columns, **dict(zip(ENTRIES, entries, strict=False)),
        "lower": lower, "upper": upper, "categorical": categorical,
    }  # fmt: skip


def _check_entries(operator: str, entries: Sequence[Tensor], num_rows: int, num_features: int, width: int) -> None:
    """Raise unless these are what rows store, both ways."""
    check(operator, len(entries) == len(ENTRIES), f"entries must be {', '.join(ENTRIES)}")
    row_starts, row_features, row_codes, column_starts, column_rows, column_codes, zero_code = entries
    for starts, number, places, end, codes in (
        (row_starts, num_rows, row_features, num_features, row_codes),
        (column_starts, num_features, column_rows, num_rows, column_codes),
    ):
        fits = starts.shape == (number + 1,) and starts.dtype == torch.int64 and places.shape == codes.shape
        fits = fits and places.dtype == codes.dtype == torch.int32 and len(places) == len(row_features)
        fits = fits and int(starts[0]) == 0 and int(starts[-1]) == len(places) and bool((starts.diff() >= 0).all())
        fits = fits and within(places, end) and within(codes, width)
        check(operator, fits, "these are no entries")
    fits = zero_code.shape == (num_features,) and zero_code.dtype == torch.int32
    check(operator, fits and within(zero_code + 1, width), "zero_code must be (F,), int32")


def address(tensor: Tensor | None) -> int | None:
    """Where the numbers of a tensor stand; None where there are none."""
    return None if tensor is None or not tensor.shape[-1] else tensor.data_ptr()


def check(operator: str, fits: bool, wanted: str) -> None:
    """Raise what an operator of torch does unless something fits."""
    if not fits:
        raise RuntimeError(f"zoo::{operator}: {wanted}.")


def within(values: Tensor, end: int) -> bool:
    """Whether integers lie in [0, end)."""
    if not values.numel() or (values.dtype == torch.uint8 and end > 255):
        return True
    low, high = values.aminmax()
    return int(low) >= 0 and int(high) < end


def threads_of(num_rows: int) -> int:
    """How many threads so many rows are worth."""
    return torch.get_num_threads() if num_rows >= _ROWS_FOR_THREADS else 1


def capacity_of(num_rows: int, max_depth: int, min_samples_leaf: int, max_leaf_nodes: int) -> int:
    """The most nodes that a tree can have."""
    leaves = [max(1, num_rows // max(1, min_samples_leaf))]
    if 0 <= max_depth < 40:
        leaves.append(1 << max_depth)
    if max_leaf_nodes >= 0:
        leaves.append(max(1, max_leaf_nodes))
    return 2 * min(leaves) - 1


class Room:
    """Room for what the kernel grows, in one piece of memory: `addresses` of its parts, in the order of `Grow`.

    Args:
        number: T.
        capacity: nodes of a tree, at most.
        num_sums: S.
        num_rows: N where leaves are wanted, else 0.
        categories: whether there are subsets.
    """

    def __init__(self, number: int, capacity: int, num_sums: int, num_rows: int, categories: bool) -> None:
        narrow, wide = (-(-number * capacity * size // 8) * 8 for size in (4, 8))  # bytes
        sizes = {
            "num_nodes": number * 8, "sums": wide * num_sums, "gain": wide, "threshold": wide,
            "subset": 4 * wide if categories else 0, **dict.fromkeys(("feature", "code", "next_code"), narrow),
            "child": narrow, "depth": narrow, "leaf": -(-number * num_rows // 2) * 8,
            "missing_left": -(-number * capacity // 8) * 8,
        }  # fmt: skip
        self.memory = torch.empty(sum(sizes.values()) // 8, dtype=torch.int64)
        self.num_nodes = self.memory[:number]
        self.num_rows, self.categories = num_rows, categories
        ends = itertools.accumulate(sizes.values(), initial=self.memory.data_ptr())
        self.addresses = {name: at if sizes[name] else None for name, at in zip(sizes, ends, strict=False)}


def in_order(task: Grow, room: Room) -> Grown:
    """The nodes that were grown, in their final order, without the room behind them."""
    order = function("order_trees", Order)
    assert order is not None
    number, bins = int(room.num_nodes.sum()), task.width - 1 if room.categories else 0
    integers = [torch.empty(number, dtype=torch.int64) for _ in range(3)]
    reals = [torch.empty(number, dtype=torch.float64) for _ in range(2)]
    found = (
        torch.empty(task.num_trees, dtype=torch.int64), *integers, *reals, torch.empty(number, dtype=torch.bool),
        torch.empty(number, bins, dtype=torch.bool), torch.empty(number, task.num_sums, dtype=torch.int64),
        torch.empty((task.num_trees, room.num_rows) if room.num_rows else (0, 0), dtype=torch.int64),
    )  # fmt: skip
    order(Order(ctypes.pointer(task), *(address(column) for column in found)))
    return found  # type: ignore[return-value]


def joined(parts: list[Grown]) -> Grown:
    """Trees of several calls, one after the other."""
    starts = itertools.accumulate((len(part[1]) for part in parts), initial=0)
    shifted = [
        (root + start, feature, torch.where(left >= 0, left + start, -1), *rest[:-1], leaf + start)
        for start, (root, feature, left, *rest, leaf) in zip(starts, parts, strict=False)
    ]
    return tuple(torch.cat(columns) for columns in zip(*shifted, strict=True))  # type: ignore[return-value]
