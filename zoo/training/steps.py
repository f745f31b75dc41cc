"""The steps of a training: Lightning's loop over the batches of an epoch, without what nobody has asked it for.

Around each batch Lightning asks some forty times what is there to be done: which hooks of which callbacks are empty,
whether gradients are added up, clipped or scaled, whether a profiler looks on. For a small model that takes longer than
the step itself. Here it is asked once an epoch; counters, hooks, logged values and checkpoints are Lightning's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base import GradientModel, ZooModel

__all__ = ["StepLoop", "take_plain_steps"]

Hooks = dict[str, list[Callable[..., Any]]]
_CALLED = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_OF_TRANSFER = ("transfer_batch_to_device", "on_after_batch_transfer", "as_batch")


def take_plain_steps(trainer: pl.Trainer) -> None:
    """Let a trainer that has just been made take its steps by a `StepLoop`."""
    usual = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = StepLoop(trainer, usual.min_steps, usual.max_steps)


class StepLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, which takes plain steps directly.

    Plain is a step of one model with one optimizer on one device, after each batch, which no profiler watches. All
    others go Lightning's way, and so does the first batch behind a checkpoint.
    """

    trainer: Any
    _hooks: Hooks | None = None  # None: steps are not plain
    _validates: bool | None = None  # None: not within an epoch

    def run(self, data_fetcher: Any) -> None:
        try:
            super().run(data_fetcher)
        finally:
            self._validates = None

    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        self._hooks = self._find_hooks() if self._is_plain(data_fetcher) else None
        self._transfers = self._finds_transfer()
        self._validates = super()._should_check_val_epoch()
        self._types: list[Any] | None = None
        step = self.trainer.lightning_module.training_step
        self._numbers_batches = is_param_in_hook_signature(step, "batch_idx", min_args=2)  # a user's may not ask for it

    def _is_plain(self, data_fetcher: Any) -> bool:
        trainer, model = self.trainer, self.trainer.lightning_module
        return (
            isinstance(model, GradientModel)
            and type(trainer.strategy) is SingleDeviceStrategy
            and trainer.strategy.model is model
            and isinstance(trainer.profiler, PassThroughProfiler)
            and trainer.accumulate_grad_batches == 1
            and getattr(trainer.precision_plugin, "scaler", None) is None
            and len(trainer.optimizers) == 1
            and model.automatic_optimization
            and hasattr(data_fetcher, "done")
            and not hasattr(data_fetcher, "iterator_wrapper")  # a model that takes batches from the loader itself
            and not _overrides(model, "on_train_batch_start")  # it may end the epoch
            and type(model).optimizer_step is GradientModel.optimizer_step  # a user's may leave steps out
        )

    def _find_hooks(self) -> Hooks:
        """What is to be called at each of a step's moments: the hooks that are not empty."""
        trainer, model = self.trainer, self.trainer.lightning_module

        def of(callback: Callback, name: str) -> Callable[..., Any]:
            hook = getattr(callback, name)
            return lambda *args: hook(trainer, model, *args)

        found: Hooks = {}
        for name in _CALLED:
            found[name] = [of(callback, name) for callback in trainer.callbacks if _overrides(callback, name)]
            if _overrides(model, name):
                found[name].append(getattr(model, name))
        return found

    def _finds_transfer(self) -> bool:
        """Whether batches go to the device by the model's own hooks alone."""
        names = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        data, model = self.trainer.datamodule, self.trainer.lightning_module
        of_data = data is not None and any(_overrides(data, name) for name in names)
        return not of_data and not _overrides(model, names[0])

    def _call(self, name: str, *args: Any) -> None:
        assert self._hooks is not None
        if hooks := self._hooks[name]:
            self.trainer.lightning_module._current_fx_name = name  # by which Lightning knows who logs
            for hook in hooks:
                hook(*args)

    def _to_device(self, batch: Any) -> Any:
        trainer, model = self.trainer, self.trainer.lightning_module
        batch = trainer.precision_plugin.convert_input(batch)
        if not self._transfers or not isinstance(batch, Batch):
            batch = model._on_before_batch_transfer(batch, dataloader_idx=0)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        types = [None if column is None else (column.dtype, column.layout, column.device) for column in batch]
        if types == self._types:  # those of the batch before, which came out as it went in
            return batch
        taken = model.on_after_batch_transfer(model.transfer_batch_to_device(batch, trainer.strategy.root_device, 0), 0)
        own = all(getattr(type(model), name) is getattr(ZooModel, name) for name in _OF_TRANSFER)
        as_it_came = own and all(before is after for before, after in zip(batch, taken, strict=True))
        self._types = types if as_it_came else None
        return taken

    def _should_check_val_epoch(self) -> bool:
        """Whether this epoch has a validation, which is asked at each step and the same at all of them."""
        return super()._should_check_val_epoch() if self._validates is None else self._validates

    def advance(self, data_fetcher: Any) -> None:
        """Take one batch, and the step by it."""
        if self._hooks is None or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.batch_progress
        connector, results = trainer._logger_connector, self._results
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        self.val_loop.restarting = False
        batch = self._to_device(batch)
        progress.increment_ready()
        connector._first_loop_iter = connector._first_loop_iter is None
        connector._current_fx = None  # until somebody logs
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

        self._call("on_train_batch_start", batch, batch_idx)
        progress.increment_started()
        outputs = self._step(batch, batch_idx)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", outputs, batch, batch_idx)

        if connector._current_fx is not None:
            connector.on_batch_end()
        results.batch = results.batch_size = None
        progress.increment_completed()
        if connector.should_update_logs or trainer.fast_dev_run:
            connector.update_train_step_metrics()

    def _step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Take the step by a batch; returns the loss, and what else the model said of it."""
        trainer, model, optimizer = self.trainer, self.trainer.lightning_module, self.trainer.optimizers[0]
        precision, progress = trainer.precision_plugin, self.automatic_optimization.optim_progress.optimizer
        outputs: dict[str, Any] = {}

        def closure() -> Any:
            with torch.enable_grad():
                model._current_fx_name = "training_step"
                with precision.forward_context():
                    said = model.training_step(*((batch, batch_idx) if self._numbers_batches else (batch,)))
                loss, extra = said, {}
                if not isinstance(said, Tensor | None):
                    result = ClosureResult.from_training_step_output(said)  # which refuses what is no loss
                    loss, extra = result.closure_loss, result.extra
                progress.zero_grad.increment_ready()
                self._call("on_before_zero_grad", optimizer)
                progress.zero_grad.increment_started()
                model.optimizer_zero_grad(trainer.current_epoch, batch_idx, optimizer)
                progress.zero_grad.increment_completed()
                outputs.clear()
                if loss is not None:
                    outputs.update(extra, loss=loss.detach())
                    self._call("on_before_backward", loss)
                    model._current_fx_name = "backward"
                    model.backward(loss)
                    self._call("on_after_backward")
            self._call("on_before_optimizer_step", optimizer)
            if trainer.gradient_clip_val is not None or _overrides(model, "configure_gradient_clipping"):
                precision._clip_gradients(model, optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
            return outputs.get("loss")

        progress.step.increment_ready()
        model.optimizer_step(trainer.current_epoch, batch_idx, optimizer, closure)
        progress.step.increment_completed()
        return outputs

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate where it is due."""
        trainer = self.trainer
        if (
            self._hooks is None
            or self._skip_next_val
            or trainer.lr_scheduler_configs
            or trainer.should_stop
            or trainer.received_sigterm
            or self._should_check_val_fx(data_fetcher)
        ):
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1


def _overrides(owner: Any, name: str) -> bool:
    """Whether a callback, model or DataModule has a hook that is not Lightning's empty one."""
    own = getattr(owner, name)
    for base in (Callback, pl.LightningModule, pl.LightningDataModule):
        if isinstance(owner, base):
            return getattr(own, "__func__", own) is not getattr(base, name)
    return True
