r"""Bisecting k-means: one cluster is split in two by k-means, then one of those, until there are K.

```math
k^* = \operatorname{argmax}_k J_k, \qquad J_k = \sum_{i:\,\ell_i = k} w_i \|x_i - c_k\|^2, \qquad
\{i: \ell_i = k^*\} \to \text{k-means with two clusters}
```

The splits form a tree, and a row finds its cluster by going down it: from each pair of centroids to the nearer one. One
pass over the data is one pass of the k-means that makes the current split, which sees only the rows of its cluster.

Letters: $x_i$ rows (D,) of weight $w_i$, $\ell_i$ label, $c_k$ centroids (K, D); R restarts of a split, B rows a batch.

Source: M. Steinbach, G. Karypis and V. Kumar, "A comparison of document clustering techniques", 2000.

Deviations: none; `split_by=weight` is the source's other choice, the largest cluster.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.kernels import bisecting as kernel
from zoo.kernels.lloyd import available
from zoo.models.base import StreamingModel
from zoo.models.kmeans.kmeans import DRAW, MEASURE, CentroidModel, KMeans, check_init, warn_of_iterations
from zoo.models.kmeans.lloyd import assign, lloyd, num_spans
from zoo.models.kmeans.seeding import draw_offsets, kmeans_plusplus, random_rows
from zoo.numerics.distances import squared_distances
from zoo.numerics.hashing import content_hash, stream_key
from zoo.registry import register_model

__all__ = ["BisectingKMeans"]

_ROWS = 4096  # whose distances are taken at once, in float64
_IN_DOUBLE = 1 << 20  # numbers up to which rows in memory are all made double: 8 MiB


@register_model(
    "bisecting_kmeans",
    family="clustering",
    task="clustering",
    accepts={"tabular": None, "image": None},
    source="Steinbach, Karypis & Kumar 2000",
    docs="kmeans",
)
class BisectingKMeans(CentroidModel, StreamingModel):
    """Bisecting k-means: split one cluster in two, again and again; a tree of clusters, of even sizes.

    Args:
        num_clusters: K.
        split_by: split the cluster of the greatest `inertia` or of the greatest `weight` (number of rows).
        init: how the two centroids of a split start: `k-means++` (three passes), `k-means||` (four) or `random` (one).
        num_init: restarts of each split; the best is kept.
        max_iter: iterations of each split at most.
        tolerance: a split is finished when its centroids move by less, as in `kmeans`.
        spherical: compare directions only.
        seed: seed of the draws; None takes the run's own.

    Raises:
        ZooError: for an argument out of range, and for the data that `kmeans` refuses.

    Example:
        >>> import torch
        >>> from zoo.data.spec import DataSpec
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [30.0]])
        >>> model = BisectingKMeans(num_clusters=3).build(DataSpec(kind="tabular", shape=(1,)))
        >>> _ = model.fit_batches(lambda: [x])
        >>> model.centroids.sort(0).values.tolist()
        [[0.5], [10.5], [30.0]]
    """

    split_centroids: Tensor
    split_of: Tensor
    num_splits: Tensor
    finished: Tensor
    cluster_inertia: Tensor
    cluster_weight: Tensor
    leaf_centroids: Tensor
    child_inertia: Tensor
    child_weight: Tensor

    def __init__(
        self,
        *,
        num_clusters: int = 3,
        split_by: Literal["inertia", "weight"] = "inertia",
        init: Literal["k-means||", "k-means++", "random"] = "k-means++",
        num_init: int = 1,
        max_iter: int = 300,
        tolerance: float = 1e-4,
        spherical: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_clusters", num_clusters), ("num_init", num_init), ("max_iter", max_iter)):
            check_range(name, value, 1)
        check_range("tolerance", tolerance, 0)
        check_init(init)
        if not isinstance(init, str):
            raise ZooError("model.init must be k-means||, k-means++ or random: a split has no centroids yet.")
        if split_by not in ("inertia", "weight"):
            raise ZooError(f"model.split_by must be inertia or weight, not {split_by!r}.")
        self.save_hyperparameters()
        self.spherical = spherical
        # Centroids (R, 2, D) to begin the split of some rows (B, D) with, of weight (B,), instead of drawn ones.
        self.first_centroids: Callable[[Tensor, Tensor | None], Tensor] | None = None
        self.report: Callable[[int, Tensor], None] | None = None  # told of each split and the inertia after it
        self.row_labels: Tensor | None = None  # (N,) of the rows in memory that the last fit split

    def _new_split(self, key: int) -> KMeans:
        hp = self.hparams
        split = KMeans(
            num_clusters=min(2, hp.num_clusters),
            init=hp.init,
            num_init=hp.num_init,
            max_iter=hp.max_iter,
            tolerance=hp.tolerance,
            spherical=hp.spherical,
            seed=key,
        )
        split.called = "bisecting_kmeans"
        return split

    def initialize(self, spec: DataSpec) -> None:
        num_clusters, num_restarts, width = self.hparams.num_clusters, self.hparams.num_init, spec.num_features
        pair = min(2, num_clusters)
        seed = torch.initial_seed() if self.hparams.seed is None else self.hparams.seed
        state: dict[str, Tensor] = {
            "seed": torch.tensor(seed % 2**63),
            "split_centroids": torch.zeros(max(1, num_clusters - 1), pair, width, dtype=torch.float64),
            "split_of": torch.zeros(max(1, num_clusters - 1), dtype=torch.int64),  # the cluster that was split
            "num_splits": torch.tensor(0),
            "finished": torch.tensor(False),
            "cluster_inertia": torch.zeros(num_clusters, dtype=torch.float64),
            "cluster_weight": torch.zeros(num_clusters, dtype=torch.float64),
            "leaf_centroids": torch.zeros(num_clusters, width, dtype=torch.float64),
        }
        for name, value in state.items():
            self.register_buffer(name, value)
        self.split = self._new_split(stream_key(int(self.seed), 0)).build(spec)
        for name, initial in self.split._accumulators.items():
            self.register_accumulator(name, initial)
        for name in ("child_inertia", "child_weight"):
            self.register_accumulator(name, torch.zeros(num_restarts, pair, dtype=torch.float64))

    # -- the fitted model ----------------------------------------------------------------------------------------

    @property
    def centroids(self) -> Tensor:
        """The centroids, (K, D), float64; fewer where there are fewer different rows."""
        return self.leaf_centroids[: max(1, int(self.num_splits) + 1)]

    @property
    def inertia(self) -> Tensor:
        """Σ w ‖x − c‖² over the training rows, c the centroid of the row's own cluster, ()."""
        return self.cluster_inertia.sum()

    @property
    def done(self) -> bool:
        return bool(self.finished)

    def labels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cluster of each row (B, D), found down the tree, and the squared distance to its centroid."""
        if torch.compiler.is_exporting():
            return self._traced(rows.double())
        splits = int(self.num_splits)
        if splits and kernel.available(rows):
            threads = max(1, num_spans(torch.get_num_threads(), rows, self.split_centroids[:1]))
            tree = self.split_centroids[:splits], self.split_of[:splits], self.leaf_centroids[: splits + 1]
            return kernel.bisecting_descend(rows, *tree, threads)
        label = self._descend(rows)
        parts = zip(rows.split(_ROWS), label.split(_ROWS), strict=True)
        distance = [(part.double() - self.leaf_centroids[own]).square_().sum(1) for part, own in parts]
        return label, torch.cat(distance) if distance else rows.new_zeros(0).double()

    def _descend(self, rows: Tensor) -> Tensor:
        """The clusters of rows (B, D): each split parts those that have come to its own cluster."""
        label = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for split, parted in enumerate(self.split_of[: int(self.num_splits)].tolist()):
            mine = (label == parted).nonzero()[:, 0] if split else None
            second = assign(rows, self.split_centroids[split].unsqueeze(0), mine)[0][0] == 1
            label[second if mine is None else mine[second]] = split + 1
        return label

    def before_trace(self) -> None:
        super().before_trace()
        self.splits = int(self.num_splits)
        del self.split

    def _traced(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same of any number of rows, for a trace."""
        label = torch.zeros_like(rows[:, 0], dtype=torch.int64)
        for split in range(self.splits):
            first, second = squared_distances(rows, self.split_centroids[split]).unbind(1)
            label = torch.where((label == self.split_of[split]) & (second < first), split + 1, label)
        return label, (rows - self.leaf_centroids[label]).square().sum(1)

    # -- passes --------------------------------------------------------------------------------------------------

    def _hand_over(self, source: torch.nn.Module, target: torch.nn.Module) -> None:
        """Let `target` hold the accumulators of the split that `source` holds."""
        for name in self.split._accumulators:
            setattr(target, name, getattr(source, name))

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes as the split does."""
        merged = super().merge(states)
        inner = [{name: state[name] for name in self.split._accumulators} for state in states]
        return merged | self.split.merge(inner)

    def accumulate(self, batch: Batch) -> None:
        rows, weight = self.rows_of(batch), batch.weight
        mine = (self._descend(rows) == self._current()).nonzero()[:, 0]
        rows, weight = rows[mine], None if weight is None else weight[mine]
        if not len(rows):
            return
        self._hand_over(self, self.split)
        self.split.accumulate(Batch(rows, weight=weight))
        self._hand_over(self.split, self)
        if int(self.split.phase) == MEASURE:
            mass = torch.ones(len(rows), dtype=torch.float64, device=rows.device) if weight is None else weight.double()
            for restart, (label, distance) in enumerate(zip(*assign(rows, self.split.all_centroids), strict=True)):
                self.child_inertia[restart].index_add_(0, label, distance * mass)
                self.child_weight[restart].index_add_(0, label, mass)

    @torch.no_grad()
    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        first = list(itertools.islice(batches(), 2))
        fresh = int(self.split.phase) == DRAW and not int(self.split.round)
        if max_passes is not None or len(first) != 1 or not fresh:
            return super().run_passes(batches, max_passes)
        return self._split_in_memory(self.as_batch(first[0]))

    def _split_in_memory(self, batch: Batch) -> dict[str, Any]:
        """Make all splits of rows in memory: each looks at the rows of its cluster alone, and they remember theirs."""
        rows, weight, values = self.rows_of(batch), batch.weight, {}
        if rows.device.type == "cpu" and rows.numel() <= _IN_DOUBLE and not self.spherical:
            rows = rows.double()  # once, and not in each of the splits
            assert self.split.spec is not None
            self.split.spec = replace(self.split.spec, dtype="float64")
        self.split.check_rows(rows, weight)
        label, content = self._descend(rows), content_hash(self.split.rows_of(Batch(rows)))
        while not self.done:
            values = self._split_by_kernel(rows, weight, content, label)
            if self.done:
                break
            current = int(self._current())
            mine = (label == current).nonzero()[:, 0]
            mass = None if weight is None else weight[mine].double()
            centroids, child, distance = self._two_of(rows, mass, content[mine], mine)
            number = len(centroids)
            size = child.bincount(mass, minlength=number).double()
            inertia = child.bincount(distance if mass is None else distance * mass, minlength=number)
            label[mine] = torch.where(child == 1, int(self.num_splits) + 1, current)
            values = self._finish_split(current, centroids, inertia, size)
        self.row_labels = label if self.hparams.num_init == 1 else None
        return values

    def _split_by_kernel(
        self, rows: Tensor, weight: Tensor | None, content: Tensor, label: Tensor
    ) -> dict[str, float | Tensor]:
        """Make the splits that the kernel makes: all but those that meet an empty cluster, which other steps refill.

        It leaves to these, too, what it knows nothing of.
        """
        hp, made = self.hparams, int(self.num_splits)
        known = not self.spherical and hp.init != "k-means||" and self.first_centroids is None and self.report is None
        if not known or hp.num_clusters < 2 or not kernel.available(rows):
            return {}
        keys = [stream_key(int(self.seed), split) % 2**63 for split in range(hp.num_clusters - 1)]
        draws = [[stream_key(key, step, restart) for restart in range(hp.num_init)] for key in keys for step in (0, 1)]
        offset, mass = draw_offsets(draws, content).unflatten(0, (-1, 2)), None if weight is None else weight.double()
        choices = hp.init == "k-means++", hp.split_by == "weight"
        numbers = hp.max_iter, hp.tolerance, torch.get_num_threads()
        state = self.split_centroids, self.split_of, self.leaf_centroids, self.cluster_inertia, self.cluster_weight
        restless = kernel.bisecting_splits(
            rows, mass, content, offset, *choices, *numbers, label, *state, self.num_splits
        )
        if int(restless):
            warn_of_iterations("bisecting_kmeans", int(restless))
        return self._finish() if int(self.num_splits) > made else {}

    def _two_of(
        self, rows: Tensor, weight: Tensor | None, content: Tensor, mine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split some rows in memory: centroids (2, D), labels and squared distances (B,).

        Args:
            rows: all of them (N, D).
            weight: of those that are split, (B,), float64, or None.
            content: their hashes (B,).
            mine: which they are, (B,).
        """
        starts = None if self.first_centroids is None else self.first_centroids(rows[mine], weight)
        found = self._split_at_once(rows, weight, content, mine, starts)
        if found is not None:
            return found
        part = Batch(rows[mine], weight=weight)
        self.split = self._next_split()
        if starts is not None:
            self.split.start_from(starts)
            self.split.begin()
        self.split.draw_in_memory(part, content)
        self.split.run_passes(lambda: [part])
        child, distance = assign(part.x, self.split.centroids.unsqueeze(0))
        return self.split.centroids, child[0], distance[0]

    def _split_at_once(
        self, rows: Tensor, weight: Tensor | None, content: Tensor, mine: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The same without a model and its passes, which take most of the time of few rows; None where they know more.

        That is how to draw by `k-means||`, to refill an empty cluster, and to find what is wrong with the rows.
        """
        hp = self.hparams
        if self.spherical or hp.init == "k-means||" or min(hp.num_clusters, len(mine)) < 2 or not available(rows):
            return None
        if weight is not None and not bool(weight.any()):
            return None
        if starts is None:
            key = stream_key(int(self.seed), int(self.num_splits)) % 2**63
            if hp.init == "k-means++":
                starts = kmeans_plusplus(rows[mine], weight, 2, hp.num_init, key, content)
            else:
                starts = random_rows(rows, weight, 2, hp.num_init, key, content, mine)
        whole = mine if len(mine) < len(rows) else None
        found = lloyd(rows, starts, weight, max_iter=hp.max_iter, tolerance=hp.tolerance, index=whole)
        if not bool(found.at_rest.all()) and found.num_iter < hp.max_iter:
            return None
        label, distance = found.label, found.distance
        if label is None or distance is None:
            label, distance = assign(rows, found.centroids, whole)  # (R, B)
        inertia = distance.sum(1) if weight is None else distance @ weight.to(distance.dtype)
        if not bool(inertia.isfinite().all()):
            return None
        best = int((inertia <= inertia.min() * (1 + 1e-9)).int().argmax())
        if not bool(found.at_rest[best]):
            warn_of_iterations("bisecting_kmeans", found.num_iter)
        return found.centroids[best], label[best], distance[best]

    def _next_split(self) -> KMeans:
        """The model that makes the split that comes now."""
        assert self.split.spec is not None
        split = self._new_split(stream_key(int(self.seed), int(self.num_splits)))
        split.build(self.split.spec)
        return split.to(self.device)

    def _current(self) -> Tensor:
        """The cluster that is being split."""
        if not int(self.num_splits):
            return self.num_splits
        size = self.cluster_weight if self.hparams.split_by == "weight" else self.cluster_inertia
        return torch.where(self.cluster_inertia > 0, size, -1.0).argmax()

    def solve(self) -> dict[str, float | Tensor]:
        current = int(self._current())
        self._hand_over(self, self.split)
        values = self.split.solve()
        if not int(self.num_splits):  # until the first split there is a model to look at, too
            self.leaf_centroids[:] = self.split.centroids[0]
        if not self.split.done:
            return {"splits": self.num_splits, **{f"split_{name}": value for name, value in values.items()}}
        best = self.split.best
        centroids = self.split.centroids
        values = self._finish_split(current, centroids, self.child_inertia[best], self.child_weight[best])
        if not self.done:
            self.split = self._next_split()
        return values

    def _finish_split(
        self, current: int, centroids: Tensor, inertia: Tensor, weight: Tensor
    ) -> dict[str, float | Tensor]:
        """Put two children, of centroids (2, D), inertia (2,) and weight (2,), in the place of a cluster."""
        new = int(self.num_splits) + 1
        places = [current, new][: len(centroids)]
        self.leaf_centroids[places] = centroids
        self.cluster_inertia[places], self.cluster_weight[places] = inertia, weight
        if len(places) == 2:
            self.split_centroids[new - 1], self.split_of[new - 1] = centroids, current
            self.num_splits += 1
        return self._finish(new)

    def _finish(self, made: int | None = None) -> dict[str, float | Tensor]:
        """See whether that was the last split."""
        made = int(self.num_splits) if made is None else made
        exhausted = not bool((self.cluster_inertia > 0).any())
        self.finished = torch.tensor(made >= self.hparams.num_clusters - 1 or exhausted, device=self.device)
        if exhausted and made < self.hparams.num_clusters - 1:
            warnings.warn(
                f"bisecting_kmeans found {made + 1} different rows only: no cluster is left to split.", stacklevel=2
            )
        if self.report is not None:
            self.report(int(self.num_splits), self.inertia)
        return {"splits": self.num_splits, "inertia": self.inertia}
