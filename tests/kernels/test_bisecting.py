"""Bisecting k-means by the compiled kernel beside its form in torch operations: the same splits, the same way down."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.kernels.bisecting import bisecting_descend, bisecting_splits
from zoo.models.kmeans.bisecting_kmeans import BisectingKMeans
from zoo.numerics.hashing import content_hash


def a_case(seed: int) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """Rows of every kind, weights, and options."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([2, 9, 64, 300]), draw.choice([1, 2, 7, 8, 33, 300])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64) * 10.0 ** draw.choice([-20, 0, 3])
    x = x + draw.choice([0.0, 1e3]) * x.abs().max()
    if draw.random() < 0.3:
        x[rows // 2 :] = x[: rows - rows // 2].clone()  # repeated rows
    if draw.random() < 0.3:
        x = torch.stack([x, -x], 2)[..., 0]
    weight = None
    if draw.random() < 0.5:
        weight = torch.rand(rows, generator=make, dtype=torch.float64)
        weight[1::3] = 0
    options = {
        "num_clusters": draw.choice([2, 3, 11]),
        "num_init": draw.choice([1, 3]),
        "init": draw.choice(["k-means++", "random"]),
        "split_by": draw.choice(["inertia", "weight"]),
        "max_iter": draw.choice([1, 300]),
    }
    return x, weight, options


def fitted(x: Tensor, weight: Tensor | None, options: dict[str, Any]) -> BisectingKMeans:
    dtype = str(x.dtype).removeprefix("torch.")
    model = BisectingKMeans(**options, seed=3).build(DataSpec(kind="tabular", shape=tuple(x.shape[1:]), dtype=dtype))
    model.fit_batches(lambda: [Batch(x, weight=weight)])
    return model


@pytest.mark.filterwarnings("ignore")  # of iterations that were not enough, and of rows that do not differ
def test_the_kernel_is_the_torch_form(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(16):
        x, weight, options = a_case(seed)
        found = []
        for variant in (kernels, "0"):
            monkeypatch.setenv("ZOO_KERNELS", variant)
            model = fitted(x, weight, options)
            found.append((model, *model.labels(x)))
        (ours, label, distance), (theirs, other, away) = found
        size = float((x - x.mean(0)).abs().max())
        assert torch.equal(label, other), seed
        assert torch.equal(ours.split_of, theirs.split_of), seed
        eps = 1e-9 * size + 1e-12 * float(x.abs().max())
        torch.testing.assert_close(ours.centroids, theirs.centroids, rtol=0, atol=eps, msg=str(seed))
        torch.testing.assert_close(distance, away, rtol=1e-9, atol=eps * size, msg=str(seed))
        torch.testing.assert_close(ours.inertia, theirs.inertia, rtol=1e-9, atol=eps * size, msg=str(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("repeated", [False, True])
def test_clusters_are_what_they_say(kernels: str, dtype: torch.dtype, repeated: bool) -> None:
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x = (x.round() if repeated else x)[:, ::2]  # strided, and with ties
    weight = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = fitted(x, weight, {"num_clusters": 9})
    label, distance = model.labels(x)
    assert torch.equal(label, model.row_labels)
    for cluster, centroid in enumerate(model.centroids):
        mine, mass = x[label == cluster].double(), weight[label == cluster]
        torch.testing.assert_close(centroid, (mass @ mine) / mass.sum(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model.cluster_weight[cluster], mass.sum())
        torch.testing.assert_close(distance[label == cluster], (mine - centroid).square().sum(1), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(model.inertia, distance @ weight, rtol=1e-5, atol=0)


def state(x: Tensor, clusters: int) -> tuple[Tensor, ...]:
    """What a kernel writes to: labels, centroids, which clusters were split, leaves, inertia, weights, and a number."""
    real = [
        torch.zeros(shape, dtype=torch.float64) for shape in ((clusters - 1, 2, x.shape[1]), (clusters, x.shape[1]))
    ]
    whole = [torch.zeros(shape, dtype=torch.int64) for shape in ((len(x),), (clusters - 1,), ())]
    each = (torch.zeros(clusters, dtype=torch.float64) for _ in range(2))
    return whole[0], real[0], whole[1], real[1], *each, whole[2]


def test_threads_make_the_same_splits(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("torch's own threads")
    x = torch.randn(60_000, 30, generator=torch.Generator().manual_seed(0))
    offset, found = torch.arange(6).view(3, 2, 1), []
    for threads in (1, 3):
        written = state(x, 4)
        bisecting_splits(x, None, content_hash(x), offset, True, False, 20, 1e-4, threads, *written)
        found.append(written)
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][3], found[1][3], rtol=1e-9, atol=1e-9)


def test_the_operators_are_what_torch_expects(kernels: str) -> None:
    x = torch.randn(9, 3, dtype=torch.float64)
    rows = x, None, torch.arange(9)
    numbers, offset = (True, False, 20, 1e-4, 1), torch.arange(6).view(3, 2, 1)
    tree = torch.zeros(2, 2, 3, dtype=torch.float64), torch.tensor([0, 1]), torch.zeros(3, 3, dtype=torch.float64)
    if kernels == "0":
        for call, arguments in (
            (bisecting_splits, (*rows, offset, *numbers, *state(x, 4))),
            (bisecting_descend, (x, *tree, 1)),
        ):
            with pytest.raises(RuntimeError, match="needs the compiled kernels"):
                call(*arguments)
        return
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.bisecting_descend.default, (x, *tree, 1), test_utils=utilities)
    every = (*rows, offset, *numbers, *state(x, 4))
    torch.library.opcheck(torch.ops.zoo.bisecting_splits.default, every, test_utils=utilities)
    for place in (0, 2, 3, 9, 10, 11, 12, 13, 14, 15):
        wrong = list(every)
        wrong[place] = wrong[place].half()
        with pytest.raises(RuntimeError, match="zoo::bisecting"):
            bisecting_splits(*wrong)
        with pytest.raises(RuntimeError, match="zoo::bisecting"):
            bisecting_splits(*every[:place], every[place].unsqueeze(0), *every[place + 1 :])
    for wrong_tree in ((tree[0][1:], *tree[1:]), (tree[0], torch.tensor([0, 2]), tree[2]), (*tree[:2], tree[2][1:])):
        with pytest.raises(RuntimeError, match="zoo::bisecting"):
            bisecting_descend(x, *wrong_tree, 1)
    with pytest.raises(ZooError, match="square"):
        bisecting_splits(x * 1e200, None, torch.arange(9), offset, *numbers, *state(x, 4))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import warnings
from test_bisecting import a_case, fitted
warnings.simplefilter("ignore")
for seed in range(40):
    x, weight, options = a_case(seed)
    for rows in (x, x.float()):
        fitted(rows, weight, options).labels(rows)
"""
    sanitized(script)
