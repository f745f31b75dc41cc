"""Trees grown on coded rows in memory: an operator of `torch.library` over `trees.c` and `tree_order.c`.

`zoo::grow_trees` does node by node what `zoo.models.trees.in_memory.grow` does pass by pass in torch operations, bit
for bit; where there is no kernel (`available()`), that form is taken.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator
from zoo.kernels.tree_room import (
    ENTRIES,
    Grow,
    Order,
    Room,
    address,
    capacity_of,
    check,
    coded,
    in_order,
    joined,
    threads_of,
    within,
)

__all__ = ["CRITERIA", "ENTRIES", "available", "grow_trees"]

CRITERIA = ("gini", "entropy", "newton", "poisson", "absolute_error")
_NODES_AT_ONCE = 1 << 23  # of which memory is set aside, though little of it is written


def available(device: torch.device) -> bool:
    """Return whether trees on this device are grown by the kernel."""
    found = function("grow_trees", Grow), function("order_trees", Order)
    return device.type == "cpu" and None not in found


def _fake_trees(
    columns,
    rows,
    entries,
    lower,
    upper,
    weight,
    index,
    gradient,
    values,
    content,
    tree_key,
    poisson,
    path,
    monotone,
    categorical,
    num_sums,
    *rest,
):  # type: ignore[no-untyped-def]
    nodes = torch.library.get_ctx().new_dynamic_size()
    integers = [weight.new_empty(nodes) for _ in range(3)]
    reals = [lower.new_empty(nodes) for _ in range(2)]
    leaf = (len(path), len(weight)) if rest[-1] else (0, 0)
    bins = 0 if categorical is None else lower.shape[1]
    return (
        torch.empty_like(path), *integers, *reals, weight.new_empty(nodes, dtype=torch.bool),
        weight.new_empty(nodes, bins, dtype=torch.bool), weight.new_empty(nodes, num_sums), weight.new_empty(leaf),
    )  # fmt: skip


@operator(_fake_trees)
def grow_trees(
    columns: Tensor, rows: Tensor, entries: Sequence[Tensor], lower: Tensor, upper: Tensor, weight: Tensor,
    index: Tensor | None, gradient: Tensor | None, values: Tensor | None, content: Tensor | None,
    tree_key: Tensor | None, poisson: Tensor | None, path: Tensor, monotone: Tensor | None,
    categorical: Tensor | None, num_sums: int, criterion: int, count_bits: int,
    weight_unit: float, gradient_unit: float, l2: float, max_depth: int, min_samples_split: int, min_samples_leaf: int,
    max_leaf_nodes: int, max_features: int, random_thresholds: bool, min_weight_leaf: float, min_gain: float,
    leaves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Grow trees as `zoo.models.trees.in_memory.grow` does.

    Args:
        columns: codes column by column, (F, N), uint8 or int32; anything beside `entries`.
        rows: codes row by row, (N, F), uint8; anything for int32.
        entries: empty, or in place of them `ENTRIES` of `zoo.models.trees.sparse_codes.SparseCodes`; then no thresholds
            are drawn, no feature is categorical, and errors are not absolute.
        lower: smallest value of each bin, (F, W − 1), float64.
        upper: largest value of each bin.
        weight: of each row, in units, (N,), int64.
        index: the sum that each row's weight is added to, (N,), int64; None where it is the first.
        gradient: what is added to the other sums, (N, S − 1), int64; None with `index`.
        values: the target values that the sums are weights of, ascending, (S,), float64; for `absolute_error` alone.
        content: hashes of the rows by which they are drawn, (N,), int64; None to take each once.
        tree_key: keys of the trees' draws, (T,), int64.
        poisson: thresholds of the draws, (15,), int64.
        path: of the roots, (T,), int64.
        monotone: 1, −1 or 0 for each feature, (F,), int8.
        categorical: whether the values of each feature are categories, (F,), uint8, of codes that are uint8 too.
        num_sums: S.
        criterion: place in `CRITERIA`.
        count_bits: of a packed weight.
        weight_unit: a power of two, as is `gradient_unit`.
        gradient_unit: …
        l2: λ of `newton`.
        max_depth: as all that follow of `zoo.models.trees.nodes.Limits` and of `Rules`; −1 for no limit.
        min_samples_split: …
        min_samples_leaf: …
        max_leaf_nodes: −1 for no limit.
        max_features: …
        random_thresholds: …
        min_weight_leaf: …
        min_gain: …
        leaves: whether the leaf of each row is wanted.

    Returns:
        The root of each tree, (T,); of the nodes (M,), one tree after the other and each level by level: feature (−1 at
        a leaf), left child (−1 at a leaf, the right one stands behind it), depth, threshold, gain (0 at a leaf, as
        the threshold), whether missing values go left, whether each code of a categorical feature does (M, W − 1), or
        (M, 0) without any, sums (M, S); and the leaf of each row in each tree (T, N), or (0, 0).

    Raises:
        RuntimeError: for tensors of other types or shapes, codes or indices out of range, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("grow_trees", Grow) if columns.device.type == "cpu" else None
    _check(run is not None, "there is no kernel for this device")
    num_features, num_rows, num_trees, width = upper.shape[0], weight.shape[0], path.shape[0], upper.shape[1] + 1
    fits = num_rows < 1 << 31 and num_features > 0 and num_sums > 0 and num_trees > 0
    _check(fits, "too many rows, or nothing to grow")
    codes = coded("grow_trees", columns, rows, entries, lower, upper, categorical, num_rows)
    fits = not entries or (not random_thresholds and values is None)
    _check(fits, "entries have no categories, drawn thresholds or absolute errors")
    shapes = {
        "weight": (weight, (num_rows,)),
        "index": (index, (num_rows,)),
        "gradient": (gradient, (num_rows, num_sums - 1)),
        "content": (content, (num_rows,)),
        "tree_key": (tree_key, (num_trees,)),
        "poisson": (poisson, (15,)),
        "path": (path, (num_trees,)),
    }
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != shape):
            _check(False, f"{name} must be int64 of shape {shape}")
    _check((index is None) != (gradient is None), "one of index and gradient is needed")
    fits = (content is None) == (tree_key is None) == (poisson is None)
    _check(fits, "content, tree_key and poisson go together")
    fits = values is None or (values.dtype == torch.float64 and values.shape == (num_sums,) and index is not None)
    by_median = 0 <= criterion < len(CRITERIA) and CRITERIA[criterion] == "absolute_error"
    _check(fits and by_median == (values is not None), "values must be (S,), float64, of absolute_error")
    fits = not by_median or categorical is None
    _check(fits, "absolute_error has no order of categories")
    fits = monotone is None or (monotone.dtype == torch.int8 and monotone.shape == (num_features,))
    _check(fits, "monotone must be (F,), int8")
    _check(0 < max_features <= num_features and 0 <= criterion < len(CRITERIA), "max_features or criterion")
    _check(index is None or within(index, num_sums), "codes or index out of range")
    arrays = codes | {
        "index": None if index is None else index.int(), "weight": weight, "gradient": gradient, "values": values,
        "content": content, "poisson": poisson, "monotone": monotone,
    }  # fmt: skip
    dense = {name: None if t is None else t.contiguous() for name, t in arrays.items()}
    capacity = capacity_of(num_rows, max_depth, min_samples_leaf, max_leaf_nodes)
    inputs = {name: address(t) for name, t in dense.items()}
    found = []
    step, path = max(1, _NODES_AT_ONCE // capacity), path.contiguous()
    tree_key = None if tree_key is None else tree_key.contiguous()
    for start in range(0, num_trees, step):
        draws = path[start : start + step], None if tree_key is None else tree_key[start : start + step]
        number = draws[0].shape[0]
        room = Room(number, capacity, num_sums, num_rows if leaves else 0, categorical is not None)
        task = Grow(
            num_rows=num_rows,
            num_features=num_features,
            num_trees=number,
            num_sums=num_sums,
            width=width,
            threads=threads_of(num_rows * number),
            path=address(draws[0]),
            tree_key=address(draws[1]),
            criterion=criterion,
            count_bits=count_bits,
            weight_unit=weight_unit,
            gradient_unit=gradient_unit,
            l2=l2,
            max_depth=max_depth,
            min_samples_split=min_samples_split,
            min_samples_leaf=min_samples_leaf,
            max_leaf_nodes=max_leaf_nodes,
            max_features=max_features,
            random_thresholds=int(random_thresholds),
            min_weight_leaf=min_weight_leaf,
            min_gain=min_gain,
            capacity=capacity,
            **inputs,
            **room.addresses,
        )
        assert run is not None
        run(task)
        found.append(in_order(task, room))
    if len(found) == 1:
        return found[0]
    return joined(found)


def _check(fits: bool, wanted: str) -> None:
    check("grow_trees", fits, wanted)
