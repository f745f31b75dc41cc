r"""LightGBM's text model, read and written.

A tree stands there as its inner nodes and its leaves, each numbered on its own; a child below zero is the leaf with the
inverted bits. `decision_type` says of a node, from the lowest bit on: whether it asks for categories, whether missing
values go left, and in two bits what is missing: nothing (then NaN is 0), zeros, or NaN. Categories that go left are the
bits of words; all others, unknown and missing ones too, go right.

Letters: T trees, M nodes, F features, K outputs.
Source: Ke et al., "LightGBM", 2017; the format is that of its version 4.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.trees.trees import Trees

__all__ = ["TextModel", "parse", "write"]

_OBJECTIVES = {  # the loss here, of those that predict in the same way
    "binary": "log_loss",
    "multiclass": "log_loss",
    "regression": "squared_error",
    "huber": "squared_error",
    "fair": "squared_error",
    "regression_l1": "absolute_error",
    "mape": "absolute_error",
    "quantile": "quantile",
    "poisson": "poisson",
    "tweedie": "poisson",
    "gamma": "gamma",
}
_NAMES = {
    "squared_error": "regression",
    "absolute_error": "regression_l1",
    "quantile": "quantile",
    "poisson": "poisson",
    "gamma": "gamma",
}
_CATEGORY, _LEFT, _ZERO, _NAN = 1, 2, 1 << 2, 2 << 2
_GREATEST = 1.7976931348623157e308


class TextModel(NamedTuple):
    """What a text model says: the trees of all rounds, K in each; the loss; K; the names of the features."""

    trees: Trees
    loss: str
    num_outputs: int
    feature_names: tuple[str, ...]


def parse(text: str) -> TextModel:
    """Return what a text model says.

    Args:
        text: as `Booster.model_to_string` returns it.

    Raises:
        ZooError: for what is no such text, or what there are no words for here: linear leaves, zeros that are missing
            values, and objectives that predict in other ways.
    """
    head, *blocks = re.split(r"^Tree=\d+\n", text.partition("\nend of trees")[0], flags=re.MULTILINE)
    header = _fields(head)
    if not head.startswith("tree\n") or "feature_names" not in header:
        raise ZooError("This is no text model of LightGBM: pass what Booster.save_model wrote.")
    objective, *options = header.get("objective", "regression").split()
    loss = _OBJECTIVES.get(objective)
    if loss is None or "sqrt" in options:
        raise ZooError(f"LightGBM's objective {' '.join([objective, *options])} predicts in a way that is not ours.")
    slope = next((float(option[8:]) for option in options if option.startswith("sigmoid:")), 1.0)
    names = tuple(header["feature_names"].split())
    number = int(header["num_tree_per_iteration"])
    factor = slope / (max(1, len(blocks) // number) if "average_output" in head.split("\n") else 1)
    parts = [_parse_tree(_fields(block)) for block in blocks]
    categories = _categories(parts, len(names))
    return TextModel(_joined(parts, categories, factor), loss, number, names)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.split("\n"))
    return {name: value for name, sign, value in pairs if sign}


class _Part(NamedTuple):
    """A tree: of inner nodes first, then of leaves."""

    feature: Tensor
    threshold: Tensor
    decision: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    gain: Tensor
    weight: Tensor
    num_rows: Tensor
    members: dict[int, Tensor]  # of the nodes that ask for categories: those that go left


def _parse_tree(fields: dict[str, str]) -> _Part:
    if fields.get("is_linear", "0") != "0":
        raise ZooError("Trees with linear leaves (linear_tree=true) cannot be read: train with linear_tree=false.")
    leaves = int(fields["num_leaves"])
    inner = leaves - 1

    def column(name: str, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
        values = [float(value) for value in fields.get(name, "").split()]
        return torch.tensor(values if len(values) == size else [0.0] * size, dtype=torch.float64).to(dtype)

    def both(kind: str) -> Tensor:
        return torch.cat([column(f"internal_{kind}", inner), column(f"leaf_{kind}", leaves)])

    def nodes(name: str) -> Tensor:  # leaves stand behind the inner nodes
        child = column(name, inner, torch.int64)
        return torch.where(child < 0, inner - 1 - child, child)

    decision = column("decision_type", inner, torch.int64)
    if bool((decision & _ZERO).any()):
        raise ZooError("Trees that take zeros for missing values (zero_as_missing=true) cannot be read.")
    threshold, members = column("threshold", inner), {}
    if int(fields.get("num_cat", 0)):
        bounds = [int(value) for value in fields["cat_boundaries"].split()]
        words = torch.tensor([int(value) for value in fields["cat_threshold"].split()])
        for node in (decision & _CATEGORY).nonzero()[:, 0].tolist():
            first, last = bounds[int(threshold[node])], bounds[int(threshold[node]) + 1]
            bits = (words[first:last].unsqueeze(1) >> torch.arange(32)) & 1
            members[node] = bits.flatten().nonzero()[:, 0].double()
    none = torch.full((leaves,), -1)
    return _Part(
        torch.cat([column("split_feature", inner, torch.int64), none]), torch.cat([threshold, none * 0.0]),
        torch.cat([decision, none * 0]), torch.cat([nodes("left_child"), none]),
        torch.cat([nodes("right_child"), none]), both("value"), torch.cat([column("split_gain", inner), none * 0.0]),
        both("weight"), both("count").long(), members,
    )  # fmt: skip


def _categories(parts: list[_Part], num_features: int) -> Tensor:
    """The categories that any node asks for, (F, B), NaN behind the last."""
    found: dict[int, list[Tensor]] = {}
    for part in parts:
        for node, members in part.members.items():
            found.setdefault(int(part.feature[node]), []).append(members)
    columns = {feature: torch.cat(members).unique() for feature, members in found.items()}
    table = torch.full((num_features if columns else 0, max(map(len, columns.values()), default=0)), torch.nan)
    table = table.double()
    for feature, members in columns.items():
        table[feature, : len(members)] = members
    return table


def _joined(parts: list[_Part], category: Tensor, factor: float) -> Trees:
    """All trees, one after the other, each level by level."""
    sizes = torch.tensor([len(part.left) for part in parts])
    starts = sizes.cumsum(0) - sizes
    columns = _Part._make([*(torch.cat(column) for column in list(zip(*parts, strict=True))[:-1]), {}])
    owner = torch.arange(len(parts)).repeat_interleave(sizes)
    left, right = (torch.where(c >= 0, c + starts[owner], -1) for c in (columns.left, columns.right))
    subset = torch.zeros(len(left), category.shape[1], dtype=torch.bool)
    for part, start in zip(parts, starts.tolist(), strict=True):
        for node, members in part.members.items():
            known = category[int(part.feature[node])]
            subset[start + node, torch.searchsorted(known.nan_to_num(nan=torch.inf), members)] = True
    is_category = (columns.decision & _CATEGORY) > 0
    threshold = columns.threshold.masked_fill(is_category, 0.0)
    no_missing = (columns.decision & _NAN) == 0  # NaN is 0
    missing_left = torch.where(no_missing, threshold >= 0, (columns.decision & _LEFT) > 0) & ~is_category & (left >= 0)
    order, depth = _levels(starts, left, right)
    place = torch.empty(len(order) + 1, dtype=torch.int64)
    place[order], place[-1] = torch.arange(len(order)), -1
    return Trees(
        root=starts, feature=columns.feature[order], threshold=threshold[order], missing_left=missing_left[order],
        left=place[left[order]], value=(columns.value * factor)[order].unsqueeze(1), gain=columns.gain[order],
        weight=columns.weight[order], num_rows=columns.num_rows[order], depth=depth, subset=subset[order],
        category=category,
    )  # fmt: skip


def _levels(root: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes tree by tree, level by level, children side by side; and their depths."""
    level, owner = root, torch.arange(len(root))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    while len(level):
        found.append((level, owner, torch.full_like(level, len(found))))
        inner = level[left[level] >= 0]
        owner = owner[left[level] >= 0].repeat_interleave(2)
        level = torch.stack([left[inner], right[inner]], dim=1).view(-1)
    order, owner, depth = (torch.cat(column) for column in zip(*found, strict=True))
    by_tree = owner.argsort(stable=True)
    return order[by_tree], depth[by_tree]


