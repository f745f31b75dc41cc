"""Pictures of regularization paths.

Letters: L penalties, K targets, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, SOFT, class_colors, names_of, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["coefficient_path"]

NAMED = 12  # curves that get a name


def coefficient_path(penalties: Tensor, weight: Tensor, spec: DataSpec, chosen: float | None = None) -> Figure:
    """Draw each coefficient over the penalty's logarithm; the largest have names where they end.

    Args:
        penalties: λ₁ of each solution, falling, (L,).
        weight: coefficients, (L, K, F); one pair of axes a target, of the first four.
        spec: names features and targets.
        chosen: the penalty of the fitted model, for a vertical line.
    """
    curves, at = to_numpy(weight[:, :4]), to_numpy(penalties)
    count, features = curves.shape[1:]
    names, targets = names_of(spec.feature_names, features, "x"), names_of(spec.target_names, count, "target ")
    colors = class_colors(min(features, NAMED))
    with new_figure(6.2, 3.8 * count, rows=count, squeeze=False) as (figure, grid):
        for k, axes in enumerate(grid[:, 0]):
            order = abs(curves[-1, k]).argsort()[::-1]
            axes.axhline(0, color=SOFT, linewidth=0.8)
            axes.plot(at, curves[:, k, order[NAMED:]], color=SOFT, linewidth=0.6)
            for feature, color in zip(order, colors, strict=False):
                axes.plot(at, curves[:, k, feature], color=color)
            _name_ends(axes, curves[-1, k, order[: len(colors)]], [names[j] for j in order[: len(colors)]], colors)
            if chosen and at[-1] <= chosen <= at[0]:
                axes.axvline(chosen, color=INK, linewidth=0.8, linestyle="--")
            axes.set_xscale("log")
            axes.invert_xaxis()
            axes.set(xlabel="penalty λ₁ (log scale)", ylabel="coefficient")
            axes.set_title(f"regularization path{f', {targets[k]}' if spec.target_names or count > 1 else ''}")
            axes.grid(True, axis="y")
    return figure


def _name_ends(axes, ends, names, colors) -> None:  # type: ignore[no-untyped-def]
    """Write each name at the right end of its curve, apart from its neighbours."""
    low, high = axes.get_ylim()
    gap, last = (high - low) / 18, -float("inf")
    for index in ends.argsort():
        last = max(ends[index], last + gap)
        axes.annotate(
            names[index], (1.01, last), xycoords=("axes fraction", "data"), color=colors[index], va="center", fontsize=8
        )
