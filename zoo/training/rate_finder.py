r"""The learning-rate range test: a short training whose learning rate grows from step to step, on a copy of the model.

```math
η_t = η_0 \left(\frac{η_{T}}{η_0}\right)^{t/T}, \qquad \hat η = \arg\min_{η} \frac{d\,\bar ℓ}{d \log η}
```

with $\bar ℓ$ the loss ℓ_t of step t, smoothed by a Gaussian mean over neighbouring steps: the rate at which the loss
falls fastest. The test ends where the smoothed loss has risen by as much as three times what the lowest one fell.

Source: Smith 2017, "Cyclical learning rates for training neural networks", §3.3; the rule of the steepest descent is
that of fastai (Howard & Gugger 2020).
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base import NonFiniteLossError, ZooModel
from zoo.training.checkpoint import write_whole
from zoo.training.trainer import make_trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RangeTest", "find_rate", "range_test"]

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 120
_DECADES = math.log10(HIGHEST / LOWEST)
_WIDTH = 0.15  # decades of the learning rate that the smoothing reaches, its standard deviation
_LEAST = 8  # steps that a test needs
_NOISE = 5.0  # deviations of a smoothed loss that noise alone hardly falls


class RangeTest(NamedTuple):
    """What a range test found.

    Attributes:
        rates: learning rate of each step, (T,).
        losses: loss of each step, (T,).
        smoothed: the same, smoothed, (T,).
        suggestion: the rate at which the loss falls fastest; None where it did not fall.
    """

    rates: Tensor
    losses: Tensor
    smoothed: Tensor
    suggestion: float | None

    def __str__(self) -> str:
        tried = f"in {len(self.rates)} steps with rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}"
        if self.suggestion is None:
            return f"optimizer.lr stays what it was: the loss did not fall clearly {tried}"
        return f"optimizer.lr={self.suggestion:.3g}, at which the loss fell fastest {tried}"

    def picture(self) -> Figure:
        """Draw the losses over the rates, and mark the suggestion."""
        from zoo import visual

        found = "no rate lowers the loss" if self.suggestion is None else f"suggested: {self.suggestion:.3g}"
        first, least = float(self.smoothed[0]), float(self.smoothed.min())
        most = first + 0.5 * max(first - least, 0.1 * abs(first))  # what diverged is cut off
        shown = {"each step": self.losses.clamp(max=most), "smoothed": self.smoothed.clamp(max=most)}
        figure = visual.curve(
            shown, self.rates, title=f"learning-rate range test ({found})", xlabel="learning rate", ylabel="loss",
            log_x=True,
        )  # fmt: skip
        if self.suggestion is not None:
            figure.axes[0].axvline(self.suggestion, color="0.4", linewidth=1, linestyle="--")
        return figure

    def write(self, folder: Path) -> list[Path]:
        """Write the picture and the curve's numbers into a folder."""
        from zoo import visual

        folder.mkdir(parents=True, exist_ok=True)
        rows = zip(self.rates.tolist(), self.losses.tolist(), self.smoothed.tolist(), strict=True)
        text = "\n".join(["learning_rate,loss,smoothed", *(",".join(f"{v:.6g}" for v in row) for row in rows)]) + "\n"
        write_whole(folder / "learning_rate.csv", lambda file: file.write(text.encode()))
        visual.save(self.picture(), folder / "learning_rate.png")
        return [folder / "learning_rate.csv", folder / "learning_rate.png"]


