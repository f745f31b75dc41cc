"""A function of two numbers as a map, and ways across it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, SOFT, class_colors, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["surface"]

LEVELS = 18


def surface(
    heights: Tensor,
    across: Tensor,
    up: Tensor,
    paths: Mapping[str, Tensor],
    *,
    axes: Sequence[str] = ("", ""),
    title: str = "",
) -> Figure:
    """Draw contours of a surface, closer towards its lowest point, and paths on it, each from a circle to a cross.

    Args:
        heights: (U, A), with NaN where there is none.
        across: where its columns stand, (A,).
        up: where its rows stand, (U,).
        paths: points (N, 2) of each path by name.
        axes: the names of both axes.
        title: what is shown.

    Example:
        >>> import torch
        >>> side = torch.linspace(-1, 1, 9)
        >>> figure = surface(side**2 + side[:, None] ** 2, side, side, {"sgd": torch.tensor([[1.0, 1.0], [0.1, 0.0]])})
        >>> len(figure.axes[0].lines)
        1
    """
    import numpy as np

    values, columns, rows = to_numpy(heights), to_numpy(across), to_numpy(up)
    low, high = np.nanmin(values), np.nanmax(values)
    levels = low + max(high - low, 1e-300) * np.linspace(0, 1, LEVELS + 1) ** 2  # of a quadratic evenly spaced
    with new_figure(5.6, 4.6) as (figure, plot):
        plot.contourf(columns, rows, values, levels=levels, cmap="Greys", alpha=0.35)
        plot.contour(columns, rows, values, levels=levels[1:], colors=SOFT, linewidths=0.5)
        for (name, path), color in zip(paths.items(), class_colors(len(paths)), strict=True):
            points = to_numpy(path)
            few = "." if len(points) <= 60 else None
            over = 2 + 1 / len(points)  # a way of few points over one of many
            line = {"color": color, "linewidth": 1.2, "marker": few, "markersize": 4, "zorder": over}
            plot.plot(points[:, 0], points[:, 1], label=name, **line)
            plot.scatter(*points[-1:].T, color=color, marker="X", s=50, edgecolor="white", linewidth=0.6, zorder=4)
            plot.scatter(*points[:1].T, facecolor="white", edgecolor=INK, s=30, zorder=4)
        plot.set(xlabel=axes[0], ylabel=axes[1], xlim=(columns[0], columns[-1]), ylim=(rows[0], rows[-1]))
        plot.set_title(title)
        if any(paths):
            plot.legend()
    return figure
