r"""Gradients by hand: backpropagation through the models whose layers have a backward pass in `zoo.analysis.backward`.

With δ the derivative of the loss by a layer's output, each layer says what it is by its input and by its parameters:

| layer | forward | backward |
|---|---|---|
| affine | $z = xW^\top + b$ | $\delta_x = \delta W,\; \delta_W = \delta^\top x,\; \delta_b = \sum_B \delta$ |
| pooling | $\max$, mean of windows | δ to the largest, δ / size to each |
| table | $x_t = E_{w_t}$ | $\delta_{E_w} = \sum_{t: w_t = w} \delta_t$ |
| residual | $y = x + A(x)$ | $\delta_x = \delta + A'(x)^\top \delta$ |
| softmax, cross-entropy | $-\log p_y$ | $(p - \mathbb 1_y) / B$ |
| squared error | $\frac1K \lVert \hat y - y \rVert^2$ | $2 (\hat y - y) / (BK)$ |

Source: Rumelhart, Hinton & Williams 1986.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.analysis.backward import (
    attention_backward,
    convolution_backward,
    gru_backward,
    layer_norm_backward,
    lstm_backward,
    rnn_backward,
    slope_of,
)
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.models.base.objectives import IGNORED, Classification, PoissonRegression, Regression, TokenPrediction
from zoo.optimizers.penalties import penalized_parameters

__all__ = ["analytical_gradient", "states_one"]


class Step(NamedTuple):
    """A layer by hand: what it makes of its input, and the derivatives by its input and its parameters of those by its
    output."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], tuple[Tensor, dict[Tensor, Tensor]]]


def _chain(steps: Sequence[Step]) -> Step:
    """Steps one behind the other; what several of them share gets the sum of their derivatives."""

    def forward(x: Tensor) -> Tensor:
        for step in steps:
            x = step.forward(x)
        return x

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        inputs = [x]
        for step in steps[:-1]:
            inputs.append(step.forward(inputs[-1]))
        found: dict[Tensor, Tensor] = {}
        for step, given in zip(reversed(steps), reversed(inputs), strict=True):
            delta, by_parameters = step.backward(given, delta)
            for parameter, gradient in by_parameters.items():
                found[parameter] = found[parameter] + gradient if parameter in found else gradient
        return delta, found

    return Step(forward, backward)


def states_one(model: ZooModel) -> bool:
    """Whether the gradient of a model by its formula is known here.

    It is for linear and logistic regression, mlp, plain cnn, rnn, lstm and gru of numbers, gpt and transformer_encoder.

    >>> import zoo
    >>> spec = zoo.DataSpec(kind="tabular", shape=(3,), target="value")
    >>> states_one(zoo.create_model("mlp", spec)), states_one(zoo.create_model("mlp", spec, dropout=0.5))
    (True, False)
    """
    if model.streaming or _steps(model) is None:
        return False
    objective = model.objective
    if objective.label_smoothing or _weighs_classes(objective):
        return False
    return isinstance(objective, Classification) or type(objective) in (Regression, PoissonRegression, TokenPrediction)


def _weighs_classes(objective: nn.Module) -> bool:
    weights = getattr(objective, "class_weight", None)
    return getattr(objective, "balanced", False) or (weights is not None and not bool((weights == 1).all()))


def _steps(model: ZooModel) -> list[Step] | None:
    """The layers of a chain of which each is known, or None for what is no such chain."""
    name, hparams = model.entry.name, model.hparams
    if name in ("linear_regression", "logistic_regression"):
        return [_flatten(), _of_linear(model.linear)]
    if name == "mlp" and model.embedding is None:
        steps = [_of_layer(layer) for layer in model.net]
        return None if None in steps else steps  # type: ignore[return-value]
    if name == "cnn" and not (hparams.batch_norm or hparams.residual or hparams.dropout or hparams.spatial_dropout):
        stages: list[Step] = []
        for stage in model.stages:
            stages += (
                [_pooling(hparams.pool)] if hasattr(stage, "pool") else [_convolution(stage.conv), _slope(nn.ReLU())]
            )
        return [*stages, _mean_of_pixels(), _of_linear(model.head)]
    if name in _CORES and _is_plain(model):
        return [
            *(_recurrent(model.core, name, k) for k in range(hparams.num_layers)),
            _one_step(-1),
            _of_linear(model.head),
        ]
    if name in ("gpt", "transformer_encoder") and not hparams.dropout and hparams.lora_rank is None:
        return _of_gpt(model) if name == "gpt" else _of_encoder(model)
    return None


