r"""The two passes of RNN, LSTM and GRU in torch operations, in-place steps forward and a hand-derived way back.

recurrent.c is the same in C. Forward, the products with the input are one product for all steps. Backward, every factor
that does not depend on the gradient travelling back in time is computed for all steps at once, so that a step is a few
multiplications and one product with W_hh; the gradients of weights and input are single products at the end. Write δ
for the gradient of what a gate sums up before σ or tanh, ∂v for that of a value v, and h' = h_{t-1}, c' = c_{t-1}:

.. math::
    \text{RNN}\quad  & δ = ∂h ⊙ φ'(h), \qquad φ' = 1 - h^2 \text{ or } [h > 0] \\
    \text{LSTM}\quad & ∂c \mathrel{+}= ∂h ⊙ o\,(1 - \tanh^2 c), \quad δ_o = ∂h ⊙ \tanh(c)\,o(1 - o) \\
                     & δ_i = ∂c ⊙ g\,i(1 - i), \quad δ_f = ∂c ⊙ c'f(1 - f), \quad δ_g = ∂c ⊙ i(1 - g^2) \\
                     & ∂c' = ∂c ⊙ f \\
    \text{GRU}\quad  & δ_n = ∂h ⊙ (1 - z)(1 - n^2), \quad δ_z = ∂h ⊙ (h' - n)\,z(1 - z) \\
                     & δ_u = δ_n ⊙ r, \quad δ_r = δ_n ⊙ u\,r(1 - r), \quad u = W_{hn}h' + b_{hn}, \quad
                       ∂h' \mathrel{+}= ∂h ⊙ z \\
    \text{all}\quad  & ∂h' \mathrel{+}= W_{hh}^T δ, \quad ∂x = W_{ih}^T δ, \quad
                       ∂W_{ih} = \sum_t δ_t x_t^T, \quad ∂W_{hh} = \sum_t δ_t h_{t-1}^T, \quad ∂b = \sum_t δ_t

In the GRU the products with W_hh take (δ_r, δ_z, δ_u), those with W_ih (δ_r, δ_z, δ_n). With a projection h = W_hr m,
m = o ⊙ tanh(c): ∂m = W_hrᵀ ∂h takes the place of ∂h in the LSTM's lines, and ∂W_hr = Σ_t ∂h_t m_tᵀ.

Letters: N rows of all steps, B rows of a batch, D inputs, H hidden units, P projected units, G gates.
Source: Werbos 1990 (back-propagation through time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.onednn import product

__all__ = ["PASSES", "Passes", "Steps", "Weights"]

State = tuple[Tensor, ...]
"""(h,) for RNN and GRU, (h, c) for LSTM; h: (B, P), c: (B, H)."""


class Weights(NamedTuple):
    """The weights of one direction of one layer, or their gradients."""

    ih: Tensor  # (G*H, D)
    hh: Tensor  # (G*H, P)
    bias_ih: Tensor | None = None  # (G*H,)
    bias_hh: Tensor | None = None  # (G*H,)
    hr: Tensor | None = None  # (P, H)


@dataclass(frozen=True)
class Steps:
    """Where each step's rows lie among all N, and in which direction time runs."""

    sizes: tuple[int, ...]  # B_t
    reverse: bool

    @property
    def dense(self) -> bool:
        """Whether every step has all rows."""
        return self.sizes[0] == self.sizes[-1]

    def rows(self) -> list[tuple[int, int]]:
        """(start, stop) of each step's rows, in the order in which the steps are taken."""
        bounds, start = [], 0
        for size in self.sizes:
            bounds.append((start, start + size))
            start += size
        return bounds[::-1] if self.reverse else bounds

    @staticmethod
    def align(now: Tensor, initial: Tensor, rows: int) -> Tensor:
        """The state of the first `rows` rows, those that start only now with their initial one."""
        return now[:rows] if len(now) >= rows else torch.cat([now, initial[len(now) : rows]])

    def previous(self, values: Tensor, initial: Tensor) -> Tensor:
        """The state each step starts from, (N, ·), given those that the steps end with and the initial one."""
        if self.dense:
            last = self.sizes[0]
            return torch.cat([values[last:], initial] if self.reverse else [initial, values[: len(values) - last]])
        parts, before = [], initial
        for start, stop in self.rows():
            parts.append(self.align(before, initial, stop - start))
            before = values[start:stop]
        return torch.cat(parts[::-1] if self.reverse else parts)

    def final(self, values: Tensor, initial: Tensor) -> Tensor:
        """The state that each row ends with, (B, ·), given those that the steps end with and the initial one."""
        rows = self.rows()
        if self.dense or self.reverse:  # the last step taken has all rows
            start, stop = rows[-1]
            return values[start:stop].clone()
        ends = []
        for (start, stop), (_, next_stop) in zip(rows, [*rows[1:], (0, 0)], strict=True):
            going_on = max(next_stop - stop, 0)
            ends.append(values[start + going_on : stop])
        return torch.cat(ends[::-1])


