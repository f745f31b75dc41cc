"""Pictures of sequence models: forecasts over the truth, and gates over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.data.spec import DataSpec
from zoo.visual.style import INK, class_colors, names_of, new_figure, titled, to_numpy

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
            axis.set_title(titled(f"{names[column]}: root mean squared error {float(error):.3g}"))
            axis.set_xlabel("step")
            axis.grid(True)
        axes[0, 0].legend()
    return figure


def gates(activations: Mapping[str, Tensor], limit: int = 64) -> Figure:
    """Draw each gate's units over time, one row a unit: gates from closed (0) to open (1), states below and above zero.

    Args:
        activations: name → (T, H); `input`, `forget`, `output`, `reset` and `update` are gates, all others states.
        limit: the most units that are drawn.
    """
    with new_figure(7.5, 1.55 * len(activations) + 0.4, len(activations), 1, squeeze=False) as (figure, axes):
        for axis, (name, values) in zip(axes[:, 0], activations.items(), strict=True):
            image = axis.imshow(
                to_numpy(values[:, :limit].T), aspect="auto", interpolation="nearest", **_scale(name, values)
            )
            axis.set(ylabel="unit", title=f"{name} gate, 0 closed to 1 open" if name in _GATES else name)
            axis.grid(False)
            figure.colorbar(image, ax=axis, pad=0.01).outline.set_visible(False)
        axes[-1, 0].set_xlabel("step")
        figure.suptitle(titled("first layer, first example"), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


_GATES = ("input", "forget", "output", "reset", "update")


def _scale(name: str, values: Tensor) -> dict[str, Any]:
    if name in _GATES:
        return {"cmap": "viridis", "vmin": 0, "vmax": 1}
    most = max(1.0, float(values.detach().abs().max())) if values.numel() else 1.0  # a cell state may leave [-1, 1]
    return {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
