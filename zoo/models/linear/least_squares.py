r"""Least squares from the triangular factor of the rows, with ridge, lasso and sign constraints.

```math
\min_W \tfrac12 \lVert A W - B \rVert^2 + \tfrac{ρ}2 \sum W^2 + λ \sum |W| \quad (W \ge 0)
```

[A, B] is the factor R of [X, Y], which stands for all rows since ‖X W − Y‖ = ‖A W − B‖ for every W. Without λ and
sign constraint the solution comes from A itself, whose condition number is that of X; ridge appends the rows √ρ I. With
them, coordinate descent takes the Gram matrix AᵀA of the columns scaled to unit length, once for all λ of a path.

Legend: M rows of the factor, F features, K targets, L penalties of a path.

Source: Golub & Van Loan 2013, §5.3 and §5.5; Hoerl & Kennard 1970 (ridge); Tibshirani 1996 (lasso); Zou & Hastie 2005
(elastic net); Lawson & Hanson 1974, §23 (W ≥ 0); Friedman, Hastie & Tibshirani 2010 (paths).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.models.linear.quadratic import Supports, minimize_arrays
from zoo.numerics.moments import gram
from zoo.numerics.triangular import column_norms, condition_bound, gram_factor

__all__ = ["elastic_net_path", "largest_penalty", "solve_least_squares"]


def solve_least_squares(a: Tensor, b: Tensor, ridge: float = 0.0) -> tuple[Tensor, int]:
    """Return the shortest W (F, K) of least ‖A W − B‖² + ρ Σ W², and the rank of A.

    Args:
        a: A, (M, F).
        b: B, (M, K).
        ridge: ρ ≥ 0.

    Example:
        >>> a, b = torch.tensor([[3.0], [4.0]]), torch.tensor([[6.0], [8.0]])
        >>> solve_least_squares(a, b)[0], solve_least_squares(a, b, ridge=25.0)[0]
        (tensor([[2.]]), tensor([[1.]]))
    """
    wide = len(a) < a.shape[1]
    if ridge and wide:  # the solution lies in the span of the rows
        span, small = torch.linalg.qr(a.T)
        w, rank = solve_least_squares(small.T, b, ridge)
        return span @ w, rank
    if ridge:
        bent, target = gram(a).to(a.dtype), _or_one(column_norms(b))
        bent.diagonal().add_(ridge)
        if (factor := gram_factor(bent)) is not None:  # which keeps twelve digits
            return torch.cholesky_solve(a.T @ (b / target), factor, upper=True) * target, a.shape[1]
        penalty = ridge**0.5 * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
        a, b = torch.cat([a, penalty]), torch.cat([b, b.new_zeros(len(penalty), b.shape[1])])
    lengths = column_norms(a)
    # Units of measurement decide no rank; of more columns than rows they cannot, and the solution is shortest at once.
    scale = _or_one(lengths.max().expand_as(lengths) if wide else lengths)
    if (found := _of_full_rank(a / scale, b)) is not None:
        return found / scale.unsqueeze(1), min(a.shape)
    u, s, vt = torch.linalg.svd(a / scale, full_matrices=False)
    kept = s > s[:1] * max(a.shape) * torch.finfo(s.dtype).eps
    rank, target = int(kept.sum()), _or_one(column_norms(b))
    inverse = torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)
    w = vt.T @ (inverse.unsqueeze(1) * (u.T @ (b / target))) / scale.unsqueeze(1) * target
    if rank < a.shape[1] and not wide:  # shortest in the columns as they are: the part in the span of the rows
        span = torch.linalg.qr(vt[kept].T * scale.unsqueeze(1)).Q
        w = span @ (span.T @ w)
    return w, rank


def _of_full_rank(a: Tensor, b: Tensor) -> Tensor | None:
    """The shortest W of least ‖A W − B‖² by a QR factorization, a tenth of the work; None where A may lack rank."""
    features, target = a.shape[1], _or_one(column_norms(b))
    if len(a) < features:
        reflections, lengths = torch.geqrf(a.T)  # Q is never made, but R'ᵀ z = b solved and z turned by it
        r = reflections[: len(a)].triu()
        if not _is_definite(r, features):
            return None
        z = torch.linalg.solve_triangular(r.T, b / target, upper=False)
        return torch.ormqr(reflections, lengths, torch.nn.functional.pad(z, (0, 0, 0, features - len(z)))) * target
    if not bool(a.tril(-1).any()):  # a factor already
        r, rotated = a[:features], b[:features] / target
    else:
        q, r = torch.linalg.qr(a)
        rotated = q.T @ (b / target)
    return torch.linalg.solve_triangular(r, rotated, upper=True) * target if _is_definite(r, len(a)) else None


def _is_definite(r: Tensor, size: int) -> bool:
    """Whether a triangular factor of a matrix of that many rows or columns has full rank for certain."""
    return condition_bound(r) * size * torch.finfo(r.dtype).eps < 0.1


def elastic_net_path(
    a: Tensor,
    b: Tensor,
    penalties: Iterable[tuple[float, float]],
    *,
    positive: bool = False,
    start: Tensor | None = None,
    max_rounds: int = 1000,
) -> Iterator[tuple[Tensor, list[int], bool]]:
    """Minimize ½ ‖A W − B‖² + λ Σ|W| + ½ ρ Σ W² for one pair (λ, ρ) after the other, each from the solution before.

    Args:
        a: A, (M, F).
        b: B, (M, K).
        penalties: pairs (λ, ρ), best with falling λ.
        positive: whether W ≥ 0 is demanded.
        start: a first guess, (F, K).
        max_rounds: rounds of coordinate descent at most, for each pair and target.

    Yields:
        W (F, K), the rounds that each target took, and whether all of them converged.

    Example:
        >>> a, b = torch.eye(2).double(), torch.tensor([[3.0], [1.0]]).double()
        >>> path = elastic_net_path(a, b, [(2.0, 0.0), (0.5, 0.0)])
        >>> [w.flatten().round(decimals=6).tolist() for w, *_ in path]
        [[1.0, 0.0], [2.5, 0.5]]
    """
    sizes, both = [a.shape[1], b.shape[1]], torch.cat([a, b], 1)
    lengths = _or_one(column_norms(both))
    both = both / lengths
    length, target = lengths.split(sizes)
    gram, cross = (both[:, : sizes[0]].T @ both).split(sizes, 1)  # (F, F), (F, K)
    # From here on small arrays and many calls: the processor's work, and NumPy's calls cost a quarter of torch's.
    g, c, length, target = (part.cpu().numpy() for part in (gram, cross, length, target))
    w = np.zeros((a.shape[1], b.shape[1])) if start is None else start.cpu().numpy()
    for l1, ridge in penalties:
        hessian, scale = bent_hessian(g, length, ridge)
        pull = c * (length / scale)[:, None]
        fields = Supports(hessian), scale, pull, target, l1, w
        w, rounds, converged = descend(*fields, positive=positive, max_rounds=max_rounds)
        yield torch.from_numpy(w).to(b), rounds, converged


def bent_hessian(gram: np.ndarray, length: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Return G + ρ I in coordinates of unit curvature, (F, F), and what a coefficient is times in them, (F,).

    Args:
        gram: of columns of unit length, (F, F).
        length: that they were divided by, (F,).
        ridge: ρ.
    """
    if not ridge:
        return gram, length
    scale = np.hypot(length, ridge**0.5)
    share = length / scale
    bent = gram * share[:, None]
    bent *= share
    bent.flat[:: len(bent) + 1] += ridge / np.square(scale)
    return bent, scale


