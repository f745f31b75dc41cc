r"""Activations from raw tensors: drop-ins for those of `torch.nn.functional`, each from its formula.

They are right over the whole range of a floating type, and so are their gradients: where a plain formula would overflow
(e^x of a large x) an equal one stands that does not. At a kink the gradient is torch's, that of the left side.

Sources: Nair & Hinton 2010 (ReLU); Maas, Hannun & Ng 2013 (leaky ReLU); Clevert, Unterthiner & Hochreiter 2016 (ELU);
Hendrycks & Gimpel 2016 (GELU, SiLU); Dugas et al. 2001 (softplus); Collobert 2004 (hard tanh); Misra 2019 (mish).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "elu",
    "gelu",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "mish",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

_ENDS = 20.0  # beyond which tanh is ±1 to the last digit of float64


def relu(input: Tensor) -> Tensor:
    """Return max(0, x).

    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return torch.where(input <= 0, torch.zeros_like(input), input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Return x above 0 and `negative_slope` x below.

    >>> leaky_relu(torch.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1000,  2.0000])
    """
    return torch.where(input > 0, input, input * negative_slope)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x above 0 and α (e^x − 1) below.

    >>> elu(torch.tensor([-100.0, 2.0]))
    tensor([-1.,  2.])
    """
    return torch.where(input > 0, input, alpha * torch.expm1(torch.where(input > 0, 0.0, input)))


def gelu(input: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    r"""Return x Φ(x), with Φ the normal distribution, or its approximation by tanh.

    ```math
    x\, Φ(x) = \tfrac{x}{2} \mathrm{erfc}(-x/\sqrt2)
    \approx \tfrac{x}{2} \left(1 + \tanh\left(\sqrt{2/π}\,(x + 0.044715\,x^3)\right)\right)
    ```

    Args:
        input: x, of any shape.
        approximate: `none`, or `tanh` for the second form.

    Raises:
        ValueError: for another approximation.

    Example:
        >>> gelu(torch.tensor([-30.0, 0.0, 30.0]))
        tensor([-0.,  0., 30.])
    """
    if approximate == "none":
        return 0.5 * input * torch.special.erfc(input * -math.sqrt(0.5))
    if approximate == "tanh":
        return 0.5 * input * (1 + tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    raise ValueError(f"approximate argument must be either none or tanh, not {approximate!r}.")


def silu(input: Tensor) -> Tensor:
    """Return x σ(x), also called swish.

    >>> silu(torch.tensor([-1.0, 1.0]))
    tensor([-0.2689,  0.7311])
    """
    return input * sigmoid(input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + e^{βx}) / β, and x itself where βx is above the threshold.

    >>> softplus(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000e+00, 6.9315e-01, 1.0000e+03])
    """
    scaled = beta * input
    large = scaled > threshold
    return torch.where(large, input, torch.log1p(torch.where(large, 0.0, scaled).exp()) / beta)


def sigmoid(input: Tensor) -> Tensor:
    """Return σ(x) = 1 / (1 + e^{−x}), as exp(−log(1 + e^{−x})).

    >>> sigmoid(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return torch.exp(-torch.logaddexp(torch.zeros_like(input), -input))


def tanh(input: Tensor) -> Tensor:
    """Return (e^{2x} − 1) / (e^{2x} + 1).

    >>> tanh(torch.tensor([-1000.0, 1e-6, 1000.0]))
    tensor([-1.0000e+00,  1.0000e-06,  1.0000e+00])
    """
    grown = torch.expm1(2 * input.clamp(-_ENDS, _ENDS))
    return grown / (grown + 2)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return x cut off at `min_val` and `max_val`.

    >>> hardtanh(torch.tensor([-3.0, 0.5, 3.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    low, high = torch.full_like(input, min_val), torch.full_like(input, max_val)
    return torch.where(input <= min_val, low, torch.where(input >= max_val, high, input))


def mish(input: Tensor) -> Tensor:
    """Return x tanh(log(1 + e^x)).

    >>> mish(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([  -0.,    0., 1000.])
    """
    return input * tanh(softplus(input))


def softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return e^{x_i − m} / Σ_j e^{x_j − m} along an axis, m being the largest x.

    Args:
        input: x.
        dim: the axis whose entries add up to 1.
        dtype: in which to compute.

    Example:
        >>> softmax(torch.tensor([1000.0, 1000.0]), 0)
        tensor([0.5000, 0.5000])
    """
    x = input if dtype is None else input.to(dtype)
    grown = torch.exp(x - _largest(x, dim))
    return grown / grown.sum(dim, keepdim=True)


def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return x_i − m − log Σ_j e^{x_j − m} along an axis, m being the largest x.

    Args:
        input: x.
        dim: the axis whose probabilities add up to 1.
        dtype: in which to compute.

    Example:
        >>> log_softmax(torch.tensor([0.0, -1000.0]), 0)
        tensor([    0., -1000.])
    """
    x = input if dtype is None else input.to(dtype)
    shifted = x - _largest(x, dim)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _largest(x: Tensor, dim: int) -> Tensor:
    """The largest entry along an axis, which moves no gradient; of an empty axis nothing."""
    return x.detach().amax(dim, keepdim=True) if x.ndim == 0 or x.shape[dim] else x.detach().sum(dim, keepdim=True)
