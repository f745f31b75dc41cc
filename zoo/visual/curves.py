"""Curves: one or several series over a common axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.visual.style import class_colors, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve"]


def curve(
    values: Mapping[str, Any] | Sequence[float] | Any,
    x: Any = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log_y: bool = False,
    log_x: bool = False,
) -> Figure:
    """Draw one series, or several by name, each a line; few points are marked too.

    Args:
        values: a series (N,), or a mapping of names to series.
        x: where the values stand, (N,); 0, 1, 2, … by default.
        title: what is shown.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        log_y: a logarithmic vertical axis.
        log_x: a logarithmic horizontal axis.

    Example:
        >>> figure = curve({"train": [3.0, 2.0], "test": [3.0, 2.5]}, xlabel="epoch", ylabel="loss")
        >>> len(figure.axes[0].lines)
        2
    """
    series = dict(values) if isinstance(values, Mapping) else {"": values}
    with new_figure(5.2, 3.4) as (figure, axes):
        for (name, line), color in zip(series.items(), class_colors(len(series)), strict=True):
            heights = to_numpy(line)
            places = range(len(heights)) if x is None else to_numpy(x)
            axes.plot(
                places,
                heights,
                color=color,
                marker="o" if len(heights) <= 30 else None,
                markersize=3.5,
                label=name,
            )
        axes.grid(True)
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log_y else "linear", xscale="log" if log_x else "linear")
        axes.set_title(title)
        if len(series) > 1:
            axes.legend()
    return figure
