r"""Least squares of many float32 rows in memory: products of float32, and a solution as exact as those of float64 give.

```math
G \approx \bar X^\top \bar X, \qquad c_{t+1} = \bar X^\top (\bar Y - \bar X W_t) + G W_t, \qquad
W_{t+1} = \arg\min_W \tfrac12 \langle W, G W \rangle - \langle c_{t+1}, W \rangle + \text{penalties}
```

The Gram matrix G of the centred rows is made in float32, at half the cost, and is right to some six digits. The slope
of what W leaves is summed in float64. Where W is a fixed point, G cancels: W solves the problem of the rows, to the
digits of the slope. Each pass gains as many digits as G has beside its condition number; where that is too few, there
is no result, and float64 has to do it.

Legend: N rows, F features, K targets, X̄ and Ȳ less their means.

Source: Golub & Van Loan 2013, §3.5.3 (fixed precision, and residuals of a higher one); Lee, Sun & Saunders 2014
(proximal Newton steps with a Hessian that is near the right one).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kernels import slope as compiled
from zoo.models.linear.products import TALL, Products, Solve
from zoo.numerics.moments import scatter_of

__all__ = ["solve_single"]

WIDE = 64  # columns above which a Gram matrix takes longer than what else is done
PASSES = 4  # over the rows, at most
PRECISE = 1e-10  # error of the coefficients, which are shown in float32
_BLOCK = 1 << 17  # numbers of float64 at once, in the cache
_SAFE = 1e-25, 1e25  # sums of squares between which none of float32 has vanished or overflown


def solve_single(x: Tensor, y: Tensor, solve: Solve) -> tuple[Tensor, Products] | None:
    """Return coefficients W (F, K) and the products they solve; None where float32 has too few digits for these rows.

    Args:
        x: rows, (N, F), float32, on the CPU.
        y: targets, (N, K), float64.
        solve: W (F, K) of products, with the last W to begin from.

    Example:
        >>> x = torch.cat([torch.eye(65), -torch.eye(65)]).repeat(4, 1)
        >>> w, products = solve_single(x, x[:, :1].double() + 1, lambda p, _: torch.linalg.solve(p.gram, p.cross))
        >>> w.sum().round(decimals=9).item(), products.intercepts(w).round(decimals=9).item()
        (1.0, 1.0)
    """
    if len(x) < TALL * x.shape[1] or x.shape[1] <= WIDE or (products := _products(x, y)) is None:
        return None
    scale = products.gram.diagonal().sqrt().unsqueeze(1)  # coefficients by what they change
    w = solve(products, torch.zeros_like(products.cross))
    change = 1.0
    for _ in range(PASSES):
        products = _corrected(products, x, y, w)
        better = solve(products, w)
        before, change = change, float((scale * (better - w)).norm() / (scale * better).norm().clamp_min(1e-300))
        w = better
        share = change / before  # of an error that a pass leaves
        if not share < 1e-2:
            return None
        if change * share <= PRECISE:
            return w, products
    return None


def _products(x: Tensor, y: Tensor) -> Products | None:
    """The products of float32."""
    _, mean, gram = scatter_of(x, dtype=torch.float32)
    low, high = _SAFE
    if not bool(((gram.diagonal() > low) & (gram.diagonal() < high)).all()):
        return None
    middle = y.mean(0)
    rest = y - middle
    reference = torch.cat([x[0].double(), y[0]])
    cross = (x.T @ rest.float()).double()
    return Products(gram, cross, rest.square().sum(0), reference, torch.cat([mean, middle]) - reference, len(x))


def _corrected(products: Products, x: Tensor, y: Tensor, w: Tensor) -> Products:
    """The same with what one pass over the rows finds of W in float64: its slope, its errors, and the means."""
    targets = w.shape[1]
    slope_of = compiled.least_squares_slope if compiled.available(x) else _slope
    sums, square = slope_of(x, y, products.reference, w)
    middle, missed = sums[targets] / len(x), square[:targets, targets] / len(x)
    slope = sums[:targets].T - len(x) * torch.outer(middle, missed)
    error = square.diagonal()[:targets] - len(x) * missed.square()
    pull = products.gram @ w
    return products._replace(
        cross=slope + pull,
        squares=error + (w * (2 * slope + pull)).sum(0),
        mean=torch.cat([middle, missed + middle @ w]),
    )


def _slope(x: Tensor, y: Tensor, at: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (r, 1) xᵀ (K + 1, F) and Σ (r, 1) (r, 1)ᵀ, of rows less a point and residuals r = y − x W."""
    features, targets = w.shape
    at, to = at.split([features, targets])
    step = max(64, _BLOCK // features)
    rows = w.new_empty(min(step, len(x)), features)
    left = w.new_ones(len(rows), targets + 1)  # y − x W, and a one that sums the rows
    sums, square = w.new_zeros(targets + 1, features), w.new_zeros(targets + 1, targets + 1)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        block, rest = rows[: len(x[part])], left[: len(x[part])]
        torch.sub(x[part], at, out=block)
        torch.sub(y[part] - to, block @ w, out=rest[:, :targets])
        sums += rest.T @ block
        square += rest.T @ rest
    return sums, square
