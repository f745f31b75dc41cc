"""Rounds of boosting: an operator of `torch.library` over `rounds.c`.

`zoo::boost_rounds` does what `zoo.models.trees.boosting` does round by round in torch operations, for the losses of
`zoo.kernels.boosting`, `log_loss` of any number of classes; where there is no kernel (`available(x)`), that form is
taken.

Letters: N rows, F features, W codes, K outputs, R rounds, T = R K trees, M nodes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
import torch.nn.functional
from torch import Tensor

from zoo.kernels import boosting, function, trees
from zoo.kernels.operators import operator
from zoo.kernels.tree_room import Grow, Room, address, capacity_of, check, coded, in_order, threads_of

__all__ = ["at_once", "available", "boost_rounds"]

_NODES_AT_ONCE = 1 << 19  # of which memory is set aside
_BLOCK = 1024  # rows, as in boosting.c

_INTEGERS, _NUMBER, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Round(ctypes.Structure):
    """`Round` of rounds.c."""

    _fields_ = [
        ("trees", ctypes.POINTER(Grow)),
        *((name, _INTEGERS) for name in ("first", "outputs", "loss")),
        ("learning_rate", _NUMBER),
        *((name, _POINTER) for name in ("mean", "y", "train", "weight", "held_out", "output", "units", "sums")),
        *((name, _POINTER) for name in ("fixed_weight", "fixed_gradient", "leaf", "largest", "value")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernel takes numbers of this type and device."""
    return boosting.available(x) and trees.available(x.device) and function("boost_round", _Round) is not None


