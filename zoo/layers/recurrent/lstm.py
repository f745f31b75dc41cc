r"""Long short-term memory: the formula, the layer and the cell.

.. math::
    (i, f, g, o) = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}, \qquad
    c_t = \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g), \qquad h_t = \sigma(o) \odot \tanh(c_t)

Letters: T steps, B rows of a batch, D inputs, H memory cells, P projected units (P = H without a projection), L layers,
S directions. The gates lie in the order i, f, g, o.

Source: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; peepholes of Gers et al. 2002;
projection of Sak et al. 2014; layer normalization of Ba et al. 2016, eq. 20-22. Deviations: two bias vectors as in
cuDNN, where one would do; with layer normalization each gate of each product is normalized by itself, where Ba et al.
normalize the gates of a product together, and the existing biases serve as its shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.recurrent import Recurrence
from zoo.layers.recurrent.base import Recurrent, Step
from zoo.layers.recurrent.cell import Cell
from zoo.layers.recurrent.scan import State, Weights, affine, identity, unrolled

__all__ = ["LSTM", "LSTMCell", "lstm_step"]


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


_PASSES = Recurrence("lstm", unrolled(lstm_step))


class LSTM(Recurrent):
    r"""Long short-term memory, a drop-in for `torch.nn.LSTM`.

    .. math::
        c_t = \sigma(f) ⊙ c_{t-1} + \sigma(i) ⊙ \tanh(g), \qquad h_t = \sigma(o) ⊙ \tanh(c_t), \qquad
        (i, f, g, o) = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of memory cells, or a sequence with one number per layer.
        num_layers: L, number of layers, each fed with the outputs of the one before.
        bias: use b_ih and b_hh.
        batch_first: input and output are (B, T, ·) instead of (T, B, ·).
        dropout: probability of zeroing an output of every layer but the last in training.
        bidirectional: run a second set of weights from the end to the start and concatenate the outputs.
        proj_size: P, size that h is projected to; 0 for none.
        layer_norm: normalize each gate's products before the biases, and c before the output (Ba et al. 2016).
        variational_dropout: probability of zeroing an input or a hidden unit of a layer, the same ones at all
            steps (Gal & Ghahramani 2016).
        recurrent_dropout: probability of zeroing a unit of tanh(g), drawn at each step (Semeniuta et al. 2016).
        zoneout: probability that a unit keeps its old value, one for h and c or a pair (h, c) (Krueger et al. 2017).
        peepholes: the gates see the cell, i and f its old value, o its new one (Gers et al. 2002).

    Raises:
        ValueError: an option is out of its range, or the input has a wrong rank or type.
        TypeError: an option has a wrong type.
        RuntimeError: input or initial state has a wrong size.

    Source: Hochreiter & Schmidhuber 1997; forget gate Gers et al. 2000; projection Sak et al. 2014.

    Example:
        >>> output, (h, c) = LSTM(10, 20, bidirectional=True)(torch.randn(5, 3, 10))
        >>> output.shape, h.shape
        (torch.Size([5, 3, 40]), torch.Size([2, 3, 20]))
    """

    gates, states, mode = 4, 2, "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        peepholes: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype,
            layer_norm=layer_norm, variational_dropout=variational_dropout, recurrent_dropout=recurrent_dropout,
            zoneout=zoneout, peepholes=peepholes,
        )  # fmt: skip

    def make_step(self, w: Weights) -> Step:
        """The step with these weights."""
        return partial(lstm_step, w=w, drop=self.drop)

    def passes(self) -> Recurrence | None:
        """The operator for all steps, or None for a form that it does not have."""
        return None if self.peepholes else _PASSES


class LSTMCell(Cell):
    """`c' = σ(f)c + σ(i)tanh(g)`, `h' = σ(o)tanh(c')`, a drop-in for `torch.nn.LSTMCell`.

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of memory cells.
        bias: use b_ih and b_hh.

    Raises:
        ValueError: input or state has a wrong rank.
        RuntimeError: input or state has a wrong size.

    Source: Hochreiter & Schmidhuber 1997; forget gate Gers et al. 2000.

    Example:
        >>> h, c = LSTMCell(10, 20)(torch.randn(3, 10))
        >>> h.shape, c.shape
        (torch.Size([3, 20]), torch.Size([3, 20]))
    """

    gates = 4

    def step(self, a: Tensor, state: State, w: Weights) -> State:
        """The formula."""
        return lstm_step(a, state, w)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(B, D) or (D,), (h, c) each (B, H) or (H,), zeros if None; returns the new (h, c)."""
        h, c = self._run(input, None if hx is None else tuple(hx), kinds=2)
        return h, c
