r"""Agglomerative clustering: start with every row alone and merge the two nearest clusters until few are left.

```math
(A, B) = \arg\min_{A \neq B} d(A, B), \qquad A \leftarrow A \cup B
```

The linkage says how far two clusters are apart: `single`, `complete`, `average`, `weighted`, `ward`, `centroid` or
`median` (`linkage.py` beside this file has the formulas and how each is computed). All pairs of rows count, so the one
pass collects the rows, and the hierarchy is computed at its end.

Legend: N rows, F features, K clusters; the hierarchy (N − 1, 4) is SciPy's matrix.

Sources: G. Lance and W. Williams, "A general theory of classificatory sorting strategies", 1967; J. Ward, "Hierarchical
grouping to optimize an objective function", 1963; D. Müllner, "Modern hierarchical, agglomerative clustering
algorithms", 2011.

Deviations: the method says nothing of new rows; here they join the cluster of the nearest training row, so that every
training row is given its own cluster back, whatever the linkage. Clusters are numbered from the largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.agglomerative.connected import complete_graph, connected_linkage
from zoo.models.agglomerative.dendrogram import cophenetic_correlation, cut_at_height, cut_into
from zoo.models.agglomerative.distance_matrix import condense, distance_matrix
from zoo.models.agglomerative.linkage import check_names, linkage, power_of_two
from zoo.models.base import StreamingModel
from zoo.numerics.distances import pairwise_distances, traceable_distances
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AgglomerativeClustering"]

_CORRELATED = 2000  # rows up to which the cophenetic correlation, which takes all pairs, is logged
_BLOCK = 1 << 22  # distances computed at once


@register_model(
    "agglomerative_clustering",
    family="clustering",
    task="clustering",
    accepts={"tabular": None, "image": None},
    source="Lance & Williams 1967",
)
class AgglomerativeClustering(StreamingModel):
    """Agglomerative (hierarchical) clustering: merges the nearest clusters under one of seven linkages.

    After fitting, `labels` (N,) are the clusters of the training rows `rows` (N, F), in the order in which they came,
    and `hierarchy` (N − 1, 4) is the whole tree.

    Args:
        num_clusters: how many clusters to leave, K.
        distance_threshold: instead, merge all that are no farther apart than this; replaces `num_clusters`.
        linkage: distance of two clusters: `ward`, `average`, `complete`, `single`, `weighted`, `centroid` or `median`.
        metric: distance of two rows, one of `zoo.numerics.distances.METRICS` or `precomputed`, where the rows are
            those of the square matrix of distances. Ward, centroid and median are Euclidean.
        optimal_ordering: turn the branches of the tree so that near rows are neighbours; cubic in N.

    Raises:
        ZooError: for an argument out of range, more clusters than rows, NaN, or sample weights.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
        >>> model = zoo.fit(zoo.create_model("agglomerative_clustering", num_clusters=2), x)
        >>> model.labels.tolist(), model.predict(torch.tensor([[4.0], [8.0]])).tolist()
        ([1, 1, 0, 0, 0], [1, 0])
    """

    needs = {"num_clusters": {"distance_threshold": (None,)}}
    answers_by = ("rows",)

    def __init__(
        self,
        *,
        num_clusters: int | None = 3,
        distance_threshold: float | None = None,
        linkage: Literal["ward", "average", "complete", "single", "weighted", "centroid", "median"] = "ward",
        metric: str = "euclidean",
        optimal_ordering: bool = False,
    ) -> None:
        super().__init__()
        check_range("num_clusters", num_clusters, 1)
        check_range("distance_threshold", distance_threshold, 0)
        if num_clusters is None and distance_threshold is None:
            raise ZooError("Nothing says where to cut the tree: set model.num_clusters or model.distance_threshold.")
        check_names(linkage, metric)
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.register_accumulator("rows", torch.zeros(0, spec.num_features, dtype=torch.float64))
        self.register_buffer("hierarchy", torch.zeros(0, 4, dtype=torch.float64))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.edges: Tensor | None = None

    # -- the pass ------------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        if batch.weight is not None:
            raise ZooError("agglomerative_clustering takes no sample weights: repeat rows instead, or use kmeans.")
        self.append(rows=batch.x.flatten(1))

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"rows": torch.cat([state["rows"] for state in states])}

    def solve(self) -> dict[str, float | Tensor]:
        rows, hp = self._state()["rows"], self.hparams
        if not len(rows):
            raise ZooError("agglomerative_clustering was given no rows.")
        if self.edges is None:
            hierarchy = linkage(rows, hp.linkage, hp.metric, optimal_ordering=hp.optimal_ordering)
        else:
            edges, _ = complete_graph(rows, self.edges.to(rows.device), hp.metric)
            hierarchy = connected_linkage(rows, edges, hp.linkage, hp.metric)
        self.adopt(rows, hierarchy)
        values: dict[str, float | Tensor] = {"num_clusters": float(self.labels.max() + 1)}
        if len(rows) > 1:
            values["last_height"] = self.hierarchy[-1, 2]
        if 2 < len(rows) <= _CORRELATED:
            values["cophenetic_correlation"] = self.cophenetic_correlation()
        return values

    def adopt(self, rows: Tensor, hierarchy: Tensor) -> None:
        """Take a hierarchy (N - 1, 4) of rows (N, F) as the model's own, and cut it."""
        hp = self.hparams
        self.rows, self.hierarchy = rows, hierarchy
        if hp.distance_threshold is not None:
            labels = cut_at_height(self.hierarchy, hp.distance_threshold)
        else:
            labels = cut_into(self.hierarchy, hp.num_clusters)
        self.labels = _by_size(labels, rows)

    def connect(self, edges: Tensor) -> None:
        """Let clusters of the next fit merge only along pairs of its rows (E, 2), by their numbers as they come.

        A graph of several components is completed by the shortest edge between any two of them. The model is built.
        """
        self.edges = edges

    # -- the fitted model ----------------------------------------------------------------------------------------

    def cophenetic_correlation(self) -> float:
        """Correlation of the rows' distances with the heights at which they first share a cluster; 16 N² bytes."""
        precomputed = self.hparams.metric == "precomputed"
        distances = self.rows if precomputed else distance_matrix(self.rows, self.hparams.metric)
        return cophenetic_correlation(self.hierarchy, condense(distances))

    def cut_height(self) -> float:
        """A height between the last merge inside clusters and the first between them."""
        if self.hparams.distance_threshold is not None or len(self.hierarchy) == 0:
            return float(self.hparams.distance_threshold or 0)
        heights = torch.cat([self.hierarchy[:1, 2] * 0, self.hierarchy[:, 2], self.hierarchy[-1:, 2] * 1.05])
        merged = len(self.labels) - int(self.labels.max()) - 1
        return float(heights[merged : merged + 2].mean())

    def before_trace(self) -> None:
        super().before_trace()
        metric = self.hparams.metric
        if metric == "precomputed" or power_of_two(self.rows, metric)[1] != 1.0:
            raise ZooError(
                f"agglomerative_clustering of such rows (metric {metric}) is not exported: use zoo.save_model."
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest training row of each row (B, *shape), (B,), and its distance (B,)."""
        if torch.compiler.is_exporting():  # for any number of rows
            nearest = traceable_distances(x.flatten(1).to(self.rows.dtype), self.rows, self.hparams.metric).min(1)
            return nearest.indices, nearest.values
        rows, scale = power_of_two(self.rows, self.hparams.metric)
        parts = (x.flatten(1) / scale).split(max(1, _BLOCK // max(1, rows.numel())))
        found = [pairwise_distances(part, rows, self.hparams.metric).min(1) for part in parts]
        return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]) * scale

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        nearest, distance = self(batch.x)
        return {"prediction": self.labels[nearest], "distance": distance}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"distance": self.predict_batch(batch)["distance"]} if len(self.labels) else {}

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual
        from zoo.visual.dendrogram import dendrogram

        yield "dendrogram", dendrogram(self.hierarchy, self.labels, self.cut_height())
        if self.hparams.metric != "precomputed":
            with visual.rows_of("train"):
                figure = visual.clusters(self.rows, self.labels, spec=self.spec)
            yield "clusters", figure

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]]:
        return batch.x.flatten(1), [str(label) for label in columns["prediction"].tolist()]


def _by_size(labels: Tensor, rows: Tensor) -> Tensor:
    """The labels (N,) numbered from the largest cluster; of equally large ones the first has the smaller mean."""
    count = labels.bincount()
    means = rows.new_zeros(len(count), rows.shape[1]).index_add(0, labels, rows) / count[:, None]
    keys = [(-size, mean) for size, mean in zip(count.tolist(), means.tolist(), strict=True)]
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), device=labels.device)
    return order.argsort()[labels]
