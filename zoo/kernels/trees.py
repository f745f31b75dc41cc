"""Trees grown on coded rows in memory, and the codes of rows: operators of `torch.library` over the C files.

`zoo::grow_trees` does node by node what `zoo.models.trees.in_memory.grow` does pass by pass in torch operations, bit
for bit; where there is no kernel (`available()`), that form is taken. `zoo::encode_rows` has its torch form here.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["CRITERIA", "ENTRIES", "available", "encode_rows", "grow_trees"]

CRITERIA = ("gini", "entropy", "newton", "poisson", "absolute_error")
ENTRIES = (  # what rows store whose codes are mostly those of 0
    "row_starts", "row_features", "row_codes", "column_starts", "column_rows", "column_codes", "zero_code",
)  # fmt: skip
_NODES_AT_ONCE = 1 << 23  # of which memory is set aside, though little of it is written
_ROWS_FOR_THREADS = 10_000

_INTEGERS, _REALS, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Grow(ctypes.Structure):
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


class _Encode(ctypes.Structure):
    """`Encode` of codes.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "num_edges", "missing", "threads")),
        *((name, _POINTER) for name in ("x", "edges", "count", "narrow", "narrow_rows", "wide")),
    ]


def available(device: torch.device) -> bool:
    """Return whether trees on this device are grown by the kernel."""
    return device.type == "cpu" and function("grow_trees", _Grow) is not None


# -- codes of values ---------------------------------------------------------------------------------------------------


