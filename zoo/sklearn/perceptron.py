r"""Outputs, loss and gradients of a multilayer perceptron, layer by layer.

```math
h_0 = x, \qquad h_l = \varphi(h_{l-1} W_l + b_l), \qquad \hat y = \psi(z), \quad z = h_{L-1} W_L + b_L
```
```math
\delta_L = \frac{w\,(\hat y - y)}{n}, \qquad \delta_{l-1} = (\delta_l W_l^\top) \odot \varphi'(h_{l-1}), \qquad
\nabla W_l = h_{l-1}^\top \delta_l + \lambda W_l, \qquad \nabla b_l = 1^\top \delta_l
```

The last line's first formula is that of each loss here, since ψ is the canonical link of it: softmax and logistic of
log losses, exp of the Poisson deviance, the identity of squared errors. Written out, a step of a small network takes
half the time that it takes through autograd.

Letters: B rows of weight w, n the sum of these, F features, K outputs.

Source: D. Rumelhart, G. Hinton and R. Williams, "Learning representations by back-propagating errors", 1986.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["activate", "loss_and_gradients", "scores"]

Layers = Sequence[tuple[Tensor, Tensor]]  # W (inputs, outputs) and b (outputs,)

_HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "logistic": torch.sigmoid_,
    "tanh": torch.tanh_,
    "relu": torch.relu_,
}
# δ φ'(h), of the value h that φ took
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda delta, h: delta,
    "logistic": torch.ops.aten.sigmoid_backward,
    "tanh": torch.ops.aten.tanh_backward,
    "relu": lambda delta, h: torch.ops.aten.threshold_backward(delta, h, 0),
}
_OUTPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "logistic": torch.sigmoid,
    "softmax": lambda z: z.softmax(1),
    "exp": torch.exp,
}


def activate(z: Tensor, link: str) -> Tensor:
    """Return ψ of scores (B, K): `identity`, `logistic`, `softmax` or `exp`."""
    return _OUTPUT[link](z)


def scores(x: Tensor, layers: Layers, activation: str) -> list[Tensor]:
    """Return the values of all layers for rows (B, F): x, those of the hidden ones, and z (B, K).

    Example:
        >>> one = torch.ones(1, 1)
        >>> scores(-3 * one, [(one, one[0]), (one, one[0])], "relu")[-1]
        tensor([[1.]])
    """
    values = [x]
    for weight, bias in layers:
        values.append(torch.addmm(bias, values[-1], weight))
        if len(values) <= len(layers):
            values[-1] = _HIDDEN[activation](values[-1])
    return values


def _losses(z: Tensor, y: Tensor, link: str) -> tuple[Tensor, Tensor]:
    """The losses of scores (B, K) and their slopes ŷ − y, what both need computed once."""
    if link == "softmax":
        logs = z.log_softmax(1)
        return (logs * y).neg_(), logs.exp_().sub_(y)
    if link == "logistic":
        return F.binary_cross_entropy_with_logits(z, y, reduction="none"), torch.sigmoid(z).sub_(y)
    if link == "exp":
        mean = z.exp()
        return mean - y * z + torch.xlogy(y, y) - y, mean - y
    slopes = z - y
    return slopes.square().div_(2), slopes


def loss_and_gradients(
    x: Tensor,
    y: Tensor,
    layers: Layers,
    activation: str,
    link: str,
    weight: Tensor | None = None,
    total: float | None = None,
    penalty: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """Return the mean loss over rows, summed over the outputs, without the penalty; and all gradients, with it.

    Args:
        x: rows (B, F).
        y: targets (B, K): shares of the classes, labels, or values.
        layers: W and b of each.
        activation: φ.
        link: ψ, of which the loss is the fitting one.
        weight: of the rows, (B,).
        total: n, what sums are divided by; None for the sum of the weights.
        penalty: λ of ½ λ Σ W².

    Returns:
        The loss (), and the gradients in the order of the layers, W before b.

    Example:
        >>> one = torch.ones(1, 1)
        >>> loss_and_gradients(2 * one, 0 * one, [(one, 0 * one[0])], "relu", "identity")
        (tensor(2.), [tensor([[4.]]), tensor([2.])])
    """
    if total is None:
        total = float(len(x) if weight is None else weight.sum())
    *values, z = scores(x, layers, activation)
    losses, delta = _losses(z, y, link)
    loss = (losses.sum() if weight is None else weight @ losses.sum(1)).div_(total)
    if weight is not None:
        delta *= weight.unsqueeze(1)
    delta /= total
    gradients: list[Tensor] = []
    for index in reversed(range(len(layers))):
        matrix, value = layers[index][0], values[index]
        gradients.append(delta.sum(0))
        gradients.append(torch.addmm(matrix, value.T, delta, beta=penalty))
        if index:
            delta = _SLOPES[activation](delta @ matrix.T, value)
    return loss, gradients[::-1]
