r"""Gated recurrent unit: the formula, the layer and the cell.

.. math::
    (r, z, n) = W_{ih} x_t + b_{ih}, \qquad (r', z', n') = W_{hh} h_{t-1} + b_{hh} \\
    r = \sigma(r + r'), \quad z = \sigma(z + z'), \quad n = \tanh(n + r \odot n'), \quad
    h_t = (1 - z) \odot n + z \odot h_{t-1}

Letters: T steps, B rows of a batch, D inputs, H hidden units, L layers, S directions.

Source: Cho et al. 2014, eq. 5-8. Deviations, as in torch and cuDNN: the reset gate acts after the product with W_hh,
and z weighs the old state; `reset_after=False` is Cho's form, `update_gate="new"` lets z weigh the new state. Two bias
vectors, where one would do. With layer normalization (Ba et al. 2016) each gate of each product is normalized alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from zoo.kernels.recurrent import Recurrence
from zoo.layers.recurrent.base import Recurrent, Step, refuse_projection
from zoo.layers.recurrent.cell import Cell
from zoo.layers.recurrent.scan import State, Weights, affine, identity, part, unrolled

__all__ = ["GRU", "GRUCell", "gru_step"]


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
    gates = (w.hh[: 2 * size], part(w.bias_hh, 0, 2 * size), part(w.gain_hh, 0, 2))
    candidate = (w.hh[2 * size :], part(w.bias_hh, 2 * size, None), part(w.gain_hh, 2, None))
    a_rz, a_n = a.split([2 * size, size], -1)
    r, z = (a_rz + affine(h, *gates)).sigmoid().chunk(2, -1)  # (B, H) each
    n = a_n + (r * affine(h, *candidate) if reset_after else affine(r * h, *candidate))
    n = drop(n.tanh())
    return ((n + z * (h - n)) if update_gate == "old" else (h + z * (n - h)),)


_PASSES = Recurrence("gru", unrolled(gru_step))


class GRU(Recurrent):
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
        refuse_projection(proj_size)
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

    def passes(self) -> Recurrence | None:
        """The operator for all steps, or None for a form that it does not have."""
        return _PASSES if self.reset_after and self.update_gate == "old" else None


class GRUCell(Cell):
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
