"""Silhouette, Davies-Bouldin and the elbow against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo import visual
from zoo.analysis.cluster_scores import davies_bouldin_score, elbow, silhouette_samples, silhouette_score
from zoo.errors import ZooError


@pytest.mark.parametrize(("num_rows", "num_clusters", "chunk"), [(6, 2, 1 << 22), (500, 7, 1 << 22), (500, 7, 3000)])
def test_scores_equal_scikit_learns(
    num_rows: int, num_clusters: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    monkeypatch.setattr("zoo.numerics.silhouette._CHUNK_ELEMENTS", chunk)
    x = torch.randn(num_rows, 4, dtype=torch.float64) + 10
    labels = 3 * torch.randint(num_clusters, (num_rows,))
    labels[:num_clusters] = 3 * torch.arange(num_clusters)
    labels[0] = 100  # alone
    expected = torch.from_numpy(metrics.silhouette_samples(x.numpy(), labels.numpy()))
    torch.testing.assert_close(silhouette_samples(x, labels), expected, rtol=1e-9, atol=1e-12)
    assert silhouette_score(x, labels).item() == pytest.approx(expected.mean().item(), rel=1e-9)
    groups = [x[labels == name].numpy() for name in labels.unique()]
    means = [rows.mean(0) for rows in groups]
    spread = [np.linalg.norm(rows - mean, axis=1).mean() for rows, mean in zip(groups, means, strict=True)]
    worst = [
        max((s + t) / np.linalg.norm(a - b) for b, t in zip(means, spread, strict=True) if b is not a)
        for a, s in zip(means, spread, strict=True)
    ]
    assert davies_bouldin_score(x, labels).item() == pytest.approx(np.mean(worst), rel=1e-9)
    # whose products leave a row alone in its cluster at some 1e-7 from its own mean
    theirs = metrics.davies_bouldin_score(x.numpy(), labels.numpy())
    assert davies_bouldin_score(x, labels).item() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_lists_and_names_are_taken_as_scikit_learn_takes_them(dtype: type) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(dtype)
    names = np.array(["left", "right", "up"])[np.arange(60) % 3]
    expected = metrics.silhouette_samples(x, names)
    for rows, labels in ((x, names), (x[:, ::1], list(names)), (np.asfortranarray(x), names), (x[::-1][::-1], names)):
        np.testing.assert_allclose(silhouette_samples(rows, labels).numpy(), expected, atol=1e-5)
        assert float(davies_bouldin_score(rows, labels)) == pytest.approx(
            metrics.davies_bouldin_score(x, names), rel=1e-5
        )
    assert float(silhouette_score([[0], [1], [10]], [5, 5, 7])) == pytest.approx(0.5963, abs=1e-4)


def test_scores_of_rows_far_from_zero() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) + 1000 + 5 * (torch.arange(200) % 3)[:, None]
    labels = torch.arange(200) % 3
    expected = metrics.davies_bouldin_score(x.double().numpy(), labels.numpy())
    assert float(davies_bouldin_score(x, labels)) == pytest.approx(expected, rel=1e-4)
    expected = metrics.silhouette_score(x.double().numpy(), labels.numpy())
    assert float(silhouette_score(x, labels)) == pytest.approx(expected, rel=1e-4)


def test_clusters_on_one_spot() -> None:
    x, labels = torch.ones(4, 2), torch.tensor([0, 0, 1, 1])
    assert silhouette_samples(x, labels).tolist() == [0, 0, 0, 0]
    assert davies_bouldin_score(x, labels) == 0


def test_labels_that_cannot_be_scored() -> None:
    with pytest.raises(ZooError, match="at least two"):
        silhouette_score(torch.rand(3, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ZooError, match="one label for each row"):
        davies_bouldin_score(torch.rand(3, 2), torch.tensor([0, 1]))
    with pytest.raises(ZooError, match="one label for each row"):
        silhouette_score(np.zeros((3, 2)), np.zeros((3, 1), dtype=int))


@pytest.mark.parametrize("model", ["kmeans", "bisecting_kmeans"])
def test_elbow_falls_to_zero_at_as_many_clusters_as_rows(model: str) -> None:
    x = torch.randn(12, 3, dtype=torch.float64)
    inertia = elbow(x, (1, 2, 4, 12), model=model, num_init=4)
    values = list(inertia.values())
    assert values[0] == pytest.approx((x - x.mean(0)).square().sum().item(), rel=1e-9)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert visual.elbow(inertia).axes[0].lines[0].get_xdata().tolist() == [1, 2, 4, 12]
