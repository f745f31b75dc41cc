r"""k-means that moves its centroids after each batch: a step, which clusters are too light, and when to stop.

```math
c_k \leftarrow \frac{m_k c_k + \sum w x}{m_k + \sum w}, \qquad m_k \leftarrow m_k + \sum w, \qquad
\bar J \leftarrow (1 - \alpha) \bar J + \alpha \tfrac1B J_{\text{batch}}
```

The sums run over the rows of the batch that are nearest to $c_k$. It stops where the smoothed inertia $\bar J$ has not
become less for some steps.

Letters: B rows, D features, K clusters; $m_k$ weight of all rows that cluster k was ever given.

Source: D. Sculley, "Web-scale k-means clustering", 2010. Smoothing, stopping and drawing anew are scikit-learn's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.models.kmeans.lloyd import best_scores, score_rows, with_bias

__all__ = ["Smoothed", "light_clusters", "mini_batch_step"]


def mini_batch_step(x: Tensor, weight: Tensor | None, centroids: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move centroids by a batch.

    Args:
        x: rows (B, D).
        weight: (B,), or None.
        centroids: (K, D), float64.
        mass: m (K,), float64.

    Returns:
        The centroids, their masses, and the inertia of the batch before the move, ().

    Example:
        >>> x, start = torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([[0.0], [9.0]], dtype=torch.float64)
        >>> [found.tolist() for found in mini_batch_step(x, None, start, torch.tensor([0.0, 1.0]).double())]
        [[[1.0], [9.0]], [2.0, 2.0], 4.0]
    """
    rows = torch.cat([x.double(), x.new_ones(len(x), 1, dtype=torch.float64)], 1)  # (B, D + 1)
    label, score = (found[0] for found in best_scores(score_rows(with_bias(centroids.unsqueeze(0)), rows).unsqueeze(0)))
    norm = rows[:, :-1].square().sum(1)
    distance = (norm - 2 * score).clamp_min(0)
    if weight is not None:
        rows, distance = rows * weight.unsqueeze(1), distance * weight
    moments = rows.new_zeros(len(centroids), rows.shape[1]).index_add_(0, label, rows)
    total = mass + moments[:, -1]
    means = (mass.unsqueeze(1) * centroids + moments[:, :-1]) / torch.where(total > 0, total, 1.0).unsqueeze(1)
    return torch.where((moments[:, -1] > 0).unsqueeze(1), means, centroids), total, distance.sum()


def light_clusters(mass: Tensor, ratio: float, most: int) -> Tensor:
    """Return which clusters have less than a share of the greatest mass, (K,): the `most` lightest at most.

    >>> light_clusters(torch.tensor([9.0, 0.5, 0.1]), ratio=0.1, most=1).tolist()
    [False, False, True]
    """
    light = mass < ratio * mass.max()
    if int(light.sum()) > most:
        light[mass.argsort(stable=True)[most:]] = False
    return light


class Smoothed:
    """The inertia a row, smoothed over steps, and for how many of them it has not become less.

    Args:
        share: α, how much a new value counts.

    Example:
        >>> inertia = Smoothed(share=0.5)
        >>> [inertia.add(value) for value in (8.0, 4.0, 9.0, 9.0)], inertia.value
        ([0, 0, 1, 2], 8.25)
    """

    def __init__(self, share: float) -> None:
        self.share = min(1.0, share)
        self.value: float | None = None
        self.least = float("inf")
        self.waited = 0

    def add(self, value: float) -> int:
        """Add a value; return for how many steps there was no improvement."""
        self.value = value if self.value is None else self.value * (1 - self.share) + value * self.share
        self.waited = 0 if self.value < self.least else self.waited + 1
        self.least = min(self.least, self.value)
        return self.waited
