"""Pictures of sequence models: forecasts over the truth, and gates over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.data.spec import DataSpec
from zoo.visual.style import class_colors, names_of, new_figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["forecast", "gates"]


def forecast(y: Tensor, predicted: Tensor, spec: DataSpec, limit: int = 365) -> Figure:
    """Draw the forecast over the truth, for the first and the last step of the horizon.

    Args:
        y: what came, (N,) or (N, h), windows in the order of time.
        predicted: what was predicted, the same shape.
        spec: names of the values.
        limit: the most steps that are drawn, the last ones.
    """
    y, predicted = (t.reshape(len(t), -1)[-limit:] for t in (y, predicted))
    names = names_of(spec.target_names, y.shape[1], "value ")
    shown = sorted({0, y.shape[1] - 1})
    with new_figure(7.5, 2.6 * len(shown), len(shown), 1, squeeze=False) as (figure, axes):
        for axis, column in zip(axes[:, 0], shown, strict=True):
            truth, forecast_color = class_colors(2)
            axis.plot(to_numpy(y[:, column]), color=truth, label="truth")
            axis.plot(to_numpy(predicted[:, column]), color=forecast_color, label="forecast", linewidth=1.2)
            error = (y[:, column] - predicted[:, column]).square().mean().sqrt()
            axis.set_title(f"{names[column]}: root mean squared error {float(error):.3g}")
            axis.set_xlabel("step of the held-out part")
            axis.grid(True)
        axes[0, 0].legend()
    return figure


def gates(activations: Mapping[str, Tensor], limit: int = 64) -> Figure:
    """Draw each gate's units over time, one row a unit: blue below zero, red above.

    Args:
        activations: name → (T, H).
        limit: the most units that are drawn.
    """
    with new_figure(7.5, 1.7 * len(activations), len(activations), 1, squeeze=False) as (figure, axes):
        for axis, (name, values) in zip(axes[:, 0], activations.items(), strict=True):
            image = axis.imshow(
                to_numpy(values[:, :limit].T), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
            )
            axis.set(ylabel="unit", title=name)
            axis.grid(False)
        axes[-1, 0].set_xlabel("step")
        figure.colorbar(image, ax=axes[:, 0].tolist(), shrink=0.6)
    return figure
