r"""Least squares of rows in memory by their products, where these keep the digits that a solution needs.

```math
G = \bar X^\top \bar X, \qquad c = \bar X^\top \bar Y, \qquad
W = \arg\min_W \tfrac12 \langle W, G W \rangle - \langle c, W \rangle + \text{penalties}
```

Of many more rows than columns G and c are made in float64. Where the condition number of the rows is small, which
Cholesky's factor bounds (`zoo.numerics.triangular.gram_factor`), what follows from them keeps twelve digits; elsewhere
there is no result, and the rows' own factor has to do it.

Legend: N rows, F features, K targets, X̄ and Ȳ less their means.

Source: Golub & Van Loan 2013, §5.3.2 (normal equations).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.kernels import moments as compiled
from zoo.models.linear.least_squares import descend
from zoo.models.linear.quadratic import Supports
from zoo.models.linear.statistics import Statistics
from zoo.numerics.moments import BLOCK, scatter_of
from zoo.numerics.triangular import gram_factor

__all__ = ["ElasticNetOfProducts", "Products", "RidgeOfProducts", "solve_double"]

TALL = 4  # rows for each column, from which on there is a Gram matrix of full rank
FLAT = 1e-7  # curvature beside the largest that G of float32 does not know

Solve = Callable[["Products", Tensor], Tensor]


class Products(NamedTuple):
    """What the rows are reduced to.

    Attributes:
        gram: G, (F, F).
        cross: c, (F, K).
        squares: Σ (y − ȳ)², of which a solution leaves what the rows do, (K,).
        reference: the first row, (F + K,).
        mean: of the rows beside it, (F + K,).
        num_rows: N.
        factor: triangular, of the centred rows [x, y], where it is known, (F + K, F + K).
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    reference: Tensor
    mean: Tensor
    num_rows: int
    factor: Tensor | None = None

    def intercepts(self, w: Tensor) -> Tensor:
        """The intercepts (K,) that belong to coefficients W (F, K)."""
        features, slopes = len(w), w.numpy()
        at, mean = self.reference.double().numpy(), self.mean.numpy()
        change = mean[features:] - mean[:features] @ slopes
        return torch.from_numpy(at[features:] + change - at[:features] @ slopes)

    def statistics(self) -> Statistics:
        """The factor that stands for the rows, with the slope and the error of the rows at the solution."""
        size, count = len(self.mean), self.mean.new_tensor(self.num_rows)
        factor = self.mean.new_zeros(1 + size, 1 + size)
        factor[0, 0], factor[0, 1:] = count.sqrt(), count.sqrt() * self.mean
        factor[1:, 1:] = self._factored() if self.factor is None else self.factor
        return Statistics(factor, self.reference, count, count.long())

    def _factored(self) -> Tensor:
        """A factor of products, of which G may lack digits."""
        features, targets = self.cross.shape
        values, vectors = torch.linalg.eigh(self.gram)
        kept = values > FLAT * values[-1]
        root = torch.where(kept, values, 0.0).sqrt().unsqueeze(1)
        b = torch.where(kept.unsqueeze(1), vectors.T @ self.cross / torch.where(root > 0, root, 1.0), 0.0)
        rest = (self.squares - b.square().sum(0)).clamp_min(0).sqrt().diag()
        inner = torch.cat(
            [torch.cat([root * vectors.T, b], 1), torch.cat([rest.new_zeros(targets, features), rest], 1)]
        )
        return torch.linalg.qr(inner, mode="r").R


