r"""What a training came to, in a sentence: underfitting, overfitting or neither, by what that is told, and what to try.

With the error e of some training rows (t) and validation rows (v), of the model as it stands at the end, and c that of
the best constant answer, which knows how the training targets are distributed and nothing else:

```math
\text{overfitting: } e_v - e_t > \max(0.1\, c,\; 2.5\, s), \quad \text{underfitting: } e_t > \tfrac12 c
```

s is the standard error of the difference, $s^2 = \mathrm{var}_v / n_v + \mathrm{var}_t / n_t$. The error is the share
of wrong answers for classes, the mean squared error for values, and the cross-entropy for tokens. Half that gap is
overfitting, too, where the validation error is five times that of training, and so is a validation loss that has risen
by a quarter since its best; a training loss that still falls while 30 % of c are left is underfitting.

Source: Hastie, Tibshirani & Friedman 2009, §7.2; the thresholds are this project's own (docs/training.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.models.base import ZooModel
from zoo.models.base.objectives import IGNORED
from zoo.training.convergence import still_falling
from zoo.training.history import History
from zoo.training.pictures import spread
from zoo.training.shares import in_shares

__all__ = ["Diagnosis", "Evidence", "Finding", "diagnose"]

LEAST_ROWS = 20  # of validation, below which nothing is told by them
_GAP, _HIGH, _RISE, _LEFT = 0.1, 0.5, 0.25, 0.3

# What makes a model larger, and what holds it back, by the name of the hyperparameter.
CAPACITY = ("widths", "channels", "hidden_size", "num_layers", "num_leaves", "max_depth", "num_trees")
OF_TREES = ("max_depth", "min_samples_leaf", "num_leaves")


class Evidence(NamedTuple):
    """What a diagnosis is told by.

    Attributes:
        train: errors of some training rows, (N,).
        validation: errors of some validation rows, (M,).
        constant: mean error of the best constant answer on the validation rows (training rows, if there are none).
        train_curve: training loss of each epoch.
        validation_curve: validation loss of each epoch.
        measure: what the error is.
        constant_loss: the loss of the constant answer, beside which the curves stand, or None where that is unknown.
    """

    train: Tensor
    validation: Tensor
    constant: float
    train_curve: Sequence[float] = ()
    validation_curve: Sequence[float] = ()
    measure: str = "error"
    constant_loss: float | None = None


class Finding(NamedTuple):
    """A diagnosis: `underfitting`, `overfitting`, `neither` or `unknown`; why; and which way to go."""

    verdict: str
    why: str
    try_: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.why}." + (f" Try {self.try_}." if self.try_ else "")


def diagnose(evidence: Evidence, more: str = "a larger model", less: str = "a smaller model") -> Finding:
    """Return what the evidence says.

    Args:
        evidence: errors, curves, and what a constant answer gets.
        more: what to try where a model is too small or was trained too short.
        less: what to try where it learns its rows by heart.

    Example:
        >>> rows = torch.cat([torch.ones(30), torch.zeros(70)])
        >>> diagnose(Evidence(torch.zeros(100), rows, 0.5)).verdict, diagnose(Evidence(rows, rows, 0.5)).verdict
        ('overfitting', 'underfitting')
    """
    train, validation, constant = evidence.train.double(), evidence.validation.double(), evidence.constant
    if not len(train):
        return Finding("unknown", "there is no training row to look at")
    if constant <= 0 and len(validation) != 1:
        return Finding("unknown", "the target is constant, so that there is nothing to learn", "another data.target")
    low, high = float(train.mean()), float(validation.mean()) if len(validation) else math.nan
    told = f"{evidence.measure} {low:.3g} in training"
    told += f" and {high:.3g} in validation" if len(validation) else ""
    told += f", where a constant answer gets {constant:.3g}"
    few = 0 < len(validation) < LEAST_ROWS
    if not math.isfinite(low):
        return Finding("underfitting", f"{told}: the training has diverged", "a lower optimizer.lr")
    falls = _still_falls(evidence)
    if low > 1.1 * constant > 0 and not few:
        return Finding(
            "underfitting", f"{told}: worse than a constant", f"a lower optimizer.lr if the loss rose, else {more}"
        )
    gap = high - low
    if len(validation) >= LEAST_ROWS:
        error = math.sqrt(_variance(train) / len(train) + _variance(validation) / len(validation))
        rise = _rise(evidence.validation_curve)
        wide = gap > _GAP * constant and gap > 0.3 * high
        if (wide or (gap > _GAP / 2 * constant and high > 5 * low)) and gap > 2.5 * error:
            return Finding(
                "overfitting", f"{told}: a gap of {gap / error:.0f} standard errors" if error else told, less
            )
        if rise > _RISE and gap > error:
            why = f"{told}, and the validation loss has risen by {100 * rise:.0f} % since its best"
            return Finding("overfitting", why, less)
    if constant > 0 and (low > _HIGH * constant or falls):
        why = f"{told}" + (", and the training loss still falls" if falls else "")
        return Finding("underfitting", why, more)
    if few:
        rows = f"{len(validation)} validation row{'s' * (len(validation) != 1)}"
        why = f"{rows} cannot tell what was learnt from what was learnt by heart ({told})"
        return Finding("unknown", why, f"a data.val_fraction that gives {LEAST_ROWS} or more")
    if not len(validation):
        why = f"{told}; without validation rows overfitting cannot be seen"
        return Finding("unknown", why, "data.val_fraction=0.2")
    return Finding("neither", told)


def _variance(errors: Tensor) -> float:
    return float(errors.var(correction=0))


def _rise(curve: Sequence[float]) -> float:
    """By which share the last validation loss lies above the best one."""
    finite = [value for value in curve if math.isfinite(value)]
    best = min(finite, default=0.0)
    return finite[-1] / best - 1 if best > 0 else 0.0


def _still_falls(evidence: Evidence) -> bool:
    curve, constant = evidence.train_curve, evidence.constant_loss
    if not curve or constant is None or constant <= 0:
        return False
    return still_falling(curve) is not None and curve[-1] > _LEFT * constant


class Diagnosis(Callback):
    """Diagnose a training at its end, of supervised models; `finding` is None for all others."""

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self.curves: dict[str, list[float]] = {}

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        # The first process has all rows to look at; of a model in shares all look at the same, for each has a part.
        if not (trainer.is_global_zero or in_shares(model)):
            return
        with torch.random.fork_rng(devices=[]):
            evidence = gather(trainer, model)
        if evidence is not None:
            self.curves = {"training": list(evidence.train_curve), "validation": list(evidence.validation_curve)}
            self.finding = diagnose(evidence, _more(model), _less(model))


def gather(trainer: Any, model: ZooModel) -> Evidence | None:
    """Return the evidence of a training that is over, or None where there are no targets to be right or wrong about."""
    data, spec = trainer.datamodule, model.spec
    if spec is None or model.entry.unsupervised or spec.target not in ("class", "value", "tokens"):
        return None
    if not hasattr(data, "rows") or not data.has("train"):
        return None
    training, trainer_of = model.training, model._trainer
    model.eval()
    model._trainer = None  # rows are looked at one by one, by a model that would carry a state from batch to batch, too
    found = {split: _measured(model, data.rows(split)) for split in ("train", "val") if data.has(split)}
    model._trainer = trainer_of
    model.train(training)
    if any(part is None for part in found.values()):
        return None
    errors, y, measure = found["train"]  # type: ignore[misc]
    held, held_y, _ = found.get("val") or (errors[:0], y[:0], measure)
    answers = held_y if len(held_y) else y
    train_curve, validation_curve = _curves(trainer, model)
    constant, loss = constant_error(y, answers, spec.target)
    objective = getattr(model, "objective", None)  # support vector machines have none
    scaled = spec.target == "value" and getattr(objective, "target_mean", None) is not None
    return Evidence(errors, held, constant, train_curve, validation_curve, measure, 1.0 if scaled else loss)


def _curves(trainer: Any, model: ZooModel) -> tuple[list[float], list[float]]:
    """Training and validation loss of each epoch; the passes of a solved model are no such thing."""
    rows: list[dict[str, Any]] = next((c.rows for c in trainer.callbacks if isinstance(c, History)), [])
    if model.streaming:
        rows = []
    train, validation = (
        [float(row[key]) for row in rows if row.get(key) not in (None, "")] for key in ("train/loss", "val/loss")
    )
    return train, validation


@torch.inference_mode()
def _measured(model: ZooModel, rows: Any) -> tuple[Tensor, Tensor, str] | None:
    """The error of each of some rows, their targets, and what the error is."""
    spec = model.spec
    assert spec is not None
    index = spread(len(rows), 1024 if spec.kind in ("tabular", "image") else 128)
    errors, targets, measure = [], [], ""
    for part in index.split(256):
        batch = model.as_batch(rows[part])
        values = model.evaluate(batch)
        names = {"class": "accuracy", "value": "mse", "tokens": "loss"}
        name = names[spec.target] if names[spec.target] in values else "loss"  # type: ignore[index]
        if batch.y is None or name not in values:
            return None
        value = values[name].double().cpu()
        errors.append(1 - value if name == "accuracy" else value)
        targets.append(batch.y.cpu())
        measure = {"accuracy": "share of wrong answers", "mse": "squared error"}.get(name, "loss")
    return (torch.cat(errors), _joined(targets), measure) if errors else None


def _joined(targets: list[Tensor]) -> Tensor:
    """Targets of several batches, each padded to its own length, as one list of rows or of tokens."""
    if targets[0].ndim == 1 or targets[0].is_floating_point():
        return torch.cat(targets)
    flat = torch.cat([part.reshape(-1) for part in targets])
    return flat[flat != IGNORED]


def constant_error(train: Tensor, answers: Tensor, target: str) -> tuple[float, float]:
    """Return the mean error, and the mean loss, of the best constant answer of the training targets.

    >>> constant_error(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1]), "class")[0]
    0.5
    """
    if target == "value":
        error = float((answers.double() - train.double().mean(0)).square().mean()) if len(train) else 0.0
        spread_ = float(train.double().var(0, correction=0).mean())
        return (error, error) if spread_ > 0 else (0.0, 0.0)
    size = int(max(train.max(), answers.max())) + 1 if len(train) and len(answers) else 1
    counts = torch.bincount(train.long(), minlength=size).double() + 0.5
    loss = float(-(counts / counts.sum()).log()[answers.long()].mean())
    if target == "tokens":
        return loss, loss
    return float((answers != train.mode().values).double().mean()), loss


def _more(model: ZooModel) -> str:
    """What to try where a model is too small, or was trained too short, in this project's names."""
    names = [f"model.{name}" for name in CAPACITY if model.hparams.get(name) is not None][:2]
    options = ["trainer.max_epochs or optimizer.lr higher"] if "optimizer" in model.heeds else []
    options += [f"{' and '.join(names)} larger"] if names else []
    if model.recipe.l1 or model.recipe.l2:
        options.append("regularization lower")
    if model.hparams.get("dropout"):
        options.append("model.dropout lower")
    return ", ".join(options) or "more features, or a model that bends more (model=gradient_boosting, mlp)"


def _less(model: ZooModel) -> str:
    """What to try where a model learns its rows by heart, in this project's names."""
    options = ["more rows"]
    parts = [*(["l2"] if "penalties" in model.heeds else []), *(["dropout"] if "dropout" in model.hparams else [])]
    if "optimizer" in model.heeds:
        parts.append("early_stopping")
    if parts:
        options.append(f"regularization=[{','.join(parts)}]")
    trees = [f"model.{name}" for name in OF_TREES if name in model.hparams]
    if trees:
        options.append(f"{trees[0]} lower" + (", model.min_samples_leaf higher" if len(trees) > 1 else ""))
    sizes = [f"model.{name}" for name in CAPACITY if name in model.hparams and name not in (*OF_TREES, "num_trees")]
    if sizes:
        options.append(f"{sizes[0]} smaller")
    if "C" in model.hparams:
        options.append("model.C lower")
    return ", ".join(options)
