r"""The backward pass of each layer by hand: from δ, the derivative of a loss by its output, to those by its input and
its parameters.

| layer | forward | backward |
|---|---|---|
| activation | $h = \varphi(z)$ | $\delta_z = \delta \odot \varphi'(z)$ |
| convolution | $z = W u(x) + b$, u the patches | $\delta_W = \sum \delta u^\top,\; \delta_x = u^\top(W^\top \delta)$ |
| layer norm | $y = \hat x w + b$ | $\delta_x = (g - \bar g - \hat x\, \overline{g \hat x}) / \sigma$, $g = \delta w$ |
| attention | $P = \mathrm{softmax}(S)$, PV | $\delta_V = P^\top \delta,\; \delta_S = P (\delta_P - \sum \delta_P P)$ |
| recurrent | $h_t = \tanh(a_t)$ | $\delta_{a_t} = (\delta_t + U^\top \delta_{a_{t+1}}) (1 - h_t^2)$ |

Sources: LeCun et al. 1998; Ba, Kiros & Hinton 2016; Vaswani et al. 2017; Werbos 1990 (through time); Hochreiter &
Schmidhuber 1997; Cho et al. 2014.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "attention_backward",
    "convolution_backward",
    "gru_backward",
    "layer_norm_backward",
    "lstm_backward",
    "rnn_backward",
    "slope_of",
]


def _gelu_slope(z: Tensor) -> Tensor:
    normal = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return normal + z * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(z: Tensor) -> Tensor:
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t.square()) * c * (1 + 3 * 0.044715 * z.square())


def _silu_slope(z: Tensor) -> Tensor:
    s = 1 / (1 + torch.exp(-z))
    return s * (1 + z * (1 - s))


SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {  # φ'(z)
    nn.Identity: torch.ones_like,
    nn.ReLU: lambda z: (z > 0).to(z.dtype),
    nn.Tanh: lambda z: 1 - torch.tanh(z).square(),
    nn.Sigmoid: lambda z: torch.exp(-z) / (1 + torch.exp(-z)).square(),
    nn.GELU: _gelu_slope,
    nn.SiLU: _silu_slope,
    nn.LeakyReLU: lambda z: torch.where(z > 0, torch.ones_like(z), torch.full_like(z, 0.01)),
    nn.ELU: lambda z: torch.where(z > 0, torch.ones_like(z), torch.exp(z)),
}


def slope_of(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return φ' of an activation's layer, or None where it is not known.

    >>> slope_of(nn.ReLU())(torch.tensor([-1.0, 2.0]))
    tensor([0., 1.])
    """
    if isinstance(layer, nn.GELU) and layer.approximate == "tanh":
        return _gelu_tanh_slope
    return SLOPES.get(type(layer))


