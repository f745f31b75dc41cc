"""The compiled merging of clusters against SciPy and the torch form: sizes, ties, weights, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.cluster import hierarchy

import zoo.kernels
from zoo.kernels import linkage as kernel
from zoo.models.agglomerative.cluster_spaces import MatrixSpace
from zoo.models.agglomerative.linkage import linkage
from zoo.models.agglomerative.merging import Merger, merge_closest

METHODS = ("centroid", "median")
ALL = (*METHODS, *kernel.CHAINED)


@pytest.mark.parametrize("method", [*ALL, "single"])
@pytest.mark.parametrize(("rows", "features"), [(1, 3), (2, 1), (3, 2), (50, 1), (90, 5)])
def test_merges_and_heights_are_those_of_scipy(kernels: str, method: str, rows: int, features: int) -> None:
    for scale, offset in ((1.0, 0.0), (1e-30, 0.0), (1e30, 0.0), (1.0, 100.0)):
        x = torch.randn(rows, features, dtype=torch.float64) * scale + offset
        found = linkage(x, method)
        assert found.shape == (rows - 1, 4)
        if rows > 1:
            expected = torch.from_numpy(hierarchy.linkage(x.numpy(), method))
            assert torch.equal(found[:, [0, 1, 3]], expected[:, [0, 1, 3]])
            torch.testing.assert_close(found[:, 2], expected[:, 2], rtol=1e-10, atol=0)


@pytest.mark.parametrize("method", ALL)
def test_sizes_count_and_ties_fall_alike(method: str) -> None:
    matrix = torch.randint(1, 6, (60, 60), dtype=torch.float64)
    matrix = (matrix + matrix.T).fill_diagonal_(torch.inf)
    sizes = torch.randint(1, 9, (60,)).double()
    if not kernel.available(matrix):
        pytest.skip(str(zoo.kernels.status()))
    space = MatrixSpace(matrix.clone(), method, sizes.clone())
    if method in METHODS:
        pairs, heights = merge_closest(space)
        ours, squared = kernel.merge_closest(matrix, sizes, method == "median")
    else:  # so few follow the chain
        pairs, heights = Merger(space, matrix.device).run()
        ours, squared = kernel.merge_chain(matrix, sizes, method)
    first = int((heights - squared).abs().gt(1e-9).nonzero()[:1].sum()) or len(heights)
    assert torch.equal(ours[:first], pairs[:first])
    torch.testing.assert_close(squared, heights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (33, 2), (70, 17), (70, 65), (257, 4), (401, 3)], ids=str)
def test_points_merge_as_their_distances_do(kernels: str, method: str, shape: tuple[int, int]) -> None:
    if kernels == "0":
        pytest.skip("the torch form takes distances")
    size = shape[0]
    sizes = torch.randint(1, 5, (size,)).double()
    for x in (torch.randint(-9, 9, shape).double(), torch.randn(size, 2 * shape[1], dtype=torch.float64)[:, ::2]):
        matrix = (x[:, None] - x).square().sum(2)
        if method == "ward":
            matrix *= 2 * sizes[:, None] * sizes / (sizes[:, None] + sizes)
        elif method in kernel.CHAINED:
            matrix.sqrt_()
        merge = kernel.merge_closest if method in METHODS else kernel.merge_chain
        kind = method == "median" if method in METHODS else method
        room = torch.full_like(matrix, torch.nan)  # what was not measured is not read
        pairs, heights = merge(room, sizes, kind, x)
        expected, gaps = merge(matrix.fill_diagonal_(torch.inf), sizes, kind)
        assert torch.equal(pairs, expected)
        torch.testing.assert_close(heights, gaps, rtol=1e-11, atol=0)


def test_rows_of_points_leave_most_of_the_room_untouched() -> None:
    x = torch.randn(1000, 3, dtype=torch.float64)
    if not kernel.available(x):
        pytest.skip(str(zoo.kernels.status()))
    for method in ALL:
        room = torch.full((1000, 1000), torch.nan, dtype=torch.float64)
        if method in METHODS:
            kernel.merge_closest(room, x.new_ones(1000), method == "median", x)
        else:
            kernel.merge_chain(room, x.new_ones(1000), method, x)
        assert room.isnan().double().mean() > 0.6


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("copies", [0, 40], ids=["points", "copies"])
def test_more_than_a_matrix_product_makes_are_exact(method: str, copies: int) -> None:
    x = torch.randn(1201, 25, dtype=torch.float64) * torch.logspace(-6, 3, 1201, dtype=torch.float64)[:, None]
    x = torch.cat([x, x[:copies]])
    found, expected = linkage(x.T.contiguous().T, method), torch.from_numpy(hierarchy.linkage(x.numpy(), method))
    if not copies:
        assert torch.equal(found[:, [0, 1, 3]], expected[:, [0, 1, 3]])
    assert bool((found[:copies, 2] == 0).all())
    torch.testing.assert_close(found[:, 2], expected[:, 2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("precomputed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 2), (40, 7), (257, 4)], ids=str)
def test_single_linkage_falls_as_in_scipy_where_distances_are_equal(
    kernels: str, shape: tuple[int, int], precomputed: bool
) -> None:
    if kernels == "0":
        pytest.skip("the torch form may choose among equal distances")
    whole = torch.randint(0, 4, (2 * shape[0], shape[1]), dtype=torch.float64)[::2]
    x = whole.T.contiguous().T
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    pairs, heights = kernel.span(distances if precomputed else x, precomputed)
    found = kernel.label_merges(pairs[(order := heights.sort(stable=True))[1]], order[0])
    if shape[0] > 1:
        expected = torch.from_numpy(hierarchy.linkage(x.numpy(), "single"))
        assert torch.equal(found[:, [0, 1, 3]], expected[:, [0, 1, 3]])
        torch.testing.assert_close(found[:, 2] if precomputed else found[:, 2].sqrt(), expected[:, 2])


def test_what_does_not_fit_is_refused() -> None:
    matrix, sizes = torch.ones(3, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    if not kernel.available(matrix):
        pytest.skip(str(zoo.kernels.status()))
    for wrong in ((matrix[:2], sizes), (matrix.float(), sizes), (matrix, sizes[:2]), (matrix.T[::1, ::2], sizes[:2])):
        with pytest.raises(RuntimeError, match="zoo::merge_closest"):
            kernel.merge_closest(*wrong, False)
        with pytest.raises(RuntimeError, match="zoo::merge_chain"):
            kernel.merge_chain(*wrong, "ward")
    for points in (matrix[:2], matrix[:, :0], matrix.float(), sizes):
        with pytest.raises(RuntimeError, match="zoo::merge_chain"):
            kernel.merge_chain(matrix, sizes, "ward", points)
    pairs, utilities = torch.tensor([[0, 1], [1, 2]]), ("test_schema", "test_faketensor")
    for wrong in (matrix.float(), matrix[0], matrix[:, :0]):
        with pytest.raises(RuntimeError, match="zoo::span"):
            kernel.span(wrong, False)
    with pytest.raises(RuntimeError, match="zoo::span"):
        kernel.span(matrix[:2], True)
    for wrong in ((pairs + 1, sizes[1:]), (pairs - 1, sizes[1:]), (pairs, sizes), (pairs.int(), sizes[1:])):
        with pytest.raises(RuntimeError, match="zoo::label_merges"):
            kernel.label_merges(*wrong)
    torch.library.opcheck(torch.ops.zoo.span, (matrix, False), test_utils=utilities)
    torch.library.opcheck(torch.ops.zoo.label_merges, (pairs, sizes[1:]), test_utils=utilities)
    for wrong in ((matrix.float(), matrix), (matrix, matrix[:2]), (matrix[0], matrix)):
        with pytest.raises(RuntimeError, match="zoo::hierarchy"):
            kernel.hierarchy(*wrong, "ward")
    with pytest.raises(RuntimeError, match="zoo::hierarchy"):
        kernel.hierarchy(matrix, matrix, "longest")
    torch.library.opcheck(
        torch.ops.zoo.hierarchy, (torch.randn(3, 2, dtype=torch.float64), matrix, "ward"), test_utils=utilities
    )
    torch.library.opcheck(
        torch.ops.zoo.merge_closest.default, (matrix, sizes, True), test_utils=("test_schema", "test_faketensor")
    )


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from zoo.kernels.linkage import _METHODS, CHAINED, hierarchy, label_merges, merge_chain, merge_closest, span
for size in (1, 2, 3, 8, 9, 70):
    for features in (1, 2, 7):
        for method in _METHODS:
            x = torch.randn(size, features, dtype=torch.float64)
            for points in (x, x.round(), x * torch.nan):
                hierarchy(points, torch.empty(size, size, dtype=torch.float64), method)
        label_merges(*span(torch.randn(size, features, dtype=torch.float64), False))
    label_merges(*span(torch.rand(size, size, dtype=torch.float64), True))
    rows, sizes = torch.randn(size + 250, 3, dtype=torch.float64), torch.arange(1.0, size + 251, dtype=torch.float64)
    for room in (torch.empty(len(rows), len(rows), dtype=torch.float64) for _ in range(2)):
        merge_closest(room, sizes, False, rows)
        merge_chain(room, sizes, "ward", rows)
    span(torch.full((size, 3), torch.nan, dtype=torch.float64), False)
    for median in (False, True):
        for spread in (1, 1000):
            matrix = torch.randint(1, 1 + spread, (size, size), dtype=torch.float64)
            merge_closest((matrix + matrix.T).fill_diagonal_(torch.inf), torch.ones(size, dtype=torch.float64), median)
        merge_closest(torch.full((5, 5), torch.inf, dtype=torch.float64), torch.ones(5, dtype=torch.float64), median)
    for method in CHAINED:
        for spread in (1, 1000):
            matrix = torch.randint(1, 1 + spread, (size, size), dtype=torch.float64)
            merge_chain((matrix + matrix.T).fill_diagonal_(torch.inf), torch.ones(size, dtype=torch.float64), method)
        merge_chain(torch.full((5, 5), torch.inf, dtype=torch.float64), torch.ones(5, dtype=torch.float64), method)
"""
    sanitized(script)
