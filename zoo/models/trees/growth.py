r"""Growing trees from passes over coded rows: count all open nodes at once, then split them.

A pass counts the rows of the open nodes by feature and bin, into one integer histogram. At its end each node takes its
best split and its children are open in the next pass: a pass is a depth. Of two children only the smaller is counted,
the other is what is left of the parent. Nodes whose histogram would not fit wait for a later pass; which pass a node is
counted in changes nothing.

Any number of trees grow side by side. Where `max_features` are looked at, a node draws them by a hash of its path; if
no split is allowed on those, it draws the next ones. With `max_leaf_nodes` the split of greatest gain is always the
next (best first): what the passes know is followed until a split is wanted whose children have not been counted.

Letters: T trees, N rows, F features, J of them looked at in a node, A nodes counted in a pass, W codes, S sums, M
    nodes.
Sources: Breiman et al. 1984; Shafer, Agrawal & Mehta, "SPRINT", 1996 (a pass a depth); Ke et al., "LightGBM", 2017
(subtraction, best first); Breiman, "Random forests", 2001.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels import trees as kernel
from zoo.models.trees.bins import Bins, Codes, midpoint
from zoo.models.trees.bootstrap import Bootstrap
from zoo.models.trees.criteria import Units
from zoo.models.trees.splits import Cells, Rules, cells_of_histogram, cells_of_rows, find_splits
from zoo.numerics.hashing import splitmix64, stream_key

__all__ = [
    "Limits",
    "Nodes",
    "Plan",
    "RowSums",
    "add_rows",
    "close",
    "end_pass",
    "grow",
    "grow_trees",
    "is_open",
    "plan_pass",
    "root_paths",
    "roots",
    "route",
    "subtract",
    "total_of",
]

OPEN, READY, LEAF, SPLIT = range(4)  # to be counted; its best split is known; the ends of both ways

_ROWS_AT_ONCE = 1 << 20  # times features, which bounds memory
_FEATURES = 0xFEA7  # the stream of the features
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


class Plan(NamedTuple):
    """What a pass counts: nodes (A,); their features (A, J), the last one first; and what is left to subtraction,
    (P, 3): where the node stands in the pass, where its sibling does, and where their parent did in the pass before."""

    nodes: Tensor
    features: Tensor
    subtracted: Tensor


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


# -- a pass ------------------------------------------------------------------------------------------------------------


def plan_pass(nodes: Nodes, bins: Bins, rules: Rules, limits: Limits, before: Tensor | None = None) -> Plan:
    """Return what the next pass counts.

    Args:
        nodes: the nodes so far.
        bins: of the features.
        rules: which splits are allowed.
        limits: whose `histogram_size` is kept to.
        before: the nodes of the last pass, (A',), if its histogram was kept.

    Raises:
        ZooError: if not even the histogram of one node is that small.
    """
    num_features, num_sums = len(bins.number), nodes.sums.shape[1]
    places = min(limits.max_features or num_features, num_features)
    size = places * (bins.missing + 1) * num_sums  # of one node
    if size > limits.histogram_size:
        raise ZooError(
            f"The histogram of one node would hold {size:,} numbers ({places} features × {bins.missing + 1} bins × "
            f"{num_sums} sums), more than {limits.histogram_size:,}: lower model.num_bins."
        )
    open_ = (nodes.status == OPEN).nonzero()[:, 0]
    active = open_[: limits.histogram_size // size]
    features = _draw_features(nodes.path[active], nodes.draws[active], num_features, places)
    subtracted = active.new_zeros(0, 3)
    if before is not None and len(active) == len(open_) and places == num_features:
        subtracted = _pairs(nodes, active, rules, before)
    return Plan(active, features, subtracted)


def _pairs(nodes: Nodes, active: Tensor, rules: Rules, before: Tensor) -> Tensor:
    """The larger of the children of each node of the pass before, where both are counted now."""
    slot = active.new_full((len(nodes.tree),), -1)
    slot[active] = torch.arange(len(active), device=active.device)
    parent = (nodes.status[before] == SPLIT).nonzero()[:, 0]
    left = nodes.child[before[parent]]
    both = (slot[left] >= 0) & (slot[left + 1] >= 0)
    parent, left = parent[both], left[both]
    rows = rules.criterion.count(nodes.sums)
    larger = torch.where(rows[left] >= rows[left + 1], left, left + 1)
    return torch.stack([slot[larger], slot[2 * left + 1 - larger], parent], dim=1)


def _draw_features(path: Tensor, draws: Tensor, num_features: int, places: int) -> Tensor:
    """The features that nodes look at, (A, J): the next J by the hash of their paths; the last one stands first."""
    everything = torch.arange(num_features, device=path.device)
    if places == num_features:
        return everything.flip(0).expand(len(path), -1)
    order = splitmix64(_FEATURES, path.unsqueeze(1) + everything).argsort(dim=1)
    place = draws.unsqueeze(1) * places + torch.arange(places, device=path.device)
    return order.gather(1, place % num_features).sort(dim=1, descending=True).values


def total_of(amounts: Tensor, index: Tensor | None, num_sums: int) -> Tensor:
    """Return the sums of all rows, (1 or T, S), of amounts (1 or S, 1 or T, N)."""
    if index is None:
        return amounts.sum(2).T
    return amounts.new_zeros(amounts.shape[1], num_sums).index_add_(1, index, amounts[0])


def add_rows(histogram: Tensor, plan: Plan, at: Tensor, codes: Tensor, amounts: Tensor, index: Tensor | None) -> None:
    """Add coded rows to the histogram of a pass.

    Args:
        histogram: (A, J, W, S), int64, changed in place.
        plan: of the pass.
        at: the node of each row in each tree, (T, N).
        codes: of the rows, (N, F).
        amounts: what they add, (1 or S, 1 or T, N).
        index: which of the sums they add to, (N,); None for each to its own.
    """
    _, _, width, num_sums = histogram.shape
    flat = histogram.view(-1)
    for cell, place, amount in _contributions(plan, at, codes, amounts, index, width):
        flat.scatter_add_(0, cell * num_sums + place, amount)


def _contributions(
    plan: Plan, at: Tensor, codes: Tensor, amounts: Tensor, index: Tensor | None, width: int
) -> Iterator[tuple[Tensor, Tensor | int, Tensor]]:
    """Yield the cells (R,) that some of the rows fall in, which of their sums they add to, and what."""
    places = plan.features.shape[1]
    slot = _slots(plan, at)
    tree, row = ((slot >= 0) & (amounts[0] != 0)).nonzero(as_tuple=True)
    step = max(1, _ROWS_AT_ONCE // places)
    for t, r in zip(tree.split(step), row.split(step), strict=True):
        s = slot[t, r]
        code = codes[r.unsqueeze(1), plan.features[s]].long()
        cell = ((s.unsqueeze(1) * places + torch.arange(places, device=at.device)) * width + code).view(-1)
        for number, of_sum in enumerate(amounts):
            amount = of_sum[0, r] if len(of_sum) == 1 else of_sum[t, r]
            place = number if index is None else index[r].repeat_interleave(places)
            yield cell, place, amount.repeat_interleave(places)


def _slots(plan: Plan, at: Tensor) -> Tensor:
    """Where in the pass each row counts, (T, N); −1 for nowhere."""
    size = 1 + max((int(t.max()) for t in (at, plan.nodes) if t.numel()), default=-1)
    slot = at.new_full((size,), -1)
    slot[plan.nodes] = torch.arange(len(plan.nodes), device=at.device)
    slot[plan.nodes[plan.subtracted[:, 0]]] = -1
    return slot[at]


def subtract(histogram: Tensor, plan: Plan, kept: Tensor) -> None:
    """Fill in the nodes that were not counted, in place: the parent's histogram less the sibling's."""
    larger, smaller, parent = plan.subtracted.unbind(1)
    histogram[larger] = kept[parent] - histogram[smaller]


def end_pass(nodes: Nodes, plan: Plan, cells: Cells, bins: Bins, rules: Rules, limits: Limits) -> Nodes:
    """Return the nodes after a pass: those that it counted have children, are leaves, or stay open to draw again."""
    active, here = plan.nodes, nodes.rows(plan.nodes)
    splits = find_splits(cells, here.sums, plan.features, bins, rules, bounds=here.bounds, path=here.path)
    found = splits.gain > -torch.inf
    again = ~found & ((here.draws + 1) * plan.features.shape[1] < len(bins.number))
    found &= here.status == OPEN  # a root is counted before it is known to be a leaf
    again &= here.status == OPEN
    ready = found & (splits.gain >= limits.min_gain * rules.criterion.weight(nodes.sums[here.tree]))
    columns = splits._asdict() | {
        "status": torch.where(ready, READY, torch.where(again, OPEN, LEAF)),
        "draws": here.draws + 1,
    }
    nodes = nodes._replace(**{name: getattr(nodes, name).index_copy(0, active, new) for name, new in columns.items()})
    if limits.max_leaf_nodes is None:
        return _expand(nodes, active[ready], rules, limits)
    while True:
        wanted, final = _best_first(nodes, limits.max_leaf_nodes)
        nodes = _expand(nodes, wanted, rules, limits)
        if is_open(nodes):
            return nodes
        if not len(wanted):
            return nodes._replace(status=torch.where(final, SPLIT, LEAF), child=torch.where(final, nodes.child, -1))


def is_open(nodes: Nodes) -> bool:
    """Whether another pass is needed."""
    return bool((nodes.status == OPEN).any())


def _expand(nodes: Nodes, which: Tensor, rules: Rules, limits: Limits) -> Nodes:
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


def _best_first(nodes: Nodes, max_leaf_nodes: int) -> tuple[Tensor, Tensor]:
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


# -- rows in memory ----------------------------------------------------------------------------------------------------


def grow(
    codes: Tensor,
    rows: RowSums,
    bins: Bins,
    rules: Rules,
    limits: Limits,
    *,
    num_trees: int,
    num_sums: int,
    paths: Tensor | None = None,
) -> tuple[Nodes, Tensor]:
    """Grow trees on rows in memory, by passes of torch operations.

    Args:
        codes: of the rows, (N, F).
        rows: what they add to the sums of their nodes.
        bins: of the features.
        rules: which splits are allowed.
        limits: when trees stop.
        num_trees: T.
        num_sums: S.
        paths: of the roots, by which features and thresholds are drawn, (T,); None for those of seed 0.

    Returns:
        The nodes, and the leaf of each row in each tree, (T, N).
    """
    width, index, amounts = bins.missing + 1, rows.place, rows.amounts(rules.criterion.units)
    paths = root_paths(0, num_trees) if paths is None else paths
    nodes = roots(total_of(amounts, index, num_sums).expand(num_trees, -1), paths, rules, limits, width)
    at = torch.arange(num_trees, device=codes.device).unsqueeze(1).expand(-1, len(codes))
    plan: Plan | None = None
    kept: Tensor | None = None
    while is_open(nodes):
        if _is_sparse(nodes, width, rules):
            plan, kept = plan_rows(nodes, bins, rules, limits), None
            cells = _sorted_cells(plan, at, codes, amounts, index, width, num_sums)
        else:
            plan = plan_pass(nodes, bins, rules, limits, plan.nodes if plan is not None and kept is not None else None)
            histogram = amounts.new_zeros(len(plan.nodes), plan.features.shape[1], width, num_sums)
            add_rows(histogram, plan, at, codes, amounts, index)
            if kept is not None:
                subtract(histogram, plan, kept)
            cells, kept = cells_of_histogram(histogram), histogram
        nodes = end_pass(nodes, plan, cells, bins, rules, limits)
        at = route(nodes, at, codes, bins, rules)
    if limits.max_leaf_nodes is not None:  # what was looked at ahead of the best first is cut off again
        at = route(nodes, torch.arange(num_trees, device=at.device).unsqueeze(1).expand_as(at), codes, bins, rules)
    return nodes, at


def _is_sparse(nodes: Nodes, width: int, rules: Rules) -> bool:
    """Whether the open nodes have fewer rows than bins, so that sorting their rows is cheaper than a histogram."""
    open_ = nodes.status == OPEN
    return int(rules.criterion.count(nodes.sums[open_]).sum()) < int(open_.sum()) * width


def plan_rows(nodes: Nodes, bins: Bins, rules: Rules, limits: Limits) -> Plan:
    """Return a plan that is limited by the number of rows instead of that of bins."""
    num_features = len(bins.number)
    places = min(limits.max_features or num_features, num_features)
    open_ = (nodes.status == OPEN).nonzero()[:, 0]
    values = rules.criterion.count(nodes.sums[open_]).cumsum(0) * places
    active = open_[: max(1, int((values <= limits.histogram_size).sum()))]
    features = _draw_features(nodes.path[active], nodes.draws[active], num_features, places)
    return Plan(active, features, active.new_zeros(0, 3))


def _sorted_cells(
    plan: Plan, at: Tensor, codes: Tensor, amounts: Tensor, index: Tensor | None, width: int, num_sums: int
) -> Cells:
    found = list(_contributions(plan, at, codes, amounts, index, width))
    places = [place if isinstance(place, Tensor) else torch.full_like(cell, place) for cell, place, _ in found]
    none = amounts.new_zeros(0)
    return cells_of_rows(
        torch.cat([none, *(cell for cell, _, _ in found)]), torch.cat([none, *places]),
        torch.cat([none, *(amount for _, _, amount in found)]), num_sums,
    )  # fmt: skip


def grow_trees(
    codes: Codes,
    rows: RowSums,
    bins: Bins,
    rules: Rules,
    limits: Limits,
    *,
    num_trees: int,
    num_sums: int,
    paths: Tensor | None = None,
    leaves: bool = True,
) -> tuple[Nodes, Tensor]:
    """Grow trees on rows in memory as `grow` does, with the compiled kernel where it is there and knows how.

    Args:
        codes: of the rows.
        rows: what they add to the sums of their nodes.
        bins: of the features.
        rules: which splits are allowed.
        limits: when trees stop.
        num_trees: T.
        num_sums: S.
        paths: of the roots, by which features and thresholds are drawn, (T,); None for those of seed 0.
        leaves: whether the leaves of the rows are wanted.

    Returns:
        The nodes, and the leaf of each row in each tree, (T, N), −1 in a tree that did not draw the row.
    """
    criterion, drawn, num_features = rules.criterion, rows.bootstrap, len(bins.number)
    wide = rules.categorical and (rules.random_thresholds or codes.columns.dtype != torch.uint8)
    known = criterion.name in kernel.CRITERIA and not wide and num_features > 0
    if not known or not kernel.available(rows.weight.device):
        return grow(codes.rows, rows, bins, rules, limits, num_trees=num_trees, num_sums=num_sums, paths=paths)
    start, *columns, leaf = kernel.grow_trees(
        codes.columns,
        codes.rows,
        bins.lower,
        bins.upper,
        rows.weight,
        rows.place,
        rows.gradient,
        None if drawn is None else drawn.content,
        None if drawn is None else drawn.keys,
        None if drawn is None else drawn.thresholds,
        root_paths(0, num_trees) if paths is None else paths,
        None if rules.monotone is None else torch.tensor(rules.monotone, dtype=torch.int8),
        _mask(rules.categorical, num_features) if rules.categorical else None,
        num_sums,
        kernel.CRITERIA.index(criterion.name),
        criterion.units.count_bits,
        criterion.units.weight,
        criterion.units.gradient,
        criterion.l2,
        -1 if limits.max_depth is None else limits.max_depth,
        limits.min_samples_split,
        rules.min_samples_leaf,
        -1 if limits.max_leaf_nodes is None else limits.max_leaf_nodes,
        min(limits.max_features or num_features, num_features),
        rules.random_thresholds,
        rules.min_weight_leaf,
        limits.min_gain,
        leaves,
    )
    return _nodes_of_kernel(start, columns, leaf, bins)


def _bits(words: Tensor, number: int) -> Tensor:
    """The first bits of words (M, 4), (M, number)."""
    return ((words.unsqueeze(2) >> torch.arange(64)) & 1).bool().flatten(1)[:, :number]


def _mask(features: tuple[int, ...], num_features: int) -> Tensor:
    return torch.zeros(num_features, dtype=torch.uint8).index_fill_(0, torch.tensor(features), 1)


def _nodes_of_kernel(start: Tensor, columns: list[Tensor], leaf: Tensor, bins: Bins) -> tuple[Nodes, Tensor]:
    """What the kernel grew, as `grow` gives it: roots first."""
    feature, code, after, child, depth, missing_left, words, gain, drawn, sums = columns
    feature, code, after, child = feature.long(), code.long(), after.long(), child.long()
    num_trees = len(start) - 1
    tree = torch.zeros_like(feature)
    if num_trees != 1:  # they stand one after the other; their roots go to the front
        tree = torch.arange(num_trees).repeat_interleave(start[1:] - start[:-1])
        place = torch.arange(len(tree)) + (num_trees - 1 - tree)
        place[start[:-1]] = torch.arange(num_trees)
        order = place.argsort()
        child = torch.where(child >= 0, place[(child.clamp_min(0) + start[tree]).clamp_max(len(tree) - 1)], -1)
    column = feature.clamp_min(0)
    middle = midpoint(bins.upper[column, code], bins.lower[column, after.clamp_min(0)])
    middle = torch.where(after >= 0, middle, torch.inf)
    known = {
        "tree": tree,
        "depth": depth.long(),
        "sums": sums,
        "gain": gain,
        "feature": feature,
        "code": code,
        "child": child,
        "threshold": torch.where(drawn.isnan(), middle, drawn),
        "missing_left": missing_left.bool(),
        "status": torch.where(child >= 0, SPLIT, LEAF),
        "subset": _bits(words, bins.missing + 1) if words.shape[1] else sums[:, :0].bool(),
    }
    unknown = dict.fromkeys(("path", "bounds", "draws", "left"), sums[:, :0])  # what only growing needs
    nodes = Nodes(**known, **unknown)
    if num_trees != 1:
        nodes = nodes.rows(order)
    if not leaf.numel() or num_trees == 1:
        return nodes, leaf.long()
    at = place[(leaf.long().clamp_min(0) + start[:-1].unsqueeze(1)).clamp_max(len(tree) - 1)]
    return nodes, torch.where(leaf >= 0, at, -1)