@dataclass(frozen=True)
class Passes:
    """One layer's two passes on flat tensors.

    forward(steps, x, state, w, save) returns h of all steps (N, P), the final state, and two tensors for the way back;
    backward(steps, x, state, w, h, saved, d_h, d_final, need_x) returns ∂x, ∂state and the gradients of w.
    """

    forward: Callable[..., tuple[Tensor, State, tuple[Tensor, ...]]]
    backward: Callable[..., tuple[Tensor | None, State, Weights]]


def input_gates(x: Tensor, w: Weights) -> Tensor:
    """`x W_ihᵀ` with both biases, (N, G*H)."""
    return product(x, w.ih, None if w.bias_ih is None else w.bias_ih + w.bias_hh)


def weight_gradients(
    x: Tensor, before: Tensor, d_ih: Tensor, d_hh: Tensor, w: Weights
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of W_ih, W_hh and the biases from those of the gates (N, G*H); `before` is h_{t-1}, (N, P)."""
    ih, hh = product(d_ih.t(), x.t()), product(d_hh.t(), before.t())
    if w.bias_ih is None:
        return ih, hh, None, None
    bias_ih = d_ih.sum(0)
    return ih, hh, bias_ih, bias_ih.clone() if d_hh is d_ih else d_hh.sum(0)


def rnn_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool, relu: bool) -> tuple:
    """All steps of the RNN, written over the products with the input."""
    h = input_gates(x, w)  # (N, H)
    hh, (now,) = w.hh.t(), state
    for start, stop in steps.rows():
        new = h[start:stop]
        now = steps.align(now, state[0], stop - start)
        new.addmm_(now, hh)
        now = new.relu_() if relu else new.tanh_()
    return h, (steps.final(h, state[0]),), ()


def rnn_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool, relu: bool,
) -> tuple:  # fmt: skip
    """The way back; δ takes the place of its factor φ'(h)."""
    zero, one = h.new_zeros(()), h.new_ones(())
    d = torch.empty_like(h) if relu else torch.addcmul(one, h, h, value=-1)
    carry = d_final[0].clone()  # (B, H), ∂h
    for start, stop in reversed(steps.rows()):
        now = carry[: stop - start]
        now.add_(d_h[start:stop])
        if relu:  # not by a factor of 0, which makes NaN of an infinite gradient
            d_t = torch.where(h[start:stop] <= 0, zero, now, out=d[start:stop])
        else:
            d_t = d[start:stop].mul_(now)
        torch.mm(d_t, w.hh, out=now)
    ih = weight_gradients(x, steps.previous(h, state[0]), d, d, w)
    return product(d, w.ih.t()) if need_x else None, (carry,), Weights(*ih)


def lstm_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool) -> tuple:
    """All steps of the LSTM; the gates are written over the products with the input."""
    gates = input_gates(x, w)  # (N, 4H)
    size, (now, cell) = gates.size(1) // 4, state
    h, c = gates.new_empty(len(x), w.hh.size(1)), gates.new_empty(len(x), size)
    hh, hr = w.hh.t(), None if w.hr is None else w.hr.t()
    for start, stop in steps.rows():
        rows = stop - start
        now, cell = steps.align(now, state[0], rows), steps.align(cell, state[1], rows)
        a = gates[start:stop].addmm_(now, hh)
        a[:, : 2 * size].sigmoid_()
        i, f, g, o = a.chunk(4, 1)  # (B_t, H) each
        g.tanh_(), o.sigmoid_()
        cell = torch.mul(f, cell, out=c[start:stop]).addcmul_(i, g)
        now = h[start:stop]
        if hr is None:
            torch.mul(o, cell.tanh(), out=now)
        else:
            torch.mm(cell.tanh().mul_(o), hr, out=now)
    return h, (steps.final(h, state[0]), steps.final(c, state[1])), (gates, c)


