"""The gauges of a run of steps, drawn beside its losses: learning rate, gradient norm, time and throughput."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.data.spec import Batch
from zoo.training.logger import RunLogger
from zoo.training.shares import whole

__all__ = ["Gauges", "Histograms", "LossByRows"]

_AT_LEAST = 0.5  # seconds between two points at ends of epochs
_POINTS = 500  # of a run's losses over the rows seen


class Gauges(Callback):
    """Log what a training step costs and does, at every `log_every_n_steps`-th one and at ends of epochs.

    `train/learning_rate`, `train/gradient_norm` (of all parameters, before it is clipped), `train/seconds` since the
    start, and `train/rows_per_second`, or `train/tokens_per_second` for texts (padding does not count). Between those
    steps nothing is computed, and no step waits for the device more than the loss's own curve does. Models that take no
    steps have none of it.
    """

    def __init__(self) -> None:
        self._due = False
        self._norm: Tensor | None = None
        self._rate: float | None = None

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._began = self._logged = time.perf_counter()
        self._any = False  # whether a point was drawn: a short run has one too
        self._rows = 0
        self._tokens: int | Tensor | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, model: Any, batch: Any, batch_idx: int) -> None:
        steps = trainer.global_step + 1
        at_end = trainer.is_last_batch and self._has_waited(trainer)
        accumulates = (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch
        self._due = not accumulates and (steps % trainer.log_every_n_steps == 0 or at_end)  # type: ignore[attr-defined]

    def _has_waited(self, trainer: pl.Trainer) -> bool:
        """Whether the last point is some time ago; the processes agree, as they may have to add up their norms."""
        waited = not self._any or time.perf_counter() - self._logged >= _AT_LEAST
        return waited if trainer.world_size == 1 else bool(trainer.strategy.broadcast(waited))

    def on_before_optimizer_step(self, trainer: pl.Trainer, model: Any, optimizer: Any) -> None:
        if self._due:
            self._rate = float(optimizer.param_groups[0]["lr"])  # before the schedule's next
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            self._norm = whole(torch.nn.utils.get_total_norm(gradients)) if gradients else None

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, Batch):
            self._rows += batch.size
            if batch.tokens is not None:
                count = batch.tokens.numel() if batch.mask is None else batch.mask.sum()
                self._tokens = count if self._tokens is None else self._tokens + count
        if not self._due or not trainer.optimizers:
            return
        values: dict[str, float] = {}
        if self._rate is not None:
            values["train/learning_rate"] = self._rate
        if self._norm is not None:
            values["train/gradient_norm"] = float(self._norm)
        now = time.perf_counter()
        elapsed, processes = max(now - self._logged, 1e-9), trainer.world_size
        values["train/seconds"] = now - self._began
        if self._tokens is not None:
            values["train/tokens_per_second"] = float(self._tokens) * processes / elapsed
        elif self._rows:
            values["train/rows_per_second"] = self._rows * processes / elapsed
        self._any, self._logged, self._rows, self._tokens, self._norm = True, now, 0, None, None
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)  # where the loss of this step stands


class LossByRows(Callback):
    """Draw the losses over the number of rows that the steps have seen, in the place of the number of steps.

    `loss_by_rows/train` is the mean of the steps since the point before, `loss_by_rows/val` that of the validation.
    Runs whose steps see one row, a few or all of them lie over each other by it. The count travels in the checkpoint.
    """

    def __init__(self) -> None:
        self._rows = self._since = self._apart = 0
        self._sum = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = getattr(model, "last_loss", None)
        if loss is None or not isinstance(batch, Batch):
            return
        self._apart = self._apart or max(1, int(_rows_of_run(trainer, batch) / _POINTS))
        size, processes = batch.size, trainer.world_size
        self._rows += size * processes
        self._sum, self._since = self._sum + loss * size, self._since + size
        if self._since * processes >= self._apart:
            self._draw(trainer, "train", self._sum / self._since)
            self._sum, self._since = 0.0, 0

    def on_validation_end(self, trainer: pl.Trainer, model: Any) -> None:
        if self._rows and "val/loss" in trainer.callback_metrics:
            self._draw(trainer, "val", float(trainer.callback_metrics["val/loss"]))

    def _draw(self, trainer: pl.Trainer, split: str, loss: float) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_metrics({f"loss_by_rows/{split}": loss}, step=self._rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows, "since": self._since, "sum": self._sum}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows, self._since, self._sum = (state_dict[key] for key in ("rows", "since", "sum"))


def _rows_of_run(trainer: pl.Trainer, batch: Batch) -> float:
    """About how many rows a run will see; those of an epoch where nothing says how long it is."""
    batches = trainer.num_training_batches * max(1, trainer.max_epochs or 1)
    steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
    known = min(batches, steps)
    return known * batch.size * trainer.world_size if math.isfinite(known) else 0


def _writer(trainer: pl.Trainer) -> Any:
    """TensorBoard's writer, if the run has it."""
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


class Histograms(Callback):
    """Write a histogram of each parameter at the start and after every epoch, for TensorBoard's histograms tab.

    Of each epoch's last step there is a histogram of each gradient, before it is clipped, and `update_to_weight/NAME`:
    how far the step moved the parameter, as a share of its norm.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, model: Any, optimizer: Any) -> None:
        if trainer.is_last_batch and not self._before:
            moved = {name: p for name, p in model.named_parameters() if p.grad is not None and p.numel()}
            self._before = {name: whole(p.detach()).clone() for name, p in moved.items()}
            self._gradients = {name: whole(p.grad.detach()).clone() for name, p in moved.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        writer = _writer(trainer)
        for name, parameter in model.named_parameters() if self._before and writer is not None else ():
            if name not in self._before:
                continue
            before, after = self._before[name].float(), whole(parameter.detach()).float()
            length = float(before.norm())
            if trainer.is_global_zero:
                writer.add_histogram(f"gradients/{name}", self._gradients[name].float().cpu(), trainer.global_step)
                if length > 0:  # a bias that is 0 yet has no share to be moved by
                    ratio = float((after - before).norm()) / length
                    writer.add_scalar(f"update_to_weight/{name}", ratio, trainer.global_step)
        self._before, self._gradients = {}, {}

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self._write(trainer, model)

    def on_train_epoch_end(self, trainer: pl.Trainer, model: Any) -> None:
        self._write(trainer, model)

    def _write(self, trainer: pl.Trainer, model: Any) -> None:
        writer = _writer(trainer)
        if writer is None:
            return
        for name, parameter in model.named_parameters():
            values = whole(parameter.detach())
            if values.numel() and trainer.is_global_zero:
                writer.add_histogram(f"parameters/{name}", values.float().cpu(), trainer.global_step)