# -- writing -----------------------------------------------------------------------------------------------------------


def write(trees: Trees, start: Tensor, loss: str, feature_names: tuple[str, ...], quantile: float = 0.5) -> str:
    """Return trees as a text model.

    Args:
        trees: of all rounds, K in each, of one value a leaf.
        start: what the trees are added to, (K,).
        loss: as `zoo.models.trees.losses` names it.
        feature_names: a name for each feature.
        quantile: of the loss of that name.

    Raises:
        ZooError: for categories that are not integers of 0 or more, which are all that the format knows.
    """
    known = trees.category[~trees.category.isnan()]
    if bool(((known < 0) | (known != known.round()) | (known >= 1 << 31)).any()):
        raise ZooError("LightGBM's categories are integers of 0 or more, and some of these are not: number them anew.")
    number = len(start)
    objective = _NAMES.get(loss, "binary sigmoid:1" if number == 1 else f"multiclass num_class:{number}")
    blocks = []
    ends = [*trees.root[1:].tolist(), len(trees.feature)]
    for tree, (first, last) in enumerate(zip(trees.root.tolist(), ends, strict=True)):
        shift = float(start[tree % number]) if tree < number else 0.0
        blocks.append(f"Tree={tree}\n{_tree_text(trees, first, last, shift)}\n\n")
    names = [re.sub(r'[\s\[\]{}":,]', "_", name) for name in feature_names]
    head = [
        "tree", "version=v4", f"num_class={number}", f"num_tree_per_iteration={number}", "label_index=0",
        f"max_feature_idx={len(names) - 1}", f"objective={objective}",
        f"feature_names={' '.join(names)}", f"feature_infos={' '.join(_infos(trees, len(names)))}",
        f"tree_sizes={' '.join(str(len(block.encode())) for block in blocks)}",
    ]  # fmt: skip
    options = ["parameters:", f"[objective: {objective.split()[0]}]", f"[alpha: {quantile}]", "end of parameters"]
    return "\n".join([*head, "", "".join(blocks) + "end of trees", "", *options, "", "pandas_categorical:null", ""])


