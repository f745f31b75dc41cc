"""Penalties on weights (tensors of two or more axes: biases and norms are left alone).

The penalty is that of the textbooks, beside the mean loss over examples, so that λ means the same for every batch size
and every solver:

```math
J(θ) = 1/n Σ_i loss_i + λ₁ Σ|w| + λ₂ Σ w²
```
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["penalized_parameters"]


def penalized_parameters(module: nn.Module) -> Iterable[nn.Parameter]:
    """The weights that a penalty shrinks: trainable tensors of two or more axes."""
    return (p for p in module.parameters() if p.requires_grad and p.ndim > 1)
