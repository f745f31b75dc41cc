r"""Convex quadratics with an L1 penalty or a sign constraint, by coordinate descent with exact steps between.

```math
\min_x \tfrac12 x^\top H x + c^\top x + \sum_j λ_j |x_j| \quad (x_j \ge 0), \qquad
x_j \leftarrow \frac{S(H_{jj} x_j - g_j, λ_j)}{H_{jj}}, \qquad g = H x + c
```

with S(u, λ) = sign(u) max(|u| − λ, 0). A sweep over the coordinates finds which are not zero, and their signs. With
these fixed the minimum is a linear system; the step towards its solution ends at the best point where a sign would
change. Each sign pattern that is reached so has a lower value than the one before, so that the search ends after
finitely many, at the minimum but for rounding, with exact zeros.

Legend: D dimensions, A support, the coordinates that are not zero.

Source: Friedman, Hastie & Tibshirani 2010, §2 (coordinate descent); Lee, Battle, Raina & Ng 2006, algorithm 1 (the
step on the support). Deviations: sweeps instead of one new coordinate at a time; directions without curvature are left
alone; a coordinate leaves zero only if rounding cannot account for it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Minimum", "minimize_quadratic", "solve_semidefinite"]

FLAT = 1e-12  # curvature, relative to the largest, below which a direction counts as undetermined


class Minimum(NamedTuple):
    """What `minimize_quadratic` found.

    Attributes:
        x: the minimum, (D,).
        rounds: steps on the support that were made, with a sweep between two of them.
        converged: whether the optimality conditions hold at `x`.
    """

    x: Tensor
    rounds: int
    converged: bool


def solve_semidefinite(a: Tensor, b: Tensor) -> Tensor:
    """Return the shortest x with A x = b for a positive semidefinite A of unit diagonal.

    >>> solve_semidefinite(torch.ones(2, 2), torch.ones(2))
    tensor([0.5000, 0.5000])
    """
    definite, failed = torch.linalg.cholesky_ex(a)
    # A diagonal near zero in the factor tells a singular matrix well enough: the matrix is scaled.
    if not failed and definite.diagonal().min() > (FLAT * len(a)) ** 0.5:
        return torch.cholesky_solve(b.unsqueeze(1), definite).squeeze(1)
    values, vectors = torch.linalg.eigh(a)
    cutoff = max(FLAT, len(a) * torch.finfo(a.dtype).eps) * values[-1]
    inverse = torch.where(values > cutoff, 1 / values.clamp_min(cutoff), 0.0)
    return vectors @ (inverse * (vectors.T @ b))


def minimize_quadratic(
    hessian: Tensor,
    linear: Tensor,
    l1: Tensor,
    start: Tensor,
    *,
    positive: Tensor | None = None,
    max_rounds: int = 1000,
) -> Minimum:
    """Return argmin_x ½ xᵀHx + cᵀx + Σ λ_j |x_j|, with exact zeros.

    Args:
        hessian: H, positive semidefinite with a diagonal of about one, (D, D).
        linear: c, (D,).
        l1: λ ≥ 0, (D,).
        start: a first guess, such as the last solution, (D,).
        positive: which coordinates may not be negative, (D,) bool; none by default.
        max_rounds: rounds at most.

    Example:
        >>> c, one = torch.tensor([-3.0, 0.5]), torch.ones(2)
        >>> minimize_quadratic(torch.eye(2), c, one, torch.zeros(2)).x.tolist()
        [2.0, 0.0]
    """
    device = start.device  # single coordinates are the processor's work
    hessian, linear, l1, x = (t.detach().cpu() for t in (hessian, linear, l1, start.clone()))
    above = torch.zeros_like(l1, dtype=torch.bool) if positive is None else positive.cpu()
    x[above] = x[above].clamp_min(0)
    rounding = 8 * len(x) ** 0.5 * torch.finfo(x.dtype).eps
    for rounds in range(1, max_rounds + 1):
        x = _step_on_support(hessian, linear, l1, above, x)
        gradient = hessian @ x + linear
        # A coordinate leaves zero for a slope beyond λ, and beyond what the sum of the slope may be wrong by.
        hold = l1 + rounding * (hessian.abs() @ x.abs() + linear.abs())
        slope = torch.where(above, -gradient, gradient.abs())
        if not bool(((x == 0) & _held(l1, above) & (slope > hold)).any()):
            return Minimum(x.to(device), rounds, True)
        _sweep(hessian, gradient, l1, hold, above, x)
    return Minimum(x.to(device), max_rounds, False)


def _held(l1: Tensor, above: Tensor) -> Tensor:
    """Which coordinates may stay at zero against a slope."""
    return (l1 > 0) | above


def _sweep(hessian: Tensor, gradient: Tensor, l1: Tensor, hold: Tensor, above: Tensor, x: Tensor) -> None:
    """Minimize over one coordinate after the other, in place; `gradient` is that at `x`, `hold` ≥ λ for zeros."""
    # NumPy's calls on single rows cost a quarter of torch's.
    rows, slope, point = hessian.numpy(), gradient.numpy(), x.numpy()
    columns = zip(hessian.diagonal().tolist(), l1.tolist(), hold.tolist(), above.tolist(), strict=True)
    for j, (curvature, penalty, threshold, no_less) in enumerate(columns):
        old = float(point[j])
        pull = curvature * old - float(slope[j])
        if curvature <= 0:
            continue
        if pull > (penalty if old else threshold):
            new = (pull - penalty) / curvature
        elif pull < -(penalty if old else threshold) and not no_less:
            new = (pull + penalty) / curvature
        else:
            new = 0.0
        if new != old:
            point[j] = new
            slope += (new - old) * rows[j]


def _step_on_support(hessian: Tensor, linear: Tensor, l1: Tensor, above: Tensor, x: Tensor) -> Tensor:
    """Minimize over the coordinates that are not zero, with their signs; one whose sign would change becomes zero."""
    held = _held(l1, above)
    while True:
        rows = ((x != 0) | ~held).nonzero().squeeze(1)
        if not len(rows):
            return x
        target = x.clone()
        target[rows] = solve_semidefinite(hessian[rows][:, rows], -(linear + l1 * x.sign())[rows])
        crosses = ((x.sign() * target.sign() < 0) & held).nonzero().squeeze(1)
        if not len(crosses):
            return target
        x = _best_on_segment(hessian, linear, l1, above, x, target, crosses)


def _best_on_segment(
    hessian: Tensor, linear: Tensor, l1: Tensor, above: Tensor, x: Tensor, target: Tensor, crosses: Tensor
) -> Tensor:
    """Return the best of `target` and the points before it where one of the coordinates `crosses` is zero."""
    d = target - x
    times = x[crosses] / (x[crosses] - target[crosses])
    last = torch.where(above[crosses], times, 1.0).min()  # what may not be negative ends the way
    points = x + torch.cat([times, times.new_ones(1)]).unsqueeze(1) * d  # (M + 1, D)
    points[torch.arange(len(crosses)), crosses] = 0.0
    times = torch.cat([times, times.new_ones(1)])
    values = times * ((hessian @ x + linear) @ d) + 0.5 * times.square() * (d @ hessian @ d) + points.abs() @ l1
    best = points[torch.where(times <= last, values, torch.inf).argmin()]
    best[above] = best[above].clamp_min(0)
    return best
