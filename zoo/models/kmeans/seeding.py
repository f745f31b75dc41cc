r"""First centroids of k-means, drawn from a stream so that order, batches and processes do not matter.

A row i of weight $p_i$ is drawn by a number that only its own content and a key (seed, round, restart) decide,

```math
\text{score}_i = \frac{p_i}{-\log u_i}, \qquad u_i = \text{hash}(x_i, \text{key}) \in (0, 1),
```

and the L rows of greatest score are a weighted sample without replacement: the first has probability
$p_i / \sum_j p_j$, the second is drawn likewise from the rest, and so on. A sample of a union is the best of the
samples of its parts. Greedy k-means++ draws L = 2 + ⌊log K⌋ candidates for each centroid with $p_i = w_i d_i^2$,
$d_i$ the distance to the centroids so far, and keeps the one that leaves the least potential $\sum_i w_i d_i^2$.

A pass over the data is a round of draws (`Seeding`): one for `random`; some for `k-means||`, each of oversampling · K
rows with $p_i = w_i d_i^2$ of those drawn before; K + 1 for greedy k-means++, of which each draws the candidates of one
centroid, for each candidate of the one before, while it measures the potentials of these.

Letters: B rows, D features, G groups (independent samples), L rows a sample, R restarts, K clusters.

Sources: P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006; D. Arthur and S.
Vassilvitskii, "k-means++: the advantages of careful seeding", 2007 (section 5: the greedy choice among several);
B. Bahmani et al., "Scalable k-means++", 2012.

Deviation: rows of equal content have one hash and count as one row, so no sample holds the same point twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels import kmeans as kernel
from zoo.kernels import lloyd
from zoo.models.kmeans.lloyd import assign
from zoo.models.kmeans.sparse import SparseRows
from zoo.numerics.hashing import content_hash, splitmix64, stream_key

__all__ = [
    "Sample",
    "Seeding",
    "content_hash",
    "draw_offsets",
    "draw_scores",
    "kmeans_parallel",
    "kmeans_plusplus",
    "least_potential",
    "merge_samples",
    "num_candidates",
    "random_rows",
    "take_sample",
]

_IN_ONE_CALL = 1 << 33  # multiplications for a candidate, some seconds, which Ctrl-C waits for
_WORK_PER_THREAD = 1 << 23  # multiplications
_FEW = 32  # rows of a sample, up to which repeats are looked for among all pairs
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


def draw_scores(content: Tensor, keys: Sequence[int]) -> Tensor:
    """Return 1 / −log u for contents (B,) under each of G keys, (G, B): times p, it is the score of a draw."""
    # A key is an offset of the counter, in units of SplitMix64's step: one call serves all.
    words = splitmix64(0, content + draw_offsets([keys], content).T)
    # 52 bits and a half: neither 0 nor 1 can come out.
    uniform = ((words >> 12) & ((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().reciprocal_()


def draw_offsets(keys: Sequence[Sequence[int]], content: Tensor) -> Tensor:
    """Return what is added to contents for draws under keys, of the keys' shape, int64."""
    return torch.tensor([[_signed_int64(key * _STEP_INVERSE) for key in row] for row in keys], device=content.device)


def _signed_int64(value: int) -> int:
    """The int64 with the bits of `value` modulo 2⁶⁴."""
    return (value + 2**63) % 2**64 - 2**63


def take_sample(score: Tensor, content: Tensor | None, x: Tensor | SparseRows, size: int) -> Sample:
    """Return the `size` different rows of greatest score.

    Args:
        score: (G, B); 0 for what must not be taken.
        content: `content_hash` of the rows, (B,); None where only those that are looked at are to be hashed.
        x: rows (B, D).
        size: L.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [2.0]])
        >>> take_sample(torch.tensor([[1.0, 3.0, 3.0]]), content_hash(x), x, 2).rows.tolist()
        [[[2.0], [1.0]]]
    """
    num_rows = len(x)
    if size <= min(num_rows, _FEW):
        value, index = score.topk(size)
        found = _contents(content, x, index)  # (G, L)
        if int((found.unsqueeze(2) == found.unsqueeze(1)).sum()) == found.numel():
            return Sample(value, found, x[index].double())
    # Twice the size allows for some repeated rows; where that is not enough, all rows are looked at.
    for reach in (min(num_rows, size if size == 1 else 2 * size), num_rows):
        value, index = score.topk(reach)  # (G, reach)
        exhausted = value[:, -1] == 0
        found = _contents(content, x, index)
        value = _without_repeats(value, found)
        if reach == num_rows or bool((exhausted | ((value > 0).sum(1) >= size)).all()):
            break
    return merge_samples([Sample(value, found, x[index].double())], size)


