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
step on the support). Deviations: sweeps instead of one new coordinate at a time; along directions without curvature
the penalty falls until a coordinate is zero; a coordinate leaves zero only if rounding cannot account for it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.kernels import quadratic as compiled

__all__ = ["Minimum", "Supports", "minimize_arrays", "minimize_quadratic", "solve_semidefinite"]

FEW = 128  # unknowns up to which calls cost more than sums, and NumPy's less than torch's
SWEEPS = 100  # between two steps on the support, at most
MORE = 8  # sweeps of the kernel without a change of sign, which take less than a step that meets a wrong one
FLAT = 1e-12  # curvature, relative to the largest, below which a direction counts as undetermined
SLANT = 1e-12  # slope along such directions, relative to the largest, from which on it counts


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
    if a.device.type == "cpu":
        factor = _factor(a.detach().numpy())
        if factor is not None:
            return torch.from_numpy(_solve(factor, b.detach().numpy()))
    else:
        definite, failed = torch.linalg.cholesky_ex(a)
        if not failed and definite.diagonal().min() > _least(len(a)):
            return torch.cholesky_solve(b.unsqueeze(1), definite).squeeze(1)
    values, vectors = torch.linalg.eigh(a)
    cutoff = max(FLAT, len(a) * torch.finfo(a.dtype).eps) * values[-1]
    inverse = torch.where(values > cutoff, 1 / values.clamp_min(cutoff), 0.0)
    return vectors @ (inverse * (vectors.T @ b))


def _least(size: int) -> float:
    """What the diagonal of a definite matrix's factor is above: that of the matrix is one."""
    return (FLAT * size) ** 0.5


def _factor(a: np.ndarray) -> np.ndarray | None:
    """The lower triangular factor of a matrix; None where it is not definite."""
    if len(a) <= FEW:
        from scipy.linalg.lapack import dpotrf

        factor, failed = dpotrf(a.T, lower=1)  # as it lies in memory, which LAPACK goes through by columns
    else:
        factor, failed = (part.numpy() for part in torch.linalg.cholesky_ex(torch.from_numpy(a)))
    return None if failed or not factor.diagonal().min() > _least(len(a)) else factor


def _solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x with L Lᵀ x = b."""
    from scipy.linalg.lapack import dpotrs

    return dpotrs(factor, b, lower=1)[0].astype(b.dtype, copy=False)


class Supports:
    """Blocks H_AA of a matrix H (D, D), the last factor of which is kept: a next solution often has its zeros."""

    def __init__(self, h: np.ndarray) -> None:
        self.h = h
        self.rows: np.ndarray | None = None

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """|H|, (D, D)."""
        return np.abs(self.h)

    def solve(self, rows: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The shortest x with H_AA x = b of the rows A, and b − H_AA x where the block may not reach all of b."""
        if self.rows is None or not np.array_equal(rows, self.rows):
            self.rows, self.block = rows, self.h.take(rows, 0).take(rows, 1)
            self.factor = _factor(self.block)
        if self.factor is not None:
            return _solve(self.factor, b), None
        x = solve_semidefinite(torch.from_numpy(self.block), torch.from_numpy(b)).numpy()
        return x, b - self.block @ x


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
    # Small vectors, many calls, and an order: the processor's work, and NumPy's calls cost a quarter of torch's.
    h, c, penalty, x = (t.detach().cpu().numpy() for t in (hessian, linear, l1, start))
    above = np.zeros(len(x), dtype=bool) if positive is None else positive.cpu().numpy()
    x, rounds, converged = minimize_arrays(Supports(h), c, penalty, x, above, max_rounds)
    return Minimum(torch.from_numpy(x).to(start.device), rounds, converged)


def minimize_arrays(
    supports: Supports, c: np.ndarray, l1: np.ndarray, start: np.ndarray, above: np.ndarray, max_rounds: int
) -> tuple[np.ndarray, int, bool]:
    """The fields of `minimize_quadratic` of arrays, with H as `supports` has it."""
    h, x = supports.h, start.copy()
    np.maximum(x, 0, out=x, where=above)
    held = (l1 > 0) | above  # may stay at zero against a slope
    rounding = 8 * len(x) ** 0.5 * np.finfo(x.dtype).eps
    for rounds in range(1, max_rounds + 1):
        x = _step_on_support(supports, c, l1, above, held, x)
        gradient = h @ x + c
        # A coordinate leaves zero for a slope beyond λ, and beyond what the sum of the slope may be wrong by.
        hold = l1 + rounding * (supports.sizes @ np.abs(x) + np.abs(c))
        slope = np.where(above, -gradient, np.abs(gradient))
        if not ((x == 0) & held & (slope > hold)).any():
            return x, rounds, True
        _descend(h, gradient, l1, hold, above, x)
    return x, max_rounds, False


