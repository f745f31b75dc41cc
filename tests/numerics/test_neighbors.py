"""Nearest neighbours against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics import neighbors
from zoo.numerics.distances import METRICS, pairwise_distances
from zoo.numerics.neighbors import nearest_neighbors

NearestNeighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(ours: Tensor, other: Tensor | np.ndarray) -> float:
    """Largest difference over the largest value."""
    expected = torch.as_tensor(other, device=ours.device)
    return float((ours - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_scikit_learn(metric: str) -> None:
    rows, queries = normal(120, 7), normal(30, 7, seed=1)
    if metric == "braycurtis":
        rows, queries = rows.abs(), queries.abs()  # with signs the two denominators differ: ours is SciPy's
    discrete = metric in ("hamming", "jaccard")
    if discrete:
        rows, queries = (rows > 0).double(), (queries > 0).double()
    given = [t.numpy() > 0 if metric == "jaccard" else t.numpy() for t in (rows, queries)]
    oracle = NearestNeighbors(n_neighbors=9, algorithm="brute", metric=metric).fit(given[0])
    for asked, theirs in ((None, None), (queries, given[1])):
        expected, index = oracle.kneighbors(theirs)
        distance, neighbor = nearest_neighbors(rows, 9, asked, metric)
        assert relative(distance, expected) < 1e-9
        assert discrete or np.array_equal(neighbor.numpy(), index)  # among ties the choice is free


def test_neighbours_of_shifted_float32_rows_are_right() -> None:
    rows = (1000 + normal(300, 4)).float()
    expected, index = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(rows.double().numpy()).kneighbors()
    distance, neighbor = nearest_neighbors(rows, 5)
    assert relative(distance.double(), expected) < 1e-6  # float32
    assert (neighbor.numpy() == index).mean() > 0.99  # rounding of the rows themselves makes ties


def test_a_duplicate_is_a_neighbour_and_a_row_is_none_of_its_own() -> None:
    distance, neighbor = nearest_neighbors(torch.tensor([[0.0], [0.0], [5.0]]), 2)
    assert neighbor.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert distance.tolist() == [[0, 5], [0, 5], [5, 5]]


def test_neighbours_of_precomputed_distances() -> None:
    rows = normal(40, 3)
    given = pairwise_distances(rows, rows)
    before = given.clone()
    distance, neighbor = nearest_neighbors(given, 6, metric="precomputed")
    expected, index = nearest_neighbors(rows, 6)
    assert torch.equal(neighbor, index)
    assert relative(distance, expected) < 1e-12
    assert torch.equal(given, before)


def test_neighbours_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(50, 3)
    whole = [nearest_neighbors(rows, 4, metric=metric) for metric in METRICS]
    monkeypatch.setattr(neighbors, "_CHUNK_ELEMENTS", 130)
    for metric, expected in zip(METRICS, whole, strict=True):
        distance, neighbor = nearest_neighbors(rows, 4, metric=metric)
        assert torch.equal(neighbor, expected[1])
        torch.testing.assert_close(distance, expected[0], rtol=1e-12, atol=0.0)


def test_what_neighbours_cannot_be_is_said_in_one_line() -> None:
    rows = normal(4, 2)
    with pytest.raises(ZooError, match="4 neighbours were asked of 4 rows: pass k from 1 to 3"):
        nearest_neighbors(rows, 4)
    with pytest.raises(ZooError, match=r"Unknown metric 'euclidian'\. Did you mean euclidean"):
        nearest_neighbors(rows, 1, metric="euclidian")
