"""The best weights of a training that keeps no checkpoints, put back at its end."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

__all__ = ["BestWeights"]


class BestWeights(Callback):
    """Keep the weights of the best validation by the model's own monitor, as `best.ckpt` of a run does.

    It stands before `Averaging`, so that it sees the average where that is what is validated.
    """

    def __init__(self) -> None:
        self._best: float | None = None
        self._state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, model: Any) -> None:
        if trainer.state.fn != "fit" or model.monitor not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[model.monitor]) * (-1 if model.monitor_mode == "max" else 1)
        if math.isfinite(value) and (self._best is None or value < self._best):
            self._best = value
            self._state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def on_fit_end(self, trainer: pl.Trainer, model: Any) -> None:  # when all else has had its last look
        if self._state:
            model.load_state_dict(self._state)
