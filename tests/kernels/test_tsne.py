"""The compiled forces of a t-SNE map against sums over all pairs in float64: shapes, strides, extremes, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import zoo.kernels
from zoo.kernels.tsne import available, tsne_pull, tsne_sweep
from zoo.models.tsne.affinities import DenseAffinities, SparseAffinities, dense_affinities, symmetrize
from zoo.models.tsne.objective import dense_forces, exact_repulsion, sparse_attraction


def strided(x: Tensor) -> Tensor:
    return torch.stack([x, -x], 2)[..., 0]


def transposed(x: Tensor) -> Tensor:
    return x.T.contiguous().T


VIEWS: list[Callable[[Tensor], Tensor]] = [torch.clone, strided, transposed]


def near_pairs(size: int, neighbors: int) -> SparseAffinities:
    """Random neighbours, so that rows have few and many of them."""
    neighbor = (
        torch.rand(size, size).fill_diagonal_(2.0).mul_(torch.linspace(0.1, 1, size)).topk(neighbors, largest=False)
    )
    weight = torch.rand(size, neighbors, dtype=torch.float64)
    return symmetrize(neighbor.indices, weight / weight.sum(1, keepdim=True)).to(torch.float32, "cpu")


SIZES = [(1, 2), (2, 1), (15, 2), (16, 3), (33, 1), (200, 2), (1025, 2)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("size", "dimensions"), SIZES)
def test_forces_are_those_of_all_pairs(kernels: str, size: int, dimensions: int, view: Callable) -> None:
    if size > 1000 and (kernels == "0" or view is not torch.clone):
        return  # a point's sums are taken in spans: once is enough
    rounding = 1e-5 if kernels == "0" else 2e-6
    for scale in (1e-4, 1.0, 100.0) if size < 1000 else (10.0,):
        points = view(torch.randn(size, dimensions) * scale)
        matrix = torch.rand(size, size)
        matrix = view((matrix + matrix.T).fill_diagonal_(0) / size**2)
        apart = points.double()[:, None] - points.double()
        weight = 1 / (1 + apart.square().sum(2))
        expected = [(c[..., None] * apart).sum(1) for c in (matrix.double() * weight, weight.square())]
        # The torch form takes the difference of two sums, the kernel the sum of differences.
        reach = points.double().abs()[:, None] + points.double().abs() if kernels == "0" else apart.abs()
        bounds = [(c[..., None] * reach).sum(1) for c in (matrix.double() * weight, weight.square())]
        total = weight.sum() - size

        pull, push, found = dense_forces(points, DenseAffinities(matrix))
        for mine, exact, bound in zip((pull, push), expected, bounds, strict=True):
            assert ((mine - exact).abs() <= rounding * bound + 1e-30).all()
        assert (found - total).abs() <= 1e-5 * weight.sum()
        alone, again = exact_repulsion(points)
        assert ((alone - expected[1]).abs() <= rounding * bounds[1] + 1e-30).all()
        assert (again - total).abs() <= 1e-5 * weight.sum()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("size", "dimensions"), [(2, 2), (17, 1), (33, 3), (300, 2)])
def test_the_pull_of_near_pairs_is_that_of_the_matrix(kernels: str, size: int, dimensions: int, view: Callable) -> None:
    points, affinities = view(torch.randn(size, dimensions) * 10), near_pairs(size, min(size - 1, 40))
    apart = points.double()[:, None] - points.double()
    reach = points.double().abs()[:, None] + points.double().abs() if kernels == "0" else apart.abs()
    weight = (affinities.dense().double() / (1 + apart.square().sum(2)))[..., None]
    wrong = (sparse_attraction(points, affinities) - (weight * apart).sum(1)).abs()
    assert (wrong <= (1e-5 if kernels == "0" else 2e-6) * (weight * reach).sum(1) + 1e-30).all()


def test_threads_change_no_bit(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points, affinities = torch.randn(200, 2), near_pairs(200, 30)
    dense = dense_affinities(torch.randn(200, 3), 10.0).to(torch.float32, "cpu")

    def forces() -> list[Tensor]:
        return [*dense_forces(points, dense), *exact_repulsion(points), sparse_attraction(points, affinities)]

    alone = forces()
    if not available(points):
        return
    monkeypatch.setattr("zoo.kernels.tsne.PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(torch.equal(a, b) for a, b in zip(alone, forces(), strict=True))


def test_a_map_that_is_no_number_stays_none(kernels: str) -> None:
    points = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [1.0, 1.0]])
    push, total = exact_repulsion(points)
    assert push.isnan().any()
    assert total.isnan()


def test_what_does_not_fit_is_refused() -> None:
    points = torch.zeros(3, 2)
    if not available(points):
        pytest.skip(str(zoo.kernels.status()))
    pointer, column, near = torch.tensor([0, 1, 2, 2]).int(), torch.tensor([1, 0]).int(), torch.ones(2)
    tsne_pull(points, pointer, column, near)
    for wrong in (
        (points.double(), pointer, column, near),
        (torch.zeros(3, 4), pointer, column, near),
        (points, pointer[:-1], column, near),
        (points, pointer.long(), column, near),
        (points, pointer.flip(0), column, near),
        (points, pointer + 1, column, near),
        (points, pointer, column + 2, near),
        (points, pointer, column - 1, near),
        (points, pointer, column, near[:1]),
    ):
        with pytest.raises(RuntimeError, match="zoo::tsne"):
            tsne_pull(*wrong)
    for matrix in (torch.zeros(3, 2), torch.zeros(3, 3).double()):
        with pytest.raises(RuntimeError, match=r"P must be \(3, 3\)"):
            tsne_sweep(points, matrix)


def test_operators_are_known_to_the_compiler() -> None:
    points = torch.randn(5, 2)
    if not available(points):
        pytest.skip(str(zoo.kernels.status()))
    affinities = near_pairs(5, 2)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.tsne_sweep.default, (points, torch.rand(5, 5)), test_utils=checks)
    entries = affinities.pointer, affinities.column, affinities.entry
    torch.library.opcheck(torch.ops.zoo.tsne_pull.default, (points, *entries), test_utils=checks)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_tsne import *
from test_tsne import SIZES, near_pairs, strided, transposed
import zoo.kernels.tsne
for zoo.kernels.tsne.PARALLEL in (1 << 24, 1):
    for size, dimensions in [*SIZES, (1024, 3), (31, 2)]:
        for view in (torch.clone, strided, transposed):
            points = view(torch.randn(size, dimensions))
            dense_forces(points, DenseAffinities(view(torch.rand(size, size))))
            exact_repulsion(points)
            if size > 1:
                sparse_attraction(points, near_pairs(size, min(size - 1, 20)))
"""
    sanitized(script)
