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

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.errors import ZooError
from zoo.kernels.adafactor import adafactor_step, available, takes
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
        fused: take a step in one operation where a kernel takes the parameters: float32 or float64, on a CPU.

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
    room = 2**24  # it is taken to spare memory

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
        fused: bool | None = None,
    ) -> None:
        if beta2_decay not in Range(high=0):
            raise ZooError(f"beta2_decay must be at most 0, not {beta2_decay!r}.")
        if d not in Range(1):
            raise ZooError(f"d must be at least 1, not {d!r}.")
        eps = check_type("eps", tuple(eps), tuple[float | None, float])  # of a config it is a list
        if any(value is not None and value < 0 for value in eps):
            raise ZooError(f"Both eps must be at least 0, not {eps!r}.")
        options = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, options if fused is None else {**options, "fused": fused})  # which torch has not

    def passes_often(self, group: dict[str, Any]) -> bool:
        return not (group.get("fused") and takes(group["params"][0]))

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
        matrices = bucket.where(lambda state: "row_var" in state)
        vectors = bucket.where(lambda state: "row_var" not in state)
        for part, variances in ((matrices, _of_matrices), (vectors, _of_vectors)):
            if not part.params:
                continue
            if group.get("fused") and available(part.params, part.grads):
                _fused(part, group)
            else:
                _step(part, variances, group)


def _fused(bucket: Bucket, group: dict[str, Any]) -> None:
    """The same step in one operation."""
    floor, least_size = group["eps"]
    floor = torch.finfo(bucket.params[0].dtype).eps if floor is None else floor
    matrices = "row_var" in bucket.states[0]
    adafactor_step(
        bucket.params, bucket.grads, bucket.of("row_var" if matrices else "variance"),
        bucket.of("col_var") if matrices else [], bucket.steps(), number(group["lr"]), group["beta2_decay"], floor,
        least_size, group["d"], group["weight_decay"], group["maximize"],
    )  # fmt: skip


def _step(bucket: Bucket, variances: Callable[..., list[Tensor]], group: dict[str, Any]) -> None:
    """Take a step of parameters whose V is found in one way."""
    rate, (floor, least_size) = number(group["lr"]), group["eps"]
    floor = torch.finfo(bucket.params[0].dtype).eps if floor is None else floor
    counts, grads = bucket.count_step(), bucket.descent(group["maximize"], 0.0)
    roots = [max(parameter.numel(), 1) ** 0.5 for parameter in bucket.params]
    steps = [
        max(least_size, length / root) * min(rate, 1 / count**0.5)
        for length, root, count in zip(_lengths(bucket.params), roots, counts, strict=True)
    ]
    if group["weight_decay"]:
        torch._foreach_mul_(bucket.params, 1 - rate * group["weight_decay"])
    updates = variances(bucket, grads, [count ** group["beta2_decay"] for count in counts], floor)
    torch._foreach_clamp_min_(updates, floor * floor)
    torch._foreach_rsqrt_(updates)
    torch._foreach_mul_(updates, grads)
    cuts = [max(1.0, length / (root * group["d"])) for length, root in zip(_lengths(updates), roots, strict=True)]
    for parameter, update, step, cut in zip(bucket.params, updates, steps, cuts, strict=True):
        parameter.add_(update, alpha=-step / cut)  # rounded once, as torch does


def _of_matrices(bucket: Bucket, grads: list[Tensor], shares: list[float], floor: float) -> list[Tensor]:
    """R ← (1 − ρ)R + ρ mean(G²), and so C; return V = RC / R̄."""
    rows, columns = bucket.of("row_var"), bucket.of("col_var")
    for kept, axis in ((rows, -1), (columns, -2)):
        torch._foreach_lerp_(kept, _mean_squares(grads, axis), shares)
    means = [kept.mean(-2, keepdim=True) for kept in rows]
    torch._foreach_clamp_min_(means, floor)
    variances = [one @ other for one, other in zip(rows, columns, strict=True)]
    torch._foreach_div_(variances, means)
    return variances


def _of_vectors(bucket: Bucket, grads: list[Tensor], shares: list[float], floor: float) -> list[Tensor]:
    """V ← (1 − ρ)V + ρ G²; return it anew."""
    variances = bucket.of("variance")
    torch._foreach_lerp_(variances, torch._foreach_mul(grads, grads), shares)
    return [variance.clone() for variance in variances]


def _mean_squares(grads: list[Tensor], axis: int) -> list[Tensor]:
    """The means of squares along an axis, without their tensors."""
    means = [torch.linalg.vector_norm(gradient, dim=axis, keepdim=True) for gradient in grads]
    torch._foreach_mul_(means, means)
    torch._foreach_div_(means, [gradient.size(axis) for gradient in grads])
    return means


def _lengths(tensors: list[Tensor]) -> list[float]:
    """The Euclidean lengths of tensors of one type, which a GPU is asked for once."""
    return torch.stack(torch._foreach_norm(tensors)).tolist()
