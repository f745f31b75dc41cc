"""k-means on few rows by the compiled kernel beside the form in torch operations: the same draws and centroids."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels.kmeans import kmeans_draw, kmeans_rounds
from zoo.models.kmeans.lloyd import lloyd
from zoo.models.kmeans.seeding import kmeans_parallel, kmeans_plusplus
from zoo.numerics.hashing import content_hash


def a_case(seed: int) -> tuple[Tensor, Tensor | None, int, int]:
    """Rows of every kind, weights, and numbers of clusters and restarts."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 9, 64, 300]), draw.choice([1, 2, 7, 8, 33])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64) * 10.0 ** draw.choice([-20, 0, 3])
    x = x + draw.choice([0.0, 1e3])
    if draw.random() < 0.4:
        x = x.round()  # repeated rows and ties
    if draw.random() < 0.3:
        x = torch.stack([x, -x], 2)[..., 0]
    weight = None
    if draw.random() < 0.5:
        weight = torch.rand(rows, generator=make, dtype=torch.float64)
        weight[1::3] = 0
    return x, weight, draw.choice([1, 2, 8, 11]), draw.choice([1, 3])


@pytest.mark.parametrize("block", range(4))
def test_the_kernel_is_the_torch_form(kernels: str, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    def both(call: Callable, *arguments: Any, **options: Any) -> list:
        found = []
        for variant in (kernels, "0"):
            monkeypatch.setenv("ZOO_KERNELS", variant)
            found.append(call(*arguments, **options))
        return found

    for seed in range(20 * block, 20 * block + 20):
        x, weight, clusters, restarts = a_case(seed)
        ours, theirs = both(kmeans_plusplus, x, weight, clusters, restarts, seed=7)
        assert torch.equal(ours, theirs), seed
        rows = x if seed % 2 else x.float()
        assert torch.equal(*both(kmeans_parallel, rows, weight, clusters, restarts, seed=7)), seed
        for options in ({"max_iter": 4}, {"tolerance": 1e-3}):
            a, b = both(lloyd, x, ours, weight, **options)
            size = max(1e-300, float(x.abs().max()))
            torch.testing.assert_close(a.centroids, b.centroids, rtol=1e-9, atol=1e-12 * size, msg=str(seed))
            assert a.num_iter == b.num_iter, seed
            assert torch.equal(a.own_iter, b.own_iter), seed
            assert torch.equal(a.at_rest, b.at_rest), seed


def test_rows_that_are_no_numbers_end_the_iterations(kernels: str) -> None:
    x = torch.randn(30, 3, dtype=torch.float64)
    x[4, 1] = torch.nan
    assert lloyd(x, x[None, :2]).num_iter == 0


def test_the_operators_are_what_torch_expects(kernels: str) -> None:
    x = torch.randn(9, 3, dtype=torch.float64)
    content, offset = torch.arange(9), torch.arange(8).view(4, 2)
    if kernels == "0":
        with pytest.raises(RuntimeError, match="needs the compiled kernels"):
            kmeans_draw(x, content, offset, None, 3, 1e-15, 1)
        return
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.zoo.kmeans_draw.default, (x, content, offset, None, 3, 1e-15, 1), test_utils=utilities
    )
    for wrong in ((x.float(), content, offset), (x, content[1:], offset), (x, content, offset[0])):
        with pytest.raises(RuntimeError, match="zoo::kmeans"):
            kmeans_draw(*wrong, None, 3, 1e-15, 1)
    torch.library.opcheck(
        torch.ops.zoo.kmeans_rounds.default, (x, content, offset[:, 0], None, 3, 1), test_utils=utilities
    )
    for wrong in ((x.half(), content, offset[0]), (x, content[1:], offset[0]), (x, content, offset)):
        with pytest.raises(RuntimeError, match="zoo::kmeans_rounds"):
            kmeans_rounds(*wrong, None, 3, 1)
    with pytest.raises(ZooError, match="square"):
        kmeans_rounds(x * 1e200, content, offset[0], None, 3, 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_threads_draw_the_same_rows(kernels: str, weighted: bool) -> None:
    if kernels == "0":
        pytest.skip("torch's own threads")
    for rows in (1, 2, 70, 1000):
        x = torch.randn(rows, 5, dtype=torch.float64)
        weight = (torch.rand(rows, dtype=torch.float64) * (torch.arange(rows) % 3)) + 1e-3 if weighted else None
        numbers = content_hash(x), torch.arange(12).view(6, 2), weight, 4, 1e-15
        assert torch.equal(kmeans_draw(x, *numbers, 1), kmeans_draw(x, *numbers, 3))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_kmeans import a_case, kmeans_parallel, kmeans_plusplus, lloyd
for seed in range(200):
    x, weight, clusters, restarts = a_case(seed)
    kmeans_parallel(x if seed % 2 else x.float(), weight, clusters, restarts, seed=7)
    lloyd(x, kmeans_plusplus(x, weight, clusters, restarts, seed=7), weight)
"""
    sanitized(script)
