r"""Noise in training, which holds back what is learnt by heart: mixed rows, wrong labels, shaken weights.

- Mixup (Zhang, Cisse, Dauphin & Lopez-Paz 2018): a step sees rows between two rows, with the losses of both targets,

```math
\tilde x_i = λ x_i + (1-λ) x_{π(i)}, \qquad λ\, ℓ(f(\tilde x_i), y_i) + (1-λ)\, ℓ(f(\tilde x_i), y_{π(i)}),
\qquad λ \sim \mathrm{Beta}(α, α)
```

  with π a permutation of the batch. (Of squared errors that has the gradient of the mixed target.)
- Label noise (DisturbLabel: Xie, Wang, Wei, Wang & Tian 2016): in each step a label is drawn anew among all classes
  with probability p; a value gets normal noise (An 1996).
- Weight noise (Graves 2011; An 1996): the gradient of a step is taken at $θ + σ ε$, $ε \sim N(0, 1)$, and moves θ.

All of it is drawn from torch's own stream, whose state a run's checkpoint holds, so that a resumed run sees the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Mixed", "disturb", "mixup", "noisy_classes", "noisy_values", "restore"]


class Mixed(NamedTuple):
    """Rows between two rows: row i is share · x_i + (1 − share) · x_{partner_i}.

    Attributes:
        x: the rows, (B, …).
        partner: which row each was mixed with, (B,).
        share: λ.
    """

    x: Tensor
    partner: Tensor
    share: float


def mixup(x: Tensor, alpha: float) -> Mixed:
    """Mix the rows of a batch with each other.

    Args:
        x: rows (B, …).
        alpha: α of the distribution Beta(α, α) of λ: small values leave most rows nearly alone.

    Example:
        >>> mixed = mixup(torch.eye(3), alpha=0.2)
        >>> bool(mixed.x.sum(1).allclose(torch.ones(3)))
        True
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(x), device=x.device)
    return Mixed(torch.lerp(x[partner], x, share), partner, share)


def noisy_classes(y: Tensor, p: float, num_classes: int) -> Tensor:
    """Draw each label anew, from all classes alike, with probability p.

    Args:
        y: classes (B,).
        p: in [0, 1]; a label is wrong with probability p (C − 1) / C.
        num_classes: C.

    Example:
        >>> bool((noisy_classes(torch.zeros(9, dtype=torch.long), 0.0, 3) == 0).all())
        True
    """
    drawn = torch.randint(num_classes, y.shape, device=y.device, dtype=y.dtype)
    return torch.where(torch.rand(y.shape, device=y.device) < p, drawn, y)


def noisy_values(y: Tensor, deviation: float | Tensor) -> Tensor:
    """Add normal noise of a deviation to values of any shape.

    >>> noisy_values(torch.ones(2), 0.0)
    tensor([1., 1.])
    """
    return y + deviation * torch.randn_like(y)


@torch.no_grad()
def disturb(weights: Iterable[Tensor], deviation: float) -> list[tuple[Tensor, Tensor]]:
    """Add normal noise of a deviation σ to weights, in place; return what `restore` takes.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> before = layer.weight.clone()
        >>> kept = disturb([layer.weight], 0.1)
        >>> bool((layer.weight != before).any())
        True
        >>> restore(kept)
        >>> bool((layer.weight == before).all())
        True
    """
    kept = [(weight, weight.detach().clone()) for weight in weights]
    for weight, _ in kept:
        weight.data.add_(torch.randn_like(weight), alpha=deviation)
    return kept


def restore(kept: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Put back the weights that `disturb` has changed, to the same bits."""
    for weight, before in kept:
        weight.data.copy_(before)
