"""The passes of k-means that draw its first centroids, kept apart from those that move them.

Letters: B rows, D features, K clusters, R restarts; G groups, L rows of each a round, P rows of the pool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.kmeans.assignment import assign
from zoo.models.kmeans.centroid_model import CentroidModel
from zoo.models.kmeans.seeding import Sample, choose_centroids, content_hash, gumbel, merge_samples, take_sample
from zoo.numerics.hashing import stream_key

__all__ = ["DrawnCentroids"]

_DRAW_ROWS = 65536  # rows hashed at once, which bounds memory


class DrawnCentroids(CentroidModel):
    """A centroid model that first draws a pool of rows, a round each pass.

    `k-means++` and `random` draw for each restart on its own; `k-means||` draws one pool for all of them.
    """

    seed: Tensor
    round: Tensor
    pool: Tensor
    pool_weight: Tensor
    drawn_score: Tensor
    drawn_rows: Tensor

    def initialize(self, spec: DataSpec) -> None:
        super().initialize(spec)
        groups, size, rounds = self._plan()
        seed = torch.initial_seed() if self.hparams.seed is None else self.hparams.seed
        self.register_buffer("seed", torch.tensor(seed % 2**63))
        self.register_buffer("round", torch.tensor(0))
        self.register_buffer("pool", torch.zeros(groups, rounds * size, spec.num_features, dtype=torch.float64))
        self.register_accumulator("pool_weight", torch.zeros(rounds * size, dtype=torch.float64))
        self.register_sample("drawn", Sample.empty(groups, size, spec.num_features))

    def _plan(self) -> tuple[int, int, int]:
        """How the first centroids are drawn: independent groups, rows of each a round, rounds."""
        hp = self.hparams
        if hp.init == "k-means||":
            return 1, max(1, round(hp.oversampling * hp.num_clusters)), 1 + hp.rounds
        if hp.init == "k-means++":
            return hp.num_init, 1, hp.num_clusters
        return (hp.num_init, hp.num_clusters, 1) if hp.init == "random" else (1, 1, 0)

    def passes_left_to_draw(self) -> int:
        """Number of passes until there are centroids, those that weigh the pool included."""
        return self._plan()[2] - int(self.round) + (self.hparams.init == "k-means||")

    # -- samples as accumulators ---------------------------------------------------------------------------------

    def register_sample(self, name: str, empty: Sample) -> None:
        """Register accumulators that keep the best rows of a pass."""
        for field, value in empty._asdict().items():
            self.register_accumulator(f"{name}_{field}", value)

    def sample(self, name: str) -> Sample:
        """Return the best rows so far."""
        return Sample(*(getattr(self, f"{name}_{field}") for field in Sample._fields))

    def set_sample(self, name: str, sample: Sample) -> None:
        """Replace the best rows so far."""
        for field, value in sample._asdict().items():
            setattr(self, f"{name}_{field}", value)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes: sums are added, and the best of the samples is kept."""
        merged = super().merge(states)
        for name in ("drawn", "farthest"):
            fields = [f"{name}_{field}" for field in Sample._fields]
            samples = [Sample(*(state[field] for field in fields)) for state in states]
            merged |= zip(fields, merge_samples(samples, samples[0].score.shape[1]), strict=True)
        return merged

    # -- rounds --------------------------------------------------------------------------------------------------

    def draw(self, x: Tensor, weight: Tensor | None) -> None:
        """Put the rows that this round's keys prefer into the sample."""
        step = int(self.round)
        groups, size, _ = self._plan()
        keys = [stream_key(int(self.seed), step, group) for group in range(groups)]
        weights = weight.split(_DRAW_ROWS) if weight is not None else [None] * len(x)
        for rows, mass in zip(x.split(_DRAW_ROWS), weights, strict=False):
            check_finite(rows)
            content = content_hash(rows)
            score = gumbel(content, keys)  # (G, B)
            if step:
                score += assign(rows, self.pool[:, : step * size])[1].log_()
            if mass is not None:
                score += mass.double().log()
            drawn = take_sample(score, content, rows, size)
            self.set_sample("drawn", merge_samples([self.sample("drawn"), drawn], size))

    def draw_in_memory(self, x: Tensor, weight: Tensor | None) -> None:
        """Draw all rounds of k-means++ from rows in memory: the rows that a pass for each would have drawn.

        Rows are hashed once, and each round adds the distances to one centroid instead of taking them to all.
        """
        groups, _, rounds = self._plan()
        check_finite(x)
        rows, content = x.double(), content_hash(x)
        keys = [stream_key(int(self.seed), step, group) for step in range(rounds) for group in range(groups)]
        score = gumbel(content, keys).view(rounds, groups, len(x))
        if weight is not None:
            score += weight.double().log()
        distance = rows.new_full((groups, len(x)), torch.inf)
        for step in range(rounds):
            best, index = (score[step] + distance.log() if step else score[step]).max(1)  # (G,)
            if not step and bool((best == -torch.inf).any()):
                raise ZooError("kmeans was given sample weights that are all zero.")
            first = self.pool[:, 0] if step else rows[index]
            self.pool[:, step] = torch.where((best > -torch.inf).unsqueeze(1), rows[index], first)
            nearer = (rows - self.pool[:, step].unsqueeze(1)).square_().sum(2)  # (G, B)
            distance = torch.minimum(distance, nearer)
        self.round.fill_(rounds)

    def end_round(self) -> bool:
        """Add the drawn rows to the pool, where rows ran out a copy of the first; return whether it is full."""
        size, step = self._plan()[1], int(self.round)
        if not step and bool((self.drawn_score[:, 0] == -torch.inf).any()):
            raise ZooError("kmeans was given sample weights that are all zero.")
        there = (self.drawn_score > -torch.inf).unsqueeze(2)
        first = self.pool[:, :1] if step else self.drawn_rows[:, :1]
        self.pool[:, step * size : (step + 1) * size] = torch.where(there, self.drawn_rows, first)
        self.round += 1
        return (step + 1) * size == self.pool.shape[1]

    def first_centroids(self) -> Tensor:
        """Return the first K rows of the pool as centroids (R, K, D), over again while it holds fewer."""
        hp = self.hparams
        places = torch.arange(hp.num_clusters, device=self.pool.device) % (int(self.round) * self._plan()[1])
        return self.pool[:, places].expand(hp.num_init, -1, -1).clone()

    def centroids_from_pool(self) -> Tensor:
        """Return the centroids (R, K, D) that greedy k-means++ chooses from the weighted pool."""
        generator = torch.Generator().manual_seed(stream_key(int(self.seed), int(self.round)) % 2**63)
        size, count = self.hparams.num_clusters, self.hparams.num_init
        return choose_centroids(self.pool[0], self.pool_weight, size, count, generator)


def check_finite(x: Tensor) -> None:
    """Raise one line if x holds NaN or infinity."""
    if not bool(torch.isfinite(x.sum()) or torch.isfinite(x).all()):  # the sum is cheaper, and may overflow
        raise ZooError("kmeans was given NaN or infinite values: drop those rows or fill them in first.")
