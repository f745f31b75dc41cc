"""Learning-rate schedules by name: each takes the optimizer and the number of steps of the whole run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer, lr_scheduler

__all__ = ["SCHEDULERS", "SPANS_THE_RUN"]

SPANS_THE_RUN = ("cosine", "linear", "one_cycle")  # drawn over all of its steps, which must be known


def warmup_then(optimizer: Optimizer, warmup_steps: int, decay: Callable[[int], float]) -> lr_scheduler.LambdaLR:
    """Return the schedule that rises linearly over `warmup_steps` and then follows `decay(step after warm-up)`."""

    def factor(step: int) -> float:
        return (step + 1) / (warmup_steps + 1) if step < warmup_steps else decay(step - warmup_steps)

    return lr_scheduler.LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup_steps: int = 0, min_factor: float = 0.0) -> Any:
    """lr_t = lr · (m + (1 − m) · (1 + cos(π t / T)) / 2), after a linear warm-up (Loshchilov & Hutter 2017)."""
    span = max(1, total_steps - warmup_steps)

    def decay(step: int) -> float:
        return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * min(step, span) / span))

    return warmup_then(optimizer, warmup_steps, decay)


def linear_warmup(optimizer: Optimizer, total_steps: int, *, warmup_steps: int = 100) -> Any:
    """lr_t = lr · (t + 1) / (T_w + 1) while t < T_w, then lr."""
    return warmup_then(optimizer, warmup_steps, lambda step: 1.0)


def linear(optimizer: Optimizer, total_steps: int, *, warmup_steps: int = 0, min_factor: float = 0.0) -> Any:
    """lr_t = lr · max(m, 1 − t / T), after a linear warm-up."""
    span = max(1, total_steps - warmup_steps)
    return warmup_then(optimizer, warmup_steps, lambda step: max(min_factor, 1 - step / span))


def step_decay(optimizer: Optimizer, total_steps: int, *, step_size: int = 1000, gamma: float = 0.1) -> Any:
    """lr_t = lr · γ^⌊t / step_size⌋, t in optimizer steps."""
    return lr_scheduler.StepLR(optimizer, step_size=step_size, gamma=gamma)


def inverse(optimizer: Optimizer, total_steps: int, *, offset: float = 1.0) -> Any:
    """lr_t = lr · o / (o + t): Pegasos, where lr · o = 1 / (2 λ₂) (Shalev-Shwartz, Singer & Srebro 2007)."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: offset / (offset + step))


def one_cycle(optimizer: Optimizer, total_steps: int, *, max_lr: float = 0.01, pct_start: float = 0.3) -> Any:
    """Rise to `max_lr` over `pct_start` of the run, then fall far below the start (Smith & Topin 2018)."""
    has_momentum = bool({"momentum", "betas"} & optimizer.defaults.keys())  # torch lets it fall while the rate rises
    return lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=max(1, total_steps), pct_start=pct_start, cycle_momentum=has_momentum
    )


def plateau(
    optimizer: Optimizer, total_steps: int, *, factor: float = 0.1, patience: int = 10, min_lr: float = 0.0
) -> Any:
    """Multiply the learning rate by `factor` when the validation loss has not fallen for `patience` epochs."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=min_lr)


SCHEDULERS: dict[str, Callable[..., Any]] = {
    "cosine": cosine,
    "linear": linear,
    "warmup": linear_warmup,
    "step": step_decay,
    "inverse": inverse,
    "one_cycle": one_cycle,
    "plateau": plateau,
}
