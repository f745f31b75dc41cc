"""Which words of a source a translation looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["alignment"]


def alignment(pairs: Sequence[tuple[Tensor, Sequence[str], Sequence[str]]]) -> Figure:
    """Draw for each token that is said (row) how much it looks at each that was read (column), a map a pair.

    Args:
        pairs: weights (T, S), T tokens that are said and S that were read; at most a handful.
    """
    sides = [max(2.2, min(6.0, 0.22 * max(len(said), len(read)) + 1)) for _, said, read in pairs]
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    side = max(sides)
    with new_figure(side * columns, side * rows + 0.3, rows, columns, squeeze=False) as (figure, axes):
        for axis in axes.flat[len(pairs) :]:
            axis.set_axis_off()
        for axis, (weights, said, read) in zip(axes.flat, pairs, strict=False):
            axis.imshow(to_numpy(weights.float()), cmap="magma", vmin=0, vmax=1, aspect="auto")
            axis.grid(False)
            axis.set_xticks(range(len(read)), read, rotation=90 if max(map(len, read), default=0) > 1 else 0)
            axis.set_yticks(range(len(said)), said)
            axis.tick_params(length=0, labelsize=max(5.0, min(9.0, 150 / max(len(said), len(read)))))
        title = "alignment: what was read (column) as each token was said (row)"
        lines = textwrap.fill(titled(title), max(20, round(11 * side * columns)))
        figure.suptitle(lines, x=0.01, ha="left", fontsize=11, color=INK)
    return figure
