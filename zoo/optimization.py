"""Optimizers, schedules and penalties by name: how a gradient model is trained, apart from what it is.

The penalty is that of the textbooks, on weights (tensors of two or more axes: biases and norms are left alone) and
beside the mean loss over examples, so that λ means the same for every batch size and every solver:

```math
J(θ) = 1/n Σ_i loss_i + λ₁ Σ|w| + λ₂ Σ w²
```
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from zoo.errors import ZooError, nearest, unknown_name
from zoo.registry import check_type

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = ["OPTIMIZERS", "SCHEDULERS", "Recipe", "penalized_parameters", "register_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lbfgs": torch.optim.LBFGS,
}


def register_optimizer(name: str) -> Callable[[type[Optimizer]], type[Optimizer]]:
    """Register the decorated `torch.optim.Optimizer` under `name`, for `optimizer=NAME`."""

    def register(cls: type[Optimizer]) -> type[Optimizer]:
        OPTIMIZERS[name] = cls
        return cls

    return register


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


def step_decay(optimizer: Optimizer, total_steps: int, *, step_size: int = 1000, gamma: float = 0.1) -> Any:
    """lr_t = lr · γ^⌊t / step_size⌋, t in optimizer steps."""
    return lr_scheduler.StepLR(optimizer, step_size=step_size, gamma=gamma)


def one_cycle(optimizer: Optimizer, total_steps: int, *, max_lr: float = 0.01, pct_start: float = 0.3) -> Any:
    """Rise to `max_lr` over `pct_start` of the run, then fall far below the start (Smith & Topin 2018)."""
    return lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=max(1, total_steps), pct_start=pct_start)


def plateau(
    optimizer: Optimizer, total_steps: int, *, factor: float = 0.1, patience: int = 10, min_lr: float = 0.0
) -> Any:
    """Multiply the learning rate by `factor` when the validation loss has not fallen for `patience` epochs."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=min_lr)


SCHEDULERS: dict[str, Callable[..., Any]] = {
    "cosine": cosine,
    "warmup": linear_warmup,
    "step": step_decay,
    "one_cycle": one_cycle,
    "plateau": plateau,
}


def penalized_parameters(module: nn.Module) -> Iterable[nn.Parameter]:
    """The weights that a penalty shrinks: trainable tensors of two or more axes."""
    return (p for p in module.parameters() if p.requires_grad and p.ndim > 1)


@dataclass(frozen=True)
class Recipe:
    """How a gradient model is trained.

    Attributes:
        optimizer: a name of `OPTIMIZERS`.
        optimizer_options: its parameters, under torch's own names.
        scheduler: a name of `SCHEDULERS`, or `none`.
        scheduler_options: its parameters.
        l1: λ₁ of the penalty λ₁ Σ|w|.
        l2: λ₂ of the penalty λ₂ Σ w².

    Example:
        >>> Recipe("sgd", {"lr": 0.1, "momentum": 0.9}, l2=1e-4).optimizer
        'sgd'
    """

    optimizer: str = "adam"
    optimizer_options: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-3})
    scheduler: str = "none"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.scheduler not in (*SCHEDULERS, "none"):
            raise unknown_name("scheduler", self.scheduler, (*SCHEDULERS, "none"))
        _check_options("optimizer", self.optimizer, OPTIMIZERS[self.optimizer], self.optimizer_options)
        if self.scheduler != "none":
            _check_options("scheduler", self.scheduler, SCHEDULERS[self.scheduler], self.scheduler_options)
        for name in ("l1", "l2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ZooError(f"regularization.{name} must be 0 or more, not {getattr(self, name)}.")
        if self.l2 and self.optimizer_options.get("weight_decay"):
            raise ZooError(
                "regularization.l2 and optimizer.weight_decay both shrink the weights: set one of the two to 0."
            )

    def build_optimizer(self, module: nn.Module) -> Optimizer:
        """Return the optimizer over the module's trainable parameters."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        try:
            return OPTIMIZERS[self.optimizer](parameters, **self.optimizer_options)
        except (TypeError, ValueError) as error:
            raise ZooError(f"optimizer={self.optimizer}: {error}.") from error

    def configure(self, module: pl.LightningModule) -> dict[str, Any]:
        """Return what `LightningModule.configure_optimizers` returns."""
        optimizer = self.build_optimizer(module)
        if self.scheduler == "none":
            return {"optimizer": optimizer}
        steps = total_steps(module.trainer)
        if steps == math.inf and self.scheduler in ("cosine", "one_cycle"):
            raise ZooError(f"scheduler={self.scheduler} needs the run's end: set trainer.max_epochs or max_steps.")
        scheduler = SCHEDULERS[self.scheduler](optimizer, steps, **self.scheduler_options)
        if self.scheduler == "plateau":
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return λ₁ Σ|w| + λ₂ Σ w², or None where both are zero."""
        if not (self.l1 or self.l2):
            return None
        weights = list(penalized_parameters(module))
        terms = [self.l1 * w.abs().sum() for w in weights if self.l1] + [
            self.l2 * w.square().sum() for w in weights if self.l2
        ]
        return torch.stack(terms).sum() if terms else None


def _check_options(what: str, name: str, factory: Callable[..., Any], options: dict[str, Any]) -> None:
    skip = {"params", "optimizer", "total_steps", "self"}
    valid = {key: p.default for key, p in inspect.signature(factory).parameters.items() if key not in skip}
    for key, value in options.items():
        if key not in valid:
            raise ZooError(f"{what} '{name}' has no option '{key}'.{nearest(key, valid)} Valid: {', '.join(valid)}.")
        kind = bool if isinstance(valid[key], bool) else float if isinstance(valid[key], int | float) else Any
        if not isinstance(value, Tensor):
            check_type(f"{what}.{key}", value, kind)


def total_steps(trainer: Any) -> float:
    """Number of optimizer steps of the whole run, infinite where nothing ends it.

    `trainer.estimated_stepping_batches` would start the loader before a resumed run's position is known, so that the
    first batches would be taken again.
    """
    most = trainer.max_steps if trainer.max_steps > 0 else math.inf
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return most
    if trainer.datamodule is None:
        return trainer.estimated_stepping_batches
    num_batches = len(trainer.datamodule.train_dataloader())
    limit = trainer.limit_train_batches
    num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    return min(most, math.ceil(num_batches / trainer.accumulate_grad_batches) * trainer.max_epochs)