def solve_double(x: Tensor, y: Tensor, solve: Solve) -> tuple[Tensor, Products] | None:
    """Return coefficients W (F, K) and the products they solve; None where products have too few digits.

    Args:
        x: rows, (N, F), on the CPU.
        y: targets, (N, K), float64.
        solve: W (F, K) of products, with the last W to begin from.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(5, 1).double()
        >>> w, _ = solve_double(x, x[:, :1] + x[:, :1] * x[:, 1:] + 3, RidgeOfProducts(torch.zeros(1)))
        >>> w.round(decimals=9).tolist()
        [[1.0], [0.0]]
    """
    features, width = x.shape[1], x.shape[1] + y.shape[1]
    narrow = compiled.available(x, width)
    if len(x) < TALL * (1 + width) or not (narrow or x.dtype == torch.float64):
        return None
    _, middle, scatter = compiled.moments(x, y) if narrow else _wide_moments(x, y)
    if (factor := gram_factor(scatter)) is None:
        return None
    gram, cross = scatter[:features, :features], scatter[:features, features:]
    squares = scatter.diagonal()[features:]
    products = Products(gram, cross, squares, middle, torch.zeros_like(middle), len(x), factor)
    return solve(products, torch.zeros_like(cross)), products


def _wide_moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean (F + K,) and scatter matrix (F + K, F + K) of rows [x, y], which lie apart."""
    count, middle, gram = scatter_of(x)
    level = y.mean(0)
    rest = y - level
    if bool((middle.square() * len(x) <= 4 * gram.diagonal()).all()):
        cross = (x.T @ rest).addr_(middle, rest.sum(0), alpha=-1)
    else:  # so far from zero that digits would go
        cross = sum((rows - middle).T @ left for rows, left in zip(x.split(BLOCK), rest.split(BLOCK), strict=True))
    scatter = torch.cat([torch.cat([gram, cross], 1), torch.cat([cross.T, rest.T @ rest], 1)])
    return count, torch.cat([middle, level]), scatter


class RidgeOfProducts:
    """Solve for W with ρ_k Σ_f W_fk², whose factors are made once.

    Args:
        penalties: ρ of each target, (K,).
    """

    def __init__(self, penalties: Tensor) -> None:
        self.penalties = penalties
        self.factors: dict[float, Tensor | None] = {}

    def __call__(self, products: Products, start: Tensor) -> Tensor:
        w = torch.full_like(start, float("nan"))
        for ridge in set(self.penalties.tolist()):
            if ridge not in self.factors:
                bent = products.gram.clone()
                bent.diagonal().add_(ridge)
                factor, failed = torch.linalg.cholesky_ex(bent)
                self.factors[ridge] = None if int(failed) else factor
            chosen, factor = self.penalties == ridge, self.factors[ridge]
            if factor is not None:
                w[:, chosen] = torch.cholesky_solve(products.cross[:, chosen], factor)
        return w


class ElasticNetOfProducts:
    """Solve for W with λ Σ|W| + ½ ρ Σ W² beside half the squared error.

    Args:
        l1: λ.
        ridge: ρ.
        positive: whether W ≥ 0 is demanded.
        max_rounds: of coordinate descent at most, for each target.

    Attributes:
        rounds: that each target took at most, (K,).
        converged: whether the last solution meets the optimality conditions.
    """

    def __init__(self, l1: float, ridge: float, *, positive: bool, max_rounds: int) -> None:
        self.l1, self.ridge, self.positive, self.max_rounds = l1, ridge, positive, max_rounds
        self.rounds: list[int] = []
        self.converged = False

    def __call__(self, products: Products, start: Tensor) -> Tensor:
        gram, cross, squares, first = (
            part.numpy() for part in (products.gram, products.cross, products.squares, start)
        )
        if not self.rounds:
            self.scale = np.hypot(np.sqrt(gram.diagonal()), self.ridge**0.5)
            hessian = gram / self.scale[:, None]
            hessian /= self.scale
            hessian.flat[:: len(hessian) + 1] += self.ridge / np.square(self.scale)
            self.hessian, self.target = Supports(hessian), np.where(squares > 0, np.sqrt(squares), 1.0)
        pull = cross / self.scale[:, None] / self.target
        fields = self.hessian, self.scale, pull, self.target, self.l1, first
        w, rounds, self.converged = descend(*fields, positive=self.positive, max_rounds=self.max_rounds)
        self.rounds = [max(pair) for pair in zip(rounds, self.rounds or rounds, strict=True)]
        return torch.from_numpy(w)
