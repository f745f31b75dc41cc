"""TSNE under scikit-learn's name: every option does what it says, and the maps are as good as scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.manifold as peer
from sklearn.datasets import load_iris
from sklearn.metrics import pairwise_distances

import zoo.sklearn as zs

X = load_iris().data[::5]
QUICK = {"perplexity": 5, "max_iter": 60, "random_state": 0}


def test_maps_are_as_good_as_scikit_learns():
    options = {"perplexity": 8, "random_state": 0, "method": "exact"}
    x = load_iris().data[::3]
    ours, theirs = (cls(**options).fit(x) for cls in (zs.TSNE, peer.TSNE))
    assert ours.kl_divergence_ < 1.05 * theirs.kl_divergence_
    assert ours.learning_rate_ == theirs.learning_rate_
    assert ours.embedding_.shape == theirs.embedding_.shape


@pytest.mark.parametrize("method", ["barnes_hut", "exact", "fft", "auto"])
def test_methods_by_name(method):
    assert zs.TSNE(method=method, **QUICK).fit(X).n_iter_ == 60


def test_a_map_to_start_from():
    start = np.random.default_rng(0).standard_normal((len(X), 2)) * 1e-4
    model = zs.TSNE(init=start, **{**QUICK, "max_iter": 1}, learning_rate=1e-9).fit(X)
    np.testing.assert_allclose(model.embedding_, start - start.mean(0), atol=1e-7)
    again = zs.TSNE(init=start, **QUICK).fit(X)
    shuffled = np.random.default_rng(1).permutation(len(X))
    other = zs.TSNE(init=start[shuffled], **QUICK).fit(X[shuffled])
    np.testing.assert_allclose(other.embedding_, again.embedding_[shuffled], rtol=1e-3, atol=1e-3)


def test_the_learning_rate_is_heeded():
    start = np.random.default_rng(0).standard_normal((len(X), 2)) * 1e-4
    moved = [
        np.abs(zs.TSNE(init=start, learning_rate=rate, **{**QUICK, "max_iter": 1}).fit_transform(X) - start).max()
        for rate in (10.0, 100.0)
    ]
    assert moved[1] == pytest.approx(10 * moved[0], rel=0.2)
    assert zs.TSNE(learning_rate=33.0, **QUICK).fit(X).learning_rate_ == 33.0


@pytest.mark.parametrize(("options", "least"), [({"min_grad_norm": 10.0}, 300), ({"n_iter_without_progress": -1}, 300)])
def test_it_stops_where_nothing_gets_better(options, least):
    model = zs.TSNE(perplexity=5, max_iter=3000, random_state=0, **options).fit(X)
    assert least <= model.n_iter_ < 3000
    assert zs.TSNE(perplexity=5, max_iter=350, min_grad_norm=0.0, random_state=0).fit(X).n_iter_ == 350


@pytest.mark.parametrize(
    ("metric", "params"),
    [("minkowski", {"p": 3}), ("minkowski", None), ("l1", None), (lambda a, b: np.abs(a - b).sum(), None)],
)
def test_metrics_with_options(metric, params):
    quick = {**QUICK, "max_iter": 350, "init": np.random.default_rng(0).standard_normal((len(X), 2)) * 1e-4}
    model = zs.TSNE(metric=metric, metric_params=params, **quick).fit(X)
    distances = pairwise_distances(X, metric=metric, **(params or {}))
    plain = zs.TSNE(metric="precomputed", **quick).fit(distances)
    known = metric == "l1"  # whose rows the zoo puts in an order of their own
    assert model.kl_divergence_ == pytest.approx(plain.kl_divergence_, rel=0.5 if known else 1e-6)
    placed = model.transform(X[:4])
    assert np.linalg.norm(placed - model.embedding_[:4], axis=1).max() < np.ptp(model.embedding_) / 3
    np.testing.assert_allclose(plain.transform(distances[:4]), plain.embedding_[:4], atol=np.ptp(plain.embedding_) / 3)


def test_sparse_rows_are_dense_ones():
    dense, sparse = (zs.TSNE(**QUICK).fit(rows) for rows in (X, sp.csr_matrix(X)))
    np.testing.assert_array_equal(dense.embedding_, sparse.embedding_)
    np.testing.assert_array_equal(dense.transform(X[:3]), sparse.transform(sp.csc_matrix(X[:3])))


def test_progress_is_printed(capsys):
    zs.TSNE(verbose=1, **QUICK).fit(X)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[-1].startswith("[t-SNE] Iteration 60: error = ")


def test_mistakes():
    with pytest.raises(ValueError, match=r'init="pca" cannot be used with metric="precomputed"'):
        zs.TSNE(metric="precomputed").fit(pairwise_distances(X))
    with pytest.raises(ValueError, match="square distance matrix"):
        zs.TSNE(metric="precomputed", init="random").fit(X)
    with pytest.raises(ValueError, match="Negative values"):
        zs.TSNE(metric="precomputed", init="random").fit(-pairwise_distances(X))
    with pytest.raises(TypeError, match="as a dense matrix"):
        zs.TSNE(metric="precomputed", init="random").fit(sp.csr_matrix(pairwise_distances(X)))
    with pytest.raises(ValueError, match=r"init has shape \(3, 2\)"):
        zs.TSNE(init=np.zeros((3, 2)), **QUICK).fit(X)
    with pytest.raises(ValueError, match="the metric given is not correct"):
        zs.TSNE(metric=lambda a, b: -1.0, **QUICK).fit(X)
