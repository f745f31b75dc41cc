r"""The primal problem of linear machines with squared loss, by Newton steps from sums over the rows.

For output k of scores z = w·x + a v, where a is the constant feature and v its weight,

```math
J_k = \tfrac12 \lVert (w, v) \rVert^2 + \sum_i C_i\, e_i^2, \qquad
\nabla J_k = (w, v) - 2 \sum_i C_i\, e_i\, (x_i, a), \qquad
H_k = I + 2 \sum_{i : e_i \ne 0} C_i\, (x_i, a) (x_i, a)^\top
```

where e is by how much, and in which direction, a score falls short: y max(0, 1 − y z) for classes y = ±1, and
sign(y − z) max(0, |y − z| − ε) for values. J is convex and piecewise quadratic: a Newton step from a point with the
right e ≠ 0 ends at the minimum, so that a handful of passes over the data do, and no row is kept. Of an intercept that
is not penalized the identity lacks its one.

Legend: B rows, F features, P = F + 1 (the constant comes last), K outputs.
Source: Mangasarian, "A finite Newton method for classification", 2002; Keerthi & DeCoste, "A modified finite Newton
method for fast solution of large scale linear SVMs", 2005.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.numerics.sparse import is_sparse, linear, stored_rows, take_rows

__all__ = ["HeldRows", "NewtonSearch", "Sums", "shortfall", "squared_sums"]

_ROWS = 1 << 13  # worked on at once: they stay in the cache
_COLUMNS = 128  # of a Hessian that are summed at once, with those before them
_FEW_ROWS, _FEW = 1 << 12, 1 << 23  # rows, and products of all Hessians, which are taken anew at each point
_PAIRS = 1 << 20  # of numbers in a sparse row that are worked on at once
_SUFFICIENT, _SMALLEST_STEP = 1e-4, 1e-10


class Sums(NamedTuple):
    """Sums over rows of the losses of K outputs.

    Attributes:
        value: Σ C e², (K,).
        gradient: of it, (K, P).
        hessian: of it, (K, P, P).
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor


def shortfall(scores: Tensor, target: Tensor, epsilon: float | None) -> Tensor:
    """Return e of scores and targets of one shape; `epsilon` is None for classes −1 and 1.

    Example:
        >>> shortfall(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]), None).tolist()
        [0.5, -3.0]
    """
    if epsilon is None:
        return target * (1 - target * scores).clamp_min(0)
    missed = target - scores
    return missed.sign() * (missed.abs() - epsilon).clamp_min(0)


def squared_sums(
    x: Tensor, target: Tensor, cost: Tensor, point: Tensor, constant: float, epsilon: float | None
) -> Sums:
    """Return value, gradient and Hessian of Σ C e² at a point.

    Args:
        x: rows, (B, F), float64, dense or sparse.
        target: ±1 or values, (B, K).
        cost: C_i, (B, K).
        point: weights, that of the constant last, (K, P).
        constant: a.
        epsilon: ε, or None for classes.
    """
    outputs, size = point.shape
    sums = Sums(point.new_zeros(outputs), torch.zeros_like(point), point.new_zeros(outputs, size, size))
    for start in range(0, len(x), _ROWS):
        some = slice(start, start + _ROWS)
        rows, costs = take_rows(x, some), cost[some]
        short = _add_losses(sums, rows, target[some], costs, point, constant, epsilon)
        for k in range(outputs):
            _add_curvature(sums.hessian[k], rows, short[:, k].nonzero().flatten(), 2 * costs[:, k], constant)
    return sums


