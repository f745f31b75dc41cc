r"""k-means: K centroids such that the squared distances of all rows to their nearest one have the least sum.

```math
J = \sum_i w_i \min_k \|x_i - c_k\|^2, \qquad
c_k \leftarrow \frac{\sum_{i:\,\ell_i = k} w_i x_i}{\sum_{i:\,\ell_i = k} w_i}, \qquad
\ell_i = \operatorname{argmin}_k \|x_i - c_k\|
```

One pass over the data is one iteration. Before come the passes that draw the first centroids
(`zoo.models.kmeans.seeding`): one for `random`, K + 1 for `k-means++`, 1 + `rounds` and one that weighs the pool for
`k-means||`; after them comes one that measures J. All `num_init` restarts go through the same passes side by side.

- `mini_batch`: after every batch, $c_k \leftarrow (m_k c_k + \sum w x) / (m_k + \sum w)$ with $m_k$ the weight of
  all rows that cluster k has ever been given. This is Sculley's update, with its rate of 1 / (rows so far).
- `spherical`: rows and centroids have unit length, so that nearest is of greatest cosine: $J = 2 \sum w (1 - \cos)$.

Letters: $x_i$ rows (D,) of weight $w_i$; $c_k$ centroids (K, D); $\ell_i$ label; B rows a batch; R restarts.

Sources: S. Lloyd, "Least squares quantization in PCM", 1957/1982; D. Arthur and S. Vassilvitskii, "k-means++: the
advantages of careful seeding", 2007; B. Bahmani et al., "Scalable k-means++", 2012; D. Sculley, "Web-scale k-means
clustering", 2010; I. Dhillon and D. Modha, "Concept decompositions for large sparse text data using clustering", 2001.

Deviations: k-means++ is the greedy one, which draws 2 + ⌊log K⌋ rows for each centroid and keeps the best; k-means||
draws exactly `oversampling` · K rows a round, also in the first, and weighs equal rows once; an empty cluster waits for
one pass, which finds the rows farthest from all centroids, and goes to the first of those that is free (Lloyd leaves it
open); centroids that rows no longer move by more than rounding count as at rest.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError
from zoo.kernels.lloyd import available
from zoo.models.base import StreamingModel
from zoo.models.base.evaluation import Pooling, Sum
from zoo.models.kmeans.lloyd import (
    Iterations,
    assign,
    cluster_means,
    cluster_statistics,
    is_still,
    lloyd,
    mean_variance,
    reference_point,
    refill,
    serial,
)
from zoo.models.kmeans.seeding import (
    Sample,
    Seeding,
    draw_scores,
    kmeans_parallel,
    kmeans_plusplus,
    merge_samples,
    random_rows,
    take_sample,
)
from zoo.models.kmeans.sparse import SparseRows, sparse_assign, sparse_lloyd
from zoo.numerics.distances import squared_distances
from zoo.numerics.hashing import stream_key
from zoo.numerics.silhouette import silhouette_samples
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CentroidModel", "KMeans"]

_SILHOUETTE_ROWS = 2000  # its time is quadratic
_DRAW_ROWS = 65536  # rows hashed at once, which bounds memory

# What a pass does, in this order.
DRAW, WEIGH, UPDATE, MEASURE, DONE = range(5)

# Multiplications of an iteration, up to which a single batch is iterated upon at once: by the kernel, whose end Ctrl-C
# waits for, and in torch operations, which keep copies of the rows.
_IN_MEMORY, _IN_COPIES = 1 << 30, 1 << 24


class CentroidModel(StreamingModel if TYPE_CHECKING else object):  # type: ignore[misc]
    """Mixed in before `StreamingModel`: what models share whose fitted state is `centroids` (K, D), float64."""

    spherical = False

    @property
    def centroids(self) -> Tensor:
        """The centroids, (K, D), float64."""
        raise NotImplementedError

    @property
    def input_dtype(self) -> torch.dtype:
        """The rows' own type: distances are computed in it, sums in float64."""
        return torch.promote_types(self.spec.torch_dtype, torch.float32) if self.spec else torch.get_default_dtype()

    def rows_of(self, batch: Batch) -> Tensor:
        """Return the batch's inputs as rows (B, D), of unit length where only directions count."""
        rows = batch.x.flatten(1)
        return to_sphere(rows) if self.spherical else rows

    def forward(self, x: Tensor) -> Tensor:
        """Return the distances of inputs (B, *shape) to all centroids, (B, K)."""
        rows = self.rows_of(Batch(x))
        return squared_distances(rows.double(), self.centroids).sqrt_().to(x.dtype)

    @torch.inference_mode()
    def transform(self, x: Any, batch_size: int = 4096) -> Tensor:
        """Return the distances of inputs (N, *shape), an array or a tensor, to all centroids, (N, K)."""
        from zoo.data.arrays import inputs_from

        self.check_fitted()
        assert self.spec is not None
        rows = inputs_from(x, self.spec).x
        return torch.cat([self(self.as_batch(Batch(part)).x) for part in rows.split(batch_size)])

    def labels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cluster of each row (B, D) and the squared distance to its centroid, both (B,)."""
        if torch.compiler.is_exporting():  # the plain formula, for any number of rows
            nearest = squared_distances(rows.double(), self.centroids).min(1)
            return nearest.indices, nearest.values
        label, distance = assign(rows, self.centroids.unsqueeze(0))
        return label[0], distance[0]

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        label, distance = self.labels(self.rows_of(batch))
        return {"prediction": label, "squared_distance": distance}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        distance = self.labels(self.rows_of(batch))[1]
        return {"inertia": distance, "squared_distance": distance}

    def pooling(self) -> dict[str, Pooling]:
        return {"inertia": Sum()}

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        rows = self.rows_of(batch)
        yield "clusters", visual.clusters(rows, columns["prediction"], self.centroids, self.spec)
        label = columns["prediction"][:_SILHOUETTE_ROWS]
        if label.unique().numel() > 1:
            yield "silhouette", visual.silhouette(silhouette_samples(rows[:_SILHOUETTE_ROWS].double(), label), label)
        if self.spec.kind == "image":
            counts = columns["prediction"].bincount(minlength=len(self.centroids)).tolist()
            captions = [f"{label}: {count}" for label, count in enumerate(counts)]
            yield "centroids", visual.images(self.centroids.unflatten(1, self.spec.shape), captions, title="centroids")

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        assert self.spec is not None
        if self.spec.num_features <= 2:
            return None
        return self.rows_of(batch), [str(label) for label in columns["prediction"].tolist()]


@register_model(
    "kmeans", family="clustering", task="clustering", accepts={"tabular": None, "image": None}, source="Lloyd 1957"
)
class KMeans(CentroidModel, StreamingModel):
    """k-means clustering, one pass over the data for each iteration; exact, in mini-batches, or on the sphere.

    Args:
        num_clusters: K.
        init: `k-means||` (few passes), `k-means++` (K + 1 passes), `random` rows (one pass), or the K centroids
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

    seed: Tensor
    round: Tensor
    pool: Tensor
    pool_weight: Tensor
    candidates: Tensor
    potential: Tensor
    drawn_score: Tensor
    drawn_rows: Tensor
    all_centroids: Tensor
    all_inertia: Tensor
    mass: Tensor
    empty: Tensor
    at_rest: Tensor
    phase: Tensor
    num_iter: Tensor
    own_iter: Tensor
    moments: Tensor
    inertia_sum: Tensor
    spread: Tensor
    num_rows: Tensor
    farthest_score: Tensor
    farthest_rows: Tensor

    needs = {"oversampling": {"init": ("k-means||",)}, "rounds": {"init": ("k-means||",)}}

    def __init__(
        self,
        *,
        num_clusters: int = 3,
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
        check_init(init)
        check_range("oversampling", oversampling, 0, open_low=True)
        check_range("rounds", rounds, 0)
        if oversampling * (1 + rounds) < 1:
            raise ZooError("model.oversampling · (1 + model.rounds) must be at least 1, so that K rows are drawn.")
        if not isinstance(init, str) and num_init > 1:
            raise ZooError("model.num_init must be 1 where model.init gives the centroids: all would be equal.")
        self.save_hyperparameters()
        self.spherical = spherical
        self.seeding = Seeding(init if isinstance(init, str) else "given", num_clusters, num_init, oversampling, rounds)
        self.called = "kmeans"  # by messages: another model may be made of this one
        self.row_labels: Tensor | None = None  # of rows that one pass in memory labelled, (1, N)

    def initialize(self, spec: DataSpec) -> None:
        hp, num_features = self.hparams, spec.num_features
        shape = (hp.num_init, hp.num_clusters)
        seeding = self.seeding
        seed = torch.initial_seed() if hp.seed is None else hp.seed
        state: dict[str, Tensor] = {
            "seed": torch.tensor(seed % 2**63),
            "round": torch.tensor(0),
            "pool": torch.zeros(*seeding.pool_shape, num_features, dtype=torch.float64),  # rows that were drawn
            "candidates": torch.zeros(hp.num_init, seeding.size, num_features, dtype=torch.float64),
            "all_centroids": torch.zeros(*shape, num_features, dtype=torch.float64),
            "mass": torch.zeros(shape, dtype=torch.float64),  # weight of all rows seen, in mini-batch mode
            "empty": torch.zeros(shape, dtype=torch.bool),
            "at_rest": torch.zeros(hp.num_init, dtype=torch.bool),
            "all_inertia": torch.zeros(hp.num_init, dtype=torch.float64),
            "phase": torch.tensor(DRAW if isinstance(hp.init, str) else UPDATE),
            "num_iter": torch.tensor(0),
            "own_iter": torch.zeros(hp.num_init, dtype=torch.int64),  # iterations until each restart came to rest
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
        self.register_accumulator("pool_weight", torch.zeros(seeding.pool_shape[1], dtype=torch.float64))
        self.register_accumulator("potential", torch.zeros(hp.num_init, seeding.size, dtype=torch.float64))
        self._register_sample("drawn", Sample.empty(seeding.num_groups, seeding.size, num_features))
        self._register_sample("farthest", Sample.empty(*shape, num_features))

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
        if torch.compiler.is_exporting():
            return self.all_centroids.index_select(0, self.best.view(1)).squeeze(0)
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
        self.draw_in_memory(batch)
        if batch.size * self.all_centroids.numel() <= (_IN_MEMORY if available(batch.x) else _IN_COPIES):
            found = self._iterate(batch)  # without the cost of passes, which is most of it; what is left is to measure
            while found is not None and int(self.phase) == UPDATE and self.hparams.num_init == 1:
                super().run_passes(lambda: [batch], 1)  # which refills what the last iteration left empty
                if not bool(self.empty.any()):
                    found = self._iterate(batch)
            if int(self.phase) == MEASURE and self.hparams.num_init == 1:
                return self._label(batch, found)
        return super().run_passes(lambda: [batch])

    def _iterate(self, batch: Batch) -> Iterations | None:
        hp, rows = self.hparams, self.rows_of(batch)
        if self.spherical or int(self.phase) != UPDATE or batch.size < hp.num_clusters:
            return None
        left = hp.max_iter - int(self.num_iter)
        found = lloyd(rows, self.all_centroids, batch.weight, max_iter=left, tolerance=hp.tolerance)
        self.all_centroids, self.at_rest = found.centroids, found.at_rest
        self.num_iter += found.num_iter
        self.own_iter = self.own_iter + found.own_iter
        if found.num_iter and found.empty is not None:
            self.empty = found.empty & ~found.at_rest.unsqueeze(1)
        if bool(found.at_rest.all()) or found.num_iter == left:
            self.phase.fill_(MEASURE)
        return found

    def _label(self, batch: Batch, found: Iterations | None) -> dict[str, Any]:
        """The pass that measures, from the distances of all rows, whose labels are kept."""
        if found is not None and found.label is not None and found.distance is not None:
            self.row_labels, distance = found.label, found.distance
        else:
            self.row_labels, distance = assign(self.rows_of(batch), self.all_centroids)
        self.num_rows = torch.full_like(self.num_rows, batch.size)
        self.inertia_sum = distance.sum(1) if batch.weight is None else distance @ batch.weight.to(distance.dtype)
        self.phase.fill_(DONE)
        self._take_inertia(self.inertia_sum.clone())
        return self._reached()

    @torch.no_grad()
    def fit_sparse(
        self, rows: SparseRows, weight: Tensor | None = None, report: Callable[[int, Tensor], None] | None = None
    ) -> None:
        """Fit to sparse rows in memory, of which only what is stored is looked at; `k-means||` is k-means++ there.

        Args:
            rows: N of them.
            weight: (N,), float64.
            report: told of each iteration and the sums of squared distances (R,) that it began with.
        """
        self.begin()
        hp = self.hparams
        self._check_weight(weight)
        if weight is not None and not bool(weight.any()):
            raise ZooError(f"{self.called} was given sample weights that are all zero.")
        if int(self.phase) == DRAW:
            self._place(self._draw_sparse(rows, weight))
        found = sparse_lloyd(
            rows, self.all_centroids, weight, max_iter=hp.max_iter, tolerance=hp.tolerance, report=report
        )
        self.all_centroids, self.at_rest = found.centroids, found.at_rest
        self.num_iter.fill_(found.num_iter)
        self.own_iter = found.own_iter
        distance = sparse_assign(rows, found.centroids)[1]
        self.all_inertia = distance.sum(1) if weight is None else distance @ weight
        self.best = (self.all_inertia <= self.all_inertia.min() * (1 + 1e-9)).int().argmax()
        self.phase.fill_(DONE)

    def _draw_sparse(self, rows: SparseRows, weight: Tensor | None) -> Tensor:
        """First centroids (R, K, D), by the draws that passes would make."""
        hp, seed = self.hparams, int(self.seed)
        if hp.init != "random":
            return kmeans_plusplus(rows, weight, hp.num_clusters, hp.num_init, seed)
        score = draw_scores(rows.content, [stream_key(seed, 0, restart) for restart in range(hp.num_init)])
        drawn = take_sample(score if weight is None else score * weight, rows.content, rows, hp.num_clusters)
        return torch.where(drawn.score.unsqueeze(2) > 0, drawn.rows, drawn.rows[:, :1])

    # -- first centroids -----------------------------------------------------------------------------------------

    def _draw(self, x: Tensor, weight: Tensor | None) -> None:
        """Put the rows that this round prefers into its sample, and weigh up the candidates of the round before."""
        weights = weight.split(_DRAW_ROWS) if weight is not None else [None] * len(x)
        for rows, mass in zip(x.split(_DRAW_ROWS), weights, strict=False):
            self._check_finite(rows)
            drawn, potential = self.seeding.draw(
                rows, mass, int(self.seed), int(self.round), self.pool, self.candidates
            )
            self.potential += potential
            self._add_to_sample("drawn", drawn)

    def draw_in_memory(self, batch: Batch, content: Tensor | None = None) -> None:
        """Begin with the centroids that the rounds of draws would find in these rows.

        Args:
            batch: all rows.
            content: their hashes (B,), where these are known.
        """
        hp, rows, weight = self.hparams, self.rows_of(batch), batch.weight
        if int(self.phase) != DRAW or int(self.round) or batch.size < hp.num_clusters:
            return
        self.check_rows(rows, weight)
        if weight is not None and not bool(weight.any()):
            raise ZooError(f"{self.called} was given sample weights that are all zero.")
        numbers = hp.num_clusters, hp.num_init, int(self.seed), content
        if hp.init == "k-means||":
            drawn = kmeans_parallel(rows, weight, *numbers, oversampling=hp.oversampling, rounds=hp.rounds)
        else:
            drawn = (kmeans_plusplus if hp.init == "k-means++" else random_rows)(rows, weight, *numbers)
        self._place(drawn)

    def _end_round(self) -> bool:
        """Take over what was drawn; return whether that was the last round."""
        if not int(self.round) and bool((self.drawn_score[:, 0] == 0).any()):
            raise ZooError(f"{self.called} was given sample weights that are all zero.")
        drawn = self.drawn_score, self.drawn_rows
        self.candidates = self.seeding.keep(int(self.round), self.pool, self.candidates, self.potential, *drawn)
        self.round += 1
        return int(self.round) == self.seeding.num_rounds

    def check_rows(self, x: Tensor, weight: Tensor | None) -> None:
        """Raise one line for rows (B, D) or weights (B,) that cannot be clustered."""
        self._check_finite(x)
        self._check_weight(weight)

    def _check_finite(self, x: Tensor) -> None:
        if not math.isfinite(x.sum()) and not bool(torch.isfinite(x).all()):  # the sum is cheaper, and may overflow
            raise ZooError(f"{self.called} was given NaN or infinite values: drop those rows or fill them in first.")

    def _check_weight(self, weight: Tensor | None) -> None:
        if weight is not None and bool((weight < 0).any()):
            raise ZooError(f"{self.called} was given negative sample weights: weights must be 0 or more.")

    # -- samples as accumulators ---------------------------------------------------------------------------------

    def _register_sample(self, name: str, empty: Sample) -> None:
        for field, value in empty._asdict().items():
            self.register_accumulator(f"{name}_{field}", value)

    def _add_to_sample(self, name: str, more: Sample) -> None:
        """Keep the best rows of a pass."""
        fields = [f"{name}_{field}" for field in Sample._fields]
        kept = Sample(*(getattr(self, field) for field in fields))
        for field, value in zip(fields, merge_samples([kept, more], kept.score.shape[1]), strict=True):
            setattr(self, field, value)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes: sums are added, and the best of the samples is kept."""
        merged = super().merge(states)
        for name in ("drawn", "farthest"):
            fields = [f"{name}_{field}" for field in Sample._fields]
            samples = [Sample(*(state[field] for field in fields)) for state in states]
            merged |= zip(fields, merge_samples(samples, samples[0].score.shape[1]), strict=True)
        return merged

    # -- a pass --------------------------------------------------------------------------------------------------

    @serial()
    def accumulate(self, batch: Batch) -> None:
        x, weight, phase = self.rows_of(batch), batch.weight, int(self.phase)
        self._check_weight(weight)
        self.num_rows += len(x)
        if phase == DRAW:
            self._draw(x, weight)
        elif phase == WEIGH:
            self.pool_weight += cluster_statistics(x, self.pool, weight).moments[0, :, -1]
        elif phase == UPDATE:
            self._add_to_clusters(x, weight)
        else:
            distance = assign(x, self.all_centroids)[1]
            self.inertia_sum += distance.sum(1) if weight is None else distance @ weight.double()

    def _add_to_clusters(self, x: Tensor, weight: Tensor | None) -> None:
        centroids = self.all_centroids
        reference = reference_point(centroids, x.dtype)  # of the pass, so that batches can be added up
        if self.hparams.mini_batch:
            centroids = self._means(reference)
        active = slice(None) if not bool(self.at_rest.any()) else (~self.at_rest).nonzero()[:, 0]
        refills = bool(self.empty.any())
        found = cluster_statistics(x, centroids[active], weight, reference, measured=refills)
        self.moments[active] += found.moments
        self.inertia_sum[active] += found.inertia
        self.spread += found.spread
        if refills:
            score = centroids.new_zeros(len(centroids), len(x))
            score[active] = found.distance
            self._find_farthest(x, weight, score)

    def _means(self, reference: Tensor) -> Tensor:
        means = cluster_means(self.all_centroids, self.moments, self.mass, reference)
        return to_sphere(means) if self.spherical else means

    def _find_farthest(self, x: Tensor, weight: Tensor | None, distance: Tensor) -> None:
        """Keep the rows (B, D) of greatest distance (R, B) that weigh anything."""
        score = distance if weight is None else distance * (weight > 0)
        self._add_to_sample("farthest", take_sample(score, None, x, self.hparams.num_clusters))

    # -- the end of a pass ---------------------------------------------------------------------------------------

    @serial()
    def solve(self) -> dict[str, float | Tensor]:
        rows, wanted = int(self.num_rows), self.hparams.num_clusters
        if rows < wanted:
            raise ZooError(f"{self.called} needs at least as many rows as clusters ({wanted}), but a pass saw {rows}.")
        phase, measured = int(self.phase), ~self.at_rest
        if phase == DRAW:
            finished = self._end_round()
            self.all_centroids = self.seeding.centroids(
                int(self.round), self.pool
            )  # even before the last round there is a model to look at
            if finished:
                self.phase.fill_(WEIGH if self.hparams.init == "k-means||" else UPDATE)
            return {}
        if phase == WEIGH:
            key = stream_key(int(self.seed), int(self.round)) % 2**63
            self.all_centroids = kmeans_plusplus(self.pool[0], self.pool_weight, wanted, self.hparams.num_init, key)
            self.phase.fill_(UPDATE)
            return {}
        if phase == UPDATE:
            self._update()
        else:
            self.phase.fill_(DONE)
            measured.fill_(True)
        self._take_inertia(torch.where(measured, self.inertia_sum, self.all_inertia))
        return self._reached()

    def _take_inertia(self, inertia: Tensor) -> None:
        """Take over the inertia of the restarts (R,), and say which is the best."""
        self.all_inertia = inertia
        if not math.isfinite(inertia.sum()) and not bool(inertia.isfinite().all()):
            raise ZooError(
                f"{self.called} was given NaN or infinite values, or such as overflow when squared: "
                "drop those rows, fill them in, or scale the data."
            )
        # Restarts that found the same clusters differ by rounding: the first of them, whatever the batches were.
        if len(inertia) > 1:
            self.best = (inertia <= inertia.min() * (1 + 1e-9)).int().argmax()

    def _reached(self) -> dict[str, float | Tensor]:
        """Values to log of a pass; a warning if it was the last one, and the centroids are not at rest."""
        if self.done and not bool(self.at_rest[self.best]) and (self.hparams.tolerance or not self.hparams.mini_batch):
            warn_of_iterations(self.called, int(self.num_iter))
        return {"inertia": self.inertia, "iterations": self.num_iter}

    def _update(self) -> None:
        """Move the centroids of the restarts that are not at rest, and say which come to rest."""
        reference = reference_point(self.all_centroids, self.input_dtype)
        active = ~self.at_rest
        means = torch.where(active.view(-1, 1, 1), self._means(reference), self.all_centroids)
        total = self.mass + self.moments[..., -1]
        empty = (total == 0) & active.unsqueeze(1)
        left, stuck = empty, torch.zeros_like(active)
        if bool(self.empty.any()):
            means, filled, stuck = refill(means, self.empty & empty, self.farthest_rows, self.farthest_score)
            left = empty & ~filled  # for the next pass to find rows for
            if bool(stuck.any()):
                warnings.warn(f"{self.called} found fewer different rows than clusters: some stay empty.", stacklevel=2)
        variance = mean_variance(self.moments.sum(1), self.spread)  # (R,)
        shift = (means - self.all_centroids).square().sum((1, 2))  # (R,)
        still = is_still(shift, means - reference, reference, self.input_dtype, self.hparams.tolerance * variance)
        self.at_rest = self.at_rest | (still & (stuck | ~empty.any(1)))
        if self.hparams.mini_batch:
            self.mass = total
        self.all_centroids, self.empty = means, left & ~self.at_rest.unsqueeze(1)
        self.num_iter += 1
        self.own_iter = self.own_iter + active
        if bool(self.at_rest.all()) or int(self.num_iter) >= self.hparams.max_iter:
            self.phase.fill_(MEASURE)


def check_init(init: Any) -> None:
    """Raise one line for a way to draw centroids that there is not."""
    if isinstance(init, str) and init not in ("k-means||", "k-means++", "random"):
        raise ZooError(f"model.init must be k-means||, k-means++, random or a list of centroids, not {init!r}.")


def warn_of_iterations(model: str, number: int) -> None:
    """Say that so many iterations were not enough."""
    warnings.warn(
        f"{model} has not converged in {number} iterations: raise model.max_iter.", NotConverged, stacklevel=3
    )


def to_sphere(rows: Tensor) -> Tensor:
    """Scale rows (..., D) to unit length; a row of zeros stays.

    >>> to_sphere(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)
