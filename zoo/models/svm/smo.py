r"""Sequential minimal optimization: the dual of a kernel machine, two coefficients at a time.

With f = t − Kβ the coefficient β_i may rise where f_i exceeds u_i, and fall where it is below v_i,

```math
u_i = \begin{cases} ∞ & β_i = h_i \\ ε & β_i \ge 0 \\ -ε & \text{else} \end{cases} \qquad
v_i = \begin{cases} -∞ & β_i = l_i \\ ε & β_i > 0 \\ -ε & \text{else} \end{cases}
```

and β is the solution where no pair gains: max (f − u) ≤ min (f − v). Else the first of the pair is the row i of that
maximum, the second the one with which the objective falls most along their line (second order: the curvature counts),

```math
j = \arg\max_k \frac{(f_i - u_i - f_k + v_k)^2}{K_{ii} + K_{kk} - 2 K_{ik}}, \qquad
δ = \min\Bigl(\frac{f_i - u_i - f_j + v_j}{K_{ii} + K_{jj} - 2 K_{ij}},\ \text{room of } β_i,\ \text{room of } β_j\Bigr)
```

and β_i rises by δ, β_j falls by it, f by δ (K_i − K_j). A search ends when the largest violation is within `tol`. The
compiled form (`zoo.kernels.svm`) also keeps rows of K, and leaves out for a while rows at their bounds that no pair
needs (shrinking); both round K to float32, as it is kept.

Legend: N rows, F features.
Source: Platt 1998; Fan, Chen & Lin, "Working set selection using second order information", 2005; Chang & Lin,
"LIBSVM", 2011. Deviation: signed coefficients (`dual.py`), so that one search serves all cases.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import svm as compiled
from zoo.models.svm.dual import Dual
from zoo.models.svm.kernels import Kernel

__all__ = ["Solution", "smo", "solve_pairs"]

MEGABYTE = 1 << 20
_TINY = 1e-12  # curvature at least
_KEPT = 1 << 24  # numbers of K that the torch form holds at once


class Solution(NamedTuple):
    """Coefficients and what the search left.

    Attributes:
        beta: β, (N,).
        slope: f = t − Kβ, (N,).
        offset: b.
        objective: of the dual, which was minimized.
        num_iter: pairs that were moved.
        violation: by how much the optimality condition is missed.
    """

    beta: Tensor
    slope: Tensor
    offset: float
    objective: float
    num_iter: int
    violation: float


def smo(
    x: Tensor,
    dual: Dual,
    kernel: Kernel,
    *,
    tol: float = 1e-3,
    max_iter: int | None = None,
    shrinking: bool = True,
    cache_size: float = 200.0,
) -> Solution:
    """Solve the dual, by the compiled kernel where there is one.

    Args:
        x: rows (N, F), float64; of `precomputed` the kernel (N, N).
        dual: targets, bounds and start; its `diagonal` is added to the kernel's.
        kernel: which one.
        tol: the largest violation that is left.
        max_iter: pairs at most, or None.
        shrinking: whether rows at their bounds are left out for a while.
        cache_size: megabytes of the kernel that are kept.

    Example:
        >>> from zoo.models.svm.dual import classification
        >>> x, y = torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([-1.0, 1.0]).double()
        >>> smo(x, classification(y, torch.ones(2).double()), Kernel("linear")).beta.tolist()
        [-0.5, 0.5]
    """
    if kernel.name == "rbf" and len(x):
        x = x - x.mean(0)  # distances are of differences: no digit is lost far from zero
    if callable(kernel.name):
        x, kernel = kernel(x, x), Kernel("precomputed")
    if bool(dual.diagonal.any()):
        x = kernel(x, x)
        x, kernel = x + torch.diag(dual.diagonal), Kernel("precomputed")
    if not compiled.available(x.device):
        return solve_pairs(x, dual, kernel, tol=tol, max_iter=max_iter)
    cache_rows = int(min(cache_size * MEGABYTE / 4 / max(1, len(x)), len(x)))  # no more than there are
    limit = -1 if max_iter is None else max_iter
    beta, slope, found = compiled.smo(
        x, dual.target, dual.low, dual.high, dual.start, compiled.KERNELS.index(str(kernel.name)), kernel.gamma,
        int(kernel.degree), kernel.coef0, dual.epsilon, tol, shrinking, limit, cache_rows,
    )  # fmt: skip
    offset, objective, num_iter, violation = found.tolist()
    return Solution(beta, slope, offset, objective, int(num_iter), violation)


def solve_pairs(x: Tensor, dual: Dual, kernel: Kernel, *, tol: float, max_iter: int | None = None) -> Solution:
    """Solve the dual in torch operations, a row of the kernel at a time; arguments are those of `smo`."""
    whole = kernel(x, x).float().double() if len(x) ** 2 <= _KEPT else None  # (N, N)

    def row(k: int) -> Tensor:
        if whole is not None:
            return whole[k]
        return x[k].float().double() if kernel.given else kernel(x[k : k + 1], x)[0].float().double()

    beta, slope = dual.start.clone(), dual.target.clone()
    for k in beta.nonzero().flatten().tolist():
        slope -= beta[k] * row(k)
    diagonal, num_iter = kernel.diagonal(x).float().double(), 0
    while True:
        rise, fall = _penalties(beta, dual)
        up, down = slope - rise, slope - fall
        violation = float(up.max() - down.min()) if len(beta) else 0.0
        if not violation > tol or num_iter == max_iter:
            break
        i = int(up.argmax())
        kernel_i = row(i)
        gap = (up[i] - down).clamp_min(0)
        bend = (diagonal[i] + diagonal - 2 * kernel_i).clamp_min(_TINY)
        j = int((gap.square() / bend).argmax())
        step, beta[i], beta[j] = _step(float(gap[j] / bend[j]), beta[i].item(), beta[j].item(), i, j, dual)
        slope -= step * (kernel_i - row(j))
        num_iter += 1
    objective = (dual.epsilon * beta.abs() - 0.5 * beta * (dual.target + slope)).sum()
    return Solution(beta, slope, _offset(slope, beta, dual), float(objective), num_iter, violation)


def _penalties(beta: Tensor, dual: Dual) -> tuple[Tensor, Tensor]:
    """What it costs each coefficient to rise, u, and what it saves it to fall, v, (N,)."""
    e = dual.epsilon
    rise = torch.where(beta >= dual.high, torch.inf, torch.where(beta >= 0, e, -e))
    return rise, torch.where(beta <= dual.low, -torch.inf, torch.where(beta > 0, e, -e))


def _step(step: float, rising: float, falling: float, i: int, j: int, dual: Dual) -> tuple[float, float, float]:
    """The step to the best place, the next bound, or the kink of ε|β|; and both coefficients after it."""
    end_i = 0.0 if dual.epsilon > 0 and rising < 0 else float(dual.high[i])
    end_j = 0.0 if dual.epsilon > 0 and falling > 0 else float(dual.low[j])
    room_i, room_j = end_i - rising, falling - end_j
    if step < min(room_i, room_j):
        return step, rising + step, falling - step
    step = min(room_i, room_j)
    return step, end_i if room_i <= room_j else rising + step, end_j if room_j <= room_i else falling - step


def _offset(slope: Tensor, beta: Tensor, dual: Dual) -> float:
    """b: the mean of f, less its penalty, over the rows between their bounds; or the middle of what it may be."""
    rise, fall = _penalties(beta, dual)
    free = rise == fall
    if bool(free.any()):
        return float((slope - rise)[free].mean())
    if not len(beta):
        return 0.0
    ends = [float((slope - rise).max()), float((slope - fall).min())]
    ends = [end for end in ends if abs(end) < float("inf")]
    return sum(ends) / max(1, len(ends))
