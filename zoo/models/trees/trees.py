r"""Grown trees: what a row's turns lead to, what the features contributed, and which branches are worth their leaves.

Letters: T trees, M nodes, N rows, F features, V values of a leaf, W codes.
Source: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984, ch. 3 (pruning), §5.3
    (importance).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import leaves as kernel
from zoo.models.trees.bins import Bins
from zoo.models.trees.nodes import Nodes
from zoo.models.trees.splits import Rules
from zoo.numerics.sparse import is_sparse, stored, take_rows

__all__ = [
    "Trees", "categories", "clipped", "find_leaves", "first_trees", "importances", "in_order", "joined", "pruned",
    "trees_of",
]  # fmt: skip


class Trees(NamedTuple):
    """T trees, one after the other, each level by level; the right child of a node stands after the left one.

    Attributes:
        root: the root of each tree, (T,).
        feature: that a node asks about, (M,); −1 at a leaf.
        threshold: rows with values up to it go left, (M,).
        missing_left: whether missing values go left, (M,).
        left: the left child, (M,); −1 at a leaf.
        value: class shares (M, C) or values (M, K), of leaves and inner nodes alike.
        gain: what the split gained, (M,).
        weight: of the training rows in the node, (M,).
        num_rows: number of training rows, (M,).
        depth: (M,).
        subset: whether each category goes left, (M, B); (M, 0) without categorical features.
        category: the categories, (F, B), ascending, NaN behind the last; (F, 0) without.
    """

    root: Tensor
    feature: Tensor
    threshold: Tensor
    missing_left: Tensor
    left: Tensor
    value: Tensor
    gain: Tensor
    weight: Tensor
    num_rows: Tensor
    depth: Tensor
    subset: Tensor
    category: Tensor

    @property
    def max_depth(self) -> int:
        """The depth of the deepest leaf."""
        return int(self.depth.max()) if len(self.depth) else 0

    @property
    def num_leaves(self) -> int:
        """The number of leaves, of all trees."""
        return int((self.feature < 0).sum())


_NUMBERS_AT_ONCE = 1 << 22  # of sparse rows that get their zeros

_PER_NODE = ("feature", "threshold", "missing_left", "value", "gain", "weight", "num_rows", "depth", "subset")


def trees_of(
    nodes: Nodes, num_trees: int, rules: Rules, bins: Bins, leaf: Tensor | None = None
) -> tuple[Trees, Tensor]:
    """Return grown nodes as trees, and the leaf of each row in each tree among their nodes, (T, N).

    Args:
        nodes: of all trees, roots first.
        num_trees: T.
        rules: by which they grew.
        bins: of the features.
        leaf: of each row in each tree, among `nodes`, (T, N); None for none.
    """
    inner = nodes.child >= 0
    value, weight, num_rows = rules.criterion.leaves(nodes.sums)
    trees = Trees(
        root=torch.arange(num_trees, device=nodes.child.device),
        feature=torch.where(inner, nodes.feature, -1),
        threshold=torch.where(inner, nodes.threshold, 0.0),
        missing_left=inner & nodes.missing_left,
        left=nodes.child,
        value=value,
        gain=torch.where(inner, nodes.gain, 0.0),
        weight=weight,
        num_rows=num_rows,
        depth=nodes.depth,
        subset=inner.unsqueeze(1) & nodes.subset[:, :-1],
        category=categories(bins, rules.categorical),
    )
    order, place = _levels(trees)
    trees = clipped(_taken(trees, order, place), rules.monotone)
    return trees, place[:0].view(0, 0) if leaf is None else place[leaf]


def categories(bins: Bins, categorical: tuple[int, ...]) -> Tensor:
    """Return the categories of the features, (F, B), ascending, NaN behind the last; (F, 0) without any."""
    if not categorical:
        return bins.upper.new_empty(len(bins.number), 0)
    features = list(categorical)
    category = torch.full_like(bins.upper[:, : bins.missing], torch.nan)
    known = bins.upper[features]
    category[features] = torch.where(known.isnan(), torch.nan, known)  # one kind of NaN, so that bits compare
    return category


def clipped(trees: Trees, monotone: tuple[int, ...] | None) -> Trees:
    """Return trees whose predictions are between those of the branches that a monotone feature parted.

    Args:
        trees: the trees.
        monotone: for each feature 1, −1 or 0; None changes nothing.
    """
    if monotone is None:
        return trees
    value = trees.value.clone()
    last = trees.value[:, -1]
    low, high = torch.full_like(last, -torch.inf), torch.full_like(last, torch.inf)
    signs = torch.tensor(monotone, device=value.device)
    for depth in range(trees.max_depth):
        node = ((trees.depth == depth) & (trees.left >= 0)).nonzero()[:, 0]
        left, sign = trees.left[node], signs[trees.feature[node]]
        middle = (last[left] + last[left + 1]) / 2
        for side, upper in ((left, sign < 0), (left + 1, sign > 0)):
            low[side] = torch.where(upper, middle, low[node])
            high[side] = torch.where(~upper & (sign != 0), middle, high[node])
    value[:, -1] = last.clamp(low, high)
    if value.shape[1] == 2:  # shares of two classes
        value[:, 0] = 1 - value[:, 1]
    return trees._replace(value=value)


def in_order(trees: Trees) -> Trees:
    """Return the nodes that can be reached, tree by tree, level by level, from left to right."""
    return _taken(trees, *_levels(trees))


def _levels(trees: Trees) -> tuple[Tensor, Tensor]:
    """The nodes that can be reached, in their order, and the place of each node in it, −1 of the others and at the
    end."""
    level, owner = trees.root, torch.arange(len(trees.root), device=trees.root.device)
    levels, owners = [], []
    while len(level):
        levels.append(level)
        owners.append(owner)
        inner = trees.left[level] >= 0
        level = (trees.left[level[inner]].unsqueeze(1) + torch.arange(2, device=level.device)).view(-1)
        owner = owner[inner].repeat_interleave(2)
    order, owner = torch.cat(levels), torch.cat(owners)
    order = order[owner.argsort(stable=True)]
    place = order.new_full((len(trees.left) + 1,), -1)  # the last one stands for "none"
    place[order] = torch.arange(len(order), device=order.device)
    return order, place


def _taken(trees: Trees, order: Tensor, place: Tensor) -> Trees:
    """The nodes of trees in an order, in which each comes to its place."""
    return trees._replace(
        root=place[trees.root],
        left=place[trees.left[order]],
        **{name: getattr(trees, name)[order] for name in _PER_NODE},
    )


def joined(parts: list[Trees]) -> Trees:
    """Return trees of one value a leaf, one after the other; of none an empty list of trees."""
    if not parts:
        long, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
        return Trees(
            root=long,
            feature=long,
            threshold=real,
            missing_left=long.bool(),
            left=long,
            value=real.view(0, 1),
            gain=real,
            weight=real,
            num_rows=long,
            depth=long,
            subset=torch.zeros(0, 0, dtype=torch.bool),
            category=real.view(0, 0),
        )
    if len(parts) == 1:
        return parts[0]
    parts = _of_same_categories(parts)
    sizes = [len(part.feature) for part in parts]
    shifted = [
        part._replace(root=part.root + start, left=torch.where(part.left >= 0, part.left + start, -1))
        for part, start in zip(parts, itertools.accumulate(sizes, initial=0), strict=False)
    ]
    columns = {name: torch.cat([getattr(part, name) for part in shifted]) for name in ("root", "left", *_PER_NODE)}
    return Trees(**columns, category=parts[0].category)


def first_trees(trees: Trees, number: int) -> Trees:
    """Return the first trees of many that stand one after the other."""
    if number >= len(trees.root):
        return trees
    end = int(trees.root[number])
    columns = {name: getattr(trees, name)[:end].clone() for name in ("left", *_PER_NODE)}
    return trees._replace(root=trees.root[:number].clone(), **columns)


def _of_same_categories(parts: list[Trees]) -> list[Trees]:
    """The same trees, whose subsets are of the categories of all."""
    first = parts[0].category
    if all(torch.equal(part.category.nan_to_num(), first.nan_to_num()) for part in parts):
        return parts
    columns = [torch.cat([part.category[f] for part in parts]).unique() for f in range(len(first))]
    columns = [column[~column.isnan()] for column in columns]
    category = first.new_full((len(first), max(len(column) for column in columns)), torch.nan)
    for feature, column in enumerate(columns):
        category[feature, : len(column)] = column
    found = []
    for part in parts:
        subset = part.subset.new_zeros(len(part.feature), category.shape[1])
        for feature, column in enumerate(columns):
            mine = part.category[feature][~part.category[feature].isnan()]
            nodes = (part.feature == feature).nonzero()[:, 0]
            # a category that the tree did not meet goes the way of missing values
            subset[nodes] = part.missing_left[nodes].unsqueeze(1) & (torch.arange(category.shape[1]) < len(column))
            subset[nodes.unsqueeze(1), torch.searchsorted(column, mine)] = part.subset[nodes, : len(mine)]
        found.append(part._replace(subset=subset, category=category))
    return found


def find_leaves(trees: Trees, x: Tensor, turns: int | None = None) -> Tensor:
    """Return the leaf that each row x (N, F), dense or sparse, comes to in each tree, (T, N); NaN is missing.

    Args:
        trees: the trees.
        x: the rows.
        turns: depth of the deepest leaf, for a trace, which cannot look it up.
    """
    if torch.compiler.is_exporting() and turns is not None:
        return _walk(trees, x, turns)
    if not trees.category.shape[1] and kernel.available(x):
        starts, columns = (x.crow_indices(), x.col_indices()) if is_sparse(x) else (None, None)
        questions = trees.root, trees.feature, trees.threshold, trees.missing_left, trees.left
        return kernel.find_leaves(stored(x), starts, columns, x.shape[1], *questions)
    if is_sparse(x):
        parts = torch.arange(len(x), device=x.device).split(max(1, _NUMBERS_AT_ONCE // max(1, x.shape[1])))
        return torch.cat([_walk(trees, take_rows(x, part).to_dense()) for part in parts], dim=1)
    return _walk(trees, x)


def _walk(trees: Trees, x: Tensor, turns: int | None = None) -> Tensor:
    """The same of dense rows, in torch operations."""
    at = trees.root.unsqueeze(1).expand(-1, x.shape[0]).contiguous()
    row = torch.arange(x.shape[0], device=x.device)
    if trees.category.shape[1]:
        rank, unknown = _ranks(trees.category, x)
        is_category = ~trees.category[:, 0].isnan()
    for _ in itertools.count() if turns is None else range(turns):
        left = trees.left[at]
        inner = left >= 0
        if turns is None and not bool(inner.any()):
            break
        feature = trees.feature[at].clamp_min(0)
        value = x[row, feature].to(trees.threshold.dtype)
        turn, missing = value <= trees.threshold[at], value.isnan()
        if trees.category.shape[1]:
            turn = _chosen(is_category[feature], trees.subset[at, rank[row, feature]], turn)
            missing = missing | unknown[row, feature]
        turn = _chosen(missing, trees.missing_left[at], turn)
        at = torch.where(inner, left + (~turn).long(), at)
    return at


def _chosen(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`torch.where` of booleans, which few runtimes have."""
    return (which & one) | (~which & other)