def _descend(
    h: np.ndarray, slope: np.ndarray, l1: np.ndarray, hold: np.ndarray, above: np.ndarray, x: np.ndarray
) -> None:
    """Sweep over all coordinates until their signs stay, in place; a step on the support takes as long as `patience`.

    Args:
        h: H, (D, D).
        slope: the gradient at x, (D,).
        l1: λ, (D,).
        hold: what a slope has to be beyond for a zero to leave, (D,).
        above: which coordinates may not be negative, (D,).
        x: the point, (D,).
    """
    patience, same = 1 + len(x) // FEW, 0
    if compiled.available(torch.from_numpy(h)):
        patience += MORE
        hessian, penalty, held, positive, gradient, point = map(torch.from_numpy, (h, l1, hold, above, slope, x))
        compiled.quadratic_sweeps(hessian, penalty, held, positive, gradient, point, SWEEPS, patience)
        return
    for _ in range(SWEEPS):
        before = np.sign(x)
        _sweep(h, slope, l1, hold, above, x)
        same = same + 1 if (np.sign(x) == before).all() else 0
        if same == patience:
            return


def _sweep(
    h: np.ndarray, slope: np.ndarray, l1: np.ndarray, hold: np.ndarray, above: np.ndarray, x: np.ndarray
) -> None:
    """Minimize over one coordinate after the other, in place; `slope` is the gradient at `x`, `hold` ≥ λ for zeros."""
    columns = zip(h.diagonal().tolist(), l1.tolist(), hold.tolist(), above.tolist(), strict=True)
    for j, (curvature, penalty, threshold, no_less) in enumerate(columns):
        old = float(x[j])
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
            x[j] = new
            slope += (new - old) * h[j]


def _step_on_support(
    supports: Supports, c: np.ndarray, l1: np.ndarray, above: np.ndarray, held: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Minimize over the coordinates that are not zero, with their signs; one whose sign would change becomes zero."""
    while True:
        rows = ((x != 0) | ~held).nonzero()[0]
        if not len(rows):
            return x
        target, b = x.copy(), -(c + l1 * np.sign(x))
        target[rows], left = supports.solve(rows, b[rows])
        if left is not None and (moved := _to_first_zero(x, rows, left, c, l1, held)) is not None:
            x = moved
            continue
        crosses = ((np.sign(x) * np.sign(target) < 0) & held).nonzero()[0]
        if not len(crosses):
            return target
        x = _best_on_segment(supports.h, c, l1, above, x, target, crosses)


def _to_first_zero(
    x: np.ndarray, rows: np.ndarray, left: np.ndarray, c: np.ndarray, l1: np.ndarray, held: np.ndarray
) -> np.ndarray | None:
    """Go where the penalty falls and nothing bends, until a coordinate is zero; None where there is no such way.

    More coordinates than the matrix has rank have directions without curvature, along which λ Σ|x| alone changes, at
    the slope `left`: that of the support's linear system which no solution of it takes away.
    """
    rounding = max(SLANT, 8 * len(x) * np.finfo(x.dtype).eps) * (np.abs(c).max() + l1.max())
    way = np.zeros_like(x)
    way[rows] = left
    falls = ((np.sign(x) * np.sign(way) < 0) & held).nonzero()[0]
    if not l1.any() or not np.abs(left).max() > rounding or not len(falls):
        return None
    times = -x[falls] / way[falls]
    moved = x + times.min() * way
    moved[falls[times.argmin()]] = 0.0
    return np.where(held & (np.sign(x) * np.sign(moved) < 0), 0.0, moved)  # of others that are zero but for rounding


def _best_on_segment(
    h: np.ndarray, c: np.ndarray, l1: np.ndarray, above: np.ndarray, x: np.ndarray, target: np.ndarray,
    crosses: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return the best of `target` and the points before it where one of the coordinates `crosses` is zero."""
    d = target - x
    times = np.append(x[crosses] / (x[crosses] - target[crosses]), 1.0).astype(x.dtype)
    last = np.where(above[crosses], times[:-1], 1.0).min()  # what may not be negative ends the way
    points = x + times[:, None] * d  # (M + 1, D)
    points[np.arange(len(crosses)), crosses] = 0.0
    values = times * ((h @ x + c) @ d) + 0.5 * np.square(times) * (d @ h @ d) + np.abs(points) @ l1
    best = points[np.where(times <= last, values, np.inf).argmin()]
    return np.where(above, np.maximum(best, 0), best)
