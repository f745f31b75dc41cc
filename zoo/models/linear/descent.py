r"""The least log loss of rows in memory, with a ridge: which method by the shape of the rows, and where it begins.

```math
F(w) = \frac1S \sum_i s_i \,\mathrm{loss}_i + \sum_j \rho_j w_j^2, \qquad
M = \frac1S \sum_i s_i \, \overline{p_{ik} (1 - p_{ik})} \, x_i x_i^\top + 2 \, \mathrm{diag}(\rho)
```

- Newton's method where the Hessians of all passes are few products.
- L-BFGS else, which begins with M⁻¹ in place of a multiple of the identity, M the curvature that the classes have in
  common. A pass then costs no more than the gradient, and correlated columns cost no passes.
- Of many rows some are solved first, every n-th: their minimum is where the search over all begins, with M there, so
  that few passes over all rows are left.
- Where M takes as long as many passes, because there are many columns beside the rows, so many are taken before it.

The minimum is the same, to the tolerance. Rows are standardized, (x − m) / σ with a one behind them for an intercept,
block by block as they are read (`zoo.kernels.log_loss`).

Legend: N rows, F features, P columns (F, or F + 1), K rows of weights (1 or C), S the sum of the weights s.

Source: Byrd, Chin, Neveitt & Nocedal 2011 (Hessians of samples); Böhning 1992 (one curvature for all classes);
Nocedal & Wright 2006, §7.2 (the first matrix of L-BFGS).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.kernels import moments
from zoo.kernels.log_loss import log_loss_minimize
from zoo.numerics.moments import gram
from zoo.numerics.sparse import column_spread, is_sparse, stored
from zoo.numerics.triangular import column_norms

__all__ = [
    "Found",
    "Rows",
    "fit_rows",
    "in_users_units",
    "inverse_scales",
    "location",
    "minimize",
    "ridge_of",
    "units_of",
]

FEW = 2**22  # products of a Hessian, up to which Newton's method is the quickest
PRECISE = 1000  # weights up to which what L-BFGS leaves is as little as Newton's last step does, which squares it
WIDE = 1024  # columns up to which M is of use
SAMPLE = 8  # rows of a sample for each column
SHARE = 16  # of all rows, one in so many
WORTH = 4  # so many samples there must be among all rows
RATE = 12  # how many more products a matrix product makes in a time than a pass
SAMPLE_PASSES = 10  # that the minimum of a sample takes
LEAST_PASSES = 8  # that M must be worth for a search without it to come first
CONSTANT = 2.0**-47  # deviation beside the mean below which a feature varies by rounding alone
_LEAST = 1e-280  # of sums of squares in which none has vanished
SMALLEST = 2.0**-1000  # scale at least: its inverse is a number too


class Rows(NamedTuple):
    """Rows as they are, and how they are standardized.

    Attributes:
        x: (N, F), float64 or float32.
        y: classes, (N,), int64.
        weight: s, (N,), or None for one each.
        class_weight: what losses of each class count times, beside that, (C,), or None.
        shift: m, (F,).
        inverse_scale: 1 / σ, (F,), zero for a feature that does not vary.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None
    class_weight: Tensor | None
    shift: Tensor
    inverse_scale: Tensor


class Found(NamedTuple):
    """Where the search ended.

    Attributes:
        point: weights of standardized rows, (K, P).
        gradient: of F there, (K, P).
        sums: of losses, and of the weights of rows that are put into another class, (2,).
        end: passes, whether it converged, F, and promise and step as of `Minimizer`, (5,); passes are 0 where the
            system of Newton's method was not definite.
    """

    point: Tensor
    gradient: Tensor
    sums: Tensor
    end: Tensor


