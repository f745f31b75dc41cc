r"""The best split of each of many nodes, from counts of the rows by feature and bin.

The counts lie as *cells*: for each node, feature and bin that holds a row of the node, the sums of those rows, in this
order. Running sums over the cells are the left sides of all splits, so that the search is a few operations on whole
tensors, whatever the number of nodes. A dense histogram and sorted rows give the same cells.

Which split is the best is decided in float32, so that gains that are equal but for rounding are a tie, which the last
feature and the smallest threshold win.

Letters: A nodes, J features looked at in each, W codes (bins and the code of missing values), S sums, M cells.
Sources: Breiman et al. 1984; Fisher 1958, "On grouping for maximum homogeneity" (categories in the order of their mean
target, exact for two classes and squared error); Geurts, Ernst & Wehenkel 2006 (random thresholds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.models.trees.bins import Bins, midpoint
from zoo.models.trees.criteria import Criterion
from zoo.numerics.hashing import splitmix64, uniforms

__all__ = ["Cells", "Rules", "Splits", "cells_of_histogram", "cells_of_rows", "find_splits"]


class Cells(NamedTuple):
    """Non-empty counts: `key` = (node · J + feature's place) · W + code, ascending, (M,); `sums` (M, S)."""

    key: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Rules:
    """Which splits are allowed.

    Attributes:
        criterion: what a split is worth.
        min_samples_leaf: rows on each side, at least.
        min_weight_leaf: weight (or hessian) on each side, at least.
        categorical: features whose values are categories.
        monotone: for each feature 1 where predictions must not fall with it, −1 where they must not rise, 0; or None.
        random_thresholds: one threshold a feature and node, drawn between its smallest and largest value there.
    """

    criterion: Criterion
    min_samples_leaf: int = 1
    min_weight_leaf: float = 0.0
    categorical: tuple[int, ...] = ()
    monotone: tuple[int, ...] | None = None
    random_thresholds: bool = False


class Splits(NamedTuple):
    """The best split of each of A nodes: gain (−∞ for none), feature, threshold (values up to it go left), last code
    that goes left, whether missing values go left, sums of the left side (A, S), and the codes of the categories that
    go left, (A, W), or (A, 0) without categorical features."""

    gain: Tensor
    feature: Tensor
    threshold: Tensor
    code: Tensor
    missing_left: Tensor
    left: Tensor
    subset: Tensor


def cells_of_histogram(histogram: Tensor) -> Cells:
    """Return the cells of a dense histogram (A, J, W, S)."""
    sums = histogram.flatten(0, 2)
    key = (sums != 0).any(1).nonzero()[:, 0]
    return Cells(key, sums[key])


def cells_of_rows(key: Tensor, sum_index: Tensor, amount: Tensor, num_sums: int) -> Cells:
    """Return the cells that rows add up to, by sorting: for bins too many for a histogram.

    Args:
        key: of each row's cell, any order, (R,).
        sum_index: which of the S sums each row adds to, (R,).
        amount: what it adds, (R,).
        num_sums: S.
    """
    unique, place = key.unique(return_inverse=True)
    sums = amount.new_zeros(len(unique) * num_sums)
    return Cells(unique, sums.scatter_add_(0, place * num_sums + sum_index, amount).view(-1, num_sums))


def find_splits(
    cells: Cells,
    total: Tensor,
    features: Tensor,
    bins: Bins,
    rules: Rules,
    *,
    bounds: Tensor,
    path: Tensor,
) -> Splits:
    """Return the best split of each node.

    Args:
        cells: the nodes' counts.
        total: sums of each node, (A, S).
        features: the features looked at in each node, (A, J).
        bins: of all features.
        rules: which splits are allowed.
        bounds: least and greatest value that monotonicity leaves each node, (A, 2).
        path: a number of each node by which thresholds are drawn, (A,).
    """
    criterion, width = rules.criterion, bins.missing + 1
    nodes, places = features.shape
    present = cells.key % width != bins.missing
    group_of = cells.key // width  # (node, feature)
    missing = total.new_zeros(nodes * places, total.shape[1])
    missing[group_of[~present]] = cells.sums[~present]
    group, code, sums = group_of[present], (cells.key % width)[present], cells.sums[present]
    if rules.categorical:
        order = _order(group, code, sums, total, features, rules)
        group, code, sums = group[order], code[order], sums[order]
    node, feature = group // places, features.flatten()[group]

    # Left sides: running sums, less what stood before the group. Integers may wrap around in between.
    running = sums.cumsum(0)
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    start = first.nonzero()[:, 0]
    place = first.long().cumsum(0) - 1  # which group, of those that have cells
    left = running - (running[start] - sums[start])[place] if len(start) else running
    last = torch.ones_like(first)
    last[:-1] = first[1:]

    parent = criterion.score(total)
    lost = missing[group]
    right_way = _gains(left, total[node], parent[node], node, feature, rules, bounds)
    left_way = _gains(left + lost, total[node], parent[node], node, feature, rules, bounds)
    left_way[criterion.count(lost) == 0] = -torch.inf
    if rules.random_thresholds:
        drawn = _drawn_thresholds(path, node, feature, code, first, start, place, last, bins)
        chosen = _drawn_cells(drawn, feature, code, start, place, first, last, bins)
        chosen |= last & (criterion.count(lost) > 0)  # missing values against all others
        right_way[~chosen], left_way[~chosen] = -torch.inf, -torch.inf
    to_left = left_way > right_way
    gain = torch.where(to_left, left_way, right_way)

    best = gain.new_full((nodes,), -torch.inf).scatter_reduce_(0, node, gain, "amax")
    number = torch.arange(len(gain), device=gain.device)
    number = torch.where(gain == best[node], number, len(gain))
    index = number.new_full((nodes,), len(gain)).scatter_reduce_(0, node, number, "amin")
    found = best > -torch.inf
    index = index.clamp_max(max(0, len(gain) - 1))
    if not len(gain):
        return _no_splits(total, width if rules.categorical else 0)

    after = (index + 1).clamp_max(len(gain) - 1)
    chosen_feature, chosen_code = feature[index], code[index]
    low, high = bins.upper[chosen_feature, chosen_code], bins.lower[chosen_feature, code[after]]
    threshold = torch.where(last[index], torch.inf, midpoint(low, high))
    if rules.random_thresholds:
        here = drawn[index]
        threshold = torch.where(~last[index] & (low <= here) & (here < high), here, threshold)
    chosen_left = torch.where(to_left[index].unsqueeze(1), (left + lost)[index], left[index])
    # A feature without missing values here sends those that it may meet later where most rows went.
    most = 2 * criterion.count(chosen_left) > criterion.count(total)
    missing_left = torch.where(criterion.count(lost[index]) > 0, to_left[index], most)
    exact = criterion.score(chosen_left) + criterion.score(total - chosen_left) - parent
    return Splits(
        torch.where(found, exact.clamp_min(0.0), -torch.inf),
        chosen_feature,
        threshold,
        chosen_code,
        missing_left,
        chosen_left,
        _subsets(index, group, code, features, chosen_feature, rules, width),
    )


def _gains(
    left: Tensor, total: Tensor, parent: Tensor, node: Tensor, feature: Tensor, rules: Rules, bounds: Tensor
) -> Tensor:
    """The gains of left sides (M, S) in float32, −∞ where the rules forbid the split."""
    criterion, right = rules.criterion, total - left
    gain = criterion.gain(criterion.score(left), criterion.score(right), parent).float()
    rows = torch.minimum(criterion.count(left), criterion.count(right))
    allowed = rows >= max(1, rules.min_samples_leaf)
    if rules.min_weight_leaf > 0:
        allowed &= torch.minimum(criterion.weight(left), criterion.weight(right)) >= rules.min_weight_leaf
    if criterion.name == "poisson":  # the logarithm of a mean of zero
        allowed &= (left[:, 1] > 0) & (right[:, 1] > 0)
    if rules.monotone is not None:
        sign = torch.tensor(rules.monotone, device=left.device)[feature]
        low, high = (criterion.value(side)[:, -1] for side in (left, right))
        rising = (low - high) * sign <= 0
        for value in (low, high):
            rising &= (value >= bounds[node, 0]) & (value <= bounds[node, 1])
        allowed &= rising | (sign == 0)  # of other features, predictions are clipped
    return gain.masked_fill_(~allowed, -torch.inf)


def _order(group: Tensor, code: Tensor, sums: Tensor, total: Tensor, features: Tensor, rules: Rules) -> Tensor:
    """The order of cells by group, and within it by code, or of a categorical feature by mean target."""
    criterion = rules.criterion
    if criterion.by_value and criterion.values is None:  # the share of the node's largest class
        bits = criterion.units.count_bits
        largest, whole = (total >> bits).argmax(1)[group // features.shape[1]], sums >> bits
        target = whole.gather(1, largest.unsqueeze(1))[:, 0].double() / whole.sum(1).double()
    else:
        target = criterion.value(sums)[:, 0]
    is_category = torch.zeros(int(features.max()) + 1, dtype=torch.bool, device=code.device)
    is_category[[f for f in rules.categorical if f < len(is_category)]] = True
    position = torch.where(is_category[features.flatten()[group]], target, code.double())
    by_position = position.argsort(stable=True)
    return by_position[group[by_position].argsort(stable=True)]


def _subsets(
    index: Tensor, group: Tensor, code: Tensor, features: Tensor, feature: Tensor, rules: Rules, width: int
) -> Tensor:
    """Which codes go left where the chosen feature is categorical, (A, W); none elsewhere."""
    nodes = len(index)
    if not rules.categorical:
        return torch.zeros(nodes, 0, dtype=torch.bool, device=index.device)
    chosen = group.new_full((nodes * features.shape[1],), -1)  # the last cell that goes left, of each group
    chosen[group[index]] = index
    is_left = torch.arange(len(group), device=group.device) <= chosen[group]
    is_left &= torch.isin(features.flatten()[group], torch.tensor(rules.categorical, device=group.device))
    subset = torch.zeros(nodes, width, dtype=torch.bool, device=index.device)
    subset[(group // features.shape[1])[is_left], code[is_left]] = True
    return subset


def _drawn_thresholds(
    path: Tensor,
    node: Tensor,
    feature: Tensor,
    code: Tensor,
    first: Tensor,
    start: Tensor,
    place: Tensor,
    last: Tensor,
    bins: Bins,
) -> Tensor:
    """A threshold of each cell's group, (M,): uniform between the group's smallest and largest value."""
    u = uniforms(splitmix64(_THRESHOLDS, path[node[start]] + feature[start]), torch.float64)[0]
    low = bins.lower[feature[start], code[start]]
    high = bins.upper[feature[start], code[last]]
    return (low + u * (high - low))[place]


def _drawn_cells(
    drawn: Tensor, feature: Tensor, code: Tensor, start: Tensor, place: Tensor, first: Tensor, last: Tensor, bins: Bins
) -> Tensor:
    """The cell of each group after which the drawn threshold parts it; never the last."""
    below = (bins.upper[feature, code] <= drawn) & ~last
    number = torch.arange(len(code), device=code.device)
    part = start.scatter_reduce(0, place, torch.where(below, number, 0), "amax")
    chosen = torch.zeros_like(below)
    chosen[part] = True
    return chosen & ~last


def _no_splits(total: Tensor, width: int) -> Splits:
    nodes = len(total)
    zero, long = torch.zeros(nodes, dtype=torch.float64, device=total.device), torch.zeros_like(total[:, 0])
    return Splits(
        zero - torch.inf, long, zero, long.clone(), long.bool(), torch.zeros_like(total),
        torch.zeros(nodes, width, dtype=torch.bool, device=total.device),
    )  # fmt: skip


_THRESHOLDS = 0x7EE5  # the stream of the thresholds
