"""Maps of points in the plane, such as t-SNE's.

Letters: N points, Q placed points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.visual.style import INK, MARKERS, bare, class_colors, names_of, new_figure, thin, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["point_map", "word_map"]

LIMIT = 10_000


def point_map(
    points: Tensor,
    labels: Tensor | None = None,
    placed: Tensor | None = None,
    spec: DataSpec | None = None,
    title: str = "",
) -> Figure:
    """Draw a map in the colours and markers of the classes, and on it as small crosses the points placed later.

    Args:
        points: the map, (N, 2).
        labels: the class of each point, (N,); None or empty where there are none.
        placed: points that were placed in the finished map, (Q, 2).
        spec: names the classes.
        title: above the map.
    """
    points = points.detach().cpu()
    known = labels is not None and len(labels) == len(points)
    labels = labels.detach().cpu() if known else torch.zeros(len(points), dtype=torch.int64)  # type: ignore[union-attr]
    shown = thin(len(points), LIMIT)
    points, labels = points[shown], labels[shown]
    count = max(int(labels.max()) + 1 if len(labels) else 1, spec.num_classes or 1 if spec and known else 1)
    names = names_of(spec.class_names if spec else None, count)
    with new_figure(6.4, 5.6) as (figure, axes):
        size = 20.0 if len(points) < 500 else 6.0
        for label, color in enumerate(class_colors(count)):
            east, north = to_numpy(points[labels == label]).reshape(-1, 2).T
            marker = MARKERS[label % len(MARKERS)]
            axes.scatter(east, north, s=size, c=color, marker=marker, alpha=0.7, linewidths=0, label=names[label])
        if placed is not None and len(placed):
            east, north = to_numpy(placed[thin(len(placed), LIMIT)]).T
            axes.scatter(east, north, s=size * 2, c=INK, marker="x", linewidths=0.7, label="placed later")
        if (known and count <= 20) or placed is not None:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2 if size < 10 else 1)
        axes.set_aspect("equal", adjustable="datalim")
        bare(axes)
        axes.set_title(title)
    return figure


def word_map(vectors: Tensor, words: Sequence[str]) -> Figure:
    """Draw words where the two directions of largest variance have their vectors.

    Args:
        vectors: (W, D).
        words: W of them.
    """
    centred = vectors.detach().cpu().double()
    centred = centred - centred.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    points = to_numpy(torch.nn.functional.pad(centred @ directions[:2].T, (0, 2))[:, :2])
    with new_figure(9.0, 7.0) as (figure, axes):
        axes.scatter(points[:, 0], points[:, 1], s=0)  # so that the axes know the range
        for (east, north), word in zip(points, words, strict=True):
            # A dollar would begin a formula.
            axes.text(east, north, word.replace("$", r"\$"), fontsize=7, color=INK, ha="center", va="center")
        bare(axes)
        axes.set_title(f"{len(words)} words, by two principal components of their directions")
    return figure
