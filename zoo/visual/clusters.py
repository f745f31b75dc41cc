"""Groups of points, in the plane of two features or of the first two principal components.

Letters: N points, F features, K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.visual.style import INK, MARKERS, class_colors, names_of, new_figure, thin, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["clusters", "plane"]

LIMIT = 5000
LEGEND = 20  # clusters that a legend names


def plane(x: Tensor, spec: DataSpec | None = None) -> tuple[Tensor, Tensor, tuple[str, str]]:
    """Return the map to two dimensions that shows the points: origin (F,), axes (F, 2) and the axes' names.

    Two features stay as they are; more are projected on the first two principal components.
    """
    num_features = x.shape[1]
    if num_features <= 2:
        names = names_of(spec.feature_names if spec else None, num_features, "feature ")
        return (
            x.new_zeros(num_features),
            torch.eye(num_features, 2, dtype=x.dtype),
            (names[0], [*names, ""][1]),
        )
    origin = x.mean(0) if len(x) else x.new_zeros(num_features)
    centred = x - origin
    variance, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(x)))  # ascending
    vectors = vectors[:, -2:].flip(1)
    sign = torch.gather(vectors, 0, vectors.abs().argmax(0, keepdim=True)).sign()  # so that no run is a mirror image
    share = variance.flip(0)[:2] / variance.sum().clamp_min(torch.finfo(x.dtype).tiny)
    first, second = (
        f"principal component {k + 1} ({100 * float(part):.0f} % of variance)" for k, part in enumerate(share)
    )
    return origin, vectors * sign, (first, second)


def clusters(x: Tensor, labels: Tensor, centroids: Tensor | None = None, spec: DataSpec | None = None) -> Figure:
    """Draw points in the colour and marker of their cluster, and the centroids as numbered discs.

    Args:
        x: points, (N, F), or (N, *shape), which is flattened.
        labels: cluster of each point, (N,); −1 is noise, drawn grey.
        centroids: (K, F), or (K, *shape).
        spec: names the features.
    """
    x = x.detach().cpu().double().flatten(1)
    keep = torch.isfinite(x).all(1)
    x, labels = x[keep], labels.detach().cpu().long()[keep]
    origin, axes_2d, names = plane(x, spec)
    shown = thin(len(x), LIMIT)
    points, shown_labels = (x[shown] - origin) @ axes_2d, labels[shown]
    count = max(int(labels.max()) + 1 if len(labels) else 0, 0 if centroids is None else len(centroids))
    with new_figure(5.2, 4.2) as (figure, axes):
        for label, color in enumerate([*class_colors(count), "#BBBBBB"]):
            member = shown_labels == (label if label < count else -1)
            marker = MARKERS[label % len(MARKERS)] if label < count else "."
            east, north = to_numpy(points[member]).T
            name = str(label) if label < count else "noise"
            shown_name = name if bool(member.any()) else None
            axes.scatter(east, north, s=14, c=color, marker=marker, alpha=0.7, linewidths=0, label=shown_name)
        if centroids is not None:
            places = to_numpy((centroids.detach().cpu().double().flatten(1) - origin) @ axes_2d)
            axes.scatter(places[:, 0], places[:, 1], s=150, c="white", edgecolors=INK, linewidths=1.4, zorder=3)
            for number, place in enumerate(places):
                axes.annotate(str(number), place, ha="center", va="center", fontsize=8, color=INK, zorder=4)
        axes.grid(True)
        noise = int((labels < 0).sum())
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set_title(titled(f"{count} clusters of {len(x):,} points" + (f", {noise:,} noise" if noise else "")))
        if 1 < count + bool(noise) <= LEGEND:
            figure.legend(loc="outside right upper", title="cluster", title_fontsize=9, markerscale=1.5)
    return figure