def _fake_codes(x: Tensor, edges: Tensor, count: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    dtype = torch.uint8 if missing < 256 else torch.int32
    rows = x.new_empty(x.shape if dtype == torch.uint8 else (0, 0), dtype=dtype)
    return x.new_empty(x.shape[1], x.shape[0], dtype=dtype), rows


@operator(_fake_codes)
def encode_rows(x: Tensor, edges: Tensor, count: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    """Return the codes of rows: how many edges are below each value, `missing` for NaN.

    Args:
        x: rows, (N, F), float64.
        edges: upper ends of the bins, (F, E), float64, ascending, +∞ behind the last.
        count: how many edges each feature has, (F,), int64.
        missing: the code of missing values, at least E.

    Returns:
        Codes column by column (F, N) and row by row (N, F), uint8; of more than 256 codes int32, and none row by row
        (0, 0).

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    _check(x.dtype == edges.dtype == torch.float64, "encode_rows", "x and edges must be float64")
    _check(
        x.ndim == 2 and edges.ndim == 2 and len(edges) == x.shape[1], "encode_rows", "edges must be (F, E) for x (N, F)"
    )
    _check(count.shape == edges.shape[:1] and count.dtype == torch.int64, "encode_rows", "count must be (F,), int64")
    in_range = not len(count) or (int(count.min()) >= 0 and int(count.max()) <= edges.shape[1])
    _check(in_range and missing >= edges.shape[1], "encode_rows", "count and missing must fit the edges")
    dtype = torch.uint8 if missing < 256 else torch.int32
    run = function("encode_rows", _Encode) if x.device.type == "cpu" else None
    if run is None:
        columns = torch.searchsorted(edges.contiguous(), x.T.contiguous(), out_int32=True)
        columns = columns.masked_fill_(x.T.isnan(), missing).to(dtype)
        return columns, columns.T.clone(
            memory_format=torch.contiguous_format
        ) if dtype == torch.uint8 else columns.new_empty(0, 0)
    (num_rows, num_features), x, edges, count = x.shape, x.contiguous(), edges.contiguous(), count.contiguous()
    columns = torch.empty(num_features, num_rows, dtype=dtype)
    rows = torch.empty(num_rows, num_features, dtype=dtype) if dtype == torch.uint8 else columns.new_empty(0, 0)
    narrow = {"narrow": columns.data_ptr(), "narrow_rows": rows.data_ptr()}
    run(
        _Encode(
            num_rows=num_rows, num_features=num_features, num_edges=edges.shape[1], missing=missing,
            threads=_threads(num_rows), x=x.data_ptr(), edges=edges.data_ptr(), count=count.data_ptr(),
            **(narrow if dtype == torch.uint8 else {"wide": columns.data_ptr()}),
        )
    )  # fmt: skip
    return columns, rows


# -- trees -------------------------------------------------------------------------------------------------------------


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
    integers = [weight.new_empty(nodes, dtype=torch.int32) for _ in range(5)]
    reals = [lower.new_empty(nodes) for _ in range(2)]
    leaf = (len(path), len(weight)) if rest[-1] else (0, 0)
    return (
        weight.new_empty(len(path) + 1), *integers, weight.new_empty(nodes, dtype=torch.uint8),
        weight.new_empty(nodes, 0 if categorical is None else 4), *reals,
        weight.new_empty(nodes, num_sums), weight.new_empty(leaf, dtype=torch.int32),
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
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
        Where each tree begins (T + 1,); of the nodes (M,), one tree after the other: feature (−1 at a leaf), last code
        that goes left, first code that goes right (−1 where missing values alone do), left child (the right one stands
        behind it), depth, whether missing values go left, the codes of categories that go left as bits of
        four words (M, 4), int64, or (M, 0) without categorical features, gain, threshold (NaN where the middle of both
        codes is meant), sums (M, S); and the leaf of each row in each tree (T, N), or (0, 0).

    Raises:
        RuntimeError: for tensors of other types or shapes, codes or indices out of range, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("grow_trees", _Grow)
    num_features, num_rows, width = len(upper), len(weight), upper.shape[1] + 1
    is_sparse = len(entries) > 0
    is_narrow = columns.dtype == torch.uint8 and not is_sparse
    _check(run is not None and columns.device.type == "cpu", "grow_trees", "there is no kernel for this device")
    if is_sparse:
        _check_entries(entries, num_rows, num_features, width)
        known = categorical is None and not random_thresholds and values is None
        _check(known, "grow_trees", "entries have no categories, drawn thresholds or absolute errors")
    else:
        _check(columns.dtype in (torch.uint8, torch.int32), "grow_trees", "codes must be uint8 or int32")
        _check(columns.shape == (num_features, num_rows), "grow_trees", "columns must be (F, N)")
        _check(_within(columns, width), "grow_trees", "codes or index out of range")
    _check(
        not is_narrow or (rows.dtype == torch.uint8 and rows.shape == (num_rows, num_features)),
        "grow_trees",
        "rows must be (N, F)",
    )
    _check(num_rows < 1 << 31 and num_features > 0 and num_sums > 0, "grow_trees", "too many rows, or nothing to split")
    _check(lower.shape == upper.shape == (num_features, width - 1), "grow_trees", "lower and upper must be (F, W − 1)")
    _check(lower.dtype == upper.dtype == torch.float64, "grow_trees", "lower and upper must be float64")
    shapes = {
        "weight": (weight, (num_rows,)),
        "index": (index, (num_rows,)),
        "gradient": (gradient, (num_rows, num_sums - 1)),
        "content": (content, (num_rows,)),
        "tree_key": (tree_key, tuple(path.shape)),
        "poisson": (poisson, (15,)),
        "path": (path, (len(path),)),
    }
    for name, (tensor, shape) in shapes.items():
        fits = tensor is None or (tensor.dtype == torch.int64 and tuple(tensor.shape) == shape)
        _check(fits, "grow_trees", f"{name} must be int64 of shape {shape}")
    _check((index is None) != (gradient is None), "grow_trees", "one of index and gradient is needed")
    _check(
        (content is None) == (tree_key is None) == (poisson is None),
        "grow_trees",
        "content, tree_key and poisson go together",
    )
    fits = values is None or (values.dtype == torch.float64 and values.shape == (num_sums,) and index is not None)
    by_median = 0 <= criterion < len(CRITERIA) and CRITERIA[criterion] == "absolute_error"
    _check(fits and by_median == (values is not None), "grow_trees", "values must be (S,), float64, of absolute_error")
    fits = not by_median or categorical is None
    _check(fits, "grow_trees", "absolute_error has no order of categories")
    fits = monotone is None or (monotone.dtype == torch.int8 and monotone.shape == (num_features,))
    _check(fits, "grow_trees", "monotone must be (F,), int8")
    fits = categorical is None or (categorical.dtype == torch.uint8 and categorical.shape == (num_features,))
    _check(fits and (categorical is None or is_narrow), "grow_trees", "categorical must be (F,), uint8, of uint8 codes")
    _check(
        0 < max_features <= num_features and 0 <= criterion < len(CRITERIA), "grow_trees", "max_features or criterion"
    )
    _check(index is None or _within(index, num_sums), "grow_trees", "codes or index out of range")
    arrays = {
        "narrow": columns if is_narrow else None, "narrow_rows": rows if is_narrow else None,
        "wide": None if is_narrow or is_sparse else columns, **dict(zip(ENTRIES, entries, strict=False)),
        "lower": lower, "upper": upper,
        "index": None if index is None else index.int(), "weight": weight, "gradient": gradient, "values": values,
        "content": content,
        "poisson": poisson, "monotone": monotone, "categorical": categorical,
    }  # fmt: skip
    dense = {name: None if t is None else t.contiguous() for name, t in arrays.items()}
    capacity = _capacity(num_rows, max_depth, min_samples_leaf, max_leaf_nodes)
    found = []
    for trees in torch.arange(len(path)).split(max(1, _NODES_AT_ONCE // capacity)):
        mine = dense | {"path": path[trees], "tree_key": None if tree_key is None else tree_key[trees]}
        result = _results(len(trees), capacity, num_sums, num_rows if leaves else 0, categorical is not None)
        assert run is not None
        run(
            _Grow(
                num_rows=num_rows,
                num_features=num_features,
                num_trees=len(trees),
                num_sums=num_sums,
                width=width,
                threads=_threads(num_rows * len(trees)),
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
                **{name: _address(t) for name, t in (mine | result).items()},
            )
        )
        found.append(_compact(result))
    if len(found) == 1:
        return found[0]  # type: ignore[return-value]
    if not found:
        found.append(_compact(_results(0, 0, num_sums, num_rows if leaves else 0, categorical is not None)))
    starts = [found[0][0]]
    for part in found[1:]:
        starts.append(part[0][1:] + starts[-1][-1])
    start, *columns_of_all = torch.cat(starts), *(torch.cat(column) for column in list(zip(*found, strict=True))[1:])
    return start, *columns_of_all  # type: ignore[return-value]


def _check_entries(entries: Sequence[Tensor], num_rows: int, num_features: int, width: int) -> None:
    """Raise unless these are what rows store, both ways."""
    _check(len(entries) == len(ENTRIES), "grow_trees", f"entries must be {', '.join(ENTRIES)}")
    row_starts, row_features, row_codes, column_starts, column_rows, column_codes, zero_code = entries
    for starts, number, places, end, codes in (
        (row_starts, num_rows, row_features, num_features, row_codes),
        (column_starts, num_features, column_rows, num_rows, column_codes),
    ):
        fits = starts.shape == (number + 1,) and starts.dtype == torch.int64 and places.shape == codes.shape
        fits = fits and places.dtype == codes.dtype == torch.int32 and len(places) == len(row_features)
        fits = fits and int(starts[0]) == 0 and int(starts[-1]) == len(places) and bool((starts.diff() >= 0).all())
        fits = fits and _within(places, end) and _within(codes, width)
        _check(fits, "grow_trees", "these are no entries")
    fits = zero_code.shape == (num_features,) and zero_code.dtype == torch.int32
    _check(fits and _within(zero_code + 1, width), "grow_trees", "zero_code must be (F,), int32")


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None or not tensor.shape[-1] else tensor.data_ptr()


def _check(fits: bool, operator: str, wanted: str) -> None:
    if not fits:
        raise RuntimeError(f"zoo::{operator}: {wanted}.")


def _within(values: Tensor, end: int) -> bool:
    """Whether integers lie in [0, end)."""
    if not values.numel() or (values.dtype == torch.uint8 and end > 255):
        return True
    low, high = values.aminmax()
    return int(low) >= 0 and int(high) < end


def _threads(num_rows: int) -> int:
    return torch.get_num_threads() if num_rows >= _ROWS_FOR_THREADS else 1


def _capacity(num_rows: int, max_depth: int, min_samples_leaf: int, max_leaf_nodes: int) -> int:
    """The most nodes that a tree can have."""
    leaves = [max(1, num_rows // max(1, min_samples_leaf))]
    if 0 <= max_depth < 40:
        leaves.append(1 << max_depth)
    if max_leaf_nodes >= 0:
        leaves.append(max(1, max_leaf_nodes))
    return 2 * min(leaves) - 1


def _results(number: int, capacity: int, num_sums: int, num_rows: int, categories: bool) -> dict[str, Tensor]:
    """Room for what the kernel finds; leaves only where the number of rows is given, subsets where asked for."""
    integers = ("feature", "code", "next_code", "child", "depth")
    return {
        "num_nodes": torch.zeros(number, dtype=torch.int64),
        **{name: torch.empty(number, capacity, dtype=torch.int32) for name in integers},
        "missing_left": torch.empty(number, capacity, dtype=torch.uint8),
        "subset": torch.empty(number, capacity, 4 if categories else 0, dtype=torch.int64),
        "gain": torch.empty(number, capacity, dtype=torch.float64),
        "threshold": torch.empty(number, capacity, dtype=torch.float64),
        "sums": torch.empty(number, capacity, num_sums, dtype=torch.int64),
        **({"leaf": torch.full((number, num_rows), -1, dtype=torch.int32)} if num_rows else {}),
    }


def _compact(result: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The nodes that were grown, without the room behind them."""
    number, leaf = result["num_nodes"], result.get("leaf", torch.empty(0, 0, dtype=torch.int32))
    columns = []
    if len(number) == 1:
        (count,) = number.tolist()
        columns = [values[0, :count].clone() for name, values in result.items() if name not in ("num_nodes", "leaf")]
        return torch.cat([number.new_zeros(1), number]), *columns, leaf
    for name, values in result.items():
        if name not in ("num_nodes", "leaf"):
            parts = [values[tree, :count] for tree, count in enumerate(number.tolist())]
            columns.append(torch.cat([values.new_empty(0, *values.shape[2:]), *parts]))
    return torch.cat([number.new_zeros(1), number.cumsum(0)]), *columns, leaf
