r"""Linear regression: the affine map that comes nearest to the targets in squared error.

```math
\hat y = x W^\top + b, \qquad
J(W, b) = \frac1n \sum_i w_i (y_i - \hat y_i)^2 + λ₂ Σ W² + λ₁ Σ |W|
```

Legend: N rows, F features, K targets, P = 1 + F columns of the design matrix [1, X].

Two solvers. `gradient` takes steps of any optimizer. `exact` takes one streaming pass (λ₁ = 0): each batch is
stacked under the triangular factor R of the rows before it and factored again (TSQR), so that no more than a batch and
R (P + K)² are held, and the condition number of X is never squared as XᵀX would square it:

```math
\begin{bmatrix} R \\ \sqrt{w}\,[1, X, Y] \end{bmatrix} = Q' R', \qquad
R' = \begin{bmatrix} R_{xx} & R_{xy} \\ 0 & R_{yy} \end{bmatrix}, \qquad
R_{xx} \begin{bmatrix} b \\ W^\top \end{bmatrix} = R_{xy}
```

Ridge appends the rows √(nλ₂) I below R_xx. Columns are scaled to unit length before solving, and directions that the
data do not determine get the shortest solution.

Source: Golub & Van Loan, Matrix Computations, 4th ed. 2013, §5.3; Demmel, Grigori, Hoemmen & Langou 2012 (TSQR);
Hoerl & Kennard 1970 (ridge). Deviation: the loss is a mean over rows, so that λ does not depend on their number.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import GradientModel, StreamingModel
from zoo.numerics.triangular import qr_update
from zoo.registry import register_model

__all__ = ["LinearRegression", "solve_least_squares"]


def solve_least_squares(r: Tensor, num_targets: int, ridge: float = 0.0) -> tuple[Tensor, Tensor, int]:
    """Solve from the triangular factor of [1, X, Y].

    Args:
        r: factor, (P + K, P + K).
        num_targets: K.
        ridge: penalty on the sum of squared errors; the first column (intercept) is left alone.

    Returns:
        Coefficients (P, K), residual sum of squares (K,) and the numerical rank of [1, X].
    """
    num_columns = len(r) - num_targets
    a, b, rest = r[:num_columns, :num_columns], r[:num_columns, num_columns:], r[num_columns:, num_columns:]
    if ridge:
        penalty = ridge**0.5 * torch.eye(num_columns, dtype=r.dtype, device=r.device)[1:]
        a, b = torch.cat([a, penalty]), torch.cat([b, b.new_zeros(len(penalty), num_targets)])
    scale = torch.linalg.vector_norm(a, dim=0)
    scale = torch.where(scale > 0, scale, 1.0)  # a constant zero column divides by nothing
    u, s, vt = torch.linalg.svd(a / scale, full_matrices=False)
    kept = s > s[0] * max(a.shape) * torch.finfo(s.dtype).eps
    inverse = torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)
    coefficients = vt.T @ (inverse.unsqueeze(1) * (u.T @ b)) / scale.unsqueeze(1)
    residual = r[:num_columns, num_columns:] - r[:num_columns, :num_columns] @ coefficients
    return coefficients, residual.square().sum(0) + rest.square().sum(0), int(kept.sum())


@register_model(
    "linear_regression",
    family="linear",
    task="regression",
    accepts="tabular",
    source="Golub & Van Loan 2013, §5.3",
)
class LinearRegression(StreamingModel, GradientModel):
    """Linear regression by gradient steps, or exactly in one streaming pass; ridge through `regularization=l2`.

    Args:
        solver: `gradient` or `exact`.

    Raises:
        ZooError: if the exact solver is asked for an L1 penalty.

    Example:
        >>> import torch, zoo
        >>> x = torch.arange(6.0).reshape(6, 1)
        >>> model = zoo.fit(zoo.create_model("linear_regression"), x, 3 * x[:, 0] + 1)
        >>> model.weight.round(decimals=6).tolist(), model.bias.round(decimals=6).tolist()
        ([[3.0]], [1.0])
    """

    def __init__(self, *, solver: Literal["gradient", "exact"] = "exact") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.streaming = solver == "exact"

    def initialize(self, spec: DataSpec) -> None:
        columns = 1 + spec.num_features + spec.num_targets
        dtype = torch.float64 if self.streaming else None
        self.linear = nn.Linear(spec.num_features, spec.num_targets, dtype=dtype)
        if self.streaming:
            self.linear.requires_grad_(False)
            self.register_accumulator("r", torch.zeros(columns, columns, dtype=torch.float64))
            self.register_accumulator("total_weight", torch.zeros((), dtype=torch.float64))
            self.register_accumulator("num_rows", torch.zeros((), dtype=torch.int64))
            self.register_buffer("residual_std", torch.full((spec.num_targets,), float("nan"), dtype=torch.float64))

    @property
    def weight(self) -> Tensor:
        """Coefficients W, (K, F)."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor:
        """Intercepts b, (K,)."""
        return self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # (B, K)

    def accumulate(self, batch: Batch) -> None:
        assert batch.y is not None
        if self.recipe.l1:
            raise ZooError("linear_regression's exact solver has no L1 penalty: use model.solver=gradient.")
        rows = torch.cat([torch.ones_like(batch.x[:, :1]), batch.x, batch.y.reshape(len(batch.x), -1)], dim=1)
        if batch.weight is not None:
            rows = rows * batch.weight.sqrt().unsqueeze(1)
        self.r = qr_update(self.r, rows)
        self.total_weight += batch.size if batch.weight is None else batch.weight.sum()
        self.num_rows += batch.size

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        merged = super().merge(states)
        r = states[0]["r"]
        for state in states[1:]:
            r = qr_update(r, state["r"])
        return {**merged, "r": r}

    def solve(self) -> dict[str, float | Tensor]:
        num_targets = len(self.linear.bias)
        ridge = self.recipe.l2 * float(self.total_weight) * num_targets  # the loss is a mean over targets too
        coefficients, rss, rank = solve_least_squares(self.r, num_targets, ridge)
        self.linear.bias.copy_(coefficients[0])
        self.linear.weight.copy_(coefficients[1:].T)
        total = self.r[1:, -num_targets:].square().sum(0)  # the first row of R holds the means
        self.residual_std = (rss / (self.num_rows - rank).clamp_min(1)).sqrt()
        return {
            "mse": rss.mean() / self.total_weight,
            "r2": (1 - rss / torch.where(total > 0, total, 1.0)).mean(),
            "residual_std": self.residual_std.mean(),
        }
