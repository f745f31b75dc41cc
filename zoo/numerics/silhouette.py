r"""The silhouette of each row: how much nearer it lies to its own cluster than to the next one.

```math
s_i = \frac{b_i - a_i}{\max(a_i, b_i)}
```

$a_i$ is the mean distance of row i to the other rows of its cluster, $b_i$ the least of its mean distances to the rows
of another cluster; 1 is best, below 0 it would be better off elsewhere. A row alone in its cluster has 0.

Letters: N rows, D features, K clusters, B rows of a chunk.

Source: P. Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.distances import squared_distances

__all__ = ["number_clusters", "silhouette_samples"]

_CHUNK_ELEMENTS = 1 << 22


def silhouette_samples(x: Tensor, labels: Tensor) -> Tensor:
    """Return the silhouette of each row, (N,), exactly, in memory linear in N.

    Args:
        x: rows (N, *shape), floating.
        labels: cluster of each row, (N,), at least two different ones.

    Raises:
        ZooError: if there are not as many labels as rows, or all are equal.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0]])
        >>> silhouette_samples(x, torch.tensor([0, 0, 1]))
        tensor([0.9000, 0.8889, 0.0000])
    """
    clusters, counts = number_clusters(x, labels)
    x, counts = x.flatten(1), counts.to(x.dtype)
    hot = torch.zeros(len(x), len(counts), dtype=x.dtype, device=x.device)
    hot.scatter_(1, clusters.unsqueeze(1), 1.0)  # (N, K)
    size = max(1, _CHUNK_ELEMENTS // len(x))
    parts = []
    for start, rows, own in zip(range(0, len(x), size), x.split(size), clusters.split(size), strict=True):
        distance = squared_distances(rows, x).sqrt_()  # (B, N)
        distance.diagonal(start).zero_()  # a row to itself, which rounding would leave at some 1e-8
        total = distance @ hot  # (B, K)
        index = own.unsqueeze(1)
        within = total.gather(1, index)[:, 0] / (counts[own] - 1).clamp_min(1)
        between = (total / counts).scatter_(1, index, torch.inf).min(1).values
        score = (between - within) / torch.maximum(within, between)
        parts.append(torch.where(counts[own] > 1, score.nan_to_num(0.0), 0.0))
    return torch.cat(parts)


def number_clusters(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cluster of each row numbered without gaps, (N,), and the clusters' sizes, (K,).

    Raises:
        ZooError: if there are not as many labels as rows, or all are equal.
    """
    if labels.dim() != 1 or len(x) != len(labels):
        raise ZooError(
            f"There are {len(x)} rows but labels of shape {tuple(labels.shape)}: pass one label for each row."
        )
    names, clusters, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ZooError(f"A score of clusters needs at least two of them; the labels name {len(names)}.")
    return clusters, counts
