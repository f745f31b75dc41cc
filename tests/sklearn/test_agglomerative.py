"""AgglomerativeClustering beside scikit-learn's: trees along a graph, thresholds, metrics and trees that are kept."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.cluster as peer
import torch
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.neighbors import kneighbors_graph

import zoo
import zoo.sklearn as zs
from zoo.models.agglomerative.connected import connected_components

X = np.random.default_rng(0).standard_normal((60, 3))
GRAPHS = {
    "neighbours": kneighbors_graph(X, 5, include_self=False),
    "components": kneighbors_graph(np.r_[X[:30], X[30:] + 50], 4, include_self=False),
    "grid": grid_to_graph(6, 10),
    "dense": kneighbors_graph(X, 6).toarray(),
    "function": lambda x: kneighbors_graph(x, 5, include_self=False),
}


def both(*data, **options):
    found = []
    for cls in (zs.AgglomerativeClustering, peer.AgglomerativeClustering):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(cls(**options).fit(*data))
    return found


def assert_same(ours, theirs):
    np.testing.assert_array_equal(np.sort(ours.children_, 1), np.sort(theirs.children_, 1))
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1.0
    for name in ("n_clusters_", "n_leaves_", "n_connected_components_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert hasattr(ours, "distances_") == hasattr(theirs, "distances_")
    if hasattr(ours, "distances_"):
        np.testing.assert_allclose(ours.distances_, theirs.distances_, rtol=1e-9)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "precomputed"])
def test_trees_along_a_graph(graph, linkage, metric):
    if linkage == "ward" and metric != "euclidean":
        pytest.skip("Ward's is Euclidean")
    if metric == "precomputed" and graph == "function":
        pytest.skip("the graph is one of distances then")
    x = pairwise_distances(X) if metric == "precomputed" else X
    options = {"connectivity": GRAPHS[graph], "linkage": linkage, "metric": metric}
    ours, theirs = both(x, n_clusters=4, compute_distances=True, **options)
    assert_same(ours, theirs)
    height = float(np.sort(theirs.distances_)[30:32].mean())  # between two merges
    assert_same(*both(x, n_clusters=None, distance_threshold=height, **options))


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
@pytest.mark.parametrize("whole", [True, False, "auto"])
def test_trees_that_stop_early(linkage, whole):
    options = {"connectivity": GRAPHS["neighbours"], "linkage": linkage, "compute_full_tree": whole}
    for number in (7, 55):
        assert_same(*both(X, n_clusters=number, compute_distances=True, **options))


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
def test_merges_lie_strictly_below_the_threshold(linkage):
    tree = zs.AgglomerativeClustering(linkage=linkage, compute_distances=True).fit(X)
    for height, number in ((tree.distances_[20], 40), (np.nextafter(tree.distances_[20], np.inf), 39)):
        found = zs.AgglomerativeClustering(None, distance_threshold=height, linkage=linkage).fit(X)
        assert len(np.unique(found.labels_)) == found.n_clusters_ == number
    for height in (0.0, tree.distances_[20:22].mean(), 1e9):
        assert_same(*both(X, n_clusters=None, distance_threshold=height, linkage=linkage))
    assert not hasattr(zs.AgglomerativeClustering().fit(X), "distances_")
    ties = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert zs.AgglomerativeClustering(None, distance_threshold=1.0, linkage=linkage).fit(ties).n_clusters_ == 4


@pytest.mark.parametrize(
    "metric", ["cosine", "l1", "canberra", "minkowski", "yule", lambda x: pairwise_distances(x) ** 2]
)
def test_metrics(metric):
    x = X > 0 if metric == "yule" else X
    ours, theirs = both(x.astype(float), n_clusters=5, linkage="average", metric=metric, compute_distances=True)
    np.testing.assert_allclose(ours.distances_, theirs.distances_, rtol=1e-9, atol=1e-12)
    if metric != "yule":  # of few values
        assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1.0


def test_trees_are_kept(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    first = zs.AgglomerativeClustering(3, memory=memory).fit(X)
    kept = len(list(tmp_path.rglob("output.pkl")))
    again = zs.AgglomerativeClustering(9, memory=memory).fit(X)
    assert kept == len(list(tmp_path.rglob("output.pkl"))) == 1
    np.testing.assert_array_equal(first.children_, again.children_)
    np.testing.assert_array_equal(again.labels_, zs.AgglomerativeClustering(9).fit_predict(X))


def test_the_model_inside_predicts():
    model = zs.AgglomerativeClustering(4, connectivity=GRAPHS["neighbours"]).fit(X)
    np.testing.assert_array_equal(model.model_.predict(torch.from_numpy(X)).numpy(), model.labels_)


def test_a_model_of_the_zoo_merges_along_edges():
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.2]])
    edges = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4]])
    model = zoo.create_model("agglomerative_clustering", zoo.DataSpec("tabular", (1,)), num_clusters=3)
    model.connect(edges)
    model.fit_batches(lambda: [x[:2], x[2:]])
    assert len({int(model.labels[i]) for i in (0, 2, 4)}) == 3  # the last is near, but far along edges
    assert model.labels[0] == model.labels[1]


@pytest.mark.parametrize("seed", range(5))
def test_components(seed):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 40, (25, 2))
    graph = sp.coo_array((np.ones(25), edges.T), (40, 40))
    expected = sp.csgraph.connected_components(graph, directed=False)[1]
    found = connected_components(torch.from_numpy(edges), 40).numpy()
    assert len(set(zip(found, expected, strict=True))) == expected.max() + 1 == found.max() + 1


def test_mistakes():
    with pytest.raises(ValueError, match="Exactly one of"):
        zs.AgglomerativeClustering(2, distance_threshold=1.0).fit(X)
    with pytest.raises(ValueError, match="compute_full_tree must be True"):
        zs.AgglomerativeClustering(None, distance_threshold=1.0, compute_full_tree=False).fit(X)
    with pytest.raises(ValueError, match="Ward can only work with euclidean"):
        zs.AgglomerativeClustering(2, metric="cosine").fit(X)
    with pytest.raises(ValueError, match="more clusters than samples"):
        zs.AgglomerativeClustering(61).fit(X)
    with pytest.raises(ValueError, match="Wrong shape for connectivity"):
        zs.AgglomerativeClustering(2, connectivity=np.eye(3)).fit(X)
    with pytest.warns(UserWarning, match="connected components of the connectivity matrix is"):
        zs.AgglomerativeClustering(2, connectivity=np.eye(60)).fit(X)
