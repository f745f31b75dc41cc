"""The one style of the zoo's pictures: readable in TensorBoard, few lines, colours that all can tell apart.

The class colours are Okabe & Ito's (2008, "Color Universal Design") without their yellow, which is faint on
white; classes beyond the seventh take evenly spaced hues, and markers repeat what the colours say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "MARKERS", "SOFT", "class_colors", "new_figure", "rows_of", "save", "thin", "titled", "to_numpy"]

INK, SOFT = "#333333", "#999999"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "figure.dpi": 110,
    "savefig.dpi": 110,
}


@contextmanager
def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure in the zoo's style and its axes (an array of several) to draw on inside the block.

    Args:
        width: inches; 110 dots each.
        height: inches.
        rows: rows of axes.
        columns: columns of axes.
        **options: passed to `Figure.subplots`.

    Example:
        >>> with new_figure(3, 2) as (figure, axes):
        ...     _ = axes.plot([1, 2, 3])
        >>> figure.get_size_inches().tolist()
        [3.0, 2.0]
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, **options)


_SPLIT: ContextVar[str | None] = ContextVar("split", default=None)


@contextmanager
def rows_of(split: str | None) -> Iterator[None]:
    """Say in the title of each picture of rows that is drawn within the block which split they are of.

    >>> with rows_of("test"):
    ...     titled("accuracy 0.9")
    'accuracy 0.9 · test'
    """
    token = _SPLIT.set(split)
    try:
        yield
    finally:
        _SPLIT.reset(token)


def titled(text: str) -> str:
    """Return a title of a picture of rows, with the split that they are of where that is known."""
    split = _SPLIT.get()
    if split is None:
        return text
    return f"{text} · {split}" if text else split


def class_colors(count: int) -> list[str]:
    """Return a colour for each of `count` classes, as hexadecimal RGB.

    >>> class_colors(2)
    ['#0072B2', '#D55E00']
    """
    import colorsys

    colors = list(PALETTE[:count])
    extra = count - len(colors)
    for index in range(extra):  # lightness alternates, so that neighbouring hues differ in grey too
        red, green, blue = colorsys.hls_to_rgb(index / extra, 0.35 if index % 2 else 0.65, 0.6)
        colors.append(f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}")
    return colors


def to_numpy(values: Any) -> np.ndarray:
    """Return a tensor, an array or a list as a NumPy array on the CPU; floating values in float64."""
    tensor = torch.as_tensor(values).detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def thin(num_rows: int, limit: int) -> Tensor:
    """Return at most `limit` evenly spaced row numbers: more points than that only cover one another."""
    return torch.arange(num_rows) if num_rows <= limit else torch.linspace(0, num_rows - 1, limit).round().long()


def names_of(given: Sequence[str] | None, count: int, default: str = "") -> list[str]:
    """Return the given names, shortened to fit an axis, or numbers after `default` where there are none."""
    if given is None or len(given) < count:
        return [f"{default}{index}" for index in range(count)]
    return [name if len(name) <= 24 else name[:23] + "…" for name in map(str, given[:count])]


def bare(axes: Axes) -> None:
    """Take ticks and frame away, as for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
