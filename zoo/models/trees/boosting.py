r"""Rounds of boosting on coded rows: each grows a tree for each output on the derivatives that those before it leave.

Letters: N rows, K outputs, M nodes, F features.
Sources: Friedman, "Greedy function approximation: a gradient boosting machine", 2001; Ke et al., "LightGBM", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.models.trees.bins import Bins, Codes
from zoo.models.trees.criteria import Criterion, power_of_two, units_for
from zoo.models.trees.in_memory import grow_trees
from zoo.models.trees.losses import Loss, Step, quantiles
from zoo.models.trees.nodes import Limits, Nodes, root_paths, route
from zoo.models.trees.sparse_codes import SparseCodes
from zoo.models.trees.splits import Rules
from zoo.models.trees.trees import Trees, joined, trees_of
from zoo.numerics.hashing import splitmix64, stream_key, uniforms

__all__ = ["Round", "Rows", "Settings", "boost", "draw"]

_ROWS, _TREES = 0x5A3B, 0x71EE  # streams of draws


class Rows(NamedTuple):
    """Rows in memory: their codes and bins; targets, weights and hashes of the contents, (N,); and which of them train
    no tree but are watched, (N,), bool."""

    codes: Codes | SparseCodes
    bins: Bins
    y: Tensor
    weight: Tensor
    content: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Settings:
    """How the trees of a round are grown.

    Attributes:
        learning_rate: η, what their values are multiplied by.
        limits: when they stop growing.
        min_samples_leaf: rows of a leaf, at least.
        min_hessian: Σ h of a leaf, at least.
        l2: λ, beside Σ h.
        max_samples: share of the rows that each round sees.
        categorical: features whose values are categories.
        monotone: for each feature 1, −1 or 0; or None.
        seed: of the draws.
    """

    learning_rate: float
    limits: Limits
    min_samples_leaf: int = 20
    min_hessian: float = 1e-3
    l2: float = 0.0
    max_samples: float = 1.0
    categorical: tuple[int, ...] = ()
    monotone: tuple[int, ...] | None = None
    seed: int = 0


class Round(NamedTuple):
    """The trees of a round, one for each output, their nodes in any order; the outputs after it, (N, K); and the mean
    losses of the rows that train and of those held out (NaN without any)."""

    trees: Trees
    output: Tensor
    train_loss: float
    val_loss: float


def draw(seed: int, stream: int, content: Tensor, *position: int) -> Tensor:
    """Return a number in (0, 1] for each row, by its content, (N,)."""
    return uniforms(splitmix64(stream_key(seed, stream, *position), content), torch.float64)[0]


def boost(rows: Rows, loss: Loss, settings: Settings, output: Tensor, first: int = 0) -> Iterator[Round]:
    """Yield rounds without end.

    Args:
        rows: to learn from.
        loss: to descend.
        settings: of the trees.
        output: before the first of these rounds, (N, K).
        first: number of the first round, by which rows and features are drawn.
    """
    # Sums are of numbers near 1: powers of two are taken out, so that they neither overflow nor vanish.
    middle, scale = loss.scaling(rows.y)
    weight_scale = power_of_two(float(rows.weight.max()))
    scaled = rows._replace(y=(rows.y - middle) / scale, weight=rows.weight / weight_scale)
    held_out = rows.held_out if bool(rows.held_out.any()) else None
    trains = scaled.weight if held_out is None else scaled.weight.masked_fill(held_out, 0.0)
    weights = [trains.sum(), math.nan if held_out is None else scaled.weight[held_out].sum()]
    output, number = (output - middle) / scale, first
    while True:
        grown = _grow_round(number, scaled, trains, loss, settings, weight_scale, output)
        output, *losses = loss.add_leaves(output, [step for _, step in grown], scaled.y, scaled.weight, held_out)
        train, val = (float(total / weight) for total, weight in zip(losses, weights, strict=True))
        trees, per_unit = joined([tree for tree, _ in grown]), loss.per_unit(scale)
        trees = trees._replace(value=trees.value * scale)
        whole = output if scale == 1.0 and not bool(middle) else output * scale + middle
        yield Round(trees, whole, train * per_unit, val * per_unit)
        number += 1


def _grow_round(
    number: int, rows: Rows, trains: Tensor, loss: Loss, settings: Settings, weight_scale: float, output: Tensor
) -> list[tuple[Trees, Step]]:
    """A tree for each output, on rows of weights `trains` (N,), and what it adds to the outputs of the rows."""
    codes, bins, y, _, content, _ = rows
    weight = trains
    if settings.max_samples < 1:
        seen = draw(settings.seed, _ROWS, content, number) <= settings.max_samples
        weight = torch.where(seen, trains, 0.0)
    grown = []
    for k, (units, sums) in enumerate(loss.sums(output, y, weight)):
        rules = Rules(
            Criterion("newton", units, l2=settings.l2 / weight_scale),
            min_samples_leaf=settings.min_samples_leaf,
            min_weight_leaf=settings.min_hessian / weight_scale,
            categorical=settings.categorical,
            monotone=settings.monotone,
        )
        paths = root_paths(stream_key(settings.seed, _TREES, number, k) % 2**63, 1)
        nodes, leaf = grow_trees(codes, sums, bins, rules, settings.limits, num_trees=1, num_sums=2, paths=paths)
        if int(leaf.amin()) < 0:  # rows that the tree did not see
            leaf = route(nodes, torch.zeros_like(leaf), codes.rows, bins, rules)
        value = None
        if loss.leaf_quantile is not None:
            value = _residual_quantiles(nodes, leaf[0], y - output[:, 0], weight, loss.leaf_quantile)
        trees = trees_of(nodes, 1, rules, bins, value, ordered=False)
        trees = trees._replace(value=trees.value * settings.learning_rate)
        grown.append((trees, Step(leaf[0], trees.value[:, 0])))
    return grown


def _residual_quantiles(nodes: Nodes, leaf: Tensor, residual: Tensor, weight: Tensor, q: float) -> Tensor:
    """The quantile of the residuals of each leaf, (M, 1)."""
    there, fixed = weight > 0, units_for(len(weight), 1.0).fixed_weight(weight)
    return quantiles(leaf[there], residual[there], fixed[there], q, len(nodes.child)).unsqueeze(1)
