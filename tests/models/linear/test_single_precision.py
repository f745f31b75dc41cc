"""Solutions by products of float32 beside those of float64, and rows that have too few digits for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo.kernels
from zoo.models.linear import single_precision
from zoo.models.linear.products import ElasticNetOfProducts, RidgeOfProducts
from zoo.models.linear.single_precision import solve_single
from zoo.sklearn import ElasticNet, Lasso, Ridge

ROWS, FEATURES = 701, 67


def rows(kind: str, targets: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 rows and targets that some of the features make."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=rng)
    if kind == "shifted":
        x += 1000
    elif kind == "scales":
        x *= torch.logspace(-6, 6, FEATURES)
    elif kind == "strided":
        x = x.T.contiguous().T
    y = x.double() @ (torch.randn(FEATURES, targets, generator=rng) / x.std(0).unsqueeze(1)).double()
    return x, y + torch.randn(ROWS, targets, generator=rng) + 5


def models():
    return [Ridge(3.0), Ridge(0.0), Lasso(0.3), Lasso(0.3, positive=True), ElasticNet(0.3)]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", ["plain", "shifted", "scales", "strided"])
@pytest.mark.parametrize("number", range(5))
def test_the_solution_is_that_of_float64(number: int, kind: str, compiled: bool, monkeypatch) -> None:
    x, y = (t.numpy() for t in rows(kind))
    taken = []
    solve = single_precision.solve_single
    monkeypatch.setattr("zoo.sklearn.linear.solve_single", lambda *args: taken.append(solve(*args)) or taken[-1])
    zoo.kernels.use(compiled)
    try:
        found = models()[number].fit(x, y)
    finally:
        zoo.kernels.use(True)
    exact = models()[number].fit(x.astype(np.float64), y)
    assert taken
    assert taken[0] is not None
    size = np.abs(exact.coef_ * x.std(0)).max()  # of what a coefficient changes
    w, products = taken[0]
    np.testing.assert_allclose(w.T.numpy() * x.std(0), exact.coef_.reshape(1, -1) * x.std(0), rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(products.intercepts(w), exact.intercept_, rtol=1e-9, atol=1e-9 * np.abs(y).max())
    assert found.coef_.dtype == np.float32
    np.testing.assert_array_equal(found.coef_ == 0, exact.coef_ == 0)


def test_statistics_of_the_products_have_the_slope_and_the_error_of_the_rows() -> None:
    x, y = rows("shifted", 2)
    w, products = solve_single(x, y, RidgeOfProducts(torch.tensor([1.0, 9.0]).double()))
    a, b = products.statistics().problem(FEATURES)
    centred, target = x.double() - x.double().mean(0), y - y.mean(0)
    left = target - centred @ w
    torch.testing.assert_close((b - a @ w).square().sum(0), left.square().sum(0), rtol=1e-9, atol=0)
    torch.testing.assert_close(a.T @ (b - a @ w), centred.T @ left, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(a.T @ a, centred.T @ centred, rtol=0, atol=1e-5 * float(ROWS))


def test_the_gap_of_a_lasso_closes() -> None:
    x, y = (t.numpy() for t in rows("plain"))
    model = Lasso(0.3).fit(x, y[:, 0])
    assert abs(model.dual_gap_) <= 1e-8 * y.var()
    assert model.model_.path(3).weight.shape == (3, 1, FEATURES)


@pytest.mark.parametrize("kind", ["twins", "constant", "tiny", "huge", "few", "narrow"])
def test_rows_without_the_digits_are_left_to_float64(kind: str) -> None:
    x, y = rows("plain")
    if kind == "twins":
        x[:, 1] = x[:, 0] * (1 + 1e-6 * torch.randn(ROWS))
    elif kind == "constant":
        x[:, 3] = 2.0
    elif kind in ("tiny", "huge"):
        x *= 1e-20 if kind == "tiny" else 1e18
    elif kind == "few":
        x, y = x[:100], y[:100]
    else:
        x = x[:, :20]
    solve = (
        RidgeOfProducts(torch.zeros(1).double())
        if kind == "twins"
        else ElasticNetOfProducts(1.0, 0.0, positive=False, max_rounds=1000)
    )
    assert solve_single(x, y, solve) is None
    x, y = x.numpy(), y.numpy()
    found, exact = Ridge().fit(x, y), Ridge().fit(x.astype(np.float64), y)
    answers = exact.predict(x.astype(np.float64))
    np.testing.assert_allclose(found.predict(x), answers, atol=1e-4 * np.abs(answers).max())
