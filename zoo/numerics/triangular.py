r"""The triangular factor of rows that arrive in batches: all that a least-squares problem needs of them.

```math
\begin{bmatrix} R \\ A \end{bmatrix} = Q' R', \qquad R'^\top R' = R^\top R + A^\top A
```

It says as much of the rows as their Gram matrix, without the square of their condition number.

Source: J. Demmel, L. Grigori, M. Hoemmen and J. Langou, "Communication-optimal parallel and sequential QR and LU
factorizations", 2012 (TSQR).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["column_norms", "qr_update"]

# Letters: M rows of a factor, B rows, C columns.


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
