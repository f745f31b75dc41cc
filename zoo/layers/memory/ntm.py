r"""The Neural Turing Machine: a controller whose heads read and write a memory by content and by place.

```math
h_t = \mathrm{controller}(x_t, r_{t-1}), \qquad (k, β, g, s, γ, e, a) = W_o h_t + b_o, \qquad
M_t = \mathrm{write}(M_{t-1}, w_t, e_t, a_t), \qquad r_t = w_t M_t
```

with $β$ and $γ - 1$ through softplus, $g$ and $e$ through a sigmoid, $s$ through a softmax and $a$ through tanh. All
heads find their places in $M_{t-1}$; then the write heads write, and then the read heads read.

Letters: B rows, H = R + Q heads that read and write, N slots of W numbers, S shifts, C units of the controller.

Source: Graves, Wayne & Danihelka 2014. Deviations: every head begins at slot 0, since heads that begin everywhere
alike, on a memory of equal slots, would never tell them apart; the gates g begin nearly shut (`gate_bias`), since half
open they put a mean over all slots into every step, on which programs come to rely that fail on longer sequences.
Where something is to be found by its content, `strength_bias` makes that mean one of few slots from the beginning,
`tied_keys` has a head find what was written when the controller saw the like, and `shift_bias` has it go on from there.
An LSTM can keep items itself instead of writing them: with `span` most of its units begin much like those of a
feed-forward controller, and the few that keep what they hold for longer are there to count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.memory.addressing import read
from zoo.layers.memory.heads import Heads, move
from zoo.layers.memory.machine import Hidden, MemoryMachine, control
from zoo.layers.memory.walk import walk, walkable

__all__ = ["NTM", "NTMState"]

CONSTANT = 1e-6  # what a constant memory is filled with
OPEN = 2.0  # added before their sigmoid to gates that are to be nearly open


class NTMState(NamedTuple):
    """What a Neural Turing Machine carries from step to step.

    Attributes:
        memory: M, (B, N, W).
        weights: where the heads are, the read heads first, (B, H, N).
        reads: what was read, (B, R W).
        hidden: the controller's state.
    """

    memory: Tensor
    weights: Tensor
    reads: Tensor
    hidden: Hidden


class NTM(MemoryMachine):
    """Neural Turing Machine over sequences (B, T, D).

    Args:
        input_size: D.
        hidden_size: C.
        num_slots: N.
        slot_size: W.
        num_read_heads: R.
        num_write_heads: Q.
        shift_range: the furthest that a head goes in a step, to either side.
        controller: `lstm` or `feedforward`.
        initial_memory: what every sequence finds: `constant`, `learned`, or `random`, drawn once with the weights.
        gate_bias: added to the gates before their sigmoid at first: far below 0 heads go on from where they were.
        strength_bias: added to the strengths β before their softplus at first: above 0 contents tell slots apart.
        shift_bias: added before their softmax, at first, to the shifts to the next slot: far above 0 heads step ahead.
        tied_keys: whether at first every head looks for what the first write head would write.
        span: s, the steps for which the units of an LSTM keep what they hold at first: evenly in their logarithm, from
            1 + 1/s to 1 + s of them (after Tallec & Ollivier 2018), through the biases b_f = −b_i of the gates that
            forget and let in, from −log s to log s, with gates b_o = 2 that let most of it out; 0 for b_f = 1 alone.

    Example:
        >>> output, state = NTM(input_size=3, hidden_size=8, num_slots=5, slot_size=4)(torch.zeros(2, 6, 3))
        >>> output.shape, state.memory.shape
        (torch.Size([2, 6, 12]), torch.Size([2, 5, 4]))
    """

    initial: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 100,
        num_slots: int = 128,
        slot_size: int = 20,
        num_read_heads: int = 1,
        num_write_heads: int = 1,
        shift_range: int = 1,
        controller: str = "lstm",
        initial_memory: str = "constant",
        gate_bias: float = -2.0,
        strength_bias: float = 0.0,
        shift_bias: float = 0.0,
        tied_keys: bool = False,
        span: float = 0.0,
    ) -> None:
        if num_write_heads < 1 or shift_range < 0:
            raise ValueError("num_write_heads must be at least 1, and shift_range at least 0")
        if span and (controller != "lstm" or span < 1):
            raise ValueError(f"span must be 0, or at least 1 with controller='lstm', not {span} with {controller!r}")
        heads = Heads(num_read_heads, num_write_heads, slot_size, 2 * shift_range + 1)
        self.heads, self.gate_bias, self.strength_bias = heads, gate_bias, strength_bias
        self.shift_bias, self.tied_keys, self.span = shift_bias, tied_keys, span
        super().__init__(input_size, hidden_size, num_slots, slot_size, num_read_heads, sum(heads.sizes), controller)
        if initial_memory == "constant":
            self.register_buffer("initial", torch.full((num_slots, slot_size), CONSTANT))
        elif initial_memory == "random":
            self.register_buffer("initial", torch.randn(num_slots, slot_size) / slot_size**0.5)
        elif initial_memory == "learned":
            self.initial = nn.Parameter(torch.randn(num_slots, slot_size) / slot_size**0.5)
        else:
            raise ValueError(f"initial_memory must be 'constant', 'learned' or 'random', not {initial_memory!r}")

    def reset_parameters(self) -> None:
        """Draw as the base does, but tell the heads more, and add the biases of strengths and gates.

        With the small numbers of a linear layer all heads stay near slot 0 for thousands of sequences.
        """
        super().reset_parameters()
        nn.init.xavier_uniform_(self.interface.weight, gain=1.4)
        keys, positive, *_ = self.heads.sizes
        with torch.no_grad():
            self.interface.bias[keys : keys + self.heads.total] += self.strength_bias
            self.interface.bias[keys + positive : keys + positive + self.heads.total] += self.gate_bias
            shifts = self.interface.bias[-self.heads.sizes[-1] :].unflatten(0, (self.heads.total, -1))
            shifts[:, (self.heads.shifts + 1) // 2 :][:, :1] += self.shift_bias
            if self.tied_keys:
                for parameter in self.interface.parameters():
                    keys, *_, add, _ = parameter.split(self.heads.sizes)
                    keys.unflatten(0, (self.heads.total, -1)).copy_(add[: self.heads.slot_size])
            if self.span:
                lets_in, lets_out, forgets, _ = self.bias.chunk(4)
                forgets.copy_(math.log(self.span) * torch.linspace(-1, 1, self.hidden_size))
                lets_in.copy_(-forgets)
                lets_out += OPEN

    def begin(self, rows: int) -> NTMState:
        memory = self.initial.expand(rows, -1, -1)
        weights = self.initial.new_zeros(rows, self.heads.total, self.num_slots)
        weights[..., 0] = 1.0
        reads = read(memory, weights[:, : self.heads.reading]).flatten(1)
        return NTMState(memory, weights, reads, self.rest(rows))

    def step(self, a: Tensor, state: NTMState) -> NTMState:
        hidden = control(a, state.reads, state.hidden, self.weight_r)
        memory, weights, reads = move(state.memory, state.weights, self.interface(hidden[0]), self.heads)
        return NTMState(memory, weights, reads, hidden)

    def run(self, x: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        weights = self.weight_r, self.interface.weight, self.interface.bias
        if not walkable(x, state.memory, *weights):
            return super().run(x, state)
        h, *cell = state.hidden
        held, memory, places, last = walk(
            F.linear(x, self.weight_x, self.bias), weights, state.memory, state.weights,
            torch.cat([h, state.reads], dim=1), cell[0] if cell else h.new_empty(len(h), 0), self.heads,
        )  # fmt: skip
        h, reads = held[:, -1].split([self.hidden_size, state.reads.shape[1]], dim=1)
        return held, NTMState(memory, places, reads, (h, last) if cell else (h,))
