"""Pictures of decompositions.

Letters: K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, SOFT, class_colors, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["scree"]

LIMIT = 64


def scree(shares: Tensor) -> Figure:
    """Draw the share of the variance that each component explains as bars, and their running sum as a line.

    Args:
        shares: descending, (K,); the first 64 are drawn.
    """
    heights = to_numpy(shares[:LIMIT])
    numbers = range(1, len(heights) + 1)
    bar_color, line_color = class_colors(2)
    with new_figure(5.2, 3.4) as (figure, axes):
        axes.bar(numbers, heights, color=bar_color, label="each component")
        marker = "o" if len(heights) <= 30 else None
        axes.plot(numbers, heights.cumsum(), color=line_color, marker=marker, markersize=3, label="running sum")
        axes.axhline(1.0, color=SOFT, linewidth=0.8, linestyle=":")
        axes.set(xlabel="component", ylabel="share of variance", ylim=(0, 1.05))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, axis="y")
        total, kept = float(shares.sum()), len(shares)
        note = f"{kept} components explain {100 * total:.1f} % of the variance"
        if total > 0.95 and kept > 2:
            enough = int((shares.cumsum(0) < 0.9).sum()) + 1
            note = f"{enough} of {kept} components explain 90 % of the variance"
            axes.axvline(enough + 0.5, color=SOFT, linewidth=0.8, linestyle=":")
        axes.set_title(note, color=INK)
        axes.legend(loc="center right")
    return figure
