r"""One step of all heads of a Neural Turing Machine: as its formula reads, and with the way back worked out by hand.

The formula is a few dozen small operations, and autograd spends more on the gradient of each than the operation takes.
Write ∂v for the gradient of a value v; then, from the last line of the formula to the first, with $\tilde w$, $m$, $c$
what is shifted, mixed and alike, and $o = w_q e_q$ what head q erases:

```math
\begin{aligned}
∂M' &\mathrel{+}= w_r^\top ∂r, \; ∂w_r \mathrel{+}= ∂r\, M'^\top, \quad ∂w_q \mathrel{+}= ∂M' a, \; ∂a = w_q ∂M' \\
T &= ∂M ⊙ M, \qquad ∂w_q \mathrel{-}= T e_q, \qquad ∂e_q = -w_q T, \qquad ∂M ← ∂M ⊙ (1 - o) \\
δ &= w ⊙ (∂w - \textstyle\sum ∂w\, w), \qquad ∂γ = \sum δ \log \tilde w, \qquad ∂\tilde w = γ\, δ / \tilde w \\
∂m_i &= \textstyle\sum_j ∂\tilde w_{i + j}\, s_j, \qquad ∂s_j = \sum_i ∂\tilde w_i\, m_{i - j} \\
∂w_{t-1} &= (1 - g)\, ∂m, \qquad ∂c = g\, ∂m, \qquad ∂g = \textstyle\sum ∂m\, (c - w_{t-1}) \\
δ &= c ⊙ (∂c - \textstyle\sum ∂c\, c), \qquad ∂β = \sum δ K, \qquad ∂K = β δ \\
∂(k \cdot M) &= ∂K / D, \qquad ∂D = -K\, ∂K / D, \qquad D = |k|\,|M| + ε
\end{aligned}
```

Letters: B rows, H = R + Q heads that read and write, N slots of W numbers, S shifts.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.heads import available, heads_backward, heads_forward
from zoo.layers.memory.addressing import EPSILON, content_weights, interpolate, read, sharpen, shift, write
from zoo.layers.usable import transformed

__all__ = ["Heads", "formula", "move"]


class Heads(NamedTuple):
    """How many heads there are, and what they are told.

    Attributes:
        reading: R.
        writing: Q.
        slot_size: W.
        shifts: S.
    """

    reading: int
    writing: int
    slot_size: int
    shifts: int

    @property
    def total(self) -> int:
        """H."""
        return self.reading + self.writing

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of keys | β, γ | g, e | a | s: what goes through one function lies together."""
        written = self.writing * self.slot_size
        return self.total * self.slot_size, 2 * self.total, self.total + written, written, self.total * self.shifts


