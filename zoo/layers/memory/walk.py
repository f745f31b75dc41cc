r"""All steps of a Neural Turing Machine as one function, with the way back through time worked out by hand.

Autograd spends more on a step than the step takes, and adds to the gradient of every weight at each of them. Here the
products that make those gradients are taken once for all steps, and whatever of the way back does not depend on the
gradient that travels is found for all steps at once. With $s_t = [h_t, r_t]$ what the controller holds and what was
read, δ the gradient of what a gate of the LSTM sums up before σ or tanh, and ∂v that of a value v:

```math
\begin{aligned}
∂h_t &\mathrel{+}= W_o^\top ∂\mathrm{told}_t, \qquad δ_t = ∂h_t ⊙ (1 - h_t^2) \quad \text{without an LSTM} \\
∂c &\mathrel{+}= ∂h ⊙ o\,(1 - \tanh^2 c), \quad δ_o = ∂h ⊙ \tanh(c)\,o(1 - o), \quad ∂c_{t-1} = ∂c ⊙ f \\
δ_i &= ∂c ⊙ g\,i(1 - i), \quad δ_f = ∂c ⊙ c_{t-1} f(1 - f), \quad δ_g = ∂c ⊙ i(1 - g^2) \\
∂s_{t-1} &\mathrel{+}= W^\top δ_t, \qquad ∂W = \textstyle\sum_t δ_t s_{t-1}^\top, \qquad
∂W_o = \textstyle\sum_t ∂\mathrm{told}_t\, h_t^\top
\end{aligned}
```

The heads' share of a step, and its way back, is the kernel of `heads`, without which the machine walks step by step.

Letters: B rows, T steps, C units of the controller, G gates, R heads that read, H heads, N slots of W numbers,
P numbers that the heads are told.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.heads import HeadsSteps, available
from zoo.layers.memory.heads import Heads, move
from zoo.layers.memory.machine import Hidden, control
from zoo.layers.usable import transformed

__all__ = ["stepwise", "walk", "walkable"]

Weights = tuple[Tensor, Tensor, Tensor]
"""W (G C, R W + C), or (C, R W) of a feed-forward controller; W_o (P, C) and b_o (P,), by which it tells the heads."""

Walked = tuple[Tensor, Tensor, Tensor, Tensor]
"""s of all steps, (B, T, C + R W); of the last the memory (B, N, W), the weights (B, H, N) and c."""


def walkable(a: Tensor, memory: Tensor, *weights: Tensor) -> bool:
    """Return whether `walk` can take the place of `stepwise`."""
    plain = not (torch.compiler.is_compiling() or transformed(a, memory, *weights))
    return plain and a.shape[1] > 0 and available(memory)


def stepwise(
    a: Tensor, weights: Weights, memory: Tensor, places: Tensor, start: Tensor, cell: Tensor, heads: Heads
) -> Walked:
    """Return what `walk` does, step by step."""
    weight, told_weight, told_bias = weights
    size, held = told_weight.shape[1], []
    hidden: Hidden = (start[:, :size], cell) if cell.shape[1] else (start[:, :size],)
    reads = start[:, size:]
    for now in a.unbind(1):
        hidden = control(now, reads, hidden, weight)
        memory, places, reads = move(memory, places, F.linear(hidden[0], told_weight, told_bias), heads)
        held.append(torch.cat([hidden[0], reads], dim=1))
    return torch.stack(held, dim=1), memory, places, hidden[1] if cell.shape[1] else cell


def walk(
    a: Tensor, weights: Weights, memory: Tensor, places: Tensor, start: Tensor, cell: Tensor, heads: Heads
) -> Walked:
    """Return what the controller holds and what is read at all steps, and the rest of the last state.

    Args:
        a: W_x x + b of all steps, (B, T, G C).
        weights: those of the controller, and those by which it tells the heads.
        memory: M before the first step, (B, N, W).
        places: where the heads are before it, (B, H, N).
        start: s before it, (B, C + R W).
        cell: c of an LSTM before it, (B, C); (B, 0) for a feed-forward controller.
        heads: how many there are.
    """
    inputs = (a, *weights, memory, places, start, cell)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    walked: Walked = _Walk.apply(*inputs, heads, keep)
    return walked


class _Feedforward:
    """h = tanh z of each step, and back.

    Args:
        sums: z, (T, B, C).
        h: (T, B, C).
        cells: nothing.
    """

    def __init__(self, sums: Tensor, h: Tensor, cells: Tensor) -> None:
        self.all, self.sums, self.h = h, sums.unbind(0), h.unbind(0)

    def step(self, t: int) -> Tensor:
        """Put h of step t in its place, and return it."""
        return torch.tanh(self.sums[t], out=self.h[t])

    def turn(self, d_cell: Tensor) -> None:
        """Find for all steps what `back` multiplies; d_cell is the gradient of nothing."""
        self.slopes, self.d_cell = (1 - self.all.square()).unbind(0), d_cell

    def back(self, t: int, d_h: Tensor, to: Tensor) -> None:
        """Put δ of step t, (B, C), in its place."""
        torch.mul(d_h, self.slopes[t], out=to)


class _LSTM:
    """c = f c + i g and h = o tanh c of each step, and back.

    Args:
        sums: of the gates i, o, f, g, (T, B, 4 C); `step` puts the gates in their place.
        h: (T, B, C).
        cells: c, (T + 1, B, C), of which the first is there.
    """

    def __init__(self, sums: Tensor, h: Tensor, cells: Tensor) -> None:
        self.all, size = (sums.unflatten(2, (4, -1)), cells), cells.shape[2]  # (T, B, 4, C)
        self.sigmoid, self.tanh = sums[..., : 3 * size].unbind(0), sums[..., 3 * size :].unbind(0)
        self.i, self.o, self.f, self.g = (gate.unbind(0) for gate in self.all[0].unbind(2))
        self.h, self.cells = h.unbind(0), cells.unbind(0)

    def step(self, t: int) -> Tensor:
        """Put the gates, c and h of step t in their places, and return h."""
        self.sigmoid[t].sigmoid_()
        self.tanh[t].tanh_()
        torch.mul(self.f[t], self.cells[t], out=self.cells[t + 1]).addcmul_(self.i[t], self.g[t])
        return torch.mul(self.o[t], self.cells[t + 1].tanh(), out=self.h[t])

    def turn(self, d_cell: Tensor) -> None:
        """Find for all steps what `back` multiplies; d_cell is the gradient of the last c, (B, C)."""
        gates, cells = self.all
        bent, (i, o, _, g) = cells[1:].tanh(), gates.unbind(2)
        factors = torch.stack([g, bent, cells[:-1]], dim=2)
        slopes = torch.cat([factors * gates[:, :, :3] * (1 - gates[:, :, :3]), (i * (1 - g * g)).unsqueeze(2)], dim=2)
        self.slopes, self.slopes_o = slopes.unbind(0), slopes[:, :, 1].unbind(0)
        self.slopes_c, self.d_cell = (o * (1 - bent * bent)).unbind(0), d_cell.clone()

    def back(self, t: int, d_h: Tensor, to: Tensor) -> None:
        """Put δ of step t, (B, 4 C), in its place, and go on to the gradient of c before it."""
        to = to.unflatten(1, (4, -1))
        self.d_cell.addcmul_(d_h, self.slopes_c[t])
        torch.mul(self.slopes[t], self.d_cell.unsqueeze(1), out=to)
        torch.mul(self.slopes_o[t], d_h, out=to[:, 1])
        self.d_cell.mul_(self.f[t])


class _Walk(torch.autograd.Function):
    """`stepwise` and its way back; a second derivative goes through `stepwise` itself."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, weight: Tensor, told_weight: Tensor, told_bias: Tensor, memory: Tensor, places: Tensor,
        start: Tensor, cell: Tensor, heads: Heads, keep: bool,
    ) -> Walked:  # fmt: skip
        (rows, steps, width), size = a.shape, told_weight.shape[1]
        held, cells = a.new_empty(steps + 1, *start.shape), a.new_empty(steps + 1, *cell.shape)
        kept = steps + 1 if keep else 2  # of memories and places, which then take turns
        memories, whereabouts = a.new_empty(kept, *memory.mT.shape), a.new_empty(kept, *places.shape)
        for all_steps, first in ((held, start), (cells, cell), (memories, memory.mT), (whereabouts, places)):
            all_steps[0] = first
        sums, told = a.new_empty(steps, rows, width), a.new_empty(steps, rows, len(told_bias))
        controller = _controller(sums, held, cells)
        move = HeadsSteps(
            False, (heads.reading, heads.writing, heads.shifts), memory=(memories, 0), after=(memories, 1),
            weights=(whereabouts, 0), places=(whereabouts, 1), told=(told, 0), reads=(held[1:, :, size:], 0),
        )  # fmt: skip
        seen, weight_s = _seen(held, weight, size)
        for t, (now, s, z, says) in enumerate(
            zip(a.unbind(1), seen.unbind(0), sums.unbind(0), told.unbind(0), strict=False)
        ):
            torch.addmm(now, s, weight_s.T, out=z)
            torch.addmm(told_bias, controller.step(t), told_weight.T, out=says)
            move(t)
        ctx.heads = heads
        inputs = a, weight, told_weight, told_bias, memory, places, start, cell
        ctx.save_for_backward(*inputs, held, cells, sums, told, memories, whereabouts)
        last = steps % kept
        return held[1:].transpose(0, 1), memories[last].mT.clone(), whereabouts[last].clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_held: Tensor, d_memory: Tensor, d_places: Tensor, d_cell: Tensor) -> tuple[Any, ...]:
        *inputs, held, cells, sums, told, memories, places = ctx.saved_tensors
        a, weight, told_weight, _, _, _, start, _ = inputs
        heads: Heads = ctx.heads
        if torch.is_grad_enabled():  # a second derivative is wanted
            x = [value if value.requires_grad else value.detach().requires_grad_() for value in inputs]
            outputs = stepwise(x[0], (x[1], x[2], x[3]), x[4], x[5], x[6], x[7], heads)
            found = torch.autograd.grad(outputs, x, (d_held, d_memory, d_places, d_cell), create_graph=True)
            return *found, None, None
        with torch.autocast(a.device.type, enabled=False):
            size = told_weight.shape[1]
            d_held = torch.cat([torch.zeros_like(start)[None], d_held.transpose(0, 1)])  # (T + 1, B, C + R W)
            d_memory, d_places = d_memory.mT.clone(memory_format=torch.contiguous_format)[None], d_places.clone()[None]
            d_sums, d_told = torch.empty_like(sums), torch.empty_like(told)
            move_back = HeadsSteps(
                True, (heads.reading, heads.writing, heads.shifts), memory=(memories, 0), weights=(places, 0),
                told=(told, 0), d_after=(d_memory, 0), d_memory=(d_memory, 0), d_places=(d_places, 0),
                d_weights=(d_places, 0), d_reads=(d_held[1:, :, size:], 0), d_told=(d_told, 0),
            )  # fmt: skip
            controller = _controller(sums, held, cells)
            controller.turn(d_cell)
            (seen, weight_s), (d_seen, _) = _seen(held, weight, size), _seen(d_held, weight, size)
            parts = [*zip(*map(Tensor.unbind, (d_held[1:, :, :size], d_seen, d_sums, d_told)), strict=False)]
            for t in reversed(range(len(parts))):
                d_h, d_s, d_z, d_says = parts[t]
                move_back(t)
                controller.back(t, d_h.addmm_(d_says, told_weight), d_z)
                d_s.addmm_(d_z, weight_s)
            d_weight = d_sums.flatten(0, 1).T @ seen[:-1].flatten(0, 1)
            d_told_weight = d_told.flatten(0, 1).T @ held[1:, :, :size].flatten(0, 1)
        d_weight = d_weight.roll(-size, 1) if seen is held else d_weight
        outer = d_sums.transpose(0, 1), d_weight, d_told_weight, d_told.sum((0, 1))
        return *outer, d_memory[0].mT, d_places[0], d_held[0], controller.d_cell, None, None


def _controller(sums: Tensor, held: Tensor, cells: Tensor) -> _Feedforward | _LSTM:
    """Return the controller whose c is of this size."""
    if cells.shape[2]:
        return _LSTM(sums, held[1:, :, : cells.shape[2]], cells)
    return _Feedforward(sums, held[1:, :, : sums.shape[2]], cells)


def _seen(held: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what the controller sees of s, and its weights in that order: an LSTM also sees what it holds."""
    if weight.shape[1] == held.shape[2]:
        return held, weight.roll(size, 1)  # of [r, h] to [h, r]
    return held[..., size:], weight
