r"""Adam and AdamW: steps scaled by running means of the gradient and of its square.

```math
m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
\theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \cdot \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
```

| symbol | meaning |
|---|---|
| g | gradient ∇ (−∇ with `maximize`); Adam adds λθ to it, AdamW takes θ ← (1 − ηλ) θ first instead |
| m, v | running means, 0 at the start, which the divisors 1 − βᵗ make up for |
| t | steps of this parameter, from 1 on |
| η, β, ε, λ | `lr`, `betas`, `eps`, `weight_decay` |

With `amsgrad` the largest v so far stands in the denominator.

Sources: Kingma & Ba 2015; Loshchilov & Hutter 2019 (AdamW); Reddi, Kale & Kumar 2018 (AMSGrad).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.optimizers.base import Bucket, RawOptimizer, aligned, number, step_count, zeros

__all__ = ["Adam", "AdamW", "adam_step"]


class Adam(RawOptimizer):
    r"""Adam: θ ← θ − η/(1 − β₁ᵗ) · m / (√(v / (1 − β₂ᵗ)) + ε), with λθ added to the gradient.

    Args:
        params: tensors or parameter groups.
        lr: step size η.
        betas: β₁ and β₂, the decay of the two running means.
        eps: ε, added to the denominator.
        weight_decay: λ.
        amsgrad: divide by the largest second moment so far.
        foreach: as in torch; there is one form.
        maximize: ascend instead of descend.
        capturable: torch's alone.
        differentiable: torch's alone.
        fused: take a step in one of torch's operations.
        decoupled_weight_decay: AdamW's θ ← (1 − ηλ) θ.

    Raises:
        ZooError: a value is out of its range.

    Source: Kingma & Ba 2015; Reddi, Kale & Kumar 2018.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = Adam([weight], lr=0.1)
        >>> weight.grad = torch.tensor([5.0, -0.01])
        >>> optimizer.step()
        >>> weight.data  # the first step is as long as the learning rate, whatever the gradient
        tensor([0.9000, 2.1000])
    """

    built_in: ClassVar[Any] = torch.optim.Adam

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
                "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": step_count(parameter, group["fused"])}
        names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        return state | {name: zeros(parameter) for name in names}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        kept = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if group["amsgrad"] else 2]
        (_fused if group["fused"] and bucket.suits_fused(*kept) else adam_step)(bucket, group)


class AdamW(Adam):
    r"""AdamW: Adam whose weight decay, θ ← (1 − ηλ) θ, is apart from the gradient.

    Args:
        params: tensors or parameter groups.
        lr: step size η.
        betas: β₁ and β₂, the decay of the two running means.
        eps: ε, added to the denominator.
        weight_decay: λ.
        amsgrad: divide by the largest second moment so far.
        maximize: ascend instead of descend.
        foreach: as in torch; there is one form.
        capturable: torch's alone.
        differentiable: torch's alone.
        fused: take a step in one of torch's operations.

    Raises:
        ZooError: a value is out of its range.

    Source: Loshchilov & Hutter 2019.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.5)
        >>> weight.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> weight.data  # 1 · (1 − 0.1 · 0.5) − 0.1
        tensor([0.8500])
    """

    built_in = torch.optim.AdamW

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # whatever a saved state of Adam says


def adam_step(bucket: Bucket, group: dict[str, Any]) -> None:
    """Take Adam's step of the parameters of a bucket, with the numbers of their group."""
    rate, (beta1, beta2) = group["lr"], map(number, group["betas"])
    decoupled = group["decoupled_weight_decay"]
    counts = bucket.count_step()
    if decoupled and group["weight_decay"]:
        torch._foreach_mul_(bucket.params, number(1 - rate * group["weight_decay"]))
    grads = bucket.descent(group["maximize"], 0.0 if decoupled else group["weight_decay"])
    means, squares = bucket.of("exp_avg"), bucket.of("exp_avg_sq")
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
    del grads  # before the next list as large
    if group["amsgrad"]:
        largest = bucket.of("max_exp_avg_sq")
        torch._foreach_maximum_(largest, squares)
        squares = largest
    lengths = torch._foreach_sqrt(squares)
    torch._foreach_div_(lengths, [(1 - beta2**count) ** 0.5 for count in counts])
    torch._foreach_add_(lengths, group["eps"])
    torch._foreach_addcdiv_(bucket.params, means, lengths, [-number(rate / (1 - beta1**count)) for count in counts])


def _fused(bucket: Bucket, group: dict[str, Any]) -> None:
    """The same step in one operation."""
    beta1, beta2 = map(number, group["betas"])
    operation = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    operation(
        bucket.params, aligned(bucket.grads, bucket.params), bucket.of("exp_avg"), bucket.of("exp_avg_sq"),
        bucket.of("max_exp_avg_sq") if group["amsgrad"] else [], bucket.add_step(),
        amsgrad=group["amsgrad"], lr=number(group["lr"]), beta1=beta1, beta2=beta2,
        weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
    )  # fmt: skip
