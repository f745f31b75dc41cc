r"""k-means of sparse rows, of which only what is stored is looked at.

```math
\|x - c\|^2 = \|x\|^2 - 2\, x \cdot c + \|c\|^2
```

Rows stay where they are (a sparse row less the mean is dense), so that the rounding error is some ε of the largest
squared norm. The draws are those of `zoo.models.kmeans.seeding` on the same rows written out.

Letters: B rows of D features, K clusters, R restarts, P points.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.models.kmeans.lloyd import Iterations, is_still, mean_variance, refill
from zoo.numerics.hashing import splitmix64
from zoo.numerics.sparse import sparse_rows

__all__ = ["SparseRows", "sparse_assign", "sparse_lloyd"]


class SparseRows:
    """Rows of a sparse matrix, and what k-means asks of them.

    Args:
        crow: where each row begins in the others, (B + 1,).
        columns: of the values, each once a row.
        values: the numbers that are stored.
        num_features: D.

    Example:
        >>> rows = SparseRows(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([3.0, 4.0]), 2)
        >>> rows[torch.tensor([1, 0])].tolist(), rows.inner(torch.eye(2, dtype=torch.float64)).tolist()
        ([[4.0, 0.0], [0.0, 3.0]], [[0.0, 4.0], [3.0, 0.0]])
    """

    def __init__(self, crow: Tensor, columns: Tensor, values: Tensor, num_features: int) -> None:
        self.crow, self.columns, self.values = crow.long(), columns.long(), values.double()
        self.shape = (len(crow) - 1, num_features)
        self.device = values.device
        self.matrix = sparse_rows(self.crow, self.columns, self.values, self.shape)
        counts = self.crow.diff()
        self.row = torch.arange(self.shape[0], device=self.device).repeat_interleave(counts)
        self.norm = self._row_sums(self.values.square())  # ‖x‖², (B,)
        self.mean = self.values.new_zeros(num_features)  # from where points are measured: these rows are not moved

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows of an index (...), written out (..., D)."""
        flat = index.flatten()
        count = self.crow.diff()[flat]
        place = torch.arange(len(flat), device=self.device).repeat_interleave(count)
        stored = torch.arange(int(count.sum()), device=self.device) + (
            self.crow[flat] - count.cumsum(0) + count
        ).repeat_interleave(count)
        rows = self.values.new_zeros(len(flat), self.shape[1])
        rows.index_put_((place, self.columns[stored]), self.values[stored], accumulate=True)
        return rows.view(*index.shape, self.shape[1])

    def _row_sums(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.shape[0]).index_add_(0, self.row, values)

    @property
    def content(self) -> Tensor:
        """`zoo.numerics.hashing.content_hash` of the rows, to which zeros add nothing, (B,)."""
        bits = self.values.add(0.0).view(torch.int64)
        bits = (bits ^ (bits >> 32)) * (splitmix64(0, torch.arange(self.shape[1], device=self.device)) | 1)[
            self.columns
        ]
        return splitmix64(0, self._row_sums(bits))

    def inner(self, points: Tensor) -> Tensor:
        """Products of points (P, D) with all rows, (P, B)."""
        return (self.matrix @ points.T).T

    def sums(self, label: Tensor, weight: Tensor | None, num_clusters: int) -> Tensor:
        """Σ w x of the rows of each label (B,), and Σ w in the last column, (K, D + 1)."""
        width = self.shape[1] + 1
        weight = torch.ones_like(self.norm) if weight is None else weight
        total = self.values.new_zeros(num_clusters * width)
        total.index_add_(0, label[self.row] * width + self.columns, self.values * weight[self.row])
        total.index_add_(0, label * width + width - 1, weight)
        return total.view(num_clusters, width)


def sparse_assign(rows: SparseRows, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest of the centroids (R, K, D) of each row, and the squared distance to it, both (R, B)."""
    scores = rows.inner(centroids.flatten(0, 1)).view(*centroids.shape[:2], len(rows))
    scores = scores - 0.5 * centroids.square().sum(2, keepdim=True)
    score, label = scores.max(1)
    rounding = 16 * torch.finfo(score.dtype).eps * (rows.norm + rows.norm.max())
    distance = rows.norm - 2 * score
    return label, distance.masked_fill(distance <= rounding, 0.0)


def sparse_lloyd(
    rows: SparseRows,
    centroids: Tensor,
    weight: Tensor | None = None,
    *,
    max_iter: int = 300,
    tolerance: float = 0.0,
    report: Callable[[int, Tensor], None] | None = None,
) -> Iterations:
    """Iterate until the centroids are at rest; an empty cluster goes to the row farthest from all centroids.

    Args:
        rows: B of D features.
        centroids: (R, K, D), float64.
        weight: sample weights (B,), float64.
        max_iter: iterations at most.
        tolerance: Σ‖Δc‖² at which centroids are at rest, as a share of the mean variance of the features.
        report: told of each iteration and the sums of squared distances (R,) that it began with.
    """
    num_clusters = centroids.shape[1]
    total = rows.sums(torch.zeros(len(rows), dtype=torch.int64, device=rows.device), weight, 1)[0]
    limit = tolerance * mean_variance(total, rows.norm.sum() if weight is None else rows.norm @ weight)
    at_rest = torch.zeros(len(centroids), dtype=torch.bool, device=rows.device)
    own_iter = torch.zeros(len(centroids), dtype=torch.int64, device=rows.device)
    for step in range(max_iter):
        label, distance = sparse_assign(rows, centroids)
        if report is not None:
            report(step, distance.sum(1) if weight is None else distance @ weight)
        moments = torch.stack([rows.sums(one, weight, num_clusters) for one in label])
        size = moments[..., -1:]
        means = torch.where(size > 0, moments[..., :-1] / torch.where(size > 0, size, 1.0), centroids)
        empty = (size[..., 0] == 0) & ~at_rest.unsqueeze(1)
        if bool(empty.any()):
            far = (distance if weight is None else distance * (weight > 0)).topk(min(num_clusters, len(rows)), 1)
            means, *_ = refill(means, empty, rows[far.indices], far.values)
        means = torch.where(at_rest.view(-1, 1, 1), centroids, means)
        shift = (means - centroids).square().sum((1, 2))
        own_iter += ~at_rest
        at_rest = at_rest | is_still(shift, means, rows.mean, means.dtype, limit)
        centroids = means
        if bool(at_rest.all()):
            return Iterations(centroids, at_rest, step + 1, own_iter)
    return Iterations(centroids, at_rest, max_iter, own_iter)
