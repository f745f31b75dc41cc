"""What a model is asked to do, taken from the data: number of outputs, loss, metrics and the form of a prediction.

Legend: B batch, C classes, K targets, T steps.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base.attributes import QuickAttributes
from zoo.models.base.evaluation import R2, ClassF1, ExpMean, MacroF1, Pooling, Ratio
from zoo.tasks import find_task

__all__ = [
    "OBJECTIVES",
    "BitPrediction",
    "Classification",
    "Objective",
    "OwnLoss",
    "PoissonRegression",
    "Regression",
    "TokenPrediction",
    "f1_names",
    "f1_of",
    "make_objective",
]

IGNORED = -100  # a target that does not count, as in torch
_TARGET_SCALING = ("target_mean", "target_std")


class Objective(QuickAttributes):
    """A task: `num_outputs` for the head, `losses` of its output, what to report of it and how to read it.

    `zoo.tasks` says which data pose it, and which validation value decides which checkpoint is the best.
    """

    num_outputs: int
    label_smoothing: float = 0.0  # ε: training aims at (1 − ε) [k = y] + ε / K; metrics are without it

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over the batch that training lowers, with the weights of its rows."""
        losses, weight = self.training_losses(output, batch), self.row_weight(batch)  # (B,)
        return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each example, (B,)."""
        raise NotImplementedError

    def training_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """Return what training lowers of each example, (B,)."""
        return self.losses(output, batch)

    def row_weight(self, batch: Batch) -> Tensor | None:
        """Return how much each example counts, (B,), or None where all count alike."""
        return batch.weight

    def predict(self, output: Tensor) -> Tensor:
        """Return what a user wants to read: a class, a value, a token."""
        raise NotImplementedError

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return one value a row for each metric."""
        raise NotImplementedError

    def pooling(self) -> dict[str, Pooling]:
        """Return what becomes of the values of a metric that is not their mean."""
        return {}


