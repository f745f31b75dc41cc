"""What a model is asked to do, taken from the data: number of outputs, loss, metrics and the form of a prediction.

Legend: B batch, C classes, K targets, T steps.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError

__all__ = ["Classification", "Objective", "Perplexity", "Regression", "TokenPrediction", "make_objective"]


class Objective(nn.Module):
    """A task: `num_outputs` for the head, `loss` of its output, `metrics` to compute and `predict` for the user.

    `monitor` and `mode` name the validation value that decides which checkpoint is the best.
    """

    num_outputs: int
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, weighted by `batch.weight` where it is given."""
        losses = self.losses(output, batch)  # (B,)
        if batch.weight is None:
            return losses.mean()
        return (losses * batch.weight).sum() / batch.weight.sum()

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each example, (B,)."""
        raise NotImplementedError

    def predict(self, output: Tensor) -> Tensor:
        """Return what a user wants to read: a class, a value, a token."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """Return fresh metrics."""
        raise NotImplementedError

    def update(self, metrics: MetricCollection, output: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        assert batch.y is not None
        metrics.update(self.predict(output), batch.y.contiguous())


class Classification(Objective):
    """Softmax over C classes with cross-entropy; a single logit where `binary_logit` is set and C = 2."""

    monitor = "val/accuracy"
    mode = "max"

    def __init__(self, spec: DataSpec, binary_logit: bool = False) -> None:
        super().__init__()
        if not spec.num_classes or spec.num_classes < 2:
            raise ZooError(f"Classification needs at least two classes; the data have {spec.num_classes or 0}.")
        self.num_classes = spec.num_classes
        self.binary_logit = binary_logit and spec.num_classes == 2
        self.num_outputs = 1 if self.binary_logit else spec.num_classes

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        if self.binary_logit:
            # log(1 + e^z) − y z, in its stable form
            return F.binary_cross_entropy_with_logits(output.squeeze(-1), batch.y.to(output.dtype), reduction="none")
        return F.cross_entropy(output, batch.y, reduction="none")

    def probabilities(self, output: Tensor) -> Tensor:
        """Return class probabilities, (B, C)."""
        if self.binary_logit:
            p = torch.sigmoid(output)
            return torch.cat([1 - p, p], dim=-1)
        return output.softmax(-1)

    def predict(self, output: Tensor) -> Tensor:
        return (output.squeeze(-1) > 0).long() if self.binary_logit else output.argmax(-1)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False),
                "f1": MulticlassF1Score(self.num_classes, average="macro", validate_args=False),
            }
        )


class Regression(Objective):
    """K real values with squared error."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_outputs = spec.num_targets
        self.squeeze = spec.num_targets == 1

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        return (
            (self.predict(output) - batch.y).square().flatten(1).mean(1)
            if batch.y.ndim > 1
            else (self.predict(output) - batch.y).square()
        )

    def predict(self, output: Tensor) -> Tensor:
        return output.squeeze(-1) if self.squeeze else output

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r2": R2Score()})


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the tokens."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        self.total += F.cross_entropy(
            output.flatten(0, -2).float(), target.flatten(), ignore_index=-100, reduction="sum"
        )
        self.count += (target != -100).sum()

    def compute(self) -> Tensor:
        return (self.total / self.count).exp()


class TokenPrediction(Objective):
    """The next token at every step: softmax over the vocabulary; targets of −100 do not count.

    Output (B, T, V), targets (B, T).
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not spec.vocab_size:
            raise ZooError("A language model needs the vocabulary's size; the data do not say it.")
        self.num_outputs = spec.vocab_size

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        nll = F.cross_entropy(output.flatten(0, -2), batch.y.flatten(), reduction="none", ignore_index=-100)
        counts = (batch.y != -100).sum(-1)  # every example weighs as many tokens as it has
        return nll.view_as(batch.y).sum(-1) / counts.to(nll.dtype).mean().clamp_min(1)

    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"perplexity": Perplexity()})

    def update(self, metrics: MetricCollection, output: Tensor, batch: Batch) -> None:
        metrics.update(output, batch.y)


def make_objective(spec: DataSpec, *, binary_logit: bool = False) -> Objective:
    """Return the objective that the data's targets pose.

    Args:
        spec: what the data hold.
        binary_logit: one logit instead of two for two classes, as logistic regression has it.
    """
    if spec.task == "classification":
        return Classification(spec, binary_logit)
    if spec.task in ("regression", "forecasting"):
        return Regression(spec)
    if spec.task == "language_modeling":
        return TokenPrediction(spec)
    raise ZooError(f"A supervised model needs targets; {spec.describe()} have none.")
