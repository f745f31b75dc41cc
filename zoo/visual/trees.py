"""A decision tree as a diagram, and what the features contributed.

Letters: F features, M nodes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from zoo.visual.style import INK, SOFT, class_colors, names_of, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DiagramNode", "importance_bars", "staged_curve", "tree_diagram"]

_BARS = 20
_COLUMNS, _LINES = 20, 4  # of a line of a node, so that neighbours stand apart, and how many it may become


class DiagramNode(NamedTuple):
    """A node of a diagram: number, that of its parent (−1 for none), depth, lines of text, class and purity."""

    number: int
    parent: int
    depth: int
    text: str
    label: int
    purity: float


def tree_diagram(nodes: Sequence[DiagramNode], num_classes: int | None, title: str = "") -> Figure:
    """Draw a tree from the root down; a left branch is a yes. Nodes take the colour of their class, as deep as it is
    pure.

    Args:
        nodes: each before its children, left before right. Long lines are broken, and cut in the end.
        num_classes: None for values.
        title: above the tree.
    """
    place, leaves = _places(nodes)
    depth = max((node.depth for node in nodes), default=0)
    colors = class_colors(num_classes or 1)
    with new_figure(max(4.0, 1.25 * leaves), max(2.4, 1.05 * (depth + 1))) as (figure, axes):
        for node in nodes:
            x, y = place[node.number], -node.depth
            if node.parent >= 0:
                axes.plot([place[node.parent], x], [1 - node.depth, y], color=SOFT, linewidth=0.9, zorder=1)
            face = colors[node.label] if num_classes else "#FFFFFF"
            alpha = format(int(25 + 130 * node.purity), "02X") if num_classes else ""
            box = {"boxstyle": "round,pad=0.3", "facecolor": face + alpha, "edgecolor": SOFT, "linewidth": 0.8}
            back = {**box, "facecolor": "#FFFFFF"}
            for style in (back, box):  # the colour is transparent, the lines behind it must not show
                axes.text(
                    x, y, _broken(node.text), ha="center", va="center", fontsize=7, color=INK, bbox=style, zorder=2
                )
        axes.set(xlim=(-0.6, leaves - 0.4), ylim=(-depth - 0.5, 0.5))
        axes.set_axis_off()
        if title:
            axes.set_title(title)
    return figure


def _broken(text: str) -> str:
    """Lines that fit between a node's neighbours."""
    fitted = (
        textwrap.wrap(line, _COLUMNS, max_lines=_LINES, placeholder=" …", break_on_hyphens=True)
        for line in text.splitlines()
    )
    return "\n".join(part for parts in fitted for part in parts)


def _places(nodes: Sequence[DiagramNode]) -> tuple[dict[int, float], int]:
    """Where each node stands from left to right: leaves side by side, a parent over the middle of its children."""
    children: dict[int, list[int]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node.number)
    place: dict[int, float] = {}
    leaves = 0
    for node in nodes:  # each before its children: leaves come from left to right
        if node.number not in children:
            place[node.number] = float(leaves)
            leaves += 1
    for node in reversed(nodes):
        below = children.get(node.number)
        if below:
            place[node.number] = sum(place[child] for child in below) / len(below)
    return place, leaves


def importance_bars(importance: Tensor, feature_names: Sequence[str] | None = None) -> Figure:
    """Draw the shares of the features in what all splits gained, the greatest first.

    Args:
        importance: shares, (F,).
        feature_names: a name for each.
    """
    values = to_numpy(importance)
    order = values.argsort(kind="stable")[::-1][:_BARS]
    names = names_of(feature_names, len(values), "feature ")
    with new_figure(5.2, 1.0 + 0.22 * len(order)) as (figure, axes):
        axes.barh([names[f] for f in order][::-1], values[order][::-1], color=class_colors(1)[0])
        axes.set(xlabel="share of the gain")
        axes.set_title(
            "what the features contributed" + (f" (first {_BARS} of {len(values)})" if len(values) > _BARS else "")
        )
    return figure


def staged_curve(curves: Mapping[str, Sequence[float]], ylabel: str, best: int | None = None) -> Figure:
    """Draw the loss after each tree.

    Args:
        curves: a name and the losses after 1, 2, … trees.
        ylabel: what the loss is.
        best: number of trees at which training stopped being worth it, drawn as a dotted line.
    """
    with new_figure(5.2, 3.4) as (figure, axes):
        for (name, values), color in zip(curves.items(), class_colors(len(curves)), strict=True):
            axes.plot(range(1, len(values) + 1), values, label=name, color=color)
        if best:
            axes.axvline(best, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="trees", ylabel=ylabel)
        axes.legend()
        axes.grid(True)
    return figure
