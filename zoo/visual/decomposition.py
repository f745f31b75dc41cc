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
        axes.bar(numbers, heights, color=bar_color)
        axes.plot(numbers, heights.cumsum(), color=line_color, marker="o" if len(heights) <= 30 else None, markersize=3)
        axes.axhline(1.0, color=SOFT, linewidth=0.8, linestyle=":")
        axes.set(xlabel="component", ylabel="share of variance", ylim=(0, 1.05))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, axis="y")
        note = f"{len(shares)} components explain {100 * float(shares.sum()):.1f} % of the variance"
        axes.set_title(note, color=INK)
    return figure
