"""The tree of a hierarchy of clusters.

Letters: N points, K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, SOFT, class_colors, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["dendrogram"]

LIMIT = 48
LEGEND = 20  # clusters that a legend names


def dendrogram(hierarchy: Tensor, labels: Tensor | None = None, height: float | None = None) -> Figure:
    """Draw the last merges of a hierarchy as a tree, each cluster in its colour.

    Args:
        hierarchy: merges, (N - 1, 4), as of `zoo.models.agglomerative.linkage.linkage`; the last 47 are drawn.
        labels: cluster of each point, (N,), which colours the branches inside one cluster.
        height: where the tree is cut, drawn as a dotted line.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    count, first = len(hierarchy) + 1, max(0, len(hierarchy) + 1 - LIMIT)
    merges = hierarchy.detach().cpu().tolist()
    place, names = _tips(merges, count, first)
    tops, owners = dict.fromkeys(place, 0.0), _owners(merges, count, labels)
    colors = class_colors(0 if labels is None else int(labels.max()) + 1)
    lines, line_colors = [], []
    for node, (a, b, top, _) in enumerate(merges[first:], start=count + first):
        a, b = int(a), int(b)
        lines.append([(place[a], tops[a]), (place[a], top), (place[b], top), (place[b], tops[b])])
        own = owners[node]
        line_colors.append(SOFT if own is None else colors[own])
        place[node], tops[node] = (place[a] + place[b]) / 2, top
    with new_figure(max(5.2, 0.16 * len(names)), 3.8) as (figure, axes):
        axes.add_collection(LineCollection(lines, colors=line_colors, linewidths=1.4))
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.05 * max((m[2] for m in merges), default=1) or 1))
        if 1 < len(colors) <= LEGEND:
            shown = sorted({own for own in owners[count + first :] if own is not None})
            lines_of = [Line2D([], [], color=colors[own], label=str(own)) for own in shown]
            figure.legend(handles=lines_of, loc="outside right upper", title="cluster", title_fontsize=9)
        if height is not None:
            axes.axhline(height, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="row, or (number of rows)", ylabel="distance of the clusters merged")
        axes.set_title(f"{count:,} rows" + ("" if labels is None else f" in {len(colors)} clusters"))
    return figure


def _tips(merges: list[list[float]], count: int, first: int) -> tuple[dict[int, float], list[str]]:
    """Places and names, from left to right, of the clusters that the drawn merges start from."""
    stack = [count + len(merges) - 1]
    place: dict[int, float] = {}
    names: list[str] = []
    while stack:
        node = stack.pop()
        if node >= count + first:
            stack.extend((int(merges[node - count][1]), int(merges[node - count][0])))
        else:
            place[node] = float(len(names))
            names.append(str(node) if node < count else f"({int(merges[node - count][3])})")
    return place, names


def _owners(merges: list[list[float]], count: int, labels: Tensor | None) -> list[int | None]:
    """The one cluster that all points of each node belong to, if there is one."""
    owners: list[int | None] = [None] * count if labels is None else labels.tolist()
    for a, b, _, _ in merges:
        own = owners[int(a)]
        owners.append(own if own == owners[int(b)] else None)
    return owners
