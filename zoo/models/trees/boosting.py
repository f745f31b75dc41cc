r"""Rounds of boosting on coded rows: each grows a tree for each output on the derivatives that those before it leave.

Letters: N rows, K outputs, M nodes, F features.
Sources: Friedman, "Greedy function approximation: a gradient boosting machine", 2001; Ke et al., "LightGBM", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.kernels import boosting as kernel
from zoo.kernels import rounds
from zoo.models.trees.bins import Bins, Codes
from zoo.models.trees.criteria import Criterion, Units, power_of_two, units_for
from zoo.models.trees.in_memory import codes_for_kernel, grow_trees, mask_of, trees_of_kernel, whole_limits
from zoo.models.trees.losses import Loss, Step, quantiles
from zoo.models.trees.nodes import Limits, root_paths
from zoo.models.trees.sparse_codes import SparseCodes
from zoo.models.trees.splits import Rules
from zoo.models.trees.trees import Trees, clipped, joined
from zoo.numerics.hashing import splitmix64, stream_key, uniforms

__all__ = ["Rounds", "Rows", "Settings", "boost", "draw"]

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


class Rounds(NamedTuple):
    """The trees of some rounds, one for each output in each; the outputs after the last, (N, K); and the mean losses of
    the rows that train, and of those held out (NaN without any), after each."""

    trees: Trees
    output: Tensor
    train_losses: list[float]
    val_losses: list[float]


def draw(seed: int, stream: int, content: Tensor, *position: int) -> Tensor:
    """Return a number in (0, 1] for each row, by its content, (N,)."""
    return uniforms(splitmix64(stream_key(seed, stream, *position), content), torch.float64)[0]


def boost(
    rows: Rows, loss: Loss, settings: Settings, output: Tensor, numbers: range, together: int
) -> Iterator[Rounds]:
    """Yield rounds, some at a time.

    Args:
        rows: to learn from.
        loss: to descend.
        settings: of the trees.
        output: before the first of these rounds, (N, K).
        numbers: of the rounds, by which rows and features are drawn.
        together: rounds at a time, at most; which changes nothing but the time that they take.
    """
    # Sums are of numbers near 1: powers of two are taken out, so that they neither overflow nor vanish.
    middle, scale = loss.scaling(rows.y)
    weight_scale = power_of_two(float(rows.weight.max()))
    scaled = rows._replace(y=(rows.y - middle) / scale, weight=rows.weight / weight_scale)
    held_out = rows.held_out if bool(rows.held_out.any()) else None
    trains = scaled.weight if held_out is None else scaled.weight.masked_fill(held_out, 0.0)
    weights = torch.stack([trains.sum(), trains.sum() if held_out is None else scaled.weight[held_out].sum()])
    shown = torch.tensor([1.0, math.nan if held_out is None else 1.0], dtype=torch.float64, device=weights.device)
    output, per_unit = (output - middle) / scale, loss.per_unit(scale)
    compiled = _knows(rows, loss, settings, output)
    together = _at_once(rows, settings, output, together) if compiled else 1
    for first in range(numbers.start, numbers.stop, together):
        some = numbers[first - numbers.start :][:together]
        if compiled:
            trees, output, losses = _by_kernel(some, scaled, trains, held_out, loss, settings, weight_scale, output)
        else:
            grown = _grow_round(first, scaled, trains, loss, settings, weight_scale, output)
            output, *both = loss.add_leaves(output, [step for _, step in grown], scaled.y, scaled.weight, held_out)
            trees, losses = joined([tree for tree, _ in grown]), torch.stack(both).unsqueeze(0)
        trees = trees._replace(value=trees.value * scale)
        whole = output if scale == 1.0 and not bool(middle) else output * scale + middle
        yield Rounds(trees, whole, *((losses / weights * shown) * per_unit).T.tolist())


def _knows(rows: Rows, loss: Loss, settings: Settings, output: Tensor) -> bool:
    """Whether the kernel grows such rounds."""
    kind = loss.name == "log_loss" or (loss.name in kernel.LOSSES and output.shape[1] == 1)
    narrow = not isinstance(rows.codes, SparseCodes) and rows.bins.missing < 256  # as codes of categories must be
    others = settings.monotone is not None or (settings.categorical and not narrow) or not len(rows.bins.number)
    return kind and not others and rounds.available(output)


def _at_once(rows: Rows, settings: Settings, output: Tensor, together: int) -> int:
    """How many rounds the kernel grows at a time: one where each sees other rows."""
    if settings.max_samples < 1:
        return 1
    limits = whole_limits(settings.limits, len(rows.bins.number))
    leaf, depth, leaves = settings.min_samples_leaf, limits.max_depth, limits.max_leaf_nodes
    return min(together, rounds.at_once(len(output), output.shape[1], depth, leaf, leaves))


def _by_kernel(
    numbers: range, rows: Rows, trains: Tensor, held_out: Tensor | None, loss: Loss, settings: Settings,
    weight_scale: float, output: Tensor,
) -> tuple[Trees, Tensor, Tensor]:  # fmt: skip
    """Some rounds by the compiled kernel: their trees, the outputs after them, and the sums of the losses, (R, 2)."""
    bins, num_outputs = rows.bins, output.shape[1]
    limits, l2 = whole_limits(settings.limits, len(bins.number)), settings.l2 / weight_scale
    paths = torch.zeros(len(numbers) * num_outputs, dtype=torch.int64)
    if limits.max_features < len(bins.number):
        paths = torch.cat([_root(settings, number, k) for number in numbers for k in range(num_outputs)])
    after, losses, units, *grown = rounds.boost_rounds(
        *codes_for_kernel(rows.codes),
        bins.lower,
        bins.upper,
        mask_of(settings.categorical, len(bins.number)),
        kernel.LOSSES.index(loss.name),
        output,
        rows.y,
        _seen(numbers[0], rows, trains, settings),
        rows.weight,
        held_out,
        paths,
        settings.learning_rate,
        l2,
        limits.max_depth,
        limits.max_leaf_nodes,
        limits.max_features,
        settings.min_samples_leaf,
        settings.min_hessian / weight_scale,
        settings.limits.min_gain,
    )
    root, feature = grown[:2]
    unit = units.repeat_interleave(torch.cat([root[1:], root.new_tensor([len(feature)])]) - root, dim=0)
    of_leaves: Any = unit[:, 0], unit[:, 1:]
    criterion = Criterion("newton", Units(units_for(len(rows.y), 1.0).count_bits, *of_leaves), l2=l2)
    trees = trees_of_kernel(grown, criterion, bins, settings.categorical)
    return trees._replace(value=trees.value * settings.learning_rate), after, losses


def _root(settings: Settings, number: int, output: int) -> Tensor:
    """The hash that the tree of a round and an output begins with, (1,)."""
    return root_paths(stream_key(settings.seed, _TREES, number, output) % 2**63, 1)


def _seen(number: int, rows: Rows, trains: Tensor, settings: Settings) -> Tensor:
    """The weights of the rows that a round sees, (N,)."""
    if settings.max_samples == 1:
        return trains
    return torch.where(draw(settings.seed, _ROWS, rows.content, number) <= settings.max_samples, trains, 0.0)


def _grow_round(
    number: int, rows: Rows, trains: Tensor, loss: Loss, settings: Settings, weight_scale: float, output: Tensor
) -> list[tuple[Trees, Step]]:
    """A tree for each output, on rows of weights `trains` (N,), and what it adds to the outputs of the rows."""
    codes, bins, y = rows[:3]
    weight = _seen(number, rows, trains, settings)
    grown = []
    for k, (units, sums) in enumerate(loss.sums(output, y, weight)):
        rules = Rules(
            Criterion("newton", units, l2=settings.l2 / weight_scale),
            min_samples_leaf=settings.min_samples_leaf,
            min_weight_leaf=settings.min_hessian / weight_scale,
            categorical=settings.categorical,
            monotone=settings.monotone,
        )
        paths = _root(settings, number, k)
        trees, leaf = grow_trees(codes, sums, bins, rules, settings.limits, num_trees=1, num_sums=2, paths=paths)
        if loss.leaf_quantile is not None:
            value = _residual_quantiles(trees, leaf[0], y - output[:, 0], weight, loss.leaf_quantile)
            trees = clipped(trees._replace(value=value), rules.monotone)
        trees = trees._replace(value=trees.value * settings.learning_rate)
        grown.append((trees, Step(leaf[0], trees.value[:, 0])))
    return grown


def _residual_quantiles(trees: Trees, leaf: Tensor, residual: Tensor, weight: Tensor, q: float) -> Tensor:
    """The quantile of the residuals of each leaf, (M, 1)."""
    there, fixed = weight > 0, units_for(len(weight), 1.0).fixed_weight(weight)
    return quantiles(leaf[there], residual[there], fixed[there], q, len(trees.left)).unsqueeze(1)