def find_rate(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Return the learning rate at which the loss falls fastest.

    Args:
        rates: learning rate of each step, each a multiple of the one before.
        losses: loss of each step.

    Example:
        >>> rates = [10 ** (-7 + t / 10) for t in range(70)]
        >>> falls = [2.3 - 2 / (1 + (1e-2 / rate) ** 2) for rate in rates]  # steepest at 0.01
        >>> f"{find_rate(rates, falls).suggestion:.2g}"
        '0.01'
    """
    values = torch.tensor(losses, dtype=torch.float64)
    width = _WIDTH / math.log10(rates[1] / rates[0]) if len(rates) > 1 else 1.0
    smoothed = smooth(values, width)
    found = RangeTest(torch.tensor(rates, dtype=torch.float64), values, smoothed, None)
    if len(values) < _LEAST:
        return found
    lowest = int(smoothed.argmin())
    begin = float(smoothed[: max(1, lowest // 4)].mean())
    between = float(values[: max(lowest, _LEAST)].diff().std()) / math.sqrt(2)  # of the loss of a step
    noise = between / math.sqrt(max(1.0, 2 * math.sqrt(math.pi) * width))  # and of a smoothed one
    if lowest < 2 or begin - float(smoothed[lowest]) <= _NOISE * noise:
        return found
    slopes = smoothed[2:] - smoothed[:-2]
    steepest = int(slopes[: max(1, lowest - 1)].argmin()) + 1
    return found._replace(suggestion=float(f"{found.rates[steepest]:.3g}"))


def smooth(values: Tensor, width: float) -> Tensor:
    """Return the Gaussian mean of each value (T,) and its neighbours, of a standard deviation of `width` places."""
    place = torch.arange(len(values), dtype=values.dtype)
    weight = (-(place - place[:, None]).square() / (2 * width**2)).exp()
    return weight @ values / weight.sum(1)


class _Rise(Callback):
    """Raise the learning rate before each step, and keep the loss of each."""

    def __init__(self, steps: int) -> None:
        self.planned = torch.logspace(math.log10(LOWEST), math.log10(HIGHEST), steps, dtype=torch.float64).tolist()
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._sum, self._rows = 0.0, 0  # of the batches of a step
        self._groups: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, model: Any, batch: Any, batch_idx: int) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if not self._groups:  # those that take their rate from elsewhere keep it, as in the training that follows
            usual = model.recipe.optimizer_options.get("lr", groups[0]["lr"])
            self._groups = [group for group in groups if float(group["lr"]) == usual]
        for group in self._groups:
            group["lr"] = self.planned[len(self.rates)]

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        size = batch.size if isinstance(batch, Batch) else 1
        if (loss := model.last_loss) is not None:
            self._sum, self._rows = self._sum + loss * size, self._rows + size
        if not self._rows or ((batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch):
            return
        self.rates.append(self.planned[len(self.rates)])
        self.losses.append(self._sum / self._rows)
        self._sum, self._rows = 0.0, 0
        trainer.should_stop = len(self.rates) == len(self.planned) or self._has_risen()

    def _has_risen(self) -> bool:
        if not math.isfinite(self.losses[-1]):
            return True
        if len(self.losses) < _LEAST:
            return False
        smoothed = smooth(torch.tensor(self.losses, dtype=torch.float64), _WIDTH * (len(self.planned) - 1) / _DECADES)
        first, least = float(smoothed[0]), float(smoothed.min())
        return float(smoothed[-1]) > first + 3 * max(first - least, 0.1 * abs(first))


def range_test(model: ZooModel, data: Any, *, steps: int = STEPS, **options: Any) -> RangeTest:
    """Train a copy of a built model with growing learning rates; the model and all random streams stay as they are.

    Args:
        model: a model of steps, built for the data.
        data: its DataModule.
        steps: steps from 1e-7 to 10.
        **options: of `zoo.training.trainer.make_trainer`, such as `accelerator` and `gradient_clip_val`.
    """
    trial, rise = copy.deepcopy(model), _Rise(steps)
    trial.train_by(replace(model.recipe, scheduler="none", scheduler_options={}))
    trainer = make_trainer(
        trial, callbacks=[rise], progress=False, max_epochs=-1, limit_val_batches=0, logger=False, **options
    )
    states = random.getstate(), np.random.get_state()
    streams = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with streams, contextlib.suppress(NonFiniteLossError):  # the rate of the last step was too high
        trainer.fit(trial, datamodule=data)
    random.setstate(states[0])
    np.random.set_state(states[1])
    return find_rate(rise.rates, rise.losses)