def descend(
    hessian: Supports, scale: np.ndarray, pull: np.ndarray, target: np.ndarray, l1: float, start: np.ndarray, *,
    positive: bool, max_rounds: int,
) -> tuple[np.ndarray, list[int], bool]:  # fmt: skip
    """Return W (F, K) of least ½ ⟨W, G W⟩ − ⟨c, W⟩ + λ Σ|W|, the rounds of each target, and whether all converged.

    Args:
        hessian: G in coordinates of unit curvature, (F, F).
        scale: what a coefficient is times in them, (F,).
        pull: c in them, of targets of length one, (F, K).
        target: lengths of the targets, (K,).
        l1: λ.
        start: a first guess, (F, K).
        positive: whether W ≥ 0 is demanded.
        max_rounds: at most.
    """
    above = np.full(len(scale), positive)
    found = [
        minimize_arrays(hessian, -pull[:, k], l1 / scale / size, start[:, k] * (scale / size), above, max_rounds)
        for k, size in enumerate(target)
    ]
    w = np.stack([x for x, *_ in found], 1) / scale[:, None] * target
    return w, [rounds for _, rounds, _ in found], all(converged for *_, converged in found)


def largest_penalty(a: Tensor, b: Tensor, *, positive: bool = False) -> float:
    """Return the least λ for which all of W is zero: the largest |AᵀB|, or the largest AᵀB for W ≥ 0."""
    slope = a.T @ b
    return float((slope if positive else slope.abs()).max().clamp_min(0))


def _or_one(lengths: Tensor) -> Tensor:
    """Lengths to divide by: a column of zeros stays one."""
    return torch.where(lengths > 0, lengths, 1.0)
