r"""First centroids of k-means, drawn from a stream so that order, batches and processes do not matter.

A row i of weight $p_i$ is drawn by a number that only its own content and a key (seed, round, restart) decide,

```math
\text{score}_i = \frac{p_i}{-\log u_i}, \qquad u_i = \text{hash}(x_i, \text{key}) \in (0, 1),
```

and the L rows of greatest score are a weighted sample without replacement: the first has probability
$p_i / \sum_j p_j$, the second is drawn likewise from the rest, and so on. A sample of a union is the best of the
samples of its parts. Greedy k-means++ draws L = 2 + ⌊log K⌋ candidates for each centroid with $p_i = w_i d_i^2$,
$d_i$ the distance to the centroids so far, and keeps the one that leaves the least potential $\sum_i w_i d_i^2$.

Letters: B rows, D features, G groups (independent samples), L rows a sample, R restarts, K clusters.

Sources: P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006; D. Arthur and S.
Vassilvitskii, "k-means++: the advantages of careful seeding", 2007 (section 5: the greedy choice among several).

Deviation: rows of equal content have one hash and count as one row, so no sample holds the same point twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.numerics.hashing import splitmix64, stream_key

__all__ = [
    "Sample",
    "content_hash",
    "draw_scores",
    "kmeans_plusplus",
    "least_potential",
    "merge_samples",
    "num_candidates",
    "take_sample",
]

_STEP_INVERSE = pow(0x9E37_79B9_7F4A_7C15, -1, 2**64)


class Sample(NamedTuple):
    """The rows of greatest score so far, all different, by descending score.

    Attributes:
        score: (G, L), 0 where there was no such row.
        content: hashes of the rows, (G, L).
        rows: (G, L, D).
    """

    score: Tensor
    content: Tensor
    rows: Tensor

    @classmethod
    def empty(cls, num_groups: int, size: int, num_features: int) -> Sample:
        """Return the sample of no rows."""
        score = torch.zeros(num_groups, size, dtype=torch.float64)
        content = torch.zeros(num_groups, size, dtype=torch.int64)
        return cls(score, content, torch.zeros(num_groups, size, num_features, dtype=torch.float64))


def content_hash(x: Tensor) -> Tensor:
    """Return an int64 for each row of x (B, D) that equal rows share, in float32 and float64 alike, and others do not.

    >>> content_hash(torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])).unique().numel()
    2
    """
    bits = x.double().add(0.0).view(torch.int64)  # + 0.0 turns −0 into 0
    bits ^= bits >> 32  # floats of few digits differ in their upper half only
    bits *= splitmix64(0, torch.arange(x.shape[1], device=x.device)) | 1
    return splitmix64(0, bits.sum(1))


def draw_scores(content: Tensor, keys: Sequence[int]) -> Tensor:
    """Return 1 / −log u for contents (B,) under each of G keys, (G, B): times p, it is the score of a draw."""
    # A key is an offset of the counter, in units of SplitMix64's step: one call serves all.
    offsets = [_signed_int64(key * _STEP_INVERSE) for key in keys]
    words = splitmix64(0, content + torch.tensor(offsets, device=content.device).unsqueeze(1))
    # 52 bits and a half: neither 0 nor 1 can come out.
    uniform = ((words >> 12) & ((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().reciprocal_()


def _signed_int64(value: int) -> int:
    """The int64 with the bits of `value` modulo 2⁶⁴."""
    return (value + 2**63) % 2**64 - 2**63


def take_sample(score: Tensor, content: Tensor, x: Tensor, size: int) -> Sample:
    """Return the `size` different rows of greatest score.

    Args:
        score: (G, B); 0 for what must not be taken.
        content: `content_hash` of the rows, (B,).
        x: rows (B, D).
        size: L.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [2.0]])
        >>> take_sample(torch.tensor([[1.0, 3.0, 3.0]]), content_hash(x), x, 2).rows.tolist()
        [[[2.0], [1.0]]]
    """
    num_rows = len(x)
    # Twice the size allows for some repeated rows; where that is not enough, all rows are looked at.
    for reach in (min(num_rows, size if size == 1 else 2 * size), num_rows):
        value, index = score.topk(reach)  # (G, reach)
        exhausted = value[:, -1] == 0
        value = _without_repeats(value, content[index])
        if reach == num_rows or bool((exhausted | ((value > 0).sum(1) >= size)).all()):
            break
    return merge_samples([Sample(value, content[index], x[index].double())], size)


def merge_samples(samples: Sequence[Sample], size: int) -> Sample:
    """Return the `size` best rows of several samples."""
    score, content, rows = (torch.cat(parts, 1) for parts in zip(*samples, strict=True))
    if score.shape[1] < size:
        blank = Sample.empty(len(score), size - score.shape[1], rows.shape[2])
        score, content, rows = (
            torch.cat([part, fill.to(part.device)], 1) for part, fill in zip((score, content, rows), blank, strict=True)
        )
    score, order = score.sort(dim=1, descending=True, stable=True)
    content = content.gather(1, order)
    if len(samples) > 1 and size > 1:
        score, again = _without_repeats(score, content).sort(dim=1, descending=True, stable=True)
        order, content = order.gather(1, again), content.gather(1, again)
    order = order[:, :size]
    return Sample(score[:, :size], content[:, :size], rows.gather(1, order.unsqueeze(2).expand(-1, -1, rows.shape[2])))


def _without_repeats(score: Tensor, content: Tensor) -> Tensor:
    """Set the score of all but the first of equal contents to 0; scores (G, L) descend."""
    ordered, order = content.sort(dim=1, stable=True)
    repeated = torch.zeros_like(order, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return score.masked_fill(torch.zeros_like(repeated).scatter_(1, order, repeated), 0.0)


# -- greedy k-means++ ------------------------------------------------------------------------------------------------


def num_candidates(num_clusters: int) -> int:
    """Rows that greedy k-means++ draws for each centroid, 2 + ⌊log K⌋."""
    return 2 + int(math.log(num_clusters))


def kmeans_plusplus(x: Tensor, weight: Tensor | None, num_clusters: int, num_restarts: int, seed: int) -> Tensor:
    """Return the centroids (R, K, D) that greedy k-means++ draws from rows in memory: those that passes would draw.

    Args:
        x: rows (B, D).
        weight: (B,), not all zero; None counts each row once.
        num_clusters: K.
        num_restarts: R, drawn independently of each other.
        seed: of the draws.

    Example:
        >>> x = torch.tensor([[0.0], [5.0]], dtype=torch.float64)
        >>> kmeans_plusplus(x, None, 2, 1, seed=0).sort(1).values.tolist()
        [[[0.0], [5.0]]]
    """
    size, content, mean = num_candidates(num_clusters), content_hash(x), x.double().mean(0)
    rows = x.double() - mean
    norm = rows.square().sum(1)  # (B,)
    rounding = 16 * torch.finfo(rows.dtype).eps * (norm + norm.max())
    mass = torch.ones_like(norm) if weight is None else weight.double()
    near = norm.new_full((num_restarts, len(x)), math.inf)  # d²
    chosen: list[Tensor] = []
    for step in range(num_clusters):
        score = draw_scores(content, [stream_key(seed, step, restart) for restart in range(num_restarts)]).mul_(mass)
        drawn = take_sample(score * near if step else score, content, x, size if step else 1)
        candidate = drawn.rows - mean  # (R, L, D)
        distance = torch.add(candidate.square().sum(2, keepdim=True), candidate @ rows.T, alpha=-2).add_(norm)
        distance = torch.minimum(distance.masked_fill_(distance <= rounding, 0.0), near.unsqueeze(1))  # (R, L, B)
        best = least_potential(distance @ mass, drawn.score)  # (R,)
        restart = torch.arange(num_restarts, device=x.device)
        near, row = distance[restart, best], drawn.rows[restart, best]
        chosen.append(torch.where((drawn.score[:, :1] > 0) | (step == 0), row, chosen[0] if step else row))
    return torch.stack(chosen, 1)


def least_potential(potential: Tensor, score: Tensor) -> Tensor:
    """Return which candidate leaves the least potential, (R,); of those that differ by rounding the first.

    Args:
        potential: (R, L).
        score: with which each was drawn, (R, L); 0 where rows ran out.
    """
    potential = potential.masked_fill(score == 0, math.inf)
    return (potential <= potential.amin(1, keepdim=True) * (1 + 1e-9)).int().argmax(1)
