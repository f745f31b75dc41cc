r"""Training methods: what a step sees. Gradient descent over all rows, over one, or over a few.

```math
\theta \leftarrow \theta - \eta\, \frac{\sum_i w_i \nabla \ell_i}{\sum_i w_i}, \qquad i \in
\text{all rows (batch)},\; \text{one (stochastic)},\; n \text{ of them (minibatch)}
```

A step over all rows takes them a batch at a time, and adds each batch's gradient with the weight of its rows: it needs
no more memory than a step over a batch, and ends in the same weights, whatever the batches' size.

The learning rate goes with the root of the rows of a step, $\eta \sqrt{n'/n}$: the noise of a step stays as it was.

Sources: Cauchy 1847; Robbins & Monro 1951; Krizhevsky 2014, §5, and Malladi et al. 2022 (the root).
"""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from zoo.data.spec import Batch
from zoo.errors import ZooError

__all__ = ["NEVER", "WholeSet", "check_training", "learning_rate"]

NEVER = 2**30  # batches to add up before a step: it comes at the epoch's end; a power of two divides without rounding


class WholeSet(Callback):
    """Take one step an epoch, by the gradient of the mean loss over all of its rows."""

    def __init__(self) -> None:
        self._weight = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, model: Any) -> None:
        self._weight = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, model: Any, batch: Any, batch_idx: int) -> None:
        weight = _weight_of(model, batch)
        self._weight += weight
        model.step_weight = weight * trainer.accumulate_grad_batches  # by which Lightning divides

    def on_before_optimizer_step(self, trainer: pl.Trainer, model: Any, optimizer: Any) -> None:
        total = self._weight
        if trainer.world_size > 1:  # gradients are means over the processes
            mine = torch.tensor(total, dtype=torch.float64, device=trainer.strategy.root_device)
            total = float(trainer.strategy.reduce(mine, reduce_op="mean"))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= total

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        model.step_weight = None


def _weight_of(model: Any, batch: Any) -> float:
    weight = model.row_weight(batch) if isinstance(batch, Batch) else None
    return float(batch.size if weight is None else weight.double().sum())


def check_training(name: str, model: Any, optimizer: str) -> None:
    """Raise one line where a method of training is not for a model or its optimizer.

    Args:
        name: `batch`, `stochastic` or `minibatch`.
        model: the created model.
        optimizer: the name of its optimizer.
    """
    if name == "batch" and not model.automatic_optimization:
        raise ZooError(f"training=batch is not for {model.entry.name}, which takes many steps a batch: leave it out.")
    if name == "batch" and optimizer == "lbfgs":
        raise ZooError(
            "optimizer=lbfgs evaluates the loss anew within a step: pass data.batch_size=0 for training=batch."
        )


def learning_rate(rate: float, rows: int, usual: int) -> float:
    """Return the learning rate of steps over so many rows, given that of the `usual` number.

    >>> learning_rate(0.001, 6400, 64)
    0.01
    """
    return rate * math.sqrt(rows / usual)
