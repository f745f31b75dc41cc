r"""Gradients by hand: backpropagation through the layers that networks are made of.

With δ the derivative of the loss by a layer's output, each layer says what it is by its input and by its parameters:

| layer | forward | backward |
|---|---|---|
| affine | $z = xW^\top + b$ | $\delta_x = \delta W,\; \delta_W = \delta^\top x,\; \delta_b = \sum_B \delta$ |
| activation | $h = \varphi(z)$ | $\delta_z = \delta \odot \varphi'(z)$ |
| convolution | $z = W u(x) + b$, u the patches | $\delta_W = \sum \delta u^\top,\; \delta_x = u^\top(W^\top \delta)$ |
| attention | $P = \mathrm{softmax}(S)$, PV | $\delta_V = P^\top \delta,\; \delta_S = P (\delta_P - \sum \delta_P P)$ |
| pooling | $\max$, mean of windows | δ to the largest, δ / size to each |
| recurrent | $h_t = \tanh(a_t)$ | $\delta_{a_t} = (\delta_t + U^\top \delta_{a_{t+1}}) (1 - h_t^2)$ |
| softmax, cross-entropy | $-\log p_y$ | $(p - \mathbb 1_y) / B$ |
| squared error | $\frac1K \lVert \hat y - y \rVert^2$ | $2 (\hat y - y) / (BK)$ |

Sources: Rumelhart, Hinton & Williams 1986; LeCun et al. 1998; Werbos 1990 (through time); Hochreiter & Schmidhuber
1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.models.base.objectives import Classification, PoissonRegression, Regression
from zoo.optimizers.penalties import penalized_parameters

__all__ = [
    "analytical_gradient",
    "attention_backward",
    "convolution_backward",
    "gru_backward",
    "lstm_backward",
    "rnn_backward",
    "states_one",
]


def _gelu_slope(z: Tensor) -> Tensor:
    normal = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return normal + z * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


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


class Step(NamedTuple):
    """A layer by hand: what it makes of its input, and the derivatives by its input and its parameters of those by its
    output."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], tuple[Tensor, dict[Tensor, Tensor]]]


def states_one(model: ZooModel) -> bool:
    """Whether the gradient of a model by its formula is known here.

    It is for linear and logistic regression, mlp, plain cnn, and rnn, lstm and gru of numbers.

    >>> import zoo
    >>> spec = zoo.DataSpec(kind="tabular", shape=(3,), target="value")
    >>> states_one(zoo.create_model("mlp", spec)), states_one(zoo.create_model("mlp", spec, dropout=0.5))
    (True, False)
    """
    if model.streaming or _steps(model) is None:
        return False
    objective = model.objective
    return type(objective) in (Regression, PoissonRegression) or (
        isinstance(objective, Classification) and not objective.label_smoothing and not _weighs_classes(objective)
    )


def _weighs_classes(objective: nn.Module) -> bool:
    weights = getattr(objective, "class_weight", None)
    return getattr(objective, "balanced", False) or (weights is not None and not bool((weights == 1).all()))


def _steps(model: ZooModel) -> list[Step] | None:
    """The layers of a chain of which each is known, or None for what is no such chain."""
    name, hparams = model.entry.name, model.hparams
    if name in ("linear_regression", "logistic_regression"):
        return [_flatten(), _affine(model.linear)]
    if name == "mlp" and model.embedding is None:
        steps = [_of_layer(layer) for layer in model.net]
        return None if None in steps else steps  # type: ignore[return-value]
    if name == "cnn" and not (hparams.batch_norm or hparams.residual or hparams.dropout):
        stages: list[Step] = []
        for stage in model.stages:
            stages += (
                [_pooling(hparams.pool)] if hasattr(stage, "pool") else [_convolution(stage.conv), _slope(nn.ReLU())]
            )
        return [*stages, _mean_of_pixels(), _affine(model.head)]
    if name in _CORES and _is_plain(model):
        return [
            *(_recurrent(model.core, name, k) for k in range(hparams.num_layers)),
            _last_step(),
            _affine(model.head),
        ]
    return None


