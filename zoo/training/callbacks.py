"""What makes a run robust: checkpoints, exact resume, and signals that become exit codes."""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from zoo.models.base import NonFiniteLossError
from zoo.training.logger import RunLogger
from zoo.training.shares import whole

__all__ = ["Checkpointer", "Interrupted", "RandomStates", "SignalExit"]


class Interrupted(BaseException):
    """A signal ended the run; `code` is the exit code, 128 + signal.

    Args:
        signum: the signal.
        trainer: which was stopped.
        saved: the file that holds the state, where it was saved.
    """

    def __init__(self, signum: int, trainer: pl.Trainer, saved: Path | None) -> None:
        model: Any = trainer.lightning_module
        where = f"{'pass' if model.streaming else 'epoch'} {trainer.current_epoch}"
        where += f", step {trainer.global_step:,}" if trainer.global_step else ""
        if trainer.testing:
            where = "its test"
        super().__init__(f"stopped by {signal.Signals(signum).name} in {where}.")
        self.code = 128 + signum
        self.saved = saved


class Checkpointer(Checkpoint):
    """Keep `last.ckpt`, from which a run goes on, and `best.ckpt`, the best by the model's own monitor.

    The last one is written when `every_seconds` have passed: between two batches, or between two epochs, when all the
    epoch's own work is done (Lightning would resume past the end of an epoch whose last batch was saved).
    Nothing is written while a number of the model is not finite, so that either file is always a good one.

    Lightning's `ModelCheckpoint` counts by optimizer steps, of which a streaming model has none. Validation values, by
    which a schedule or early stopping may decide in an epoch without validation, travel along.

    Args:
        folder: where the two files go.
        every_seconds: the most work, in seconds, that a killed run loses (one batch at least).
    """

    def __init__(self, folder: str | Path, every_seconds: float = 30.0) -> None:
        self.folder, self.every_seconds = Path(folder), every_seconds
        self.best: float | None = None
        self.stopped = False  # whether the run ended by itself, before its last epoch or step
        self.validated: dict[str, float] = {}  # the values of the last validation
        self._unknown: set[str] = set()  # buffers that are NaN until they are known
        self._saved_at = time.monotonic()
        self._asked = False  # for a validation of the run's last step
        self._mid_epoch: dict[str, Any] | None = None  # the state behind the run's last step, if that is in mid-epoch

    @property
    def last_path(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.stopped, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stopped = state_dict["best"], state_dict["stopped"]
        self.validated = state_dict["validated"]

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`, and before it what was logged so far: who goes on from there logs the rest anew."""
        self._check_finite(trainer.lightning_module)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()
        trainer.save_checkpoint(self.last_path)
        self._saved_at = time.monotonic()

    def _save_mid_epoch(self, trainer: pl.Trainer) -> None:
        """Write the state behind the last step: where more steps are asked for, they go on there, in that epoch."""
        assert self._mid_epoch is not None
        self._check_finite(trainer.lightning_module)
        self._mid_epoch["callbacks"][self.state_key] = self.state_dict()
        trainer.strategy.save_checkpoint(self._mid_epoch, self.last_path)
        trainer.strategy.barrier("last.ckpt")
        self._mid_epoch = None

    def _check_finite(self, model: Any) -> None:
        """Raise one line if a number of the model that was finite is so no more."""
        for name in non_finite(model):
            if name not in self._unknown:
                raise NonFiniteLossError(
                    f"{name} is not finite at step {model.global_step} (epoch {model.current_epoch}): no checkpoint "
                    "was written. Lower optimizer.lr, or clip gradients (regularization=gradient_clipping)."
                )

    def _is_time(self) -> bool:
        return time.monotonic() - self._saved_at >= self.every_seconds

    def _due(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.strategy.broadcast(self._is_time()))

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        waits = trainer.world_size == 1 and not self._is_time()
        if not waits and can_stop_after(trainer, batch_idx) and self._due(trainer):
            self.save(trainer)
        if trainer.global_step != trainer.max_steps:
            return
        if not trainer.is_last_batch:
            self._mid_epoch = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        if trainer.enable_validation and not trainer.should_stop:
            self._asked = trainer.should_stop = True  # else Lightning ends a run in mid-epoch without a validation

    def on_validation_start(self, trainer: pl.Trainer, model: Any) -> None:
        if self._asked:  # the run ends by its steps, and goes on where more are asked for
            self._asked = trainer.should_stop = False

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self._unknown = set(non_finite(model)) - {name for name, _ in model.named_parameters()}
        values = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.validated.items()}
        trainer.callback_metrics.update(values)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        begin_epoch(trainer)
        if trainer.current_epoch > 0 and self._due(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        # In the first epoch of a resumed run Lightning would leave out the schedule's step at the epoch's end, for want
        # of validation values, which are here.
        trainer.fit_loop._restarting = False

    def on_validation_end(self, trainer: pl.Trainer, model: Any) -> None:
        if trainer.sanity_checking:
            return
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.validated = {key: value for key, value in values.items() if key.startswith("val/")}
        if model.monitor not in values:
            return
        value, sign = values[model.monitor], 1 if model.monitor_mode == "min" else -1
        if math.isfinite(value) and (self.best is None or sign * value < sign * self.best):
            self._check_finite(model)
            self.best = value
            trainer.save_checkpoint(self.best_path)

    def on_load_checkpoint(self, trainer: pl.Trainer, model: Any, checkpoint: dict[str, Any]) -> None:
        # Lightning forgets that early stopping, or a model that is done, ended the run, and would train on.
        trainer.should_stop = checkpoint["callbacks"].get(self.state_key, {}).get("stopped", False)

    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._asked:  # in an epoch without validation
            self._asked = trainer.should_stop = False
        self.stopped = trainer.should_stop
        if self._mid_epoch is None:
            self.save(trainer)
        else:
            self._save_mid_epoch(trainer)


def can_stop_after(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a run may be saved or stopped after this batch and go on as if nothing had happened.

    Not at the last batch of an epoch or of the run (an epoch's start or the run's end is near), nor between gradients
    that are added up. Several processes must agree, which costs a message: they ask at every 50th step.
    """
    every = trainer.accumulate_grad_batches * (1 if trainer.world_size == 1 else 50)
    last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
    return not last and (batch_idx + 1) % every == 0


def begin_epoch(trainer: pl.Trainer) -> None:
    """Set the counters of the epoch's batches to 0, as Lightning does itself right after `on_train_epoch_start`.

    A checkpoint written in that hook would otherwise say that the new epoch's batches are all done.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.is_last_batch:
        loop.batch_progress.reset_on_run()
        loop.scheduler_progress.reset_on_run()
        loop.automatic_optimization.optim_progress.reset_on_run()
        loop.val_loop.batch_progress.total.reset()


def non_finite(model: Any) -> list[str]:
    """Return the names of the parameters and saved buffers that hold an infinite value or NaN.

    Buffers of a streaming model are left out: it checks its statistics itself, and a minimum over no rows is infinite.
    """
    parameters = dict(model.named_parameters())
    state = parameters if model.streaming else {**parameters, **model.state_dict()}
    return [name for name, tensor in state.items() if not bool(whole(torch.isfinite(tensor).all()))]


class RandomStates(Callback):
    """Carry the states of all random generators, of every process, in the checkpoint, and restore them at the start."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: pl.Trainer, model: Any, checkpoint: dict[str, Any]) -> None:
        states: list[Any] = [self._state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, self._state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, model: Any, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_states", [])
        if trainer.global_rank < len(states):
            self._restored = states[trainer.global_rank]

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        if self._restored is None:
            return
        torch.set_rng_state(self._restored["torch"])
        if self._restored["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self._restored["cuda"])
        version, internal, gauss = self._restored["python"]
        random.setstate((version, tuple(internal), gauss))
        self._restored = None

    @staticmethod
    def _state() -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(internal), gauss],
        }


_GRACE = 10.0  # seconds that a validation may take to end after a signal


class SignalExit(Callback):
    """Turn SIGTERM and SIGINT into a saved checkpoint and an exit code of 143 or 130.

    The signal is obeyed after the batch that is being worked on, or after the validation if that ends within seconds.
    During a longer one and during the test the run stops at once: the last checkpoint then lies before it, and going on
    from there gives the same bits. Lightning puts back the handlers
    that it found, and with them those that ours replaced.
    """

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, checkpointer: Checkpointer | None) -> None:
        self.checkpointer = checkpointer
        self.received: int | None = None
        self.since = 0.0
        self.trainer: Any = None

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signum:  # a second one does not wait
            self._stop_at_once(signum, frame)
        self.received, self.since = signum, time.monotonic()

    def _stop_at_once(self, signum: int, frame: FrameType | None) -> None:
        last = self.checkpointer and self.checkpointer.last_path
        raise Interrupted(signum, self.trainer, last if last and last.exists() else None)

    def _answer_with(self, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():  # Ray's processes train in another, and stop at once
            for signum in self.signals:
                signal.signal(signum, handler)

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self.trainer = trainer
        # Not earlier: Lightning sets its own handlers, which end the run with exit code 0, after `on_fit_start`.
        self._answer_with(self._receive)

    def on_test_start(self, trainer: pl.Trainer, model: Any) -> None:
        self.trainer = trainer
        self._answer_with(self._stop_at_once)

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (self.received or trainer.world_size > 1) and can_stop_after(trainer, batch_idx):
            self._stop_if_asked(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        begin_epoch(trainer)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.checkpointer is not None:
            self.checkpointer.stopped = trainer.should_stop
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        waited = time.monotonic() - self.since
        if self.received is not None and trainer.world_size == 1 and waited > _GRACE:
            self._stop_at_once(self.received, None)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        signum = self.received or 0
        if trainer.world_size > 1:  # one process may have heard it alone
            mine = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if signum:
            if self.checkpointer is not None:
                self.checkpointer.save(trainer)
            self._stop_at_once(signum, None)
