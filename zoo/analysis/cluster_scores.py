r"""How good a clustering is, without a truth to compare it with.

```math
s_i = \frac{b_i - a_i}{\max(a_i, b_i)}, \qquad
DB = \frac{1}{K} \sum_k \max_{l \ne k} \frac{S_k + S_l}{\|c_k - c_l\|}
```

Silhouette: $a_i$ is the mean distance of row i to the other rows of its cluster, $b_i$ the least of its mean distances
to the rows of another cluster; 1 is best, below 0 it would be better off elsewhere. Davies-Bouldin: $S_k$ is the mean
distance of the rows of cluster k to their mean $c_k$; 0 is best.

Letters: N rows, D features, K clusters, B rows of a chunk.

Sources: P. Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987;
D. Davies and D. Bouldin, "A cluster separation measure", 1979.

Deviations: none; a row alone in its cluster has silhouette 0, as in the source, and of two clusters with one and the
same mean Davies-Bouldin leaves the pair out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.kmeans.assignment import pairwise_distance

__all__ = ["davies_bouldin_score", "elbow", "silhouette_samples", "silhouette_score"]

_CHUNK_ELEMENTS = 1 << 22


def silhouette_samples(x: Tensor, labels: Tensor) -> Tensor:
    """Return the silhouette of each row, (N,), exactly, in memory linear in N.

    Args:
        x: rows (N, *shape).
        labels: cluster of each row, (N,), at least two different ones.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0]])
        >>> silhouette_samples(x, torch.tensor([0, 0, 1]))
        tensor([0.9000, 0.8889, 0.0000])
    """
    x, clusters, counts = _grouped(x, labels)
    hot = torch.zeros(len(x), len(counts), dtype=x.dtype, device=x.device)
    hot.scatter_(1, clusters.unsqueeze(1), 1.0)  # (N, K)
    size = max(1, _CHUNK_ELEMENTS // len(x))
    parts = []
    for start, rows, own in zip(range(0, len(x), size), x.split(size), clusters.split(size), strict=True):
        distance = pairwise_distance(rows, x)  # (B, N)
        distance.diagonal(start).zero_()  # a row to itself, which rounding would leave at some 1e-8
        total = distance @ hot  # (B, K)
        index = own.unsqueeze(1)
        within = total.gather(1, index)[:, 0] / (counts[own] - 1).clamp_min(1)
        between = (total / counts).scatter_(1, index, torch.inf).min(1).values
        score = (between - within) / torch.maximum(within, between)
        parts.append(torch.where(counts[own] > 1, score.nan_to_num(0.0), 0.0))
    return torch.cat(parts)


def silhouette_score(x: Tensor, labels: Tensor) -> Tensor:
    """Return the mean silhouette over all rows, ().

    Args:
        x: rows (N, *shape).
        labels: cluster of each row, (N,), at least two different ones.

    Example:
        >>> round(silhouette_score(torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 0, 1])).item(), 4)
        0.5963
    """
    return silhouette_samples(x, labels).mean()


def davies_bouldin_score(x: Tensor, labels: Tensor) -> Tensor:
    """Return the Davies-Bouldin index, ().

    Args:
        x: rows (N, *shape).
        labels: cluster of each row, (N,), at least two different ones.

    Example:
        >>> davies_bouldin_score(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
        tensor(0.2000)
    """
    x, clusters, counts = _grouped(x, labels)
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, clusters, x) / counts.unsqueeze(1)
    distance = torch.linalg.vector_norm(x - means[clusters], dim=1)
    scatter = x.new_zeros(len(counts)).index_add_(0, clusters, distance) / counts  # (K,)
    apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")  # (K, K)
    ratio = (scatter.unsqueeze(1) + scatter) / torch.where(apart > 0, apart, torch.inf)
    return ratio.max(1).values.mean()


def _grouped(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows (N, D), their clusters numbered without gaps, and the clusters' sizes (K,)."""
    if len(x) != len(labels):
        raise ZooError(f"There are {len(x)} rows but {len(labels)} labels: pass one label for each row.")
    names, clusters, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ZooError(f"A score of clusters needs at least two of them; the labels name {len(names)}.")
    return x.flatten(1), clusters, counts.to(x.dtype)


def elbow(data: Any, choices: Iterable[int] = range(1, 11), model: str = "kmeans", **hparams: Any) -> dict[int, float]:
    """Return the inertia for each number of clusters: where the curve bends, more of them explain little more.

    Draw it with `zoo.visual.elbow`.

    Args:
        data: what `zoo.fit` takes.
        choices: numbers of clusters.
        model: `kmeans` or `bisecting_kmeans`.
        **hparams: of the model.

    Example:
        >>> inertia = elbow(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), [1, 2], num_init=3)
        >>> {k: round(v, 6) for k, v in inertia.items()}
        {1: 101.0, 2: 1.0}
    """
    import zoo

    fitted = {k: zoo.fit(zoo.create_model(model, num_clusters=k, **hparams), data) for k in choices}
    return {k: float(fit.inertia) for k, fit in fitted.items()}