def convolution_backward(
    x: Tensor, weight: Tensor, delta: Tensor, stride: int = 1, padding: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of a loss by a convolution's input, weight and bias.

    Args:
        x: the input, (B, C, H, W).
        weight: (K, C, kH, kW).
        delta: the derivative by the output, (B, K, H', W').
        stride: of the convolution.
        padding: zeros at each border.

    Example:
        >>> x, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
        >>> convolution_backward(x, weight, torch.ones(1, 1, 2, 2))[1]
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    size = weight.shape[2:]
    patches = F.unfold(x, size, stride=stride, padding=padding)  # (B, C·kH·kW, L)
    flat = delta.flatten(2)  # (B, K, L)
    by_weight = torch.einsum("bkl,bpl->kp", flat, patches).view_as(weight)
    back = torch.einsum("kp,bkl->bpl", weight.flatten(1), flat)
    return F.fold(back, x.shape[2:], size, stride=stride, padding=padding), by_weight, delta.sum((0, 2, 3))


def layer_norm_backward(x: Tensor, weight: Tensor | None, delta: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Return the derivatives of a loss by the input and the gain of layer normalization over the last axis.

    That by the shift is the sum of `delta`.

    Args:
        x: the input, (..., D).
        weight: the gain, (D,), or None for 1.
        delta: the derivative by the output, (..., D).
        eps: added to the variance.

    Example:
        >>> layer_norm_backward(torch.tensor([[1.0, 3.0]]), None, torch.tensor([[2.0, 2.0]]))[0]  # a shift of all
        tensor([[0., 0.]])
    """
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    deviation = torch.sqrt(variance + eps)
    normal = (x - mean) / deviation
    by_normal = delta if weight is None else delta * weight
    by_x = by_normal - by_normal.mean(-1, keepdim=True) - normal * (by_normal * normal).mean(-1, keepdim=True)
    return by_x / deviation, (delta * normal).flatten(0, -2).sum(0)


def attention_backward(
    q: Tensor, k: Tensor, v: Tensor, delta: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of a loss by queries, keys and values of attention softmax(QKᵀ/√d) V.

    Args:
        q: queries, (..., T, d).
        k: keys, (..., S, d).
        v: values, (..., S, D).
        delta: the derivative by the output, (..., T, D).
        mask: which keys a query sees, (..., T, S); one that sees none answers 0.

    Example:
        >>> q = k = v = torch.zeros(1, 2, 3)
        >>> attention_backward(q, k, v, torch.ones(1, 2, 3))[2]  # each value is half of two answers
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])
    """
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.transpose(-1, -2) * scale  # (..., T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    p = torch.nan_to_num(torch.softmax(scores, -1))  # a row that sees nothing is 0
    by_p = delta @ v.transpose(-1, -2)
    by_scores = p * (by_p - (by_p * p).sum(-1, keepdim=True)) * scale
    return by_scores @ k, by_scores.transpose(-1, -2) @ q, p.transpose(-1, -2) @ delta


def rnn_backward(
    x: Tensor, h0: Tensor, w: Tensor, u: Tensor, b: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of a loss by x, h₀, W, U and b of h_t = tanh(W x_t + U h_{t−1} + b), through time.

    Args:
        x: inputs, (T, B, D).
        h0: first state, (B, H).
        w: W, (H, D).
        u: U, (H, H).
        b: the sum of the biases, (H,).
        delta: the derivative by each h_t, (T, B, H).

    Example:
        >>> x, h0 = torch.zeros(2, 1, 1), torch.zeros(1, 1)
        >>> w, u = torch.ones(1, 1), torch.full((1, 1), 0.5)
        >>> rnn_backward(x, h0, w, u, torch.zeros(1), torch.tensor([0.0, 1.0]).view(2, 1, 1))[0].flatten()
        tensor([0.5000, 1.0000])
    """
    states = [h0]
    for step in x:
        states.append(torch.tanh(step @ w.T + states[-1] @ u.T + b))
    by_x, by_h = torch.zeros_like(x), torch.zeros_like(h0)
    by_w, by_u, by_b = torch.zeros_like(w), torch.zeros_like(u), torch.zeros_like(b)
    for t in reversed(range(len(x))):
        a = (delta[t] + by_h) * (1 - states[t + 1].square())  # by what tanh is taken of, (B, H)
        by_x[t], by_h = a @ w, a @ u
        by_w += a.T @ x[t]
        by_u += a.T @ states[t]
        by_b += a.sum(0)
    return by_x, by_h, by_w, by_u, by_b


def lstm_backward(
    x: Tensor, h0: Tensor, c0: Tensor, w: Tensor, u: Tensor, b: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of a loss by x, h₀, c₀, W, U and b of an LSTM, through time.

    Args:
        x: inputs, (T, B, D).
        h0: first output, (B, H).
        c0: first cell state, (B, H).
        w: W, (4H, D), of the gates i, f, g, o, as torch orders them.
        u: U, (4H, H).
        b: the sum of the biases, (4H,).
        delta: the derivative by each h_t, (T, B, H).

    Example:
        >>> x, state = torch.zeros(3, 2, 4), torch.zeros(2, 5)
        >>> w, u, b = torch.zeros(20, 4), torch.zeros(20, 5), torch.zeros(20)
        >>> [tuple(part.shape) for part in lstm_backward(x, state, state, w, u, b, torch.ones(3, 2, 5))]
        [(3, 2, 4), (2, 5), (2, 5), (20, 4), (20, 5), (20,)]
    """
    h, c, kept = h0, c0, []
    for step in x:
        gates = (step @ w.T + h @ u.T + b).chunk(4, -1)
        i, f, o = (torch.sigmoid(gates[k]) for k in (0, 1, 3))
        g, before = torch.tanh(gates[2]), (h, c)
        c = f * c + i * g
        h = o * torch.tanh(c)
        kept.append((i, f, g, o, c, *before))
    by_x, by_h, by_c = torch.zeros_like(x), torch.zeros_like(h0), torch.zeros_like(c0)
    by_w, by_u, by_b = torch.zeros_like(w), torch.zeros_like(u), torch.zeros_like(b)
    for t in reversed(range(len(x))):
        i, f, g, o, c, h_before, c_before = kept[t]
        by_out, squashed = delta[t] + by_h, torch.tanh(c)
        by_c = by_c + by_out * o * (1 - squashed.square())
        slopes = (
            by_c * g * i * (1 - i),
            by_c * c_before * f * (1 - f),
            by_c * i * (1 - g.square()),
            by_out * squashed * o * (1 - o),
        )
        a = torch.cat(slopes, -1)  # by what the gates are taken of, (B, 4H)
        by_x[t], by_h, by_c = a @ w, a @ u, by_c * f
        by_w += a.T @ x[t]
        by_u += a.T @ h_before
        by_b += a.sum(0)
    return by_x, by_h, by_c, by_w, by_u, by_b


def gru_backward(
    x: Tensor, h0: Tensor, w: Tensor, u: Tensor, b: Tensor, d: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of a loss by x, h₀, W, U, b and d of a GRU as torch states it, through time.

    With a = W x + b and g = U h + d it is r = σ(a_r + g_r), z = σ(a_z + g_z), n = tanh(a_n + r ⊙ g_n), and
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.

    Args:
        x: inputs, (T, B, D).
        h0: first state, (B, H).
        w: W, (3H, D), of r, z and n.
        u: U, (3H, H).
        b: bias of the inputs, (3H,).
        d: bias of the state, (3H,).
        delta: the derivative by each h_t, (T, B, H).

    Example:
        >>> x, h0 = torch.zeros(3, 2, 4), torch.zeros(2, 5)
        >>> w, u, b = torch.zeros(15, 4), torch.zeros(15, 5), torch.zeros(15)
        >>> gru_backward(x, h0, w, u, b, b, torch.ones(3, 2, 5))[1][0, 0]  # half of the state is kept at each step
        tensor(0.8750)
    """
    h, kept = h0, []
    for step in x:
        (a_r, a_z, a_n), (g_r, g_z, g_n) = (step @ w.T + b).chunk(3, -1), (h @ u.T + d).chunk(3, -1)
        r, z = torch.sigmoid(a_r + g_r), torch.sigmoid(a_z + g_z)
        n = torch.tanh(a_n + r * g_n)
        kept.append((r, z, n, g_n, h))
        h = (1 - z) * n + z * h
    by_x, by_h = torch.zeros_like(x), torch.zeros_like(h0)
    by_w, by_u, by_b, by_d = torch.zeros_like(w), torch.zeros_like(u), torch.zeros_like(b), torch.zeros_like(d)
    for t in reversed(range(len(x))):
        r, z, n, g_n, before = kept[t]
        by_out = delta[t] + by_h
        by_n = by_out * (1 - z) * (1 - n.square())
        by_z = by_out * (before - n) * z * (1 - z)
        by_r = by_n * g_n * r * (1 - r)
        a = torch.cat([by_r, by_z, by_n], -1)  # by W x + b, (B, 3H)
        g = torch.cat([by_r, by_z, by_n * r], -1)  # by U h + d
        by_x[t], by_h = a @ w, by_out * z + g @ u
        by_w += a.T @ x[t]
        by_u += g.T @ before
        by_b += a.sum(0)
        by_d += g.sum(0)
    return by_x, by_h, by_w, by_u, by_b, by_d
