r"""Distances between rows: the metrics, all pairs at once, and cheap lower bounds that a search may trust.

```math
\lVert a - b \rVert^2 = \lVert a \rVert^2 + \lVert b \rVert^2 - 2\, a^\top b
\qquad
\underline{d}(a, b) = (1 - \gamma)(\lVert a \rVert^2 + \lVert b \rVert^2) - 2\, a^\top b \le \lVert a - b \rVert^2
```

The left form is one matrix product, and its rounding error is absolute: near points far from the origin lose all
digits. So `distance_matrix` centres the rows and computes anew, from differences, what came out too small to be
trusted, and `SquaredDistances` uses the product in float32 as a bound alone (right form), deciding by exact
distances.

Legend: A, B rows; N points; F features; Q query rows; K candidates; γ bounds the relative rounding error of a product
over F + 2 terms, 2 (F + 6) ε with the machine epsilon ε (Higham 2002, *Accuracy and Stability of Numerical
Algorithms*, §3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = [
    "METRICS",
    "Metric",
    "SquaredDistances",
    "condense",
    "distance_matrix",
    "pairwise_distances",
    "unfold",
]

Metric = str | Callable[[Tensor, Tensor], Tensor]

METRICS = (
    "euclidean",
    "sqeuclidean",
    "cityblock",
    "chebyshev",
    "cosine",
    "correlation",
    "canberra",
    "braycurtis",
    "hamming",
    "jaccard",
)

_SQUARED = {"euclidean", "sqeuclidean", "cosine", "correlation"}  # functions of the squared Euclidean distance
_SMALL = 1 << 25  # multiplications up to which all distances are taken from differences, so that ties stay ties
_CHUNK = 1 << 18  # numbers a block holds: 2 MB of float64, to stay in the cache


def pairwise_distances(a: Tensor, b: Tensor, metric: Metric = "euclidean") -> Tensor:
    r"""The distance of every row of `a` to every row of `b`, from differences and so exact for near rows too.

    Cosine and correlation distance are taken as $\lVert u - v \rVert^2 / 2$ of the rows scaled to length one
    (for correlation centred first): the usual $1 - u^\top v$ cancels for near-parallel rows.

    Args:
        a: rows (A, F).
        b: rows (B, F).
        metric: one of `METRICS` or a function of (A, F) and (B, F) that returns (A, B).

    Raises:
        ZooError: for an unknown metric, or a row for which it is undefined.

    >>> pairwise_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]], dtype=torch.float64)
    """
    if callable(metric):
        return metric(a, b).double()
    a, b = prepare_rows(a, metric), prepare_rows(b, metric)
    if metric in _SQUARED:
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(a, b, compute_mode=exact)
        return distance if metric == "euclidean" else finish(distance.square(), metric)
    if metric in ("cityblock", "chebyshev"):
        return torch.cdist(a, b, p=1.0 if metric == "cityblock" else math.inf)
    rows = max(1, _CHUNK // max(1, b.numel()))
    return torch.cat([_BROADCAST[metric](part[:, None], b[None]) for part in a.split(rows)])


def prepare_rows(x: Tensor, metric: str) -> Tensor:
    """The rows in float64, scaled (and centred) where the metric is the squared Euclidean distance of such rows."""
    if metric not in METRICS:
        raise ZooError(f"unknown metric {metric!r}: pass one of {', '.join(METRICS)}, 'precomputed', or a function")
    x = x.double()
    if metric == "correlation":
        x = x - x.mean(1, keepdim=True)
    if metric in ("cosine", "correlation"):
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        if not bool((length > 0).all()):
            row = int((length[:, 0] <= 0).nonzero()[0])
            kind = "zero" if metric == "cosine" else "constant"
            raise ZooError(
                f"{metric} distance is undefined for row {row}, which is {kind}: drop it or take another metric"
            )
        x = x / length
    return x


def finish(squared: Tensor, metric: Metric) -> Tensor:
    """Turns squared Euclidean distances of prepared rows into the metric's own."""
    if metric == "euclidean":
        return squared.sqrt()
    return squared / 2 if metric in ("cosine", "correlation") else squared


def is_squared(metric: Metric) -> TypeGuard[str]:
    """Whether the metric is a function of the squared Euclidean distance of the prepared rows."""
    return isinstance(metric, str) and metric in _SQUARED


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0.0)


