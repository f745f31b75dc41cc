r"""Growing trees from passes over coded rows: count all open nodes at once, then split them.

A pass counts the rows of the open nodes by feature and bin, into one integer histogram. At its end each node takes its
best split and its children are open in the next pass: a pass is a depth. Of two children only the smaller is counted,
the other is what is left of the parent. Nodes whose histogram would not fit wait for a later pass; which pass a node is
counted in changes nothing.

Any number of trees grow side by side. Where no split is allowed on the features that a node drew, it draws the next
ones.

Letters: T trees, N rows, F features, J of them looked at in a node, A nodes counted in a pass, W codes, S sums.
Sources: Shafer, Agrawal & Mehta, "SPRINT", 1996 (a pass a depth); Ke et al., "LightGBM", 2017 (subtraction).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.trees.bins import Bins
from zoo.models.trees.nodes import LEAF, OPEN, READY, SPLIT, Limits, Nodes, best_first, expand, is_open
from zoo.models.trees.splits import Cells, Rules, find_splits
from zoo.numerics.hashing import splitmix64

__all__ = [
    "Plan", "add_rows", "contributions", "draw_features", "end_pass", "plan_pass", "subtract", "total_of",
]  # fmt: skip

_ROWS_AT_ONCE = 1 << 20  # times features, which bounds memory
_FEATURES = 0xFEA7  # the stream of the features


class Plan(NamedTuple):
    """What a pass counts: nodes (A,); their features (A, J), the last one first; and what is left to subtraction,
    (P, 3): where the node stands in the pass, where its sibling does, and where their parent did in the pass before."""

    nodes: Tensor
    features: Tensor
    subtracted: Tensor


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
    features = draw_features(nodes.path[active], nodes.draws[active], num_features, places)
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


def draw_features(path: Tensor, draws: Tensor, num_features: int, places: int) -> Tensor:
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
    for cell, place, amount in contributions(plan, at, codes, amounts, index, width):
        flat.scatter_add_(0, cell * num_sums + place, amount)


def contributions(
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
        return expand(nodes, active[ready], rules, limits)
    while True:
        wanted, final = best_first(nodes, limits.max_leaf_nodes)
        nodes = expand(nodes, wanted, rules, limits)
        if is_open(nodes):
            return nodes
        if not len(wanted):
            return nodes._replace(status=torch.where(final, SPLIT, LEAF), child=torch.where(final, nodes.child, -1))
