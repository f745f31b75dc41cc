r"""One step of each recurrent layer, and the loop over time: the formulas as one reads them.

Every layer computes the products with the input for all steps at once, `a_t = x_t W_ihᵀ + b_ih`, and then steps

.. math::
    \text{RNN}\quad  & h_t = \phi(a_t + W_{hh} h_{t-1} + b_{hh}), \qquad \phi = \tanh \text{ or } \mathrm{ReLU} \\
    \text{LSTM}\quad & (i, f, g, o) = a_t + W_{hh} h_{t-1} + b_{hh} \\
                     & c_t = \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g), \qquad
                       h_t = \sigma(o) \odot \tanh(c_t) \\
    \text{GRU}\quad  & (r, z, n) = a_t, \qquad (r', z', n') = W_{hh} h_{t-1} + b_{hh} \\
                     & r = \sigma(r + r'), \quad z = \sigma(z + z'), \quad n = \tanh(n + r \odot n'), \quad
                       h_t = (1 - z) \odot n + z \odot h_{t-1}

Letters: T steps, B rows of a batch, D inputs, H hidden units, P projected units (P = H without a projection),
G gates (1, 4, 3 for RNN, LSTM, GRU), N = Σ_t B_t rows of a packed batch.

Sources: Elman 1990; Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014;
peepholes of Gers et al. 2002; projection of Sak et al. 2014; layer normalization of Ba et al. 2016, eq. 20-22.

Deviations. Two bias vectors as in cuDNN, where one would do. The GRU's reset gate acts after the product with
W_hh, and z weighs the old state, as in torch and cuDNN; `reset_after=False` is Cho's form and
`update_gate="new"` lets z weigh the new state. With layer normalization every gate of every product is normalized
by itself; Ba et al. normalize the gates of a product together, and in their plain RNN the sum of the products.
The existing biases serve as its shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["State", "Weights", "affine", "gru_step", "lstm_step", "rnn_step", "scan"]

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


def rnn_step(a: Tensor, state: State, w: Weights, nonlinearity: str = "tanh") -> State:
    """`h' = φ(a + W_hh h + b_hh)` for `a = x W_ihᵀ + b_ih` of shape (B, H)."""
    (h,) = state
    phi = torch.tanh if nonlinearity == "tanh" else torch.relu
    return (phi(a + affine(h, w.hh, w.bias_hh, w.gain_hh)),)


def lstm_step(a: Tensor, state: State, w: Weights, drop: Callable[[Tensor], Tensor] = identity) -> State:
    """`c' = σ(f)c + σ(i)tanh(g)`, `h' = σ(o)tanh(c')` for `a = x W_ihᵀ + b_ih`, (B, 4H); drop acts on tanh(g)."""
    h, c = state
    i, f, g, o = (a + affine(h, w.hh, w.bias_hh, w.gain_hh)).chunk(4, -1)  # (B, H) each
    if w.peephole is not None:
        p_i, p_f, p_o = w.peephole.chunk(3)
        i, f = i + p_i * c, f + p_f * c
    c = f.sigmoid() * c + i.sigmoid() * drop(g.tanh())
    if w.peephole is not None:
        o = o + p_o * c
    seen = c if w.gain_c is None else F.layer_norm(c, w.gain_c.shape, w.gain_c, w.shift_c)
    h = o.sigmoid() * seen.tanh()
    return (h if w.hr is None else F.linear(h, w.hr)), c


def gru_step(
    a: Tensor,
    state: State,
    w: Weights,
    reset_after: bool = True,
    update_gate: str = "old",
    drop: Callable[[Tensor], Tensor] = identity,
) -> State:
    """`h' = (1 - z)n + zh` for `a = x W_ihᵀ + b_ih`, (B, 3H); the module has the two forms; drop acts on n."""
    (h,) = state
    size = h.size(-1)
    gates = (w.hh[: 2 * size], _part(w.bias_hh, 0, 2 * size), _part(w.gain_hh, 0, 2))
    candidate = (w.hh[2 * size :], _part(w.bias_hh, 2 * size, None), _part(w.gain_hh, 2, None))
    a_rz, a_n = a.split([2 * size, size], -1)
    r, z = (a_rz + affine(h, *gates)).sigmoid().chunk(2, -1)  # (B, H) each
    n = a_n + (r * affine(h, *candidate) if reset_after else affine(r * h, *candidate))
    n = drop(n.tanh())
    return ((n + z * (h - n)) if update_gate == "old" else (h + z * (n - h)),)


def _part(p: Tensor | None, start: int, stop: int | None) -> Tensor | None:
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