_BROADCAST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "canberra": lambda a, b: _ratio((a - b).abs(), a.abs() + b.abs()).sum(-1),
    "braycurtis": lambda a, b: _ratio((a - b).abs().sum(-1), (a + b).abs().sum(-1)),
    "hamming": lambda a, b: (a != b).double().mean(-1),
    "jaccard": lambda a, b: _ratio(((a != 0) ^ (b != 0)).double().sum(-1), ((a != 0) | (b != 0)).double().sum(-1)),
}


def distance_matrix(x: Tensor, metric: Metric = "euclidean") -> Tensor:
    """All pairs of rows as one exactly symmetric float64 matrix (N, N) with infinity on its diagonal.

    Raises:
        ZooError: where N x N numbers do not fit in memory.
    """
    matrix = empty_square(len(x), x.device)
    if is_squared(metric) and len(x) ** 2 * x.shape[1] > _SMALL:
        _fill_squared(matrix, prepare_rows(x, metric), metric)
    else:
        rows = max(1, _CHUNK // max(1, len(x)))
        for start in range(0, len(x), rows):
            matrix[start : start + rows] = pairwise_distances(x[start : start + rows], x, metric)
        matrix.copy_(torch.minimum(matrix, matrix.T))
    matrix.fill_diagonal_(math.inf)
    return matrix


def _fill_squared(matrix: Tensor, x: Tensor, metric: Metric) -> None:
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
            block.copy_(finish(block, metric))
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


class SquaredDistances:
    r"""Weighted squared Euclidean distances between centres: exact for given pairs, bounded from below for whole rows.

    ```math
    d(a, b) = \frac{2}{1 / s_a + 1 / s_b} \lVert a - b \rVert^2
    ```

    With sizes s this is Ward's distance between clusters; without, the plain squared distance. Rows are centred, and
    scaled by a power of two, which loses nothing, so that float32 neither overflows nor underflows; `scale`
    turns a distance back.

    Args:
        x: centres (N, F).
        sizes: number of points in each cluster (N,), or None.
    """

    def __init__(self, x: Tensor, sizes: Tensor | None = None) -> None:
        centres = x.double() - x.double().mean(0)
        largest = float(centres.abs().amax()) if centres.numel() else 0.0
        self.scale = 2.0 ** math.frexp(largest * math.sqrt(max(1, x.shape[1])))[1]
        self.centres = centres / self.scale
        self.sizes = sizes
        # A reduced-precision float32 product (TF32, bfloat16) would break the bound.
        low = torch.get_float32_matmul_precision() == "highest"
        dtype = torch.float32 if low else torch.float64
        self.dtype = dtype
        self.gamma = 2 * (x.shape[1] + 6) * torch.finfo(dtype).eps
        self.left, self.right = (factor.to(dtype) for factor in self._factors(self.centres))
        self.inverse = None if sizes is None else (0.5 / sizes).to(dtype)

    def _factors(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        norm = (1 - self.gamma) * centres.square().sum(1, keepdim=True)  # (N, 1)
        one = torch.ones_like(norm)
        return torch.cat([-2 * centres, norm, one], 1), torch.cat([centres, one, norm], 1)  # (N, F + 2)

    def bound(self, rows: Tensor, out: Tensor) -> Tensor:
        """Lower bounds of the distances of `rows` (Q,) to every centre, written to `out` (Q, N)."""
        torch.mm(self.left[rows], self.right.T, out=out)
        if self.inverse is not None:
            out.div_(self.inverse[rows, None] + self.inverse)
        return out

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances of pairs of centres, from differences; the two index tensors broadcast."""
        squared = (self.centres[rows] - self.centres[columns]).square().sum(-1)
        if self.sizes is None:
            return squared
        return squared * (2 / (1 / self.sizes[rows] + 1 / self.sizes[columns]))

    def merge(self, left: Tensor, right: Tensor) -> None:
        """Moves centres `left` to the weighted means of the pairs and puts `right` infinitely far away."""
        assert self.sizes is not None
        assert self.inverse is not None
        a, b = self.sizes[left], self.sizes[right]
        self.centres[left] += (b / (a + b))[:, None] * (self.centres[right] - self.centres[left])
        self.sizes[left] = a + b
        self.inverse[left] = (0.5 / (a + b)).to(self.inverse.dtype)
        self.left[left], self.right[left] = (f.to(self.left.dtype) for f in self._factors(self.centres[left]))
        self.right[right, -1] = math.inf

    def keep(self, rows: Tensor) -> None:
        """Forgets all centres but `rows`."""
        for name in ("centres", "sizes", "left", "right", "inverse"):
            setattr(self, name, getattr(self, name)[rows])
