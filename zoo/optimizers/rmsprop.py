r"""RMSprop: steps scaled by a running mean of the squared gradient.

```math
v \leftarrow \alpha v + (1 - \alpha)\, g^2, \qquad u \leftarrow \mu u + \frac{g}{\sqrt{v - \bar g^2} + \epsilon}, \qquad
\theta \leftarrow \theta - \eta\, u
```

| symbol | meaning |
|---|---|
| g | ∇ + λθ (−∇ + λθ with `maximize`) |
| v, ḡ | running means of g² and, if `centered`, of g (else ḡ = 0) |
| u | running sum of the scaled gradients |
| η, α, μ, ε, λ | `lr`, `alpha`, `momentum`, `eps`, `weight_decay` |

Sources: Hinton 2012, lecture 6e; Graves 2013, §4.2 (centered).

Deviation: ε is added to the root, as in torch, and not to what stands under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.rmsprop import available, rmsprop_step, takes
from zoo.optimizers.base import Bucket, RawOptimizer, number, step_count, zeros

__all__ = ["RMSprop"]


class RMSprop(RawOptimizer):
    r"""RMSprop: v ← αv + (1 − α)g², θ ← θ − ηg / (√v + ε).

    Args:
        params: tensors or parameter groups.
        lr: step size η.
        alpha: α, the decay of the running mean.
        eps: ε, added to the denominator.
        weight_decay: λ.
        momentum: μ, the share of the last step that goes on.
        centered: divide by the standard deviation of the gradient instead of its root mean square.
        capturable: torch's alone.
        foreach: as in torch; there is one form.
        maximize: ascend instead of descend.
        differentiable: torch's alone.
        fused: take a step in one pass where a kernel takes the parameters: float32 or float64, on a CPU.

    Raises:
        ZooError: a value is out of its range.

    Source: Hinton 2012; Graves 2013.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RMSprop([weight], lr=0.01, alpha=0.99)
        >>> weight.grad = torch.tensor([2.0])
        >>> optimizer.step()
        >>> weight.data  # 1 − 0.01 · 2 / √(0.01 · 4)
        tensor([0.9000])
    """

    built_in = torch.optim.RMSprop

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        options = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, options if fused is None else {**options, "fused": fused})  # which torch has not

    def passes_often(self, group: dict[str, Any]) -> bool:
        return not (group.get("fused") and takes(group["params"][0]))

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        names = ["square_avg", *(["momentum_buffer"] if group["momentum"] else [])]
        names += ["grad_avg"] if group["centered"] else []
        return {"step": step_count(parameter)} | {name: zeros(parameter) for name in names}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        if group.get("fused") and available(bucket.params, bucket.grads):
            _fused(bucket, group)
            return
        bucket.count_step()
        alpha, rate = group["alpha"], number(group["lr"])
        grads = bucket.descent(group["maximize"], group["weight_decay"])
        squares = bucket.of("square_avg")
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - alpha)
        if group["centered"]:
            means = bucket.of("grad_avg")
            torch._foreach_lerp_(means, grads, 1 - alpha)
            lengths = torch._foreach_addcmul(squares, means, means, value=-1)
            torch._foreach_sqrt_(lengths)
        else:
            lengths = torch._foreach_sqrt(squares)
        torch._foreach_add_(lengths, group["eps"])
        if group["momentum"]:
            sums = bucket.of("momentum_buffer")
            torch._foreach_mul_(sums, group["momentum"])
            torch._foreach_addcdiv_(sums, grads, lengths)
            torch._foreach_add_(bucket.params, sums, alpha=-rate)
        else:
            torch._foreach_addcdiv_(bucket.params, grads, lengths, value=-rate)


def _fused(bucket: Bucket, group: dict[str, Any]) -> None:
    """The same step in one operation."""
    rmsprop_step(
        bucket.params, bucket.grads, bucket.of("square_avg"), bucket.of("grad_avg") if group["centered"] else [],
        bucket.of("momentum_buffer") if group["momentum"] else [], bucket.steps(), number(group["lr"]),
        group["alpha"], group["eps"], group["weight_decay"], group["momentum"], group["maximize"],
    )  # fmt: skip
