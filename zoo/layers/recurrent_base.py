"""The walk over layers and directions that RNN, LSTM and GRU share, for dense and packed batches.

Letters: T steps, B rows, D inputs, H hidden units, P projected units (H without a projection), L layers,
S directions (2 if bidirectional, else 1), N = Σ_t B_t rows of a packed batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from zoo.layers.recurrent_fast import Passes, Steps, run, usable
from zoo.layers.recurrent_kernels import compiled_passes
from zoo.layers.recurrent_parameters import RecurrentParameters
from zoo.layers.recurrent_steps import State, Weights, affine, scan

__all__ = ["RecurrentBase"]

Step = Callable[[Tensor, State], State]


class RecurrentBase(RecurrentParameters):
    """Runs one step over time, directions and layers; a subclass gives the step."""

    def make_step(self, w: Weights) -> Step:
        """The step `(a_t, state) -> state` with these weights."""
        raise NotImplementedError

    def passes(self) -> Passes | None:
        """The hand-written passes of this step, or None where only the readable way goes."""
        return None

    def drop(self, candidate: Tensor) -> Tensor:
        """Dropout of what a step would add to the state (Semeniuta et al. 2016)."""
        return F.dropout(candidate, self.recurrent_dropout, self.training) if self.recurrent_dropout else candidate

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            input: (T, B, D), with `batch_first` (B, T, D), unbatched (T, D), or a PackedSequence.
            hx: initial h of shape (L*S, B, P), unbatched (L*S, P), for the LSTM (h, c) with c of shape
                (L*S, B, H); zeros if None. With one hidden size per layer a sequence of L tensors (S, B, H_l)
                in the place of each.

        Returns:
            h of all steps, shaped as the input with S*P in place of D, and the final states shaped as `hx`.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            tensor = " tensor" if type(self).__name__ == "RNN" else ""
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead"
            )
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x  # (T, B, D)
        self._check_input(x)
        states = self._initial_states(x, x.size(1), hx, batched)
        if x.size(0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        output, states = self._run(x, states, None)
        if not batched:
            return output.squeeze(1), self._join(states, lambda s: s.squeeze(1))
        return (output.transpose(0, 1) if self.batch_first else output), self._join(states)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        data, batch_sizes, order, back = packed
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        self._check_input(data)
        sizes = batch_sizes.tolist()
        states = self._initial_states(data, sizes[0], hx, True)
        if hx is not None and order is not None:
            states = [tuple(s.index_select(0, order) for s in state) for state in states]
        output, states = self._run(data, states, sizes)
        final = self._join(states, lambda s: s if back is None else s.index_select(1, back))
        return PackedSequence(output, batch_sizes, order, back), final

    def _check_input(self, x: Tensor) -> None:
        dtype = self.weights(0).ih.dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
            )
        if x.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.size(-1)}"
            )

    def _initial_states(self, x: Tensor, rows: int, hx: Any, batched: bool) -> list[State]:
        """One state of shapes (B, P) and (B, H) per layer and direction."""
        sizes = [(self.output_size(layer), self.hidden_sizes[layer]) for layer in range(self.num_layers)]
        if hx is None:
            zeros = [tuple(x.new_zeros(rows, n) for n in pair[: self.states]) for pair in sizes]
            return [z for z in zeros for _ in range(self.num_directions)]
        kinds = hx if self.states == 2 else (hx,)
        self._check_ranks(kinds, batched)
        columns = []
        for j, kind in enumerate(kinds):
            name = f"hidden[{j}]" if self.states == 2 else "hidden"
            columns.append(self._split_state(kind, [pair[j] for pair in sizes], rows, name, batched))
        return list(zip(*columns, strict=True))

    def _check_ranks(self, kinds: Sequence[Any], batched: bool) -> None:
        ranks = [part.dim() for kind in kinds for part in ([kind] if isinstance(kind, Tensor) else kind)]
        want, words = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        if any(rank != want for rank in ranks):
            if self.states == 2:
                got = ", ".join(f"{rank}-D" for rank in ranks)
                raise RuntimeError(f"For {words} input, hx and cx should also be {want}-D but got ({got}) tensors")
            raise RuntimeError(f"For {words} input, hx should also be {want}-D but got {ranks[0]}-D tensor")

    def _split_state(self, kind: Any, sizes: list[int], rows: int, name: str, batched: bool) -> list[Tensor]:
        """The L*S initial tensors (B, ·) of one kind, h or c."""
        whole = isinstance(kind, Tensor)
        parts = [kind] if whole else list(kind)
        if (whole and len(set(sizes)) > 1) or len(parts) != (1 if whole else self.num_layers):
            raise RuntimeError(f"{name} must be a sequence of {self.num_layers} tensors, one per layer")
        parts = parts if batched else [part.unsqueeze(1) for part in parts]
        layers = self.num_layers if whole else 1
        for part, size in zip(parts, sizes, strict=False):
            expected = (layers * self.num_directions, rows, size)
            if part.shape != expected:
                raise RuntimeError(f"Expected {name} size {expected}, got {list(part.shape)}")
        return [row for part in parts for row in part.unbind(0)]

    def _join(self, states: list[State], finish: Callable[[Tensor], Tensor] = lambda s: s) -> Any:
        """Final states as `hx` is given: stacked, or one tensor per layer where sizes differ."""
        joined: list[Any] = []
        for kind in zip(*states, strict=True):
            layers = [kind[k : k + self.num_directions] for k in range(0, len(kind), self.num_directions)]
            if len(set(self.hidden_sizes)) > 1 and kind[0].size(-1) != self.proj_size:
                joined.append(tuple(finish(torch.stack(layer)) for layer in layers))
            else:
                joined.append(finish(torch.stack(kind)))
        return tuple(joined) if self.states == 2 else joined[0]

    def _run(self, x: Tensor, states: list[State], sizes: list[int] | None) -> tuple[Tensor, list[State]]:
        """All layers over (T, B, D) or packed (N, D), under autocast in its type, as torch does."""
        device = x.device.type
        if not torch.is_autocast_enabled(device) or (device == "cpu" and self.mode == "GRU"):
            return self._layers(x, states, sizes)
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return self._layers(x.to(dtype), [tuple(s.to(dtype) for s in state) for state in states], sizes)

    def _layers(self, x: Tensor, states: list[State], sizes: list[int] | None) -> tuple[Tensor, list[State]]:
        finals: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.num_directions):
                k = len(finals)
                w = self.weights(k)
                if x.dtype != w.ih.dtype and not torch.is_autocast_enabled(x.device.type):
                    w = Weights(*(t if t is None else t.to(x.dtype) for t in w))
                output, final = self._direction(x, states[k], w, sizes, direction == 1)
                outputs.append(output)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, finals

    def _direction(
        self, x: Tensor, state: State, w: Weights, sizes: list[int] | None, reverse: bool
    ) -> tuple[Tensor, State]:
        """One direction of one layer, fast where that goes."""
        passes = None if self.layer_norm or self._noisy() else self.passes()
        if passes is not None and usable(x, state, w):
            passes = compiled_passes(self.mode, x, w) or passes
            return run(passes, x, state, w, Steps(tuple(sizes or [x.size(1)] * x.size(0)), reverse))
        locked = self.variational_dropout if self.training else 0.0
        rows = state[0].size(0)
        if locked:
            mask = F.dropout(x.new_ones(rows, x.size(-1)), locked)  # (B, D), one for all steps
            x = x * (mask if sizes is None else torch.cat([mask[:n] for n in sizes]))
        step = self._with_noise(self.make_step(w), state, locked)
        return scan(step, affine(x, w.ih, w.bias_ih, w.gain_ih), state, sizes, reverse)

    def _noisy(self) -> bool:
        return any(self.zoneout) or (self.training and bool(self.variational_dropout or self.recurrent_dropout))

    def _with_noise(self, step: Step, state: State, locked: float) -> Step:
        """Put the locked mask on h (Gal & Ghahramani 2016) and zoneout (Krueger et al. 2017) around a step."""
        if not locked and not any(self.zoneout):
            return step
        mask = F.dropout(torch.ones_like(state[0]), locked) if locked else None  # (B, P)

        def noisy(a: Tensor, old: State) -> State:
            seen = old if mask is None else (old[0] * mask[: a.size(0)], *old[1:])
            new = step(a, seen)
            # zoneout is given as torch orders states: h, then c
            return tuple(_zone(o, n, p, self.training) for o, n, p in zip(old, new, self.zoneout, strict=True))

        return noisy


def _zone(old: Tensor, new: Tensor, p: float, training: bool) -> Tensor:
    """Keep each unit's old value with probability p; outside of training take the expectation."""
    if p == 0:
        return new
    if not training:
        return new + p * (old - new)
    return torch.where(torch.rand_like(new) < p, old, new)
