"""The support vector machines beside scikit-learn's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.kernel_approximation
import sklearn.svm
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

import zoo.sklearn as zs


def standardized(load):
    x, y = load(return_X_y=True)
    return StandardScaler().fit_transform(x), y


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}, {"kernel": "poly", "coef0": 1.0, "degree": 2}], ids=str)
def test_svc_shows_what_scikit_learns_shows(load, options):
    x, y = standardized(load)
    names = np.array(["a", "b", "c"])[y]
    weight = np.linspace(0.1, 2, len(x))  # with a weight of 0 scikit-learn numbers the rows that are left
    settings = {"tol": 1e-8, "class_weight": "balanced", **options}
    ours, theirs = (m.SVC(**settings).fit(x, names, sample_weight=weight) for m in (zs, sklearn.svm))
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_array_equal(ours.n_support_, theirs.n_support_)
    np.testing.assert_array_equal(ours.support_vectors_, theirs.support_vectors_)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, atol=1e-4 * np.abs(theirs.dual_coef_).max())
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    if options.get("kernel") == "linear":
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    for shape in ("ovr", "ovo"):
        a, b = (m.set_params(decision_function_shape=shape).decision_function(x) for m in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=1e-4)
    ours, theirs = (m.set_params(decision_function_shape="ovr", break_ties=True) for m in (ours, theirs))
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert (ours.fit_status_, ours.shape_fit_) == (theirs.fit_status_, theirs.shape_fit_)
    np.testing.assert_allclose(ours.class_weight_, theirs.class_weight_)


def test_sparse_rows_functions_and_matrices_are_the_same_machine():
    x, y = standardized(load_iris)
    plain = zs.SVC(kernel="linear", tol=1e-8).fit(x, y)
    thin = zs.SVC(kernel="linear", tol=1e-8).fit(sparse.csr_matrix(x), y)
    assert sparse.issparse(thin.dual_coef_)
    assert sparse.issparse(thin.support_vectors_)
    by_function = zs.SVC(kernel=lambda a, b: a @ b.T, tol=1e-8).fit(x, y)
    by_matrix = zs.SVC(kernel="precomputed", tol=1e-8).fit(x @ x.T, y)
    expected = plain.decision_function(x)
    for found in (
        thin.decision_function(sparse.csr_matrix(x)), thin.decision_function(x), by_function.decision_function(x),
        by_matrix.decision_function(x @ x.T),
    ):  # fmt: skip
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(thin.coef_.toarray(), plain.coef_, atol=1e-8)
    assert cross_val_score(zs.SVC(kernel="precomputed"), x @ x.T, y, cv=3).mean() > 0.9


def test_probabilities_are_near_scikit_learns():
    x, y = standardized(load_breast_cancer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ours = zs.SVC(probability=True).fit(x, y)
        theirs = sklearn.svm.SVC(probability=True, random_state=0).fit(x, y)
        assert ours.probA_ == pytest.approx(theirs.probA_, rel=0.3)
        assert ours.probB_ == pytest.approx(theirs.probB_, abs=0.3)
    p = ours.predict_proba(x)
    assert np.abs(p - theirs.predict_proba(x)).max() < 0.1
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(x)), p)
    with pytest.warns(FutureWarning, match="deprecated, as in scikit-learn"):
        zs.SVC(probability=True).fit(x[:60], y[:60])
    assert not hasattr(zs.SVC(), "predict_proba")


@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}, {"epsilon": 0.0, "C": 10.0}], ids=str)
def test_svr_shows_what_scikit_learns_shows(options):
    x, y = standardized(load_diabetes)
    x, y = x[:200], y[:200] / 50
    ours, theirs = (m.SVR(tol=1e-7, **options).fit(x, y) for m in (zs, sklearn.svm))
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-5)
    np.testing.assert_array_equal(ours.n_support_, theirs.n_support_)


def test_one_class_shows_what_scikit_learns_shows():
    x, _ = standardized(load_breast_cancer)
    weight = np.linspace(0.5, 1.5, len(x))
    ours, theirs = (m.OneClassSVM(nu=0.2, tol=1e-8).fit(x, sample_weight=weight) for m in (zs, sklearn.svm))
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-5)
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), atol=1e-5)
    np.testing.assert_allclose(ours.offset_, theirs.offset_, atol=1e-5)
    assert (ours.predict(x) != theirs.predict(x)).sum() <= 1 + (np.abs(theirs.decision_function(x)) < 1e-6).sum()


@pytest.mark.parametrize("kernel", ["rbf", "linear", "precomputed"])
def test_the_model_answers_as_the_estimators_do(kernel):
    x, y = standardized(load_iris)
    rows = x @ x.T if kernel == "precomputed" else x
    several = zs.SVC(kernel=kernel, probability=True, class_weight="balanced").fit(rows, y)
    columns = several.model_.predict_columns(rows)
    np.testing.assert_array_equal(columns["prediction"], several.predict(rows))
    np.testing.assert_allclose(columns["decision"], several.decision_function(rows), atol=1e-12)
    np.testing.assert_allclose(columns["probability"], several.predict_proba(rows), atol=1e-12)
    assert several.model_.num_iter.tolist() == several.n_iter_.tolist()
    few = rows[:100, :100] if kernel == "precomputed" else rows[:100]
    two, value, one = zs.SVC(kernel=kernel), zs.SVR(kernel=kernel), zs.OneClassSVM(kernel=kernel)
    two.fit(few, y[:100]), value.fit(rows, x[:, 0]), one.fit(rows)
    np.testing.assert_allclose(two.model_.predict_columns(few)["decision"], two.decision_function(few), atol=1e-12)
    np.testing.assert_allclose(value.model_.predict(rows), value.predict(rows), atol=1e-12)
    np.testing.assert_allclose(one.model_.predict_columns(rows)["decision"], one.decision_function(rows), atol=1e-12)
    assert float(value.model_.gamma) == value._gamma


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
def test_linear_svc_shows_what_scikit_learns_shows(loss, load):
    x, y = standardized(load)
    weight = np.linspace(0.5, 1.5, len(x))
    settings = {"loss": loss, "tol": 1e-8, "max_iter": 100_000, "class_weight": {0: 2.0}, "intercept_scaling": 3.0}
    ours, theirs = (m.LinearSVC(**settings).fit(x, y, sample_weight=weight) for m in (zs, sklearn.svm))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-4)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    thin = zs.LinearSVC(**settings).fit(sparse.csr_matrix(x), y, sample_weight=weight)
    np.testing.assert_allclose(thin.coef_, ours.coef_, atol=1e-6)
    assert sparse.issparse(thin.sparsify().coef_)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_linear_machines_are_those_of_the_model_with_and_without_kernels(loss, monkeypatch):
    x, y = standardized(load_iris)
    weight = np.linspace(0.5, 1.5, len(x))
    settings = {"loss": loss, "tol": 1e-8, "max_iter": 100_000, "class_weight": "balanced"}
    ours = zs.LinearSVC(**settings).fit(x, y, sample_weight=weight)
    scores = ours.model_.predict_columns(x)["decision"]
    np.testing.assert_allclose(scores, ours.decision_function(x), atol=1e-12)
    values = zs.LinearSVR(fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(values.model_.predict(x), values.predict(x), atol=1e-12)
    monkeypatch.setenv("ZOO_KERNELS", "0")
    without = zs.LinearSVC(**{**settings, "verbose": 1}).fit(x[::3], y[::3], sample_weight=weight[::3])
    monkeypatch.delenv("ZOO_KERNELS")
    compiled = zs.LinearSVC(**settings).fit(x[::3], y[::3], sample_weight=weight[::3])
    np.testing.assert_allclose(without.coef_, compiled.coef_, atol=1e-5)
    np.testing.assert_allclose(without.intercept_, compiled.intercept_, atol=1e-5)
    row = zs.LinearSVC(**settings).fit(x, y, sample_weight=weight * (np.arange(len(x)) > 0))
    left = zs.LinearSVC(**settings).fit(x[1:], y[1:], sample_weight=weight[1:])
    assert np.abs(row.coef_ - left.coef_).max() < 0.05  # `balanced` counts the rows


@pytest.mark.parametrize("loss", ["epsilon_insensitive", "squared_epsilon_insensitive"])
def test_linear_svr_shows_what_scikit_learns_shows(loss):
    x, y = standardized(load_diabetes)
    settings = {"loss": loss, "tol": 1e-5, "max_iter": 100_000, "C": 0.01, "epsilon": 1.0, "dual": True}
    ours, theirs = (m.LinearSVR(**settings).fit(x, y) for m in (zs, sklearn.svm))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=0.05)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-2, atol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [lambda x: x, sparse.csr_matrix], ids=["dense", "sparse"])
def test_feature_maps_are_scikit_learns_from_the_same_draws(dtype, make):
    x = make(standardized(load_iris)[0].astype(dtype))
    bound = 1e-9 if dtype == np.float64 else 1e-3
    for options in ({"gamma": 0.5}, {"gamma": "scale"}):
        settings = {"n_components": 20, "random_state": 0, **options}
        maps = zs.RBFSampler(**settings), sklearn.kernel_approximation.RBFSampler(**settings)
        ours, theirs = (m.fit_transform(x) for m in maps)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=bound)
    for options in ({"gamma": 0.2}, {"kernel": "poly", "degree": 2}, {"kernel": "cosine"}, {"kernel": "laplacian"}):
        settings = {"n_components": 20, "random_state": 0, **options}
        maps = zs.Nystroem(**settings), sklearn.kernel_approximation.Nystroem(**settings)
        ours, theirs = (m.fit_transform(x) for m in maps)
        np.testing.assert_array_equal(maps[0].component_indices_, maps[1].component_indices_)
        # The root of directions of almost no length is rounding: inner products are what counts.
        np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6 if dtype == np.float64 else 2e-2)


def test_mistakes_are_scikit_learns():
    x, y = standardized(load_breast_cancer)
    with pytest.warns(ConvergenceWarning, match=r"Solver terminated early \(max_iter=3\)"):
        assert zs.SVC(max_iter=3).fit(x, y).fit_status_ == 1
    with pytest.warns(ConvergenceWarning, match="LinearSVC did not converge"):
        zs.LinearSVC(max_iter=1, loss="hinge").fit(x, y)
    with pytest.raises(ValueError, match="not supported when dual=False"):
        zs.LinearSVC(loss="hinge", dual=False).fit(x, y)
    with pytest.raises(ValueError, match="break_ties must be False"):
        zs.SVC(break_ties=True, decision_function_shape="ovo").fit(x, y).predict(x)
    with pytest.raises(ValueError, match=r"a square matrix. Input is a 569x30 matrix\."):
        zs.SVC(kernel="precomputed").fit(x, y)
    with pytest.raises(AttributeError, match="linear kernel"):
        zs.SVC().fit(x, y).coef_  # noqa: B018
    with pytest.raises(ValueError, match="positive weights are of one class"):
        zs.SVC().fit(x, y, sample_weight=(y == 1).astype(float))
