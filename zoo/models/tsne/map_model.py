"""What a streaming model that makes a map of its rows has besides the making: prediction, evaluation, pictures.

Letters: B rows of a batch, N rows collected, D features, E dimensions of the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import StreamingModel
from zoo.models.tsne.placement import place
from zoo.numerics.neighbors import nearest_neighbors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MapModel"]


class MapModel(StreamingModel):
    """A streaming model whose first pass collects the rows, and whose fitted state is a point for each of them.

    A subclass implements `solve` and `done`, and has the hyperparameters `num_components`, `metric`, `precision`,
    `placement_perplexity` and `placement_steps`.

    Attributes:
        fitted_rows: the rows (N, D), in the order in which the model wants them.
        fitted_labels: their classes (N,), empty where the data have none.
        points: the map (N, E), in the same order.
        order: which collected row each of them is, (N,).
        step: number of steps taken.
        divergence: KL(P ‖ Q) of the map, in nats.
    """

    @property
    def input_dtype(self) -> torch.dtype:
        """The rows' own floating type."""
        return torch.promote_types(self.spec.torch_dtype, torch.float32) if self.spec else torch.get_default_dtype()

    def initialize(self, spec: DataSpec) -> None:
        dtype = torch.promote_types(spec.torch_dtype, torch.float32)
        width = torch.Size(spec.shape).numel()
        self.register_accumulator("rows", torch.zeros(0, width, dtype=dtype))
        self.register_accumulator("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("fitted_rows", torch.zeros(0, width, dtype=dtype))
        self.register_buffer("fitted_labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("order", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("divergence", torch.full((), math.nan, dtype=torch.float64))
        self._chunks: list[tuple[Tensor, Tensor]] = []
        precision = torch.float64 if self.hparams.precision == "double" else torch.float32
        self.points = nn.Parameter(torch.zeros(0, self.hparams.num_components, dtype=precision))

    def accumulate(self, batch: Batch) -> None:
        if len(self.fitted_rows):
            return  # only the first pass is looked at
        if batch.weight is not None:
            raise ZooError("This map gives all rows the same weight: leave the sample weights out.")
        assert self.spec is not None
        labels = batch.y if batch.y is not None and self.spec.target == "class" else batch.x.new_zeros(0).long()
        self._chunks.append((batch.x.flatten(1), labels))

    def _state(self) -> dict[str, Tensor]:
        if self._chunks:
            rows, labels = zip(*self._chunks, strict=True)
            self.rows, self.labels = torch.cat([self.rows, *rows]), torch.cat([self.labels, *labels])
            self._chunks = []
        return super()._state()

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    # -- the fitted map ------------------------------------------------------------------------------------------

    @property
    def embedding(self) -> Tensor:
        """The map (N, E), in the order in which the rows were collected: that of X for `zoo.fit(model, X)`."""
        self.check_fitted()
        points = self.points.data
        return torch.empty_like(points).index_copy_(0, self.order, points)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Place rows (B, *shape) in the map; one that is equal to a fitted row takes its place."""
        options, rows = self.hparams, batch.x.flatten(1)
        k = min(len(self.fitted_rows), math.ceil(3 * options.placement_perplexity))
        distance, neighbor = nearest_neighbors(self.fitted_rows, k, rows, options.metric)
        position, divergence = place(
            distance, neighbor, self.points.data, options.placement_perplexity, options.placement_steps
        )
        return {"prediction": position, "kl_divergence": divergence}

    def check_fitted(self) -> None:
        super().check_fitted()
        if not len(self.points):
            raise ZooError(f"This {type(self).__name__} has no map yet: call zoo.fit(model, X) first.")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.done:
            self._log_divergence("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_divergence("test", batch)

    def _log_divergence(self, stage: str, batch: Batch) -> None:
        value = self.predict_batch(batch)["kl_divergence"].mean()
        self.log(f"{stage}/kl_divergence", value, batch_size=batch.size)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "points")
        if saved is not None:
            self.points.data = torch.empty_like(saved, device=self.points.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- pictures ------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_figure") and self.hparams.num_components == 2:
            writer.add_figure("growing_map", self._picture(), global_step=self.current_epoch)

    def _picture(self, placed: Tensor | None = None) -> Figure:
        from zoo.visual.maps import point_map

        title = f"{len(self.points):,} rows after {int(self.step):,} steps, KL {float(self.divergence):.3f}"
        return point_map(self.points.data, self.fitted_labels, placed, self.spec, title)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        if self.hparams.num_components == 2:
            yield "map", self._picture(columns["prediction"])

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        labels = self.fitted_labels.tolist()
        return self.points.data, [str(label) for label in labels] if labels else ["row"] * len(self.points)
