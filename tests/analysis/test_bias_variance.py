"""Bias, variance and noise: closed forms of polynomial regression, Domingos' identities, and the U of a sweep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from torch import Tensor

import zoo
from zoo.analysis import bias_variance
from zoo.analysis.bias_variance import Parts, checked, squared_error_parts, zero_one_parts
from zoo.errors import ZooError

POINTS = 30


def powers(degree: int) -> Tensor:
    """The features x, x², … of a polynomial at fixed points, (n, degree)."""
    x = torch.linspace(-1, 1, POINTS, dtype=torch.float64)
    return torch.stack([x**k for k in range(1, degree + 1)], 1)


def polynomial(degree: int, samples: int, targets: int, sigma: float) -> tuple[Parts, tuple[float, float]]:
    """What is found for a polynomial that meets noisy values of a sine, and what the formulas say."""
    truth = torch.sin(3 * torch.linspace(-1, 1, POINTS, dtype=torch.float64))[:, None].expand(POINTS, targets)
    x, generator = powers(degree), torch.Generator().manual_seed(degree)
    noise = sigma * torch.randn(samples + 1, POINTS, targets, dtype=torch.float64, generator=generator)
    y = (truth + noise).view(-1, targets)
    rows = torch.arange(samples * POINTS).view(samples, POINTS)
    found = bias_variance(
        zoo.create_model("linear_regression"), x.repeat(samples, 1), y[:-POINTS], (x, y[-POINTS:]),
        samples=list(rows), truth=truth, noise=sigma**2,
    )  # fmt: skip
    design = torch.cat([torch.ones(POINTS, 1, dtype=torch.float64), x], 1)
    left = truth - design @ torch.linalg.pinv(design) @ truth
    return found.parts[0], (float(left.square().mean()), sigma**2 * (degree + 1) / POINTS)


def assert_closed_form(degree: int, samples: int, targets: int, sigma: float = 0.3) -> None:
    found, (bias, variance) = polynomial(degree, samples, targets, sigma)
    assert abs(checked(found)) <= 1e-6  # measured: 2e-16
    assert found.bias == pytest.approx(bias, rel=0.05)
    assert found.variance == pytest.approx(variance, rel=0.05)
    assert found.noise == pytest.approx(sigma**2)
    assert found.error == pytest.approx(bias + variance + sigma**2, rel=0.05)


def test_polynomial_regression_meets_its_closed_form() -> None:
    assert_closed_form(degree=2, samples=40, targets=40)


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "sigma"), [(1, 0.3), (2, 0.3), (3, 0.3), (4, 0.3), (6, 0.02)])
def test_polynomials_of_every_degree_meet_their_closed_form(degree: int, sigma: float) -> None:
    """The bias² of degree 6 is 1.4e-5, which 3000 samples tell only where the variance is not 1500 times as large."""
    assert_closed_form(degree, samples=3000, targets=1, sigma=sigma)


def test_noise_of_repeated_targets_and_the_identity_where_nothing_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(500, generator=generator, dtype=torch.float64)
    rows = torch.arange(500).repeat(4)
    y = truth[rows] + 0.2 * torch.randn(2000, generator=generator, dtype=torch.float64)
    answers = truth[rows] + 0.1 + 0.5 * torch.randn(30, 500, generator=generator, dtype=torch.float64)[:, rows]
    found = squared_error_parts(answers, y, rows=rows)
    assert found.noise == pytest.approx(0.04, rel=0.05)
    assert found.variance == pytest.approx(0.25, rel=0.05)
    assert found.bias == pytest.approx(0.01, rel=0.5)
    unknown = squared_error_parts(answers, y)
    assert unknown.noise is None
    assert unknown.bias == pytest.approx(found.bias + found.noise)
    for parts in (found, unknown, squared_error_parts(1e8 + answers, 1e8 + y), squared_error_parts(1e-9 * answers, y)):
        assert abs(checked(parts)) < 1e-9
    direct = float((answers - y).square().mean())
    assert found.error == unknown.error == pytest.approx(direct, rel=1e-14)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_zero_one_loss_is_domingos(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    answers = torch.randint(num_classes, (25, 60), generator=generator)
    answers[:, :20] = 0
    y = torch.randint(num_classes, (60,), generator=generator)
    found = zero_one_parts(answers, y)
    main = answers.mode(0).values  # the smallest of the most frequent, as ours
    error = sum(float((answers[:, i] != y[i]).double().mean()) for i in range(60)) / 60
    assert found.error == pytest.approx(error)
    assert found.bias == pytest.approx(float((main != y).double().mean()))
    assert found.variance == pytest.approx(found.variance_unbiased - found.variance_biased)
    assert abs(checked(found)) < 1e-12
    if num_classes == 2:  # then a wrong main prediction is left for the right one alone
        away = (answers != main).double().mean(0)
        assert found.variance == pytest.approx(float((away * (1 - 2 * (main != y).double())).mean()))


def test_noise_of_classes_is_that_of_the_formula_for_two() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(30).repeat(7)
    y = (torch.rand(210, generator=generator) < torch.rand(30, generator=generator)[rows]).long()
    answers = torch.randint(2, (15, 30), generator=generator)[:, rows]
    found = zero_one_parts(answers, y, rows=rows)
    best = torch.stack([y[rows == r].mode().values for r in range(30)])
    share = torch.stack([(y[rows == r] != best[r]).double().mean() for r in range(30)])  # N
    right = torch.stack([(answers[:, r] == best[r]).double().mean() for r in range(30)])
    assert found.noise == pytest.approx(float(((2 * right - 1) * share).mean()))
    assert abs(checked(found)) < 1e-12
    assert zero_one_parts(answers, y, truth=best[rows]) == found


def test_a_sweep_over_depth_is_a_u() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (120, 1))
    y = np.sin(2 * x[:, 0]) + rng.normal(scale=0.4, size=120)
    test = rng.uniform(-3, 3, (200, 1))
    truth = np.sin(2 * test[:, 0])
    found = bias_variance(
        zoo.create_model("decision_tree"), x, y, (test, truth), samples=12, truth=truth, noise=0.16,
        parameter="max_depth", values=[1, 4, 12],
    )  # fmt: skip
    first, middle, last = found.parts
    assert first.bias > 4 * middle.bias
    assert first.variance < middle.variance < last.variance
    assert found.best == 4
    assert [row["max_depth"] for row in found.table()] == [1, 4, 12]
    assert [line.get_label() for line in found.figure().axes[0].lines] == ["bias²", "variance", "noise", "error"]


def test_classes_in_the_users_labels_disjoint_samples_and_a_bar_for_one_value() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    found = bias_variance(
        zoo.create_model("naive_bayes"), x[::2], names[::2], (x[1::2], names[1::2]), samples=3, resample="disjoint",
        truth=names[1::2],
    )  # fmt: skip
    assert found.loss == "zero_one"
    assert 0 < found.parts[0].error < 0.2
    assert abs(checked(found.parts[0])) < 1e-12
    assert len(found.figure().axes[0].patches) == 4


def test_a_network_is_trained_on_each_sample() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = zoo.create_model("mlp", widths=[2])
    found = bias_variance(model, x[:60], y[:60], (x[60:90], y[60:90]), samples=2, max_epochs=1)
    assert found.parts[0].noise is None
    assert "bias_and_noise" in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"samples": 40, "resample": "disjoint"}, "40 disjoint samples"),
        ({"noise": -1.0}, "noise must be a variance"),
        ({"parameter": "max_depth"}, "parameter and values go together"),
        ({"parameter": "degree", "values": [1]}, "no parameter 'degree' to vary"),
        ({"truth": [1.0]}, "truth has 1 values: one for each of the 2 test rows"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: dict, message: str) -> None:
    x = np.arange(20.0)[:, None]
    with pytest.raises(ZooError, match=message):
        bias_variance(zoo.create_model("decision_tree"), x, x[:, 0] / 3, (x[:2], x[:2, 0] / 3), **options)
