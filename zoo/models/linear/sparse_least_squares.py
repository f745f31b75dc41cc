r"""Least squares over sparse rows in memory, which are neither centred nor multiplied with each other.

```math
\min_W \tfrac12 \lVert A W - B \rVert^2 + \tfrac{ρ}2 \sum W^2 + λ \sum |W| \quad (W \ge 0), \qquad
A = \sqrt{s}\, (X - 1 m^\top), \quad B = \sqrt{s}\, (Y - 1 m_y^\top)
```

Without λ and sign constraint by conjugate gradients (CGLS) from zero, which lead to the shortest of all solutions;
otherwise by L-BFGS with exact zeros. Either takes products with X alone, so that memory and time are those of what X
stores, where a factor of all features would take F² numbers.

Legend: N rows, F features, K targets, s sample weights, m the means (0 without an intercept).

Source: Hestenes & Stiefel 1952; Björck, Numerical Methods for Least Squares Problems, 1996, §7.4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.models.linear.minimizers import LBFGS
from zoo.numerics.sparse import column_spread, transposed

__all__ = ["SparseProblem", "solve_sparse", "solve_sparse_elastic_net"]

_ROUNDING = 8 * torch.finfo(torch.float64).eps  # of a gradient beside the norms that it is a product of
_TOLERANCE = 1e-15  # of an objective of about one


class SparseProblem(NamedTuple):
    """A and B of rows.

    Attributes:
        x: X, a sparse matrix (CSR), (N, F).
        columns: Xᵀ, a sparse matrix (CSR), (F, N).
        root: √s, (N, 1).
        x_mean: m, (F,).
        y_mean: (K,).
        target: B, (N, K).
        lengths: norms of the columns of A, (F, 1).

    Example:
        >>> x, y = torch.tensor([[1.0], [0.0], [2.0]]).double(), torch.tensor([[5.0], [3.0], [7.0]]).double()
        >>> problem = SparseProblem.of(x.to_sparse_csr(), y, torch.ones(3).double(), intercept=True)
        >>> w, *_ = solve_sparse(problem, 0.0, 10)
        >>> w.item(), problem.bias(w).item()
        (2.0, 3.0)
    """

    x: Tensor
    columns: Tensor
    root: Tensor
    x_mean: Tensor
    y_mean: Tensor
    target: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weight: Tensor, *, intercept: bool) -> SparseProblem:
        """The problem of rows X (N, F) and Y (N, K) with weights (N,)."""
        columns = transposed(x)
        x_mean, y_mean = x.values().new_zeros(x.shape[1]), y.new_zeros(y.shape[1])
        if intercept:
            x_mean, y_mean = columns @ weight / weight.sum(), weight @ y / weight.sum()
        root = weight.sqrt().unsqueeze(1)
        lengths = column_spread(x, x_mean, weight).unsqueeze(1)
        return cls(x, columns, root, x_mean, y_mean, root * (y - y_mean), lengths)

    def times(self, w: Tensor) -> Tensor:
        """A W of W (F, K), (N, K)."""
        return self.root * (self.x @ w - self.x_mean @ w)

    def transposed(self, u: Tensor) -> Tensor:
        """Aᵀ U of U (N, K), (F, K)."""
        u = self.root * u
        return self.columns @ u - torch.outer(self.x_mean, u.sum(0))

    def bias(self, w: Tensor) -> Tensor:
        """The intercepts that belong to coefficients W (F, K), (K,)."""
        return self.y_mean - self.x_mean @ w


def solve_sparse(problem: SparseProblem, ridge: float, max_steps: int) -> tuple[Tensor, int, bool]:
    """Return the shortest W (F, K) of least ‖A W − B‖² + ρ Σ W², the steps taken, and whether they converged.

    Args:
        problem: A and B.
        ridge: ρ ≥ 0.
        max_steps: at most.
    """
    # With a penalty the solution is unique, and in columns of about equal curvature soon found.
    scale = 1 / (problem.lengths.square() + ridge).sqrt() if ridge else torch.ones_like(problem.lengths)
    size = (problem.lengths * scale).norm()
    bend = ridge * scale.square()
    z = torch.zeros(len(scale), problem.target.shape[1], dtype=scale.dtype, device=scale.device)
    residual = problem.target.clone()  # B − A W
    slope = scale * problem.transposed(residual)
    direction, steepness = slope, slope.square().sum(0)
    for step in range(max_steps):
        # A slope that rounding alone can account for says nothing any more.
        left = steepness.sqrt() > _ROUNDING * (size * residual.norm(dim=0) + (bend * z).norm(dim=0))
        left &= residual.norm(dim=0) > _ROUNDING * problem.target.norm(dim=0)
        if not bool(left.any()):
            return scale * z, step, True
        image = problem.times(scale * direction)
        curvature = image.square().sum(0) + (bend * direction.square()).sum(0)
        length = torch.where(left & (curvature > 0), steepness / curvature, 0.0)
        z = z + length * direction
        residual = residual - length * image
        slope = scale * problem.transposed(residual) - bend * z
        before, steepness = steepness, slope.square().sum(0)
        direction = slope + torch.where(before > 0, steepness / before, 0.0) * direction
    return scale * z, max_steps, False


def solve_sparse_elastic_net(
    problem: SparseProblem, l1: float, ridge: float, *, positive: bool, max_steps: int
) -> tuple[Tensor, int, bool]:
    """Return W (F, K) of least ½ ‖A W − B‖² + λ Σ|W| + ½ ρ Σ W², the steps taken, and whether they converged.

    Args:
        problem: A and B.
        l1: λ ≥ 0.
        ridge: ρ ≥ 0.
        positive: whether W ≥ 0 is demanded.
        max_steps: at most.
    """
    lengths = (problem.lengths.square() + ridge).sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    targets = problem.target.norm(dim=0)
    targets = torch.where(targets > 0, targets, 1.0)
    shape = len(lengths), len(targets)
    signs = torch.ones(shape, dtype=torch.bool).flatten() if positive else None
    minimizer = LBFGS(shape[0] * shape[1], _TOLERANCE, max_steps, signs).to(lengths.device)
    penalty = (l1 / lengths / targets).flatten() if l1 else None
    while not minimizer.finished:
        w = minimizer.point.view(shape) / lengths  # of targets of length 1
        missed = problem.times(w) - problem.target / targets
        smooth = (missed.square().sum() + ridge * w.square().sum()) / 2
        gradient = (problem.transposed(missed) + ridge * w) / lengths
        minimizer.update(smooth, gradient.flatten(), penalty)
    return minimizer.point.view(shape) / lengths * targets, minimizer.passes, minimizer.converged
