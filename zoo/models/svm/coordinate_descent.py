r"""Coordinate descent: the dual of a linear machine, one coefficient at a time.

With the intercept as the weight of a constant feature no sum of coefficients is given, so that each has its best value
by itself. With g_i = w·x_i + d_i β_i − t_i, w = Σ β_j x_j,

```math
β_i ← \operatorname{clip}\Bigl(S_{ε / h_i}\bigl(β_i - g_i / h_i\bigr),\ l_i, h_i\Bigr), \qquad
h_i = \lVert x_i \rVert^2 + d_i, \qquad w ← w + Δβ_i x_i
```

in rounds over the rows in a new order each, where S_c moves a number by c towards zero. Rows whose coefficient stays at
its bound are left out of further rounds, and looked at again in the end.

Legend: N rows, F features (the constant one is last, F + 1), S soft threshold.
Source: Hsieh, Chang, Lin, Keerthi & Sundararajan, "A dual coordinate descent method for large-scale linear SVM", 2008;
Ho & Lin, "Large-scale linear support vector regression", 2012. Deviation: signed coefficients (`dual.py`), so that one
descent serves classes and values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import svm as compiled
from zoo.models.svm.dual import Dual
from zoo.numerics.sparse import is_sparse, sparse_rows, stored

__all__ = ["Descent", "descend", "dual_descent"]

_SEED = 0


class Descent(NamedTuple):
    """Coefficients, weights, and what the descent left.

    Attributes:
        beta: β, (N,).
        weight: w, with that of the constant feature last, (F + 1,).
        rounds: over the rows.
        violation: spread of the slopes that are left, or their share of the first round's sum.
        converged: whether that is within `tol`.
    """

    beta: Tensor
    weight: Tensor
    rounds: int
    violation: float
    converged: bool


def dual_descent(
    x: Tensor,
    dual: Dual,
    *,
    constant: float = 1.0,
    tol: float = 1e-4,
    relative: bool = False,
    max_iter: int = 1000,
    order: Tensor | None = None,
    seed: int = _SEED,
) -> Descent:
    """Solve the dual, by the compiled kernel where there is one.

    Args:
        x: rows (N, F), float64, dense or sparse (CSR).
        dual: targets, bounds and start.
        constant: value of the last feature, whose weight stands for the intercept; 0 for none.
        tol: stop where the spread of the slopes is within this.
        relative: stop where their sum is within this share of the first round's instead.
        max_iter: rounds at most.
        order: of the rows before they are shuffled, (N,).
        seed: of the orders.

    Example:
        >>> from zoo.models.svm.dual import classification
        >>> x, y = torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([-1.0, 1.0]).double()
        >>> dual_descent(x, classification(y, torch.ones(2).double()), constant=0.0).weight.tolist()
        [1.0, 0.0]
    """
    order = torch.arange(len(x), device=x.device) if order is None else order
    solve = compiled.dual_descent if compiled.available(x.device) else descend
    starts, columns = (x.crow_indices(), x.col_indices()) if is_sparse(x) else (None, None)
    beta, weight, found = solve(
        stored(x), starts, columns, x.shape[1], dual.target, dual.low, dual.high, dual.diagonal, dual.start, order,
        constant, dual.epsilon, tol, relative, max_iter, seed,
    )  # fmt: skip
    rounds, violation, converged = found.tolist()
    return Descent(beta, weight, int(rounds), violation, bool(converged))


def descend(
    x: Tensor, starts: Tensor | None, columns: Tensor | None, num_features: int, target: Tensor, low: Tensor,
    high: Tensor, diagonal: Tensor, beta: Tensor, order: Tensor, constant: float, epsilon: float, tol: float,
    relative: bool, max_iter: int, seed: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Solve the dual in torch operations, row by row; arguments and results are those of the operator."""
    if starts is not None and columns is not None:
        x = sparse_rows(starts, columns, x, (len(starts) - 1, num_features)).to_dense()
    design = torch.cat([x, x.new_full((len(x), 1), constant)], 1)
    bend = design.square().sum(1) + diagonal
    beta, weight = beta.clone(), beta @ design
    active, rounds, before, violation, limit = order, 0, -1.0, 0.0, float("inf")
    draw = torch.Generator().manual_seed(seed)
    while rounds < max_iter:
        active = active[torch.randperm(len(active), generator=draw).to(active.device)]
        slopes, kept = [0.0], []
        for i in active.tolist():
            b, bottom, top = beta[i].item(), low[i].item(), high[i].item()
            g = float(weight @ design[i] + diagonal[i] * b - target[i])
            up = float("inf") if b >= top else g + (epsilon if b >= 0 else -epsilon)
            down = -float("inf") if b <= bottom else g + (epsilon if b > 0 else -epsilon)
            if up > limit and down < -limit:
                continue
            kept.append(i)
            slopes.append(up if up < 0 else down if down > 0 else 0.0)
            to = _minimum(b, g, float(bend[i]), epsilon, slopes[-1], bottom, top)
            if to != b:
                weight = weight + (to - b) * design[i]
                beta[i] = to
        rounds += 1
        total = sum(map(abs, slopes))
        before = total if before < 0 else before
        violation = (total / before if before > 0 else 0.0) if relative else max(slopes) - min(slopes)
        limit = max(map(abs, slopes)) / (len(x) if relative else 1) or float("inf")
        done = violation <= tol
        if done and len(kept) == len(x):
            return beta, weight, beta.new_tensor([rounds, violation, 1.0])
        active = order if done else torch.tensor(kept, device=order.device)
        limit = float("inf") if done else limit
    return beta, weight, beta.new_tensor([rounds, violation, 0.0])


def _minimum(b: float, g: float, bend: float, epsilon: float, slope: float, low: float, high: float) -> float:
    """Where one coefficient is best, with slope g of the smooth part and `slope` of the whole at b."""
    if slope == 0:
        return b
    if not bend > 0:  # a row of zeros goes to its bound
        return high if slope < 0 else low
    centre = b - g / bend
    to = max(centre - epsilon / bend, 0.0) + min(centre + epsilon / bend, 0.0)
    return min(max(to, low), high)
