"""Hierarchies of clusters against SciPy, and against the linkages' own definitions where distances tie."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.agglomerative import merging
from zoo.models.agglomerative.dendrogram import (
    cophenetic_correlation,
    cut_into,
)
from zoo.models.agglomerative.distance_matrix import condense, distance_matrix
from zoo.models.agglomerative.linkage import LINKAGES, linkage
from zoo.numerics.distances import METRICS, pairwise_distances

hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
spatial = pytest.importorskip("scipy.spatial.distance")

REDUCIBLE = ("single", "complete", "average", "weighted", "ward")


def points(count: int, features: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + count)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


def assert_same_merges(ours: Tensor, theirs: np.ndarray, tolerance: float = 1e-10) -> None:
    np.testing.assert_array_equal(ours[:, [0, 1, 3]].cpu().numpy(), theirs[:, [0, 1, 3]])
    np.testing.assert_allclose(ours[:, 2].cpu().numpy(), theirs[:, 2], rtol=tolerance)


# -- merge for merge -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("count", [2, 3, 4, 7, 16, 33, 64, 100, 250, 500])
def test_merges_are_scipys_from_points_and_from_distances(method: str, count: int, device: torch.device) -> None:
    for seed in range(2 if count <= 100 else 1):
        x = points(count, seed=seed)
        theirs = hierarchy.linkage(x.numpy(), method)
        assert_same_merges(linkage(x.to(device), method), theirs)
        condensed = torch.from_numpy(spatial.pdist(x.numpy()))
        assert_same_merges(linkage(condensed.to(device), method), theirs)
        square = torch.from_numpy(spatial.squareform(condensed.numpy()))
        assert_same_merges(linkage(square.to(device), method, "precomputed"), theirs)


@pytest.mark.parametrize("method", ["single", "ward", "average"])
def test_merges_are_scipys_on_several_blocks_of_rows(method: str) -> None:
    x = points(1500, 8)
    x[:700] += 6
    assert_same_merges(linkage(x, method), hierarchy.linkage(x.numpy(), method))


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"hamming", "jaccard"}))
@pytest.mark.parametrize("method", ["single", "complete", "average", "weighted"])
def test_every_metric_gives_scipys_merges(metric: str, method: str) -> None:
    x = points(60, 6).abs()  # Canberra distances of opposite signs are all equal
    scipys = {"manhattan": "cityblock"}.get(metric, metric)
    assert_same_merges(linkage(x, method, metric), hierarchy.linkage(x.numpy(), method, scipys))


@pytest.mark.parametrize("power", [-600, -400, 400, 600])
@pytest.mark.parametrize("method", LINKAGES)
def test_the_scale_of_points_scales_the_heights(method: str, power: int) -> None:
    x = points(40)
    plain, scaled = linkage(x, method), linkage(x * 2.0**power, method)
    scaled[:, 2] *= 2.0**-power
    torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=0)


def test_a_function_is_a_metric() -> None:
    x = points(50)
    theirs = hierarchy.linkage(spatial.pdist(x.numpy(), "minkowski", p=3), "average")
    for method in ("single", "average"):
        theirs = hierarchy.linkage(spatial.pdist(x.numpy(), "minkowski", p=3), method)
        assert_same_merges(linkage(x, method, lambda a, b: torch.cdist(a, b, p=3.0)), theirs)


@pytest.mark.parametrize("method", ["complete", "average", "weighted", "ward"])
@pytest.mark.parametrize("count", [2, 3, 10, 33, 150])
def test_reciprocal_pairs_alone_give_the_same_tree(method: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")
    monkeypatch.setattr(merging, "_FEW", 0)
    monkeypatch.setattr(merging, "_SPARSE", 10**9)  # no round counts as wasted
    x = points(count)
    assert_same_merges(linkage(x, method), hierarchy.linkage(x.numpy(), method))
    condensed = spatial.pdist(x.numpy())
    assert_same_merges(linkage(torch.from_numpy(condensed), method), hierarchy.linkage(condensed, method))


@pytest.mark.parametrize("method", ["complete", "average", "weighted", "ward"])
def test_the_chain_alone_gives_the_same_tree(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")
    monkeypatch.setattr(merging, "_FEW", 0)
    monkeypatch.setattr(merging, "_SPARSE", -(10**9))  # every round counts as wasted
    x = points(150)
    called = []
    chain = merging.Merger._follow_chain
    monkeypatch.setattr(merging.Merger, "_follow_chain", lambda self: (called.append(1), chain(self))[1])
    assert_same_merges(linkage(x, method), hierarchy.linkage(x.numpy(), method))
    assert called


@pytest.mark.parametrize("method", REDUCIBLE)
def test_the_order_of_rows_changes_only_their_names(method: str) -> None:
    x, order = points(120), torch.randperm(120)
    ours, shuffled = linkage(x, method), linkage(x[order], method)
    torch.testing.assert_close(shuffled[:, 2], ours[:, 2], rtol=1e-12, atol=0)
    labels, moved = cut_into(ours, 9), cut_into(shuffled, 9)
    same, again = labels[order, None] == labels[order], moved[:, None] == moved
    assert torch.equal(same, again)


@pytest.mark.parametrize("method", LINKAGES)
def test_shifting_and_scaling_by_powers_of_two_keeps_the_merges(method: str) -> None:
    x = (points(80) * 2**20).round() / 2**20  # so that the shift loses nothing
    ours = linkage(x, method)
    moved = linkage((x + 1024) * 2.0**-40, method)
    assert torch.equal(moved[:, :2], ours[:, :2])
    torch.testing.assert_close(moved[:, 2] * 2.0**40, ours[:, 2], rtol=1e-9, atol=0)


# -- published numbers, ties, degenerate data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "correlation", "last"),
    [("single", 0.8639, 1.6401), ("complete", 0.7270, 7.0852), ("average", 0.8770, 4.0627), ("ward", 0.8728, 32.4476)],
)
def test_iris_has_the_published_correlation_and_height(method: str, correlation: float, last: float) -> None:
    x = torch.from_numpy(pytest.importorskip("sklearn.datasets").load_iris().data)
    tree = linkage(x, method)
    assert cophenetic_correlation(tree, condense(distance_matrix(x))) == pytest.approx(correlation, abs=5e-5)
    assert tree[-1, 2].item() == pytest.approx(last, abs=5e-5)


TIED: dict[str, Callable[[], Tensor]] = {
    "all equal": lambda: torch.ones(40, 3, dtype=torch.float64),
    "duplicates": lambda: points(12).repeat(4, 1),
    "grid": lambda: torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double(),
    "line": lambda: torch.arange(60.0, dtype=torch.float64)[:, None],
    "equidistant": lambda: torch.eye(40, dtype=torch.float64),
    "constant feature": lambda: torch.cat([points(40), torch.ones(40, 1)], 1),
}


def check_tree(tree: Tensor, x: Tensor, method: str) -> None:
    """Every height is the linkage of the two clusters, by its definition, and no other pair of them was nearer."""
    count = len(x)
    members = [[row] for row in range(count)]
    between_points = pairwise_distances(x, x)
    reduce = {"single": torch.amin, "complete": torch.amax, "average": torch.mean}

    @functools.cache  # as others merge, the distance of two clusters stays what it is
    def between(p: int, q: int) -> float:
        a, b = members[p], members[q]
        if method == "ward":
            gap = (x[a].mean(0) - x[b].mean(0)).norm()
            return float(gap * (2 * len(a) * len(b) / (len(a) + len(b))) ** 0.5)
        return float(reduce[method](between_points[a][:, b]))

    alive = set(range(count))
    for a, b, height, size in tree.tolist():
        a, b = int(a), int(b)
        assert between(*sorted((a, b))) == pytest.approx(height, rel=1e-9, abs=1e-12)
        members.append(members[a] + members[b])
        assert len(members[-1]) == size
        nearest = min(between(p, q) for p, q in itertools.combinations(sorted(alive), 2))
        assert height == pytest.approx(nearest, rel=1e-9, abs=1e-12)
        alive = alive - {a, b} | {len(members) - 1}


@pytest.mark.parametrize("method", ["single", "complete", "average", "ward"])
@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("few", [0, 256])
def test_tied_data_give_a_tree_that_fits_the_definition(
    name: str, method: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")
    monkeypatch.setattr(merging, "_FEW", few)
    x = TIED[name]()
    check_tree(linkage(x, method), x, method)


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("name", TIED)
def test_tied_data_give_finite_heights_that_add_up(name: str, method: str) -> None:
    x = TIED[name]()
    tree = linkage(x, method)
    assert bool(torch.isfinite(tree).all())
    assert tree[-1, 3] == len(x)
    assert sorted(tree[:, :2].flatten().long().tolist()) == list(range(2 * len(x) - 2))
    if name == "all equal":
        assert bool((tree[:, 2] == 0).all())


@pytest.mark.parametrize("method", ["complete", "weighted"])  # the others round, and rounding breaks ties
@pytest.mark.parametrize("count", [10, 100, 256])
def test_ties_fall_as_in_scipy_up_to_256_points(method: str, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    condensed = torch.randint(1, 6, (count * (count - 1) // 2,), generator=generator).double()
    assert_same_merges(linkage(condensed, method), hierarchy.linkage(condensed.numpy(), method))
    iris = torch.from_numpy(pytest.importorskip("sklearn.datasets").load_iris().data)[::2]
    for reducible in ("complete", "average", "weighted"):
        theirs = hierarchy.linkage(iris.numpy(), reducible)
        torch.testing.assert_close(linkage(iris, reducible)[:, 2], torch.from_numpy(theirs[:, 2]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("method", LINKAGES)
def test_one_row_is_an_empty_tree(method: str) -> None:
    assert linkage(torch.ones(1, 3), method).shape == (0, 4)
    assert linkage(torch.zeros(1, 1), method, "precomputed").shape == (0, 4)
    assert cut_into(linkage(torch.ones(1, 3), method), 1).tolist() == [0]


@pytest.mark.parametrize("method", ["single", "ward", "average"])
def test_near_duplicates_far_from_the_origin_keep_their_digits(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 2**20, (60, 3), generator=generator)
    x = 1024 + steps.double() * 2.0**-40  # exact in float64: distances of 1e-6 between points 1e3 away
    exact = linkage(steps.double(), method)
    assert_same_merges(linkage(x, method), exact.numpy() * np.array([1, 1, 2.0**-40, 1]), tolerance=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("method", ["single", "ward"])
def test_extreme_scales_neither_overflow_nor_vanish(scale: float, method: str) -> None:
    x = points(60)
    ours, scaled = linkage(x, method), linkage(x * scale, method)
    assert torch.equal(ours[:, :2], scaled[:, :2])
    torch.testing.assert_close(scaled[:, 2] / scale, ours[:, 2], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linkage(torch.ones(3, 2), "wards"), "Unknown linkage 'wards'.*ward"),
        (lambda: linkage(torch.ones(3, 2), "average", "euclid"), "Unknown metric 'euclid'. Did you mean euclidean"),
        (lambda: linkage(torch.ones(3, 2), "ward", "cosine"), "'euclidean' alone"),
        (lambda: linkage(torch.tensor([[1.0], [float("nan")]])), "row 1 holds NaN"),
        (lambda: linkage(torch.ones(0, 2)), "takes points"),
        (lambda: linkage(torch.ones(2, 2, 2)), "takes points"),
        (lambda: linkage(torch.ones(4)), "4 condensed distances"),
        (lambda: linkage(torch.tensor([1.0, -1.0, 1.0])), "not negative"),
        (lambda: linkage(torch.ones(2, 3), "single", "precomputed"), "square matrix"),
        (lambda: linkage(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "single", "precomputed"), "not symmetric"),
        (lambda: cut_into(linkage(points(3)), 4), "3 rows cannot form 4 clusters"),
    ],
)
def test_a_mistake_is_one_line(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["average", "complete", "weighted", "single", "ward", "centroid"])
def test_a_matrix_that_rounding_left_a_little_asymmetric(method):
    generator = torch.Generator().manual_seed(0)
    for count in (60, 400):
        x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        matrix = torch.cdist(x, x)
        matrix = matrix * (1 + 1e-15 * torch.randn(matrix.shape, generator=generator, dtype=torch.float64))
        i, j = torch.triu_indices(count, count, 1)
        expected = hierarchy.linkage(matrix[i, j].numpy(), method)
        found = linkage(matrix, method, "precomputed")
        assert torch.allclose(found[:, 2].sort().values, torch.from_numpy(expected[:, 2]).sort().values, rtol=1e-9)
