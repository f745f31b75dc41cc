"""The leaf that each row comes to in each tree: an operator of `torch.library` over `leaves.c`.

Letters: T trees, N rows, F features, M nodes, E numbers that sparse rows store.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "find_leaves"]

_STEPS_FOR_THREADS = 1 << 18  # rows times trees

_INTEGERS, _POINTER = ctypes.c_int64, ctypes.c_void_p


class _Walk(ctypes.Structure):
    """`Walk` of leaves.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "num_trees", "num_nodes", "threads")),
        *((name, _POINTER) for name in ("x", "single", "starts", "columns", "values")),
        *((name, _POINTER) for name in ("root", "feature", "left", "threshold", "missing_left", "leaf")),
    ]


def available(x: Tensor) -> bool:
    """Return whether rows, or the numbers that sparse ones store, are walked by the kernel."""
    is_sparse = x.layout == torch.sparse_csr
    dtypes = (torch.float64,) if is_sparse else (torch.float64, torch.float32)
    return x.device.type == "cpu" and x.dtype in dtypes and function("find_leaves", _Walk) is not None


def _fake_leaves(x, starts, columns, num_features, root, feature, threshold, missing_left, left):  # type: ignore[no-untyped-def]
    return root.new_empty(len(root), len(x) if starts is None else len(starts) - 1)


@operator(_fake_leaves)
def find_leaves(
    x: Tensor, starts: Tensor | None, columns: Tensor | None, num_features: int, root: Tensor, feature: Tensor,
    threshold: Tensor, missing_left: Tensor, left: Tensor,
) -> Tensor:  # fmt: skip
    """Return the leaf that each row comes to in each tree, (T, N), int64.

    Args:
        x: rows (N, F), float64 or float32; of sparse rows what they store, (E,), float64. NaN is a missing value.
        starts: where the sparse rows begin, (N + 1,), int64; None for dense ones.
        columns: the feature of each number that they store, (E,), int64.
        num_features: F.
        root: of each tree, (T,), int64.
        feature: that a node asks about, (M,), int64.
        threshold: values up to it go left, (M,), float64.
        missing_left: whether missing values do, (M,), bool.
        left: the left child, −1 at a leaf; the right one stands behind it, (M,), int64.

    Raises:
        RuntimeError: for tensors of other types or shapes, numbers of features or nodes out of range, or where there
            is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run, number = function("find_leaves", _Walk), len(feature)
    _check(run is not None and x.device.type == "cpu", "there is no kernel for this device")
    is_sparse = starts is not None
    _check(x.dtype == torch.float64 or (x.dtype == torch.float32 and not is_sparse), "x must be float64 or float32")
    if starts is not None and columns is not None:
        fits = x.shape == columns.shape and starts.dtype == columns.dtype == torch.int64 and starts.ndim == 1
        _check(fits and _is_ascending(starts, len(x)) and _within(columns, 0, num_features), "these are no sparse rows")
    else:
        _check(starts is columns is None and x.ndim == 2 and x.shape[1] == num_features, "x must be (N, F)")
    for name, tensor, dtype in (
        ("feature", feature, torch.int64), ("left", left, torch.int64), ("threshold", threshold, torch.float64),
        ("missing_left", missing_left, torch.bool),
    ):  # fmt: skip
        _check(tensor.dtype == dtype and tensor.shape == (number,), f"{name} must be {dtype} of shape ({number},)")
    _check(number < 1 << 31 and num_features < 1 << 31, "too many nodes or features")
    _check(root.dtype == torch.int64 and root.ndim == 1 and _within(root, 0, number), "roots out of range")
    # Children stand behind their parents, so that every walk ends.
    inner = left >= 0
    ordered = bool(((left > torch.arange(number)) & (left < number - 1) | ~inner).all())
    _check(ordered and _within(feature[inner], 0, num_features), "nodes or features out of range")
    rows = len(x) if starts is None else len(starts) - 1
    arrays = {
        "x": None if is_sparse or x.dtype == torch.float32 else x, "single": x if x.dtype == torch.float32 else None,
        "starts": starts, "columns": columns, "values": x if is_sparse else None, "root": root, "feature": feature,
        "left": left, "threshold": threshold, "missing_left": missing_left,
    }  # fmt: skip
    dense = {name: None if tensor is None else tensor.contiguous() for name, tensor in arrays.items()}
    leaf = torch.empty(len(root), rows, dtype=torch.int64)
    threads = torch.get_num_threads() if rows * len(root) >= _STEPS_FOR_THREADS else 1
    if not num_features:  # so that nothing is asked
        return root.unsqueeze(1).repeat(1, rows)
    assert run is not None
    if leaf.numel():
        addresses = {name: None if tensor is None else tensor.data_ptr() for name, tensor in dense.items()}
        run(
            _Walk(
                num_rows=rows, num_features=num_features, num_trees=len(root), num_nodes=number, threads=threads,
                leaf=leaf.data_ptr(), **addresses,
            )
        )  # fmt: skip
    return leaf


def _check(fits: bool, wanted: str) -> None:
    if not fits:
        raise RuntimeError(f"zoo::find_leaves: {wanted}.")


def _within(values: Tensor, low: int, end: int) -> bool:
    """Whether integers lie in [low, end)."""
    if not values.numel():
        return True
    least, most = values.aminmax()
    return int(least) >= low and int(most) < end


def _is_ascending(starts: Tensor, end: int) -> bool:
    return int(starts[0]) == 0 and int(starts[-1]) == end and bool((starts.diff() >= 0).all())
