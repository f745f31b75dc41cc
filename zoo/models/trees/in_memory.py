r"""Growing trees on coded rows in memory: by passes of torch operations, or by the compiled kernel, to the same bits.

Letters: T trees, N rows, F features, W codes, S sums, M nodes.
Source: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kernels import trees as kernel
from zoo.models.trees.bins import Bins, Codes, codes_of_rows, midpoint
from zoo.models.trees.nodes import LEAF, OPEN, SPLIT, Limits, Nodes, RowSums, is_open, root_paths, roots, route
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

__all__ = ["grow", "grow_trees"]


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
    by_median = criterion.name == "absolute_error"
    if isinstance(codes, SparseCodes) and (rules.categorical or rules.random_thresholds or by_median):
        codes = codes_of_rows(codes.rows)
    wide = rules.categorical and (rules.random_thresholds or by_median or bins.missing > 255)
    known = criterion.name in kernel.CRITERIA and not wide and num_features > 0
    if not known or not kernel.available(rows.weight.device):
        return grow(codes.rows, rows, bins, rules, limits, num_trees=num_trees, num_sums=num_sums, paths=paths)
    start, *columns, leaf = kernel.grow_trees(
        *_for_kernel(codes),
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


def _for_kernel(codes: Codes | SparseCodes) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Codes column by column and row by row, or what sparse rows store."""
    if isinstance(codes, Codes):
        return codes.columns, codes.rows, []
    none = torch.zeros(0, 0, dtype=torch.uint8)
    return none, none, [getattr(codes, name) for name in kernel.ENTRIES]


def _mask(features: tuple[int, ...], num_features: int) -> Tensor:
    return torch.zeros(num_features, dtype=torch.uint8).index_fill_(0, torch.tensor(features), 1)


def _bits(words: Tensor, number: int) -> Tensor:
    """The first bits of words (M, 4), (M, number)."""
    return ((words.unsqueeze(2) >> torch.arange(64)) & 1).bool().flatten(1)[:, :number]


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
