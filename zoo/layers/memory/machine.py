"""What the Neural Turing Machine and the differentiable neural computer share: a controller, and the walk over time.

Letters: B rows, T steps, D inputs, C units of the controller, R read heads, N slots, W numbers in a slot, G gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.loop import traced_loop

__all__ = ["Hidden", "MemoryMachine", "control"]

Hidden = tuple[Tensor, ...]
"""The controller's state: (h,) of a feed-forward one, (h, c) of an LSTM; (B, C) each."""


def control(a: Tensor, reads: Tensor, hidden: Hidden, weight: Tensor) -> Hidden:
    """Return the controller's state after it has seen an input and what was read before.

    Args:
        a: W_x x + b, (B, G C).
        reads: what was read, (B, R W).
        hidden: the state before.
        weight: (G C, R W + C), or (C, R W) of a feed-forward controller.
    """
    if len(hidden) == 1:
        return (torch.addmm(a, reads, weight.T).tanh(),)
    h, c = hidden
    gates = torch.addmm(a, torch.cat([reads, h], dim=1), weight.T)
    size = h.shape[1]
    i, o, f = gates[:, : 3 * size].sigmoid().chunk(3, dim=1)
    c = torch.addcmul(f * c, i, gates[:, 3 * size :].tanh())
    return o * c.tanh(), c


class MemoryMachine(nn.Module):
    """A controller that reads and writes a memory at every step; a subclass says how.

    A subclass has `begin(B)`, the state before the first step, and `step(a, state)`, the state after one; a state has
    the fields `reads` (B, R W) and `hidden`.

    Args:
        input_size: D.
        hidden_size: C.
        num_slots: N.
        slot_size: W.
        num_read_heads: R.
        interface_size: numbers by which the controller steers its heads.
        controller: `lstm`, or `feedforward`: h = tanh(W [x, r] + b).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_slots: int,
        slot_size: int,
        num_read_heads: int,
        interface_size: int,
        controller: str,
    ) -> None:
        super().__init__()
        if controller not in ("lstm", "feedforward"):
            raise ValueError(f"controller must be 'lstm' or 'feedforward', not {controller!r}")
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_slots", num_slots),
                            ("slot_size", slot_size), ("num_read_heads", num_read_heads)):  # fmt: skip
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.input_size, self.hidden_size, self.controller = input_size, hidden_size, controller
        self.num_slots, self.slot_size, self.num_read_heads = num_slots, slot_size, num_read_heads
        gates, seen = (4, hidden_size) if controller == "lstm" else (1, 0)
        self.weight_x = nn.Parameter(torch.empty(gates * hidden_size, input_size))
        self.weight_r = nn.Parameter(torch.empty(gates * hidden_size, num_read_heads * slot_size + seen))
        self.bias = nn.Parameter(torch.empty(gates * hidden_size))
        self.interface = nn.Linear(hidden_size, interface_size)
        self.reset_parameters()

    @property
    def output_size(self) -> int:
        """C + R W: what the controller holds at a step, and what was read in it."""
        return self.hidden_size + self.num_read_heads * self.slot_size

    def reset_parameters(self) -> None:
        """Draw the controller's weights and biases from U(−1/√C, 1/√C); an LSTM forgets little at first."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in (self.weight_x, self.weight_r, self.bias):
            nn.init.uniform_(parameter, -bound, bound)
        if self.controller == "lstm":
            nn.init.ones_(self.bias[2 * self.hidden_size : 3 * self.hidden_size])
        self.interface.reset_parameters()

    def begin(self, rows: int) -> Any:
        """Return the state before the first step of `rows` sequences."""
        raise NotImplementedError

    def step(self, a: Tensor, state: Any) -> Any:
        """Return the state after a step.

        Args:
            a: W_x x + b, (B, G C).
            state: the one before.
        """
        raise NotImplementedError

    def rest(self, rows: int) -> Hidden:
        """Return the controller's state before the first step: zeros."""
        zeros = self.weight_x.new_zeros(rows, self.hidden_size)
        return (zeros, zeros) if self.controller == "lstm" else (zeros,)

    def steps(self, x: Tensor, state: Any = None) -> Iterator[Any]:
        """Yield the state after each step of x (B, T, D)."""
        state = self.begin(len(x)) if state is None else state
        for a in F.linear(x, self.weight_x, self.bias).unbind(1):
            state = self.step(a, state)
            yield state

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run over sequences.

        Args:
            x: (B, T, D).
            state: that of the step before; by default that in which every sequence begins.

        Returns:
            What the controller holds and what was read at each step, (B, T, C + R W), and the last state.
        """
        if torch.compiler.is_exporting():  # a graph that enters autocast cannot always be read again
            return self._traced(x.to(self.weight_x.dtype), self.begin(x.shape[0]) if state is None else state)
        with torch.autocast(x.device.type, enabled=False):  # places are not to be lost in mixed precision
            return self.run(x.to(self.weight_x.dtype), self.begin(len(x)) if state is None else state)

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return what `forward` does, by steps."""
        held = [x.new_empty(len(x), 0, self.output_size)]
        for state in self.steps(x, state):  # noqa: B020 - it goes in, and comes out
            held.append(torch.cat([state.hidden[0], state.reads], dim=1).unsqueeze(1))
        return torch.cat(held, dim=1), state

    def _traced(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same within `torch.export`, for any number of steps."""

        kind, names = type(state), [name for name in state._fields if name != "hidden"]

        def flat(state: Any) -> tuple[Tensor, ...]:
            return (*[getattr(state, name) for name in names], *state.hidden)

        def once(tensors: tuple[Tensor, ...], a: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            own = dict(zip(names, tensors, strict=False))
            new = self.step(a, kind(**own, hidden=tensors[len(names) :]))
            return flat(new), torch.cat([new.hidden[0], new.reads], dim=-1)

        last, outputs = traced_loop(once, flat(state), F.linear(x, self.weight_x, self.bias).transpose(0, 1))
        own = dict(zip(names, last, strict=False))
        return outputs.transpose(0, 1), kind(**own, hidden=tuple(last[len(names) :]))

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}, memory={self.num_slots}×{self.slot_size}, {self.controller}"
