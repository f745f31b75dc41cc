r"""The logistic loss and its derivatives, as pure functions on tensors.

```math
L(w) = \sum_i \log(1 + e^{w \cdot x_i}) - y_i\, w \cdot x_i, \qquad \nabla L = \sum_i (\hat p_i - y_i)\, x_i
```

Legend: B batch, F features, P columns of the design matrix (features and intercept), C classes, K logits,
which are 1 or C.

Source: Cox 1958; Hastie, Tibshirani & Friedman 2009, §4.4. Deviation: log(1 + eᶻ) is computed as
max(z, 0) + log(1 + e^{−|z|}), which cannot overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.numerics.moments import gram

__all__ = ["cost", "cost_gradient", "derivatives", "link", "residuals"]


def link(z: Tensor) -> Tensor:
    """Return p̂ = 1 / (1 + e^(−z)), without overflow.

    >>> link(torch.tensor([0.0, 1000.0]))
    tensor([0.5000, 1.0000])
    """
    small = torch.exp(-z.abs())
    return torch.where(z >= 0, 1.0, small) / (1 + small)


def cost(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return Σ log(1 + exp(w·x)) − y w·x, in its stable form.

    Args:
        w: weights, (F,).
        x: inputs, (B, F).
        y: 0 or 1, (B,).

    Example:
        >>> cost(torch.zeros(2), torch.ones(3, 2), torch.tensor([0.0, 1.0, 1.0]))  # 3 log 2
        tensor(2.0794)
    """
    z = x @ w
    return (z.clamp_min(0) + torch.log1p(torch.exp(-z.abs())) - y * z).sum()


def cost_gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return Σ (p̂ − y) x, the gradient of `cost`, (F,).

    >>> cost_gradient(torch.zeros(1), torch.ones(2, 1), torch.tensor([0.0, 0.0]))
    tensor([1.])
    """
    return x.T @ (link(x @ w) - y)


def derivatives(
    z: Tensor, x: Tensor, y: Tensor, weight: Tensor | None = None, *, hessian: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the weighted sum of losses, its gradient and its Hessian, for one row of weights or one a class.

    Args:
        z: logits x Wᵀ, (B, K): one for two classes, one a class otherwise.
        x: inputs, with a column of ones for an intercept, (B, P).
        y: classes, (B,) int64.
        weight: weight of each example, (B,); one each by default.
        hessian: whether to compute the Hessian; None is returned for it otherwise.

    Returns:
        Value (), gradient (K, P) and Hessian (K P, K P).
    """
    value, residual, p = residuals(z, y, weight)
    return value, residual.T @ x, _curvature(p.contiguous(), x, weight) if hessian else None


def residuals(z: Tensor, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted sum of losses (), its derivative by each logit (B, K), and the probabilities (B, K).

    Args:
        z: logits, (B, K): one for two classes, one a class otherwise.
        y: classes, (B,) int64.
        weight: weight of each example, (B,); one each by default.
    """
    if z.shape[1] == 1:
        p, z = z.sigmoid(), z.squeeze(1)
        losses = torch.logaddexp(z, z.new_zeros(())) - y * z
        residual = p - y.unsqueeze(1)
    else:
        logs, chosen = z.T.log_softmax(0), y.unsqueeze(0)  # classes first: a loop over few of them in a row is slow
        p, losses = logs.exp().T, -logs.gather(0, chosen).squeeze(0)
        residual = p.T.scatter_add(0, chosen, -torch.ones_like(chosen, dtype=p.dtype)).T
    value = losses.sum() if weight is None else weight @ losses
    return value, residual if weight is None else residual * weight.unsqueeze(1), p


def _curvature(p: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    """Σ s p_k (δ_kl − p_l) x xᵀ in blocks k ≥ l, of which the others are mirror images, (K P, K P)."""
    weighted = p if weight is None else p * weight.unsqueeze(1)  # s p_k, (B, K)
    if p.shape[1] == 1:
        return gram(x * (weighted * (1 - p)).sqrt())
    (rows, classes), columns = p.shape, x.shape[1]
    hessian = x.new_zeros(classes * columns, classes * columns)
    for k in range(classes):
        share = -p[:, : k + 1] * weighted[:, k : k + 1]  # (B, k + 1)
        share[:, k] += weighted[:, k]
        right = (share.unsqueeze(2) * x.unsqueeze(1)).view(rows, -1)  # (B, (k + 1) P)
        hessian[k * columns : (k + 1) * columns, : (k + 1) * columns] = x.T @ right
    return hessian.tril() + hessian.tril(-1).T
