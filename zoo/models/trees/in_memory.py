r"""Growing trees on coded rows in memory: by passes of torch operations, or by the compiled kernel, to the same bits.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
Source: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import trees as kernel
from zoo.models.trees.bins import Bins, Codes, codes_of_rows
from zoo.models.trees.criteria import Criterion
from zoo.models.trees.nodes import OPEN, Limits, Nodes, RowSums, is_open, root_paths, roots, route
from zoo.models.trees.passes import (
    Plan,
    add_rows,
    contributions,
    draw_features,
    end_pass,
    plan_pass,
    subtract,
    total_of,
)
from zoo.models.trees.sparse_codes import SparseCodes
from zoo.models.trees.splits import Cells, Rules, cells_of_histogram, cells_of_rows
from zoo.models.trees.trees import Trees, categories, clipped, trees_of

__all__ = ["codes_for_kernel", "grow", "grow_trees", "mask_of", "trees_of_kernel", "whole_limits"]


class WholeLimits(NamedTuple):
    """Limits in numbers alone: −1 for none, and how many features are looked at."""

    max_depth: int
    max_leaf_nodes: int
    max_features: int


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
            plan, kept = _plan_rows(nodes, bins, rules, limits), None
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


def _plan_rows(nodes: Nodes, bins: Bins, rules: Rules, limits: Limits) -> Plan:
    """Return a plan that is limited by the number of rows instead of that of bins."""
    num_features = len(bins.number)
    places = min(limits.max_features or num_features, num_features)
    open_ = (nodes.status == OPEN).nonzero()[:, 0]
    values = rules.criterion.count(nodes.sums[open_]).cumsum(0) * places
    active = open_[: max(1, int((values <= limits.histogram_size).sum()))]
    features = draw_features(nodes.path[active], nodes.draws[active], num_features, places)
    return Plan(active, features, active.new_zeros(0, 3))


def _sorted_cells(
    plan: Plan, at: Tensor, codes: Tensor, amounts: Tensor, index: Tensor | None, width: int, num_sums: int
) -> Cells:
    found = list(contributions(plan, at, codes, amounts, index, width))
    places = [place if isinstance(place, Tensor) else torch.full_like(cell, place) for cell, place, _ in found]
    none = amounts.new_zeros(0)
    return cells_of_rows(
        torch.cat([none, *(cell for cell, _, _ in found)]), torch.cat([none, *places]),
        torch.cat([none, *(amount for _, _, amount in found)]), num_sums,
    )  # fmt: skip


def grow_trees(
    codes: Codes | SparseCodes,
    rows: RowSums,
    bins: Bins,
    rules: Rules,
    limits: Limits,
    *,
    num_trees: int,
    num_sums: int,
    paths: Tensor | None = None,
    leaves: bool = True,
) -> tuple[Trees, Tensor]:
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
        The trees, and the leaf of each row in each tree, (T, N); with the kernel none where `leaves` is false.
    """
    criterion, drawn, num_features = rules.criterion, rows.bootstrap, len(bins.number)
    by_median = criterion.name == "absolute_error"
    if isinstance(codes, SparseCodes) and (rules.categorical or rules.random_thresholds or by_median):
        codes = codes_of_rows(codes.rows)
    wide = rules.categorical and (rules.random_thresholds or by_median or bins.missing > 255)
    known = criterion.name in kernel.CRITERIA and not wide and num_features > 0
    if not known or not kernel.available(rows.weight.device):
        nodes, leaf = grow(codes.rows, rows, bins, rules, limits, num_trees=num_trees, num_sums=num_sums, paths=paths)
        return trees_of(nodes, num_trees, rules, bins, leaf)
    whole = whole_limits(limits, num_features)
    *grown, leaf = kernel.grow_trees(
        *codes_for_kernel(codes),
        bins.lower,
        bins.upper,
        rows.weight,
        rows.place,
        rows.gradient,
        criterion.values,
        None if drawn is None else drawn.content,
        None if drawn is None else drawn.keys,
        None if drawn is None else drawn.thresholds,
        root_paths(0, num_trees) if paths is None else paths,
        None if rules.monotone is None else torch.tensor(rules.monotone, dtype=torch.int8),
        mask_of(rules.categorical, num_features),
        num_sums,
        kernel.CRITERIA.index(criterion.name),
        criterion.units.count_bits,
        criterion.units.weight,
        criterion.units.gradient,
        criterion.l2,
        whole.max_depth,
        limits.min_samples_split,
        rules.min_samples_leaf,
        whole.max_leaf_nodes,
        whole.max_features,
        rules.random_thresholds,
        rules.min_weight_leaf,
        limits.min_gain,
        leaves,
    )
    return clipped(trees_of_kernel(grown, criterion, bins, rules.categorical), rules.monotone), leaf


def trees_of_kernel(grown: Sequence[Tensor], criterion: Criterion, bins: Bins, categorical: tuple[int, ...]) -> Trees:
    """Return what the kernel grew as trees.

    Args:
        grown: as `zoo.kernels.trees.grow_trees` returns it, without the leaves of the rows.
        criterion: of the sums.
        bins: of the features.
        categorical: features whose values are categories.
    """
    root, feature, left, depth, threshold, gain, missing_left, subset, sums = grown
    value, weight, num_rows = criterion.leaves(sums)
    category = categories(bins, categorical)
    questions = root, feature, threshold, missing_left, left
    return Trees(*questions, value, gain, weight, num_rows, depth, subset, category)


def codes_for_kernel(codes: Codes | SparseCodes) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Codes column by column and row by row, or what sparse rows store."""
    if isinstance(codes, Codes):
        return codes.columns, codes.rows, []
    none = torch.zeros(0, 0, dtype=torch.uint8)
    return none, none, [getattr(codes, name) for name in kernel.ENTRIES]


def mask_of(features: tuple[int, ...], num_features: int) -> Tensor | None:
    """Return which features they are, (F,), uint8; None for none."""
    if not features:
        return None
    return torch.zeros(num_features, dtype=torch.uint8).index_fill_(0, torch.tensor(features), 1)


def whole_limits(limits: Limits, num_features: int) -> WholeLimits:
    """Return limits as the kernel takes them."""
    return WholeLimits(
        -1 if limits.max_depth is None else limits.max_depth,
        -1 if limits.max_leaf_nodes is None else limits.max_leaf_nodes,
        min(limits.max_features or num_features, num_features),
    )
