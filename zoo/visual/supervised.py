"""What a supervised model gets right and wrong.

Letters: B examples, C classes, K targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data.arrays import scored
from zoo.visual.style import INK, MARKERS, SOFT, class_colors, names_of, new_figure, thin, titled, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo.data.spec import DataSpec

__all__ = ["confusion_counts", "confusion_matrix", "decision_boundary", "margins", "region", "residuals"]

LIMIT = 3000  # points in a scatter
GRID = 240  # steps of a decision boundary along each axis


def confusion_counts(y: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return how many examples of each class (row) were predicted as each class (column), (C, C).

    >>> confusion_counts(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    tensor([[1, 0],
            [1, 1]])
    """
    cells = y.long().cpu() * num_classes + predicted.long().cpu()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def confusion_matrix(y: Tensor, predicted: Tensor, spec: DataSpec) -> Figure:
    """Draw the counts of true against predicted classes, shaded by the share of the true class.

    Args:
        y: true classes, (B,).
        predicted: predicted classes, (B,).
        spec: names the classes.
    """
    count = spec.num_classes or int(torch.stack([y.max(), predicted.max()]).max()) + 1
    counts = confusion_counts(y, predicted, count)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = min(8.0, max(3.6, 1.7 + 0.36 * count))
    with new_figure(side + 0.6, side) as (figure, axes):
        image = axes.imshow(to_numpy(share), cmap="Blues", vmin=0, vmax=1)
        if count <= 20:
            _write_counts(axes, counts, share)
        _name_classes(axes, names_of(spec.class_names, count))
        accuracy = float(counts.diagonal().sum() / max(1, int(counts.sum())))
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(titled(f"accuracy {accuracy:.4f}, {int(counts.sum()):,} examples"), fontsize=10)
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true class")
        bar.outline.set_visible(False)
    return figure


def _write_counts(axes: Axes, counts: Tensor, share: Tensor) -> None:
    size = 10 if len(counts) <= 6 else 8.5 if len(counts) <= 12 else 6.5
    for row in range(len(counts)):
        for column in range(len(counts)):
            number = int(counts[row, column])
            color = SOFT if number == 0 else "white" if share[row, column] > 0.55 else INK
            axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=size)


