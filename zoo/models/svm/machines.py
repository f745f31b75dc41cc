"""Linear machines of rows in memory: what the rows ask of each, and the solution of all of them.

Legend: N rows, F features, P = F + 1 weights (that of the constant feature last), C classes, K machines.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import warn_of_faint
from zoo.kernels import finite_newton as compiled
from zoo.models.svm.coordinate_descent import dual_descent
from zoo.models.svm.dual import classification, regression
from zoo.models.svm.kernels import check_squares
from zoo.models.svm.primal import shortfall
from zoo.numerics.sparse import column_squares, dense_rows, linear, stored

__all__ = ["Machines", "by_dual", "by_newton", "class_costs", "objective", "signs"]

_FEW_PRODUCTS = 1 << 24  # of all numbers with all rows or features, some milliseconds' worth


class Machines(NamedTuple):
    """The solution of K machines.

    Attributes:
        weight: w, with that of the constant feature last, (K, P).
        value: objective of each, (K,); of the dual's solution None.
        norm: of its gradient, (K,); of the dual's solution None.
        iterations: passes or rounds over the rows of each, (K,).
        converged: whether each stopped where it should, (K,).
        beta: the coefficients of the rows, (K, N), of the dual's solution.
    """

    weight: Tensor
    value: Tensor | None
    norm: Tensor | None
    iterations: Tensor
    converged: Tensor
    beta: Tensor | None = None


def signs(y: Tensor, num_classes: int) -> Tensor:
    """Return ±1 for each machine, (N, K): one for two classes, else one a class.

    Example:
        >>> signs(torch.tensor([0, 2]), 3).tolist()
        [[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    if num_classes == 2:
        return (2.0 * y - 1)[:, None].double()
    return torch.where(y[:, None] == torch.arange(num_classes, device=y.device), 1.0, -1.0).double()


def class_costs(y: Tensor, class_weight: Tensor) -> Tensor:
    """Return c of each row in each machine, (N, K): of more than two classes the rest has no weight.

    Example:
        >>> class_costs(torch.tensor([0, 2]), torch.tensor([4.0, 5.0, 6.0])).tolist()
        [[4.0, 1.0, 1.0], [1.0, 1.0, 6.0]]
    """
    own = class_weight[y][:, None]
    return own if len(class_weight) == 2 else torch.where(signs(y, len(class_weight)) > 0, own, 1.0)


def by_newton(
    x: Tensor, target: Tensor, cost: Tensor, epsilon: float | None, *, constant: float, penalized: bool, tol: float,
    max_iter: int,
) -> Machines | None:  # fmt: skip
    """Solve machines with squared losses in one call of the compiled kernel.

    None says that there is none, or that it found no solution: passes over the rows (`primal.py`) find it, or say why.

    Args:
        x: rows, (N, F), float64; few sparse ones are made dense, of which the kernel is quicker.
        target: ±1 or values, (N, K).
        cost: C_i, above 0, (N, K).
        epsilon: ε, or None for classes.
        constant: value of the last feature, 0 for none.
        penalized: whether its weight is.
        tol: where to stop, as a share of the first gradient's norm.
        max_iter: passes at most.
    """
    if x.numel() * min(x.shape) <= _FEW_PRODUCTS:
        x = dense_rows(x)
    if not compiled.available(x, target.shape[1], penalized=penalized):
        return None
    weight, reach, found = compiled.finite_newton(
        x, target.T, cost.T, constant, penalized, epsilon, tol, max_iter
    )  # fmt: skip
    value, norm, passes, state = found.unbind(1)
    if float(state.min()) < 0:
        return None
    warn_of_faint("svm", reach)
    return Machines(weight, value, norm, passes.long(), state > 0)


def by_dual(
    x: Tensor, target: Tensor, cost: Tensor, epsilon: float | None, *, squared: bool, constant: float, tol: float,
    max_iter: int, order: Tensor,
) -> Machines:  # fmt: skip
    """Solve machines by coordinate descent on their duals; arguments are those of `by_newton`, and two more.

    Args:
        x: rows, dense or sparse.
        squared: whether the loss is squared.
        tol: where to stop: the spread of the slopes, or of values their sum as a share of the first.
        order: of the rows before they are shuffled, (N,).
    """
    check_squares("svm", stored(x))
    warn_of_faint("svm", column_squares(x) * cost.max())
    found = []
    for t, c in zip(target.T, cost.T, strict=True):
        dual = classification(t, c, squared=squared) if epsilon is None else regression(t, c, epsilon, squared=squared)
        found.append(
            dual_descent(
                x, dual, constant=constant, tol=tol, relative=epsilon is not None, max_iter=max_iter, order=order
            )
        )
    weight, beta = (torch.stack(part) for part in ([d.weight for d in found], [d.beta for d in found]))
    rounds, converged = (torch.tensor(part) for part in ([d.rounds for d in found], [d.converged for d in found]))
    return Machines(weight, None, None, rounds, converged, beta)


def objective(
    x: Tensor, target: Tensor, cost: Tensor, epsilon: float | None, weight: Tensor, *, squared: bool, constant: float
) -> Tensor:
    """Return what each machine minimizes at weights (K, P), (K,)."""
    short = shortfall(linear(x, weight[:, :-1], constant * weight[:, -1]), target, epsilon).abs()
    losses = short.square() if squared else short
    return 0.5 * weight.square().sum(1) + (cost * losses).sum(0)
