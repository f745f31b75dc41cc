"""How well a classifier's probabilities rank rows, over all thresholds: ROC and precision–recall curves.

Letters: B examples, C classes, T thresholds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo.visual.style import SOFT, class_colors, names_of, new_figure, thin, titled, to_numpy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["ThresholdCurve", "precision_recall", "roc", "threshold_curve"]

CURVES = 10  # classes that are drawn
POINTS = 4000  # of a curve: more would lie on one another


class ThresholdCurve(NamedTuple):
    """What happens as the threshold falls from above the highest score, where nothing is found, to the lowest.

    Attributes:
        found: share of the positive rows at or above each threshold, the recall, (T,).
        false: share of the negative rows there, (T,).
        precision: share of positives among the rows there, (T,); 1 where there are none.
        area: below `found` over `false` (ROC AUC).
        average_precision: Σ (found_t − found_{t−1}) precision_t.
    """

    found: Tensor
    false: Tensor
    precision: Tensor
    area: float
    average_precision: float


def threshold_curve(positive: Tensor, score: Tensor) -> ThresholdCurve:
    """Return the curve of scores (B,) for rows of which some are positive (B,); equal scores share a threshold.

    Example:
        >>> curve = threshold_curve(torch.tensor([True, False, True]), torch.tensor([0.9, 0.5, 0.1]))
        >>> curve.area, round(curve.average_precision, 4)
        (0.5, 0.8333)
    """
    order = score.double().argsort(descending=True, stable=True)
    score, hits = score.double()[order], positive[order].double()
    last = torch.ones(len(score), dtype=torch.bool, device=score.device)
    last[:-1] = score[1:] != score[:-1]
    true, at = hits.cumsum(0)[last], torch.arange(1, len(score) + 1, dtype=torch.float64, device=score.device)[last]
    none = true.new_zeros(1)
    found = torch.cat([none, true / hits.sum()])
    false = torch.cat([none, (at - true) / (len(hits) - hits.sum())])
    precision = torch.cat([none + 1, true / at])
    area = torch.trapezoid(found, false)
    return ThresholdCurve(found, false, precision, float(area), float(found.diff() @ precision[1:]))


def roc(y: Tensor, probability: Tensor, spec: DataSpec) -> Figure:
    """Draw the share of each class's rows that is found over the share of the other rows taken for it.

    Args:
        y: true classes, (B,).
        probability: of each class, (B, C); of two classes the second is drawn, of more each against the rest.
        spec: names the classes.
    """
    with new_figure(5.4, 4.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        areas = []
        for name, color, curve in _curves(y, probability, spec):
            areas.append(curve.area)
            if len(areas) <= CURVES:
                at = thin(len(curve.found), POINTS)
                axes.plot(
                    *map(to_numpy, (curve.false[at], curve.found[at])), color=color, label=f"{name}: {curve.area:.3f}"
                )
        _finish(axes, areas, "ROC", "area", "share of the other rows taken for it", "share of the class found")
        axes.legend(loc="lower right", title=_said_of(areas, "area"), title_fontsize=9)
    return figure


def precision_recall(y: Tensor, probability: Tensor, spec: DataSpec) -> Figure:
    """Draw the precision over the recall of each class; arguments are those of `roc`."""
    with new_figure(5.4, 4.4) as (figure, axes):
        averages = []
        for name, color, curve in _curves(y, probability, spec):
            label = f"{name}: {curve.average_precision:.3f}"
            averages.append(curve.average_precision)
            if len(averages) <= CURVES:
                at = thin(len(curve.found), POINTS)
                # Between two thresholds the precision is that of the lower one.
                axes.step(*map(to_numpy, (curve.found[at], curve.precision[at])), where="pre", color=color, label=label)
        names = "recall (share of the class found)", "precision (share that is right)"
        _finish(axes, averages, "precision–recall", "average precision", *names)
        axes.legend(loc="lower left", title=_said_of(averages, "average precision"), title_fontsize=9)
    return figure


def _curves(y: Tensor, probability: Tensor, spec: DataSpec) -> Iterator[tuple[str, str, ThresholdCurve]]:
    """The name, colour and curve of each class that some rows have and some have not."""
    y, probability = y.cpu(), probability.detach().cpu()
    count = probability.shape[1]
    names, colors = names_of(spec.class_names, count, "class "), class_colors(count)
    there = [c for c in ([1] if count == 2 else range(count)) if 0 < int((y == c).sum()) < len(y)]
    return ((names[c], colors[c], threshold_curve(y == c, probability[:, c])) for c in there)


def _said_of(values: list[float], what: str) -> str:
    drawn = f" (the first {CURVES} of {len(values)})" if len(values) > CURVES else ""
    return f"{what}, each against the rest{drawn}" if len(values) > 1 else what


def _finish(axes: Axes, values: list[float], what: str, mean_of: str, xlabel: str, ylabel: str) -> None:
    mean = f"mean {mean_of}" if len(values) > 1 else mean_of
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(titled(f"{what}, {mean} {sum(values) / max(1, len(values)):.4f}"))
    axes.grid(True)
