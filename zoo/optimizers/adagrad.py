r"""Adagrad: steps scaled by the sum of all squared gradients.

```math
s \leftarrow s + g^2, \qquad
\theta \leftarrow \theta - \frac{\eta}{1 + (t - 1)\,\delta} \cdot \frac{g}{\sqrt s + \epsilon}
```

| symbol | meaning |
|---|---|
| g | ∇ + λθ (−∇ + λθ with `maximize`) |
| s | sum of squares, `initial_accumulator_value` at the start |
| t | steps of this parameter, from 1 on |
| η, δ, ε, λ | `lr`, `lr_decay`, `eps`, `weight_decay` |

Source: Duchi, Hazan & Singer 2011.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.optimizers.base import Bucket, RawOptimizer, aligned, number, step_count

__all__ = ["Adagrad"]


class Adagrad(RawOptimizer):
    r"""Adagrad: s ← s + g², θ ← θ − η / (1 + (t − 1)δ) · g / (√s + ε).

    Args:
        params: tensors or parameter groups.
        lr: step size η.
        lr_decay: δ.
        weight_decay: λ.
        initial_accumulator_value: s at the start.
        eps: ε, added to the denominator.
        foreach: as in torch; there is one form.
        maximize: ascend instead of descend.
        differentiable: torch's alone.
        fused: take a step in one of torch's operations.

    Raises:
        ZooError: a value is out of its range.

    Source: Duchi, Hazan & Singer 2011.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adagrad([weight], lr=0.1)
        >>> for _ in range(2):
        ...     weight.grad = torch.tensor([3.0])
        ...     optimizer.step()
        >>> weight.data  # 1 − 0.1 − 0.1 / √2
        tensor([0.8293])
    """

    built_in = torch.optim.Adagrad

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
                "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip
        for group in self.param_groups:  # here, as torch does, and not before the first step
            for parameter in group["params"]:
                self._state(parameter, group)

    def share_memory(self) -> None:
        """Move the sums where other processes see them, too."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        start = group["initial_accumulator_value"]
        value = complex(start, start) if parameter.is_complex() else start
        total = torch.full_like(parameter, value, memory_format=torch.preserve_format, requires_grad=False)
        return {"step": step_count(parameter, group["fused"]), "sum": total}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        if group["fused"] and bucket.suits_fused("sum"):
            _fused(bucket, group)
            return
        counts = bucket.count_step()
        grads, totals = bucket.descent(group["maximize"], group["weight_decay"]), bucket.of("sum")
        torch._foreach_addcmul_(totals, grads, grads, value=1)
        lengths = torch._foreach_sqrt(totals)
        torch._foreach_add_(lengths, group["eps"])
        torch._foreach_addcdiv_(bucket.params, grads, lengths, [-_rate(group, count) for count in counts])

    def update_sparse(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            raise ZooError("A sparse gradient leaves the rows alone that it does not touch: leave weight_decay out.")
        state = self._state(parameter, group)
        state["step"] += 1
        gradient = gradient.coalesce()  # each row once, since the update is not linear
        index, values = tuple(gradient.indices()), gradient.values()
        values = -values if group["maximize"] else values
        total = state["sum"][index] + values.square()
        state["sum"][index] = total
        parameter[index] += values / (total.sqrt() + group["eps"]) * -_rate(group, state["step"].item())


def _rate(group: dict[str, Any], count: float) -> float:
    return number(group["lr"] / (1 + (count - 1) * group["lr_decay"]))


def _fused(bucket: Bucket, group: dict[str, Any]) -> None:
    """The same step in one operation."""
    torch._fused_adagrad_(
        bucket.params, aligned(bucket.grads, bucket.params), bucket.of("sum"), bucket.add_step(),
        lr=number(group["lr"]), lr_decay=group["lr_decay"], weight_decay=group["weight_decay"], eps=group["eps"],
        maximize=group["maximize"],
    )  # fmt: skip
