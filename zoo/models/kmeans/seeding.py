r"""First centroids of k-means, drawn from a stream so that order, batches and processes do not matter.

A row i of weight $p_i$ is drawn by a key that only its own content and the seed decide,

```math
\text{key}_i = \log p_i - \log(-\log u_i), \qquad u_i = \text{hash}(x_i, \text{seed, round, restart}) \in (0, 1),
```

and the L rows of greatest key are a weighted sample without replacement: the first has probability $p_i / \sum_j p_j$,
the second is drawn likewise from the rest, and so on. A sample of a union is the best of the samples of its parts.

Letters: B rows, D features, G groups (independent samples), L rows a sample, P rows of a pool, R restarts, K clusters.

Sources: P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006; D. Arthur and S.
Vassilvitskii, "k-means++: the advantages of careful seeding", 2007 ($p_i = w_i d_i^2$; the greedy choice
among several); B. Bahmani et al., "Scalable k-means++", 2012.

Deviation: rows of equal content have one key and count as one row, so no sample holds the same point twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.numerics.distances import squared_distances
from zoo.numerics.hashing import splitmix64

__all__ = ["Sample", "choose_centroids", "content_hash", "gumbel", "merge_samples", "take_sample"]


_STEP_INVERSE = pow(0x9E37_79B9_7F4A_7C15, -1, 2**64)


def _signed_int64(value: int) -> int:
    """The int64 with the bits of `value` modulo 2⁶⁴."""
    return (value + 2**63) % 2**64 - 2**63


class Sample(NamedTuple):
    """The rows of greatest score so far, all different, by descending score.

    Attributes:
        score: (G, L), −∞ where there was no such row.
        content: hashes of the rows, (G, L).
        rows: (G, L, D).
    """

    score: Tensor
    content: Tensor
    rows: Tensor

    @classmethod
    def empty(cls, num_groups: int, size: int, num_features: int) -> Sample:
        """Return the sample of no rows."""
        score = torch.full((num_groups, size), -math.inf, dtype=torch.float64)
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


def gumbel(content: Tensor, keys: Sequence[int]) -> Tensor:
    """Return the standard Gumbel variates −log(−log u) that contents (B,) have under G keys, as (G, B)."""
    # A key is an offset of the counter, in units of SplitMix64's step: one call serves all.
    offsets = [_signed_int64(key * _STEP_INVERSE) for key in keys]
    words = splitmix64(0, content + torch.tensor(offsets, device=content.device).unsqueeze(1))
    uniform = ((words >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53)
    return uniform.log_().neg_().log_().neg_()


def take_sample(score: Tensor, content: Tensor, x: Tensor, size: int) -> Sample:
    """Return the `size` different rows of greatest score.

    Args:
        score: (G, B); −∞ for what must not be taken.
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
        exhausted = value[:, -1] == -math.inf
        value = _without_repeats(value, content[index])
        if reach == num_rows or bool((exhausted | ((value > -math.inf).sum(1) >= size)).all()):
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
    """Set the score of all but the first of equal contents to −∞; scores (G, L) descend."""
    ordered, order = content.sort(dim=1, stable=True)
    repeated = torch.zeros_like(order, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return score.masked_fill(torch.zeros_like(repeated).scatter_(1, order, repeated), -math.inf)


def choose_centroids(
    pool: Tensor, weight: Tensor, num_clusters: int, num_restarts: int, generator: torch.Generator
) -> Tensor:
    """Return the centroids (R, K, D) that greedy k-means++ draws from a weighted pool in memory.

    Each step draws 2 + ⌊log K⌋ rows with probability ∝ w d² and keeps the one that lowers Σ w d² most.

    Args:
        pool: (P, D).
        weight: (P,), not all zero.
        num_clusters: K.
        num_restarts: R, drawn independently of each other.
        generator: on the CPU.

    Example:
        >>> pool = torch.tensor([[0.0], [5.0]], dtype=torch.float64)
        >>> choose_centroids(pool, torch.ones(2), 2, 1, torch.Generator()).sort(1).values.tolist()
        [[[0.0], [5.0]]]
    """
    size = min(2 + int(math.log(num_clusters)), len(pool))
    distance = pool.new_ones(num_restarts, len(pool))
    scale = 64 * torch.finfo(pool.dtype).eps * (pool - pool.mean(0)).square().sum(1).max()
    chosen = []
    for step in range(num_clusters):
        uniform = torch.rand(num_restarts, len(pool), generator=generator, dtype=torch.float64)
        score = (weight * distance).log() - uniform.to(pool.device).log_().neg_().log_()  # (R, P)
        index = score.topk(1 if step == 0 else size).indices  # (R, L)
        candidate = squared_distances(pool[index], pool)  # (R, L, P)
        candidate = candidate.masked_fill_(candidate <= scale, 0.0)
        if step:
            candidate = torch.minimum(candidate, distance.unsqueeze(1))
        best = (candidate @ weight.to(candidate.dtype)).argmin(1, keepdim=True)  # (R, 1)
        distance = candidate.gather(1, best.unsqueeze(2).expand(-1, -1, len(pool))).squeeze(1)
        chosen.append(index.gather(1, best))
    return pool[torch.cat(chosen, 1)]