def _name_classes(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // 25)
    ticks = range(0, len(names), step)
    long = max(map(len, names)) > 3
    axes.set_xticks(
        ticks,
        names[::step],
        rotation=40 if long else 0,
        ha="right" if long else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(ticks, names[::step])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def decision_boundary(
    predict_columns: Callable[[Tensor], dict[str, Tensor]],
    x: Tensor,
    y: Tensor | None,
    spec: DataSpec,
    *,
    support: Tensor | None = None,
) -> Figure:
    """Draw where in the plane a classifier of two features decides for which class, and points.

    The stronger the colour, the surer the model; a point that it gets wrong is ringed in black. Where the model gives
    one number, its `decision`, the boundary is drawn with its margins at −1 and 1.

    Args:
        predict_columns: what a model says of points (N, 2): its `prediction`, and a `probability`, if any, that shades
            the regions.
        x: points, (B, 2).
        y: their classes (B,), or None.
        spec: names the features and the classes.
        support: support vectors (S, 2), which are drawn as rings.
    """
    names = names_of(spec.feature_names, 2, "feature ")
    x, y = x.detach().cpu().double(), None if y is None else y.cpu()
    low, high = _extent(x)
    grid = torch.cartesian_prod(
        *(torch.linspace(float(a), float(b), GRID).double() for a, b in zip(low, high, strict=True))
    )
    columns = {name: value.cpu() for name, value in predict_columns(grid).items()}
    count = spec.num_classes or int(columns["prediction"].max()) + 1
    with new_figure(5.2 if support is None else 6.2, 4.2) as (figure, axes):
        box = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        shades = _shades(columns, count).view(GRID, GRID, 3).transpose(0, 1)  # (second, first feature, RGB)
        axes.imshow(to_numpy(shades), extent=box, origin="lower", aspect="auto", interpolation="bilinear")
        _margins(axes, columns.get("decision"), box)
        if support is not None:
            ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.6, "alpha": 0.7}
            shown = to_numpy(support[thin(len(support), LIMIT).to(support.device)]).T
            axes.scatter(shown[0], shown[1], s=52, label="support vectors", **ring)
        if y is not None:
            wrong = predict_columns(x)["prediction"].cpu() != y
            _class_points(axes, x, y, wrong, names_of(spec.class_names, count, "class "))
            axes.set_title(titled(f"decision boundary, {int(wrong.sum()):,} of {len(y):,} points wrong"))
            figure.legend(loc="outside right upper")
        axes.set(xlabel=names[0], ylabel=names[1], xlim=box[:2], ylim=box[2:])
    return figure


def _margins(axes: Axes, decision: Tensor | None, box: tuple[float, float, float, float]) -> None:
    """Draw where a single decision is 0, and −1 and 1 where it is that anywhere."""
    if decision is None or decision.ndim != 1:
        return
    values = to_numpy(decision.view(GRID, GRID).T)
    inside = [level for level in (-1, 0, 1) if values.min() < level < values.max()]
    styles = ["solid" if level == 0 else "dashed" for level in inside]
    if inside:
        axes.contour(values, inside, extent=box, colors=INK, linewidths=0.9, linestyles=styles)


def _extent(x: Tensor) -> tuple[Tensor, Tensor]:
    """The finite range of each column with a margin of 8 %, and of one where a column is constant."""
    finite = x[torch.isfinite(x).all(1)]
    if not len(finite):
        finite = x.new_zeros(1, x.shape[1])
    low, high = finite.min(0).values, finite.max(0).values
    margin = torch.where(high > low, 0.08 * (high - low), torch.ones_like(low))
    return low - margin, high + margin


def _shades(columns: dict[str, Tensor], count: int) -> Tensor:
    """Mix each class's colour with white: none where the model cannot tell, half where it is sure, (N, 3)."""
    from matplotlib.colors import to_rgb

    colors = torch.tensor([to_rgb(color) for color in class_colors(count)], dtype=torch.float64)  # (C, 3)
    label = columns["prediction"].long()
    probability = columns.get("probability")
    if probability is None or probability.shape[-1] != count:
        strength = torch.full((len(label), 1), 0.3, dtype=torch.float64)
    else:
        top = probability.double().max(1, keepdim=True).values
        strength = 0.08 + 0.42 * ((top - 1 / count) / (1 - 1 / count)).clamp(0, 1)
    return 1 - strength * (1 - colors[label])


def _class_points(axes: Axes, x: Tensor, y: Tensor, wrong: Tensor, names: list[str]) -> None:
    shown = thin(len(x), LIMIT)
    x, y, wrong = x[shown], y[shown], wrong[shown]
    for label, (name, color) in enumerate(zip(names, class_colors(len(names)), strict=True)):
        for mask, edge, width in ((~wrong, "white", 0.5), (wrong, "black", 1.2)):
            points = to_numpy(x[(y == label) & mask]).T
            own_name = name if edge == "white" else None
            marker = MARKERS[label % len(MARKERS)]
            axes.scatter(
                points[0], points[1], s=22, c=color, marker=marker, edgecolors=edge, linewidths=width, label=own_name
            )


def residuals(y: Tensor, predicted: Tensor, spec: DataSpec) -> Figure:
    """Draw predicted against true values, and the histogram of true − predicted.

    Args:
        y: true values, (B,) or (B, K).
        predicted: predicted values of the same shape.
        spec: names the targets.
    """
    y, predicted = (t.detach().cpu().double().reshape(len(t), -1) for t in (y, predicted))  # (B, K)
    default = ("value",) if y.shape[1] == 1 else tuple(f"value {k}" for k in range(y.shape[1]))
    names = names_of(spec.target_names or default, y.shape[1], "value ")
    finite = torch.isfinite(y - predicted).all(1)
    y, predicted = y[finite], predicted[finite]
    with new_figure(7.4, 3.5, 1, 2) as (figure, (left, right)):
        _true_against_predicted(left, y, predicted, names)
        _histogram(right, to_numpy(y - predicted), names)
        if len(names) > 1:
            left.legend(loc="upper left", markerscale=1.5, handletextpad=0.2)
    return figure


def _true_against_predicted(axes: Axes, y: Tensor, predicted: Tensor, names: list[str]) -> None:
    shown = thin(len(y), LIMIT)
    for k, (name, color) in enumerate(zip(names, class_colors(len(names)), strict=True)):
        values = to_numpy(y[shown, k]), to_numpy(predicted[shown, k])
        axes.scatter(*values, s=14, c=color, alpha=0.6, linewidths=0, label=name)
    both = torch.cat([y.flatten(), predicted.flatten()])
    if len(both):
        low, high = float(both.min()), float(both.max())
        axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle="--")
    axes.grid(True)
    single = names[0] if len(names) == 1 else "value"
    axes.set(xlabel=f"true {single}", ylabel=f"predicted {single}")
    varies = len(y) > 1 and bool((y != y[:1]).any())
    axes.set_title(titled(f"R² {scored(predicted, y, classes=False):.4f}" if varies else "predicted against true"))