def location(x: Tensor, weight: Tensor | None, *, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weight of rows (), their mean (F,) and √Σ s (x − m)² (F,); both about zero unless `centred`.

    Args:
        x: rows, (N, F), dense or sparse.
        weight: s, (N,) float64; one each by default. What weighs nothing may hold anything.
        centred: whether about the mean.
    """
    if not is_sparse(x) and moments.available(x):
        total, middle, squares = moments.moments(x, None, weight, squares=True)
        if not centred:
            squares, middle = squares + total * middle.square(), torch.zeros_like(middle)
        if bool(((squares > _LEAST) & (squares < 1 / _LEAST)).all()):  # no square has vanished or overflown
            return total, middle, squares.sqrt()
    if not is_sparse(x):
        x = x.double()
    ones = stored(x).new_ones(())
    total = ones * len(x) if weight is None else weight.sum()
    middle = ones.new_zeros(x.shape[1])
    if centred and total > 0:
        if weight is None and is_sparse(x):
            weight = middle.new_ones(len(x))
        middle = x.mean(0) if weight is None else weight @ x / total
    if is_sparse(x):
        return total, middle, column_spread(x, middle, weight)
    rows = x - middle
    if weight is not None:
        rows = torch.where(weight.unsqueeze(1) > 0, rows, 0.0) * weight.sqrt().unsqueeze(1)
    return total, middle, column_norms(rows)


def inverse_scales(mean: Tensor, deviation: Tensor, l2: float) -> Tensor:
    """Return 1 / σ of each feature, (F,), with the penalty's curvature, so that F bends about equally in all."""
    scale = torch.hypot(deviation, deviation.new_tensor(8 * l2).sqrt()).clamp_min(SMALLEST)
    return torch.where(deviation > CONSTANT * mean.abs(), 1 / scale, 0.0)


def ridge_of(l2: float, inverse_scale: Tensor) -> Tensor:
    """Return λ₂ of standardized weights, (F,); a feature that does not vary is held at zero."""
    return torch.where(inverse_scale > 0, (l2**0.5 * inverse_scale).square(), 1.0)


def units_of(shift: Tensor, inverse_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift of each feature, (F,), zero for one that does not vary."""
    varies = inverse_scale > 0
    scale = torch.where(varies, 1 / torch.where(varies, inverse_scale, 1.0), 0.0)
    return scale, torch.where(varies, shift, 0.0)


def fit_rows(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    *,
    outputs: int,
    l2: float,
    start: tuple[Tensor, Tensor | None] | None = None,
    fit_intercept: bool = True,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return weights (K, F), intercepts (K,) and `Found.end`; None where that is left to a slower way.

    Args:
        x: (N, F), float64 or float32, on a CPU.
        y: classes, (N,), int64.
        weight: (N,), float64, or None for one each.
        outputs: K, 1 or the number of classes.
        l2: λ₂.
        start: weights and intercepts to begin from; zeros by default.
        fit_intercept: whether there is an intercept.
        **options: `tolerance`, `limit`, `max_passes` and `method` of `minimize`.
    """
    total, shift, spread = location(x, weight, centred=fit_intercept)
    if not bool((total > 0) & torch.isfinite(shift + spread).all()):
        return None
    inverse_scale = inverse_scales(shift, spread / total.sqrt(), l2)
    rows = Rows(x, y, weight, None, shift, inverse_scale)
    features = x.shape[1]
    point = shift.new_zeros(outputs, features + int(fit_intercept))
    ridge = torch.zeros_like(point)
    ridge[:, :features] = ridge_of(l2, inverse_scale)
    if start is not None:
        point[:, :features] = start[0] * units_of(shift, inverse_scale)[0]
        if start[1] is not None:
            point[:, features] = start[1] + start[0] @ shift
    found = minimize(rows, point, ridge, total=float(total), **options)
    if not found.end[0]:
        return None
    return *in_users_units(found.point, shift, inverse_scale), found.end


def in_users_units(
    point: Tensor, shift: Tensor, inverse_scale: Tensor, free: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Return weights (K, F) and intercepts (K,) of rows as they are; of all that softmax cannot tell apart, of sum 0.

    Args:
        point: weights of standardized rows, (K, P), changed in place.
        shift: m, (F,).
        inverse_scale: 1 / σ, (F,).
        free: columns to which softmax lets one number be added for all classes at no cost.
    """
    if len(point) > 1:
        point[:, free] -= point[:, free].mean(0)
    weight = point[:, : len(shift)] * inverse_scale
    if point.shape[1] == len(shift):
        return weight, weight.new_zeros(len(weight))
    bias = point[:, -1] - weight @ shift
    return weight, bias - bias.mean() if len(bias) > 1 else bias


def minimize(
    rows: Rows,
    start: Tensor,
    ridge: Tensor,
    *,
    total: float,
    tolerance: float,
    limit: float | None,
    max_passes: int,
    method: str = "auto",
) -> Found:
    """Return the least F, by compiled code.

    Args:
        rows: the rows.
        start: first weights, (K, P).
        ridge: ρ, (K, P).
        total: S.
        tolerance: as of `Minimizer`.
        limit: the search ends, too, where no derivative in the user's units is above this.
        max_passes: over all rows, at most.
        method: `newton`, `lbfgs`, or `auto` for what the shape of the rows calls for.
    """
    search = functools.partial(_search, rows, ridge=ridge, total=total, limit=limit)
    if method != "auto" or _is_small(rows, start):
        return search(start, newton=method != "lbfgs", tolerance=tolerance, max_passes=max_passes)
    if start.numel() <= PRECISE:
        tolerance = tolerance**1.5
    passes, few = 0, min(max_passes, _worth_of_factor(rows, start))
    if few >= LEAST_PASSES:
        found = search(start, tolerance=tolerance, max_passes=few)
        if found.end[1] or few == max_passes:
            return found
        passes, start = few, found.point
    start, factor = _approach(rows, start, ridge)
    found = search(start, factor=factor, tolerance=tolerance, max_passes=max_passes - passes)
    found.end[0] += passes
    return found


def _worth_of_factor(rows: Rows, start: Tensor) -> int:
    """How many passes take about as long as M and its factor; as both, and the search between, where some rows are."""
    (outputs, columns), count = start.shape, len(rows.x)
    if columns > WIDE:
        return 2**62
    some = _sample_size(rows, columns)
    one = columns * (some / count + 2 * columns / (3 * count)) / (RATE * outputs)
    return int(one if some == count else 2 * one + SAMPLE_PASSES * some / count)


def _sample_size(rows: Rows, columns: int) -> int:
    """How many rows a sample has; all of them where it would not be worth its while."""
    size = max(SAMPLE * columns, len(rows.x) // SHARE)
    return len(rows.x) if WORTH * size > len(rows.x) else size


def _is_small(rows: Rows, start: Tensor) -> bool:
    return len(rows.x) * start.numel() ** 2 <= FEW


def _search(
    rows: Rows,
    start: Tensor,
    *,
    ridge: Tensor,
    total: float,
    tolerance: float,
    limit: float | None,
    max_passes: int,
    factor: Tensor | None = None,
    newton: bool = False,
) -> Found:
    fields = rows.x, rows.shift, rows.inverse_scale, rows.y, rows.weight, rows.class_weight
    found = log_loss_minimize(
        *fields, start, ridge, units_of(rows.shift, rows.inverse_scale), factor=factor, total=total, newton=newton,
        tolerance=tolerance, limit=limit, max_passes=max_passes,
    )  # fmt: skip
    return Found(*found)


def _approach(rows: Rows, start: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where the search over all rows begins, (K, P), and the factor of M there."""
    size = _sample_size(rows, start.shape[1])
    if size == len(rows.x):
        return start, _factor(rows, start, ridge)
    step = len(rows.x) // size
    some = rows._replace(
        x=rows.x[::step], y=rows.y[::step], weight=None if rows.weight is None else rows.weight[::step]
    )
    total = float(len(some.x) if some.weight is None else some.weight.sum())
    if not total > 0:
        return start, None
    if bool(start.any()):  # it comes from a fit before
        return start, _factor(some, start, ridge)
    newton = _is_small(some, start)
    first = None if newton else _factor(some, start, ridge)
    # The minimum of a sample is off by about the root of columns beside rows, and need not be known any better.
    found = _search(
        some, start, ridge=ridge, total=total, tolerance=1e-2 * start.shape[1] / size, limit=None, max_passes=30,
        factor=first, newton=newton,
    )  # fmt: skip
    if not found.end[0] or not bool(found.point.isfinite().all()):
        return start, _factor(some, start, ridge)
    return found.point, _factor(some, found.point, ridge)


def _factor(rows: Rows, point: Tensor, ridge: Tensor) -> Tensor | None:
    """The lower factor of M (P, P), None where it is not definite."""
    features = rows.x.shape[1]
    design = point.new_ones(len(rows.x), point.shape[1])
    torch.sub(rows.x, rows.shift, out=design[:, :features]).mul_(rows.inverse_scale)
    z = design @ point.T
    p = z.sigmoid() if len(point) == 1 else z.softmax(1)
    bend = (p * (1 - p)).mean(1)  # (N,)
    mass = torch.ones_like(bend) if rows.weight is None else rows.weight
    if rows.class_weight is not None:
        mass = mass * rows.class_weight[rows.y]
    bend *= mass / (len(rows.x) if rows.weight is None else rows.weight.sum())
    curvature = gram(design.mul_(bend.sqrt().unsqueeze(1)))
    # What hardly varies in a sample may do so in all rows, where it has a deviation of one.
    diagonal = curvature.diagonal()
    diagonal += (bend.sum() - 4 * diagonal).clamp_min(0) + 2 * ridge.mean(0)
    factor, failed = torch.linalg.cholesky_ex(curvature)
    return None if int(failed) else factor
