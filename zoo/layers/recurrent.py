r"""Recurrent layers from raw tensors, drop-ins for `torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`.

Same constructors, `state_dict` keys, initial weights from a seed, results, errors and warnings. The formulas are in
`recurrent_steps`, the walk over layers and directions in `recurrent_base`, the hand-derived way back in
`recurrent_passes`.

Beyond torch, and off by default: layer normalization in the cell, variational (locked) dropout, recurrent dropout,
zoneout, hidden sizes per layer, peepholes, and the GRU's other forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from zoo.layers.recurrent_base import RecurrentBase, Step
from zoo.layers.recurrent_fast import Passes
from zoo.layers.recurrent_passes import GRU_PASSES, LSTM_PASSES, RNN_PASSES
from zoo.layers.recurrent_steps import Weights, gru_step, lstm_step, rnn_step

__all__ = ["GRU", "LSTM", "RNN"]


class RNN(RecurrentBase):
    r"""Elman network, `h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`, a drop-in for `torch.nn.RNN`.

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of hidden units, or a sequence with one number per layer.
        num_layers: L, number of layers, each fed with the outputs of the one before.
        nonlinearity: φ, "tanh" or "relu".
        bias: use b_ih and b_hh.
        batch_first: input and output are (B, T, ·) instead of (T, B, ·).
        dropout: probability of zeroing an output of every layer but the last in training.
        bidirectional: run a second set of weights from the end to the start and concatenate the outputs.
        layer_norm: normalize each product before the biases (Ba et al. 2016).
        variational_dropout: probability of zeroing an input or a hidden unit of a layer, the same ones at all
            steps (Gal & Ghahramani 2016).
        zoneout: probability that a hidden unit keeps its old value (Krueger et al. 2017).

    Raises:
        ValueError: an option is out of its range, or the input has a wrong rank or type.
        TypeError: an option has a wrong type.
        RuntimeError: input or initial state has a wrong size.

    Source: Elman 1990, "Finding structure in time".

    Example:
        >>> output, h = RNN(10, 20, num_layers=2)(torch.randn(5, 3, 10))
        >>> output.shape, h.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        zoneout: float = 0.0,
        proj_size: None = None,
    ) -> None:
        _refuse_projection(proj_size)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype,
            layer_norm=layer_norm, variational_dropout=variational_dropout, zoneout=zoneout,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"

    def make_step(self, w: Weights) -> Step:
        """The step with these weights."""
        return partial(rnn_step, w=w, nonlinearity=self.nonlinearity)

    def passes(self) -> Passes | None:
        """The hand-written passes."""
        return RNN_PASSES[self.nonlinearity]


class LSTM(RecurrentBase):
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

    def passes(self) -> Passes | None:
        """The hand-written passes."""
        return None if self.peepholes else LSTM_PASSES


class GRU(RecurrentBase):
    r"""Gated recurrent unit, a drop-in for `torch.nn.GRU`.

    .. math::
        r = \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}), \qquad
        z = \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n = \tanh(W_{in} x_t + b_{in} + r ⊙ (W_{hn} h_{t-1} + b_{hn})), \qquad h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of hidden units, or a sequence with one number per layer.
        num_layers: L, number of layers, each fed with the outputs of the one before.
        bias: use b_ih and b_hh.
        batch_first: input and output are (B, T, ·) instead of (T, B, ·).
        dropout: probability of zeroing an output of every layer but the last in training.
        bidirectional: run a second set of weights from the end to the start and concatenate the outputs.
        reset_after: r acts after the product as above (torch, cuDNN); False is the form of Cho et al. 2014,
            `n = tanh(W_in x_t + b_in + W_hn (r ⊙ h_{t-1}) + b_hn)`.
        update_gate: the state that z weighs, "old" as above (torch, cuDNN) or "new",
            `h_t = (1 - z) ⊙ h_{t-1} + z ⊙ n`.
        layer_norm: normalize each gate's products before the biases (Ba et al. 2016).
        variational_dropout: probability of zeroing an input or a hidden unit of a layer, the same ones at all
            steps (Gal & Ghahramani 2016).
        recurrent_dropout: probability of zeroing a unit of n, drawn at each step (Semeniuta et al. 2016).
        zoneout: probability that a hidden unit keeps its old value (Krueger et al. 2017).

    Raises:
        ValueError: an option is out of its range, or the input has a wrong rank or type.
        TypeError: an option has a wrong type.
        RuntimeError: input or initial state has a wrong size.

    Source: Cho et al. 2014, eq. 5-8; the form with the reset after the product: cuDNN.

    Example:
        >>> output, h = GRU(10, [20, 30], batch_first=True)(torch.randn(3, 5, 10))
        >>> output.shape, [layer.shape for layer in h]
        (torch.Size([3, 5, 30]), [torch.Size([1, 3, 20]), torch.Size([1, 3, 30])])
    """

    gates, mode = 3, "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        update_gate: str = "old",
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        proj_size: None = None,
    ) -> None:
        _refuse_projection(proj_size)
        if update_gate not in ("old", "new"):
            raise ValueError(f"update_gate names the state that z weighs, 'old' or 'new', got {update_gate!r}")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype,
            layer_norm=layer_norm, variational_dropout=variational_dropout, recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
        )  # fmt: skip
        self.reset_after, self.update_gate = reset_after, update_gate

    def make_step(self, w: Weights) -> Step:
        """The step with these weights."""
        return partial(gru_step, w=w, reset_after=self.reset_after, update_gate=self.update_gate, drop=self.drop)

    def passes(self) -> Passes | None:
        """The hand-written passes."""
        return GRU_PASSES if self.reset_after and self.update_gate == "old" else None


def _refuse_projection(proj_size: Any) -> None:
    if proj_size is not None:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
