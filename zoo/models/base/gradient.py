"""The base of the models that take optimizer steps."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base.evaluation import Pooling
from zoo.models.base.module import ZooModel, check_accepts
from zoo.models.base.objectives import IGNORED, Classification, Objective, Regression, make_objective
from zoo.optimizers.noise import disturb, mixup, noisy_classes, noisy_values, restore
from zoo.optimizers.penalties import penalized_parameters
from zoo.tasks import find_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GradientModel", "NonFiniteLossError"]


SHOWN = 0.5  # seconds after which a loss is logged for those who look on


class NonFiniteLossError(ZooError):
    """The loss became infinite or not a number; no step was taken with it."""


class GradientModel(ZooModel):
    """A model trained by optimizer steps: a subclass implements `initialize(spec)` and `forward(x)`.

    Loss, metrics and the form of predictions come from `self.objective`, which follows from the data's targets.
    """

    has_weights = True
    step_weight: float | None = None  # of the batch within a step over several
    binary_logit: bool = False
    value_loss: str = "squared_error"
    _logged_at: float = 0.0  # when losses were logged last

    def __init__(self) -> None:
        super().__init__()
        self._undisturbed: list[tuple[Tensor, Tensor]] = []  # weights as they are, while a step shakes them
        self._unlogged: list[tuple[Tensor, int]] = []  # of the steps that are not logged yet, with their rows

    def build(self, spec: DataSpec) -> GradientModel:
        if self.spec is None:
            check_accepts(self.entry, spec)
            self.objective: Objective = self.make_objective(spec)
            if smoothing := self.hparams.get("label_smoothing"):
                self.objective.label_smoothing = smoothing
            task = None if self.entry.unsupervised else find_task(spec.kind, spec.target)
            if task and not self.streaming:  # a solved model is its last state
                self.monitor, self.monitor_mode = task.monitor, task.mode
            elif self.entry.unsupervised:
                self.monitor = "val/loss"
        self._check_noise(spec)
        super().build(spec)
        return self

    @property
    def answers_each_step(self) -> bool:
        """Whether the data ask for an answer at each step of an example, and not for one of the whole."""
        assert self.spec is not None
        task = find_task(self.spec.kind, self.spec.target)
        return task is not None and task.head == "each_step"

    def make_objective(self, spec: DataSpec) -> Objective:
        """Return what the model is asked to do: what the data's targets pose, unless it has a loss of its own."""
        return make_objective(spec, binary_logit=self.binary_logit, loss=self.value_loss)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if stage == "fit":
            self._unlogged, self._logged_at = [], 0.0  # of a fit that was interrupted
        if stage == "fit" and isinstance(self.objective, Regression):
            scaling = None if self.streaming else getattr(self.trainer.datamodule, "target_scaling", None)
            mean, std = (None, None) if scaling is None else (scaling.mean, scaling.std)
            self.objective.scale_targets(mean, std, self.device)

    @property
    def target_dtype(self) -> torch.dtype | None:
        return super().target_dtype if self.streaming else None  # scaled before it is rounded to that of the inputs

    def output(self, batch: Batch) -> Tensor:
        """Return the model's raw output for a batch: `forward` of its inputs."""
        return self(batch.inputs)

    def training_loss(self, batch: Batch) -> Tensor:
        """Return what a step lowers: the objective's loss, unless a model adds to it."""
        return self.objective.loss(self.output(batch), batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        recipe = self.recipe
        if recipe.label_noise:
            batch = batch._replace(y=self._noisy_targets(batch))
        self._undisturbed = disturb(penalized_parameters(self), recipe.weight_noise) if recipe.weight_noise else []
        try:
            loss = self.mixed_loss(batch) if recipe.mixup else self.training_loss(batch)
            penalty = recipe.penalty(self)
            self.check_finite(loss, batch_idx)
        except BaseException:
            restore(self._undisturbed)
            raise
        self._unlogged.append((loss.detach(), batch.size))
        return loss if penalty is None else loss + penalty

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        try:
            super().backward(loss if self.step_weight is None else loss * self.step_weight, *args, **kwargs)
        finally:
            restore(self._undisturbed)

    def mixed_loss(self, batch: Batch) -> Tensor:
        """Return the loss of rows between two rows: that of both targets, each by its share."""
        mixed = mixup(batch.x, self.recipe.mixup)
        output = self.output(batch._replace(x=mixed.x))
        losses = [self.objective.loss(output, of) for of in (batch, batch.rows(mixed.partner))]
        return mixed.share * losses[0] + (1 - mixed.share) * losses[1]

    def _noisy_targets(self, batch: Batch) -> Tensor:
        assert batch.y is not None
        share = self.recipe.label_noise
        if isinstance(self.objective, Classification):
            return noisy_classes(batch.y, share, self.objective.num_classes)
        deviation: Tensor | None = self.objective.target_std  # type: ignore[assignment]
        return noisy_values(batch.y, share if deviation is None else share * deviation.to(batch.y.dtype))

    def _check_noise(self, spec: DataSpec) -> None:
        """Raise one line where rows cannot be mixed, or targets disturbed."""
        if not (self.recipe.mixup or self.recipe.label_noise):
            return
        own_loss = type(self).training_loss is not GradientModel.training_loss
        if self.recipe.mixup and (own_loss or spec.kind not in ("tabular", "image") or self.entry.unsupervised):
            why = "has a loss of its own" if own_loss or self.entry.unsupervised else f"reads {spec.kind}"
            raise ZooError(
                f"regularization.mixup mixes rows of tables and images, each with a class or a value, and "
                f"{self.entry.name} {why}: leave it out."
            )
        fits = isinstance(self.objective, Classification) or type(self.objective) is Regression
        if self.recipe.label_noise and not (fits and spec.target in ("class", "value")):
            raise ZooError(
                f"regularization.label_noise disturbs classes and values, one of each row; here the targets are "
                f"{'counts' if fits or isinstance(self.objective, Regression) else spec.target}: leave it out."
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the losses of the steps so far, where somebody is to see them: logging costs as much as a small step."""
        trainer, now = self.trainer, time.monotonic()
        ends = trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps
        connector = trainer._logger_connector  # only it says when loggers write a step, and its way past `log` is short
        if self._unlogged and connector.should_update_logs:
            connector.log_metrics({"train/loss_step": self._unlogged[-1][0]})
        if ends or now - self._logged_at >= SHOWN:
            self._logged_at = now
            self._log_losses()

    @property
    def last_loss(self) -> float | None:
        """The loss of the last batch, without penalties, as long as the batch is not done with."""
        return float(self._unlogged[-1][0]) if self._unlogged else None

    def _log_losses(self) -> None:
        """The curve of the steps, and the epoch's mean, which stands beside means of validation and test."""
        if not self._unlogged:
            return
        losses, sizes = zip(*self._unlogged, strict=True)
        self._unlogged = []
        weight = torch.tensor(sizes, dtype=torch.float64, device=losses[0].device)
        mean = torch.stack(losses).double() @ weight / weight.sum()
        rows = sum(sizes)
        step: Any = {"on_step": True, "on_epoch": False, "prog_bar": True, "logger": False}
        self.log("train/loss_step", losses[-1], batch_size=sizes[-1], **step)
        self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=rows)

    def check_finite(self, loss: Tensor, batch_idx: int) -> None:
        """Stop before the update if the loss is not finite."""
        if not math.isfinite(loss.item()):
            raise NonFiniteLossError(
                f"The loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}, "
                f"batch {batch_idx}): no update was made. Lower optimizer.lr, "
                "clip gradients (regularization=gradient_clipping), or look for outliers in the data."
            )

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return self.objective.evaluate(self.output(batch), batch)

    def pooling(self) -> dict[str, Pooling]:
        return self.objective.pooling()

    def row_weight(self, batch: Batch) -> Tensor | None:
        return self.objective.row_weight(batch)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        output = self.output(batch)
        predicted = self.objective.predict(output)
        if batch.mask is not None and self.answers_each_step:
            there = batch.mask if predicted.ndim == 2 else batch.mask.unsqueeze(-1)
            predicted = predicted.masked_fill(~there, IGNORED)
        columns = {"prediction": predicted}
        if isinstance(self.objective, Classification):
            columns["probability"] = self.objective.probabilities(output)
        return columns

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:  # as `optimizer.zero_grad()` does, at a fifth of what that costs
            for parameter in group["params"]:
                parameter.grad = None

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.recipe.after_step(self, getattr(optimizer, "optimizer", optimizer))

    def configure_optimizers(self) -> Any:
        return self.recipe.configure(self)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        if self.spec.target == "bits" and batch.y is not None:
            mask = None if batch.mask is None else batch.mask[0]
            yield "bits", visual.bits(batch.x[0], batch.y[0], self.output(batch.rows(slice(0, 1)))[0].sigmoid(), mask)
        if (self.spec.kind, self.spec.target) == ("tabular", "class") and self.spec.num_features == 2:
            prepared = functools.partial(self.predict_columns, raw=False)
            yield "decision_boundary", visual.decision_boundary(prepared, batch.x, batch.y, self.spec)
