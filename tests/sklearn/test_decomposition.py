"""PCA and IncrementalPCA beside scikit-learn's: every solver and option, sparse rows, and answers from what is set."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.decomposition as peer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

import zoo.sklearn as zs

IRIS = load_iris().data
DIGITS = load_digits().data


def assert_same(ours, theirs, rtol=1e-9, atol=1e-8):
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.max(theirs.explained_variance_)), err_msg=name)
    assert ours.n_components_ == theirs.n_components_
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=atol)


@pytest.mark.parametrize(
    ("solver", "wanted"),
    [
        ("auto", 5),
        ("auto", 0.9),
        ("full", 7),
        ("full", "mle"),
        ("covariance_eigh", 0.99),
        ("arpack", 5),
        ("arpack", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_solvers(solver, wanted, dtype):
    x = DIGITS[:, 8:24:2].astype(dtype)  # no constant feature, no equal variances
    ours = zs.PCA(wanted, svd_solver=solver, random_state=0).fit(x)
    theirs = peer.PCA(wanted, svd_solver=solver, random_state=0).fit(x.astype(np.float64))
    assert ours._fit_svd_solver == theirs._fit_svd_solver
    single = dtype == np.float32
    assert_same(ours, theirs, rtol=1e-5 if single else 1e-9, atol=1e-4 if single else 1e-7)
    assert ours.components_.dtype == ours.transform(x).dtype == ours.mean_.dtype == dtype


@pytest.mark.parametrize("scale", [1e-22, 1e-9, 1.0, 1e18])
def test_float32_rows_of_any_size(scale):
    rng = np.random.default_rng(0)
    rows = ((rng.standard_normal((900, 80)) * np.geomspace(1, 0.1, 80) + 3) * scale).astype(np.float32)
    ours, theirs = zs.PCA(5).fit(rows), peer.PCA(5).fit(rows.astype(np.float64) / scale)
    assert ours._fit_svd_solver == "covariance_eigh"
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(ours.mean_ / np.float32(scale), theirs.mean_, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"iterated_power": 9}, {"n_oversamples": 40}])
def test_randomized_comes_no_less_close_than_scikit_learns(options):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 700)) * np.arange(1, 701) ** -0.6
    exact = np.linalg.svd(x - x.mean(0), compute_uv=False)[:8]
    ours = zs.PCA(8, svd_solver="randomized", random_state=0, **options).fit(x)
    theirs = peer.PCA(8, svd_solver="randomized", random_state=0, **options).fit(x)
    assert abs(ours.singular_values_ - exact).max() <= 1.01 * abs(theirs.singular_values_ - exact).max() + 1e-9


def test_more_refinement_comes_closer():
    x = np.random.default_rng(0).standard_normal((300, 400))
    exact = np.linalg.svd(x - x.mean(0), compute_uv=False)[:5]

    def error(**options):
        found = zs.PCA(5, svd_solver="randomized", random_state=0, **options).fit(x).singular_values_
        return abs(found - exact).max()

    assert error(iterated_power=8) < 0.5 * error(iterated_power=1)
    assert error(n_oversamples=60, iterated_power=2) < error(n_oversamples=2, iterated_power=2)


def test_arpack_is_met_to_its_tolerance():
    x = np.random.default_rng(0).standard_normal((300, 400)) * np.arange(1, 401) ** -0.3
    exact = np.linalg.svd(x - x.mean(0), compute_uv=False)[:4]
    passes = []
    for tol in (1e-1, 1e-3, 0.0):
        model = zs.PCA(4, svd_solver="arpack", tol=tol, random_state=0).fit(x)
        passes.append(model.model_.basis.shape[1])
        np.testing.assert_allclose(model.singular_values_, exact, rtol=max(tol, 1e-10))
    assert passes == sorted(passes)
    assert passes[0] < passes[-1]


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_array])
@pytest.mark.parametrize("solver", ["auto", "arpack", "covariance_eigh"])
def test_sparse_rows(solver, layout, monkeypatch):
    monkeypatch.setattr("zoo.sklearn.rows.BLOCK", 600)  # a few rows at a time
    x = sp.random(120, 30, 0.2, random_state=0)
    ours, theirs = (cls(4, svd_solver=solver, random_state=0).fit(layout(x)) for cls in (zs.PCA, peer.PCA))
    assert_same(ours, theirs)
    np.testing.assert_allclose(ours.transform(layout(x)), theirs.transform(layout(x)), atol=1e-9)
    np.testing.assert_allclose(ours.transform(layout(x)), ours.transform(x.toarray()), atol=1e-12)


@pytest.mark.parametrize("name", ["breast cancer", "low rank", "noise"])
def test_likeliest_number_of_components(name):
    rng = np.random.default_rng(0)
    x = {
        "breast cancer": load_breast_cancer().data,
        "low rank": rng.standard_normal((200, 3)) @ rng.standard_normal((3, 8)) + 0.1 * rng.standard_normal((200, 8)),
        "noise": rng.standard_normal((50, 6)),
    }[name]
    assert zs.PCA("mle").fit(x).n_components_ == peer.PCA("mle").fit(x).n_components_


def test_a_share_that_is_met_exactly_takes_one_more():
    x = np.diag([3.0, 2.0, 1.0])
    x = np.concatenate([x, -x])
    shares = peer.PCA().fit(x).explained_variance_ratio_.cumsum()
    for share in (*shares[:2], np.nextafter(shares[0], 0), 0.01, 0.999):
        assert zs.PCA(share).fit(x).n_components_ == peer.PCA(share).fit(x).n_components_, share


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
@pytest.mark.parametrize("cls", ["PCA", "IncrementalPCA"])
def test_covariance_precision_and_likelihood(kept, cls):
    if cls == "IncrementalPCA" and not kept:
        pytest.skip("scikit-learn's takes one at least")
    ours, theirs = (getattr(library, cls)(kept).fit(IRIS) for library in (zs, peer))
    if cls == "IncrementalPCA":  # scikit-learn's forgets what it left out
        theirs = peer.PCA(kept).fit(IRIS)
    np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-10)
    np.testing.assert_allclose(ours.get_precision(), theirs.get_precision(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours.get_precision() @ ours.get_covariance(), np.eye(4), atol=1e-9)
    if kept:
        np.testing.assert_allclose(ours.score_samples(IRIS), theirs.score_samples(IRIS), atol=1e-9)
    assert ours.transform(IRIS).shape == (150, kept)


def test_components_that_are_set_are_used_everywhere():
    model = zs.PCA(2).fit(IRIS)
    model.components_ = np.eye(4)[:2]
    model.mean_ = np.zeros(4)
    np.testing.assert_array_equal(model.transform(IRIS), IRIS[:, :2])
    np.testing.assert_array_equal(model.inverse_transform(IRIS[:, :2]), np.c_[IRIS[:, :2], np.zeros((150, 2))])
    assert model.get_covariance()[0, 1] == 0
    whitened = zs.PCA(2, whiten=True).fit(IRIS)
    whitened.explained_variance_ = np.ones(2)
    np.testing.assert_allclose(whitened.transform(IRIS), zs.PCA(2).fit_transform(IRIS))


@pytest.mark.parametrize("rows", ["dense", "sparse"])
def test_batches_of_all_rows(rows):
    x = IRIS if rows == "dense" else sp.lil_matrix(IRIS)
    ours, whole = zs.IncrementalPCA(3, batch_size=20).fit(x), zs.PCA(3).fit(IRIS)
    np.testing.assert_allclose(ours.components_, whole.components_, atol=1e-9)
    np.testing.assert_allclose(ours.var_, IRIS.var(0), rtol=1e-12)
    theirs = peer.IncrementalPCA(3, batch_size=20).fit(x)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.explained_variance_, whole.explained_variance_, rtol=1e-9)
    assert ours.n_samples_seen_ == 150
    assert ours.batch_size_ == 20


def test_batches_keep_what_the_first_one_allows():
    ours = zs.IncrementalPCA().partial_fit(IRIS[:3]).partial_fit(IRIS[3:])
    assert ours.n_components_ == peer.IncrementalPCA().partial_fit(IRIS[:3]).partial_fit(IRIS[3:]).n_components_ == 3


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (zs.PCA("mle"), IRIS[:3], ValueError, "n_samples >= n_features"),
        (zs.PCA("mle", svd_solver="randomized"), IRIS, ValueError, "cannot be a string"),
        (zs.PCA(4, svd_solver="arpack"), IRIS, ValueError, "strictly less than"),
        (zs.PCA(0, svd_solver="randomized"), IRIS, ValueError, "between 1 and"),
        (zs.PCA(2, svd_solver="full"), sp.csr_matrix(IRIS), TypeError, "sparse rows with"),
        (zs.IncrementalPCA(5), IRIS, ValueError, "n_components=5 invalid for n_features=4"),
        (zs.IncrementalPCA(3, batch_size=2), IRIS[:2], ValueError, "less or equal to the batch number"),
    ],
)
def test_mistakes(model, x, error, message):
    with pytest.raises(error, match=message):
        model.fit(x)


def test_sparse_batches_are_refused():
    with pytest.raises(TypeError, match="does not support sparse"):
        zs.IncrementalPCA(2).partial_fit(sp.csr_matrix(IRIS))