def _infos(trees: Trees, num_features: int) -> list[str]:
    infos = ["none"] * num_features
    for feature in trees.feature.unique().tolist():
        if feature < 0:
            continue
        if trees.category.shape[1] and not bool(trees.category[feature, 0].isnan()):
            known = trees.category[feature]
            infos[feature] = ":".join(str(int(value)) for value in known[~known.isnan()])
            continue
        threshold = trees.threshold[trees.feature == feature].clamp(-_GREATEST, _GREATEST)
        infos[feature] = f"[{float(threshold.min())!r}:{float(threshold.max())!r}]"
    return infos


def _tree_text(trees: Trees, first: int, last: int, shift: float) -> str:
    """One tree, whose nodes are [first, last)."""
    left = trees.left[first:last]
    is_leaf = left < 0
    inner, leaves = (~is_leaf).nonzero()[:, 0], is_leaf.nonzero()[:, 0]
    name = torch.where(is_leaf, -is_leaf.long().cumsum(0), (~is_leaf).long().cumsum(0) - 1)  # ~0 is −1, ~1 is −2, …
    child = (left[inner] - first).clamp_min(0)
    columns = {field: getattr(trees, field)[first:last] for field in ("feature", "threshold", "missing_left", "subset")}
    feature = columns["feature"][inner]
    is_category = torch.zeros_like(feature, dtype=torch.bool)
    if trees.category.shape[1]:
        is_category = ~trees.category[feature, 0].isnan()
    # Of categories the unknown and the missing go right: where they go left here, both sides change places.
    swapped = is_category & columns["missing_left"][inner]
    low, high = torch.where(swapped, child + 1, child), torch.where(swapped, child, child + 1)
    threshold = columns["threshold"][inner].clamp(-_GREATEST, _GREATEST)
    words, bounds = [], [0]
    for place in is_category.nonzero()[:, 0].tolist():
        known = trees.category[feature[place]]
        chosen = columns["subset"][inner[place]] ^ swapped[place]
        members = known[chosen & ~known.isnan()].long().tolist()
        bits = [0] * (max(members, default=0) // 32 + 1)
        for member in members:
            bits[member // 32] |= 1 << member % 32
        threshold[place] = len(bounds) - 1
        words += bits
        bounds.append(len(words))
    decision = torch.where(is_category, _CATEGORY, _NAN + _LEFT * columns["missing_left"][inner].long())
    value, weight, rows = trees.value[first:last, 0] + shift, trees.weight[first:last], trees.num_rows[first:last]
    lines = {
        "num_leaves": [len(leaves)], "num_cat": [len(bounds) - 1], "split_feature": feature.tolist(),
        "split_gain": trees.gain[first:last][inner].tolist(), "threshold": threshold.tolist(),
        "decision_type": decision.tolist(), "left_child": name[low].tolist(), "right_child": name[high].tolist(),
        "leaf_value": value[leaves].tolist(), "leaf_weight": weight[leaves].tolist(),
        "leaf_count": rows[leaves].tolist(), "internal_value": value[inner].tolist(),
        "internal_weight": weight[inner].tolist(), "internal_count": rows[inner].tolist(),
    }  # fmt: skip
    if words:
        lines |= {"cat_boundaries": bounds, "cat_threshold": words}
    lines |= {"is_linear": [0], "shrinkage": [1]}
    return "\n".join(f"{field}={' '.join(map(repr, values))}" for field, values in lines.items()) + "\n"
