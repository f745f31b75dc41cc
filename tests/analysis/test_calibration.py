"""Calibration: torchmetrics' error, scikit-learn's scores, and probabilities that are right by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

import zoo
from zoo.analysis import calibration
from zoo.analysis.calibration import calibration_of
from zoo.errors import ZooError


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_two_classes_beside_scikit_learn(strategy: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), x[::2], y[::2])
    found = calibration(model, x[1::2], y[1::2], bins=7, strategy=strategy)
    p = model.predict_columns(x[1::2])["probability"][:, 1].numpy()
    right, said = calibration_curve(y[1::2], p, n_bins=7, strategy=strategy)
    there = found.counts > 0
    np.testing.assert_allclose(found.said[there], said, atol=1e-9)
    np.testing.assert_allclose(found.right[there], right, atol=1e-9)
    assert found.brier == pytest.approx(brier_score_loss(y[1::2], p), abs=1e-12)
    assert sum(row["answers"] for row in found.table()) == len(p)


def test_several_classes_beside_torchmetrics() -> None:
    logits = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, y = logits.softmax(1), torch.randint(5, (4000,))
    found = calibration_of(p, y, bins=15)
    for norm, ours in (("l1", found.ece), ("max", found.mce)):
        assert ours == pytest.approx(float(multiclass_calibration_error(p, y, 5, 15, norm)), abs=1e-6)
    direct = np.mean([((p[i].numpy() - np.eye(5)[y[i]]) ** 2).sum() for i in range(4000)])
    assert found.brier == pytest.approx(direct, rel=1e-12)


def test_what_is_true_by_construction_is_calibrated_and_what_is_too_sure_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, generator=generator, dtype=torch.float64)
    y = (torch.rand(200_000, generator=generator, dtype=torch.float64) < p).long()
    assert calibration_of(torch.stack([1 - p, p], 1), y).ece < 0.005
    sure = (8 * (p - 0.5)).sigmoid()
    assert calibration_of(torch.stack([1 - sure, sure], 1), y).ece > 0.05


def test_weights_count_as_repeated_rows_do() -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), x[:, :2], y)
    weight = np.arange(150) % 3
    repeated = np.repeat(np.arange(150), weight)
    once = calibration(model, x[:, :2], y, weight)
    many = calibration(model, x[repeated][:, :2], y[repeated])
    assert (once.ece, once.brier) == pytest.approx((many.ece, many.brier), abs=1e-12)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_one_row_and_sure_answers(p: float) -> None:
    found = calibration_of(torch.tensor([[1 - p, p]]), torch.tensor([1]))
    assert found.ece == found.brier == 1 - p
    assert found.figure().axes


def test_what_cannot_be_is_said_in_one_line() -> None:
    x, y = load_iris(return_X_y=True)
    for model, targets, message in (
        (zoo.fit(zoo.create_model("kernel_svm"), x, y), y, "says no probabilities.*model.probability=true"),
        (zoo.fit(zoo.create_model("linear_regression"), x, x[:, 0]), x[:, 0], "answers no classes"),
        (zoo.create_model("naive_bayes"), y, "has seen no data"),
    ):
        with pytest.raises(ZooError, match=message):
            calibration(model, x, targets)
    model = zoo.fit(zoo.create_model("naive_bayes"), x, y)
    with pytest.raises(ZooError, match="bins must be at least 1"):
        calibration(model, x, y, bins=0)
