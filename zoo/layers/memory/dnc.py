r"""The differentiable neural computer: a memory that knows which slots are free, and in which order they were written.

```math
\begin{aligned}
w &= g^w \bigl(g^a a + (1 - g^a)\, c^w\bigr), \qquad M ← M ⊙ (1 - w e^\top) + w v^\top \\
r^h &= π^h_1 L^\top r'^h + π^h_2 c^h + π^h_3 L\, r'^h
\end{aligned}
```

with usage, allocation $a$ and links $L$ of `allocation`, the content weights $c^w$ before and $c^h$ after the write;
strengths are 1 + softplus, gates and $e$ sigmoids, the read modes $π$ softmax of backward, content and forward.

Letters: B rows, R read heads, N slots, W numbers in a slot, C units of the controller.

Source: Graves et al. 2016, Methods. Deviation: in the products of the allocation no usage is below 1e-6.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.memory.addressing import content_weights, read, write
from zoo.layers.memory.allocation import allocation, link, precede, use
from zoo.layers.memory.machine import Hidden, MemoryMachine, control

__all__ = ["DNC", "DNCState"]


class DNCState(NamedTuple):
    """What a differentiable neural computer carries from step to step.

    Attributes:
        memory: M, (B, N, W).
        weights: where it reads, and last where it writes, (B, R + 1, N).
        reads: what was read, (B, R W).
        hidden: the controller's state.
        usage: u, (B, N).
        precedence: p, (B, N).
        links: L, (B, N, N).
    """

    memory: Tensor
    weights: Tensor
    reads: Tensor
    hidden: Hidden
    usage: Tensor
    precedence: Tensor
    links: Tensor


class DNC(MemoryMachine):
    """Differentiable neural computer over sequences (B, T, D).

    Args:
        input_size: D.
        hidden_size: C.
        num_slots: N.
        slot_size: W.
        num_read_heads: R.
        controller: `lstm` or `feedforward`.

    Example:
        >>> output, state = DNC(input_size=3, hidden_size=8, num_slots=5, slot_size=4)(torch.zeros(2, 6, 3))
        >>> output.shape, state.links.shape
        (torch.Size([2, 6, 12]), torch.Size([2, 5, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 100,
        num_slots: int = 64,
        slot_size: int = 20,
        num_read_heads: int = 1,
        controller: str = "lstm",
    ) -> None:
        heads = num_read_heads
        # keys | strengths | free, allocation and write gate, erase | written | read modes
        sizes = ((heads + 1) * slot_size, heads + 1, heads + 2 + slot_size, slot_size, 3 * heads)
        super().__init__(input_size, hidden_size, num_slots, slot_size, heads, sum(sizes), controller)
        self._sizes = sizes

    def begin(self, rows: int) -> DNCState:
        zeros = self.weight_x.new_zeros(rows, self.num_slots)
        return DNCState(
            memory=zeros.new_zeros(rows, self.num_slots, self.slot_size),
            weights=zeros.new_zeros(rows, self.num_read_heads + 1, self.num_slots),
            reads=zeros.new_zeros(rows, self.num_read_heads * self.slot_size),
            hidden=self.rest(rows),
            usage=zeros,
            precedence=zeros,
            links=zeros.new_zeros(rows, self.num_slots, self.num_slots),
        )

    def step(self, a: Tensor, state: DNCState) -> DNCState:
        heads = self.num_read_heads
        hidden = control(a, state.reads, state.hidden, self.weight_r)
        keys, strength, gates, written, modes = self.interface(hidden[0]).split(self._sizes, dim=1)
        keys, strength, gates = keys.unflatten(1, (heads + 1, -1)), 1 + F.softplus(strength), gates.sigmoid()
        free, allocate, writes, erase = gates.split([heads, 1, 1, self.slot_size], dim=1)

        was_read, was_written = state.weights[:, :heads], state.weights[:, heads]
        usage = use(state.usage, was_written, was_read, free)
        similar = content_weights(state.memory, keys[:, heads:], strength[:, heads:]).squeeze(1)
        place = writes * torch.lerp(similar, allocation(usage), allocate)  # (B, N)
        memory = write(state.memory, place.unsqueeze(1), erase.unsqueeze(1), written.unsqueeze(1))

        links = link(state.links, state.precedence, place)
        alike = content_weights(memory, keys[:, :heads], strength[:, :heads])
        ways = torch.stack([was_read @ links, alike, was_read @ links.mT], dim=2)  # (B, R, 3, N): back, content, forth
        modes = modes.unflatten(1, (heads, 3)).softmax(-1)
        weights = (modes.unsqueeze(2) @ ways).squeeze(2)  # (B, R, N)
        return DNCState(
            memory=memory,
            weights=torch.cat([weights, place.unsqueeze(1)], dim=1),
            reads=read(memory, weights).flatten(1),
            hidden=hidden,
            usage=usage,
            precedence=precede(state.precedence, place),
            links=links,
        )
