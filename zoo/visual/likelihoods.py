"""What tells classes apart, feature by feature: densities, and log-odds as bars.

Letters: B rows, C classes, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.visual.style import INK, SOFT, class_colors, names_of, new_figure, thin, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["class_separation", "densities", "telling_features"]

PANELS = 12  # classes that are drawn
TICKS = 300  # rows of a class that are marked
STEPS = 400  # points of a curve


def class_separation(mean: Tensor, variance: Tensor, share: Tensor) -> Tensor:
    """Variance of the class means over the mean variance within classes, of each feature.

    Args:
        mean: (C, F).
        variance: (C, F).
        share: how common each class is, (C,).

    Returns:
        (F,).

    Example:
        >>> class_separation(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.ones(2, 2), torch.tensor([0.5, 0.5]))
        tensor([1., 0.])
    """
    between = share @ (mean - share @ mean).square()
    within = share @ variance
    return torch.where(within > 0, between / within, 0.0)


def densities(
    mean: Tensor, variance: Tensor, share: Tensor, spec: DataSpec, x: Tensor, y: Tensor | None = None, limit: int = 4
) -> Figure:
    """Draw the normal density of each class for the features that tell the classes apart best, and rows as ticks.

    Args:
        mean: means of the classes, (C, F).
        variance: variances, (C, F); classes of which all are infinite are left out, and so are features whose variance
            overflows in one of the others.
        share: how common each class is, (C,).
        spec: names the features and the classes.
        x: rows that are marked below the curves, (B, F).
        y: their classes (B,), or None.
        limit: features at most.
    """
    mean, variance, share, x = (t.detach().cpu().double() for t in (mean, variance, share, x))
    drawn = torch.isfinite(variance).any(1).nonzero().flatten().tolist()
    ratio = class_separation(mean[drawn], variance[drawn], share[drawn] / share[drawn].sum())
    sound = (torch.isfinite(mean[drawn]) & torch.isfinite(variance[drawn])).all(0)
    best = [f for f in ratio.argsort(descending=True, stable=True).tolist() if bool(sound[f])][:limit]
    if not best:
        raise ZooError("No feature has a variance that float64 can hold in its own units.")
    columns = min(2, len(best))
    rows = -(-len(best) // columns)
    names, features = names_of(spec.class_names, len(mean)), names_of(spec.feature_names, mean.shape[1], "feature ")
    with new_figure(3.7 * columns + 0.9, 2.5 * rows + 0.3, rows, columns, squeeze=False) as (figure, panels):
        for feature, axes in zip(best, panels.flat, strict=False):
            _curves(axes, mean[drawn, feature], variance[drawn, feature].sqrt(), drawn, len(mean))
            _ticks(axes, x[:, feature], None if y is None else y.cpu(), len(mean))
            axes.set(xlabel=features[feature], yticks=[])
            axes.spines["left"].set_visible(False)
        for axes in list(panels.flat)[len(best) :]:
            axes.set_visible(False)
        lines = panels.flat[0].get_lines()[: len(drawn)]
        figure.legend(lines, [names[label] for label in drawn], loc="outside right upper")
        chosen = f", the {len(best)} of {mean.shape[1]} features that tell them apart best"
        figure.suptitle(
            titled("density of each class" + (chosen if len(best) < mean.shape[1] else "")),
            x=0.01, ha="left", fontsize=11, color=INK,
        )  # fmt: skip
    return figure


def _curves(axes: Axes, mean: Tensor, deviation: Tensor, labels: list[int], count: int) -> None:
    """Draw normal densities, each filled; a feature that is constant in every class has none."""
    low, high = float((mean - 3.5 * deviation).min()), float((mean + 3.5 * deviation).max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    grid = torch.linspace(low, high, STEPS, dtype=torch.float64)
    top = 0.0
    for label, center, spread in zip(labels, mean, deviation.clamp_min((high - low) / STEPS), strict=True):
        color = class_colors(count)[label]
        height = torch.exp(-0.5 * ((grid - center) / spread).square()) / (spread * math.sqrt(2 * math.pi))
        axes.plot(to_numpy(grid), to_numpy(height), color=color)
        axes.fill_between(to_numpy(grid), to_numpy(height), color=color, alpha=0.12, linewidth=0)
        top = max(top, float(height.max()))
    axes.set(xlim=(low, high), ylim=(-0.12 * top, 1.05 * top))


def _ticks(axes: Axes, values: Tensor, y: Tensor | None, count: int) -> None:
    """Mark values below the axis, each in the colour of its class."""
    bottom = axes.get_ylim()[0]
    groups = [(values, SOFT)] if y is None else [(values[y == c], color) for c, color in enumerate(class_colors(count))]
    for group, color in groups:
        shown = to_numpy(group[thin(len(group), TICKS)])
        axes.vlines(shown, bottom, 0.25 * bottom, color=color, linewidth=0.7, alpha=0.6)


def telling_features(
    log_odds: Tensor,
    occurrences: Tensor,
    features: Sequence[str],
    spec: DataSpec,
    limit: int = 10,
) -> Figure:
    """Draw the features that speak most for each class as bars of their log-odds against the other classes.

    Those that speak most are often in the class and rarely elsewhere: the largest products of log-odds and occurrences.

    Args:
        log_odds: by how much an occurrence moves the score of a class above the mean of the others, (C, F).
        occurrences: how often each feature occurs in a class, (C, F).
        features: their names.
        spec: names the classes.
        limit: bars a class at most; 12 classes are drawn.
    """
    log_odds, occurrences = (t.detach().cpu().double() for t in (log_odds, occurrences))
    classes, names = min(PANELS, len(log_odds)), names_of(spec.class_names, len(log_odds), "class ")
    labels, colors = names_of(features, log_odds.shape[1]), class_colors(len(log_odds))
    columns = min(4, classes)
    rows = -(-classes // columns)
    bars = min(limit, log_odds.shape[1])
    height = (0.2 * bars + 0.75) * rows + 0.6
    with new_figure(2.8 * columns, height, rows, columns, squeeze=False, sharex=True) as (figure, panels):
        for label, axes in enumerate(panels.flat):
            if label >= classes:
                axes.set_visible(False)
                continue
            weight = occurrences[label] * log_odds[label]
            best = weight.argsort(descending=True, stable=True)[:bars]
            best = best[weight[best] > 0].flip(0)
            places = range(bars - len(best), bars)
            axes.barh(places, to_numpy(log_odds[label, best]), color=colors[label], height=0.7)
            axes.set_yticks(places, [labels[i] for i in best.tolist()])
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.set_ylim(-0.6, bars - 0.4)
            axes.set_title(names[label])
            axes.grid(True, axis="x")
        figure.supxlabel("log-odds of an occurrence against the other classes", fontsize=10, color=INK)
    return figure
