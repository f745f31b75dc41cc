"""All distances at once, their lower bounds and the search by them, against SciPy and direct computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.models.agglomerative import distance_matrix as module
from zoo.models.agglomerative.cluster_spaces import MatrixSpace, WardSpace
from zoo.models.agglomerative.distance_matrix import condense, distance_matrix, unfold
from zoo.models.agglomerative.lower_bounds import SquaredDistances, row_minimum, smallest_entries
from zoo.numerics.distances import METRICS, pairwise_distances

spatial = pytest.importorskip("scipy.spatial.distance")


def points(count: int, features: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + count)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "correlation"])
def test_distances_by_products_are_those_by_differences(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.cat([points(200, 7) + 3, 1e-7 * points(100, 7) - 5])
    exact = distance_matrix(x, metric)
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "_CHUNK", 1 << 12)
    matrix = distance_matrix(x, metric)
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(matrix, exact, rtol=1e-10, atol=1e-14 if metric in ("cosine", "correlation") else 0)


@pytest.mark.parametrize("metric", METRICS)
def test_the_matrix_is_scipys(metric: str) -> None:
    x = points(30, 7)
    x = (x > 0).double() if metric == "jaccard" else x.round() if metric == "hamming" else x
    name = {"manhattan": "cityblock"}.get(metric, metric)
    theirs = spatial.pdist(x.numpy() > 0 if metric == "jaccard" else x.numpy(), name)
    matrix = distance_matrix(x, metric)
    assert torch.equal(matrix, matrix.T)
    assert bool(matrix.diagonal().isinf().all())
    np.testing.assert_allclose(condense(matrix).numpy(), theirs, rtol=1e-12, atol=1e-13)
    assert torch.equal(unfold(condense(matrix)), matrix)


@pytest.mark.parametrize("weighted", [False, True])
def test_bounds_never_exceed_the_distances(weighted: bool) -> None:
    x = torch.cat([points(100, 20), points(100, 20) * 1e-6 + 3, points(3, 20) * 1e6])
    sizes = torch.randint(1, 50, (203,)).double() if weighted else None
    space = SquaredDistances(x, sizes)
    rows = torch.arange(203)
    bounds = space.bound(rows, torch.empty(203, 203, dtype=space.dtype))
    exact = space.exact(rows[:, None], rows)
    assert space.dtype == torch.float32
    assert bool((bounds <= exact).all())
    slack = 4 * space.gamma * space.centres.square().sum(1).amax() * (1 if sizes is None else 100)
    assert bool((exact - bounds <= slack).all())


@pytest.mark.parametrize("size", [1, 5, 16, 31, 32, 100, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_the_minimum_by_groups_is_the_first_minimum(size: int, tied: bool) -> None:
    block = torch.randint(3, (20, size)).double() if tied else torch.randn(20, size, dtype=torch.float64)
    least, place = row_minimum(block)
    assert torch.equal(least, block.amin(1))
    assert place.tolist() == [row.index(min(row)) for row in block.tolist()]


@pytest.mark.parametrize("size", [16, 48, 160, 1600])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_smallest_entries_are_found_and_the_rest_is_bounded(size: int, count: int) -> None:
    block = torch.randn(6, size, dtype=torch.float64)
    values, columns, unseen = smallest_entries(block, count)
    assert torch.equal(values, block.sort(1).values[:, :count])
    assert torch.equal(block.gather(1, columns), values)
    rest = block.scatter(1, columns, float("inf")).amin(1)
    assert bool((unseen <= rest).all())
    assert bool((unseen >= values[:, -1]).all())


def test_both_spaces_agree_on_ward() -> None:
    x = points(90)
    ones = torch.ones(90, dtype=torch.float64)
    by_centres, by_matrix = WardSpace(x, ones), MatrixSpace(distance_matrix(x, "sqeuclidean"), "ward", ones.clone())
    for space in (by_centres, by_matrix):
        space.merge(
            torch.tensor([0, 5]), torch.tensor([1, 9]), pairwise_distances(x[[0, 5]], x[[1, 9]]).diagonal().square()
        )
        space.keep(torch.tensor([i for i in range(90) if i not in (1, 9)]))
    (near, gap), (other, distance) = (space.nearest(torch.arange(88)) for space in (by_centres, by_matrix))
    assert torch.equal(near, other)
    torch.testing.assert_close(gap * by_centres.scale**2, distance, rtol=1e-10, atol=0)