def at_once(num_rows: int, outputs: int, max_depth: int, min_samples_leaf: int, max_leaf_nodes: int) -> int:
    """Return how many rounds there is room for in one call; −1 stands for no limit."""
    capacity = capacity_of(num_rows, max_depth, min_samples_leaf, max_leaf_nodes)
    return max(1, _NODES_AT_ONCE // (capacity * outputs))


def _fake_rounds(columns, rows, entries, lower, upper, categorical, loss, output, y, train, weight, held_out, path,
                 *rest):  # type: ignore[no-untyped-def]  # fmt: skip
    nodes, number = torch.library.get_ctx().new_dynamic_size(), len(path)
    integers = [path.new_empty(nodes) for _ in range(3)]
    reals = [lower.new_empty(nodes) for _ in range(2)]
    bins = 0 if categorical is None else lower.shape[1]
    return (
        torch.empty_like(output), lower.new_empty(number // output.shape[1], 2), lower.new_empty(number, 2),
        torch.empty_like(path), *integers, *reals, path.new_empty(nodes, dtype=torch.bool),
        path.new_empty(nodes, bins, dtype=torch.bool), path.new_empty(nodes, 2),
    )  # fmt: skip


@operator(_fake_rounds)
def boost_rounds(
    columns: Tensor, rows: Tensor, entries: Sequence[Tensor], lower: Tensor, upper: Tensor, categorical: Tensor | None,
    loss: int, output: Tensor, y: Tensor, train: Tensor, weight: Tensor, held_out: Tensor | None, path: Tensor,
    learning_rate: float, l2: float, max_depth: int, max_leaf_nodes: int, max_features: int, min_samples_leaf: int,
    min_weight_leaf: float, min_gain: float,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor
]:  # fmt: skip
    """Grow the trees of some rounds, one for each output in each.

    Args:
        columns: codes of the rows, as all up to `categorical` of `zoo.kernels.trees.grow_trees`.
        rows: …
        entries: …
        lower: …
        upper: …
        categorical: …
        loss: its place in `zoo.kernels.boosting.LOSSES`.
        output: before the rounds, (N, K), float64; K is 1 but for `log_loss` of more than two classes.
        y: targets, (N,), float64; of more than two classes their numbers.
        train: weights of the derivatives, (N,), float64; a row of weight 0 trains no tree.
        weight: of the losses, (N,), float64.
        held_out: the rows whose losses are added up apart, (N,), bool; None for none.
        path: of the roots, by which features are drawn, round by round, (T,), int64.
        learning_rate: what the values of the leaves are multiplied by.
        l2: λ, beside the sum of second derivatives.
        max_depth: as all that follow of `grow_trees`.
        max_leaf_nodes: …
        max_features: …
        min_samples_leaf: …
        min_weight_leaf: …
        min_gain: …

    Returns:
        The outputs after the rounds, (N, K); the sums of the losses of rows that train and of those held out after
        each, (R, 2); what is 1 of hessians and of gradients in each tree, (T, 2); and the trees, as `grow_trees`
        returns them, without leaves.

    Raises:
        RuntimeError: for tensors of other types or shapes, codes or classes out of range, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("boost_round", _Round) if available(output) else None
    _check(run is not None, "there is no kernel for these numbers")
    (num_rows, outputs), num_features, number = output.shape, len(upper), len(path)
    fits = 0 < num_rows < 1 << 31 and num_features > 0 and 0 < max_features <= num_features
    _check(fits, "no rows, too many of them, or nothing to split")
    fits = path.dtype == torch.int64 and path.ndim == 1 and number > 0 and number % outputs == 0
    _check(fits, "path must hold a number for each tree")
    _check(0 <= loss < len(boosting.LOSSES) and (outputs == 1 or loss == 0), "loss or number of outputs")
    for column in (y, train, weight):
        fits = column.dtype == torch.float64 and column.shape == (num_rows,) and column.device.type == "cpu"
        _check(fits, "targets and weights must be (N,), float64")
    fits = held_out is None or (held_out.dtype == torch.bool and held_out.shape == (num_rows,))
    _check(fits, "held_out must be (N,), bool")
    classes = y.long()
    _check(outputs == 1 or (int(classes.amin()) >= 0 and int(classes.amax()) < outputs), "classes out of range")
    codes = coded("boost_rounds", columns, rows, entries, lower, upper, categorical, num_rows)
    kept = {name: None if t is None else t.contiguous() for name, t in codes.items()}
    path, train, weight = path.contiguous(), train.contiguous(), weight.contiguous()
    held_out = None if held_out is None else held_out.contiguous()
    output = output.clone(memory_format=torch.contiguous_format)
    targets = torch.nn.functional.one_hot(classes, outputs).T.double() if outputs > 1 else y
    targets = targets.contiguous()

    capacity = capacity_of(num_rows, max_depth, min_samples_leaf, max_leaf_nodes)
    room, threads = Room(number, capacity, 2, 0, categorical is not None), threads_of(num_rows)
    leaf = torch.empty(num_rows, dtype=torch.int32)
    task = Grow(
        num_rows=num_rows, num_features=num_features, num_trees=number, num_sums=2, width=upper.shape[1] + 1,
        threads=threads, path=address(path), criterion=trees.CRITERIA.index("newton"),
        count_bits=max(1, num_rows.bit_length()), l2=l2, max_depth=max_depth, min_samples_split=2,
        min_samples_leaf=min_samples_leaf, max_leaf_nodes=max_leaf_nodes, max_features=max_features,
        min_weight_leaf=min_weight_leaf, min_gain=min_gain, capacity=capacity,
        **{name: address(t) for name, t in kept.items()}, **(room.addresses | {"leaf": leaf.data_ptr()}),
    )  # fmt: skip
    units = torch.empty(number, 2, dtype=torch.float64)
    sums = torch.empty(-(-num_rows // _BLOCK), 2, dtype=torch.float64)
    integers = torch.empty(3, num_rows, dtype=torch.int64)
    largest, value = torch.empty(threads, 2, dtype=torch.float64), torch.empty(capacity, dtype=torch.float64)
    step = _Round(
        ctypes.pointer(task), 0, outputs, loss, learning_rate, None, targets.data_ptr(), train.data_ptr(),
        weight.data_ptr(), None if held_out is None else held_out.data_ptr(), output.data_ptr(), units.data_ptr(),
        sums.data_ptr(), *(column.data_ptr() for column in integers), largest.data_ptr(), value.data_ptr(),
    )  # fmt: skip
    losses = torch.empty(number // outputs, 2, dtype=torch.float64)
    for turn, both in enumerate(losses):
        mean = _means(loss, output)
        step.first, step.mean = turn * outputs, mean.data_ptr()
        assert run is not None
        run(step)
        torch.sum(sums if outputs == 1 else _losses(output, classes, weight, held_out), 0, out=both)
    task.leaf = None
    return output, losses, units, *in_order(task, room)[:-1]


def _means(loss: int, output: Tensor) -> Tensor:
    """What outputs (N, K) predict, (K, N)."""
    if boosting.LOSSES[loss] != "log_loss":
        return output
    return output[:, 0].sigmoid() if output.shape[1] == 1 else output.softmax(1).T.contiguous()


def _losses(output: Tensor, classes: Tensor, weight: Tensor, held_out: Tensor | None) -> Tensor:
    """The losses of more than two classes, those of rows held out apart, (1, 2)."""
    each = torch.nn.functional.cross_entropy(output, classes, reduction="none") * weight
    if held_out is None:
        return torch.stack([each.sum(), each.new_zeros(())]).unsqueeze(0)
    return torch.stack([each[~held_out].sum(), each[held_out].sum()]).unsqueeze(0)


def _check(fits: bool, wanted: str) -> None:
    check("boost_rounds", fits, wanted)
