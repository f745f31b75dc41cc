r"""Muon: momentum of a matrix, made orthogonal before it is taken.

```math
B \leftarrow \mu B + (1 - \mu)\, G, \qquad O = \mathrm{NS}\bigl((1 - \mu)\,G + \mu B\bigr) \approx U V^\top
\text{ of } U S V^\top, \qquad \theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\, s\, O
```

| symbol | shape | meaning |
|---|---|---|
| θ, G | (M, N) | a matrix and its gradient; of a convolution the axes but the first are one |
| B | (M, N) | running mean of gradients, 0 at the start (without `nesterov` O is that of B) |
| s | | √max(1, M / N), or what `adjust_lr_fn` says |
| η, μ, λ | | `lr`, `momentum`, `weight_decay` |

NS is the iteration $X \leftarrow aX + b(XX^\top)X + c(XX^\top)^2X$ from $X = G / \lVert G \rVert$, in bfloat16:
five rounds bring all singular values near 1, within some 0.3.

Parameters that are no matrices, and groups that say `adamw`, take AdamW's steps with the options of that name.

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
scalable for LLM training" (`match_rms_adamw`); Bernstein 2025, "Deriving Muon" (`spectral_unclamped`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.optimizers.adam import adam_step
from zoo.optimizers.base import Bucket, RawOptimizer, number, step_count, zeros

__all__ = ["Muon", "orthogonalized"]


class Muon(RawOptimizer):
    r"""Muon: θ ← (1 − ηλ)θ − ηs·NS(momentum) for matrices, AdamW for all else.

    Args:
        params: tensors or parameter groups; a group may say `adamw=True`, as embeddings should.
        lr: step size η of matrices.
        weight_decay: λ, apart from the gradient.
        momentum: μ.
        nesterov: look ahead along the momentum.
        ns_coefficients: a, b and c of the iteration.
        eps: the least norm that a matrix is divided by.
        ns_steps: rounds of the iteration, below 100.
        adjust_lr_fn: s: `original`, √max(1, M / N); `match_rms_adamw`, 0.2 √max(M, N), with which AdamW's learning
            rates suit; `spectral_unclamped`, √(M / N). None is `original`.
        adamw_lr: step size of AdamW; None is `lr`.
        adamw_betas: decay of AdamW's two running means.
        adamw_eps: added to AdamW's denominator.

    Raises:
        ZooError: a value is out of its range.

    Source: Jordan et al. 2024.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = Muon([weight], lr=1.0, ns_coefficients=(1.5, -0.5, 0.0), ns_steps=20)
        >>> weight.grad = torch.tensor([[0.0, 3.0], [5.0, 0.0]])
        >>> optimizer.step()
        >>> weight.data.round(decimals=1) + 0.0
        tensor([[ 0., -1.],
                [-1.,  0.]])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral_unclamped"] | None = None,
        *,
        adamw_lr: float | None = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        if adjust_lr_fn not in (None, "original", "match_rms_adamw", "spectral_unclamped"):
            raise ZooError(
                f"adjust_lr_fn must be original, match_rms_adamw or spectral_unclamped, not {adjust_lr_fn!r}."
            )
        if not 0 <= ns_steps < 100:
            raise ZooError(f"ns_steps must be from 0 to 99, not {ns_steps!r}.")
        super().__init__(
            params,
            {
                "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
                "adamw": False, "adamw_lr": adamw_lr, "adamw_betas": adamw_betas, "adamw_eps": adamw_eps,
            },
        )  # fmt: skip

    @staticmethod
    def groups_of(module: nn.Module, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Return the groups of a module's parameters: what looks tokens up takes AdamW's steps, as in the source."""
        tables = {id(p) for m in module.modules() if "Embedding" in type(m).__name__ for p in m.parameters(False)}
        tables |= {id(p) for p in parameters if p.ndim < 2}
        matrices, others = [p for p in parameters if id(p) not in tables], [p for p in parameters if id(p) in tables]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "adamw": True}]
        return [group for group in groups if group["params"]]

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if parameter.is_complex():
            raise ZooError("Muon takes real parameters alone.")
        if group["adamw"] or parameter.ndim < 2:
            return {"step": step_count(parameter), "exp_avg": zeros(parameter), "exp_avg_sq": zeros(parameter)}
        return {"momentum_buffer": zeros(parameter)}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        others = bucket.where(lambda state: "exp_avg" in state)
        if others.params:
            rate = group["lr"] if group["adamw_lr"] is None else group["adamw_lr"]
            options = {"lr": rate, "betas": group["adamw_betas"], "eps": group["adamw_eps"]}
            fixed = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": True}
            adam_step(others, options | fixed | {"weight_decay": group["weight_decay"]})
        matrices = bucket.where(lambda state: "exp_avg" not in state)
        if matrices.params:
            _step(matrices, group)


def _step(bucket: Bucket, group: dict[str, Any]) -> None:
    """Take Muon's step of the matrices of a bucket."""
    rate, momentum = number(group["lr"]), group["momentum"]
    sums = bucket.of("momentum_buffer")
    torch._foreach_lerp_(sums, bucket.grads, 1 - momentum)
    for parameter, gradient, total in zip(bucket.params, bucket.grads, sums, strict=True):
        wanted = gradient.lerp(total, momentum) if group["nesterov"] else total
        matrix = wanted.flatten(1)  # (M, N)
        update = orthogonalized(matrix, group["ns_coefficients"], group["ns_steps"], group["eps"])
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-rate * _scale(group["adjust_lr_fn"], *matrix.shape))


def orthogonalized(
    matrix: Tensor,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    num_steps: int = 5,
    eps: float = 1e-7,
) -> Tensor:
    """Return about UVᵀ of a matrix USVᵀ (M, N), in bfloat16.

    >>> singular = torch.linalg.svdvals(orthogonalized(torch.diag(torch.tensor([1.0, 10.0, 100.0]))).float())
    >>> bool((singular > 0.6).all() and (singular < 1.3).all())
    True
    """
    a, b, c = coefficients
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if x.shape[0] > x.shape[1] else x  # the smaller square below
    x.div_(x.norm().clamp(min=eps))
    for _ in range(num_steps):
        square = x @ x.T  # (min(M, N), min(M, N))
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _scale(rule: str | None, rows: int, columns: int) -> float:
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    ratio = rows / columns
    return math.sqrt(ratio if rule == "spectral_unclamped" else max(1, ratio))
