"""`ntm` and `dnc`: what they lose and report of bits, and what they draw; clipping by value."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support import create, tiny_batch

import zoo
from zoo.data.registry import create_data
from zoo.data.spec import Batch, DataSpec
from zoo.models.base.objectives import BitPrediction
from zoo.training.trainer import make_trainer

SMALL: dict[str, Any] = {"hidden_size": 6, "num_slots": 5, "slot_size": 4}


def test_bits_are_lost_by_the_sequence_and_reported_in_bits() -> None:
    objective = BitPrediction(DataSpec("sequence", (3, 2), "bits", num_targets=2))
    output = torch.randn(2, 3, 2, dtype=torch.float64)
    y = torch.tensor([[[-100, -100], [1, 0], [1, 1]], [[-100, -100], [0, 0], [-100, -100]]]).float()
    batch, expected, wrong = Batch(torch.zeros(2, 3, 2), y), torch.zeros(2, dtype=torch.float64), [0, 0]
    for row, step, bit in (y >= 0).nonzero().tolist():
        p = float(output[row, step, bit].sigmoid())
        said = p if y[row, step, bit] else 1 - p
        expected[row] -= math.log(said)
        wrong[row] += said < 0.5
    found = objective.evaluate(output, batch)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["bits"], expected / math.log(2))
    assert found["error"].tolist() == [[wrong[0], 4], [wrong[1], 2]]
    torch.testing.assert_close(objective.loss(output, batch), expected.mean())
    weight = torch.tensor([3.0, 1.0])
    weighted = objective.loss(output, batch._replace(weight=weight)).double()
    torch.testing.assert_close(weighted, (3 * expected[0] + expected[1]) / 4)


@pytest.mark.parametrize("name", ["ntm", "dnc", "lstm"])
def test_pictures(name: str) -> None:
    data = create_data("copy", max_length=3, val_length=6)
    model: Any = create(name, data, **({} if name == "lstm" else SMALL)).eval()
    batch = data.rows("val")[torch.arange(3)]
    with torch.inference_mode():
        drawn = dict(model.pictures(batch, model.predict_batch(batch)))
    assert set(drawn) == {"bits", "gates" if name == "lstm" else "heads"}
    assert "bits wrong" in drawn["bits"].get_suptitle()


@pytest.mark.parametrize("name", ["ntm", "dnc"])
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_predictions_are_bits_and_padding_is_none(name: str, controller: str) -> None:
    data = create_data("copy", max_length=4, num_bits=3)
    model, batch = create(name, data, **SMALL, controller=controller), tiny_batch(data, 6)
    prediction = model.predict(batch)
    assert set(prediction[batch.mask].unique().tolist()) <= {0, 1}
    assert set(prediction[~batch.mask].unique().tolist()) <= {-100}  # type: ignore[operator]
    assert prediction.shape == batch.y.shape  # type: ignore[union-attr]


def test_the_gradient_is_clipped_by_value() -> None:
    """Of one step of gradient descent of rate 1 no entry is longer than asked, and the gradient is not scaled."""
    data = create_data("copy", max_length=4, num_rows=8, batch_size=8, test_rows=0, val_rows=0)
    model = create("ntm", data, **SMALL)
    model.train_by(zoo.optimizers.Recipe("sgd", {"lr": 1.0}))
    batch = data.rows("train")[torch.arange(8)]
    model.objective.loss(model.output(batch), batch).backward()  # type: ignore[operator, union-attr]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}  # type: ignore[union-attr]
    bound = float(torch.cat([g.flatten() for g in gradients.values()]).abs().median())
    options: dict[str, Any] = {"gradient_clip_val": bound, "gradient_clip_algorithm": "value", "max_steps": 1}
    make_trainer(model, accelerator="cpu", progress=False, **options).fit(model, datamodule=data)
    for name, parameter in model.named_parameters():
        expected = before[name] - gradients[name].clamp(-bound, bound)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-4 * bound)
