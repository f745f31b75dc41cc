"""Where a network looked at an image, one glimpse after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, bare, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["glances"]


def glances(images: Tensor, centres: Tensor, sides: Tensor, captions: Sequence[str] | None = None) -> Figure:
    """Draw the path of the glimpses over each image, from dark to bright, with the squares that were seen.

    Args:
        images: (B, C, H, W), the first channel of which is drawn.
        centres: (B, T, 2), x and y in pixels from the middle of the first pixel.
        sides: of the squares, (B, T, K) in pixels.
        captions: a few characters for each image.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    columns = max(1, min(4, len(images)))
    rows = max(1, -(-len(images) // columns))
    height, width = images.shape[-2:]
    colors = colormaps["plasma"]
    with new_figure(2.2 * columns, 2.3 * rows + 0.4, rows, columns, squeeze=False) as (figure, axes):
        for axis in axes.flat:
            bare(axis)
        for place, axis in enumerate(axes.flat[: len(images)]):
            axis.imshow(to_numpy(images[place, 0].float()), cmap="gray")
            path, squares = to_numpy(centres[place].float()), to_numpy(sides[place].float())
            axis.plot(path[:, 0], path[:, 1], color="white", linewidth=0.8, alpha=0.7)
            for step, (x, y) in enumerate(path):
                color = colors(0.25 + 0.7 * step / max(1, len(path) - 1))
                for side in squares[step]:
                    corner = (x - side / 2, y - side / 2)
                    axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.1))
                axis.text(x, y, str(step + 1), color=color, fontsize=7, ha="center", va="center", clip_on=True)
            axis.set_xlim(-0.5, width - 0.5)
            axis.set_ylim(height - 0.5, -0.5)
            if captions:
                axis.set_title(captions[place], fontsize=9)
        figure.suptitle(titled("glimpses in their order (true → predicted)"), x=0.01, ha="left", fontsize=11, color=INK)
    return figure
