"""The loop over time, and what every step is made of: the weights, and the product of one of them.

Every layer computes the products with the input for all steps at once, `a_t = x_t W_ihᵀ + b_ih`, and then steps,
`state = step(a_t, state)`.

Letters: T steps, B rows of a batch, D inputs, H hidden units, P projected units (P = H without a projection),
G gates (1, 4, 3 for RNN, LSTM, GRU), N = Σ_t B_t rows of a packed batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.loop import traced_loop

__all__ = ["State", "Weights", "affine", "identity", "part", "scan", "unrolled"]

State = tuple[Tensor, ...]
"""(h,) for RNN and GRU, (h, c) for LSTM; h: (B, P), c: (B, H)."""


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


class Weights(NamedTuple):
    """The parameters of one direction of one layer; what is None is left out of the formula."""

    ih: Tensor  # (G*H, D)
    hh: Tensor  # (G*H, P)
    bias_ih: Tensor | None = None  # (G*H,)
    bias_hh: Tensor | None = None  # (G*H,)
    hr: Tensor | None = None  # (P, H)
    peephole: Tensor | None = None  # (3*H,) for i, f, o
    gain_ih: Tensor | None = None  # (G, H)
    gain_hh: Tensor | None = None  # (G, H)
    gain_c: Tensor | None = None  # (H,)
    shift_c: Tensor | None = None  # (H,)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, gain: Tensor | None = None) -> Tensor:
    """`x Wᵀ + b`, and with a gain `gain ⊙ normalize(x Wᵀ) + b`, each gate normalized by itself."""
    if gain is None:
        return F.linear(x, weight, bias)
    gates = F.linear(x, weight).unflatten(-1, gain.shape)  # (…, G, H)
    normal = (F.layer_norm(gates, gain.shape[-1:]) * gain).flatten(-2)
    return normal if bias is None else normal + bias


def part(p: Tensor | None, start: int, stop: int | None) -> Tensor | None:
    """Rows of a parameter that may be absent."""
    return None if p is None else p[start:stop]


def scan(
    step: Callable[[Tensor, State], State],
    a: Tensor,
    state: State,
    batch_sizes: Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """Apply `state = step(a_t, state)` along time and collect h.

    Args:
        step: one step.
        a: (T, B, G*H), or (N, G*H) in the order of a PackedSequence.
        state: initial state.
        batch_sizes: of a PackedSequence, rows that are still running at each step, not increasing.
        reverse: start at the last step.

    Returns:
        h of all steps, (T, B, P) or (N, P), and each row's final state.
    """
    one = isinstance(a.size(0), int) and a.size(0) == 1  # a step by itself, such as that of decoding, needs no loop
    if torch.compiler.is_exporting() and batch_sizes is None and not one:
        return _traced(step, a, state, reverse)
    steps = list(a.unbind(0) if batch_sizes is None else a.split(list(batch_sizes)))
    outputs: list[Tensor] = []
    rows = state  # of all sequences; the first len(a_t) of them are running at step t
    for a_t in reversed(steps) if reverse else steps:
        running = a_t.size(0)
        new = step(a_t, tuple(s[:running] for s in rows))
        outputs.append(new[0])
        whole = running == rows[0].size(0)
        rows = new if whole else tuple(torch.cat([n, s[running:]]) for n, s in zip(new, rows, strict=True))
    if reverse:
        outputs.reverse()
    return torch.stack(outputs) if batch_sizes is None else torch.cat(outputs), rows


def _traced(step: Callable[[Tensor, State], State], a: Tensor, state: State, reverse: bool) -> tuple[Tensor, State]:
    """The same within `torch.export`, for any number of steps."""

    def once(state: State, a_t: Tensor) -> tuple[State, Tensor]:
        new = step(a_t, state)
        return new, new[0]

    last, outputs = traced_loop(once, state, a.flip(0) if reverse else a)
    return outputs.flip(0) if reverse else outputs, last


def unrolled(step: Callable[..., State]) -> Callable[..., tuple[Tensor, State]]:
    """The layer's formula as one differentiable function of `(x, state, w, batch_sizes, reverse)`, for `Recurrence`."""

    def formula(x: Tensor, state: State, w: Any, batch_sizes: Tensor | None, reverse: bool) -> tuple[Tensor, State]:
        w = Weights(*w)
        sizes = None if batch_sizes is None else batch_sizes.tolist()
        return scan(lambda a, s: step(a, s, w=w), affine(x, w.ih, w.bias_ih), state, sizes, reverse)

    return formula
