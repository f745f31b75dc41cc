r"""One step as a module: drop-ins for `torch.nn.RNNCell`, `torch.nn.LSTMCell` and `torch.nn.GRUCell`.

The formulas are those of `recurrent_steps`. Letters: B rows, D inputs, H hidden units, G gates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.layers.recurrent_steps import State, Weights, affine, gru_step, lstm_step, rnn_step

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


class _Cell(nn.Module):
    """Parameters and checks of the three cells."""

    gates: int  # G

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, factory = self.gates * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, **factory))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size, **factory))
        self.bias_ih = nn.Parameter(torch.empty(rows, **factory)) if bias else None
        self.bias_hh = nn.Parameter(torch.empty(rows, **factory)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all from U(-1/√H, 1/√H)."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def step(self, a: Tensor, state: State, w: Weights) -> State:
        """The formula."""
        raise NotImplementedError

    def _run(self, input: Tensor, state: State | None, kinds: int = 1) -> State:
        """Check, add a row axis where there is none, step."""
        self._check_ranks(input, state, kinds)
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)  # (B, D)
        if state is None:
            state = (x.new_zeros(x.size(0), self.hidden_size),) * kinds
        elif not batched:
            state = tuple(s.unsqueeze(0) for s in state)
        self._check_sizes(x, state)
        w = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        new = self.step(affine(x, w.ih, w.bias_ih), state, w)
        return new if batched else tuple(s.squeeze(0) for s in new)

    def _check_ranks(self, input: Tensor, state: State | None, kinds: int) -> None:
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for k, s in enumerate(state or ()):
            if s.dim() not in (1, 2):
                what = f"hx[{k}]" if kinds == 2 else "hidden"
                raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {s.dim()}D instead")

    def _check_sizes(self, x: Tensor, state: State) -> None:
        if x.size(1) != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.size(1)} expected {self.input_size}")
        for k, s in enumerate(state):
            if s.size(0) != x.size(0):
                raise RuntimeError(f"Input batch size {x.size(0)} doesn't match hidden{k} batch size {s.size(0)}")
            if s.size(1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden{k} has inconsistent hidden_size: got {s.size(1)}, expected {self.hidden_size}"
                )

    def extra_repr(self) -> str:
        """The sizes, and what is not at its default."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias is True else f", bias={self.bias}")


class RNNCell(_Cell):
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


class LSTMCell(_Cell):
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


class GRUCell(_Cell):
    """`h' = (1 - z)n + zh`, a drop-in for `torch.nn.GRUCell`.

    Args:
        input_size: D, number of inputs.
        hidden_size: H, number of hidden units.
        bias: use b_ih and b_hh.
        reset_after: r acts after the product (torch); False is the form of Cho et al. 2014.
        update_gate: the state that z weighs, "old" (torch) or "new".

    Raises:
        ValueError: input or state has a wrong rank, or the update gate is unknown.
        RuntimeError: input or state has a wrong size.

    Source: Cho et al. 2014, eq. 5-8; the form with the reset after the product: cuDNN.

    Example:
        >>> GRUCell(10, 20)(torch.randn(3, 10)).shape
        torch.Size([3, 20])
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        update_gate: str = "old",
    ) -> None:
        if update_gate not in ("old", "new"):
            raise ValueError(f"update_gate names the state that z weighs, 'old' or 'new', got {update_gate!r}")
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.reset_after, self.update_gate = reset_after, update_gate

    def step(self, a: Tensor, state: State, w: Weights) -> State:
        """The formula."""
        return gru_step(a, state, w, self.reset_after, self.update_gate)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(B, D) or (D,), h of shape (B, H) or (H,), zeros if None; returns the new h."""
        return self._run(input, None if hx is None else (hx,))[0]
