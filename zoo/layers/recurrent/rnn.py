r"""Elman's recurrent network: the formula, the layer and the cell.

.. math::
    h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}), \qquad \phi = \tanh \text{ or } \mathrm{ReLU}

Letters: T steps, B rows of a batch, D inputs, H hidden units, L layers, S directions.

Source: Elman 1990, "Finding structure in time". Deviation: two bias vectors as in cuDNN, where one would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from zoo.kernels.recurrent import Recurrence
from zoo.layers.recurrent.base import Recurrent, Step, refuse_projection
from zoo.layers.recurrent.cell import Cell
from zoo.layers.recurrent.scan import State, Weights, affine, unrolled

__all__ = ["RNN", "RNNCell", "rnn_step"]


def rnn_step(a: Tensor, state: State, w: Weights, nonlinearity: str = "tanh") -> State:
    """`h' = φ(a + W_hh h + b_hh)` for `a = x W_ihᵀ + b_ih` of shape (B, H)."""
    (h,) = state
    phi = torch.tanh if nonlinearity == "tanh" else torch.relu
    return (phi(a + affine(h, w.hh, w.bias_hh, w.gain_hh)),)


_PASSES = {phi: Recurrence(f"rnn_{phi}", unrolled(partial(rnn_step, nonlinearity=phi))) for phi in ("tanh", "relu")}


class RNN(Recurrent):
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
        refuse_projection(proj_size)
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

    def passes(self) -> Recurrence | None:
        """The operator for all steps, or None for a form that it does not have."""
        return _PASSES[self.nonlinearity]


class RNNCell(Cell):
    """`h' = φ(W_ih x + b_ih + W_hh h + b_hh)`, a drop-in for `torch.nn.RNNCell`.

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of hidden units.
        bias: use b_ih and b_hh.
        nonlinearity: φ, "tanh" or "relu".

    Raises:
        ValueError: input or state has a wrong rank.
        RuntimeError: input or state has a wrong size, or the nonlinearity is unknown.

    Source: Elman 1990.

    Example:
        >>> RNNCell(10, 20)(torch.randn(3, 10)).shape
        torch.Size([3, 20])
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def step(self, a: Tensor, state: State, w: Weights) -> State:
        """The formula."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return rnn_step(a, state, w, self.nonlinearity)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(B, D) or (D,), h of shape (B, H) or (H,), zeros if None; returns the new h."""
        return self._run(input, None if hx is None else (hx,))[0]

    def extra_repr(self) -> str:
        """The sizes, and what is not at its default."""
        phi = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + phi
