r"""Delta-bar-delta, the update rule of t-SNE: momentum, and a gain for each coordinate.

```math
g \leftarrow \max(0.01,\; g + 0.2) \text{ where } \operatorname{sign} u \ne \operatorname{sign} \nabla,
\quad \max(0.01,\; 0.8\, g) \text{ elsewhere}, \qquad u \leftarrow \mu u - \eta\, g \nabla, \qquad y \leftarrow y + u
```

| symbol | shape | meaning |
|---|---|---|
| y, ∇ | any | parameter and its gradient |
| u | as y | last update, 0 at the start |
| g | as y | gain of each coordinate, 1 at the start |
| η, μ | | learning rate, momentum |

Source: Jacobs 1988 (delta-bar-delta), as van der Maaten & Hinton 2008, section 3.4, use it.

Deviation: a row's update is cut to a length of `max_step`, so that learning rates as high as the number of rows
cannot throw a point out of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.errors import ZooError
from zoo.optimizers.recipe import register_optimizer

__all__ = ["TSNEOptimizer", "delta_bar_delta_"]


def delta_bar_delta_(
    parameter: Tensor,
    gradient: Tensor,
    update: Tensor,
    gain: Tensor,
    *,
    lr: float,
    momentum: float = 0.8,
    min_gain: float = 0.01,
    max_step: float | None = 5.0,
) -> None:
    """Take one step, in place.

    Args:
        parameter: y, any shape.
        gradient: ∇.
        update: u, zeros at the start.
        gain: g, ones at the start.
        lr: η.
        momentum: μ.
        min_gain: least gain.
        max_step: longest update of a row (of the last dimension), or None.

    Example:
        >>> y, u, g = torch.tensor([2.0]), torch.zeros(1), torch.ones(1)
        >>> delta_bar_delta_(y, torch.tensor([1.0]), u, g, lr=0.5)
        >>> y
        tensor([1.4000])
    """
    onward = update.sign() == gradient.sign()  # uphill: the last update overshot
    gain.copy_(torch.where(onward, gain * 0.8, gain + 0.2)).clamp_(min=min_gain)
    update.mul_(momentum).addcmul_(gradient, gain, value=-lr)
    if max_step is not None and update.dim() > 0:
        length = torch.linalg.vector_norm(update, dim=-1, keepdim=True)
        update.mul_((max_step / length).clamp_(max=1))
    parameter.add_(update)


@register_optimizer("tsne")
class TSNEOptimizer(Optimizer):
    r"""Gradient descent with momentum and gains: y ← y + u, u ← μu − ηg∇.

    Args:
        params: tensors or parameter groups.
        lr: learning rate η, above 0; None leaves it to the model, which must set it before the first step.
        momentum: μ, from 0 up to 1.
        min_gain: least gain.
        max_step: longest update of a row (of the last dimension), or None.

    Raises:
        ZooError: for a value out of its range.

    Source: Jacobs 1988; van der Maaten & Hinton 2008.

    Example:
        >>> point = torch.nn.Parameter(torch.tensor([[2.0, 0.0]]))
        >>> optimizer = TSNEOptimizer([point], lr=0.5)
        >>> point.grad = torch.tensor([[1.0, 0.0]])
        >>> optimizer.step()
        >>> point.data
        tensor([[1.4000, 0.0000]])
    """

    of_one_model = True  # which nobody else would choose

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        momentum: float = 0.8,
        min_gain: float = 0.01,
        max_step: float | None = 5.0,
    ) -> None:
        if lr is not None and not lr > 0:
            raise ZooError(f"The learning rate must be above 0, not {lr!r}")
        if not 0 <= momentum < 1:
            raise ZooError(f"The momentum must be at least 0 and below 1, not {momentum!r}")
        if not 0 < min_gain <= 1:
            raise ZooError(f"The least gain must be above 0 and at most 1, not {min_gain!r}")
        if max_step is not None and not max_step > 0:
            raise ZooError(f"The longest step must be above 0 or None, not {max_step!r}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "min_gain": min_gain, "max_step": max_step})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step, after evaluating `closure` if there is one; returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["lr"] is None:
                raise ZooError("This optimizer needs a learning rate: pass optimizer.lr (only tsne finds its own).")
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["update"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["gain"] = torch.ones_like(parameter, memory_format=torch.preserve_format)
        options = {name: group[name] for name in ("lr", "momentum", "min_gain", "max_step")}
        delta_bar_delta_(parameter, gradient, state["update"], state["gain"], **options)