def lstm_factors(steps: Steps, gates: Tensor, c: Tensor, initial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What ∂c and ∂h are multiplied by: δ's factors (N, 4H), o(1 - tanh²c) and tanh(c), (N, H) each."""
    i, _, g, o = gates.chunk(4, 1)
    seen = c.tanh()
    d = torch.addcmul(gates, gates, gates, value=-1)  # σ'
    d_i, d_f, d_g, d_o = d.chunk(4, 1)
    d_i.mul_(g), d_f.mul_(steps.previous(c, initial)), d_o.mul_(seen)
    torch.mul(i, g.square().neg_().add_(1), out=d_g)
    return d, seen.square().neg_().add_(1).mul_(o), seen


def lstm_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool,
) -> tuple:  # fmt: skip
    """The way back; δ takes the place of its factors."""
    gates, c = saved
    size = c.size(1)
    d, through, seen = lstm_factors(steps, gates, c, state[1])
    f = gates[:, size : 2 * size]
    carry, d_c = d_final[0].clone(), d_final[1].clone()  # (B, P), (B, H)
    d_p = None if w.hr is None else torch.empty_like(h)
    for start, stop in reversed(steps.rows()):
        rows = stop - start
        now, cell, d_t = carry[:rows].add_(d_h[start:stop]), d_c[:rows], d[start:stop]
        if d_p is None:
            d_m = now
        else:
            d_p[start:stop] = now
            d_m = now @ w.hr
        cell.addcmul_(d_m, through[start:stop])
        d_t[:, 3 * size :].mul_(d_m)
        d_t[:, : 3 * size].unflatten(1, (3, size)).mul_(cell.unsqueeze(1))
        cell.mul_(f[start:stop])
        torch.mm(d_t, w.hh, out=now)
    d_hr = None if d_p is None else product(d_p.t(), (seen.mul_(gates[:, 3 * size :])).t())
    d_w = Weights(*weight_gradients(x, steps.previous(h, state[0]), d, d, w), d_hr)
    return product(d, w.ih.t()) if need_x else None, (carry, d_c), d_w


def gru_forward(steps: Steps, x: Tensor, state: State, w: Weights, save: bool) -> tuple:
    """All steps of the GRU; the gates are written over the products with the input."""
    size, (now,) = w.hh.size(1), state
    gates = product(x, w.ih, w.bias_ih)  # (N, 3H): r, z, n
    h, u = gates.new_empty(len(x), size), gates.new_empty(len(x) if save else steps.sizes[0], size)
    hh_rz, hh_n = w.hh[: 2 * size].t(), w.hh[2 * size :].t()
    bias = gates.new_zeros(size) if w.bias_hh is None else w.bias_hh[2 * size :]
    if w.bias_hh is not None:
        gates[:, : 2 * size] += w.bias_hh[: 2 * size]
    for start, stop in steps.rows():
        now = steps.align(now, state[0], stop - start)
        a = gates[start:stop]
        r, z, n = a.chunk(3, 1)  # (B_t, H) each
        a[:, : 2 * size].addmm_(now, hh_rz).sigmoid_()
        u_t = torch.addmm(bias, now, hh_n, out=u[start:stop] if save else u[: stop - start])
        n.addcmul_(r, u_t).tanh_()
        now = torch.addcmul(n, z, now - n, out=h[start:stop])  # not lerp: inf - inf where a state is infinite
    return h, (steps.final(h, state[0]),), (gates, u)


def gru_factors(gates: Tensor, u: Tensor, before: Tensor) -> Tensor:
    """What ∂h is multiplied by, (N, 4H): the factors of δ_u, δ_r, δ_z, δ_n."""
    r, z, n = gates.chunk(3, 1)
    d = gates.new_empty(len(gates), 4 * u.size(1))
    d_u, d_r, d_z, d_n = d.chunk(4, 1)
    torch.mul(1 - z, n.square().neg_().add_(1), out=d_n)
    torch.mul(d_n, r, out=d_u)
    torch.mul(d_u, u, out=d_r).mul_(1 - r)
    torch.sub(before, n, out=d_z).mul_(z).mul_(1 - z)
    return d


def gru_backward(
    steps: Steps, x: Tensor, state: State, w: Weights, h: Tensor, saved: tuple, d_h: Tensor, d_final: State,
    need_x: bool,
) -> tuple:  # fmt: skip
    """The way back; δ takes the place of its factors. The order u, r, z, n makes both products' gates neighbours."""
    gates, u = saved
    size = u.size(1)
    before = steps.previous(h, state[0])
    d = gru_factors(gates, u, before)
    d_hh, d_ih, z = d[:, : 3 * size], d[:, size:], gates[:, size : 2 * size]
    hh = w.hh.roll(size, 0)  # rows of u, r, z
    carry = d_final[0].clone()  # (B, H), ∂h
    for start, stop in reversed(steps.rows()):
        now = carry[: stop - start].add_(d_h[start:stop])
        d[start:stop].view(-1, 4, size).mul_(now.unsqueeze(1))
        now.mul_(z[start:stop]).addmm_(d_hh[start:stop], hh)
    ih, hh, bias_ih, bias_hh = weight_gradients(x, before, d_ih, d_hh, w)
    bias_hh = None if bias_hh is None else bias_hh.roll(-size, 0)
    d_x = product(d_ih, w.ih.t()) if need_x else None
    return d_x, (carry,), Weights(ih, hh.roll(-size, 0), bias_ih, bias_hh)


PASSES = {
    "rnn_tanh": Passes(partial(rnn_forward, relu=False), partial(rnn_backward, relu=False)),
    "rnn_relu": Passes(partial(rnn_forward, relu=True), partial(rnn_backward, relu=True)),
    "lstm": Passes(lstm_forward, lstm_backward),
    "gru": Passes(gru_forward, gru_backward),
}
