"""Optimizers, schedules and penalties by name: how a gradient model is trained, apart from what it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.checks import Range, check_type
from zoo.errors import ZooError, unknown_name
from zoo.optimizers.adafactor import Adafactor
from zoo.optimizers.adagrad import Adagrad
from zoo.optimizers.adam import Adam, AdamW
from zoo.optimizers.lbfgs import LBFGS
from zoo.optimizers.lion import Lion
from zoo.optimizers.muon import Muon
from zoo.optimizers.options import check_options, option_types
from zoo.optimizers.penalties import penalized_parameters, shrink
from zoo.optimizers.rmsprop import RMSprop
from zoo.optimizers.schedules import SCHEDULERS, SPANS_THE_RUN
from zoo.optimizers.sgd import SGD

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = ["OPTIMIZERS", "Recipe", "common_optimizers", "register_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "lbfgs": LBFGS,
    "adafactor": Adafactor,
    "lion": Lion,
    "muon": Muon,
}

# A step is one operation, where torch's default on a CPU takes up to twenty for each parameter.
_FUSED = ("adam", "adamw", "adagrad", "sgd", "rmsprop", "adafactor")


def register_optimizer(name: str) -> Callable[[type[Optimizer]], type[Optimizer]]:
    """Register the decorated `torch.optim.Optimizer` under `name`, for `optimizer=NAME`."""

    def register(cls: type[Optimizer]) -> type[Optimizer]:
        OPTIMIZERS[name] = cls
        return cls

    return register


def common_optimizers() -> list[str]:
    """Return the names of the optimizers that any model of steps may choose.

    >>> "adam" in common_optimizers(), "tsne" in common_optimizers()
    (True, False)
    """
    return [name for name, optimizer in OPTIMIZERS.items() if not getattr(optimizer, "of_one_model", False)]


@dataclass(frozen=True)
class Recipe:
    """How a gradient model is trained.

    Attributes:
        optimizer: a name of `OPTIMIZERS`.
        optimizer_options: its parameters, under torch's own names; `source="torch"` takes torch's optimizer itself.
        scheduler: a name of `SCHEDULERS`, or `none`.
        scheduler_options: its parameters.
        l1: λ₁ of the penalty λ₁ Σ|w|.
        l2: λ₂ of the penalty λ₂ Σ w².
        l1_steps: whether λ₁ adds its subgradient to the `gradient`, or is taken in `proximal` steps, which set weights
            to zero and belong to the optimizer sgd.
        mixup: α of Beta(α, α), by which the rows of a batch are mixed with each other; 0 leaves them.
        label_noise: share of a step's labels that are drawn anew; of values the deviation of the noise on them, in
            deviations of the target.
        weight_noise: deviation σ of the noise on weights while a step's gradient is taken.

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
    l1_steps: Literal["gradient", "proximal"] = "gradient"
    mixup: float = 0.0
    label_noise: float = 0.0
    weight_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, common_optimizers())
        if self.scheduler not in (*SCHEDULERS, "none"):
            raise unknown_name("scheduler", self.scheduler, (*SCHEDULERS, "none"))
        check_options("optimizer", self.optimizer, OPTIMIZERS[self.optimizer], self.optimizer_options)
        if self.scheduler != "none":
            check_options("scheduler", self.scheduler, SCHEDULERS[self.scheduler], self.scheduler_options)
        check_type("regularization.label_noise", self.label_noise, Annotated[float, Range(0, 1)])
        for name in ("l1", "l2", "mixup", "weight_noise"):
            check_type(f"regularization.{name}", getattr(self, name), Annotated[float, Range(0)])
        check_type("regularization.l1_steps", self.l1_steps, Literal["gradient", "proximal"])
        if self.l1 and self.l1_steps == "proximal" and self.optimizer != "sgd":
            raise ZooError(
                "regularization.l1_steps=proximal belongs to plain gradient descent: pass optimizer=sgd, "
                "or l1_steps=gradient."
            )
        if self.l2 and self.optimizer_options.get("weight_decay"):
            raise ZooError(
                "regularization.l2 and optimizer.weight_decay both shrink the weights: set one of the two to 0."
            )

    def build_optimizer(self, module: nn.Module) -> Optimizer:
        """Return the optimizer over the module's trainable parameters.

        Where the module says `decays_matrices_only`, `weight_decay` leaves biases and gains alone.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        options, factory = dict(self.optimizer_options), OPTIMIZERS[self.optimizer]
        if options.pop("source", "zoo") == "torch":
            factory = factory.built_in  # type: ignore[attr-defined]
        groups: list[Any] = [{"params": parameters}]
        if hasattr(factory, "groups_of"):
            groups = factory.groups_of(module, parameters)
        if options.get("weight_decay") and getattr(module, "decays_matrices_only", False):
            groups = [part for group in groups for part in _decayed_apart(group)]
        fused = self.optimizer in _FUSED and "fused" in option_types(factory)
        if fused and all(p.device.type == "cpu" and p.is_floating_point() for p in parameters):
            options = {"fused": not {"foreach", "capturable", "differentiable"} & options.keys(), **options}
        try:
            optimizer = factory(groups, **options)
        except (TypeError, ValueError) as error:
            raise ZooError(f"optimizer={self.optimizer}: {str(error).rstrip('.')}.") from error
        if options.get("fused"):  # else Lightning refuses to clip gradients in mixed precision
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        return optimizer

    def configure(self, module: pl.LightningModule) -> dict[str, Any]:
        """Return what `LightningModule.configure_optimizers` returns."""
        optimizer = self.build_optimizer(module)
        if self.scheduler == "none":
            return {"optimizer": optimizer}
        steps = total_steps(module.trainer)
        if steps == math.inf and self.scheduler in SPANS_THE_RUN:
            raise ZooError(f"scheduler={self.scheduler} needs the run's end: set trainer.max_epochs or max_steps.")
        scheduler = SCHEDULERS[self.scheduler](optimizer, steps, **self.scheduler_options)
        if self.scheduler == "plateau":
            every = module.trainer.check_val_every_n_epoch or 1  # one step a validation
            schedule = {"scheduler": scheduler, "monitor": "val/loss", "frequency": every}
            return {"optimizer": optimizer, "lr_scheduler": schedule}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Take what belongs to a step of the optimizer and follows it: the proximal step of λ₁."""
        if self.l1 and self.l1_steps == "proximal":
            shrink(module, optimizer, self.l1)

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return λ₁ Σ|w| + λ₂ Σ w², or None where both are zero; what proximal steps take is not in it."""
        l1 = 0.0 if self.l1_steps == "proximal" else self.l1
        if not (l1 or self.l2):
            return None
        weights = list(penalized_parameters(module))
        terms = [l1 * w.abs().sum() for w in weights if l1] + [self.l2 * w.square().sum() for w in weights if self.l2]
        return torch.stack(terms).sum() if terms else None


def _decayed_apart(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group of parameters as two: tensors of two or more axes, and the others, which do not decay."""
    matrices, others = ([p for p in group["params"] if (p.ndim > 1) == many] for many in (True, False))
    parts = [{**group, "params": matrices}, {**group, "params": others, "weight_decay": 0.0}]
    return [part for part in parts if part["params"]]


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
