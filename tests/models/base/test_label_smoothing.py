"""Smoothed labels: what training lowers is torch's own smoothed cross-entropy, and metrics are without it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zoo.data.spec import Batch, DataSpec
from zoo.models.base.objectives import IGNORED, Classification, TokenPrediction


def test_classes_are_smoothed_in_training_alone() -> None:
    objective = Classification(DataSpec("tabular", (4,), "class", num_classes=3))
    output, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(3, (20,))
    objective.label_smoothing = 0.2
    torch.testing.assert_close(objective.loss(output, Batch(y=y)), F.cross_entropy(output, y, label_smoothing=0.2))
    torch.testing.assert_close(objective.evaluate(output, Batch(y=y))["loss"].mean(), F.cross_entropy(output, y))
    weight = torch.randint(3, (20,))
    repeated = torch.arange(20).repeat_interleave(weight)
    torch.testing.assert_close(
        objective.loss(output, Batch(y=y, weight=weight.double())),
        objective.loss(output[repeated], Batch(y=y[repeated])),
    )


def test_tokens_are_smoothed_and_padding_counts_for_nothing() -> None:
    objective = TokenPrediction(DataSpec("tokens", (5,), "tokens", vocab_size=7))
    objective.label_smoothing = 0.1
    output, y = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True), torch.randint(7, (3, 5))
    y[1, 2:], y[2] = IGNORED, IGNORED
    loss = objective.loss(output, Batch(y=y))
    there = y != IGNORED
    torch.testing.assert_close(loss, F.cross_entropy(output[there], y[there], label_smoothing=0.1))
    loss.backward()
    assert output.grad is not None
    assert not bool(output.grad[~there].any())
    assert objective.evaluate(output, Batch(y=y))["loss"][0].item() == pytest.approx(
        F.cross_entropy(output[0], y[0]).item()
    )
