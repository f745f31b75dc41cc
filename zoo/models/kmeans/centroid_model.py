"""What all models that group rows around centroids share: prediction, distances, evaluation and pictures.

Letters: B rows of a batch, D features, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from zoo.data.spec import Batch, DataSpec
from zoo.models.base import StreamingModel
from zoo.models.kmeans.assignment import assign
from zoo.numerics.distances import squared_distances

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CentroidModel"]

SILHOUETTE_ROWS = 2000  # its time is quadratic


class CentroidModel(StreamingModel):
    """A streaming model whose fitted state is `centroids` (K, D), float64.

    A subclass implements `initialize` (which calls this one's), `centroids`, `accumulate`, `solve` and `done`.
    """

    spherical = False

    def initialize(self, spec: DataSpec) -> None:
        self.dtype_of_rows = torch.promote_types(spec.torch_dtype, torch.float32)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if not hasattr(self, "metrics"):
            self.metrics = nn.ModuleDict(
                {s: nn.ModuleDict({"inertia": SumMetric(), "squared_distance": MeanMetric()}) for s in ("val", "test")}
            )

    @property
    def centroids(self) -> Tensor:
        """The centroids, (K, D), float64."""
        raise NotImplementedError

    @property
    def input_dtype(self) -> torch.dtype:
        """The rows' own type: distances are computed in it, sums in float64."""
        return getattr(self, "dtype_of_rows", torch.get_default_dtype())

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
        from zoo.data.arrays import to_tensor

        self.check_fitted()
        return torch.cat([self(self.as_batch(chunk).x) for chunk in to_tensor(x).split(batch_size)])

    def labels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cluster of each row (B, D) and the squared distance to its centroid, both (B,)."""
        label, distance = assign(rows, self.centroids.unsqueeze(0))
        return label[0], distance[0]

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        label, distance = self.labels(self.rows_of(batch))
        return {"prediction": label, "squared_distance": distance}

    # -- evaluation ----------------------------------------------------------------------------------------------

    def _evaluation_step(self, batch: Batch, stage: str) -> None:
        distance = self.labels(self.rows_of(batch))[1]
        weight = torch.ones_like(distance) if batch.weight is None else batch.weight.double()
        self.metrics[stage]["inertia"].update(distance * weight)  # type: ignore[index]
        self.metrics[stage]["squared_distance"].update(distance, weight)  # type: ignore[index]

    def _evaluation_end(self, stage: str) -> None:
        for name, metric in self.metrics[stage].items():  # type: ignore[operator,union-attr]
            self.log(f"{stage}/{name}", metric.compute(), prog_bar=stage == "val", sync_dist=True)
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._evaluation_end("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._evaluation_end("test")

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual
        from zoo.analysis.cluster_scores import silhouette_samples

        assert self.spec is not None
        rows = self.rows_of(batch)
        yield "clusters", visual.clusters(rows, columns["prediction"], self.centroids, self.spec)
        label = columns["prediction"][:SILHOUETTE_ROWS]
        if label.unique().numel() > 1:
            yield "silhouette", visual.silhouette(silhouette_samples(rows[:SILHOUETTE_ROWS].double(), label), label)
        if self.spec.kind == "image":
            counts = columns["prediction"].bincount(minlength=len(self.centroids)).tolist()
            captions = [f"{label}: {count}" for label, count in enumerate(counts)]
            yield "centroids", visual.images(self.centroids.unflatten(1, self.spec.shape), captions, title="centroids")

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        assert self.spec is not None
        if self.spec.num_features <= 2:
            return None
        return self.rows_of(batch), [str(label) for label in columns["prediction"].tolist()]


def to_sphere(rows: Tensor) -> Tensor:
    """Scale rows (..., D) to unit length; a row of zeros stays.

    >>> to_sphere(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)
