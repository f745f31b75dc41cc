r"""Stochastic gradient descent with momentum.

```math
g \leftarrow \nabla + \lambda\theta, \qquad v \leftarrow \mu v + (1 - \tau)\, g, \qquad
\theta \leftarrow \theta - \eta\, v \quad\text{or, after Nesterov,}\quad \theta \leftarrow \theta - \eta\,(g + \mu v)
```

| symbol | meaning |
|---|---|
| θ, ∇ | parameter and its gradient (−∇ with `maximize`) |
| v | running sum of gradients; the first one is g itself, undamped |
| η, μ, τ, λ | `lr`, `momentum`, `dampening`, `weight_decay` |

Sources: Robbins & Monro 1951; Polyak 1964 (momentum); Nesterov 1983, as Sutskever et al. 2013, §2, put it.

Deviation: η stands before v, as in torch, and not within it, so that a new learning rate holds at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from operator import is_
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.optimizers.base import Bucket, RawOptimizer, aligned, number, zeros

__all__ = ["SGD"]


class SGD(RawOptimizer):
    r"""Stochastic gradient descent: v ← μv + (1 − τ)(∇ + λθ), θ ← θ − ηv.

    Args:
        params: tensors or parameter groups.
        lr: learning rate η.
        momentum: μ, the share of the last step that goes on.
        dampening: τ, the share of the gradient that momentum leaves out.
        weight_decay: λ.
        nesterov: look ahead along the momentum: θ ← θ − η(g + μv).
        maximize: ascend instead of descend.
        foreach: as in torch; there is one form.
        differentiable: torch's alone.
        fused: take a step in one of torch's operations.

    Raises:
        ZooError: a value is out of its range, or Nesterov's form has no momentum, or a damped one.

    Source: Polyak 1964; Nesterov 1983; Sutskever et al. 2013.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = SGD([weight], lr=0.1, momentum=0.9)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(2)
        ...     optimizer.step()
        >>> weight.data  # 1 − 0.1 − 0.1 · 1.9
        tensor([0.7100, 1.7100])
    """

    built_in = torch.optim.SGD
    as_real = False  # the step is the same for complex numbers

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ZooError("nesterov=True needs a momentum above 0 and dampening=0.")
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
                "fused": fused,
            },
        )  # fmt: skip

    def passes_often(self, group: dict[str, Any]) -> bool:
        return not group["fused"] and bool(group["momentum"] or group["weight_decay"] or group["maximize"])

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": None} if group["momentum"] else {}

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if group["fused"] and bucket.suits_fused(*(["momentum_buffer"] if momentum else [])):
            _fused(bucket, group)
            return
        direction = bucket.descent(group["maximize"], group["weight_decay"])
        if momentum:
            sums = _running_sums(bucket, direction, momentum, 1 - group["dampening"])
            direction = list(torch._foreach_add(direction, sums, alpha=momentum)) if group["nesterov"] else sums
        torch._foreach_add_(bucket.params, direction, alpha=-number(group["lr"]))

    def update_sparse(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["momentum"] or group["weight_decay"] or group["maximize"]:
            raise ZooError("A sparse gradient takes plain steps: leave momentum, weight_decay and maximize out.")
        parameter.add_(gradient, alpha=-number(group["lr"]))


def _running_sums(bucket: Bucket, direction: list[Tensor], momentum: float, share: float) -> list[Tensor]:
    """v ← μv + (1 − τ)g; the first v is g."""
    old = [i for i, state in enumerate(bucket.states) if state["momentum_buffer"] is not None]
    for i in set(range(len(direction))).difference(old):
        bucket.states[i]["momentum_buffer"] = direction[i].detach().clone()
    sums = bucket.of("momentum_buffer")
    if old:
        known = [sums[i] for i in old]
        torch._foreach_mul_(known, momentum)
        torch._foreach_add_(known, [direction[i] for i in old], alpha=share)
    return sums


def _fused(bucket: Bucket, group: dict[str, Any]) -> None:
    """The same step in one operation; with momentum another for the parameters whose first step it is."""
    if not group["momentum"]:
        _take_fused(bucket, [], group, first=False)
        return
    sums = [state["momentum_buffer"] for state in bucket.states]
    if not any(map(is_, sums, repeat(None))):
        _take_fused(bucket, sums, group, first=False)
        return
    new = bucket.where(lambda state: state["momentum_buffer"] is None)
    old = bucket.where(lambda state: state["momentum_buffer"] is not None)
    for state, parameter in zip(new.states, new.params, strict=True):
        state["momentum_buffer"] = zeros(parameter)
    for part in (new, old):
        if part.params:
            _take_fused(part, part.of("momentum_buffer"), group, first=part is new)


def _take_fused(bucket: Bucket, sums: list[Tensor], group: dict[str, Any], *, first: bool) -> None:
    torch._fused_sgd_(
        bucket.params, aligned(bucket.grads, bucket.params), sums, weight_decay=group["weight_decay"],
        momentum=group["momentum"], lr=number(group["lr"]), dampening=group["dampening"], nesterov=group["nesterov"],
        maximize=group["maximize"], is_first_step=first,
    )  # fmt: skip
