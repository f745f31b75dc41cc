"""Solutions by products of the rows beside those by their factor, and rows for which products are no good."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo.kernels
from zoo.models.linear.products import RidgeOfProducts, solve_double
from zoo.sklearn import ElasticNet, Lasso, LinearRegression, Ridge

MODELS = [
    LinearRegression(),
    Ridge(3.0),
    Ridge([0.0, 9.0]),
    Lasso(0.3),
    Lasso(0.3, positive=True),
    ElasticNet(0.3),
]
KINDS = {
    "plain": lambda x: x,
    "shifted": lambda x: x + 1e6,
    "scales": lambda x: x * np.logspace(-60, 60, x.shape[1]),
    "strided": lambda x: np.asfortranarray(x),
}


def rows(kind: str, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and two targets that they make but for noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((503, features))
    y = x @ rng.standard_normal((features, 2)) + rng.standard_normal((503, 2)) + 5
    return KINDS[kind](x), y


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("features", [1, 7, 62, 75])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(MODELS)))
def test_the_solution_is_that_of_the_factor(number: int, kind: str, features: int, compiled: bool, monkeypatch) -> None:
    model, (x, y) = MODELS[number], rows(kind, features)
    taken = []
    monkeypatch.setattr("zoo.sklearn.linear.solve_double", lambda *args: taken.append(solve_double(*args)) or taken[-1])
    zoo.kernels.use(compiled)
    try:
        found = model.fit(x, y)
    finally:
        zoo.kernels.use(True)
    coefficients, intercepts, statistics = found.coef_, found.intercept_, found._statistics
    assert taken
    assert taken[0] is not None
    monkeypatch.setattr("zoo.sklearn.linear.solve_double", lambda *_: None)
    exact = model.fit(x, y)
    size = x.std(0)  # a coefficient by what it changes
    np.testing.assert_allclose(coefficients * size, exact.coef_ * size, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(coefficients == 0, exact.coef_ == 0)
    np.testing.assert_allclose(intercepts, exact.intercept_, rtol=1e-9, atol=1e-9 * np.abs(x * coefficients[0]).max())
    for part, other in zip(statistics.problem(features), exact._statistics.problem(features), strict=True):
        length = torch.from_numpy(size) if part.shape[1] == features else 1.0
        torch.testing.assert_close(part / length, other / length, rtol=1e-9, atol=1e-8)


def test_rows_without_the_digits_are_left_to_the_factor() -> None:
    x, y = (torch.from_numpy(part) for part in rows("plain", 7))
    solve = RidgeOfProducts(torch.zeros(2))
    other = torch.from_numpy(np.random.default_rng(1).standard_normal((len(x), 1)))
    near = torch.cat([x, x[:, :1] + 1e-4 * other], 1)  # whose products have a factor, of too few digits
    assert solve_double(near, y, solve) is None
    assert solve_double(torch.cat([x, torch.ones(len(x), 1)], 1), y, solve) is None
    assert solve_double(x[:39], y[:39], solve) is None  # too few
    assert solve_double(x.expand(1, -1, -1)[0] * 1e-160, y, solve) is None
    assert solve_double(x.half(), y, solve) is None
