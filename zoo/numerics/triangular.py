r"""The triangular factor of rows that arrive in batches: all that a least-squares problem needs of them.

```math
\begin{bmatrix} R \\ A \end{bmatrix} = Q' R', \qquad R'^\top R' = R^\top R + A^\top A
```

It says as much of the rows as their Gram matrix, without the square of their condition number. Where that number is
small, the factor is Cholesky's of the Gram matrix, to some 1e-12: half the multiplications, in one pass over the rows.

Source: J. Demmel, L. Grigori, M. Hoemmen and J. Langou, "Communication-optimal parallel and sequential QR and LU
factorizations", 2012 (TSQR); G. Golub and C. Van Loan, "Matrix Computations", 4th ed. 2013, §5.2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["column_norms", "condition_bound", "gram_factor", "qr_update"]

# Letters: M rows of a factor, B rows, C columns.

FEW = 64  # columns up to which calls cost more than sums, and LAPACK's less than torch's
_WELL = 100.0  # condition number, the square of which costs four digits of sixteen


def qr_update(factor: Tensor, rows: Tensor) -> Tensor:
    """Return the triangular factor of `factor` stacked on `rows`, with a non-negative diagonal.

    Args:
        factor: factor of the rows before, (M, C), with M = 0 for none.
        rows: new rows, (B, C).

    Returns:
        The new factor, (min(M + B, C), C).

    Example:
        >>> qr_update(torch.zeros(0, 1), torch.tensor([[3.0], [4.0]]))
        tensor([[5.]])
    """
    factor = torch.linalg.qr(torch.cat([factor, rows]) if len(factor) else rows, mode="r").R
    return factor * torch.where(factor.diagonal() < 0, -1.0, 1.0).unsqueeze(1)


def gram_factor(gram: Tensor) -> Tensor | None:
    """Return the triangular factor of rows with this Gram matrix (C, C); None where that would cost too many digits.

    Units of measurement cost none: the columns are compared at unit length.

    Example:
        >>> gram_factor(torch.tensor([[25.0]])), gram_factor(torch.ones(2, 2))
        (tensor([[5.]]), None)
    """
    if gram.device.type == "cpu" and len(gram) <= FEW:
        return _small_gram_factor(gram.numpy())
    lengths = gram.diagonal().sqrt()
    if not bool(((lengths > 1e-140) & (lengths < 1e140)).all()):
        return None
    unit, failed = torch.linalg.cholesky_ex(gram / torch.outer(lengths, lengths), upper=True)
    if int(failed) or condition_bound(unit) > _WELL * len(unit) ** 0.5:
        return None
    return unit * lengths


def _small_gram_factor(gram: np.ndarray) -> Tensor | None:
    from scipy.linalg.lapack import dpotrf

    lengths = np.sqrt(gram.diagonal())
    if not (len(gram) and float(lengths.min()) > 1e-140 and float(lengths.max()) < 1e140):
        return None
    unit, failed = dpotrf(gram / lengths / lengths[:, None])
    if failed or not _small_condition_bound(unit) <= _WELL * len(unit) ** 0.5:
        return None
    return torch.from_numpy((unit * lengths).astype(gram.dtype, copy=False))


def _small_condition_bound(factor: np.ndarray) -> float:
    from scipy.linalg.lapack import dtrtri

    inverse, failed = dtrtri(factor) if len(factor) else (factor, True)  # of no rows LAPACK prints an error
    return float("inf") if failed else float(np.vdot(factor, factor)) ** 0.5 * float(np.vdot(inverse, inverse)) ** 0.5


def condition_bound(factor: Tensor) -> float:
    """Return a bound of the condition number of a triangular factor (C, C), ‖R‖ ‖R⁻¹‖ in Frobenius' norm.

    Example:
        >>> condition_bound(torch.eye(4))
        4.0
    """
    if factor.device.type == "cpu" and len(factor) <= FEW:
        return _small_condition_bound(factor.numpy())
    if not bool((factor.diagonal() != 0).all()):
        return float("inf")
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=True)
    return float(torch.linalg.vector_norm(factor) * torch.linalg.vector_norm(inverse))


def column_norms(rows: Tensor) -> Tensor:
    """Return the Euclidean norm of each column of (M, C), (C,), where squares would overflow or vanish too.

    Example:
        >>> column_norms(torch.tensor([[3e200, 3e-200], [4e200, 4e-200]], dtype=torch.float64))
        tensor([5.0000e+200, 5.0000e-200], dtype=torch.float64)
    """
    if not len(rows):
        return rows.new_zeros(rows.shape[1])
    largest = rows.abs().amax(0)
    scale = torch.where(largest > 0, largest, 1.0)
    return torch.linalg.vector_norm(rows / scale, dim=0) * scale
