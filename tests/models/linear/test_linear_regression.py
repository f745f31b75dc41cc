"""Linear regression against scikit-learn, NIST's certified values and the normal equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression as Oracle
from sklearn.linear_model import Ridge

import zoo
from zoo.models.linear.linear_regression import solve_least_squares
from zoo.numerics.triangular import qr_update

# Longley 1967, as in NIST's statistical reference data sets: y, then six predictors, 1947 to 1962.
LONGLEY = """
60323 83.0 234289 2356 1590 107608 1947
61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949
61187 89.5 284599 3351 1650 110929 1950
63221 96.2 328975 2099 3099 112075 1951
63639 98.1 346999 1932 3594 113270 1952
64989 99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962
"""
CERTIFIED = [
    -3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683,
    -1.03322686717359, -0.511041056535807e-01, 1829.15146461355,
]  # fmt: skip


@pytest.fixture
def longley() -> tuple[np.ndarray, np.ndarray]:
    table = np.array([row.split() for row in LONGLEY.strip().splitlines()], dtype=float)
    return table[:, 1:], table[:, 0]


def fit_exact(x, y, **options):
    return zoo.fit(zoo.create_model("linear_regression"), x, y, **options)


def test_diabetes_all_rows():
    x, y = load_diabetes(return_X_y=True)
    predicted = fit_exact(x, y).predict(x).numpy()
    mse = np.mean((y - predicted) ** 2)
    assert mse == pytest.approx(2859.6963, abs=5e-5)
    assert 1 - mse / y.var() == pytest.approx(0.51774842, abs=1e-8)
    oracle = Oracle().fit(x, y)
    assert mse == pytest.approx(np.mean((y - oracle.predict(x)) ** 2), rel=1e-12)


def test_longley_certified(longley):
    model = fit_exact(*longley)
    assert model.residual_std.item() == pytest.approx(304.854073561965, rel=1e-8)
    found = [model.bias.item(), *model.weight[0].tolist()]
    # The condition number, 5e9, times the rounding unit leaves about seven digits.
    np.testing.assert_allclose(found, CERTIFIED, rtol=1e-7)


def test_longley_defeats_the_normal_equations(longley):
    """What the QR solver is for: X'X loses the certified digits in the same precision."""
    x, y = longley
    design = np.c_[np.ones(len(x)), x]
    normal = np.linalg.solve(design.T @ design, design.T @ y)
    exact = fit_exact(x, y)
    found = np.array([exact.bias.item(), *exact.weight[0].tolist()])
    error = lambda b: np.abs(b / CERTIFIED - 1).max()  # noqa: E731
    assert error(found) < error(normal) / 100


@pytest.mark.parametrize("batch_size", [1, 7, 64, 0])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_and_order_do_not_matter(batch_size, shuffled):
    x, y = load_diabetes(return_X_y=True)
    whole = fit_exact(x, y)
    order = np.random.default_rng(0).permutation(len(x)) if shuffled else np.arange(len(x))
    model = fit_exact(x[order], y[order], batch_size=batch_size)
    torch.testing.assert_close(model.weight, whole.weight, rtol=1e-9, atol=0)
    torch.testing.assert_close(model.bias, whole.bias, rtol=1e-9, atol=0)


@pytest.mark.parametrize("l2", [1e-4, 0.1, 10.0])
def test_ridge(l2):
    x, y = load_diabetes(return_X_y=True)
    oracle = Ridge(alpha=l2 * len(x), solver="svd").fit(x, y)
    model = fit_exact(x, y, l2=l2)
    np.testing.assert_allclose(model.weight[0].numpy(), oracle.coef_, rtol=1e-9)
    assert model.bias.item() == pytest.approx(oracle.intercept_, rel=1e-12)


def test_sample_weights_and_several_targets():
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((60, 5)), rng.standard_normal((60, 3)), rng.uniform(0.1, 3, 60)
    oracle = Oracle().fit(x, y, sample_weight=weight)
    model = fit_exact(x, y, sample_weight=weight)
    np.testing.assert_allclose(model.weight.numpy(), oracle.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.bias.numpy(), oracle.intercept_, rtol=1e-9)


def test_gradient_solver_reaches_the_exact_solution():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3
    model = zoo.create_model("linear_regression", solver="gradient")
    zoo.fit(
        model,
        x,
        y,
        optimizer="lbfgs",
        optimizer_options={"line_search_fn": "strong_wolfe"},
        batch_size=0,
        max_epochs=20,
    )
    torch.testing.assert_close(model.weight[0], torch.tensor([1.0, -2.0, 0.5]), rtol=1e-4, atol=1e-4)


def test_collinear_and_constant_columns_get_the_shortest_solution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2))
    x = np.c_[x, x[:, 0], np.zeros(50)]
    y = 2 * x[:, 0] - x[:, 1] + 3
    model = fit_exact(x, y)
    np.testing.assert_allclose(model.weight[0].numpy(), [1, -1, 1, 0], atol=1e-12)
    assert model.bias.item() == pytest.approx(3)


def test_one_row_is_interpolated():
    model = fit_exact(np.array([[1.0, 2.0]]), np.array([3.0]))
    assert model.predict(np.array([[1.0, 2.0]])).item() == pytest.approx(3.0)
    assert torch.isfinite(model.residual_std).all()


def test_merging_factors_is_factoring_all_rows():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 4, generator=generator).double(), torch.randn(9, 4, generator=generator).double()
    empty = torch.zeros(4, 4, dtype=torch.float64)
    merged = qr_update(qr_update(empty, a), qr_update(empty, b))
    rows = torch.cat([a, b])
    torch.testing.assert_close(merged.T @ merged, rows.T @ rows, rtol=1e-12, atol=1e-12)
    coefficients, rss, rank = solve_least_squares(merged, 1)
    residual = rows[:, 3:] - rows[:, :3] @ coefficients
    torch.testing.assert_close(rss, residual.square().sum(0), rtol=1e-10, atol=0)
    assert rank == 3


def test_l1_needs_the_gradient_solver():
    with pytest.raises(zoo.ZooError, match=r"no L1 penalty: use model\.solver=gradient"):
        fit_exact(np.eye(3), np.ones(3), l1=0.1)
