r"""Penalties on weights (tensors of two or more axes: biases and norms are left alone).

The penalty is that of the textbooks, beside the mean loss over examples, so that λ means the same for every batch size
and every solver:

```math
J(θ) = 1/n Σ_i loss_i + λ₁ Σ|w| + λ₂ Σ w²
```

λ₁ either adds its subgradient, λ₁ sign(w), to the gradient, so that weights come near zero and jump about it, or is
taken in a proximal step after each step of the optimizer, which sets them to zero:

```math
w ← sign(w) max(|w| − s λ₁, 0), \qquad s = η (1 − τ) / (1 − μ)
```

s is how far a constant gradient of 1 moves a weight in a step of stochastic gradient descent of learning rate η,
momentum μ and dampening τ: with it the weights that no longer change are those of the minimum.

Source: Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009 (proximal steps).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["penalized_parameters", "shrink"]


def penalized_parameters(module: nn.Module) -> Iterable[nn.Parameter]:
    """The weights that a penalty shrinks: trainable tensors of two or more axes."""
    return (p for p in module.parameters() if p.requires_grad and p.ndim > 1)


@torch.no_grad()
def shrink(module: nn.Module, optimizer: Optimizer, l1: float) -> None:
    """Take the proximal step of λ₁ Σ|w| that belongs to a step of gradient descent.

    Args:
        module: whose weights shrink.
        optimizer: a stochastic gradient descent, which has taken its step.
        l1: λ₁.

    Example:
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[1.0, -0.05, 0.3]])
        >>> shrink(layer, torch.optim.SGD(layer.parameters(), lr=0.5), l1=0.2)
        >>> layer.weight.data
        tensor([[0.9000, -0.0000, 0.2000]])
    """
    weights = {id(p) for p in penalized_parameters(module)}
    for group in optimizer.param_groups:
        length = float(group["lr"]) * (1 - group["dampening"]) / (1 - group["momentum"])
        for parameter in group["params"]:
            if id(parameter) in weights:
                parameter.copy_(parameter.sign() * (parameter.abs() - length * l1).clamp_min(0))
