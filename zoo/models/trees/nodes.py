r"""The nodes of growing trees: what is known of each, which may be split, and where rows come to.

With `max_leaf_nodes` the split of greatest gain is always the next (best first): what is known is followed until a
split is wanted whose children are not.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
Source: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984.
"""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.models.trees.bins import Bins
from zoo.models.trees.bootstrap import Bootstrap
from zoo.models.trees.criteria import Units
from zoo.models.trees.splits import Rules
from zoo.numerics.hashing import splitmix64, stream_key

__all__ = [
    "LEAF", "OPEN", "READY", "SPLIT", "Limits", "Nodes", "RowSums", "best_first", "close", "expand", "is_open",
    "root_paths", "roots", "route",
]  # fmt: skip

OPEN, READY, LEAF, SPLIT = range(4)  # to be counted; its best split is known; the ends of both ways

_PATH = 0x9A7F  # the stream of the roots


@dataclass(frozen=True)
class Limits:
    """When a tree stops growing, and what it looks at.

    Attributes:
        max_depth: of the deepest leaf; None for no limit.
        min_samples_split: rows of a node that may be split, at least.
        min_gain: gain as a share of the tree's weight, at least: the weighted fall of the mean impurity.
        max_leaf_nodes: leaves at most, grown best first; None for no limit.
        max_features: features looked at in a node; None for all.
        histogram_size: numbers in the histogram of a pass, at most.
    """

    max_depth: int | None = None
    min_samples_split: int = 2
    min_gain: float = 0.0
    max_leaf_nodes: int | None = None
    max_features: int | None = None
    histogram_size: int = 1 << 25


class Nodes(NamedTuple):
    """The nodes of T trees, roots first; the right child stands after the left one."""

    tree: Tensor  # (M,)
    depth: Tensor  # (M,)
    path: Tensor  # (M,) a hash of the tree's seed and the turns from its root
    sums: Tensor  # (M, S)
    bounds: Tensor  # (M, 2) of the predictions, by monotonicity
    draws: Tensor  # (M,) how often features were drawn in vain
    status: Tensor  # (M,)
    gain: Tensor  # (M,)
    feature: Tensor  # (M,)
    threshold: Tensor  # (M,)
    code: Tensor  # (M,) the last that goes left
    missing_left: Tensor  # (M,)
    left: Tensor  # (M, S)
    subset: Tensor  # (M, W) the codes that go left, of categories; or (M, 0)
    child: Tensor  # (M,) the left one; −1 for none

    def rows(self, index: Tensor) -> Nodes:
        """Return some nodes."""
        return Nodes(*(column[index] for column in self))


class RowSums(NamedTuple):
    """What N rows add to the S sums of the nodes that they are in, all in units.

    Attributes:
        weight: of each row, (N,); a row without weight counts nowhere.
        place: the sum that each row's weight is added to, (N,), or None where it is the first.
        gradient: what is added to the other sums, (N, S − 1), or None with `place`.
        bootstrap: how often each tree sees each row, if not once.
    """

    weight: Tensor
    place: Tensor | None = None
    gradient: Tensor | None = None
    bootstrap: Bootstrap | None = None

    def amounts(self, units: Units) -> Tensor:
        """Return packed weights, or those and the gradients, of each tree or of all alike: (1 or S, 1 or T, N)."""
        factor = torch.ones_like(self.weight)[None] if self.bootstrap is None else self.bootstrap.factor()
        weight = self.weight * factor
        packed = ((weight << units.count_bits) + (weight > 0)).unsqueeze(0)
        if self.gradient is None:
            return packed
        return torch.cat([packed, self.gradient.T.unsqueeze(1) * factor * (self.weight > 0)])


def roots(total: Tensor, paths: Tensor, rules: Rules, limits: Limits, width: int, *, known: bool = True) -> Nodes:
    """Return the roots of T trees.

    Args:
        total: the sums of all rows, (T, S).
        paths: by which features and thresholds are drawn, (T,).
        rules: which splits are allowed.
        limits: when trees stop.
        width: W.
        known: whether `total` holds the sums; else all roots are open.
    """
    number = len(total)
    long = torch.zeros(number, dtype=torch.int64, device=total.device)
    real = torch.zeros(number, dtype=torch.float64, device=total.device)
    bounds = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64, device=total.device).expand(number, 2)
    subset = torch.zeros(number, width if rules.categorical else 0, dtype=torch.bool, device=total.device)
    nodes = Nodes(
        tree=torch.arange(number, device=total.device), depth=long, path=paths.to(total.device), sums=total,
        bounds=bounds, draws=long,
        status=long, gain=real, feature=long - 1, threshold=real, code=long, missing_left=long.bool(), left=total * 0,
        subset=subset, child=long - 1,
    )  # fmt: skip
    return close(nodes, rules, limits) if known else nodes


def close(nodes: Nodes, rules: Rules, limits: Limits) -> Nodes:
    """Return new nodes, those that must not be split as leaves."""
    return nodes._replace(status=_first_status(nodes, rules, limits))


