"""Agglomerative clustering as a model: against scikit-learn and SciPy, over batches, orders and processes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.agglomerative.agglomerative_clustering import AgglomerativeClustering
from zoo.models.agglomerative.distance_matrix import distance_matrix
from zoo.models.agglomerative.linkage import LINKAGES
from zoo.numerics.distances import METRICS


def blobs(count: int = 90, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centers = 8 * torch.randn(3, features, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([count // 2, count // 3, count - count // 2 - count // 3])
    return centers.repeat_interleave(sizes, 0) + torch.randn(count, features, generator=generator, dtype=torch.float64)


def fitted(x: Any, batch_size: int | None = None, **hparams: Any) -> AgglomerativeClustering:
    return zoo.fit(zoo.create_model("agglomerative_clustering", **hparams), x, batch_size=batch_size)


def same_partition(a: Any, b: Any) -> bool:
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
@pytest.mark.parametrize("num_clusters", [1, 2, 3, 7, 90])
def test_the_clusters_are_scikit_learns(linkage: str, num_clusters: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = blobs()
    theirs = cluster.AgglomerativeClustering(num_clusters, linkage=linkage).fit_predict(x.numpy())
    model = fitted(x, num_clusters=num_clusters, linkage=linkage)
    assert same_partition(model.labels, theirs)
    assert torch.equal(model.labels.unique(), torch.arange(num_clusters))
    sizes = model.labels.bincount()
    assert torch.equal(sizes, sizes.sort(descending=True).values)


@pytest.mark.parametrize("metric", ["cityblock", "cosine", "euclidean"])
def test_a_threshold_cuts_where_scikit_learn_does(metric: str) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = blobs()
    threshold = {"cityblock": 6.0, "cosine": 0.05, "euclidean": 3.0}[metric]
    theirs = cluster.AgglomerativeClustering(
        None, metric=metric, linkage="average", distance_threshold=threshold
    ).fit_predict(x.numpy())
    model = fitted(x, num_clusters=None, distance_threshold=threshold, linkage="average", metric=metric)
    assert same_partition(model.labels, theirs)
    assert model.labels.max() > 1


@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_tree_is_scipys(linkage: str) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    x = blobs()
    np.testing.assert_allclose(
        fitted(x, linkage=linkage).hierarchy.numpy(), hierarchy.linkage(x.numpy(), linkage), rtol=1e-10
    )


@pytest.mark.parametrize("linkage", LINKAGES)
def test_training_rows_are_given_their_own_cluster_back(linkage: str) -> None:
    x = blobs()
    model = fitted(x, num_clusters=5, linkage=linkage)
    assert torch.equal(model.predict(x), model.labels)
    columns = model.predict_columns(x + 1e-9)
    assert torch.equal(columns["prediction"], model.labels)
    torch.testing.assert_close(columns["distance"], torch.full((90,), 2e-9, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"jaccard"}))
def test_every_metric_fits_and_predicts(metric: str) -> None:
    x = blobs().round() if metric == "hamming" else blobs()
    model = fitted(x, num_clusters=4, linkage="average", metric=metric)
    assert same_partition(model.predict(x.flip(0)), model.labels.flip(0))
    assert model.labels.max() == 3


def test_the_square_matrix_of_distances_gives_the_same_clusters() -> None:
    x = blobs()
    matrix = distance_matrix(x).fill_diagonal_(0)
    model = fitted(matrix, num_clusters=4, linkage="average", metric="precomputed", batch_size=17)
    other = fitted(x, num_clusters=4, linkage="average")
    assert same_partition(model.labels, other.labels)
    torch.testing.assert_close(model.hierarchy, other.hierarchy, rtol=1e-10, atol=0)
    assert torch.equal(model.predict(matrix), model.labels)
    assert model.cophenetic_correlation() == pytest.approx(other.cophenetic_correlation(), rel=1e-10)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 90])
def test_batches_change_nothing(batch_size: int) -> None:
    x = blobs()
    whole, parts = fitted(x, num_clusters=4), fitted(x, batch_size, num_clusters=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_order_of_rows_changes_no_cluster_and_no_number(linkage: str) -> None:
    x, order = blobs(), torch.randperm(90)
    model, shuffled = fitted(x, num_clusters=6, linkage=linkage), fitted(x[order], num_clusters=6, linkage=linkage)
    assert torch.equal(shuffled.labels, model.labels[order])
    torch.testing.assert_close(shuffled.hierarchy[:, 2], model.hierarchy[:, 2], rtol=1e-9, atol=0)


def test_processes_change_nothing_and_a_half_done_pass_travels() -> None:
    x, spec = blobs(), DataSpec("tabular", (4,), dtype="float64")
    whole = fitted(x, num_clusters=4)
    parts = []
    for rows in (x[:40], x[40:]):
        part = zoo.create_model("agglomerative_clustering", num_clusters=4, spec=spec)
        part.reset_accumulators()
        part.accumulate(part.as_batch(Batch(rows)))
        parts.append(part._state())
    joined = zoo.create_model("agglomerative_clustering", num_clusters=4, spec=spec)
    joined.rows = joined.merge(parts)["rows"]
    joined.solve()
    assert torch.equal(joined.labels, whole.labels)
    resumed = zoo.create_model("agglomerative_clustering", num_clusters=4, spec=spec)
    resumed.load_state_dict({**joined.state_dict(), **parts[0]})
    resumed.accumulate(Batch(x[40:]))
    resumed.solve()
    assert torch.equal(resumed.labels, whole.labels)


def test_fitting_again_forgets_the_rows_before() -> None:
    model = fitted(blobs(), num_clusters=2)
    zoo.fit(model, blobs()[:30])
    assert model.rows.shape == (30, 4)
    assert len(model.labels) == 30
    assert torch.equal(copy.deepcopy(model).labels, model.labels)


@pytest.mark.parametrize("optimal_ordering", [False, True])
def test_the_dendrogram_holds_the_last_merges(optimal_ordering: bool) -> None:
    x = blobs()
    model = fitted(x, num_clusters=3, optimal_ordering=optimal_ordering)
    batch = model.as_batch(Batch(x))
    figures = dict(model.pictures(batch, model.predict_batch(batch)))
    assert set(figures) == {"dendrogram", "clusters"}
    axes = figures["dendrogram"].axes[0]
    segments = axes.collections[0].get_segments()
    heights = sorted(segment[1][1] for segment in segments)
    np.testing.assert_allclose(heights, model.hierarchy[-47:, 2].numpy(), rtol=1e-12)
    assert len(axes.get_xticks()) == 48
    inside = sum(height < model.cut_height() for height in model.hierarchy[:, 2].tolist())
    assert inside == len(x) - 3
    assert len({tuple(color) for color in axes.collections[0].get_colors()}) == 4  # three clusters and what joins them


def test_one_row_is_one_cluster() -> None:
    model = fitted(torch.ones(1, 2), num_clusters=1)
    assert model.labels.tolist() == [0]
    batch = model.as_batch(Batch(torch.ones(1, 2)))
    assert len(dict(model.pictures(batch, model.predict_batch(batch)))) == 2


def test_equal_rows_merge_at_height_zero() -> None:
    model = fitted(torch.ones(20, 3), num_clusters=1)
    assert bool((model.hierarchy[:, 2] == 0).all())
    assert fitted(torch.ones(20, 3), num_clusters=None, distance_threshold=0.0).labels.tolist() == [0] * 20


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"num_clusters": 0}, "model.num_clusters must be at least 1"),
        ({"num_clusters": None}, "set model.num_clusters or model.distance_threshold"),
        ({"distance_threshold": -1.0}, "model.distance_threshold must be at least 0"),
        ({"metric": "euclid"}, "Unknown metric 'euclid'. Did you mean euclidean"),
        ({"metric": "cosine"}, "linkage 'ward' is defined for the metric 'euclidean' alone"),
    ],
)
def test_wrong_arguments_are_refused(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("agglomerative_clustering", **hparams)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.ones(3, 2), {"num_clusters": 5}, "3 rows cannot form 5 clusters"),
        (torch.rand(4, 3), {"metric": "precomputed", "linkage": "single"}, "square matrix"),
    ],
)
def test_wrong_data_are_refused(x: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        fitted(x, **options)


def test_rows_that_are_not_finite_are_refused() -> None:
    model = zoo.create_model("agglomerative_clustering", spec=DataSpec("tabular", (1,)))
    with pytest.raises(zoo.ZooError, match="NaN"):
        model.fit_batches(lambda: [torch.tensor([[1.0], [float("nan")], [2.0]])])


def test_sample_weights_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match="takes no sample weights"):
        zoo.fit(zoo.create_model("agglomerative_clustering"), blobs(), sample_weight=torch.ones(90))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_predictions_do_not_depend_on_the_scale(scale: float) -> None:
    x = torch.randn(30, 3, dtype=torch.float64)
    plain, scaled = (zoo.fit(zoo.create_model("agglomerative_clustering", num_clusters=4), x * s) for s in (1.0, scale))
    assert torch.equal(plain.predict(x), scaled.predict(x * scale))
    assert torch.equal(plain.labels, plain.predict(x))