def _is_plain(model: ZooModel) -> bool:
    """Whether a recurrent model reads numbers in one direction, by cells without more than their formula, and answers
    once."""
    extras = {"dropout": 0.0, "bidirectional": False, "nonlinearity": "tanh", "proj_size": 0, "layer_norm": False,
              "variational_dropout": 0.0, "recurrent_dropout": 0.0, "zoneout": 0.0, "peepholes": False,
              "reset_after": True, "update_gate": "old"}  # fmt: skip
    usual = all(model.hparams.get(key, value) in (value, None) for key, value in extras.items())
    numbers = model.spec is not None and model.spec.kind == "sequence" and not model.answers_each_step
    return usual and numbers and isinstance(model.hparams.hidden_size, int)


def _of_layer(layer: nn.Module) -> Step | None:
    if isinstance(layer, nn.Flatten):
        return _flatten()
    if isinstance(layer, nn.Linear):
        return _affine(layer)
    return _slope(layer) if type(layer) in SLOPES else None


def _flatten() -> Step:
    return Step(lambda x: x.flatten(1), lambda x, delta: (delta.view_as(x), {}))


def _slope(layer: nn.Module) -> Step:
    return Step(layer, lambda x, delta: (delta * SLOPES[type(layer)](x), {}))


def _affine(layer: Any) -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        found = {layer.weight: delta.T @ x}
        if layer.bias is not None:
            found[layer.bias] = delta.sum(0)
        return delta @ layer.weight, found

    return Step(layer, backward)


