r"""k-means: K centroids such that the squared distances of all rows to their nearest one have the least sum.

```math
J = \sum_i w_i \min_k \|x_i - c_k\|^2, \qquad
c_k \leftarrow \frac{\sum_{i:\,\ell_i = k} w_i x_i}{\sum_{i:\,\ell_i = k} w_i}, \qquad
\ell_i = \operatorname{argmin}_k \|x_i - c_k\|
```

One pass over the data is one iteration. Before come the passes that draw the first centroids
(`zoo.models.kmeans.seeding`): one for `random`, K for `k-means++`, 1 + `rounds` and one that weighs the pool for
`k-means||`; after them comes one that measures J. All `num_init` restarts go through the same passes side by side.

- `mini_batch`: after every batch, $c_k \leftarrow (m_k c_k + \sum w x) / (m_k + \sum w)$ with $m_k$ the weight of
  all rows that cluster k has ever been given. This is Sculley's update, with its rate of 1 / (rows so far).
- `spherical`: rows and centroids have unit length, so that nearest is of greatest cosine: $J = 2 \sum w (1 - \cos)$.

Letters: $x_i$ rows (D,) of weight $w_i$; $c_k$ centroids (K, D); $\ell_i$ label; B rows a batch; R restarts.

Sources: S. Lloyd, "Least squares quantization in PCM", 1957/1982; D. Arthur and S. Vassilvitskii, "k-means++: the
advantages of careful seeding", 2007; B. Bahmani et al., "Scalable k-means++", 2012; D. Sculley, "Web-scale k-means
clustering", 2010; I. Dhillon and D. Modha, "Concept decompositions for large sparse text data using clustering", 2001.

Deviations: k-means|| draws exactly `oversampling` · K rows a round, also in the first, and weighs equal rows once; an
empty cluster waits for one pass, which finds the rows farthest from all centroids, and goes to the first of those that
is free (Lloyd leaves it open); centroids that rows no longer move by more than rounding count as at rest.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.kmeans.assignment import assign, cluster_statistics, mean_variance, reference_point, serial
from zoo.models.kmeans.centroid_model import to_sphere
from zoo.models.kmeans.draws import DrawnCentroids
from zoo.models.kmeans.lloyd import cluster_means, lloyd, refill
from zoo.models.kmeans.seeding import Sample, content_hash, merge_samples, take_sample
from zoo.registry import register_model

__all__ = ["KMeans"]

# What a pass does, in this order.
DRAW, WEIGH, UPDATE, MEASURE, DONE = range(5)

_IN_MEMORY = 1 << 24  # multiplications of an iteration, up to which a single batch is iterated upon at once


@register_model(
    "kmeans", family="clustering", task="clustering", accepts={"tabular": None, "image": None}, source="Lloyd 1957"
)
class KMeans(DrawnCentroids):
    """k-means clustering, one pass over the data for each iteration; exact, in mini-batches, or on the sphere.

    Args:
        num_clusters: K.
        init: `k-means||` (few passes), `k-means++` (K passes), `random` rows (one pass), or the K centroids
            themselves as lists of numbers.
        num_init: restarts R, side by side in the same passes; that of the least inertia is kept.
        max_iter: iterations at most.
        tolerance: an iteration that moves the centroids by less, Σ‖Δc‖² as a share of the mean variance of the
            features, is the last one.
        mini_batch: update after every batch instead of every pass. The result then depends on the batches.
        spherical: compare directions only.
        oversampling: rows that k-means|| draws in each of its rounds, as a multiple of K.
        rounds: rounds of k-means|| after the first.
        seed: seed of the draws; None takes the run's own.

    Raises:
        ZooError: for an argument out of range, fewer rows than clusters, weights that are negative or all zero,
            and data with NaN or infinite values.

    Example:
        >>> import torch
        >>> from zoo.data.spec import DataSpec
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> model = KMeans(num_clusters=2).build(DataSpec(kind="tabular", shape=(1,)))
        >>> _ = model.fit_batches(lambda: [x])
        >>> model.centroids.sort(0).values.tolist(), model.inertia.item()
        ([[0.5], [10.5]], 1.0)
    """

    all_centroids: Tensor
    all_inertia: Tensor
    mass: Tensor
    empty: Tensor
    at_rest: Tensor
    phase: Tensor
    num_iter: Tensor
    moments: Tensor
    inertia_sum: Tensor
    spread: Tensor
    num_rows: Tensor

    def __init__(
        self,
        *,
        num_clusters: int = 8,
        init: Literal["k-means||", "k-means++", "random"] | list[list[float]] = "k-means||",
        num_init: int = 1,
        max_iter: int = 300,
        tolerance: float = 1e-4,
        mini_batch: bool = False,
        spherical: bool = False,
        oversampling: float = 2.0,
        rounds: int = 2,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_clusters", num_clusters), ("num_init", num_init), ("max_iter", max_iter)):
            check_range(name, value, 1)
        check_range("tolerance", tolerance, 0)
        check_range("oversampling", oversampling, 0, open_low=True)
        check_range("rounds", rounds, 0)
        if oversampling * (1 + rounds) < 1:
            raise ZooError("model.oversampling · (1 + model.rounds) must be at least 1, so that K rows are drawn.")
        if isinstance(init, str) and init not in ("k-means||", "k-means++", "random"):
            raise ZooError(f"model.init must be k-means||, k-means++, random or a list of centroids, not {init!r}.")
        if not isinstance(init, str) and num_init > 1:
            raise ZooError("model.num_init must be 1 where model.init gives the centroids: all would be equal.")
        self.save_hyperparameters()
        self.spherical = spherical

    def initialize(self, spec: DataSpec) -> None:
        hp, num_features = self.hparams, spec.num_features
        super().initialize(spec)
        shape = (hp.num_init, hp.num_clusters)
        state: dict[str, Tensor] = {
            "all_centroids": torch.zeros(*shape, num_features, dtype=torch.float64),
            "mass": torch.zeros(shape, dtype=torch.float64),  # weight of all rows seen, in mini-batch mode
            "empty": torch.zeros(shape, dtype=torch.bool),
            "at_rest": torch.zeros(hp.num_init, dtype=torch.bool),
            "all_inertia": torch.zeros(hp.num_init, dtype=torch.float64),
            "phase": torch.tensor(DRAW if isinstance(hp.init, str) else UPDATE),
            "num_iter": torch.tensor(0),
            "best": torch.tensor(0),
        }
        for name, value in state.items():
            self.register_buffer(name, value)
        if not isinstance(hp.init, str):
            self.all_centroids.copy_(self._given(spec))
        self.register_accumulator("num_rows", torch.tensor(0))
        self.register_accumulator("moments", torch.zeros(*shape, num_features + 1, dtype=torch.float64))
        self.register_accumulator("inertia_sum", torch.zeros(hp.num_init, dtype=torch.float64))
        self.register_accumulator("spread", torch.tensor(0.0, dtype=torch.float64))
        self.register_sample("farthest", Sample.empty(*shape, num_features))

    def _given(self, spec: DataSpec) -> Tensor:
        centroids = torch.tensor(self.hparams.init, dtype=torch.float64)
        expected = (self.hparams.num_clusters, spec.num_features)
        if tuple(centroids.shape) != expected:
            raise ZooError(
                f"model.init must be {expected[0]} rows of {expected[1]} numbers, not {tuple(centroids.shape)}."
            )
        return to_sphere(centroids) if self.spherical else centroids

    @property
    def centroids(self) -> Tensor:
        """The centroids of the best restart, (K, D), float64."""
        return self.all_centroids[self.best]

    @property
    def inertia(self) -> Tensor:
        """Σ w ‖x − c‖² of the best restart over the training rows, ()."""
        return self.all_inertia[self.best]

    @property
    def done(self) -> bool:
        return int(self.phase) == DONE

    def start_from(self, centroids: Tensor) -> None:
        """Begin the next fit with these centroids (K, D), or (R, K, D) for each restart, instead of drawing some."""
        self.begin()
        self._begun = False
        self._place(centroids)

    def _place(self, centroids: Tensor) -> None:
        self.all_centroids.copy_(to_sphere(centroids) if self.spherical else centroids)
        self.phase.fill_(UPDATE)

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        first = list(itertools.islice(batches(), 2))
        if max_passes is not None or self.hparams.mini_batch or len(first) != 1:
            return super().run_passes(batches, max_passes)
        batch = self.as_batch(first[0])
        if batch.size * self.all_centroids.numel() <= _IN_MEMORY:
            # Draw, then iterate without the cost of passes, which is most of it; what is left is to measure.
            if int(self.phase) == DRAW and self.hparams.init == "k-means++" and batch.size >= self.hparams.num_clusters:
                self.draw_in_memory(self.rows_of(batch), batch.weight)
                self._place(self.first_centroids())
            super().run_passes(lambda: [batch], self.passes_left_to_draw() if int(self.phase) < UPDATE else 0)
            self._iterate(batch)
        return super().run_passes(lambda: [batch])

    def _iterate(self, batch: Batch) -> None:
        hp, rows = self.hparams, self.rows_of(batch)
        if self.spherical or int(self.phase) != UPDATE or batch.size < hp.num_clusters:
            return
        found = lloyd(rows, self.all_centroids, batch.weight, max_iter=hp.max_iter, tolerance=hp.tolerance)
        self.all_centroids, self.at_rest = found.centroids, found.at_rest
        self.num_iter.fill_(found.num_iter)
        if bool(found.at_rest.all()) or found.num_iter == hp.max_iter:
            self.phase.fill_(MEASURE)

    # -- a pass --------------------------------------------------------------------------------------------------

    @serial()
    def accumulate(self, batch: Batch) -> None:
        x, weight, phase = self.rows_of(batch), batch.weight, int(self.phase)
        if weight is not None and bool((weight < 0).any()):
            raise ZooError("kmeans was given negative sample weights: weights must be 0 or more.")
        self.num_rows += len(x)
        if phase == DRAW:
            self.draw(x, weight)
        elif phase == WEIGH:
            self.pool_weight += cluster_statistics(x, self.pool, weight).moments[0, :, -1]
        elif phase == UPDATE:
            self._add_to_clusters(x, weight)
            if bool(self.empty.any()):
                self._find_farthest(x, weight)
        else:
            self.inertia_sum += cluster_statistics(x, self.all_centroids, weight).inertia

    def _add_to_clusters(self, x: Tensor, weight: Tensor | None) -> None:
        centroids = self.all_centroids
        reference = reference_point(centroids, x.dtype)  # of the pass, so that batches can be added up
        if self.hparams.mini_batch:
            centroids = self._means(reference)
        active = slice(None) if not bool(self.at_rest.any()) else (~self.at_rest).nonzero()[:, 0]
        found = cluster_statistics(x, centroids[active], weight, reference)
        self.moments[active] += found.moments
        self.inertia_sum[active] += found.inertia
        self.spread += found.spread

    def _means(self, reference: Tensor) -> Tensor:
        means = cluster_means(self.all_centroids, self.moments, self.mass, reference)
        return to_sphere(means) if self.spherical else means

    def _find_farthest(self, x: Tensor, weight: Tensor | None) -> None:
        distance = assign(x, self.all_centroids)[1]  # (R, B)
        free = distance > 0 if weight is None else (distance > 0) & (weight > 0)
        score = distance.masked_fill(~free, -torch.inf)
        size = self.hparams.num_clusters
        farthest = take_sample(score, content_hash(x), x, size)
        self.set_sample("farthest", merge_samples([self.sample("farthest"), farthest], size))

    # -- the end of a pass ---------------------------------------------------------------------------------------

    @serial()
    def solve(self) -> dict[str, float | Tensor]:
        rows, wanted = int(self.num_rows), self.hparams.num_clusters
        if rows < wanted:
            raise ZooError(f"kmeans needs at least as many rows as clusters ({wanted}), but a pass saw {rows}.")
        phase, measured = int(self.phase), ~self.at_rest
        if phase == DRAW:
            finished = self.end_round()
            self.all_centroids = self.first_centroids()  # even before the last round there is a model to look at
            if finished:
                self.phase.fill_(WEIGH if self.hparams.init == "k-means||" else UPDATE)
            return {}
        if phase == WEIGH:
            self.all_centroids = self.centroids_from_pool()
            self.phase.fill_(UPDATE)
            return {}
        if phase == UPDATE:
            self._update()
        else:
            self.phase.fill_(DONE)
            measured.fill_(True)
        self.all_inertia = torch.where(measured, self.inertia_sum, self.all_inertia)
        if not bool(self.all_inertia.isfinite().all()):
            raise ZooError("kmeans was given NaN or infinite values: drop those rows or fill them in first.")
        # Restarts that found the same clusters differ by rounding: the first of them, whatever the batches were.
        self.best = (self.all_inertia <= self.all_inertia.min() * (1 + 1e-9)).int().argmax()
        return {"inertia": self.inertia, "iterations": self.num_iter}

    def _update(self) -> None:
        """Move the centroids of the restarts that are not at rest, and say which come to rest."""
        reference = reference_point(self.all_centroids, self.input_dtype)
        active = ~self.at_rest
        means = torch.where(active.view(-1, 1, 1), self._means(reference), self.all_centroids)
        total = self.mass + self.moments[..., -1]
        empty = (total == 0) & active.unsqueeze(1)
        stuck = torch.zeros_like(active)
        if bool(self.empty.any()):
            means, stuck = refill(means, self.empty & empty, self.sample("farthest"))
            if bool(stuck.any()):
                warnings.warn("kmeans found fewer different rows than clusters: some stay empty.", stacklevel=2)
        variance = mean_variance(self.moments.sum(1), self.spread)  # (R,)
        shift = (means - self.all_centroids).square().sum((1, 2))  # (R,)
        rounding = (8 * torch.finfo(self.input_dtype).eps) ** 2 * means.square().sum((1, 2))
        still = shift <= torch.maximum(rounding, self.hparams.tolerance * variance)
        self.at_rest = self.at_rest | (still & (stuck | ~empty.any(1)))
        if self.hparams.mini_batch:
            self.mass = total
        self.all_centroids, self.empty = means, empty & ~self.at_rest.unsqueeze(1)
        self.num_iter += 1
        if bool(self.at_rest.all()) or int(self.num_iter) >= self.hparams.max_iter:
            self.phase.fill_(MEASURE)
