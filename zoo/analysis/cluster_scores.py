r"""How good a clustering is, without a truth to compare it with.

```math
s_i = \frac{b_i - a_i}{\max(a_i, b_i)}, \qquad
DB = \frac{1}{K} \sum_k \max_{l \ne k} \frac{S_k + S_l}{\|c_k - c_l\|}
```

Silhouette (`zoo.numerics.silhouette`): $a_i$ is the mean distance of row i to the other rows of its cluster, $b_i$ the
least of its mean distances to the rows of another cluster; 1 is best. Davies-Bouldin: $S_k$ is the mean distance of the
rows of cluster k to their mean $c_k$; 0 is best.

Letters: N rows, D features, K clusters.

Sources: P. Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987;
D. Davies and D. Bouldin, "A cluster separation measure", 1979.

Deviations: none; a row alone in its cluster has silhouette 0, as in the source, and of two clusters with one and the
same mean Davies-Bouldin leaves the pair out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.arrays import to_tensor
from zoo.numerics import silhouette
from zoo.numerics.distances import pairwise_distances

__all__ = ["davies_bouldin_score", "elbow", "silhouette_samples", "silhouette_score"]


def silhouette_samples(x: Any, labels: Any) -> Tensor:
    """Return the silhouette of each row, (N,), exactly, in memory linear in N.

    Args:
        x: rows (N, *shape), an array, a tensor or nested lists.
        labels: cluster of each row, (N,), numbers or names, at least two different ones.

    Raises:
        ZooError: if there are not as many labels as rows, or all are equal, or the rows are no finite numbers.

    Example:
        >>> silhouette_samples(torch.tensor([[0.0], [1.0], [10.0]]), ["left", "left", "right"])
        tensor([0.9000, 0.8889, 0.0000])
    """
    return silhouette.silhouette_samples(*_tensors(x, labels))


def silhouette_score(x: Any, labels: Any) -> Tensor:
    """Return the mean silhouette over all rows, (); arguments and errors as of `silhouette_samples`.

    Example:
        >>> round(silhouette_score(torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 0, 1])).item(), 4)
        0.5963
    """
    return silhouette_samples(x, labels).mean()


def davies_bouldin_score(x: Any, labels: Any) -> Tensor:
    """Return the Davies-Bouldin index, (); arguments and errors as of `silhouette_samples`.

    Example:
        >>> davies_bouldin_score(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))
        tensor(0.2000)
    """
    x, labels = _tensors(x, labels)
    clusters, counts = silhouette.number_clusters(x, labels)
    x, counts = x.flatten(1), counts.to(x.dtype)
    origin = x.mean(0)  # sums of rows far from zero would lose the digits that part them
    x = x - origin
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, clusters, x) / counts.unsqueeze(1)
    distance = torch.linalg.vector_norm(x - means[clusters], dim=1)
    scatter = x.new_zeros(len(counts)).index_add_(0, clusters, distance) / counts  # (K,)
    apart = pairwise_distances(means, means)  # (K, K)
    ratio = (scatter.unsqueeze(1) + scatter) / torch.where(apart > 0, apart, torch.inf)
    return ratio.max(1).values.mean()


def _tensors(x: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Rows as a floating tensor, and labels as whole numbers, on the rows' device."""
    rows = to_tensor(x)
    if not isinstance(labels, Tensor):
        labels = torch.from_numpy(np.unique(np.asarray(labels), return_inverse=True)[1].reshape(np.shape(labels)))
    return rows, labels.to(rows.device)


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
