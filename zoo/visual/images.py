"""Images, and what a convolutional network makes of them, as mosaics of tiles.

Letters: N images, C channels, H, W height and width; O filters, I input channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.visual.style import INK, bare, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["filters", "images", "mosaic"]


def mosaic(tiles: Tensor, columns: int) -> Tensor:
    """Lay tiles out in rows, a gap of NaN between them, which is drawn as nothing.

    Args:
        tiles: (N, H, W) or (N, H, W, 3).
        columns: tiles in a row.

    Returns:
        (R, S) or (R, S, 4): colour images get an opacity, 0 in the gaps.
    """
    if tiles.ndim == 4:
        tiles = torch.cat([tiles, torch.ones_like(tiles[..., :1])], -1)
    count, height, width = tiles.shape[:3]
    gap_y, gap_x = max(1, height // 10), max(1, width // 10)
    rows = max(1, -(-count // columns))
    empty = math.nan if tiles.ndim == 3 else 0.0
    canvas = tiles.new_full(
        (rows * (height + gap_y) - gap_y, columns * (width + gap_x) - gap_x, *tiles.shape[3:]), empty
    )
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + gap_y), (index % columns) * (width + gap_x)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def images(x: Tensor, captions: Sequence[str] | None = None, *, columns: int = 8, title: str = "") -> Figure:
    """Draw a grid of images, each stretched to its own range of values, with a caption over each.

    Args:
        x: images, (N, C, H, W); three channels are shown in colour, the first one alone otherwise.
        captions: a few characters for each image.
        columns: images in a row.
        title: what they are.
    """
    x = x.detach().cpu().double()
    tiles = _unit_range(x)
    tiles = tiles.permute(0, 2, 3, 1) if x.shape[1] == 3 else tiles[:, 0]
    columns = max(1, min(columns, len(x)))
    rows = max(1, -(-len(x) // columns))
    height, width = x.shape[-2:]
    tile_height = min(2.0, max(0.5, height / width)) + (0.28 if captions else 0)
    with new_figure(max(2.4, 0.95 * columns + 0.2), 0.95 * rows * tile_height + 0.5, rows, columns, squeeze=False) as (
        figure,
        axes,
    ):
        for place in axes.flat:
            bare(place)
        for index, tile in enumerate(tiles):
            place = axes.flat[index]
            place.imshow(
                to_numpy(tile),
                cmap="gray",
                vmin=0,
                vmax=1,
                aspect="auto" if not 0.5 <= height / width <= 2 else "equal",
            )
            if captions:
                place.set_title(captions[index], fontsize=9, loc="center", pad=3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _unit_range(x: Tensor) -> Tensor:
    """Each image's finite values stretched to [0, 1]; a constant one becomes 0."""
    x = x.nan_to_num(0.0, 0.0, 0.0)
    flat = x.flatten(1)
    low, high = (getattr(flat, name)(1, keepdim=True).values for name in ("min", "max"))
    return ((flat - low) / torch.where(high > low, high - low, torch.ones_like(high))).view_as(x)


def filters(
    weight: Tensor, activations: Tensor | None = None, *, limit: int = 32, title: str = "first-layer filters"
) -> Figure:
    """Draw a convolution's filters (blue negative, red positive) and what they answer to one image.

    Args:
        weight: (O, I, H, W); of three input channels in colour, of any other number each channel apart.
        activations: the layer's output for one image, (O, H', W'), shown at the places of the filters.
        limit: tiles shown at most.
        title: which layer it is.
    """
    weight = weight.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
    total, colored = len(weight), weight.shape[1] == 3
    tiles = (_unit_range(weight).permute(0, 2, 3, 1) if colored else weight.flatten(0, 1))[:limit]
    columns = 8 if len(tiles) > 16 else max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, -(-len(tiles) // columns))
    panels = 1 if activations is None else 2
    with new_figure(panels * (0.6 * columns + 0.4) + 0.2, max(1.2, 0.6 * rows) + 0.5, 1, panels, squeeze=False) as (
        figure,
        axes,
    ):
        left = axes[0, 0]
        _tiles(left, tiles, columns, diverging=not colored)
        left.set_title(f"{title} ({min(total, limit)} of {total})" if weight.shape[1] in (1, 3) else title)
        if activations is not None:
            answers = activations.detach().cpu().double()[: min(total, limit)]
            _tiles(axes[0, 1], answers, columns, diverging=False)
            axes[0, 1].set_title("their output for one image")
    return figure


def _tiles(axes: Axes, tiles: Tensor, columns: int, *, diverging: bool) -> None:
    bare(axes)
    canvas = to_numpy(mosaic(tiles, columns))
    scale = float(tiles.abs().max()) or 1.0
    limits = {"vmin": -scale, "vmax": scale, "cmap": "RdBu_r"} if diverging else {"cmap": "viridis"}
    image = axes.imshow(canvas, interpolation="nearest", **limits)
    if canvas.ndim == 2:  # what the colours mean
        axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02).outline.set_visible(False)