def _of_gpt(model: Any) -> list[Step]:
    layers = [_encoder_layer(layer, model.hparams.activation, causal=True) for layer in model.core.layers]
    table = model.embedding if model.head is None else model.head
    said = _affine(table.weight, None)
    return [_table(model.embedding), _positions(model.positions), *layers, _layer_norm(model.core.norm), said]


def _of_encoder(model: Any) -> list[Step] | None:
    h, spec = model.hparams, model.spec
    if h.positions not in ("sinusoidal", "learned") or spec.kind == "series":
        return None
    steps = [_patches(model._patch_size(spec))] if spec.kind == "image" else []
    steps.append(_table(model.embedding) if spec.kind == "tokens" else _of_linear(model.embedding))
    steps += [] if model.cls is None else [_before(model.cls)]
    steps.append(_positions(model.positions))
    steps += [_encoder_layer(layer, h.activation, causal=False) for layer in model.core.layers]
    steps += [] if model.core.norm is None else [_layer_norm(model.core.norm)]
    return [*steps, _mean_of_steps() if model.cls is None else _one_step(0), _of_linear(model.head)]


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
        return _of_linear(layer)
    return _slope(layer) if slope_of(layer) is not None else None


def _flatten() -> Step:
    return Step(lambda x: x.flatten(1), lambda x, delta: (delta.view_as(x), {}))


def _slope(layer: nn.Module) -> Step:
    slope = slope_of(layer)
    assert slope is not None
    return Step(layer, lambda x, delta: (delta * slope(x), {}))


def _affine(weight: Tensor, bias: Tensor | None) -> Step:
    """x Wᵀ + b of vectors (..., D)."""

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        flat = delta.flatten(0, -2)
        found = {weight: flat.T @ x.flatten(0, -2)}
        if bias is not None:
            found[bias] = flat.sum(0)
        return delta @ weight, found

    return Step(lambda x: nn.functional.linear(x, weight, bias), backward)


def _of_linear(layer: Any) -> Step:
    return _affine(layer.weight, layer.bias)


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


def _one_step(place: int) -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        by_x = torch.zeros_like(x)
        by_x[:, place] = delta
        return by_x, {}

    return Step(lambda x: x[:, place], backward)


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


# -- attention: steps of (B, T, D) ---------------------------------------------------------------------------------


