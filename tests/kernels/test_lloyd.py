"""The compiled pass of Lloyd's algorithm against distances in float64: shapes, strides, scales, ties, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels.lloyd import lloyd_assign, lloyd_iterate, lloyd_statistics, lloyd_too_close
from zoo.models.kmeans.lloyd import assign, cluster_statistics

SIZES = [(1, 1, 1, 1), (2, 3, 1, 2), (31, 16, 8, 1), (32, 8, 9, 2), (33, 17, 7, 3), (257, 33, 70, 1), (1000, 5, 16, 2)]
SIZES += [(40, 300, 9, 2), (40, 50, 3, 2)]  # more features than are worked on at a time, and few clusters


def strided(x: Tensor) -> Tensor:
    return torch.stack([x, -x], 2)[..., 0]


def transposed(x: Tensor) -> Tensor:
    return x.T.contiguous().T


VIEWS: list[Callable[[Tensor], Tensor]] = [torch.clone, strided, transposed]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums_and_labels_are_those_of_exact_distances(
    kernels: str, sizes: tuple[int, ...], weighted: bool, view: Callable, dtype: torch.dtype
) -> None:
    rows, features, clusters, restarts = sizes
    for offset, scale in ((0.0, 1.0), (100.0, 1.0), (0.0, 1e-20), (0.0, 1e15)):
        x = view((torch.randn(rows, features, dtype=dtype) + offset) * scale)
        centroids = (torch.randn(restarts, clusters, features, dtype=torch.float64) + offset) * scale
        weight = torch.rand(rows) if weighted else None
        reference = x.double().mean(0).float().double()
        found = cluster_statistics(x, centroids, weight, reference, measured=True)
        label, distance = assign(x, centroids)

        exact = (x.double()[None, :, None] - centroids[:, None]).square().sum(3)  # (R, N, K)
        chosen = exact.gather(2, label[:, :, None])[..., 0]
        near = (1e-5 if dtype == torch.float32 else 1e-13) * (
            exact.max() + (x.double() - reference).square().sum(1).max()
        )
        assert (chosen - exact.amin(2)).max() <= near  # only rounding decides between two
        assert (distance - chosen).abs().max() <= near
        assert torch.allclose(distance, chosen, rtol=1e-6, atol=1e-25 * float(exact.max()))
        assert (found.distance - exact.amin(2)).abs().max() <= near
        gap = (exact - found.distance[:, :, None]).abs().amin(2)  # the distance of some centroid, to the last digits
        assert (gap <= 1e-6 * found.distance + 1e-25 * exact.max()).all()
        assert cluster_statistics(x, centroids, weight, reference).distance.shape == (restarts, 0)

        mass = torch.ones(rows, dtype=torch.float64) if weight is None else weight.double()
        moved = torch.cat([x.double() - reference, torch.ones(rows, 1, dtype=torch.float64)], 1) * mass[:, None]
        total, inertia = moved.sum(0), (exact.amin(2) * mass).sum(1)
        size = moved.abs().sum(0) + 1e-300
        assert ((found.moments.sum(1) - total).abs() <= 1e-6 * size).all()
        assert ((found.inertia - inertia).abs() <= near * mass.sum()).all()
        for moments, labels in zip(found.moments, label, strict=True):
            expected = torch.zeros_like(moments).index_add_(0, labels, moved)
            assert (moments - expected).abs().max() <= 1e-3 * size.max()  # a row on a border may lie on either side


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", SIZES[1:], ids=str)
def test_iterations_are_passes_one_after_the_other(
    kernels: str, sizes: tuple[int, ...], weighted: bool, dtype: torch.dtype
) -> None:
    if kernels == "0":
        pytest.skip("the torch form makes passes")
    rows, features, clusters, restarts = sizes
    for view, offset in zip(VIEWS, (0.0, 100.0, 0.0), strict=True):
        x = view(torch.randn(rows, features, dtype=dtype) + offset)
        weight = torch.rand(rows, dtype=torch.float64) * (torch.arange(rows) % 3) if weighted else None
        start = x[torch.randint(rows, (restarts, clusters))].double() + 0.1 * torch.randn(restarts, clusters, features)
        for threads in (1, 3):
            numbers = x, start, weight
            found, at_rest, own, steps, empty, label, distance = lloyd_iterate(*numbers, 30, 0.0, threads)
            places = torch.arange(rows)
            mixed = torch.cat([x, x])[torch.cat([places, places + rows]).view(2, -1).T.flatten()]  # each of them twice
            again = lloyd_iterate(mixed, start, weight, 30, 0.0, threads, 2 * places)
            assert all(torch.equal(a, b) for a, b in zip((found, own, steps), (again[0], *again[2:4]), strict=True))
            assert int(own.max()) == int(steps)
            if bool(at_rest.all()):
                exact = (x.double()[None, :, None] - found[:, None]).square().sum(3)  # (R, N, K)
                near = (1e-5 if dtype == torch.float32 else 1e-13) * max(1.0, float(exact.max()))
                assert (exact.gather(2, label[:, :, None])[..., 0] - exact.amin(2)).max() <= near
                assert (distance - exact.amin(2)).abs().max() <= near
            centroids = start
            for step in range(int(steps)):  # each by the statistics of a pass
                moments = cluster_statistics(x, centroids, weight, x[0].double()).moments
                filled = moments[..., -1:] > 0
                assert bool(filled.all()) or step == int(steps) - 1
                centroids = torch.where(filled, moments[..., :-1] / moments[..., -1:] + x[0], centroids)
            size = 1e-3 if dtype == torch.float32 else 1e-9  # a row on a border may lie on either side in one of them
            assert (found - centroids).abs().max() <= size * x.abs().max()
            if int(steps):
                assert torch.equal(empty & ~at_rest[:, None], ~filled[..., 0] & ~at_rest[:, None])
            if not bool(at_rest.all()) and int(steps) < 30:
                assert bool(empty.any())


@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 1e9])
@pytest.mark.parametrize("features", [3, 150])
def test_labels_are_those_of_the_centroids_in_the_end(kernels: str, features: int, tolerance: float) -> None:
    if kernels == "0":
        pytest.skip("the torch form leaves labels to a pass of their own")
    x = torch.randn(501, features, dtype=torch.float64)
    x[:250, 0] += 5
    start = torch.stack([x[:3], x[248:251]])
    found, at_rest, own, _, _, label, distance = lloyd_iterate(x, start, None, 300, tolerance, 2)
    assert at_rest.all()
    assert (own > 1).all() or tolerance > 1
    exact = (x[None, :, None] - found[:, None]).square().sum(3)  # (R, N, K)
    assert torch.equal(label, exact.argmin(2))
    torch.testing.assert_close(distance, exact.amin(2), rtol=1e-9, atol=1e-12)
    if tolerance > 1:  # of the first step, which moved them
        assert not torch.equal(label, assign(x, start)[0])


def test_a_cluster_that_loses_its_rows_is_empty_to_the_last_digit(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("the torch form adds anew")
    x = torch.tensor([[0.0], [0.1], [0.3], [9.0]], dtype=torch.float64)
    weight = torch.tensor([0.1, 0.2, 0.3, 0.7], dtype=torch.float64)
    centroids = torch.tensor([[[-1.0], [0.25], [30.0]]], dtype=torch.float64)
    _, at_rest, _, steps, *_ = lloyd_iterate(x, centroids, weight, 30, 0.0, 1)
    assert not at_rest.any()
    assert int(steps) < 30


def test_rows_between_near_centroids_beside_a_far_one_have_the_labels_of_float64(kernels: str) -> None:
    x, centroids = torch.randn(5001, 9), torch.randn(2, 3, 9, dtype=torch.float64)
    centroids[:, 2] += 1e6
    for index in (None, torch.arange(1, 5001, 7)):
        rows = (x if index is None else x[index]).double()
        exact = (rows[None, :, None] - centroids[:, None]).square().sum(3)  # (R, N, K)
        label, distance = assign(x, centroids, index)
        assert torch.equal(label, exact.argmin(2))
        torch.testing.assert_close(distance, exact.amin(2), rtol=1e-9, atol=0)
        parts = [assign(part, centroids)[0] for part in rows.float().split(97)]
        assert torch.equal(torch.cat(parts, 1), label)
    moments, _, _, distance = cluster_statistics(x, centroids, measured=True)
    torch.testing.assert_close(distance, assign(x, centroids)[1], rtol=1e-9, atol=0)
    assert torch.equal(
        moments[..., -1], torch.stack([label.bincount(minlength=3) for label in assign(x, centroids)[0]])
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_no_numbers_end_the_iterations(kernels: str, value: float) -> None:
    if kernels == "0":
        pytest.skip("test_kmeans looks at the torch form")
    x = torch.randn(40, 4)
    x[5, 1] = value
    found = lloyd_iterate(x, x[None, :2].double(), None, 9, 0.0, 2)
    assert not found[1].any()
    assert int(found[3]) == 0


def test_a_tie_goes_to_the_first_and_whole_numbers_are_exact(kernels: str) -> None:
    x = torch.randint(-3, 4, (500, 3)).float()
    centroids = torch.randint(-3, 4, (2, 20, 3)).double()
    exact = (x.double()[None, :, None] - centroids[:, None]).square().sum(3)
    label, distance = assign(x, centroids)
    assert torch.equal(label, exact.argmin(2))
    assert torch.equal(distance, exact.amin(2))


def test_batches_and_their_order_do_not_matter(kernels: str) -> None:
    x, centroids = torch.randint(-9, 9, (301, 6)).float(), torch.randint(-9, 9, (1, 11, 6)).double()
    reference = torch.zeros(6, dtype=torch.float64)
    whole = cluster_statistics(x.flip(0), centroids, None, reference, measured=True)
    whole = whole._replace(distance=whole.distance.flip(1))
    for size in (1, 7, 32, 300):
        parts = [cluster_statistics(part, centroids, None, reference, measured=True) for part in x.split(size)]
        added = parts[0]
        for part in parts[1:]:
            added = added + part
        assert all(torch.equal(a, b) for a, b in zip(added, whole, strict=True))


def test_no_rows(kernels: str) -> None:
    x, centroids = torch.empty(0, 4), torch.randn(2, 3, 4, dtype=torch.float64)
    reference = torch.zeros(4, dtype=torch.float64)
    assert not cluster_statistics(x, centroids, None, reference).moments.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_the_inertia(kernels: str, value: float) -> None:
    x = torch.randn(40, 4)
    x[5, 1] = value
    centroids = torch.randn(1, 3, 4, dtype=torch.float64)
    assert not cluster_statistics(x, centroids, None, torch.zeros(4, dtype=torch.float64)).inertia.isfinite()


def test_the_operators_are_what_torch_expects(kernels: str) -> None:
    if kernels == "0":
        with pytest.raises(RuntimeError, match="needs the compiled kernels"):
            lloyd_statistics(torch.zeros(3, 2), torch.zeros(2), 1.0, torch.zeros(4, 3), 1, None)
        return
    x, centroids = torch.randn(9, 3), torch.randn(4, 4)
    weight = torch.rand(9, dtype=torch.float64)
    utilities = ("test_schema", "test_faketensor")
    first = torch.randn(2, 2, 3, dtype=torch.float64)
    torch.library.opcheck(torch.ops.zoo.lloyd_iterate, (x, first, weight, 5, 0.0, 1), test_utils=utilities)
    for wrong in (first[0], first.float(), first[:, :, :2], first[:0]):
        with pytest.raises(RuntimeError, match="do not fit together"):
            lloyd_iterate(x, wrong, weight, 5, 0.0, 1)
        with pytest.raises(RuntimeError, match="do not fit together"):
            lloyd_assign(x, wrong, 1)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_iterate(x, first, weight[1:], 5, 0.0, 1)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_assign(x, first, 0)
    for index in (torch.tensor([0, 9]), torch.tensor([-1]), torch.tensor([0.0])):
        with pytest.raises(RuntimeError, match="do not fit together"):
            lloyd_assign(x, first, 1, index)
    for points in (None, first):
        numbers = x, x[0], 1.0, centroids, 2, weight, points
        torch.library.opcheck(torch.ops.zoo.lloyd_statistics, numbers, test_utils=utilities)
    for wrong in (first[0], first.float(), first[:, :, :2], first[:1]):
        with pytest.raises(RuntimeError, match="do not fit together"):
            lloyd_statistics(x, x[0], 1.0, centroids, 2, weight, wrong)
    torch.library.opcheck(torch.ops.zoo.lloyd_assign, (x, first, 1), test_utils=utilities)
    torch.library.opcheck(torch.ops.zoo.lloyd_too_close, (first, first[0, 0], 1e-7), test_utils=utilities)
    for points, reference in ((first[0], first[0, 0]), (first.float(), first[0, 0]), (first, x[0]), (first, weight)):
        with pytest.raises(RuntimeError, match="do not fit together"):
            lloyd_too_close(points, reference, 1e-7)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_statistics(x, x[0], 1.0, centroids[:, :3], 2, weight)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_statistics(x, x[0], 1.0, centroids, 3, weight)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_statistics(x.double(), x[0], 1.0, centroids, 2, weight)
    with pytest.raises(RuntimeError, match="do not fit together"):
        lloyd_statistics(x, x[0], 1.0, centroids, 2, weight[1:])


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_lloyd import SIZES, assign, cluster_statistics, strided, transposed
from test_lloyd import lloyd_assign, lloyd_iterate, lloyd_too_close
for sizes in [*SIZES, (0, 4, 3, 2), (5, 1, 40, 1), (100, 64, 17, 2)]:
    rows, features, clusters, restarts = sizes
    for view in (torch.clone, strided, transposed):
        for offset, scale in ((0.0, 1.0), (100.0, 1e-20), (0.0, 1e15)):
          for dtype in (torch.float32, torch.float64):
            x = view((torch.randn(rows, features, dtype=dtype) + offset) * scale)
            centroids = (torch.randn(restarts, clusters, features, dtype=torch.float64) + offset) * scale
            reference = centroids[0, 0].float().double()
            for weight in (None, torch.rand(rows), torch.zeros(rows)):
                cluster_statistics(x, centroids, weight, reference, measured=weight is None)
                mass = None if weight is None else weight.double()
                lloyd_iterate(x, centroids, mass, 5, 0.0, 2)
                lloyd_iterate(x, centroids, mass, 99, 0.0, 2)
            lloyd_assign(x, centroids, 2)
            lloyd_assign(x, centroids, 2, torch.arange(rows).flip(0)[::2])
x = torch.randn(40, 4)
x[5, 1] = torch.nan
assign(x, torch.randn(1, 3, 4, dtype=torch.float64))
x, near = torch.randn(5001, 9), torch.randn(2, 3, 9, dtype=torch.float64) * 0.01  # in double, in two parts
near[:, 2] += 1e6
lloyd_assign(x, near, 2)
cluster_statistics(x, near, measured=True)
lloyd_assign(x, near, 2, torch.arange(1, 5001, 7))
lloyd_iterate(x, near, None, 5, 0.0, 2)
lloyd_iterate(x, near, torch.rand(715, dtype=torch.float64), 5, 0.0, 2, torch.arange(1, 5001, 7))
near[:, 2] += 1e12  # by differences
for rows in (x, x.double(), strided(x), x[:1], x[:0]):
    lloyd_assign(rows, near, 2)
    lloyd_iterate(rows, near, None, 5, 0.0, 2)
lloyd_assign(x, near, 2, torch.arange(1, 5001, 7))
lloyd_too_close(near, near[0, 0], 1e-7)
view = strided(near)
lloyd_too_close(view, view[0, 0], 1e-16)
"""
    sanitized(script)
