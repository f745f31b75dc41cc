"""Pictures of networks with a memory: what goes in and comes out, where the heads look, and what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.visual.style import INK, bare, new_figure, titled, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bits", "heads"]

_MOMENTS = 4  # of a sequence at which the memory is drawn


def bits(x: Tensor, y: Tensor, probability: Tensor, mask: Tensor | None = None) -> Figure:
    """Draw a sequence beside what is asked of it and what a model says: a column a step, a row a number or a bit.

    Args:
        x: the sequence, (T, F).
        y: targets (T, K), negative where nothing is asked.
        probability: of a 1, (T, K).
        mask: which steps are there, (T,).
    """
    steps = int(mask.sum()) if mask is not None else len(x)
    x, y, probability = x[:steps], y[:steps], probability[:steps]
    asked = y >= 0
    wrong = ((probability > 0.5) != (y > 0.5)) & asked
    target, said = (values.masked_fill(~asked, torch.nan) for values in (y.float(), probability.float()))
    most = max(1.0, float(x.abs().max())) if x.numel() else 1.0
    with new_figure(8.0, 4.6, 3, 1, sharex=True) as (figure, axes):
        shades: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
        axes[0].imshow(to_numpy(x.T), cmap="RdBu_r", vmin=-most, vmax=most, **shades)
        for axis, values in zip(axes[1:], (target, said), strict=True):
            axis.imshow(to_numpy(values.T), cmap="viridis", vmin=0, vmax=1, **shades)
        step, bit = wrong.nonzero().T
        axes[2].scatter(to_numpy(step), to_numpy(bit), s=14, marker="x", color="#D55E00", linewidths=1.0)
        for axis, name in zip(axes, ("input", "target", "output"), strict=True):
            axis.set_ylabel(name)
            axis.set_yticks([])
            axis.grid(False)
        axes[2].set_xlabel("step")
        title = f"first sequence: {int(wrong.sum()):,} of {int(asked.sum()):,} bits wrong (crosses)"
        figure.suptitle(titled(title), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def heads(memories: Sequence[Tensor], weights: Tensor, num_read_heads: int, x: Tensor) -> Figure:
    """Draw where the heads write and read over time, and what the memory holds at some moments.

    Args:
        memories: after each of T steps, (N, W).
        weights: of each head, those that read first, (H, N, T).
        num_read_heads: how many of the heads read.
        x: the sequence, (T, F), of which the title says how long it is.
    """
    count, slots, steps = weights.shape
    writers = count - num_read_heads
    names = [f"read {number + 1}" for number in range(num_read_heads)]
    names += [f"write {number + 1}" for number in range(writers)]
    order = [*range(num_read_heads, count), *range(num_read_heads)]  # what is written is read later
    used = (weights.amax(dim=(0, 2)) > 0.05).nonzero().flatten()  # slots that a head has looked at
    low, high = (int(used.min()), int(used.max()) + 1) if len(used) else (0, slots)
    moments = [round((steps - 1) * (number + 1) / _MOMENTS) for number in range(_MOMENTS)]
    with new_figure(8.0, 1.7 * count + 2.6) as (figure, whole):
        whole.remove()
        grid = figure.add_gridspec(count + 1, _MOMENTS, height_ratios=[*[1.0] * count, 1.3])
        for row, head in enumerate(order):
            axis = figure.add_subplot(grid[row, :])
            axis.imshow(
                to_numpy(weights[head, low:high]), cmap="magma", vmin=0, vmax=1, aspect="auto",
                interpolation="nearest", extent=(-0.5, steps - 0.5, high - 0.5, low - 0.5),
            )  # fmt: skip
            axis.set_ylabel("slot")
            axis.set_title(f"{names[head]} weights", fontsize=9)
            axis.grid(False)
        axis.set_xlabel("step")
        shown = [memories[moment][low:high] for moment in moments]
        most = max(1e-6, *(float(values.abs().max()) for values in shown))
        for column, (moment, values) in enumerate(zip(moments, shown, strict=True)):
            axis = figure.add_subplot(grid[count, column])
            axis.imshow(to_numpy(values), cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
            bare(axis)
            axis.set_title(f"memory, step {moment}", fontsize=9)
        which = f"slots {low} to {high - 1} of {slots}"
        figure.suptitle(titled(f"first sequence, {len(x):,} steps, {which}"), x=0.01, ha="left", fontsize=11, color=INK)
    return figure
