r"""Adafactor: Adam's second moment of a matrix, kept as its row and column means alone.

```math
R \leftarrow (1 - \rho)R + \rho\, \overline{G^2}^{\text{rows}}, \quad
C \leftarrow (1 - \rho)C + \rho\, \overline{G^2}^{\text{columns}}, \\
V = \frac{R\,C}{\bar R}, \quad U = \frac{G}{\sqrt V}, \quad
\theta \leftarrow (1 - \eta\lambda)\,\theta - \alpha \frac{U}{\max(1, \operatorname{rms}(U) / d)}
```

with $\rho = t^{\tau}$ and $\alpha = \max(\epsilon_2, \operatorname{rms}(\theta)) \min(\eta, 1/\sqrt t)$.

| symbol | shape | meaning |
|---|---|---|
| θ, G | (..., M, N) | parameter and gradient (−∇ with `maximize`) |
| R, C | (..., M, 1), (..., 1, N) | running means of the squares over a row and over a column; $\bar R$ their mean |
| V | as θ | of a vector, its running mean of squares itself |
| t | | steps of this parameter, from 1 on |
| η, τ, ε, d, λ | | `lr`, `beta2_decay`, `eps`, `d`, `weight_decay` |

Source: Shazeer & Stern 2018, algorithms 4 and 5.

Deviations, which are torch's: η bounds the relative step where the paper has 0.01, and scales the weight decay; ε₁ is a
floor of $\bar R$ and of √V, and not added to each square.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.errors import ZooError
from zoo.optimizers.base import Bucket, RawOptimizer, number, step_count, zeros

__all__ = ["Adafactor"]


class Adafactor(RawOptimizer):
    r"""Adafactor: V = RC / R̄ of running row and column means of g², θ ← θ − α g/√V, cut to a length.

    Args:
        params: tensors or parameter groups.
        lr: η, the largest step relative to the parameter's size.
        beta2_decay: τ, at most 0: the share of the new square is t^τ.
        eps: ε₁ (None: the type's own), the floor of √V, and ε₂, the least size that steps are relative to.
        d: the largest root mean square of an update.
        weight_decay: λ, apart from the gradient.
        foreach: as in torch; there is one form.
        maximize: ascend instead of descend.

    Raises:
        ZooError: a value is out of its range.

    Source: Shazeer & Stern 2018.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(200, 100))
        >>> optimizer = Adafactor([weight])
        >>> weight.grad = torch.ones(200, 100)
        >>> optimizer.step()
        >>> [tuple(kept.shape) for kept in optimizer.state[weight].values()]
        [(), (200, 1), (1, 100)]
    """

    built_in = torch.optim.Adafactor

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        if beta2_decay not in Range(high=0):
            raise ZooError(f"beta2_decay must be at most 0, not {beta2_decay!r}.")
        if d not in Range(1):
            raise ZooError(f"d must be at least 1, not {d!r}.")
        eps = check_type("eps", tuple(eps), tuple[float | None, float])  # of a config it is a list
        if any(value is not None and value < 0 for value in eps):
            raise ZooError(f"Both eps must be at least 0, not {eps!r}.")
        super().__init__(
            params,
            {
                "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay,
                "foreach": foreach, "maximize": maximize,
            },
        )  # fmt: skip

    def begin(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        assert parameter.grad is not None
        if parameter.is_complex():
            raise ZooError("Adafactor takes real parameters alone.")
        state = {"step": step_count(parameter)}
        if parameter.grad.dim() < 2:
            return state | {"variance": zeros(parameter.grad)}
        *axes, rows, columns = parameter.shape
        return state | {
            "row_var": parameter.grad.new_zeros(*axes, rows, 1),
            "col_var": parameter.grad.new_zeros(*axes, 1, columns),
        }

    def update(self, bucket: Bucket, group: dict[str, Any]) -> None:
        grads = bucket.descent(group["maximize"], 0.0)
        counts = bucket.count_step()
        # One after the other: what is as large as a parameter is there for one of them at a time.
        for parameter, gradient, state, count in zip(bucket.params, grads, bucket.states, counts, strict=True):
            _step(parameter, gradient, state, count, group)


def _step(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], count: float, group: dict[str, Any]) -> None:
    """Take a step of one parameter."""
    rate, (floor, least_size) = number(group["lr"]), group["eps"]
    floor = torch.finfo(parameter.dtype).eps if floor is None else floor
    share = count ** group["beta2_decay"]
    root = max(parameter.numel(), 1) ** 0.5
    step = max(least_size, parameter.norm(2).item() / root) * min(rate, 1 / count**0.5)
    if group["weight_decay"]:
        parameter.mul_(1 - rate * group["weight_decay"])
    if gradient.dim() > 1:
        rows, columns = state["row_var"], state["col_var"]
        rows.lerp_(_mean_square(gradient, -1), share)
        columns.lerp_(_mean_square(gradient, -2), share)
        variance = (rows @ columns).div_(rows.mean(-2, keepdim=True).clamp_(min=floor))
    else:
        variance = state["variance"].lerp_(gradient.square(), share).clone()
    update = variance.clamp_(min=floor * floor).rsqrt_().mul_(gradient)
    parameter.add_(update, alpha=-step / max(1.0, update.norm(2).item() / (root * group["d"])))


def _mean_square(gradient: Tensor, axis: int) -> Tensor:
    """The mean of squares along an axis, without their tensor."""
    return torch.linalg.vector_norm(gradient, dim=axis, keepdim=True).square_().div_(gradient.size(axis))