def _histogram(axes: Axes, errors: np.ndarray, names: list[str]) -> None:
    colors = class_colors(len(names))
    axes.hist(errors, bins=30, color=colors, stacked=len(names) > 1)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="residual (true − predicted)", ylabel="examples")
    if len(errors):
        mean, deviation = float(errors.mean()), float(errors.std())
        mean = 0.0 if abs(mean) < 1e-9 * deviation else mean  # rounding is no news
        axes.set_title(f"mean {mean:.3g},\nstandard deviation {deviation:.3g}", fontsize=10)


def margins(decision: Tensor, y: Tensor, spec: DataSpec) -> Figure:
    """Draw the histogram of a machine's decisions for both classes, with the boundary at 0 and the margins at ±1.

    Args:
        decision: above 0 for the second class, (B,).
        y: true classes, 0 or 1, (B,).
        spec: names the classes.
    """
    decision, y = decision.detach().cpu().double(), y.cpu()
    finite = torch.isfinite(decision)
    decision, y = decision[finite], y[finite]
    names = names_of(spec.class_names, 2, "class ")
    with new_figure(5.2, 3.4) as (figure, axes):
        parts = [to_numpy(decision[y == label]) for label in (0, 1)]
        axes.hist(parts, bins=40, color=class_colors(2), stacked=True, label=names)
        for level, style in ((-1, "dashed"), (0, "solid"), (1, "dashed")):
            axes.axvline(level, color=INK, linewidth=1, linestyle=style)
        wrong = int(((decision > 0) != (y == 1)).sum())
        inside = int((decision.abs() < 1).sum())
        axes.set(xlabel="decision", ylabel="examples")
        axes.set_title(f"{wrong:,} of {len(y):,} on the wrong side, {inside:,} inside the margins")
        axes.legend()
    return figure


def region(
    predict_columns: Callable[[Tensor], dict[str, Tensor]], x: Tensor, spec: DataSpec, *, support: Tensor
) -> Figure:
    """Draw the region of the plane that a model takes for its own, `decision` at least 0, and points.

    Args:
        predict_columns: what a model says of points (N, 2): their `decision`.
        x: points, (B, 2).
        spec: names the features.
        support: support vectors (S, 2), which are drawn as rings.
    """
    names = names_of(spec.feature_names, 2, "feature ")
    x = x.detach().cpu().double()
    low, high = _extent(x)
    sides = [torch.linspace(float(a), float(b), GRID).double() for a, b in zip(low, high, strict=True)]
    decision = predict_columns(torch.cartesian_prod(*sides))["decision"].cpu().view(GRID, GRID).T
    inside = predict_columns(x)["decision"].cpu() >= 0
    with new_figure(6.2, 4.2) as (figure, axes):
        box = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        color, other = class_colors(2)
        if float(decision.min()) < 0 < float(decision.max()):
            axes.contourf(to_numpy(decision), [0, float(decision.max())], extent=box, colors=[color], alpha=0.2)
            axes.contour(to_numpy(decision), [0], extent=box, colors=INK, linewidths=0.9)
        ring = to_numpy(support[thin(len(support), LIMIT).to(support.device)]).T
        axes.scatter(ring[0], ring[1], s=52, facecolors="none", edgecolors=INK, linewidths=0.6, label="support vectors")
        shown = thin(len(x), LIMIT)
        for mask, paint, name in ((inside[shown], color, "inside"), (~inside[shown], other, "outside")):
            points = to_numpy(x[shown][mask]).T
            axes.scatter(points[0], points[1], s=18, c=paint, edgecolors="white", linewidths=0.4, label=name)
        axes.set(xlabel=names[0], ylabel=names[1], xlim=box[:2], ylim=box[2:])
        axes.set_title(f"{int((~inside).sum()):,} of {len(x):,} points outside")
        figure.legend(loc="outside right upper")
    return figure
