r"""Linear regression: the affine map that comes nearest to the targets in squared error.

```math
\hat y = x W^\top + b, \qquad
J(W, b) = \frac1{nK} \sum_i s_i \lVert y_i - \hat y_i \rVert^2 + λ₂ \sum W^2 + λ₁ \sum |W|, \qquad n = \sum_i s_i
```

Legend: N rows, F features, K targets, C = 1 + F + K columns, s sample weights (one each by default).

Two solvers. `gradient` takes steps of any optimizer. `exact` takes one streaming pass: each batch is stacked under the
triangular factor R of the rows before it and factored again (TSQR), so that no more than a batch and R (C, C) are held,
the condition number of X is never squared as XᵀX would square it, and features far from zero lose no digits
(`zoo.models.linear.statistics`):

```math
\begin{bmatrix} R \\ \sqrt{s}\,[1, X - r_x, Y - r_y] \end{bmatrix} = Q' R', \qquad
R' = \begin{bmatrix} \sqrt n & \sqrt n\, m \\ 0 & [A, B] \end{bmatrix}, \qquad
\min_W \lVert A W^\top - B \rVert^2 + nK (λ₂ \sum W^2 + λ₁ \sum |W|), \qquad b = r_y + m_y - (r_x + m_x) W^\top
```

With λ₁ = 0 that is a linear system (directions that the data do not determine get the shortest solution), otherwise
coordinate descent on AᵀA (`zoo.models.linear.least_squares`), for one λ₁ or a whole path of them. Of sparse rows, such
as bags of words, no factor is made: the pass collects them, and products with them alone lead to the minimum
(`zoo.models.linear.sparse_least_squares`).

Source: Golub & Van Loan, Matrix Computations, 4th ed. 2013, §5.3; Demmel, Grigori, Hoemmen & Langou 2012 (TSQR);
Hoerl & Kennard 1970 (ridge); Friedman, Hastie & Tibshirani 2010 (lasso). Deviation: the loss is a mean over rows and
targets, so that λ does not depend on their number.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError
from zoo.models.base import CollectsRows, GradientModel, StreamingModel
from zoo.models.base.objectives import Regression
from zoo.models.linear.least_squares import elastic_net_path, largest_penalty, solve_least_squares
from zoo.models.linear.sparse_least_squares import SparseProblem, solve_sparse, solve_sparse_elastic_net
from zoo.models.linear.statistics import Statistics
from zoo.numerics.sparse import is_sparse, linear
from zoo.numerics.triangular import column_norms
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LinearRegression", "Path"]


class Path(NamedTuple):
    """Solutions for one penalty after the other.

    Attributes:
        l1: λ₁ of each, falling, (L,).
        weight: coefficients, (L, K, F).
        bias: intercepts, (L, K).
    """

    l1: Tensor
    weight: Tensor
    bias: Tensor


class Errors(NamedTuple):
    """What a solution leaves.

    Attributes:
        residual: √Σ s (y − ŷ)², (K,).
        spread: √Σ s (y − m)², (K,), of the mean m.
        total_weight: n.
        num_rows: rows of a positive weight.
    """

    residual: Tensor
    spread: Tensor
    total_weight: float
    num_rows: int


@register_model(
    "linear_regression",
    family="linear",
    accepts={"tabular": "value"},
    source="Golub & Van Loan 2013, §5.3",
)
class LinearRegression(CollectsRows, StreamingModel, GradientModel):
    """Linear regression by gradient steps, or exactly in one streaming pass; ridge, lasso and elastic net.

    The penalties are `regularization=l2`, `l1` and `elastic_net`, or `l2` and `l1` of `zoo.fit`.

    Args:
        solver: `gradient` or `exact`.
        fit_intercept: whether there is an intercept b; it is not penalized.
        positive: whether all coefficients must be 0 or more, for the exact solver.
        max_iter: rounds of coordinate descent at most, where there is an L1 penalty or a sign constraint; of sparse
            rows, as bags of words are, steps of conjugate gradients or L-BFGS.

    Raises:
        ZooError: if `max_iter` is below 1, or signs are constrained with `gradient`.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(6.0).reshape(6, 1)
        >>> model = zoo.fit(zoo.create_model("linear_regression"), x, 3 * x[:, 0] + 1)
        >>> model.weight.round(decimals=6).tolist(), model.bias.round(decimals=6).tolist()
        ([[3.0]], [1.0])
    """

    objective: Regression
    factor: Tensor
    reference: Tensor
    total_weight: Tensor
    num_rows: Tensor

    convex = True
    takes_single = True

    needs = {"max_iter": {"solver": ("exact",)}}

    def __init__(
        self,
        *,
        solver: Literal["gradient", "exact"] = "exact",
        fit_intercept: bool = True,
        positive: bool = False,
        max_iter: int = 1000,
    ) -> None:
        super().__init__()
        check_range("max_iter", max_iter, 1)
        if positive and solver == "gradient":
            raise ZooError("model.positive=true needs model.solver=exact: gradient steps keep no sign.")
        self.save_hyperparameters()
        self.streaming = solver == "exact"

    def initialize(self, spec: DataSpec) -> None:
        num_features, num_targets = spec.num_features, spec.num_targets
        dtype = torch.float64 if self.streaming else None
        self.linear = nn.Linear(num_features, num_targets, bias=self.hparams.fit_intercept, dtype=dtype)
        if self.streaming:
            self.linear.requires_grad_(False)
            for parameter in self.linear.parameters():
                nn.init.zeros_(parameter)
            self.takes_sparse = spec.sparse
            if spec.sparse:
                self.collect(num_features, num_targets, sparse=True)
            else:
                for name, value in Statistics.of_none(num_features, num_targets)._asdict().items():
                    self.register_accumulator(name, value)
            self.register_buffer("residual_std", torch.full((num_targets,), float("nan"), dtype=torch.float64))
            self.register_buffer("num_iter", torch.zeros(num_targets, dtype=torch.int64))

    @property
    def weight(self) -> Tensor:
        """Coefficients W, (K, F), in units of the targets."""
        return self.objective.in_units(self.linear.weight.T, shifted=False).T

    @property
    def bias(self) -> Tensor:
        """Intercepts b, (K,), in units of the targets."""
        bias = self.linear.weight.new_zeros(len(self.linear.weight)) if self.linear.bias is None else self.linear.bias
        return self.objective.in_units(bias)

    def forward(self, x: Tensor) -> Tensor:
        if is_sparse(x):
            return linear(x, self.linear.weight, self.linear.bias)
        return self.linear(x.to(self.linear.weight.dtype))  # (B, K)

    # -- the pass ------------------------------------------------------------------------------------------------

    @property
    def statistics(self) -> Statistics:
        """What is known of the rows of the pass."""
        return Statistics(self.factor, self.reference, self.total_weight, self.num_rows)

    def accumulate(self, batch: Batch) -> None:
        assert batch.y is not None
        if self.takes_sparse:
            super().accumulate(batch)
            return
        y = batch.y.reshape(len(batch.x), self.linear.out_features)
        weight = None if batch.weight is None else batch.weight.double()
        for name, value in self.statistics.add(batch.x, y, weight)._asdict().items():
            setattr(self, name, value)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes: their factors are stacked, or their sparse rows."""
        if self.takes_sparse:
            return super().merge(states)
        return functools.reduce(Statistics.merge, (Statistics(**state) for state in states))._asdict()

    # -- the solution --------------------------------------------------------------------------------------------

    def solve(self) -> dict[str, float | Tensor]:
        w, bias, rank, errors = self._solve_sparse() if self.takes_sparse else self._solve_factor()
        if not bool(w.isfinite().all()):
            raise ZooError(
                "The coefficients of linear_regression are too large for float64: the features are tiny beside the "
                "targets. Scale them first, as standardize=true does."
            )
        self.linear.weight.copy_(w.T)
        if self.linear.bias is not None:
            self.linear.bias.copy_(bias)
        residual, spread, total_weight, num_rows = errors
        self.residual_std = residual / max(1, num_rows - rank - int(self.hparams.fit_intercept)) ** 0.5
        return {
            "mse": (residual / total_weight**0.5).square().mean(),
            "r2": (1 - (residual / torch.where(spread > 0, spread, 1.0)).square()).mean(),
            "residual_std": self.residual_std.mean(),
        }

    def _solve_factor(self) -> tuple[Tensor, Tensor, int, Errors]:
        """Coefficients (F, K), intercepts (K,), how many coefficients are determined, and the errors that are left."""
        if not self.num_rows:
            raise ZooError("There is no row with a positive weight to fit linear_regression to.")
        a, b = self._problem()
        scale = float(self.total_weight) * b.shape[1]
        if self.recipe.l1 or self.hparams.positive:
            penalties = [(self.recipe.l1 * scale / 2, self.recipe.l2 * scale)]
            options = {"positive": self.hparams.positive, "max_rounds": self.hparams.max_iter}
            w, rounds, converged = next(elastic_net_path(a, b, penalties, **options))
            self.num_iter, rank = self.num_iter.new_tensor(rounds), int((w != 0).any(1).sum())
            if not converged:
                self._warn("rounds: raise model.max_iter.")
        else:
            w, rank = solve_least_squares(a, b, self.recipe.l2 * scale)
        spread = column_norms(self.factor[1:, -len(w.T) :])
        errors = Errors(column_norms(b - a @ w), spread, float(self.total_weight), int(self.num_rows))
        return w, self._bias(w), rank, errors

    def _solve_sparse(self) -> tuple[Tensor, Tensor, int, Errors]:
        """The same from rows that were collected, whose features are taken for independent."""
        rows, recipe, hp = self.take(), self.recipe, self.hparams
        y, total = rows.y.view(len(rows.y), -1), float(rows.weight.sum())
        problem = SparseProblem.of(rows.x, y, rows.weight, intercept=hp.fit_intercept)
        scale = total * y.shape[1]
        if recipe.l1 or hp.positive:
            penalties = recipe.l1 * scale / 2, recipe.l2 * scale
            found = solve_sparse_elastic_net(problem, *penalties, positive=hp.positive, max_steps=hp.max_iter)
        else:
            found = solve_sparse(problem, recipe.l2 * scale, hp.max_iter)
        w, steps, converged = found
        self.num_iter = torch.full_like(self.num_iter, steps)
        if not converged:
            self._warn("steps: raise model.max_iter, or set regularization=l2.")
        spread = column_norms(problem.root * (y - rows.weight @ y / total))
        errors = Errors(column_norms(problem.target - problem.times(w)), spread, total, len(y))
        return w, problem.bias(w), int((w != 0).any(1).sum()), errors

    def _warn(self, what: str) -> None:
        warnings.warn(
            f"linear_regression has not converged in {self.hparams.max_iter} {what}", NotConverged, stacklevel=4
        )

    def path(self, num: int = 100, ratio: float = 1e-3, *, l1: float = 1.0, l2: float = 0.0) -> Path:
        """Solve for a whole path of penalties from the statistics of the pass that was made, (λ₁, λ₂) ∝ (l1, l2).

        Args:
            num: L, how many penalties, equally far apart in their logarithms.
            ratio: the least λ₁ beside the largest, which is the least that leaves no coefficient.
            l1: share of λ₁, above 0.
            l2: share of λ₂; 0 is the lasso.

        Raises:
            ZooError: if an argument is out of range, or the exact solver has made no pass.

        Example:
            >>> import torch, zoo
            >>> x = torch.tensor([[0.0, 1.0], [1.0, -1.0], [2.0, 0.0], [3.0, 0.0]])
            >>> path = zoo.fit(zoo.create_model("linear_regression"), x, 3 * x[:, 0] + x[:, 1]).path(3, 0.01)
            >>> path.weight.squeeze(1).round(decimals=2).tolist()
            [[0.0, 0.0], [2.53, 0.07], [2.95, 0.91]]
        """
        check_range("path's num", num, 1)
        check_range("path's ratio", ratio, 0, 1, open_low=True)
        check_range("path's l1", l1, 0, open_low=True)
        check_range("path's l2", l2, 0)
        if self.takes_sparse:
            raise ZooError(
                "A path needs the factor of dense rows, and sparse ones have none: fit each penalty by itself."
            )
        if not self.streaming or self.spec is None or not self.num_rows:
            raise ZooError(
                "A path needs the statistics of a pass: fit linear_regression with model.solver=exact first."
            )
        a, b = self._problem()
        largest = largest_penalty(a, b, positive=self.hparams.positive) or torch.finfo(b.dtype).tiny
        scale = float(self.total_weight) * b.shape[1]
        steps = torch.linspace(0, 1, num, dtype=torch.float64, device=b.device)
        penalties = largest * ratio**steps  # λ of ½ ‖A W − B‖², (L,)
        pairs = [(value, 2 * value * l2 / l1) for value in penalties.tolist()]
        options = {"positive": self.hparams.positive, "max_rounds": self.hparams.max_iter}
        found = [w for w, *_ in elastic_net_path(a, b, pairs, **options)]
        bias = torch.stack([self._bias(w) for w in found])
        return Path(2 * penalties / scale, torch.stack([w.T for w in found]), bias)

    def _problem(self) -> tuple[Tensor, Tensor]:
        """A (M, F) and B (M, K), of which ‖A W − B‖ is that of the rows."""
        return self.statistics.problem(self.linear.in_features, self.hparams.fit_intercept)

    def _bias(self, w: Tensor) -> Tensor:
        """The intercepts that belong to coefficients (F, K), (K,)."""
        return self.statistics.intercepts(w) if self.hparams.fit_intercept else w.new_zeros(w.shape[1])

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        assert self.spec is not None
        targets = [f"of {name}" for name in self.spec.target_names or range(len(self.weight))]
        standardized = self.preprocessing is not None and self.preprocessing.scaling is not None
        yield "coefficients", visual.coefficients(self.weight, self.spec, targets, standardized)
        if self.streaming and not self.takes_sparse and self.recipe.l1 and self.num_rows:
            path = self.path(l1=self.recipe.l1, l2=self.recipe.l2)
            yield "path", visual.coefficient_path(path.l1, path.weight, self.spec, chosen=self.recipe.l1)
