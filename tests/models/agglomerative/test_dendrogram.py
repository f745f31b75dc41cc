"""What a tree tells, against SciPy and exhaustive search on small trees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.models.agglomerative.dendrogram import (
    cophenetic_correlation,
    cophenetic_distances,
    cut_at_height,
    cut_into,
    label_merges,
    leaf_order,
    optimal_leaf_order,
)
from zoo.models.agglomerative.linkage import LINKAGES, linkage
from zoo.numerics.distances import pairwise_distances

hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
spatial = pytest.importorskip("scipy.spatial.distance")

REDUCIBLE = ("single", "complete", "average", "weighted", "ward")


def points(count: int, features: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + count)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("method", LINKAGES)
def test_cuts_are_scipys(method: str) -> None:
    tree = hierarchy.linkage(points(70).numpy(), method)
    for height in (0.0, 0.5, 1.0, 2.0, 5.0, 100.0):
        theirs = hierarchy.fcluster(tree, height, "distance")
        ours = cut_at_height(torch.from_numpy(tree), height).tolist()
        assert len(set(zip(ours, theirs, strict=True))) == len(set(ours)) == len(set(theirs))
    for number in (1, 2, 5, 70):
        ours = cut_into(torch.from_numpy(tree), number).tolist()
        assert list(dict.fromkeys(ours)) == list(range(number))
        if method in REDUCIBLE:
            theirs = hierarchy.fcluster(tree, number, "maxclust")
            assert len(set(zip(ours, theirs, strict=True))) == number


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("count", [2, 3, 40])
def test_cophenetic_distances_and_leaves_are_scipys(method: str, count: int) -> None:
    x = points(count).numpy()
    tree = hierarchy.linkage(x, method)
    np.testing.assert_array_equal(leaf_order(torch.from_numpy(tree)).numpy(), hierarchy.leaves_list(tree))
    np.testing.assert_allclose(
        cophenetic_distances(torch.from_numpy(tree)).numpy(), hierarchy.cophenet(tree), rtol=1e-12
    )
    if count > 3:
        theirs = hierarchy.cophenet(tree, spatial.pdist(x))[0]
        ours = cophenetic_correlation(torch.from_numpy(tree), torch.from_numpy(spatial.pdist(x)))
        assert ours == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("count", range(2, 10))
@pytest.mark.parametrize("method", ["ward", "single"])
def test_the_optimal_leaf_order_is_the_best_of_all(count: int, method: str) -> None:
    x = points(count, 3)
    distance, tree = pairwise_distances(x, x), linkage(x, method)

    def cost(order: Tensor) -> float:
        return float(distance[order[:-1], order[1:]].sum())

    turned = []
    for flips in itertools.product((False, True), repeat=count - 1):
        columns = torch.tensor([[1, 0] if flip else [0, 1] for flip in flips])
        turned.append(cost(leaf_order(torch.cat([tree[:, :2].gather(1, columns), tree[:, 2:]], 1))))
    ordered = optimal_leaf_order(tree, distance)
    assert cost(leaf_order(ordered)) == pytest.approx(min(turned), rel=1e-12)
    assert torch.equal(ordered[:, :2].sort(1).values, tree[:, :2])
    assert torch.equal(ordered[:, 2:], tree[:, 2:])


def test_the_optimal_leaf_order_of_a_larger_tree_is_no_longer_than_scipys() -> None:
    x = points(90, 3)
    condensed, ours = spatial.pdist(x.numpy()), linkage(x, "average", optimal_ordering=True)
    theirs = hierarchy.leaves_list(hierarchy.optimal_leaf_ordering(hierarchy.linkage(x.numpy(), "average"), condensed))
    square = spatial.squareform(condensed)
    a, b = (square[order[:-1], order[1:]].sum() for order in (leaf_order(ours).numpy(), theirs))
    assert a <= b * (1 + 1e-12)


def test_merges_are_labelled_by_height() -> None:
    tree = label_merges(torch.tensor([[0, 3], [1, 2], [2, 3]]), torch.tensor([2.0, 1.0, 3.0]))
    assert tree.tolist() == [[1, 2, 1, 2], [0, 3, 2, 2], [4, 5, 3, 4]]