def f1_names(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of the F1 to report of predicted classes: of all, and of two classes also of the second.

    >>> f1_names(DataSpec("tabular", (3,), "class", num_classes=2, class_names=("ham", "spam")))
    ('f1', 'f1_spam')
    """
    if spec.num_classes != 2:
        return ("f1",)
    name = re.sub(r"\W+", "_", spec.class_names[1]).strip("_") if spec.class_names else ""
    return "f1", f"f1_{name or 1}"


def f1_of(spec: DataSpec) -> dict[str, Pooling]:
    """Return the F1 to report of predicted classes by name: the mean of all, and of two also that of the second."""
    classes = spec.num_classes or 0
    return {name: ClassF1(classes, of=1) if i else MacroF1(classes) for i, name in enumerate(f1_names(spec))}


class Classification(Objective):
    """Softmax over C classes with cross-entropy; a single logit where `binary_logit` is set and C = 2."""

    def __init__(self, spec: DataSpec, binary_logit: bool = False) -> None:
        super().__init__()
        if not spec.num_classes or spec.num_classes < 2:
            raise ZooError(f"Classification needs at least two classes; the data have {spec.num_classes or 0}.")
        self.spec, self.num_classes = spec, spec.num_classes
        self.binary_logit = binary_logit and spec.num_classes == 2
        self.num_outputs = 1 if self.binary_logit else spec.num_classes

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if self.binary_logit or batch.weight is not None:
            return super().loss(output, batch)
        assert batch.y is not None
        return F.cross_entropy(output, batch.y, label_smoothing=self.label_smoothing)  # the mean in the same operation

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        if self.binary_logit:
            # log(1 + e^z) − y z, in its stable form
            return F.binary_cross_entropy_with_logits(output.squeeze(-1), batch.y.to(output.dtype), reduction="none")
        return F.cross_entropy(output, batch.y, reduction="none")

    def training_losses(self, output: Tensor, batch: Batch) -> Tensor:
        if not self.label_smoothing or self.binary_logit:
            return self.losses(output, batch)
        assert batch.y is not None
        return F.cross_entropy(output, batch.y, reduction="none", label_smoothing=self.label_smoothing)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return class probabilities, (B, C)."""
        if self.binary_logit:
            p = torch.sigmoid(output)
            return torch.cat([1 - p, p], dim=-1)
        return output.softmax(-1)

    def predict(self, output: Tensor) -> Tensor:
        return (output.squeeze(-1) > 0).long() if self.binary_logit else output.argmax(-1)

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        predicted = self.predict(output)
        right = torch.eq(predicted, batch.y)  # type: ignore[arg-type]
        f1 = dict.fromkeys(f1_names(self.spec), predicted)
        return {"loss": self.losses(output, batch), "accuracy": right.double(), **f1}

    def pooling(self) -> dict[str, Pooling]:
        return f1_of(self.spec)


class Regression(Objective):
    r"""K real values with squared error, of targets that are shifted and scaled where `scale_targets` says so.

    The output is that of the scaled targets $(y - m)/s$, and so is the loss; predictions and all other metrics are in
    the user's units, $m + s\,o$ in float64, so that neither tiny nor huge nor far-off targets lose digits.
    """

    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_outputs = spec.num_targets
        self.squeeze = spec.num_targets == 1
        for name in _TARGET_SCALING:
            self.register_buffer(name, None)

    def scale_targets(self, mean: Tensor | None, std: Tensor | None, device: torch.device | None = None) -> None:
        """Take the mean and deviation of the targets, (K,) each, or leave them as they are where these are None."""
        for name, value in zip(_TARGET_SCALING, (mean, std), strict=True):
            setattr(self, name, None if value is None else value.detach().to(device, torch.float64, copy=True))

    def in_units(self, output: Tensor, *, shifted: bool = True) -> Tensor:
        """Return outputs (B, K), or differences of such, which are not `shifted`, in the units of the targets."""
        if self.target_mean is None or self.target_std is None:
            return output
        values = output.double() * self.target_std
        return values + self.target_mean if shifted else values

    def _errors(self, output: Tensor, batch: Batch) -> Tensor:
        """Return how far outputs lie above the scaled targets, (B, K)."""
        assert batch.y is not None
        y = batch.y.view(len(batch.y), -1)  # (B, K)
        if self.target_mean is not None and self.target_std is not None:
            y = (y - self.target_mean) / self.target_std
        return output.view_as(y) - y.to(output.dtype)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return self._errors(output, batch).square().mean(1)

    def predict(self, output: Tensor) -> Tensor:
        values = self.in_units(output)
        return values.squeeze(-1) if self.squeeze else values

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert batch.y is not None
        predicted = self.predict(output)
        errors = (predicted - batch.y).view(len(batch.y), -1)  # (B, K)
        squared = errors.square().mean(1)
        losses = squared if self.target_mean is None else self.losses(output, batch)
        return {"loss": losses, "mse": squared, "mae": errors.abs().mean(1), "r2": predicted}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Scale as the saved model did, whatever this one was built with."""
        for name in _TARGET_SCALING:
            saved = state_dict.get(prefix + name)
            setattr(self, name, None if saved is None else saved.clone())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def pooling(self) -> dict[str, Pooling]:
        return {"r2": R2(self.num_outputs)}


class PoissonRegression(Regression):
    """K counts or rates of 0 or more: the output is the logarithm of the mean, the loss half the Poisson deviance."""

    def scale_targets(self, mean: Tensor | None, std: Tensor | None, device: torch.device | None = None) -> None:
        """Leave counts as they are: their logarithm is of order 1 whatever their scale, and none may be below 0."""

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        log_mean, y = output.view(len(batch.y), -1), batch.y.view(len(batch.y), -1)  # (B, K)
        return (log_mean.exp() - y * log_mean + torch.xlogy(y, y) - y).mean(1)

    def predict(self, output: Tensor) -> Tensor:
        return super().predict(output).exp()

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {**super().evaluate(output, batch), "loss": self.losses(output, batch)}


class TokenPrediction(Objective):
    """The next token at every step: softmax over the vocabulary; targets of −100, such as padding, do not count.

    Output (B, T, V), targets (B, T).
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not spec.vocab_size:
            raise ZooError("A language model needs the vocabulary's size; the data do not say it.")
        self.num_outputs = spec.vocab_size

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return self._cross_entropy(output, batch, 0.0)

    def training_losses(self, output: Tensor, batch: Batch) -> Tensor:
        return self._cross_entropy(output, batch, self.label_smoothing)

    def _cross_entropy(self, output: Tensor, batch: Batch, smoothing: float) -> Tensor:
        assert batch.y is not None
        nll = F.cross_entropy(
            output.flatten(0, -2), batch.y.flatten(), reduction="none", ignore_index=IGNORED, label_smoothing=smoothing
        )
        return nll.view_as(batch.y).sum(-1) / self._counts(batch).clamp_min(1)  # the mean over an example's tokens

    def _counts(self, batch: Batch) -> Tensor:
        return (batch.y != IGNORED).sum(-1)  # type: ignore[union-attr]

    def row_weight(self, batch: Batch) -> Tensor:
        """Every example weighs as many tokens as it has."""
        counts = self._counts(batch)
        return counts if batch.weight is None else counts * batch.weight

    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        losses = self.losses(output, batch)
        return {"loss": losses, "perplexity": losses}

    def pooling(self) -> dict[str, Pooling]:
        return {"perplexity": ExpMean()}


class BitPrediction(Objective):
    """K bits at every step: a logit each, and the cross-entropy summed over all bits of a row that are asked for.

    Output and targets (B, T, K); targets of −100 do not count. The loss is in nats a sequence, `bits` the same in bits,
    and `error` the share of the bits that are wrong.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_outputs = spec.num_targets

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        counts = batch.y != IGNORED
        losses = F.binary_cross_entropy_with_logits(
            output, batch.y.clamp_min(0).to(output.dtype), weight=counts.to(output.dtype), reduction="none"
        )
        return losses.flatten(1).sum(1)

    def predict(self, output: Tensor) -> Tensor:
        return (output > 0).long()

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert batch.y is not None
        losses, counts = self.losses(output, batch), batch.y != IGNORED
        wrong = (self.predict(output) != batch.y) & counts
        shares = torch.stack([wrong.flatten(1).sum(1), counts.flatten(1).sum(1)], dim=1)
        return {"loss": losses, "bits": losses / math.log(2), "error": shares}

    def pooling(self) -> dict[str, Pooling]:
        return {"error": Ratio()}


class OwnLoss(Objective):
    """A model without targets, which says itself what it loses: output (B, 2), each loss and how much it counts."""

    num_outputs = 2

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        losses, weight = output.unbind(1)  # (B,)
        weight = weight if batch.weight is None else weight * batch.weight
        return (losses * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return output[:, 0]

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.losses(output, batch)}


OBJECTIVES: dict[str, type[Objective]] = {
    cls.__name__: cls for cls in (Classification, Regression, TokenPrediction, BitPrediction)
}


def make_objective(spec: DataSpec, *, binary_logit: bool = False, loss: str = "squared_error") -> Objective:
    """Return the objective that the data's targets pose.

    Args:
        spec: what the data hold.
        binary_logit: one logit instead of two for two classes, as logistic regression has it.
        loss: of values: `squared_error`, or `poisson` of counts.
    """
    task = find_task(spec.kind, spec.target)
    if task is None:
        raise ZooError(f"A supervised model needs targets; {spec.describe()} have none.")
    cls: Any = OBJECTIVES[task.objective]
    if loss == "poisson":
        if cls is not Regression:
            raise ZooError(f"model.loss=poisson is for values, but the targets are {spec.target}: leave it out.")
        cls = PoissonRegression
    return cls(spec, binary_logit) if cls is Classification else cls(spec)
