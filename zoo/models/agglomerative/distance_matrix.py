r"""All distances of N points at once: the square matrix that most linkages work on, and SciPy's condensed form of it.

```math
\lVert a - b \rVert^2 = \lVert a \rVert^2 + \lVert b \rVert^2 - 2\, a^\top b
```

is one matrix product, and its rounding error is absolute: near points far from the origin lose all digits. So the rows
are centred, and what comes out too small to be trusted is computed anew, from differences.

Legend: N points of F features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.distances import Metric, euclidean_rows, from_squared, is_euclidean, metric_name, pairwise_distances

__all__ = ["SMALL", "condense", "distance_matrix", "empty_square", "matrix_copy", "unfold"]

SMALL = 1 << 25  # multiplications up to which all distances are taken from differences, so that ties stay ties
_CHUNK = 1 << 18  # numbers a block holds: 2 MB of float64, to stay in the cache


def distance_matrix(x: Tensor, metric: Metric = "euclidean") -> Tensor:
    """All pairs of rows as one exactly symmetric float64 matrix (N, N) with infinity on its diagonal.

    Raises:
        ZooError: where N x N numbers do not fit in memory.
    """
    matrix, x = empty_square(len(x), x.device), x.double()
    if is_euclidean(metric) and len(x) ** 2 * x.shape[1] > SMALL:
        metric = metric_name(metric)
        _fill_squared(matrix, euclidean_rows(x, metric), metric)
    else:
        rows = max(1, _CHUNK // max(1, len(x)))
        for start in range(0, len(x), rows):
            matrix[start : start + rows] = pairwise_distances(x[start : start + rows], x, metric)
        matrix.copy_(torch.minimum(matrix, matrix.T))
    matrix.fill_diagonal_(math.inf)
    return matrix


def _fill_squared(matrix: Tensor, x: Tensor, metric: str) -> None:
    """Fills the lower blocks by a matrix product and mirrors them."""
    x = x - x.mean(0)
    norm = x.square().sum(1)
    one = torch.ones_like(norm)
    left = torch.stack([*(-2 * x).T, norm, one], 1)  # (N, F + 2)
    right = torch.stack([*x.T, one, norm], 1)
    largest = float(norm.amax())
    rows = min(len(x), max(64, _CHUNK // len(x)))
    for start in range(0, len(x), rows):
        stop = min(start + rows, len(x))
        block = matrix[start:stop, :stop]
        torch.mm(left[start:stop], right[:stop].T, out=block)
        _repair(block, x, start, 1e-5 * (norm[start:stop] + largest))
        if metric == "euclidean":
            block.sqrt_()
        elif metric != "sqeuclidean":
            block.copy_(from_squared(block, metric))
        matrix[:start, start:stop] = block[:, :start].T
        corner = matrix[start:stop, start:stop]
        corner.copy_(torch.minimum(corner, corner.T))


def _repair(block: Tensor, x: Tensor, start: int, trusted: Tensor) -> None:
    """Computes anew, from differences, the rows with a squared distance too small for the product to be right."""
    index = torch.arange(len(block), device=x.device)
    block[index, start + index] = math.inf
    doubtful = (block.amin(1) < trusted).nonzero()[:, 0]
    if len(doubtful):
        exact = torch.cdist(x[start + doubtful], x[: block.shape[1]], compute_mode="donot_use_mm_for_euclid_dist")
        block[doubtful] = exact.square_()


def empty_square(size: int, device: torch.device) -> Tensor:
    """An uninitialised float64 (size, size) matrix; on the CPU from NumPy, which asks the kernel for huge pages."""
    try:
        if device.type == "cpu":
            import numpy

            return torch.from_numpy(numpy.empty((size, size)))
        return torch.empty(size, size, dtype=torch.float64, device=device)
    except (MemoryError, RuntimeError) as error:
        need = f"{size} x {size} distances take {8e-9 * size**2:.0f} GB, more than there is"
        raise ZooError(f"{need}: take linkage 'ward' or 'single', whose memory is linear, or fewer rows") from error


def unfold(condensed: Tensor) -> Tensor:
    """The square matrix (N, N), infinity on its diagonal, of SciPy's condensed form (N (N - 1) / 2,).

    >>> unfold(torch.tensor([1.0, 2.0, 3.0]))[0]
    tensor([inf, 1., 2.], dtype=torch.float64)
    """
    size = (1 + math.isqrt(1 + 8 * len(condensed))) // 2
    if size * (size - 1) // 2 != len(condensed):
        raise ZooError(
            f"{len(condensed)} condensed distances belong to no number of points: pass N (N - 1) / 2 of them"
        )
    matrix = empty_square(size, condensed.device).fill_(math.inf)
    row, column = torch.triu_indices(size, size, 1, device=condensed.device)
    matrix[row, column] = matrix[column, row] = condensed.double()
    return matrix


def condense(matrix: Tensor) -> Tensor:
    """The upper triangle of a square matrix row by row, SciPy's condensed form (N (N - 1) / 2,).

    >>> condense(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    tensor([1.])
    """
    row, column = torch.triu_indices(len(matrix), len(matrix), 1, device=matrix.device)
    return matrix[row, column]


def matrix_copy(matrix: Tensor) -> Tensor:
    """A float64 copy of a square matrix with infinity on its diagonal, for a space to consume.

    It is exactly symmetric, by the upper triangle: what rounding tells apart sends the search for pairs in a circle.
    """
    copy = empty_square(len(matrix), matrix.device)
    copy.copy_(matrix)
    for start in range(0, len(copy), 1024):
        rows = slice(start, start + 1024)
        copy[rows, :start] = copy[:start, rows].T
        copy[rows, rows] = copy[rows, rows].triu() + copy[rows, rows].triu(1).T
    return copy.fill_diagonal_(math.inf)
