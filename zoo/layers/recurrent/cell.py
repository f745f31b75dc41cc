"""One step as a module: what RNNCell, LSTMCell and GRUCell share.

Letters: B rows, D inputs, H hidden units, G gates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.layers.recurrent.scan import State, Weights, affine

__all__ = ["Cell"]


class Cell(nn.Module):
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

    def to_torch(self) -> nn.RNNCellBase:
        """Return torch.nn's cell with these very parameters; `torch.jit.script` takes it by itself.

        Raises:
            ValueError: torch.nn's cell has not all options of this one.
        """
        if (getattr(self, "reset_after", True), getattr(self, "update_gate", "old")) != (True, "old"):
            raise ValueError(f"torch.nn has no such cell, so that it cannot be scripted: {self}")
        options = {"nonlinearity": self.nonlinearity} if hasattr(self, "nonlinearity") else {}
        kind = getattr(nn, {1: "RNNCell", 3: "GRUCell", 4: "LSTMCell"}[self.gates])
        cell = kind(self.input_size, self.hidden_size, self.bias, device="meta", **options)
        for name, parameter in self.named_parameters():
            setattr(cell, name, parameter)
        return cell.train(self.training)

    __prepare_scriptable__ = to_torch

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
