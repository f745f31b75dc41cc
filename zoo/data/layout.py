"""Which axis of an array is what: channels may come first, last, or not at all, and steps look like rows of pixels.

What is not told apart by its number of axes is guessed, and said in a line with the option that settles it.

Legend: N rows, F features, T steps, C channels, H×W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Literal

from zoo.errors import ZooError

__all__ = ["Layout", "layout_of", "with_channels"]

log = logging.getLogger(__name__)

Layout = Literal["auto", "NF", "NTF", "NHW", "NCHW", "NHWC"]

_CHANNELS = (1, 3, 4)  # of grey and coloured images, and those with a mask


def layout_of(
    shape: Sequence[int], layout: Layout = "auto", kinds: Collection[str] = (), option: str = "layout"
) -> str:
    """Return what the axes of an array are, as asked for or as they look.

    Of three axes the latter two are steps and features, unless the model reads images and no sequences. Of four the
    last are channels where there are 1, 3 or 4 of it alone.

    Args:
        shape: of the array.
        layout: what was asked for.
        kinds: of data that the model reads; none if that is not known.
        option: what the option is called where it was asked for.

    Raises:
        ZooError: for a layout of another number of axes.

    Example:
        >>> layout_of((100, 3, 32, 32)), layout_of((100, 8, 8)), layout_of((100, 8, 8), "NHW")
        ('NCHW', 'NTF', 'NHW')
    """
    axes = tuple(shape)
    if layout != "auto":
        if len(layout) != len(axes):
            raise ZooError(f"{option}={layout} is of {len(layout)} axes, and X has the shape {axes}.")
        return layout
    if len(axes) == 3:
        if "image" in kinds and "sequence" not in kinds:
            log.info("X of shape %s: taken for grey images. If they are something else, pass %s=NTF.", axes, option)
            return "NHW"
        if "image" in kinds:
            log.info(
                "X of shape %s: taken for %d steps each. If they are grey images, pass %s=NHW.", axes, axes[1], option
            )
        return "NTF"
    if len(axes) == 4:
        first, *pixels = axes[1:3]
        if axes[3] in _CHANNELS and first not in _CHANNELS and min(first, *pixels) > max(_CHANNELS):
            log.info(
                "X of shape %s: the last axis is taken for the channels. If the second is, pass %s=NCHW.", axes, option
            )
            return "NHWC"
        return "NCHW"
    return "NF"


def with_channels(x: Any, layout: str) -> Any:
    """Return images as (N, C, H, W), a view of an array or a tensor; all else as it is.

    Example:
        >>> import torch
        >>> with_channels(torch.zeros(2, 5, 6, 3), "NHWC").shape
        torch.Size([2, 3, 5, 6])
    """
    if layout == "NHW":
        return x[:, None]
    return x.swapaxes(1, 3).swapaxes(2, 3) if layout == "NHWC" else x