def _ranks(category: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each value among its feature's categories, and whether it is none of them, (N, F)."""
    ascending = category.nan_to_num(nan=torch.inf)
    value = x.to(category.dtype).T.contiguous()
    rank = torch.searchsorted(ascending, value).clamp_max(category.shape[1] - 1)
    unknown = (category.gather(1, rank) != value) & ~category[:, :1].isnan()
    return rank.T, unknown.T


def importances(trees: Trees, num_features: int) -> Tensor:
    """Return the share of each feature in the gains, (F,), the mean over trees; zeros where nothing was gained."""
    feature = trees.feature.clamp_min(0)  # leaves, which gain 0, stand with the first one
    if len(trees.root) == 1:
        gain = torch.bincount(feature, trees.gain, num_features)
        whole = float(gain.sum())
        return gain / whole if whole > 0 else gain
    tree = torch.searchsorted(trees.root, torch.arange(len(feature), device=feature.device), right=True) - 1
    cells = len(trees.root) * num_features
    gain = torch.bincount(tree * num_features + feature, trees.gain, cells).view(-1, num_features)
    total = gain.sum(1, keepdim=True)
    share = gain / torch.where(total > 0, total, 1.0)
    return share.sum(0) / (total > 0).sum().clamp_min(1)


def pruned(trees: Trees, alpha: float) -> Trees:
    r"""Return the smallest subtrees that minimize $R(T) + \alpha |T|$, with R the mean impurity of leaves, |T| their
    number.

    A branch is worth its leaves if they lower the impurity by more than α for each that is more than one: from the
    leaves up, a node keeps what its children are worth, less α.
    """
    worth = torch.zeros_like(trees.gain)  # by how much the best subtree of a node is better than a leaf
    total = trees.weight[trees.root][torch.searchsorted(trees.root, torch.arange(len(worth)), right=True) - 1]
    left = trees.left.clone()
    for depth in range(trees.max_depth - 1, -1, -1):
        node = ((trees.depth == depth) & (trees.left >= 0)).nonzero()[:, 0]
        child = trees.left[node]
        value = trees.gain[node] / total[node] - alpha + worth[child] + worth[child + 1]
        keep = value > 1e-12
        worth[node] = torch.where(keep, value, 0.0)
        left[node[~keep]] = -1
    cut = left < 0
    return in_order(
        trees._replace(
            left=left, feature=trees.feature.masked_fill(cut, -1), gain=trees.gain.masked_fill(cut, 0.0),
            threshold=trees.threshold.masked_fill(cut, 0.0), missing_left=trees.missing_left & ~cut,
            subset=trees.subset & ~cut.unsqueeze(1),
        )
    )  # fmt: skip
