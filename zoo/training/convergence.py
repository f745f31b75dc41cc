"""A fit that stops short of what it was looking for says so, and what to do."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from zoo.errors import NotConverged

__all__ = ["Convergence", "still_falling", "warn_unless_done"]

# How far a loss may fall over the last tenth of the epochs, as a share of itself, of all that it fell, of the first.
LARGE, SMALL, OF_ALL, LEAST = 0.01, 0.001, 0.02, 1e-6


class Convergence(Callback):
    """Warn at the end of a fit that was stopped by a limit: of a model with
    passes to go, or of a convex one whose loss falls.

    Args:
        limit: what the face that was used calls the limit on epochs.
    """

    def __init__(self, limit: str = "max_epochs") -> None:
        self.limit = limit
        self.solver = "model.solver=exact" if limit.startswith("trainer.") else "solver='exact'"
        self.losses: list[float] = []

    def on_train_start(self, *args: Any) -> None:
        self.losses = []

    def on_train_epoch_end(self, trainer: pl.Trainer, model: Any) -> None:
        if model.convex and not model.streaming and "train/loss" in trainer.callback_metrics:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        if not trainer.is_global_zero or trainer.should_stop or getattr(trainer, "fast_dev_run", False):
            return
        limit = self.limit if trainer.max_steps in (None, -1) else self.limit.replace("epochs", "steps")
        if model.streaming:
            warn_unless_done(model, trainer.current_epoch, limit)
            return
        fall = still_falling(self.losses)
        if fall is not None:
            span = max(1, len(self.losses) // 10)
            last = "epoch" if span == 1 else f"{span}"
            warnings.warn(
                f"{model.entry.name} has not converged: the loss still fell by {100 * fall:.2g} % over the last {last} "
                f"of {len(self.losses)} epochs. Raise {limit} or the learning rate, or take {self.solver}, which finds "
                "the minimum.",
                NotConverged,
                stacklevel=2,
            )


def warn_unless_done(model: Any, passes: int, limit: str) -> None:
    """Warn if a model that is solved in passes was stopped before its last one."""
    if not model.done:
        warnings.warn(
            f"{model.entry.name} is not finished: it was stopped after {passes} pass{'es' * (passes != 1)}, "
            f"and has more to make. Raise {limit}, or leave it out.",
            NotConverged,
            stacklevel=3,
        )


def still_falling(losses: Sequence[float]) -> float | None:
    """Return by which share the mean loss of the last tenth of the epochs lies below that of the tenth before.

    None where that is not much (less than 1 %, and less than a fiftieth of all that it fell), where it comes and goes,
    so that the last four tenths do not fall one below the other, or where there are fewer than two epochs.

    Example:
        >>> still_falling([1.0, 0.625, 0.5]), still_falling([1.0, 0.5, 0.499])
        (0.25, None)
    """
    if len(losses) < 2:
        return None
    span = max(1, len(losses) // 10)
    means = [sum(losses[i - span : i]) / span for i in range(len(losses), span - 1, -span)][:4]
    if any(later >= earlier for later, earlier in itertools.pairwise(means)):
        return None
    last, fall, whole = abs(means[0]), means[1] - means[0], losses[0] - means[0]
    much = fall > LARGE * last or (fall > SMALL * last and fall > OF_ALL * whole)
    return fall / last if much and fall > LEAST * abs(losses[0]) else None
