"""The base of the models that take optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base.module import ZooModel, check_accepts
from zoo.models.base.objectives import Classification, Objective, make_objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GradientModel", "NonFiniteLossError"]


class NonFiniteLossError(ZooError):
    """The loss became infinite or not a number; no step was taken with it."""


class GradientModel(ZooModel):
    """A model trained by optimizer steps: a subclass implements `initialize(spec)` and `forward(x)`.

    Loss, metrics and the form of predictions come from `self.objective`, which follows from the data's targets.
    """

    has_weights = True
    binary_logit: bool = False

    def build(self, spec: DataSpec) -> GradientModel:
        if self.spec is None:
            check_accepts(self.entry, spec)
            self.objective: Objective = make_objective(spec, binary_logit=self.binary_logit)
            if not self.streaming:  # a solved model is its last state
                self.monitor, self.monitor_mode = self.objective.monitor, self.objective.mode
        super().build(spec)
        return self

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if not hasattr(self, "metrics"):  # here, since a model that meets no trainer needs none
            self.metrics = nn.ModuleDict({stage: self.objective.metrics() for stage in ("val", "test")})
            self.mean_loss = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})

    def output(self, batch: Batch) -> Tensor:
        """Return the model's raw output for a batch: `forward` of its inputs."""
        return self(batch.x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        loss = self.objective.loss(self.output(batch), batch)
        penalty = self.recipe.penalty(self)
        self.check_finite(loss, batch_idx)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, batch_size=batch.size)
        return loss if penalty is None else loss + penalty

    def check_finite(self, loss: Tensor, batch_idx: int) -> None:
        """Stop before the update if the loss is not finite."""
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}, "
                f"batch {batch_idx}): no update was made. Lower optimizer.lr, "
                "clip gradients (regularization=gradient_clipping), or look for outliers in the data."
            )

    def _evaluation_step(self, batch: Batch, stage: str) -> None:
        if not batch.size:  # of several processes, one may get no row of the last batch
            return
        output = self.output(batch)
        weight = batch.size if batch.weight is None else batch.weight.sum()
        self.mean_loss[stage].update(self.objective.loss(output, batch), weight)  # type: ignore[operator]
        self.objective.update(self.metrics[stage], output, batch)  # type: ignore[arg-type]

    def _evaluation_end(self, stage: str) -> None:
        values = {"loss": self.mean_loss[stage], **self.metrics[stage]}  # type: ignore[dict-item]
        for name, metric in values.items():
            self.log(f"{stage}/{name}", metric.compute(), prog_bar=stage == "val")  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._evaluation_end("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._evaluation_end("test")

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        output = self.output(batch)
        columns = {"prediction": self.objective.predict(output)}
        if isinstance(self.objective, Classification):
            columns["probability"] = self.objective.probabilities(output)
        return columns

    def configure_optimizers(self) -> Any:
        return self.recipe.configure(self)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        if batch.y is None:
            return
        if self.spec.target == "class":
            yield "confusion_matrix", visual.confusion_matrix(batch.y, columns["prediction"], self.spec)
            if self.spec.kind == "tabular" and self.spec.num_features == 2:
                yield "decision_boundary", visual.decision_boundary(self, batch)
        elif self.spec.target == "value":
            yield "residuals", visual.residuals(batch.y, columns["prediction"], self.spec)