def move(memory: Tensor, weights: Tensor, told: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Return the memory (B, N, W), the weights (B, H, N) and what is read (B, R W) after a step.

    Args:
        memory: M, (B, N, W).
        weights: of the step before, (B, H, N).
        told: what the heads are told, before it goes through softplus, sigmoid, tanh and softmax, (B, P).
        heads: how many there are.
    """
    if transformed(memory, weights, told) or torch.compiler.is_compiling():
        return formula(memory, weights, told, heads)
    return _Move.apply(memory, weights, told, heads)


def formula(memory: Tensor, weights: Tensor, told: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `move` does, by the functions of `addressing`."""
    keys, positive, gates, add, shifts = told.split(heads.sizes, dim=1)
    strength, sharpness = F.softplus(positive).chunk(2, dim=1)  # (B, H)
    gates = gates.sigmoid()
    content = content_weights(memory, keys.unflatten(1, (heads.total, -1)), strength)
    mixed = interpolate(content, weights, gates[:, : heads.total])
    moved = shift(mixed, shifts.unflatten(1, (heads.total, -1)).softmax(-1))
    weights = sharpen(moved, 1 + sharpness)  # (B, H, N)
    erase, written = (part.unflatten(1, (heads.writing, -1)) for part in (gates[:, heads.total :], add.tanh()))
    memory = write(memory, weights[:, heads.reading :], erase, written)
    return memory, weights, read(memory, weights[:, : heads.reading]).flatten(1)


@functools.lru_cache(maxsize=32)
def _ring(slots: int, shifts: int, sign: int, device: torch.device) -> Tensor:
    """From which slot each shift brings what comes to each slot, flat (S N,); with sign −1, to which it takes it."""
    offset = torch.arange(shifts, device=device).unsqueeze(1) - shifts // 2
    return ((torch.arange(slots, device=device) - sign * offset) % slots).flatten()


def _around(values: Tensor, shifts: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """Return Σ_j v_{i ∓ j} s_j, (B, H, N), and v at all i ∓ j, (B H, S, N)."""
    slots, count = values.shape[2], shifts.shape[2]
    windows = (
        values.index_select(2, _ring(slots, count, sign, values.device)).unflatten(2, (count, slots)).flatten(0, 1)
    )
    return torch.bmm(shifts.flatten(0, 1).unsqueeze(1), windows).view(values.shape), windows


class _Move(torch.autograd.Function):
    """`formula` and its way back; a second derivative goes through the formula itself."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, weights: Tensor, told: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        count, reading, writing = heads.total, heads.reading, heads.writing
        ctx.heads, ctx.compiled = heads, available(memory)
        if ctx.compiled:
            ctx.save_for_backward(memory, weights, told)
            return heads_forward(memory, weights, told, reading, writing, heads.shifts)
        keys, positive, gates, add, shifts = told.split(heads.sizes, dim=1)
        keys = keys.unflatten(1, (count, -1))  # (B, H, W)
        positive, gates, add = F.softplus(positive), gates.sigmoid(), add.tanh()
        strength, sharpness = positive.unsqueeze(2).chunk(2, dim=1)  # (B, H, 1)
        gate, erase = gates[:, :count].unsqueeze(2), gates[:, count:].unflatten(1, (writing, -1))
        shifts = shifts.unflatten(1, (count, -1)).softmax(-1)  # (B, H, S)

        sizes = torch.linalg.vector_norm(memory, dim=2).unsqueeze(1)  # (B, 1, N)
        lengths = torch.linalg.vector_norm(keys, dim=2, keepdim=True)  # (B, H, 1)
        norms = (lengths * sizes).add_(EPSILON)  # (B, H, N)
        alike = torch.bmm(keys, memory.mT).div_(norms)
        content = torch.softmax(alike * strength, 2)
        moved, windows = _around(torch.lerp(weights, content, gate), shifts, 1)
        logarithm = moved.clamp_min(torch.finfo(moved.dtype).tiny).log_()
        new = torch.softmax(logarithm * (1 + sharpness), 2)

        places, stages = new[:, reading:].mT, [memory]  # (B, N, Q), the memory before each head erases
        for head in range(writing):
            lost = places[:, :, head : head + 1] * erase[:, head : head + 1]
            stages.append(torch.addcmul(stages[-1], stages[-1], lost, value=-1))
        after = torch.baddbmm(stages[-1], places, add.unflatten(1, (writing, -1)))
        reads = torch.bmm(new[:, :reading], after).flatten(1)
        ctx.save_for_backward(
            memory, weights, told, positive, gates, add, shifts, sizes, lengths, norms, alike, content, moved, windows,
            logarithm, new, after, *stages[1:-1],
        )  # fmt: skip
        return after, new, reads

    @staticmethod
    def backward(ctx: Any, d_after: Tensor, d_new: Tensor, d_reads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved, heads = ctx.saved_tensors, ctx.heads
        if torch.is_grad_enabled():  # a second derivative is wanted
            inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in saved[:3]]
            outputs = formula(inputs[0], inputs[1], inputs[2], heads)
            found = torch.autograd.grad(outputs, inputs, (d_after, d_new, d_reads), create_graph=True)
            return found[0], found[1], found[2], None
        if ctx.compiled:
            gradients = d_after, d_new, d_reads
            return *heads_backward(*saved, heads.reading, heads.writing, heads.shifts, *gradients), None
        (memory, weights, told, positive, gates, add, shifts, sizes, lengths, norms, alike, content, moved, windows,
         logarithm, new, after, *stages) = saved  # fmt: skip
        count, reading, writing, width = heads.total, heads.reading, heads.writing, heads.slot_size
        raw_keys, raw_positive = told.split(heads.sizes, dim=1)[:2]
        keys = raw_keys.unflatten(1, (count, -1))
        strength, sharpness = positive.unsqueeze(2).chunk(2, dim=1)
        gate, erase = gates[:, :count].unsqueeze(2), gates[:, count:].unflatten(1, (writing, -1))

        # reading and writing
        d_reads = d_reads.unflatten(1, (reading, -1))  # (B, R, W)
        d_memory = torch.baddbmm(d_after, new[:, :reading].mT, d_reads)
        places = new[:, reading:]  # (B, Q, N)
        d_add = torch.bmm(places, d_memory)  # (B, Q, W)
        d_places = torch.bmm(add.unflatten(1, (writing, -1)), d_memory.mT)  # (B, Q, N)
        d_erase = []
        for head in reversed(range(writing)):
            here, erased = slice(head, head + 1), erase[:, head : head + 1]
            product = d_memory * (stages[head - 1] if head else memory)  # (B, N, W)
            d_places[:, here].baddbmm_(erased, product.mT, alpha=-1)
            d_erase.append(torch.bmm(places[:, here], product))
            d_memory = torch.addcmul(d_memory, d_memory, places[:, here].mT * erased, value=-1)
        d_new = d_new + torch.cat([torch.bmm(d_reads, after.mT), d_places], 1)

        # sharpening and shift
        delta = torch._softmax_backward_data(d_new, new, 2, new.dtype)
        d_sharpness = (delta * logarithm).sum(2)  # (B, H)
        tiny = torch.finfo(moved.dtype).tiny
        delta = (delta * (1 + sharpness)).div_(moved.clamp_min(tiny))
        d_moved = torch.ops.aten.threshold_backward(delta, moved, tiny)
        d_mixed = _around(d_moved, shifts, -1)[0]
        d_shifts = torch.bmm(windows, d_moved.flatten(0, 1).unsqueeze(2)).view(shifts.shape)

        # interpolation and content
        d_content = d_mixed * gate
        d_gate = (content - weights).mul_(d_mixed).sum(2)
        delta = torch._softmax_backward_data(d_content, content, 2, content.dtype)
        d_strength = (delta * alike).sum(2)
        d_dot = (delta * strength).div_(norms)
        d_norms = d_dot * alike  # with the other sign
        d_sizes = torch.bmm(lengths.mT, d_norms) / sizes  # (B, 1, N)
        d_lengths = torch.bmm(d_norms, sizes.mT) / lengths  # (B, H, 1)
        d_sizes, d_lengths = (torch.where(size > 0, d, 0.0) for size, d in ((sizes, d_sizes), (lengths, d_lengths)))
        d_keys = torch.baddbmm(keys * d_lengths, d_dot, memory, beta=-1)
        d_memory = torch.baddbmm(d_memory, d_dot.mT, keys).addcmul_(memory, d_sizes.mT, value=-1)

        # what the heads were told
        d_positive = torch.ops.aten.softplus_backward(torch.cat([d_strength, d_sharpness], 1), raw_positive, 1, 20)
        d_gates = torch.cat([d_gate, *(d.view(-1, width) for d in reversed(d_erase))], 1)
        erasing = d_gates[:, count:]
        erasing.neg_()
        d_told = torch.cat([
            d_keys.flatten(1), d_positive, torch.ops.aten.sigmoid_backward(d_gates, gates),
            torch.ops.aten.tanh_backward(d_add.flatten(1), add),
            torch._softmax_backward_data(d_shifts, shifts, 2, shifts.dtype).flatten(1),
        ], 1)  # fmt: skip
        return d_memory, d_mixed - d_content, d_told, None
