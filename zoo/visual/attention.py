"""What attention looks at: a map for each layer and head over the tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["attention"]

_MOST = 6  # layers, and heads, that fit a page


def attention(weights: Tensor, queries: Sequence[str], keys: Sequence[str] | None = None) -> Figure:
    """Draw how much each token (row) looks at each other (column), a map for each layer and head.

    Args:
        weights: (L, H, T, S), each row summing to 1; of more than six layers or heads six are drawn.
        queries: T tokens.
        keys: S tokens; the queries by default.
    """
    keys = queries if keys is None else keys
    layers, heads = (_spread(count) for count in weights.shape[:2])
    size = max(3.0, min(8.0, 130 / max(len(queries), len(keys))))
    width, height = 2.6 * len(heads) + 1, 2.6 * len(layers) + 0.6
    with new_figure(width, height, len(layers), len(heads), squeeze=False) as (figure, axes):
        for row, layer in enumerate(layers):
            for column, head in enumerate(heads):
                axis = axes[row, column]
                axis.imshow(to_numpy(weights[layer, head].float()), cmap="magma", vmin=0, aspect="auto")
                axis.grid(False)
                axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
                axis.set_xticks(range(len(keys)), keys if row == len(layers) - 1 else [""] * len(keys))
                axis.set_yticks(range(len(queries)), queries if column == 0 else [""] * len(queries))
                axis.tick_params(length=0, labelsize=size)
                axis.tick_params(axis="x", rotation=90 if max(map(len, keys)) > 1 else 0)
        title = "attention: how much each token (row) looks at each other (column)"
        figure.suptitle(titled(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _spread(count: int) -> list[int]:
    """Up to six places of `count`, spread evenly over them."""
    if count <= _MOST:
        return list(range(count))
    return [round(place * (count - 1) / (_MOST - 1)) for place in range(_MOST)]
