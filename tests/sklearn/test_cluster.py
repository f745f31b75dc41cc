"""The estimators with centroids beside scikit-learn's: any start, sparse rows, batches, and centroids that are set."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.cluster as peer
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

import zoo.sklearn as zs

X = load_digits().data[:500]
START = X[:10]
WEIGHT = np.random.default_rng(0).uniform(0.1, 2, len(X))
ROWS = {"dense": X, "float32": X.astype(np.float32), "csr": sp.csr_matrix(X), "csc": sp.csc_array(X)}


def some_rows(x, number, random_state):
    return x[random_state.permutation(x.shape[0])[:number]]


def written_out(x, number, random_state):
    rows = some_rows(x, number, random_state)
    return rows.toarray() if sp.issparse(rows) else rows


def fit(model, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data, **options)


def assert_same(ours, theirs, rows, single=False):
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-3 if single else 1e-9)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-5 if single else 1e-10)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.cluster_centers_.dtype == theirs.cluster_centers_.dtype
    assert ours.labels_.dtype == theirs.labels_.dtype
    np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
    np.testing.assert_allclose(ours.transform(rows), theirs.transform(rows), rtol=1e-4 if single else 1e-9)
    assert ours.transform(rows).dtype == theirs.transform(rows).dtype
    assert ours.score(rows) == pytest.approx(theirs.score(rows), rel=1e-5)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tol", [0.0, 1e-2])
@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans_from_an_array(rows, tol, weighted):
    options = {"init": START, "tol": tol, "n_init": 1}
    weight = WEIGHT if weighted else None
    ours, theirs = (cls(10, **options).fit(ROWS[rows], sample_weight=weight) for cls in (zs.KMeans, peer.KMeans))
    assert_same(ours, theirs, ROWS[rows], single=rows == "float32")


@pytest.mark.parametrize("rows", ["dense", "csr"])
def test_kmeans_from_a_function(rows):
    for cls in (zs.KMeans, zs.MiniBatchKMeans):
        theirs = getattr(peer, cls.__name__)(6, init=written_out, n_init=4, random_state=0).fit(ROWS[rows])
        assert_same(fit(cls(6, init=written_out, n_init=4, random_state=0), ROWS[rows]), theirs, ROWS[rows])


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_are_drawn_as_dense_ones(init, weighted):
    model = {"init": init, "n_init": 3, "random_state": 0}
    weight = WEIGHT if weighted else None
    sparse, dense = (zs.KMeans(7, **model).fit(ROWS[rows], sample_weight=weight) for rows in ("csr", "dense"))
    np.testing.assert_allclose(sparse.cluster_centers_, dense.cluster_centers_, atol=1e-9)
    assert sparse.n_iter_ == dense.n_iter_


def test_an_empty_cluster_of_sparse_rows_is_filled():
    x = sp.csr_matrix([[1.0, 0.0], [1.1, 0.0], [0.0, 5.0], [0.0, 5.2]])
    model = zs.KMeans(3, init=[[1.0, 0.0], [0.0, 5.0], [99.0, 99.0]]).fit(x)
    assert len(np.unique(model.labels_)) == 3
    rows = sp.random(60, 8, 0.05, random_state=1, format="csr")  # some of them empty
    start = rows.toarray()[:4]
    filled = zs.KMeans(4, init=start).fit(rows)  # which begins with equal centroids
    assert len(np.unique(filled.labels_)) == 4
    assert filled.inertia_ == pytest.approx(-filled.score(rows.toarray()), rel=1e-9)


@pytest.mark.parametrize("rows", ["dense", "float32", "csr"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tol": 1e-3},
        {"batch_size": 50, "max_no_improvement": None, "max_iter": 3, "reassignment_ratio": 0.3},
        {"init": "random", "n_init": 5, "init_size": 100, "batch_size": 64},
        {"reassignment_ratio": 0.0, "max_no_improvement": 2},
    ],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_mini_batches(rows, options):
    options = {"init": START, "batch_size": 100, "random_state": 3, **options}
    for weight in (None, WEIGHT):
        ours, theirs = (
            fit(cls(10, **options), ROWS[rows], sample_weight=weight)
            for cls in (zs.MiniBatchKMeans, peer.MiniBatchKMeans)
        )
        assert ours.n_steps_ == theirs.n_steps_ or rows == "float32"
        if rows != "float32":  # scikit-learn's sums are in single precision there
            assert_same(ours, theirs, ROWS[rows])
        assert ours.cluster_centers_.dtype == theirs.cluster_centers_.dtype


def test_without_labels():
    options = {"init": START, "batch_size": 100, "random_state": 0, "compute_labels": False}
    ours, theirs = (fit(cls(10, **options), X) for cls in (zs.MiniBatchKMeans, peer.MiniBatchKMeans))
    assert not hasattr(ours, "labels_")
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)


@pytest.mark.parametrize("rows", ["dense", "csr"])
def test_batches_as_they_come_and_small_later_ones(rows):
    models = [cls(10, init="random", random_state=0) for cls in (zs.MiniBatchKMeans, peer.MiniBatchKMeans)]
    for part in (slice(0, 100), slice(100, 103), slice(103, 104), slice(104, 500)):
        for model in models:
            model.partial_fit(ROWS[rows][part], sample_weight=WEIGHT[part])
        np.testing.assert_allclose(models[0].cluster_centers_, models[1].cluster_centers_, atol=1e-9)
        np.testing.assert_array_equal(models[0].labels_, models[1].labels_)
        assert models[0].n_steps_ == models[1].n_steps_


@pytest.mark.parametrize("cls", [zs.KMeans, zs.MiniBatchKMeans])
def test_centroids_that_are_set_are_used_everywhere(cls):
    model = fit(cls(3, random_state=0), X)
    model.cluster_centers_ = X[[0, 10]]
    np.testing.assert_array_equal(model.predict(X[[0, 10]]), [0, 1])
    assert model.transform(X).shape == (len(X), 2)
    distance = np.linalg.norm(X[:, None] - X[[0, 10]], axis=2).min(1)
    assert model.score(X) == pytest.approx(-(distance**2).sum(), rel=1e-10)
    if cls is zs.MiniBatchKMeans:
        np.testing.assert_array_equal(model.model_.predict(torch.from_numpy(X)).numpy(), model.predict(X))


@pytest.mark.parametrize("init", ["random", "k-means++", some_rows])
@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
def test_bisecting(init, strategy):
    options = {"init": init, "bisecting_strategy": strategy, "n_init": 4, "random_state": 0}
    ours, theirs = (cls(6, **options).fit(X) for cls in (zs.BisectingKMeans, peer.BisectingKMeans))
    assert ours.inertia_ < 1.05 * theirs.inertia_
    np.testing.assert_array_equal(ours.labels_, ours.predict(X))
    np.testing.assert_array_equal(ours.predict(sp.csr_matrix(X)), ours.labels_)
    again = zs.BisectingKMeans(6, **options).fit(ROWS["csr"]) if init != some_rows else ours
    np.testing.assert_array_equal(again.labels_, ours.labels_)


def test_bisecting_starts_where_the_function_says():
    def ends(x, number, random_state):
        return x[[0, -1]]

    x = np.array([[0.0], [1.0], [5.0], [6.0], [20.0], [22.0]])
    ours, theirs = (cls(3, init=ends).fit(x) for cls in (zs.BisectingKMeans, peer.BisectingKMeans))
    np.testing.assert_allclose(np.sort(ours.cluster_centers_, 0), np.sort(theirs.cluster_centers_, 0))


@pytest.mark.parametrize("cls", [zs.KMeans, zs.MiniBatchKMeans, zs.BisectingKMeans])
def test_progress_is_printed(cls, capsys):
    fit(cls(3, random_state=0), X)
    assert not capsys.readouterr().out
    for rows in (X, ROWS["csr"]):
        fit(cls(3, random_state=0, verbose=1), rows)
        assert "inertia" in capsys.readouterr().out
    quiet, loud = (fit(cls(3, random_state=0, verbose=verbose), X) for verbose in (0, 1))
    np.testing.assert_allclose(quiet.cluster_centers_, loud.cluster_centers_, atol=1e-9)


@pytest.mark.parametrize("cls", [zs.KMeans, zs.MiniBatchKMeans, zs.BisectingKMeans])
def test_fewer_different_rows_than_clusters(cls):
    with (
        pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\)")
        if cls is not zs.MiniBatchKMeans
        else (warnings.catch_warnings())
    ):
        cls(3, random_state=0).fit(np.repeat([[0.0], [1.0]], 5, 0))


@pytest.mark.parametrize("offset", [0.0, 1e5, 1e7])
@pytest.mark.parametrize("cls", [zs.KMeans, zs.MiniBatchKMeans, zs.BisectingKMeans])
def test_labels_of_float32_rows_are_those_of_predict(cls, offset):
    x = (np.random.default_rng(0).standard_normal((1000, 2)) + offset).astype(np.float32)
    model = cls(3, random_state=0).fit(x)
    assert model.cluster_centers_.dtype == np.float32
    np.testing.assert_array_equal(model.labels_, model.predict(x))
    if cls is zs.KMeans:
        assert model.score(x) == pytest.approx(-model.inertia_, rel=1e-12)
    model.cluster_centers_ = model.cluster_centers_ + np.float32(1 + offset / 100)  # what is set counts
    apart = np.square(x.astype(float)[:, None] - model.cluster_centers_).sum(2)
    if cls is not zs.BisectingKMeans:
        np.testing.assert_array_equal(model.predict(x), apart.argmin(1))


def test_mistakes():
    with pytest.raises(ValueError, match="does not match the number of clusters 3"):
        zs.KMeans(3, init=START).fit(X)
    with pytest.raises(ValueError, match="does not match the number of features"):
        zs.KMeans(10, init=START[:, :5]).fit(X)
    with pytest.raises(ValueError, match="does not match the number of clusters 3"):
        zs.KMeans(3, init=lambda x, k, random_state: x[:2]).fit(X)
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        zs.MiniBatchKMeans(3).partial_fit(X[:2])
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans instead of n_init=5"):
        zs.KMeans(10, init=START, n_init=5).fit(X)
    with pytest.warns(RuntimeWarning, match="init_size=2 should be larger"):
        zs.MiniBatchKMeans(10, init_size=2).fit(X)