def _contents(content: Tensor | None, x: Tensor | SparseRows, index: Tensor) -> Tensor:
    """The hashes of the rows of an index (G, L)."""
    return content_hash(x[index.flatten()]).view_as(index) if content is None else content[index]


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


def kmeans_plusplus(
    x: Tensor | SparseRows,
    weight: Tensor | None,
    num_clusters: int,
    num_restarts: int,
    seed: int,
    content: Tensor | None = None,
) -> Tensor:
    """Return the centroids (R, K, D) that greedy k-means++ draws from rows in memory: those that passes would draw.

    Args:
        x: rows (B, D), sparse ones as `SparseRows`.
        weight: (B,), not all zero; None counts each row once.
        num_clusters: K.
        num_restarts: R, drawn independently of each other.
        seed: of the draws.
        content: `content_hash` of the rows, where it is known.

    Example:
        >>> x = torch.tensor([[0.0], [5.0]], dtype=torch.float64)
        >>> kmeans_plusplus(x, None, 2, 1, seed=0).sort(1).values.tolist()
        [[[0.0], [5.0]]]
    """
    size, space = num_candidates(num_clusters), x if isinstance(x, SparseRows) else _Centred(x, content)
    content, mean = space.content, space.mean
    if isinstance(space, _Centred) and space.fits_one_call(num_clusters * num_restarts, size):
        every = range(num_restarts)
        keys = [[stream_key(seed, step, restart) for restart in every] for step in range(num_clusters)]
        arguments = content, draw_offsets(keys, content), None if weight is None else weight.double()
        threads = min(torch.get_num_threads(), 1 + space.rows.numel() * size // _WORK_PER_THREAD)
        places = kernel.kmeans_draw(space.rows, *arguments, size, 16 * torch.finfo(torch.float64).eps, threads)
        return space.points[places].double()
    norm = space.norm
    mass = torch.ones_like(norm) if weight is None else weight.double()
    near = norm.new_full((num_restarts, len(x)), math.inf)  # d²
    chosen: list[Tensor] = []
    for step in range(num_clusters):
        score = draw_scores(content, [stream_key(seed, step, restart) for restart in range(num_restarts)]).mul_(mass)
        drawn = take_sample(score * near if step else score, content, x, size if step else 1)
        candidate = drawn.rows - mean  # (R, L, D)
        inner = space.inner(candidate.flatten(0, 1)).view(*candidate.shape[:2], len(x))
        squares = candidate.square().sum(2, keepdim=True) + norm  # (R, L, B)
        distance = torch.sub(squares, inner, alpha=2)
        rounding = squares.mul_(16 * torch.finfo(norm.dtype).eps)  # what it makes of no distance
        distance = torch.minimum(distance.masked_fill_(distance <= rounding, 0.0), near.unsqueeze(1))  # (R, L, B)
        best = least_potential(distance @ mass, drawn.score)  # (R,)
        restart = torch.arange(num_restarts, device=x.device)
        near, row = distance[restart, best], drawn.rows[restart, best]
        chosen.append(torch.where((drawn.score[:, :1] > 0) | (step == 0), row, chosen[0] if step else row))
    return torch.stack(chosen, 1)


class _Centred:
    """Rows (B, D) less their mean."""

    def __init__(self, x: Tensor, content: Tensor | None = None) -> None:
        self.points, self.mean = x, x.mean(0, dtype=torch.float64)
        self.content = content_hash(x) if content is None else content
        self.rows = x - self.mean  # float64

    @property
    def norm(self) -> Tensor:
        """Squares of the rows, (B,)."""
        return torch.linalg.vecdot(self.rows, self.rows)

    def inner(self, points: Tensor) -> Tensor:
        """Products of points (P, D) with all rows, (P, B)."""
        return points @ self.rows.T

    def fits_one_call(self, draws: int, size: int) -> bool:
        """Whether the kernel is to make so many draws of so many candidates."""
        few = self.rows.numel() * draws <= _IN_ONE_CALL and size <= kernel.MOST_CANDIDATES
        return few and kernel.available(self.rows)


def kmeans_parallel(
    x: Tensor,
    weight: Tensor | None,
    num_clusters: int,
    num_restarts: int,
    seed: int,
    content: Tensor | None = None,
    *,
    oversampling: float = 2.0,
    rounds: int = 2,
) -> Tensor:
    """Return the centroids (R, K, D) that k-means|| draws from rows in memory: those that passes would draw.

    Arguments are those of `kmeans_plusplus`, and of `Seeding`.

    Example:
        >>> kmeans_parallel(torch.tensor([[0.0], [5.0]]), None, 2, 1, seed=0).sort(1).values.tolist()
        [[[0.0], [5.0]]]
    """
    content = content_hash(x) if content is None else content
    mass, size = None if weight is None else weight.double(), max(1, round(oversampling * num_clusters))
    key = stream_key(seed, 1 + rounds) % 2**63
    if size <= kernel.MOST_CANDIDATES and lloyd.available(x):
        offset = draw_offsets([[stream_key(seed, step, 0) for step in range(1 + rounds)]], content)[0]
        work = len(x) * x.shape[1] * (1 + rounds) * size
        threads = min(torch.get_num_threads(), 1 + work // _WORK_PER_THREAD)
        drawn, shares = kernel.kmeans_rounds(x, content, offset, mass, size, threads)
        return kmeans_plusplus(drawn, shares, num_clusters, num_restarts, key)
    pool = torch.zeros(1, (1 + rounds) * size, x.shape[1], dtype=torch.float64, device=x.device)
    for step in range(1 + rounds):
        near = assign(x, pool[:, : step * size])[1][0] if step else None
        rows = _sample(content, stream_key(seed, step, 0), near, mass, size)
        first = pool[0, 0] if step else x[rows[0]].double()
        pool[0, step * size : (step + 1) * size] = first  # which stands in where rows run out
        pool[0, step * size : step * size + len(rows)] = x[rows].double()
    shares = torch.bincount(assign(x, pool)[0][0], mass, minlength=pool.shape[1]).double()
    return kmeans_plusplus(pool[0], shares, num_clusters, num_restarts, key)


def _sample(content: Tensor, key: int, near: Tensor | None, mass: Tensor | None, size: int) -> Tensor:
    """The different rows (L,) that a round takes, L at most `size`."""
    if size <= kernel.MOST_CANDIDATES and kernel.available(content.new_empty(1, 1, dtype=torch.float64)):
        return kernel.kmeans_sample(content, _signed_int64(key * _STEP_INVERSE), near, mass, size)
    score = draw_scores(content, [key])
    for part in (mass, near):
        score = score if part is None else score * part
    places = torch.arange(len(content), device=content.device).unsqueeze(1)
    drawn = take_sample(score, content, places, size)
    return drawn.rows[0, drawn.score[0] > 0, 0].long()


def random_rows(
    x: Tensor,
    weight: Tensor | None,
    num_clusters: int,
    num_restarts: int,
    seed: int,
    content: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    """Return different rows in memory as centroids (R, K, D): those that a pass would draw.

    Arguments are those of `kmeans_plusplus`; `index` (B,) says which rows, whose weights and hashes are given, in place
    of all of them.

    Example:
        >>> random_rows(torch.tensor([[0.0], [5.0]]), None, 2, 1, seed=0).sort(1).values.tolist()
        [[[0.0], [5.0]]]
    """
    content = content_hash(x) if content is None else content
    mass = None if weight is None else weight.double()
    drawn = [
        _sample(content, stream_key(seed, 0, restart), None, mass, num_clusters) for restart in range(num_restarts)
    ]
    places = torch.stack([torch.cat([rows, rows[:1].expand(num_clusters - len(rows))]) for rows in drawn])
    return x[places if index is None else index[places]].double()


def least_potential(potential: Tensor, score: Tensor) -> Tensor:
    """Return which candidate leaves the least potential, (R,); of those that differ by rounding the first.

    Args:
        potential: (R, L).
        score: with which each was drawn, (R, L); 0 where rows ran out.
    """
    potential = potential.masked_fill(score == 0, math.inf)
    return (potential <= potential.amin(1, keepdim=True) * (1 + 1e-9)).int().argmax(1)


# -- rounds over a stream --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seeding:
    """How a stream gives the first centroids, a round of draws each pass; the tensors are the caller's.

    `pool` holds the rows drawn so far, (R, K, D), or (1, P, D) of `k-means||`, which draws for all restarts at once;
    `candidates` (R, L, D) those of which k-means++ will keep one a restart.

    Attributes:
        init: `k-means||`, `k-means++`, `random`, or `given` for none.
        num_clusters: K.
        num_restarts: R.
        oversampling: rows that `k-means||` draws a round, as a multiple of K.
        rounds: of `k-means||`, after the first.
    """

    init: str
    num_clusters: int
    num_restarts: int
    oversampling: float
    rounds: int

    @property
    def size(self) -> int:
        """Rows of a sample, L."""
        if self.init == "k-means||":
            return max(1, round(self.oversampling * self.num_clusters))
        return {"k-means++": num_candidates(self.num_clusters), "random": self.num_clusters}.get(self.init, 1)

    @property
    def num_groups(self) -> int:
        """Independent samples of a round, G; of k-means++ one for each candidate, since any may be the one to keep."""
        return {"k-means++": self.num_restarts * self.size, "random": self.num_restarts}.get(self.init, 1)

    @property
    def num_rounds(self) -> int:
        """Passes over the data that draw."""
        return {"k-means||": 1 + self.rounds, "k-means++": 1 + self.num_clusters, "random": 1}.get(self.init, 0)

    @property
    def pool_shape(self) -> tuple[int, int]:
        """Groups and rows of the pool."""
        return (1, self.num_rounds * self.size) if self.init == "k-means||" else (self.num_restarts, self.num_clusters)

    def draw(
        self, x: Tensor, weight: Tensor | None, seed: int, step: int, pool: Tensor, candidates: Tensor
    ) -> tuple[Sample, Tensor]:
        """Return the rows of a batch that round `step` prefers, and what it adds to the potentials, (R, L)."""
        content, greedy = content_hash(x), self.init == "k-means++"
        keys = [stream_key(seed, step, group) for group in range(self.num_restarts if greedy else self.num_groups)]
        score, potential = draw_scores(content, keys), candidates.new_zeros(candidates.shape[:2])
        if weight is not None:
            score *= weight.double()
        if greedy:
            distance = self._with_candidates(x.double(), step, pool, candidates)  # (R, L, B)
            potential = distance.sum(2) if weight is None else distance @ weight.double()
            score = (score.unsqueeze(1) * distance).flatten(0, 1)  # (R L, B)
        elif step:
            score *= assign(x, pool[:, : step * self.size])[1]
        return take_sample(score, content, x, self.size), potential

    def _with_candidates(self, x: Tensor, step: int, pool: Tensor, candidates: Tensor) -> Tensor:
        """Squared distances of rows (B, D) to the nearest centroid, each candidate added, (R, L, B); 1 at first."""
        shape = *candidates.shape[:2], len(x)
        if not step:
            return x.new_ones(shape)
        distance = assign(x, candidates.flatten(0, 1).unsqueeze(1))[1].view(shape)
        return distance if step == 1 else torch.minimum(distance, assign(x, pool[:, : step - 1])[1].unsqueeze(1))

    def keep(
        self, step: int, pool: Tensor, candidates: Tensor, potential: Tensor, score: Tensor, rows: Tensor
    ) -> Tensor:
        """Put what round `step` decided into the pool, and return the candidates of the next round.

        Where rows ran out, the first one stands in.
        """
        if self.init != "k-means++":
            first = pool[:, :1] if step else rows[:, :1]
            pool[:, step * self.size : (step + 1) * self.size] = torch.where((score > 0).unsqueeze(2), rows, first)
            return candidates
        restart, shape = torch.arange(len(candidates), device=pool.device), candidates.shape[:2]
        score, rows = score.view(*shape, self.size), rows.view(*shape, self.size, -1)
        if not step:
            return rows[:, 0, :1].expand_as(candidates).clone()
        best = least_potential(potential, torch.ones_like(potential))  # (R,)
        pool[:, step - 1] = candidates[restart, best]
        return torch.where((score[restart, best] > 0).unsqueeze(2), rows[restart, best], pool[:, :1])

    def centroids(self, step: int, pool: Tensor) -> Tensor:
        """Return K rows of the pool as centroids (R, K, D) after `step` rounds, over again while it holds fewer."""
        drawn = max(1, step - 1) if self.init == "k-means++" else step * self.size
        places = torch.arange(self.num_clusters, device=pool.device) % drawn
        return pool[:, places].expand(self.num_restarts, -1, -1).clone()
