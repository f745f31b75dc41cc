"""Pictures of association rules.

Letters: R rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.visual.style import INK, SOFT, bare, class_colors, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zoo.models.apriori.rules import Rules

__all__ = ["rule_graph", "rule_metrics"]

ARROWS = 30
DOTS = 5000


def rule_graph(rules: Rules, names: Sequence[str] | None = None) -> Figure:
    """Draw the first rules as arrows between sets of items on a circle, the thicker the more confident.

    Args:
        rules: the first 30 are drawn, (R,).
        names: the items' names.
    """
    shown = rules[:ARROWS]
    rows = shown.table(names)
    sets = sorted({str(row[side]) for row in rows for side in ("antecedent", "consequent")})
    angle = {name: 2 * math.pi * number / len(sets) for number, name in enumerate(sets)}
    with new_figure(7.5, 7.5) as (figure, axes):
        bare(axes)
        axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
        for row in rows:
            ends = [
                (math.cos(angle[str(row[side])]), math.sin(angle[str(row[side])]))
                for side in ("antecedent", "consequent")
            ]
            width = 0.4 + 2.2 * float(row["confidence"])
            style = {"arrowstyle": "-|>", "color": class_colors(1)[0], "linewidth": width, "alpha": 0.6}
            axes.annotate("", ends[1], ends[0], arrowprops={**style, "connectionstyle": "arc3,rad=0.15", "shrinkB": 6})
        for name, place in angle.items():
            x, y = math.cos(place), math.sin(place)
            axes.scatter([x], [y], s=30, color=INK, zorder=3)
            label = name if len(name) <= 32 else name[:31] + "…"
            degrees = math.degrees(place)
            style = {"ha": "left", "rotation": degrees} if x >= 0 else {"ha": "right", "rotation": degrees + 180}
            axes.text(1.06 * x, 1.06 * y, label, va="center", rotation_mode="anchor", fontsize=7.5, color=INK, **style)
        axes.set_title(f"{len(shown)} of {len(rules):,} rules; thicker is more confident")
    return figure


def rule_metrics(rules: Rules) -> Figure:
    """Draw each rule at its support and confidence, coloured by its lift.

    Args:
        rules: the first 5,000 are drawn, (R,).
    """
    shown = rules[:DOTS]
    with new_figure(5.6, 4.0) as (figure, axes):
        axes.grid(True)
        dots = axes.scatter(
            to_numpy(shown.support),
            to_numpy(shown.confidence),
            c=to_numpy(shown.lift),
            s=14,
            cmap="viridis",
            linewidths=0,
        )
        if len(shown):
            figure.colorbar(dots, ax=axes, label="lift").outline.set_edgecolor(SOFT)
        axes.set(xlabel="support", ylabel="confidence")
        axes.set_title(f"{len(rules):,} rules")
    return figure
