"""Linear regression against scikit-learn, NIST's certified values and the normal equations."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Ridge, lasso_path
from sklearn.linear_model import LinearRegression as Oracle

import zoo
from zoo.models.linear.least_squares import solve_least_squares
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
        standardize=False,  # for coefficients in the rows' own units
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
    coefficients, rank = solve_least_squares(merged[:, :3], merged[:, 3:])
    rss = (merged[:, 3:] - merged[:, :3] @ coefficients).square().sum(0)
    residual = rows[:, 3:] - rows[:, :3] @ coefficients
    torch.testing.assert_close(rss, residual.square().sum(0), rtol=1e-10, atol=0)
    assert rank == 3


# -- lasso, elastic net, signs -----------------------------------------------------------------------------------


def test_the_lasso_path_of_diabetes_is_scikit_learns():
    x, y = load_diabetes(return_X_y=True)
    path = fit_exact(x, y).path(100)
    centred, middle = x - x.mean(0), y - y.mean()
    with warnings.catch_warnings():  # the oracle goes on for as long as rounding lets its steps be seen
        warnings.simplefilter("ignore")
        alphas, oracle, _ = lasso_path(centred, middle, alphas=100, tol=1e-15, max_iter=1_000_000, precompute=False)
    np.testing.assert_allclose(path.l1 / 2, alphas, rtol=1e-12)
    np.testing.assert_allclose(path.weight[:, 0].numpy(), oracle.T, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(path.weight[:, 0].numpy() == 0, oracle.T == 0)
    np.testing.assert_allclose(path.bias[:, 0].numpy(), y.mean() - oracle.T @ x.mean(0), rtol=1e-12)


@pytest.mark.parametrize("l1_ratio", [0.2, 0.9])
def test_elastic_net_paths_of_two_targets_with_weights(l1_ratio):
    x, y = load_diabetes(return_X_y=True)
    y, weight = np.c_[y, y**0.5 * x[:, 0]], np.linspace(0.1, 2, len(y))
    path = fit_exact(x, y, sample_weight=weight).path(12, l1=l1_ratio, l2=(1 - l1_ratio) / 2)
    for index in (0, 5, 11):
        alpha = path.l1[index].item() * 2 / 2 / l1_ratio  # K / 2 of the mean over targets
        for k in range(2):
            oracle = ElasticNet(alpha, l1_ratio=l1_ratio, tol=1e-14, max_iter=1_000_000)
            oracle.fit(x, y[:, k], sample_weight=weight)
            np.testing.assert_allclose(path.weight[index, k].numpy(), oracle.coef_, rtol=1e-7, atol=1e-8)
            assert path.bias[index, k].item() == pytest.approx(oracle.intercept_, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"positive": True}])
@pytest.mark.parametrize(("l1", "l2"), [(0.5, 0.0), (0.5, 0.001)])
def test_one_penalty_is_scikit_learns(options, l1, l2):
    x, y = load_diabetes(return_X_y=True)
    oracle = ElasticNet(l1 / 2 + l2, l1_ratio=l1 / 2 / (l1 / 2 + l2), tol=1e-14, max_iter=1_000_000, **options)
    oracle.fit(x, y)
    model = zoo.fit(zoo.create_model("linear_regression", **options), x, y, l1=l1, l2=l2)
    np.testing.assert_allclose(model.weight[0].numpy(), oracle.coef_, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(model.weight[0].numpy() == 0, oracle.coef_ == 0)
    assert model.bias.item() == pytest.approx(oracle.intercept_, rel=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_non_negative_least_squares_is_scipys(fit_intercept):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 6)) + 0.2, rng.standard_normal((80, 2)) + 0.1
    model = zoo.fit(zoo.create_model("linear_regression", positive=True, fit_intercept=fit_intercept), x, y)
    left = (x.mean(0), y.mean(0)) if fit_intercept else (0.0, np.zeros(2))
    for k in range(2):
        oracle, _ = nnls(x - left[0], y[:, k] - left[1][k])
        np.testing.assert_allclose(model.weight[k].numpy(), oracle, rtol=1e-10, atol=1e-13)
        np.testing.assert_array_equal(model.weight[k].numpy() == 0, oracle == 0)
    assert 0 < int((model.weight == 0).sum()) < 12


def test_lasso_meets_the_optimality_conditions_in_many_correlated_columns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 200)) + 0.1 * rng.standard_normal((60, 200))
    y = x[:, :3].sum(1) + rng.standard_normal(60)
    path = fit_exact(x, y).path(30)
    for l1, w in zip(path.l1.tolist(), path.weight[:, 0].numpy(), strict=True):
        residual = (y - y.mean()) - (x - x.mean(0)) @ w
        slope = 2 * (x - x.mean(0)).T @ residual / len(x)
        np.testing.assert_allclose(slope[w != 0], l1 * np.sign(w[w != 0]), rtol=1e-8)
        assert np.abs(slope).max() <= l1 * (1 + 1e-8)
    assert (path.weight[-1] != 0).sum() > 10


def test_too_few_rounds_are_said():
    x, y = load_diabetes(return_X_y=True)
    model = zoo.create_model("linear_regression", max_iter=1)
    with pytest.warns(UserWarning, match="has not converged in 1 rounds"):
        zoo.fit(model, x, y, l1=0.1)


def test_the_path_is_a_picture_with_names():
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    model = fit_exact(x, y, l1=0.1)
    batch = model.as_batch(zoo.Batch(torch.tensor(x.values), torch.tensor(y.values)))
    figure = dict(model.pictures(batch, model.predict_batch(batch)))["path"]
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == set(x.columns)
    assert axes.get_xscale() == "log"
    assert "path" not in dict(fit_exact(x, y).pictures(batch, model.predict_batch(batch)))


# -- hard data ---------------------------------------------------------------------------------------------------


def problem(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, 4))
    return x.astype(dtype), x @ [1.0, -2.0, 0.5, 3.0] + 0.1 * rng.standard_normal(200) + 5


def exactly(x, y, weight=None):
    """Coefficients of the very numbers given, by rational arithmetic."""
    x, y = ([[Fraction(float(v)) for v in row] for row in np.atleast_2d(t).tolist()] for t in (x, y[:, None]))
    rows = [[Fraction(1), *a, *b] for a, b in zip(x, y, strict=True)]
    size = len(rows[0]) - 1
    table = [[sum(row[i] * row[j] for row in rows) for j in range(size + 1)] for i in range(size)]
    for i in range(size):
        table[i] = [value / table[i][i] for value in table[i]]
        for j in range(size):
            if j != i:
                table[j] = [b - table[j][i] * a for a, b in zip(table[i], table[j], strict=True)]
    return np.array([float(row[-1]) for row in table[1:]]), float(table[0][-1])


@pytest.mark.parametrize("shift", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"batch_size": 1}])
def test_features_far_from_zero_lose_no_digit(shift, dtype, options):
    x, y = problem()
    x = (x + shift * np.array([1, -1, 2, 0.5])).astype(dtype)
    if dtype == np.float32 and shift == 1e8:
        x = x + dtype(64) * np.random.default_rng(1).integers(0, 9, x.shape).astype(dtype)  # what is left varies
    coefficients, intercept = exactly(x, y)
    model = fit_exact(x, y, **options)
    np.testing.assert_allclose(model.weight[0].numpy(), coefficients, rtol=1e-10)
    assert model.bias.item() == pytest.approx(intercept, rel=1e-10)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-20, 1e20, 1e160, 1e290])
@pytest.mark.parametrize("options", [{}, {"l1": 0.2}, {"l2": 0.1}])
def test_features_of_any_scale_are_solved(scale, options):
    x, y = problem()
    plain = fit_exact(x, y)
    model = fit_exact(x * scale, y)
    np.testing.assert_allclose(model.weight.numpy() * scale, plain.weight.numpy(), rtol=1e-10)
    np.testing.assert_allclose(model.predict(x * scale).numpy(), plain.predict(x).numpy(), rtol=1e-10)
    np.testing.assert_allclose(fit_exact(x, y * scale).weight / scale, plain.weight, rtol=1e-10)
    # With a penalty the scale is another problem: that of the penalty scaled the other way.
    x, y = x * np.array([scale, 1, 1, 1]), y
    mixed = fit_exact(x, y, **options)
    assert torch.isfinite(mixed.weight).all()
    if not options:
        np.testing.assert_allclose(mixed.weight[0, 1:], plain.weight[0, 1:], rtol=1e-10)


def test_penalties_follow_the_scale():
    x, y = problem()
    plain, large = fit_exact(x, y, l1=0.2), fit_exact(x * 1e160, y, l1=0.2e160)
    np.testing.assert_allclose(large.weight * 1e160, plain.weight, rtol=1e-10)
    np.testing.assert_allclose(fit_exact(x, y * 1e160, l1=0.2e160).weight / 1e160, plain.weight, rtol=1e-10)


def test_constant_columns_get_zero_wherever_they_lie():
    x, y = problem()
    plain = fit_exact(x, y)
    for value in (0.0, 0.1, -7.0, 1e8 / 3, 1e160, 1e-170):
        model = fit_exact(np.c_[x, np.full(len(x), value)], y, batch_size=50)
        np.testing.assert_allclose(model.weight[0, :4].numpy(), plain.weight[0].numpy(), rtol=1e-12)
        assert model.weight[0, 4] == 0


def test_more_columns_than_rows_get_the_shortest_solution():
    rng = np.random.default_rng(0)
    x, y, scale = rng.standard_normal((20, 50)), rng.standard_normal((20, 2)), 10.0 ** rng.integers(-3, 4, 50)
    for columns in (x, x * scale, np.c_[x[:, :8], x[:, :8] * 3]):
        oracle = Oracle().fit(columns, y)
        model = fit_exact(columns, y, batch_size=6)
        np.testing.assert_allclose(model.weight, oracle.coef_, rtol=1e-7, atol=1e-9 * np.abs(oracle.coef_).max())
    oracle = Ridge(alpha=3.0, solver="svd").fit(x, y)
    np.testing.assert_allclose(fit_exact(x, y, l2=3 / 40).weight, oracle.coef_, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_inputs(dtype):
    x, y = (torch.from_numpy(t) for t in problem())
    x, y = x.to(dtype), y.to(dtype)
    plain = fit_exact(x.clone(), y.clone()).weight
    wide = torch.zeros(400, 9, dtype=dtype)
    wide[::2, 1::2] = x
    for view in (wide[::2, 1::2], x.T.contiguous().T):
        np.testing.assert_allclose(fit_exact(view, y.expand(2, -1)[1]).weight, plain, rtol=1e-12)
    np.testing.assert_array_equal(
        fit_exact(x[:, :1].expand(-1, 3), y).weight[0, 0], fit_exact(x[:, [0] * 3], y).weight[0, 0]
    )


def test_rows_without_weight_count_for_nothing():
    x, y = problem()
    weight = (np.arange(len(x)) % 3).astype(float)
    odd = x.copy()
    odd[weight == 0] = 1e30  # the first row among them
    kept = weight > 0
    expected = fit_exact(x[kept], y[kept], sample_weight=weight[kept])
    model = fit_exact(odd, y, sample_weight=weight, batch_size=1)
    np.testing.assert_allclose(model.weight, expected.weight, rtol=1e-12)
    np.testing.assert_allclose(model.residual_std, expected.residual_std, rtol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1e8])
def test_processes_add_up(shift):
    x, y = problem()
    x = torch.from_numpy(x + shift)
    y = torch.from_numpy(y)
    spec = zoo.DataSpec("tabular", (4,), "value")
    whole, *parts = (zoo.create_model("linear_regression", spec=spec) for _ in range(4))
    for model, rows in zip((whole, *parts), (slice(None), slice(0, 3), slice(0, 0), slice(3, None)), strict=True):
        with torch.no_grad():
            model.accumulate(zoo.Batch(x[rows], y[rows]))
    for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]]):
        merged = zoo.create_model("linear_regression", spec=spec)
        for name, value in merged.merge([part._state() for part in order]).items():
            setattr(merged, name, value)
        with torch.no_grad():
            merged.solve()
            whole.solve()
        torch.testing.assert_close(merged.weight, whole.weight, rtol=1e-11, atol=0)
        torch.testing.assert_close(merged.residual_std, whole.residual_std, rtol=1e-9, atol=0)


def test_a_second_fit_knows_nothing_of_the_first():
    x, y = problem()
    again = fit_exact(x + 1e7, -y)
    zoo.fit(again, x, y)
    assert torch.equal(again.weight, fit_exact(x, y).weight)
    assert torch.equal(again.bias, fit_exact(x, y).bias)


def test_without_an_intercept():
    x, y = problem()
    model = zoo.fit(zoo.create_model("linear_regression", fit_intercept=False), x + 1e3, y, batch_size=30)
    np.testing.assert_allclose(model.weight[0], Oracle(fit_intercept=False).fit(x + 1e3, y).coef_, rtol=1e-9)
    assert model.bias.tolist() == [0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.create_model("linear_regression", positive=True, solver="gradient"), "needs model.solver=exact"),
        (lambda: zoo.create_model("linear_regression", max_iter=0), "model.max_iter must be at least 1"),
        (lambda: zoo.create_model("linear_regression").path(), "fit linear_regression with model.solver=exact first"),
        (lambda: fit_exact(np.eye(3), np.arange(3.0)).path(0), "num must be at least 1"),
        (lambda: fit_exact(np.eye(3), np.arange(3.0)).path(ratio=2.0), "ratio must be above 0 and at most 1"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(zoo.ZooError, match=message):
        call()
