"""The linear estimators against scikit-learn's of the same names."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn.linear_model as peers
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.preprocessing import StandardScaler

import zoo.sklearn as zs

EXACT = {"tol": 1e-14, "max_iter": 1_000_000}
REGRESSORS = [
    ("LinearRegression", {}, {}),
    ("LinearRegression", {"fit_intercept": False}, {}),
    ("LinearRegression", {"positive": True}, {}),
    ("Ridge", {"alpha": 0.3}, {"solver": "svd"}),
    ("Ridge", {"alpha": 0.3, "fit_intercept": False}, {"solver": "svd"}),
    ("Ridge", {"alpha": 0.3, "positive": True}, EXACT),
    ("Lasso", {"alpha": 0.2}, EXACT),
    ("Lasso", {"alpha": 0.2, "positive": True}, EXACT),
    ("Lasso", {"alpha": 0.2, "fit_intercept": False}, EXACT),
    ("ElasticNet", {"alpha": 0.01, "l1_ratio": 0.7}, EXACT),
    ("ElasticNet", {"alpha": 0.01, "l1_ratio": 0.0}, EXACT),
]
CLASSIFIERS = [
    ({}, {"solver": "newton-cholesky"}),
    ({"C": 0.1, "fit_intercept": False}, {"solver": "newton-cholesky"}),
    ({"C": 0.1, "class_weight": "balanced"}, {"solver": "newton-cholesky"}),
    ({"C": 0.1, "l1_ratio": 1.0}, {"solver": "saga"}),
    ({"C": 0.1, "l1_ratio": 0.5}, {"solver": "saga"}),
    ({"C": 0.1, "solver": "liblinear", "intercept_scaling": 2.0}, {}),
    ({"C": 0.1, "solver": "liblinear", "l1_ratio": 1.0}, {}),
]


def both(name, shared, theirs, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = getattr(peers, name)(**shared, **theirs).fit(*data, **options)
    return getattr(zs, name)(**shared).fit(*data, **options), peer


def same(ours, theirs, rtol=1e-7, atol=1e-7):
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=rtol, atol=atol)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("name", "shared", "theirs"), REGRESSORS)
@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_regressors_are_scikit_learns(name, shared, theirs, targets, weighted):
    x, y = load_diabetes(return_X_y=True)
    y = y if targets == 1 else np.c_[y, y[::-1]]
    options = {"sample_weight": np.linspace(0.1, 2, len(x))} if weighted else {}
    ours, peer = both(name, shared, theirs, x, y, **options)
    tolerance = 1e-5 if "positive" in shared and name == "Ridge" else 1e-7  # its L-BFGS stops early
    same(ours, peer, tolerance, tolerance * np.abs(peer.coef_).max())
    if tolerance < 1e-6:
        np.testing.assert_array_equal(ours.coef_ == 0, peer.coef_ == 0)
    np.testing.assert_allclose(ours.predict(x), peer.predict(x), rtol=1e-5)
    assert ours.coef_.shape == peer.coef_.shape
    assert np.shape(ours.intercept_) == np.shape(peer.intercept_)
    np.testing.assert_allclose(ours.model_.predict(x).numpy(), ours.predict(x), rtol=1e-9)


@pytest.mark.parametrize(("shared", "theirs"), CLASSIFIERS)
@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_regression_is_scikit_learns(shared, theirs, load, weighted):
    x, y = load(return_X_y=True)
    if shared.get("solver") == "liblinear":
        x, y = x[y < 2], y[y < 2]
    x = StandardScaler().fit_transform(x)
    options = {"sample_weight": np.linspace(0.1, 2, len(x))} if weighted else {}
    exactly = {**shared, "tol": 1e-10, "max_iter": 100_000}
    ours, peer = both("LogisticRegression", exactly, theirs, x, y, **options)
    loose = "l1_ratio" in shared or "solver" in shared
    same(ours, peer, 1e-4 if loose else 1e-5, 1e-4 if loose else 1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), peer.predict_proba(x), atol=1e-4 if loose else 1e-6)
    np.testing.assert_allclose(ours.decision_function(x), peer.decision_function(x), atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(ours.predict_log_proba(x), np.log(ours.predict_proba(x)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"l1_ratio": 1.0, "C": 0.5}], ids=str)
def test_tol_is_the_greatest_derivative_of_the_mean_objective(load, options):
    x, y = load(return_X_y=True)
    x, y = StandardScaler().fit_transform(x[::3]) + 1.0, y[::3]
    steepest = []
    for tol in (1e-2, 1e-4):
        model = zs.LogisticRegression(tol=tol, **options).fit(x, y)
        onehot = (y[:, None] == model.classes_).astype(float)[:, 1 if len(model.classes_) == 2 else 0 :]
        residual = model.predict_proba(x)[:, -onehot.shape[1] :] - onehot
        slope, share = residual.T @ x, 1 / model.C
        if "l1_ratio" in options:
            at_zero = np.maximum(np.abs(slope) - share, 0)
            slope = np.where(model.coef_ == 0, at_zero, slope + share * np.sign(model.coef_))
        else:
            slope = slope + share * model.coef_
        by_intercept = residual.sum(0) if model.fit_intercept else 0.0
        steepest.append(max(np.abs(slope).max(), np.abs(by_intercept).max()) / len(x))
        assert steepest[-1] <= tol * (1 + 1e-9)
    assert steepest[0] > 1e-4  # it stops there


@pytest.mark.parametrize("penalty", ["l1", "l2", "elasticnet", None])
def test_the_old_penalties_are_understood(penalty):
    x, y = load_iris(return_X_y=True)
    x, y = x[y > 0], y[y > 0]
    ratio = {"l1": 1.0, "elasticnet": 0.5}.get(penalty, 0.0)
    with pytest.warns(FutureWarning, match="'penalty' is deprecated"):
        old = zs.LogisticRegression(penalty, l1_ratio=ratio, C=1.0).fit(x, y)
    new = zs.LogisticRegression(l1_ratio=ratio, C=1.0 if penalty else np.inf).fit(x, y)
    np.testing.assert_array_equal(old.coef_, new.coef_)


ALL = [
    zs.LinearRegression(), zs.Ridge(0.5), zs.Lasso(0.01), zs.ElasticNet(0.01), zs.LogisticRegression(C=3.0),
    zs.LogisticRegression(solver="liblinear"), zs.LinearRegression(fit_intercept=False), zs.Lasso(0.01, positive=True),
]  # fmt: skip


def table(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((90, 6)) * (rng.random((90, 6)) < 0.4)
    return x, (x @ [1.0, -2, 0, 1, 0.5, 0] + 0.3 * rng.standard_normal(90) > 0).astype(int)


@pytest.mark.parametrize("estimator", ALL, ids=str)
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix])
def test_sparse_rows_give_what_dense_ones_give(estimator, form, monkeypatch):
    x, y = table()
    dense = clone(estimator).fit(x, y)
    monkeypatch.setattr("zoo.sklearn.rows.BLOCK", 60)  # ten rows at a time
    model = clone(estimator).fit(form(x), y)
    same(model, dense, 1e-9, 1e-10)
    np.testing.assert_allclose(model.predict(form(x)), dense.predict(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_results_are_of_the_rows_type(estimator):
    x, y = table()
    double, single = clone(estimator).fit(x, y), clone(estimator).fit(x.astype(np.float32), y)
    assert single.coef_.dtype == np.float32
    assert np.asarray(single.intercept_).dtype in (
        (np.float32,) if estimator.fit_intercept else (np.float32, np.float64)
    )
    same(single, double, 1e-4, 1e-5)
    answers = ("predict_proba", "decision_function") if hasattr(single, "classes_") else ("predict",)
    for method in answers:
        assert getattr(single, method)(x.astype(np.float32)).dtype == np.float32
    integers = clone(estimator).fit(np.sign(x).astype(int), y)
    assert integers.coef_.dtype == np.float64


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_coefficients_that_the_user_sets_are_used_everywhere(estimator):
    x, y = table()
    model = clone(estimator).fit(x, y)
    before = model.predict(x)
    model.coef_, model.intercept_ = -model.coef_, -model.intercept_
    scores = np.ravel(x @ np.ravel(model.coef_) + model.intercept_)
    if hasattr(model, "classes_"):
        np.testing.assert_allclose(model.decision_function(x), scores)
        np.testing.assert_allclose(model.predict_proba(x)[:, 1], 1 / (1 + np.exp(-scores)))
        np.testing.assert_array_equal(model.predict(x), 1 - before)
        assert model.score(x, y) < 0.5
    else:
        np.testing.assert_allclose(model.predict(x), -before)
        np.testing.assert_allclose(model.model_.predict(x).numpy(), -before)


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_second_fits_copies_and_read_only_rows(estimator):
    x, y = table()
    fresh = clone(estimator).fit(x, y)
    again = clone(estimator).fit(x[:, :3] + 1e6, 1 - y).fit(x, y)
    np.testing.assert_array_equal(again.coef_, fresh.coef_)
    locked = x.copy()
    locked.flags.writeable = False
    for rows in (locked, np.asfortranarray(x), np.repeat(x, 2, 0)[::2], x[::-1][::-1]):
        np.testing.assert_array_equal(clone(estimator).fit(rows, y).coef_, fresh.coef_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fresh)).predict(x), fresh.predict(x))


@pytest.mark.parametrize("shift", [1e4, 1e6, 1e8])
def test_features_far_from_zero(shift):
    """What was wrong: coefficients of 0 and a score of 0.517 at 1e6, in silence."""
    x, y = table()
    x = np.round(x * 64)  # so that shifting rounds nothing
    for estimator in ALL:
        if estimator.fit_intercept and getattr(estimator, "solver", "") != "liblinear":
            exact = clone(estimator).set_params(tol=1e-9)  # derivatives grow with the shift
            near, far = clone(exact).fit(x, y), exact.fit(x + shift, y)
            np.testing.assert_allclose(far.coef_, near.coef_, rtol=1e-5, atol=1e-9, err_msg=str(estimator))
            assert far.score(x + shift, y) == pytest.approx(near.score(x, y), abs=1e-5)


def test_iterations_are_counted_and_too_few_are_said():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    model = zs.LogisticRegression().fit(x, y)
    assert 5 <= model.n_iter_[0] <= 12
    assert model.n_iter_.dtype == np.int32
    with pytest.warns(ConvergenceWarning, match="LogisticRegression did not converge"):
        assert zs.LogisticRegression(max_iter=2).fit(x, y).n_iter_.tolist() == [2]
    with pytest.warns(ConvergenceWarning):
        assert not zs.LogisticRegression(max_iter=0).fit(x, y).coef_.any()
    with pytest.warns(ConvergenceWarning, match="Lasso did not converge"):
        zs.Lasso(0.001, max_iter=1).fit(x, y)
    lasso = zs.Lasso(0.001).fit(x, np.c_[y, 1 - y])
    assert len(lasso.n_iter_) == 2
    assert min(lasso.n_iter_) > 1
    assert np.abs(lasso.dual_gap_).max() < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zs.LogisticRegression(C=1e6).fit(*table())


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::scipy.linalg.LinAlgWarning")
def test_newtons_iterations_are_counted_as_scikit_learn_counts_them(load):
    x, y = load(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    for steps in (0, 1, 2, 5, 100):
        ours, theirs = (
            kind.LogisticRegression(solver="newton-cholesky", max_iter=steps).fit(x, y) for kind in (zs, peers)
        )
        assert ours.n_iter_.tolist() == theirs.n_iter_.tolist()
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=1e-10)


def test_a_warm_start_goes_on_from_the_last_coefficients():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    cold = zs.LogisticRegression().fit(x, y)
    warm = zs.LogisticRegression(warm_start=True).fit(x, y).fit(x, y)
    assert warm.n_iter_[0] <= 2 < cold.n_iter_[0]
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-6, atol=1e-9)
    warm.coef_, warm.intercept_ = np.zeros_like(warm.coef_), np.zeros_like(warm.intercept_)
    assert warm.fit(x, y).n_iter_ == cold.n_iter_  # what the user set is the start
    lasso = zs.Lasso(0.001, warm_start=True).fit(x, y)
    first = lasso.n_iter_
    assert lasso.fit(x, y).n_iter_ == 1 < first
    assert zs.Lasso(0.001, warm_start=True).fit(x, y).fit(x[:, :5], y).coef_.shape == (5,)


def test_ridge_takes_a_penalty_a_target():
    x, y = load_diabetes(return_X_y=True)
    y = np.c_[y, y[::-1], np.sqrt(y)]
    ours, peer = both("Ridge", {"alpha": [0.1, 3.0, 0.1]}, {"solver": "svd"}, x, y)
    same(ours, peer, 1e-9, 1e-9)


@pytest.mark.parametrize("name", ["LinearRegression", "Ridge", "Lasso"])
def test_a_column_of_targets_leaves_scikit_learns_shapes(name):
    x, y = load_diabetes(return_X_y=True)
    ours, peer = both(name, {}, {}, x, y[:, None])
    assert (ours.coef_.shape, np.shape(ours.intercept_)) == (peer.coef_.shape, np.shape(peer.intercept_))
    assert ours.predict(x).shape == peer.predict(x).shape


def test_what_linear_regression_knows_of_the_rows():
    x, y = load_diabetes(return_X_y=True)
    for rows in (x, x[:7], np.c_[x, x[:, :2]]):
        for intercept in (True, False):
            ours, peer = both("LinearRegression", {"fit_intercept": intercept}, {}, rows, y[: len(rows)])
            assert ours.rank_ == peer.rank_
            np.testing.assert_allclose(ours.singular_, peer.singular_, atol=1e-12)
    with pytest.raises(AttributeError, match="positive=True"):
        _ = zs.LinearRegression(positive=True).fit(x, y).rank_
    with pytest.raises(NotFittedError):
        _ = zs.LinearRegression().model_


def test_sparse_coefficients():
    x, y = table()
    lasso = zs.Lasso(0.05).fit(x, y)
    np.testing.assert_array_equal(lasso.sparse_coef_.toarray()[0], lasso.coef_)
    model = zs.LogisticRegression(C=0.1, l1_ratio=1.0).fit(x, y)
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(model.sparsify().predict_proba(x), probabilities, rtol=1e-12)
    assert sparse.issparse(model.coef_)
    assert not sparse.issparse(model.densify().coef_)


def test_the_model_has_the_path():
    x, y = load_diabetes(return_X_y=True)
    path = zs.Lasso(0.5).fit(x, y).model_.path(5)
    assert path.weight.shape == (5, 1, 10)


def test_verbose_prints_the_objective(capsys):
    zs.LogisticRegression(verbose=1).fit(*table())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert lines[0].startswith("iteration 1: objective 0.693147")


@pytest.mark.parametrize("weight", [np.zeros(90), -np.ones(90)])
@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_weights_that_leave_nothing(estimator, weight):
    with pytest.raises(ValueError, match=r"at least one non-zero number|Negative values"):
        clone(estimator).fit(*table(), sample_weight=weight)
