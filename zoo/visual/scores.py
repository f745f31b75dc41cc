"""How many clusters, and how good they are: the elbow of inertia and the silhouette of each row.

Letters: N rows, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.curves import curve
from zoo.visual.style import INK, class_colors, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["elbow", "silhouette"]


def elbow(inertia: Mapping[int, float]) -> Figure:
    """Draw the inertia for each number of clusters.

    Args:
        inertia: number of clusters → Σ w ‖x − c‖², as `zoo.analysis.cluster_scores.elbow` returns.

    Example:
        >>> elbow({1: 101.0, 2: 1.0, 3: 0.5}).axes[0].get_xlabel()
        'clusters'
    """
    return curve(list(inertia.values()), list(inertia), title="elbow", xlabel="clusters", ylabel="inertia")


def silhouette(samples: Tensor, labels: Tensor) -> Figure:
    """Draw the silhouettes of the rows, sorted within their cluster, and their mean.

    Args:
        samples: silhouette of each row, (N,), as `zoo.analysis.cluster_scores.silhouette_samples` returns.
        labels: cluster of each row, (N,).
    """
    names = labels.unique().tolist()
    with new_figure(5.2, 4.2) as (figure, axes):
        start = 0
        colors = class_colors(max(names) + 1)
        for name in names:
            widths = to_numpy(samples[labels == name].sort().values)
            axes.barh(range(start, start + len(widths)), widths, height=1.0, color=colors[name], linewidth=0)
            axes.annotate(
                str(name), (0, start + len(widths) / 2), (-4, 0), textcoords="offset points", ha="right", va="center"
            )
            start += len(widths) + max(1, len(samples) // 50)
        axes.axvline(float(samples.mean()), color=INK, linestyle="--")
        axes.set(xlabel="silhouette", yticks=[])
        axes.set_title(titled(f"silhouette of {len(samples):,} rows, mean {float(samples.mean()):.3f}"))
    return figure
