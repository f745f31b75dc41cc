"""Bisecting k-means against its definition by repeated splits, and scikit-learn where both find every best split."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.kmeans.bisecting_kmeans import BisectingKMeans
from zoo.models.kmeans.kmeans import KMeans
from zoo.numerics.hashing import stream_key


def rows(num_rows: int = 150) -> Tensor:
    return torch.randn(num_rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 5


def created(x: Tensor, **hparams: Any) -> BisectingKMeans:
    spec = DataSpec(kind="tabular", shape=tuple(x.shape[1:]), dtype="float64")
    return BisectingKMeans(**{"seed": 0, **hparams}).build(spec)


def fitted(x: Tensor, batch_size: int | None = None, weight: Tensor | None = None, **hparams: Any) -> BisectingKMeans:
    model, size = created(x, **hparams), batch_size or len(x)
    weights = [None] * len(x) if weight is None else weight.split(size)
    model.fit_batches(lambda: (Batch(part, weight=w) for part, w in zip(x.split(size), weights, strict=False)))
    return model


@pytest.mark.parametrize("split_by", ["inertia", "weight"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_k_means_on_the_rows_of_one_cluster_after_another(split_by: str, weighted: bool) -> None:
    x = rows()
    weight = torch.rand(len(x), dtype=torch.float64) if weighted else torch.ones(len(x), dtype=torch.float64)
    model = fitted(x, weight=weight, num_clusters=6, split_by=split_by, num_init=2)
    label = torch.zeros(len(x), dtype=torch.long)
    spec = DataSpec(kind="tabular", shape=(3,), dtype="float64")
    for split in range(5):
        sizes = []
        for k in range(split + 1):
            part, w = x[label == k], weight[label == k]
            mean = (part * w[:, None]).sum(0) / w.sum()
            sizes.append(float(w.sum() if split_by == "weight" else ((part - mean).square().sum(1) * w).sum()))
        mine = label == sizes.index(max(sizes))
        two = KMeans(num_clusters=2, num_init=2, init="k-means++", seed=stream_key(0, split)).build(spec)
        two.fit_batches(lambda two=two, mine=mine: [Batch(x[mine], weight=weight[mine])])
        label[mine] = torch.where(two.predict(x[mine]) == 1, split + 1, label[mine])
    assert model.predict(x).tolist() == label.tolist()
    expected = sum((weight * (label == k)) @ (x - model.centroids[k]).square().sum(1) for k in range(6))
    assert model.inertia.item() == pytest.approx(expected.item(), rel=1e-9)


def test_separate_clusters_are_found_as_scikit_learn_finds_them() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    center = torch.tensor([[0.0, 0], [40, 0], [0, 55], [200, 10], [230, 70]], dtype=torch.float64)
    label = torch.arange(100) % 5
    x = center[label] + torch.randn(100, 2, dtype=torch.float64)
    theirs = cluster.BisectingKMeans(5, n_init=10, random_state=0).fit(x.numpy())
    model = fitted(x, num_clusters=5, num_init=10)
    assert model.inertia.item() == pytest.approx(theirs.inertia_, rel=1e-9)
    together = torch.from_numpy(theirs.labels_)
    mine = model.predict(x)
    assert torch.equal(mine[:, None] == mine, together[:, None] == together)


@pytest.mark.parametrize("spherical", [False, True])
def test_batches_order_and_processes_do_not_matter(spherical: bool) -> None:
    x = rows(40)  # batches of one row are slow
    hparams = {"num_clusters": 5, "num_init": 2, "spherical": spherical}
    whole = fitted(x, **hparams)
    others = [fitted(x[torch.randperm(len(x))], size, **hparams) for size in (1, 7, 32)]
    two = [created(x, **hparams) for _ in range(2)]
    while not two[0].done:
        for model, part in zip(two, (x[::2], x[1::2]), strict=True):
            model.reset_accumulators()
            model.accumulate(Batch(part))
        merged = two[0].merge([model._state() for model in two])
        for model in two:
            for name, value in merged.items():
                setattr(model, name, value.clone())
            model.solve()
    for other in (*others, *two):
        torch.testing.assert_close(other.centroids, whole.centroids, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(other.inertia, whole.inertia, rtol=1e-9, atol=0.0)
        assert torch.equal(other.predict(x), whole.predict(x))


def test_a_half_done_pass_goes_on_from_a_checkpoint_to_the_same_bits() -> None:
    x = rows()
    whole, model = fitted(x, 40, num_clusters=4), created(x, num_clusters=4)
    steps = 0
    while not model.done:
        model.reset_accumulators()
        for part in x.split(40):
            model.accumulate(Batch(part))
            steps += 1
            if steps % 5 == 0:
                file = io.BytesIO()
                torch.save(model.state_dict(), file)
                file.seek(0)
                model = created(x, num_clusters=4)
                model.load_state_dict(torch.load(file, weights_only=True))
        model.solve()
    for name in ("leaf_centroids", "split_centroids", "cluster_inertia", "split_of"):
        assert torch.equal(getattr(whole, name), getattr(model, name)), name


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_centroids_of_float32_rows_are_the_means_of_their_rows(offset: float) -> None:
    x = (5 * torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)) + offset).float()
    spec = DataSpec(kind="tabular", shape=(3,), dtype="float32")
    model = BisectingKMeans(num_clusters=6, tolerance=0.0, seed=0).build(spec)
    model.fit_batches(lambda: [x])
    label = model.predict(x)
    means = torch.stack([x[label == k].double().mean(0) for k in range(6)])
    torch.testing.assert_close(model.centroids, means, rtol=0, atol=1e-6 + 1e-12 * offset)


@pytest.mark.parametrize("init", ["k-means||", "k-means++"])
def test_messages_name_the_model_that_was_used(init: str) -> None:
    x = rows()
    bad = x.clone()
    bad[3, 1] = torch.nan
    with pytest.raises(ZooError, match=r"^bisecting_kmeans was given NaN or infinite"):
        fitted(bad, num_clusters=3, init=init)
    with pytest.raises(ZooError, match=r"^bisecting_kmeans was given negative"):
        fitted(x, weight=-torch.ones(len(x), dtype=torch.float64), num_clusters=3, init=init)
    with pytest.raises(ZooError, match=r"^bisecting_kmeans was given sample weights that are all zero"):
        fitted(x, weight=torch.zeros(len(x), dtype=torch.float64), num_clusters=3, init=init)
    with pytest.raises(ZooError, match=r"^bisecting_kmeans needs at least as many rows"):
        fitted(x[:1], num_clusters=3, init=init)


def test_corners() -> None:
    x = rows()
    model = fitted(x, num_clusters=1)
    torch.testing.assert_close(model.centroids[0], x.mean(0))
    assert model.predict(x).unique().tolist() == [0]
    with pytest.warns(UserWarning, match="2 different rows only"):
        model = fitted(x[:2].repeat(5, 1), num_clusters=6)
    assert len(model.centroids) == 2
    assert model.inertia == 0
    with pytest.raises(ZooError, match="at least as many rows"):
        fitted(x[:1], num_clusters=3)
    with pytest.raises(ZooError, match="split_by must be"):
        created(x, split_by="size")