def _encoder_layer(layer: Any, activation: str, causal: bool) -> Step:
    """Self-attention and a feed-forward network, each with a residual path around it."""
    looked = layer.self_attn
    attention = _chain([
        _affine(looked.in_proj_weight, looked.in_proj_bias), _attend(looked.num_heads, causal),
        _of_linear(looked.out_proj),
    ])  # fmt: skip
    bend = {"relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU("tanh")}[activation]
    network = _chain([_of_linear(layer.linear1), _slope(bend), _of_linear(layer.linear2)])
    parts = [(layer.norm1, attention), (layer.norm2, network)]
    return _chain([_residual(_layer_norm(norm), part, layer.norm_first) for norm, part in parts])


def _residual(norm: Step, part: Step, norm_first: bool) -> Step:
    inner = _chain([norm, part]) if norm_first else part

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        by_x, found = inner.backward(x, delta)
        return delta + by_x, found

    around = Step(lambda x: x + inner.forward(x), backward)
    return around if norm_first else _chain([around, norm])


def _layer_norm(layer: Any) -> Step:
    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        by_x, by_weight = layer_norm_backward(x, layer.weight, delta, layer.eps)
        shift = {} if layer.bias is None else {layer.bias: delta.flatten(0, -2).sum(0)}
        return by_x, {layer.weight: by_weight, **shift}

    return Step(layer, backward)


def _attend(heads: int, causal: bool) -> Step:
    """From queries, keys and values side by side, (B, T, 3D), to the means of the values, (B, T, D)."""

    def parts(x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in x.chunk(3, -1)]  # (B, H, T, d) each
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril() if causal else None
        return split, seen

    def joined(part: Tensor) -> Tensor:
        return part.transpose(1, 2).flatten(2)

    def forward(x: Tensor) -> Tensor:
        (q, k, v), seen = parts(x)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return joined(torch.softmax(scores if seen is None else scores.masked_fill(~seen, -torch.inf), -1) @ v)

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        (q, k, v), seen = parts(x)
        by_heads = delta.unflatten(-1, (heads, -1)).transpose(1, 2)
        return torch.cat([joined(part) for part in attention_backward(q, k, v, by_heads, seen)], -1), {}

    return Step(forward, backward)


def _table(table: Any) -> Step:
    """Tokens (B, T) as vectors; nobody asks for a derivative by tokens."""

    def backward(tokens: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        size = math.sqrt(table.embed_dim) if table.scaled else 1.0
        found = torch.zeros_like(table.weight).index_add_(0, tokens.flatten(), size * delta.flatten(0, -2))
        return tokens, {table.weight: found}

    return Step(table, backward)


def _patches(size: int) -> Step:
    """Images as patches; nobody asks for a derivative by pixels."""
    from zoo.models.transformer.transformer_encoder import patches

    return Step(lambda x: patches(x, size), lambda x, delta: (x, {}))


def _positions(layer: Any) -> Step:
    """A vector added to each step, which is learned or not."""

    def backward(x: Tensor, delta: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        if not hasattr(layer, "weight"):
            return delta, {}
        found = torch.zeros_like(layer.weight)
        found[: x.shape[1]] = delta.sum(0)
        return delta, {layer.weight: found}

    return Step(layer, backward)


def _before(vector: Tensor) -> Step:
    """A learned vector as a step before the others."""
    return Step(
        lambda x: torch.cat([vector.expand(len(x), 1, -1), x], 1),
        lambda x, delta: (delta[:, 1:], {vector: delta[:, 0].sum(0)}),
    )


def _mean_of_steps() -> Step:
    return Step(lambda x: x.mean(1), lambda x, delta: ((delta / x.shape[1]).unsqueeze(1).expand_as(x), {}))


@torch.no_grad()
def analytical_gradient(model: ZooModel, batch: Any) -> dict[str, Tensor]:
    """Return the gradient of the training loss by the model's parameters, by hand-written backpropagation.

    Args:
        model: a built `linear_regression` or `logistic_regression` with `solver="gradient"`, an `mlp` or a plain `cnn`
            without dropout and batch normalization, an `rnn`, `lstm` or `gru` of numbers, in one direction, that
            answers once, or a `gpt` or `transformer_encoder` without dropout.
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
            "linear_regression, logistic_regression, mlp, cnn, rnn, lstm, gru, gpt and transformer_encoder, by steps, "
            "without dropout, batch_norm, residual stages, label smoothing and class weights."
        )
    chain, batch = _chain(_steps(model) or []), model.as_batch(batch)
    if batch.mask is not None:
        raise ZooError("The formula is that of examples of one length: pass such, without a mask.")
    _, gradients = chain.backward(batch.inputs, _loss_backward(model, chain.forward(batch.inputs), batch))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: gradient for parameter, gradient in gradients.items()}
    for weight in penalized_parameters(model):
        found[names[id(weight)]] += model.recipe.l1 * weight.sign() + 2 * model.recipe.l2 * weight
    return found


def _loss_backward(model: ZooModel, output: Tensor, batch: Batch) -> Tensor:
    """The derivative of the mean loss by the outputs, (B, K), of tokens (B, T, V)."""
    objective, y = model.objective, batch.y
    assert y is not None
    if isinstance(objective, TokenPrediction):
        counts = (y != IGNORED).to(output) if batch.weight is None else (y != IGNORED) * batch.weight.view(-1, 1)
        delta = torch.softmax(output, -1)
        delta.scatter_add_(-1, y.clamp_min(0).unsqueeze(-1), -torch.ones_like(output[..., :1]))
        return delta * (counts / counts.sum()).unsqueeze(-1).to(output)
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
