r"""The steps of Lloyd's algorithm, and all of it for rows in memory.

```math
c_k \leftarrow \frac{\sum_{i:\,\ell_i = k} w_i x_i}{\sum_{i:\,\ell_i = k} w_i}, \qquad
\ell_i = \operatorname{argmax}_k \left( x_i \cdot c_k - \tfrac12 \|c_k\|^2 \right)
```

For data so small that what surrounds each product is most of the time, `lloyd` makes once what the passes of
`zoo.models.kmeans.kmeans` make anew for each batch: rows moved to the reference point and
extended by a one, so that a single product gives all scores and a single sum the sums and the weights of the clusters.

Letters: B rows, D features, K clusters, R restarts side by side.

Source: S. Lloyd, "Least squares quantization in PCM", 1957, printed 1982.

Deviations: none; the source leaves open what becomes of an empty cluster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.models.kmeans.assignment import best_scores, mean_variance, reference_point, score_rows, with_bias
from zoo.models.kmeans.seeding import Sample

__all__ = ["Iterations", "cluster_means", "lloyd", "refill"]


class Iterations(NamedTuple):
    """Where Lloyd's algorithm stopped.

    Attributes:
        centroids: (R, K, D), float64.
        at_rest: whether the last iteration moved the centroids by less than the tolerance, (R,).
        num_iter: iterations made.
    """

    centroids: Tensor
    at_rest: Tensor
    num_iter: int


def lloyd(
    x: Tensor, centroids: Tensor, weight: Tensor | None = None, *, max_iter: int = 300, tolerance: float = 0.0
) -> Iterations:
    """Iterate until the centroids are at rest, for `max_iter` iterations, or until a cluster would be empty.

    Args:
        x: rows (B, D), float32 or float64.
        centroids: (R, K, D), float64.
        weight: sample weights (B,), or None.
        max_iter: iterations at most.
        tolerance: Σ‖Δc‖² at which centroids are at rest, as a share of the mean variance of the features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
        >>> lloyd(x, x[None, :2]).centroids.tolist()
        [[[0.5], [10.0]]]
    """
    reference = reference_point(centroids, x.dtype)
    rows = torch.cat([x - reference.to(x.dtype), x.new_ones(len(x), 1)], 1)  # (B, D + 1)
    massive = rows.double() if weight is None else rows.double() * weight.double().unsqueeze(1)
    spread = (massive[:, :-1] * rows[:, :-1]).sum()
    limit = tolerance * mean_variance(massive.sum(0), spread)
    rounding = (8 * torch.finfo(x.dtype).eps) ** 2
    local = centroids - reference
    at_rest = torch.zeros(len(centroids), dtype=torch.bool, device=x.device)
    for step in range(max_iter):
        score = score_rows(with_bias(local.to(x.dtype)), rows).view(*centroids.shape[:2], len(rows))
        moments = torch.zeros(*centroids.shape[:2], rows.shape[1], dtype=torch.float64, device=x.device)
        for cluster_moments, label in zip(moments, best_scores(score)[0], strict=True):
            cluster_moments.index_add_(0, label, massive)
        means = moments[..., :-1] / moments[..., -1:]  # NaN where a cluster is empty
        if len(local) > 1:
            means = torch.where(at_rest.view(-1, 1, 1), local, means)
        shift = (means - local).square_().sum((1, 2))  # (R,)
        still = shift <= torch.clamp(rounding * (means + reference).square_().sum((1, 2)), min=limit)
        if not bool(torch.isfinite(shift).all()):
            return Iterations(local + reference, at_rest, step)
        local, at_rest = means, at_rest | still
        if bool(at_rest.all()):
            return Iterations(local + reference, at_rest, step + 1)
    return Iterations(local + reference, at_rest, max_iter)


def cluster_means(centroids: Tensor, moments: Tensor, mass: Tensor, reference: Tensor) -> Tensor:
    """Return the means of all rows that the clusters were given, (R, K, D); an empty cluster keeps its centroid.

    Args:
        centroids: means of the rows given before, (R, K, D).
        moments: Σ w (x − reference) of the rows given now, and Σ w in the last column, (R, K, D + 1).
        mass: Σ w of the rows given before, (R, K); zero where they are to be forgotten.
        reference: (D,).
    """
    total = (mass + moments[..., -1]).unsqueeze(2)
    kept = mass.unsqueeze(2) * (centroids - reference) + moments[..., :-1]
    return torch.where(total > 0, kept / torch.where(total > 0, total, 1.0) + reference, centroids)


def refill(centroids: Tensor, empty: Tensor, farthest: Sample) -> tuple[Tensor, Tensor]:
    """Put the first empty cluster on the farthest row, the second on the next one, and so on.

    Args:
        centroids: (R, K, D).
        empty: (R, K).
        farthest: rows by descending distance to their centroid, one group a restart.

    Returns:
        The centroids, and for which restarts there is an empty cluster but no row away from all centroids, (R,).
    """
    rank = (empty.cumsum(1) - 1).clamp_min(0)  # (R, K)
    free = empty & (farthest.score.gather(1, rank) > 0)
    rows = farthest.rows.gather(1, rank.unsqueeze(2).expand_as(centroids))
    stuck = empty.any(1) & ~(farthest.score[:, 0] > 0)
    return torch.where(free.unsqueeze(2), rows, centroids), stuck
