"""Distances against SciPy, whose metrics they are, in both floating types and on rows that are hard."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.distances import ALIASES, METRICS, metric_name, pairwise_distances, squared_distances

spatial = pytest.importorskip("scipy.spatial.distance")
SCIPY = {"manhattan": "cityblock"}


def points(count: int, features: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + count)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


def suited(x: Tensor, metric: str) -> Tensor:
    return (x > 0).to(x.dtype) if metric == "jaccard" else x.round() if metric == "hamming" else x


def scipys(a: Tensor, b: Tensor, metric: str) -> np.ndarray:
    arrays = [t.double().numpy() > 0 if metric == "jaccard" else t.double().numpy() for t in (a, b)]
    return spatial.cdist(*arrays, SCIPY.get(metric, metric))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_scipys(metric: str, dtype: torch.dtype) -> None:
    a, b = suited(points(9, 7), metric).to(dtype), suited(points(30, 7), metric).to(dtype)
    ours = pairwise_distances(a, b, metric)
    assert ours.dtype == dtype
    rtol = 1e-12 if dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(ours.numpy(), scipys(a, b, metric), rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("metric", METRICS)
def test_strides_and_chunks_do_not_matter(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = suited(points(12, 10), metric), suited(points(8, 10, seed=1), metric)
    expected = pairwise_distances(a[:, ::2].contiguous(), b[:, 1::2].contiguous(), metric)
    monkeypatch.setattr("zoo.numerics.distances._CHUNK", 60)
    close = {"rtol": 1e-13, "atol": 1e-15}
    torch.testing.assert_close(pairwise_distances(a[:, ::2], b[:, 1::2], metric), expected, **close)
    torch.testing.assert_close(pairwise_distances(a[:, ::2], b.T.contiguous().T[:, 1::2], metric), expected, **close)
    repeated = pairwise_distances(a[:1, ::2].expand(5, -1), b[:, 1::2], metric)
    torch.testing.assert_close(repeated, expected[:1].expand(5, -1), **close)
    assert pairwise_distances(a[:0], b, metric).shape == (0, 8)


@pytest.mark.parametrize("metric", METRICS)
def test_whole_numbers_are_taken_as_such(metric: str) -> None:
    x = torch.arange(12).view(4, 3) % 5
    torch.testing.assert_close(pairwise_distances(x, x, metric), pairwise_distances(x.double(), x.double(), metric))


@pytest.mark.parametrize("name", [*METRICS, *ALIASES])
def test_every_name_is_accepted_everywhere(name: str) -> None:
    from zoo.models.agglomerative.linkage import linkage
    from zoo.models.tsne.affinities import dense_affinities
    from zoo.numerics.neighbors import nearest_neighbors

    x = suited(points(12, 4), name)
    first = metric_name(name)
    assert first in METRICS
    for function in (
        lambda metric: pairwise_distances(x, x, metric),
        lambda metric: nearest_neighbors(x, 3, metric=metric)[0],
        lambda metric: linkage(x, "average", metric),
        lambda metric: linkage(x, "single", metric),
        lambda metric: dense_affinities(x, 3.0, metric).matrix,
    ):
        assert torch.equal(function(name), function(first))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_a_row_without_direction_is_at_one_from_all_others_and_at_zero_from_its_like(
    metric: str, dtype: torch.dtype
) -> None:
    from zoo.models.agglomerative.distance_matrix import distance_matrix
    from zoo.models.agglomerative.linkage import linkage
    from zoo.numerics.neighbors import nearest_neighbors

    still = torch.tensor([[0.1] * 3, [1e6 / 3] * 3], dtype=dtype) * (metric == "correlation")
    x = torch.cat([still, torch.tensor([[1.0, 2.0, 4.0], [-3.0, 1.0, 0.5], [2.0, 4.0, 8.0]], dtype=dtype)])
    expected = pairwise_distances(x, x, metric)
    torch.testing.assert_close(expected[:2], torch.tensor([[0, 0, 1, 1, 1]] * 2, dtype=dtype))
    if metric == "cosine":  # as scikit-learn has it, apart from equal rows
        theirs = pytest.importorskip("sklearn.metrics").pairwise.cosine_distances(x.numpy())
        np.testing.assert_allclose(expected[2:].numpy(), theirs[2:], atol=1e-6 if dtype == torch.float32 else 1e-15)
    others = distance_matrix(x, metric).fill_diagonal_(0).to(dtype)
    torch.testing.assert_close(others, expected, rtol=1e-6, atol=1e-12)
    distance, neighbor = nearest_neighbors(x, 4, metric=metric)
    torch.testing.assert_close(distance, expected.gather(1, neighbor))
    heights = linkage(x, "single", metric)[:, 2]
    torch.testing.assert_close(heights, linkage(x, "complete", metric)[:, 2].clamp(max=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_the_scale_of_rows_is_nothing_to_their_angle(scale: float) -> None:
    x = points(6)
    expected = pairwise_distances(x, x, "cosine")
    torch.testing.assert_close(pairwise_distances(scale * x, x, "cosine"), expected, rtol=1e-13, atol=1e-15)


def test_near_rows_far_from_the_origin_keep_their_digits() -> None:
    x = points(20) + 1e6
    near = x + 1e-6 * points(20, seed=1)
    expected = scipys(near, x, "euclidean")
    np.testing.assert_allclose(pairwise_distances(near, x).numpy(), expected, rtol=1e-12)
    turned = torch.tensor([[math.cos(1e-7), math.sin(1e-7)]], dtype=torch.float64)
    angle = pairwise_distances(turned, torch.tensor([[1.0, 0.0]], dtype=torch.float64), "cosine")
    assert angle.item() == pytest.approx(5e-15, rel=1e-6)  # 1 − cos is off by 2 %


def test_squares_by_one_product_are_right_to_the_spread_of_the_rows() -> None:
    a, b = points(40) + 100, torch.stack([points(30), points(30, seed=1)]) + 100
    exact = torch.stack([pairwise_distances(a, part, "sqeuclidean") for part in b])
    torch.testing.assert_close(squared_distances(a, b), exact, rtol=1e-13, atol=1e-12)
    assert bool((squared_distances(b, b) >= 0).all())


def test_an_unknown_metric_is_one_line() -> None:
    with pytest.raises(ZooError, match=r"Unknown metric 'eucledian'\. Did you mean euclidean"):
        pairwise_distances(points(2), points(2), "eucledian")
