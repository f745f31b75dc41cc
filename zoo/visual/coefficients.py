"""The coefficients of linear models, by name.

Letters: K targets or classes, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from zoo.visual.style import INK, PALETTE, names_of, new_figure, to_numpy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["coefficients", "output_names"]

BARS = 20
PANELS = 6


def output_names(spec: DataSpec, count: int) -> list[str]:
    """Return a name for each output of a linear model: for a class (against the other of two), or a target.

    >>> from zoo.data.spec import DataSpec
    >>> output_names(DataSpec("tabular", (4,), "class", num_classes=2, class_names=("ham", "spam")), 1)
    ['for spam, against ham']
    """
    if spec.target != "class":
        return list(names_of(spec.target_names, count, "target "))
    names = names_of(spec.class_names, spec.num_classes or count, "class ")
    return [f"for {names[1]}, against {names[0]}"] if count == 1 else [f"for {name}" for name in names]


def coefficients(weight: Tensor, spec: DataSpec, outputs: Sequence[str], standardized: bool = False) -> Figure:
    """Draw the largest coefficients of each output as bars, by the names of their features.

    Args:
        weight: (K, F); the first 6 outputs are drawn.
        spec: names the features.
        outputs: a name for each output, (K,).
        standardized: whether they are those of features of mean 0 and standard deviation 1, which compare in size.
    """
    weight = weight.detach().cpu().double()[:PANELS]
    names, count = names_of(spec.feature_names, weight.shape[1], "feature "), len(weight)
    columns = min(3, count)
    rows, bars = -(-count // columns), min(BARS, weight.shape[1])
    size = 3.0 * columns + 1.6, (0.2 * bars + 0.7) * rows + 0.8
    with new_figure(*size, rows, columns, squeeze=False) as (figure, panels):
        for axes in list(panels.flat)[count:]:
            axes.set_visible(False)
        for row, name, axes in zip(weight, outputs, panels.flat, strict=False):
            chosen = row.abs().argsort(descending=True, stable=True)[:bars].flip(0)
            values = to_numpy(row[chosen])
            places = range(len(values))
            axes.barh(places, values, color=PALETTE[0], height=0.7)
            axes.set_yticks(places, [names[i] for i in chosen.tolist()])
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.grid(True, axis="x")
            axes.set_title(name)
        chosen = f", the largest {bars} of {weight.shape[1]}" if bars < weight.shape[1] else ""
        figure.suptitle(f"coefficients{chosen}", x=0.01, ha="left", fontsize=11, color=INK)
        unit = "one standard deviation of the feature" if standardized else "the feature's own unit"
        figure.supxlabel(f"coefficient, per {unit}", fontsize=10, color=INK)
    return figure