class HeldRows:
    """Rows in memory, of which only those that came to fall short since the last point, or no longer do, change H.

    Args:
        x: rows, (N, F), float64, dense or sparse.
        target: ±1 or values, (N, K).
        cost: C_i, (N, K).
        constant: a.
        epsilon: ε, or None for classes.
    """

    def __init__(self, x: Tensor, target: Tensor, cost: Tensor, constant: float, epsilon: float | None) -> None:
        self.x, self.target, self.cost, self.constant, self.epsilon = x, target, cost, constant, epsilon
        self.active = torch.zeros(target.shape, dtype=torch.bool, device=x.device)  # (N, K)
        size = x.shape[1] + 1
        self.hessian = target.new_zeros(target.shape[1], size, size)
        few = len(x) <= _FEW_ROWS and target.numel() * size * size <= _FEW and not is_sparse(x)
        self.extended = torch.cat([x, x.new_full((len(x), 1), constant)], 1) if few else None  # (N, P)

    def sums(self, point: Tensor) -> Sums:
        """Return what `squared_sums` returns."""
        if self.extended is not None:
            return self._sums_of_few(self.extended, point)
        sums = Sums(point.new_zeros(len(point)), torch.zeros_like(point), self.hessian)
        short = _add_losses(sums, self.x, self.target, self.cost, point, self.constant, self.epsilon)
        active = short != 0
        for k, (now, before) in enumerate(zip(active.T, self.active.T, strict=True)):
            index, sign = (now != before).nonzero().flatten(), torch.where(now, 2.0, -2.0).to(short.dtype)
            if len(index) > int(now.sum()):
                self.hessian[k].zero_()
                index = now.nonzero().flatten()
            for part in index.split(_ROWS):
                _add_curvature(self.hessian[k], self.x, part, sign * self.cost[:, k], self.constant)
        self.active = active
        return Sums(sums.value, sums.gradient, self.hessian.clone())

    def _sums_of_few(self, rows: Tensor, point: Tensor) -> Sums:
        """The same where all products anew, of all outputs together, take less than to see which rows have changed."""
        short = shortfall(rows @ point.T, self.target, self.epsilon)  # (N, K)
        weighted = self.cost * short
        scaled = rows * (2 * self.cost * (short != 0)).T[:, :, None]  # (K, N, P)
        return Sums((weighted * short).sum(0), -2 * (weighted.T @ rows), scaled.mT @ rows)


def _add_losses(
    sums: Sums, rows: Tensor, target: Tensor, cost: Tensor, point: Tensor, constant: float, epsilon: float | None
) -> Tensor:
    """Add value and gradient of rows; return e, (b, K)."""
    short = shortfall(linear(rows, point[:, :-1]) + constant * point[:, -1], target, epsilon)
    weighted = cost * short
    sums.value.add_((weighted * short).sum(0))
    sums.gradient[:, :-1] -= 2 * (weighted.T @ rows)
    sums.gradient[:, -1] -= 2 * constant * weighted.sum(0)
    return short


def _add_curvature(hessian: Tensor, rows: Tensor, index: Tensor, factor: Tensor, constant: float) -> None:
    """Add Σ f (x, a)(x, a)ᵀ of some rows to a Hessian (P, P): what lies above the diagonal, and mirrored below it."""
    if not len(index):
        return
    whole = len(index) == len(rows)
    inside, factor = (rows, factor) if whole else (take_rows(rows, index), factor[index])
    if is_sparse(inside):
        _add_sparse_curvature(hessian, inside, factor, constant)
        return
    scaled = inside * factor[:, None]
    for start in range(0, rows.shape[1], _COLUMNS):
        end = min(start + _COLUMNS, rows.shape[1])
        part = inside[:, :end].T @ scaled[:, start:end]
        hessian[:end, start:end] += part
        hessian[start:end, :start] += part[:start].T
    edge = constant * scaled.sum(0)
    hessian[:-1, -1] += edge
    hessian[-1, :-1] += edge
    hessian[-1, -1] += constant**2 * factor.sum()


