r"""Lion: the sign of a momentum that is interpolated twice.

```math
\theta \leftarrow (1 - \eta\lambda)\,\theta - \eta \operatorname{sign}\bigl(\beta_1 m + (1 - \beta_1)\, g\bigr), \qquad
m \leftarrow \beta_2 m + (1 - \beta_2)\, g
```

| symbol | meaning |
|---|---|
| g | gradient ∇ (−∇ with `maximize`) |
| m | running mean, 0 at the start: the one tensor that is kept of a parameter |
| η, β, λ | `lr`, `betas`, `weight_decay` |

Each coordinate moves by η, so that η should be three to ten times less than Adam's, and λ as much more.

Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.optimizers.base import Bucket, RawOptimizer, number, zeros

__all__ = ["Lion"]


class Lion(RawOptimizer):
    r"""Lion: θ ← (1 − ηλ)θ − η sign(β₁m + (1 − β₁)g), m ← β₂m + (1 − β₂)g.

    Args:
        params: tensors or parameter groups.
        lr: step size η, which each coordinate moves by.
        betas: β₁ of the step and β₂ of the running mean.
        weight_decay: λ.
        maximize: ascend instead of descend.

    Raises:
        ZooError: a value is out of its range.

    Source: Chen et al. 2023.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        >>> optimizer = Lion([weight], lr=0.1)
        >>> weight.grad = torch.tensor([5.0, -0.01, 0.0])
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000, 2.1000, 3.0000])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"exp_avg": zeros(parameter)}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        rate, (beta1, beta2) = number(group["lr"]), map(number, group["betas"])
        grads, means = bucket.descent(group["maximize"], 0.0), bucket.of("exp_avg")
        signs = torch._foreach_lerp(means, grads, 1 - beta1)
        torch._foreach_sign_(signs)
        if group["weight_decay"]:
            torch._foreach_mul_(bucket.params, 1 - rate * group["weight_decay"])
        torch._foreach_add_(bucket.params, signs, alpha=-rate)
        torch._foreach_lerp_(means, grads, 1 - beta2)
