"""How far what a model says can be trusted: folds, curves over sizes and settings, reliability, and the parts of error.

Letters: J folds, V values, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.visual.style import INK, class_colors, names_of, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bands", "error_parts", "folds", "importance_ranges", "reliability"]


def folds(values: Sequence[float], mean: float, between: tuple[float, float], metric: str) -> Figure:
    """Draw a metric of each fold as a point, with the mean and its interval.

    Args:
        values: of each fold, (J,).
        mean: of the folds.
        between: the interval about it.
        metric: its name.

    Example:
        >>> folds([0.8, 0.9], 0.85, (0.7, 1.0), "accuracy").axes[0].get_ylabel()
        'accuracy'
    """
    with new_figure(5.2, 3.4) as (figure, axes):
        axes.plot(range(1, len(values) + 1), values, "o", color=class_colors(1)[0])
        axes.axhline(mean, color=INK)
        if between[0] == between[0]:
            axes.axhspan(*between, color=INK, alpha=0.08, linewidth=0)
        axes.grid(True)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="fold", ylabel=metric)
        axes.set_title(f"{metric} {mean:.4g}, 95 % interval {between[0]:.4g} to {between[1]:.4g}")
    return figure


def bands(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: Sequence[Any],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log_x: bool = False,
) -> Figure:
    """Draw means as lines, each within a band of its deviation.

    Args:
        series: name → means and deviations, (V,) each.
        x: where they stand, (V,): numbers, or names.
        title: what is shown.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        log_x: a logarithmic horizontal axis.

    Example:
        >>> len(bands({"training": ([1.0, 0.9], [0.0, 0.1])}, [10, 20]).axes[0].lines)
        1
    """
    with new_figure(5.2, 3.4) as (figure, axes):
        places = _places(axes, x)
        for (name, (mean, deviation)), color in zip(series.items(), class_colors(len(series)), strict=True):
            middle, spread = to_numpy(mean), to_numpy(deviation)
            axes.plot(places, middle, color=color, marker="o", markersize=3.5, label=name)
            axes.fill_between(places, middle - spread, middle + spread, color=color, alpha=0.15, linewidth=0)
        axes.grid(True)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear")
        axes.set_title(title)
        axes.legend()
    return figure


def _places(axes: Any, x: Sequence[Any]) -> Sequence[float]:
    """Return where values stand: numbers where they are such, else side by side under their names."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in x):
        return list(x)
    axes.set_xticks(range(len(x)), names_of([str(value) for value in x], len(x)))
    return range(len(x))


def error_parts(parts: Mapping[str, Sequence[float]], x: Sequence[Any], parameter: str, ylabel: str) -> Figure:
    """Draw the parts of the error and the error itself over a parameter, or as bars where there is one value of it.

    Args:
        parts: name → values, (V,); the last one is the whole error.
        x: values of the parameter, (V,).
        parameter: its name.
        ylabel: what the error is.

    Example:
        >>> figure = error_parts({"bias²": [2.0, 0.0], "error": [2.0, 1.0]}, [1, 9], "depth", "squared error")
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['bias²', 'error']
    """
    with new_figure(5.2, 3.4) as (figure, axes):
        colors = [*class_colors(len(parts) - 1), INK]
        if len(x) == 1:
            axes.bar(list(parts), [values[0] for values in parts.values()], color=colors)
        else:
            places = _places(axes, x)
            for (name, values), color in zip(parts.items(), colors, strict=True):
                axes.plot(places, to_numpy(values), color=color, marker="o", markersize=3.5, label=name)
            axes.legend()
            axes.set_xlabel(parameter)
        axes.grid(True, axis="y")
        axes.set_ylabel(ylabel)
        axes.set_title(titled("bias and variance"))
    return figure


def reliability(
    said: Sequence[float], right: Sequence[float], counts: Sequence[int], title: str = "", what: str = "right"
) -> Figure:
    """Draw how often answers are right that were said with some confidence, and how many of them there are.

    Args:
        said: mean confidence of each bin, (B,); NaN of an empty one.
        right: share of right answers, (B,).
        counts: answers in each, (B,).
        title: what is shown.
        what: what an answer is that counts.

    Example:
        >>> len(reliability([0.2, 0.9], [0.3, 0.8], [10, 40]).axes)
        2
    """
    with new_figure(4.4, 4.8, 2, 1, sharex=True, height_ratios=[3, 1]) as (figure, (axes, below)):
        x, y, heights = to_numpy(said), to_numpy(right), to_numpy(counts)
        there = heights > 0
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
        axes.plot(x[there], y[there], color=class_colors(1)[0], marker="o")
        axes.set(ylabel=f"share that is {what}", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(True)
        axes.set_title(titled(title))
        below.bar(x[there], heights[there], width=0.6 / max(1, len(x)), color=class_colors(1)[0])
        below.set(xlabel="probability that was said", ylabel="answers", yscale="log", ylim=(0.7, None))
    return figure


def importance_ranges(mean: Any, std: Any, names: Sequence[str], metric: str, limit: int = 20) -> Figure:
    """Draw how much a score falls with each feature, the largest first, with the deviation over the repeats.

    Args:
        mean: of each feature, (F,).
        std: the same.
        names: of the features.
        metric: the score that falls.
        limit: the most features.

    Example:
        >>> importance_ranges([0.1, 0.4], [0.0, 0.1], ["a", "b"], "accuracy").axes[0].get_yticklabels()[0].get_text()
        'a'
    """
    heights, spread = to_numpy(mean), to_numpy(std)
    order = heights.argsort()[-limit:]
    with new_figure(5.2, 0.9 + 0.27 * len(order)) as (figure, axes):
        axes.barh(range(len(order)), heights[order], xerr=spread[order], color=class_colors(1)[0], ecolor=INK)
        axes.set_yticks(range(len(order)), names_of([names[i] for i in order], len(order)))
        axes.set_xlabel(f"fall of the {metric}")
        axes.grid(True, axis="x")
        axes.set_title(titled("permutation importance"))
    return figure