def _convolution(layer: Any) -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        by_x, by_weight, by_bias = convolution_backward(x, layer.weight, delta, padding=layer.weight.shape[-1] // 2)
        return by_x, {layer.weight: by_weight, layer.bias: by_bias}

    return Step(layer, backward)


def _pooling(kind: str) -> Step:
    """The largest (the first of equal ones) or the mean of windows of 2×2, and of less along a side of one pixel."""

    def windows(x: Tensor) -> Tensor:
        """(B, C, H', W', h·w): what does not fill a window is left out."""
        high, wide = (min(2, side) for side in x.shape[2:])
        return x.unfold(2, high, high).unfold(3, wide, wide).flatten(-2)

    def forward(x: Tensor) -> Tensor:
        return windows(x).max(-1).values if kind == "max" else windows(x).mean(-1)

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        parts, (high, wide) = windows(x), (min(2, side) for side in x.shape[2:])
        if kind == "max":
            share = nn.functional.one_hot(parts.argmax(-1), high * wide).to(delta)
        else:
            share = torch.full_like(parts, 1 / (high * wide))
        moved = (share * delta.unsqueeze(-1)).unflatten(-1, (high, wide)).transpose(3, 4)  # (B, C, H', h, W', w)
        by_x = torch.zeros_like(x)
        inner = moved.flatten(4, 5).flatten(2, 3)
        by_x[:, :, : inner.shape[2], : inner.shape[3]] = inner
        return by_x, {}

    return Step(forward, backward)


def _mean_of_pixels() -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        return (delta / x[0, 0].numel())[:, :, None, None].expand_as(x), {}

    return Step(lambda x: x.mean((-2, -1)), backward)


def _last_step() -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        by_x = torch.zeros_like(x)
        by_x[:, -1] = delta
        return by_x, {}

    return Step(lambda x: x[:, -1], backward)


_CORES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def _recurrent(core: Any, name: str, layer: int) -> Step:
    """One layer of recurrent layers, over (B, T, D)."""
    w, u, b, d = (getattr(core, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    size = u.shape[1]
    alone = _CORES[name](w.shape[1], size, batch_first=True, dtype=w.dtype, device=w.device)
    for own, given in zip(alone.parameters(), (w, u, b, d), strict=True):
        own.data = given.data

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        steps, by_h = x.transpose(0, 1), delta.transpose(0, 1)
        start = x.new_zeros(len(x), size)
        if name == "gru":
            by_x, _, by_w, by_u, by_b, by_d = gru_backward(steps, start, w, u, b, d, by_h)
        elif name == "lstm":
            by_x, _, _, by_w, by_u, by_b = lstm_backward(steps, start, start, w, u, b + d, by_h)
            by_d = by_b
        else:
            by_x, _, by_w, by_u, by_b = rnn_backward(steps, start, w, u, b + d, by_h)
            by_d = by_b
        return by_x.transpose(0, 1), {w: by_w, u: by_u, b: by_b, d: by_d}

    return Step(lambda x: alone(x)[0], backward)


@torch.no_grad()
def analytical_gradient(model: ZooModel, batch: Any) -> dict[str, Tensor]:
    """Return the gradient of the training loss by the model's parameters, by hand-written backpropagation.

    Args:
        model: a built `linear_regression` or `logistic_regression` with `solver="gradient"`, an `mlp` or a plain `cnn`
            without dropout and batch normalization, or an `rnn`, `lstm` or `gru` of numbers, in one direction, that
            answers once.
        batch: rows and targets.

    Raises:
        ZooError: for a model whose formula is not stated, or examples of different lengths.

    Example:
        >>> import zoo
        >>> spec = zoo.DataSpec(kind="tabular", shape=(2,), target="class", num_classes=3)
        >>> model = zoo.create_model("logistic_regression", spec, solver="gradient")  # starts at 0: each class has 1/3
        >>> analytical_gradient(model, (torch.zeros(1, 2), torch.tensor([1])))["linear.bias"]
        tensor([ 0.3333, -0.6667,  0.3333])
    """
    if not states_one(model):
        raise ZooError(
            f"No formula of the gradient of {model.entry.name} with these settings is stated: it is for "
            "linear_regression, logistic_regression, mlp, cnn, rnn, lstm and gru, by gradient steps, without dropout, "
            "batch_norm, residual connections, label smoothing and class weights."
        )
    steps, batch = _steps(model) or [], model.as_batch(batch)
    if batch.mask is not None:
        raise ZooError("The formula is that of examples of one length: pass such, without a mask.")
    inputs = [batch.inputs]  # of each step
    for step in steps:
        inputs.append(step.forward(inputs[-1]))
    delta = _loss_backward(model, inputs.pop(), batch)
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for step, x in zip(reversed(steps), reversed(inputs), strict=True):
        delta, by_parameters = step.backward(x, delta)
        found |= {names[id(parameter)]: gradient for parameter, gradient in by_parameters.items()}
    for weight in penalized_parameters(model):
        found[names[id(weight)]] += model.recipe.l1 * weight.sign() + 2 * model.recipe.l2 * weight
    return found


def _loss_backward(model: ZooModel, output: Tensor, batch: Batch) -> Tensor:
    """The derivative of the mean loss by the outputs (B, K)."""
    objective, y = model.objective, batch.y
    assert y is not None
    if isinstance(objective, Classification):
        if objective.binary_logit:
            delta = 1 / (1 + torch.exp(-output)) - y.to(output.dtype).view(-1, 1)
        else:
            shifted = torch.exp(output - output.amax(1, keepdim=True))
            delta = shifted / shifted.sum(1, keepdim=True)
            delta[torch.arange(len(y)), y] -= 1
    else:
        targets = y.view(len(y), -1)
        if isinstance(objective, PoissonRegression):
            delta = (output.exp() - targets) / targets.shape[1]
        else:
            if objective.target_mean is not None:
                targets = (targets - objective.target_mean) / objective.target_std
            delta = 2 * (output - targets.to(output.dtype)) / targets.shape[1]
    weight = torch.ones(len(y), dtype=output.dtype) if batch.weight is None else batch.weight
    return delta * (weight / weight.sum()).view(-1, 1).to(output)


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