@functools.lru_cache(maxsize=8)
def root_paths(seed: int, num_trees: int) -> Tensor:
    """Return the hashes that trees begin with, (T,), by which they draw features and thresholds."""
    return torch.tensor([stream_key(seed, _PATH, tree) for tree in range(num_trees)])


def _first_status(nodes: Nodes, rules: Rules, limits: Limits) -> Tensor:
    """OPEN, or LEAF for nodes that must not be split."""
    count = rules.criterion.count(nodes.sums)
    closed = count < max(2, limits.min_samples_split, 2 * rules.min_samples_leaf)
    closed |= rules.criterion.pure(nodes.sums)
    if limits.max_depth is not None:
        closed |= nodes.depth >= limits.max_depth
    return torch.where(closed, LEAF, OPEN)


def is_open(nodes: Nodes) -> bool:
    """Whether another pass is needed."""
    return bool((nodes.status == OPEN).any())


def expand(nodes: Nodes, which: Tensor, rules: Rules, limits: Limits) -> Nodes:
    """Give nodes their children, left and right side by side."""
    if not len(which):
        return nodes
    parent = nodes.rows(which.repeat_interleave(2))
    side = torch.arange(len(parent.tree), device=which.device) % 2
    sums = torch.where(side.unsqueeze(1) == 0, parent.left, parent.sums - parent.left)
    # The side is the key, the parent's path the counter.
    path = torch.where(side == 0, splitmix64(1, parent.path), splitmix64(2, parent.path))
    bounds = _child_bounds(parent, side, rules)
    children = parent._replace(
        depth=parent.depth + 1,
        path=path,
        sums=sums,
        bounds=bounds,
        draws=parent.draws * 0,
        gain=parent.gain * 0,
        feature=parent.feature * 0 - 1,
        threshold=parent.threshold * 0,
        missing_left=side < 0,
        subset=parent.subset & False,
        child=parent.child * 0 - 1,
    )
    children = close(children, rules, limits)
    child = len(nodes.tree) + 2 * torch.arange(len(which), device=which.device)
    nodes = nodes._replace(
        child=nodes.child.index_copy(0, which, child),
        status=nodes.status.index_fill(0, which, SPLIT),
    )
    return Nodes(*(torch.cat(pair) for pair in zip(nodes, children, strict=True)))


def _child_bounds(parent: Nodes, side: Tensor, rules: Rules) -> Tensor:
    """Bounds of children: what the parent has, and the middle of both values where the feature is monotone."""
    if rules.monotone is None:
        return parent.bounds
    value = rules.criterion.value
    middle = (value(parent.left)[:, -1] + value(parent.sums - parent.left)[:, -1]) / 2
    sign = torch.tensor(rules.monotone, device=side.device)[parent.feature]
    low, high = parent.bounds.unbind(1)
    is_upper = sign * (2 * side - 1) > 0  # the side of the greater values
    is_lower = sign * (2 * side - 1) < 0
    return torch.stack([torch.where(is_upper, middle, low), torch.where(is_lower, middle, high)], dim=1)


def best_first(nodes: Nodes, max_leaf_nodes: int) -> tuple[Tensor, Tensor]:
    """Follow the splits by gain as far as they are known.

    Returns:
        The nodes whose children are wanted next, and a mask of the nodes that are split, (M,).
    """
    status, gain, child = nodes.status.tolist(), nodes.gain.float().tolist(), nodes.child.tolist()
    num_trees = int(nodes.tree.max()) + 1
    taken = torch.zeros(len(status), dtype=torch.bool)
    wanted = []
    for root in range(num_trees):
        order = 0  # of creation, which breaks ties
        queue = [(-gain[root], order, root)] if status[root] in (READY, SPLIT) else []
        for _ in range(max_leaf_nodes - 1):
            if not queue:
                break
            node = heapq.heappop(queue)[2]
            taken[node] = True
            if child[node] < 0:
                wanted.append(node)
                continue
            for side in (child[node], child[node] + 1):
                order += 1
                if status[side] in (READY, SPLIT):
                    heapq.heappush(queue, (-gain[side], order, side))
    device = nodes.status.device
    return torch.tensor(wanted, dtype=torch.int64, device=device), taken.to(device)


def route(nodes: Nodes, at: Tensor, codes: Tensor, bins: Bins, rules: Rules) -> Tensor:
    """Return where coded rows (N, F) that stood at nodes `at` (T, N) come to: nodes without children."""
    row = torch.arange(len(codes), device=codes.device)
    categorical = torch.zeros(codes.shape[1], dtype=torch.bool, device=codes.device)
    categorical[list(rules.categorical)] = True
    while True:
        child = nodes.child[at]
        inner = child >= 0
        if not bool(inner.any()):
            return at
        feature = nodes.feature[at].clamp_min(0)
        code = codes[row, feature].long()
        left = code <= nodes.code[at]
        if rules.categorical:
            left = torch.where(categorical[feature], nodes.subset[at, code], left)
        left = torch.where(code == bins.missing, nodes.missing_left[at], left)
        at = torch.where(inner, child + (~left).long(), at)
