"""Pictures of the sequential Jacobian: which inputs an answer depends on, and how that fades with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.visual.style import class_colors, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["memory", "sequential_jacobian"]

_DECADES = 6  # below the largest that are drawn
_NAMED = 64  # steps that get a name each


def sequential_jacobian(
    norms: Tensor, outputs: Sequence[str], inputs: Sequence[str] | None = None, what: str = "answer after"
) -> Figure:
    """Draw how much each answer (row) changes with each input (column), on a logarithmic scale; 0 stays white.

    Args:
        norms: ‖∂y_t/∂x_s‖, (T, S).
        outputs: T names of the answers.
        inputs: S names of the inputs; numbers by default.
        what: of which the answers are.
    """
    from matplotlib.colors import LogNorm

    values = norms.detach().cpu().double()
    most = float(values.max()) if values.numel() else 0.0
    most = most if most > 0 else 1.0
    shown = torch.where(values > 0, values.clamp_min(most * 10.0**-_DECADES), torch.nan)
    width, height = (max(3.2, min(9.0, 1.6 + 0.16 * count)) for count in reversed(values.shape))
    with new_figure(width + 1, max(2.2, height)) as (figure, axes):
        scale = LogNorm(most * 10.0**-_DECADES, most)
        image = axes.imshow(to_numpy(shown), cmap="magma_r", norm=scale, aspect="auto", interpolation="nearest")
        axes.grid(False)
        if inputs is not None and len(inputs) <= _NAMED:
            axes.set_xticks(range(len(inputs)), inputs)
            axes.tick_params(axis="x", rotation=90 if max(map(len, inputs), default=0) > 1 else 0)
        if len(outputs) <= _NAMED:
            axes.set_yticks(range(len(outputs)), outputs)
        axes.tick_params(length=0, labelsize=max(4.0, min(8.0, 260 / max(1, *values.shape))))
        axes.set(xlabel="input", ylabel=what)
        axes.set_title(titled("sequential Jacobian: ‖∂ answer / ∂ input‖"))
        figure.colorbar(image, ax=axes, pad=0.01).outline.set_visible(False)
    return figure


def memory(norms: Mapping[str, Tensor]) -> Figure:
    """Draw how the response to an input fades with the steps since it was read, a curve for each model.

    Args:
        norms: name → the mean norm of ∂y_t/∂x_s for t − s = 0, 1, …, (S,).
    """
    with new_figure(6.0, 3.6) as (figure, axes):
        for (name, values), color in zip(norms.items(), class_colors(len(norms)), strict=True):
            there = torch.as_tensor(values).detach().cpu().double()
            axes.plot(to_numpy(torch.where(there > 0, there, torch.nan)), color=color, label=name)
        axes.set_yscale("log")
        axes.set(xlabel="steps back", ylabel="‖∂ answer / ∂ input‖")
        axes.set_title(titled("what an answer still owes to inputs of the past"))
        axes.grid(True)
        axes.legend()
    return figure
