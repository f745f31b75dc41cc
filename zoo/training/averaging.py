"""Averages of the weights in a training: the average is what is validated, tested and kept; steps go on from their own.

The checkpoint holds both: its `state_dict` is the average, which `load_model` takes, and beside it are the weights that
the next step starts from, so that a resumed run ends in the same bits.
"""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.optimizers.averaging import EMA, SWA, average_into
from zoo.optimizers.recipe import total_steps

__all__ = ["Averaging", "measure_norms"]

log = logging.getLogger("zoo")


class Averaging(Callback):
    """Keep the average of a model's weights.

    What batch normalization measures is averaged with them by `EMA`. The statistics that belong to a mean of `SWA` are
    measured in a pass over the training rows before it is looked at.

    Args:
        average: which points count, and how much.
    """

    def __init__(self, average: EMA | SWA) -> None:
        self.average, self.count = average, 0
        self._values: dict[str, Tensor] = {}  # the average, or, while that is in the model, the weights of the steps
        self._inside = False  # whether the average is in the model
        self._seen = 0  # steps that were looked at
        self._first: float = 0  # step from which on points are taken
        self._measured = False  # whether the statistics are those of the average

    # -- points --------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        here = state_of(model)
        if not self._values:
            self._values = {name: tensor.clone() for name, tensor in here.items()}
        self._values = {name: value.to(here[name].device) for name, value in self._values.items()}
        self._seen = trainer.global_step
        if isinstance(self.average, SWA):
            steps = total_steps(trainer)
            if steps == math.inf:
                raise ZooError("averaging=swa needs the run's end: set trainer.max_epochs or max_steps.")
            self._first = self.average.start * steps

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        rate = getattr(self.average, "swa_lr", None)
        if rate is not None and trainer.global_step >= self._first:
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if self._takes(trainer):
            here = state_of(model)
            if isinstance(self.average, SWA):  # of counts and statistics the last are taken
                weights = dict(model.named_parameters())
                average_into({k: v for k, v in self._values.items() if k not in weights}, here, 1.0)
                here = {name: here[name] for name in weights}
            average_into({name: self._values[name] for name in here}, here, self.average.share(self.count))
            self.count, self._measured = self.count + 1, False

    def _takes(self, trainer: pl.Trainer) -> bool:
        """Whether this step's weights are a point of the average."""
        if isinstance(self.average, EMA):
            return True
        if self._seen < self._first:
            return False
        if self.average.every is not None:
            return (self._seen - math.ceil(self._first)) % self.average.every == 0
        return trainer.is_last_batch or self._seen == trainer.max_steps

    # -- looking at the average ----------------------------------------------------------------------------------

    def on_validation_start(self, trainer: pl.Trainer, model: Any) -> None:
        if trainer.state.fn == "fit" and self.count:
            self._exchange(model)
            self._measure(trainer, model)

    def on_validation_end(self, trainer: pl.Trainer, model: Any) -> None:
        if trainer.state.fn == "fit" and self._inside:
            self._exchange(model)

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        if not self.count:
            log.warning("averaging took no weights: the run ended before averaging.start; lower it.")
            return
        self._exchange(model)
        self._measure(trainer, model)

    @torch.no_grad()
    def _exchange(self, model: Any) -> None:
        """Put the average into the model in the place of the weights of the steps, or these back."""
        for name, tensor in state_of(model).items():
            held, kept = self._values[name], tensor.clone()
            tensor.copy_(held)
            held.copy_(kept)
        self._inside = not self._inside

    def _measure(self, trainer: pl.Trainer, model: Any) -> None:
        if isinstance(self.average, SWA) and not self._measured:
            measure_norms(trainer, model)
            self._measured = True

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: pl.Trainer, model: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["averaging"] = {"count": self.count}
        if not self.count:
            return
        inside = self._inside
        if not inside:
            self._exchange(model)
        state = model.state_dict()
        checkpoint["state_dict"] = {name: tensor.clone() for name, tensor in state.items()}
        checkpoint["averaging"]["weights"] = {name: tensor.clone() for name, tensor in self._values.items()}
        if not inside:
            self._exchange(model)

    @torch.no_grad()
    def on_load_checkpoint(self, trainer: pl.Trainer, model: Any, checkpoint: dict[str, Any]) -> None:
        here, saved = state_of(model), checkpoint.get("averaging", {"count": 0})
        self.count, self._inside, self._measured = saved["count"], False, False
        self._values = {name: tensor.clone() for name, tensor in here.items()}
        for name, tensor in saved.get("weights", {}).items():
            here[name].copy_(tensor)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model that its checkpoint holds, each once, whatever shares it."""
    kept = model.state_dict().keys()
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    return tensors | {name: buffer for name, buffer in model.named_buffers() if name in kept}


@torch.no_grad()
def measure_norms(trainer: pl.Trainer, model: Any) -> None:
    """Measure anew what the batch normalizations of a model keep of their inputs, in a pass over the training rows.

    Nothing is drawn at random, and no row is augmented.

    Args:
        trainer: of the training, whose rows are taken.
        model: whose weights have changed without a step.
    """
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return
    was, momenta = model.training, [norm.momentum for norm in norms]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    data = trainer.datamodule  # type: ignore[attr-defined]
    most = trainer.num_training_batches
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        loader = data.loader("train", drop_ragged=True) if hasattr(data, "loader") else data.train_dataloader()
        for batch in itertools.islice(loader, int(most) if math.isfinite(most) else None):
            batch = model.as_batch(batch)
            if batch.size > 1:
                model.output(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if trainer.world_size > 1:  # each process has seen its own rows
            for statistic in (norm.running_mean, norm.running_var):
                statistic.copy_(trainer.strategy.reduce(statistic.clone(), reduce_op="mean"))
    for module, mode in modes.items():
        module.training = mode
    assert model.training == was