def _add_sparse_curvature(hessian: Tensor, rows: Tensor, factor: Tensor, constant: float) -> None:
    """The same of a sparse matrix: each pair of numbers that a row stores adds to one place."""
    size, edge = len(hessian), torch.zeros_like(hessian[0])
    most = max(1, _PAIRS // max(1, int(rows.crow_indices().diff().square().max())))
    for start in range(0, len(rows), most):
        part, factors = take_rows(rows, slice(start, start + most)), factor[start : start + most]
        row, columns, values = stored_rows(part), part.col_indices(), part.values()
        scaled = values * factors[row]
        edge.index_add_(0, columns, constant * scaled)
        met = part.crow_indices().diff()[row]  # numbers that each number meets: those of its row
        begin = part.crow_indices()[:-1][row] - (met.cumsum(0) - met)
        one = torch.arange(len(values), device=rows.device).repeat_interleave(met)
        other = torch.arange(len(one), device=rows.device) + begin.repeat_interleave(met)
        hessian.view(-1).index_add_(0, columns[one] * size + columns[other], scaled[one] * values[other])
    hessian[:, -1] += edge
    hessian[-1] += edge
    hessian[-1, -1] += constant**2 * factor.sum()


class NewtonSearch(nn.Module):
    """Newton's method with backtracking for K outputs side by side, told one pass at a time what J is at `trial`.

    Args:
        num_outputs: K.
        size: P.
        tol: stop where the gradient's norm is within this share of the first one's.
        max_iter: passes at most.

    Example:
        >>> search = NewtonSearch(1, 1, 1e-6, 10)
        >>> while not search.finished:
        ...     w = search.trial
        ...     search.update(0.5 * (w - 3).square().sum(1), w - 3, torch.ones(1, 1, 1).double())
        >>> search.best.round(decimals=9).tolist(), search.converged
        ([[3.0]], True)
    """

    best: Tensor
    trial: Tensor
    direction: Tensor
    step: Tensor
    value: Tensor
    slope: Tensor
    first_norm: Tensor
    stopped: Tensor
    passes: Tensor

    def __init__(self, num_outputs: int, size: int, tol: float, max_iter: int) -> None:
        super().__init__()
        self.tol, self.max_iter = tol, max_iter
        for name in ("best", "trial", "direction"):
            self.register_buffer(name, torch.zeros(num_outputs, size, dtype=torch.float64))
        self.register_buffer("value", torch.full((num_outputs,), torch.inf, dtype=torch.float64))
        self.register_buffer("step", torch.ones(num_outputs, dtype=torch.float64))
        self.register_buffer("slope", torch.zeros(num_outputs, dtype=torch.float64))
        self.register_buffer("first_norm", torch.full((num_outputs,), -1.0, dtype=torch.float64))
        self.register_buffer("stopped", torch.zeros(num_outputs, dtype=torch.bool))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    @property
    def converged(self) -> bool:
        """Whether the gradient of every output is small enough."""
        return bool(self.stopped.all())

    @property
    def finished(self) -> bool:
        """Whether no further pass is needed, or left."""
        return self.converged or int(self.passes) >= self.max_iter

    def settle(self, best: Tensor, value: Tensor, stopped: Tensor, passes: int) -> None:
        """Stand where a search of another form came to an end."""
        self.best, self.trial, self.value, self.stopped = best, best, value, stopped
        self.passes.fill_(passes)

    def update(self, value: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Take J (K,), its gradient (K, P) and Hessian (K, P, P) at `trial`, and set the next one."""
        self.passes += 1
        rounding = 8 * torch.finfo(value.dtype).eps * value.abs()
        open_, better = ~self.stopped, value <= self.value + _SUFFICIENT * self.step * self.slope + rounding
        missed = open_ & ~better
        if bool(missed.any()):
            self.step = torch.where(missed, self.step / 2, self.step)
            self.stopped |= missed & (self.step < _SMALLEST_STEP)  # J falls no further within its digits
        self._accept(open_ & better, value, gradient, hessian)
        moved = torch.addcmul(self.best, self.step[:, None], self.direction)
        self.trial = torch.where(self.stopped[:, None], self.best, moved)

    def _accept(self, accepted: Tensor, value: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Go on from `trial` where it is accepted, (K,)."""
        self.best = torch.where(accepted[:, None], self.trial, self.best)
        self.value = torch.where(accepted, value, self.value)
        norm, largest = torch.linalg.vector_norm(gradient, dim=1), gradient.abs().amax(1)
        norm = torch.where((norm == 0) | norm.isinf(), largest, norm)  # the squares of numbers that lie between
        self.first_norm = torch.where(accepted & (self.first_norm < 0), norm, self.first_norm)
        self.stopped |= accepted & (norm <= self.tol * self.first_norm)
        moving = (accepted & ~self.stopped).nonzero().flatten()
        if len(moving):
            held, down = hessian[moving], gradient[moving]
            diagonal = held.diagonal(dim1=1, dim2=2)
            diagonal += 1e-14 * diagonal.amax(1, keepdim=True)  # an intercept that no row depends on
            direction = torch.linalg.solve(held, down).neg_()
            self.direction[moving], self.slope[moving] = direction, (down * direction).sum(1)
            self.step[moving] = 1.0
