"""Splits: seeded, disjoint, complete, stratified; scaling from the training rows alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from zoo.data import Batch, create_data
from zoo.data.array_data import ArrayData
from zoo.data.base import split_rows
from zoo.data.groups import GroupSplit
from zoo.data.scaling import Standardize
from zoo.errors import ZooError


@pytest.mark.parametrize("num_rows", [1, 2, 3, 10, 101, 1000])
@pytest.mark.parametrize("fractions", [(0.0, 0.0), (0.1, 0.2), (0.5, 0.0), (0.0, 0.3), (0.45, 0.45)])
@pytest.mark.parametrize("stratified", [False, True])
def test_disjoint_complete_and_of_the_right_size(
    num_rows: int, fractions: tuple[float, float], stratified: bool
) -> None:
    strata = torch.arange(num_rows) % 3 if stratified else None
    parts = split_rows(num_rows, fractions, 7, strata)
    assert sorted(torch.cat(parts).tolist()) == list(range(num_rows))
    assert [len(part) for part in parts[1:]] == [round(num_rows * fraction) for fraction in fractions]
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


@pytest.mark.parametrize("stratified", [False, True])
def test_seed_decides(stratified: bool) -> None:
    strata = torch.arange(100) % 2 if stratified else None
    first, again, other = (split_rows(100, (0.1, 0.2), seed, strata) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], other[2])


def test_strata_get_their_share() -> None:
    strata = torch.tensor([0] * 600 + [1] * 300 + [2] * 90 + [3] * 10)[torch.randperm(1000)]
    for part, share in zip(split_rows(1000, (0.1, 0.2), 0, strata), (0.7, 0.1, 0.2), strict=True):
        counts = strata[part].bincount(minlength=4)
        assert (counts - share * strata.bincount()).abs().max() <= 2


def test_every_row_may_be_held_out() -> None:
    """Over 200 seeds each of 30 rows is in the test about 40 times: no row is favoured by its place."""
    strata = torch.arange(30) % 3
    count = torch.zeros(30)
    for seed in range(200):
        count[split_rows(30, (0.1, 0.2), seed, strata)[2]] += 1
    assert (count - 40).abs().max() < 5 * (200 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize("sizes", [[10], [1] * 50, [100, 3, 1, 57], [65_536, 65_536, 1000], [2, 0, 5]])
@pytest.mark.parametrize("fractions", [(0.0, 0.0), (0.1, 0.2), (0.0, 0.3), (0.5, 0.0), (0.3, 0.69)])
def test_groups_split_disjointly_and_exactly(sizes: list[int], fractions: tuple[float, float]) -> None:
    split = GroupSplit(sizes, fractions, seed=3)
    for group, size in enumerate(sizes):
        parts = [split.members(name, group) for name in ("train", "val", "test")]
        assert sorted(torch.cat(parts).tolist()) == list(range(size))
        assert [len(part) for part in parts] == [int(split.counts[name][group]) for name in split.counts]
    held_out = sum(fractions) * sum(sizes)
    assert abs(int(split.counts["val"].sum() + split.counts["test"].sum()) - held_out) <= 0.5
    assert abs(int(split.counts["val"].sum()) - fractions[0] * sum(sizes)) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, "data.val_fraction must be at least 0 and below 1"),
        ({"test_fraction": -0.1}, "data.test_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave no rows to train on"),
        ({"batch_size": -1}, "data.batch_size"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"batch_size": "big"}, "data.batch_size must be an integer"),
        ({"val_fractoin": 0.1}, "Did you mean val_fraction"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_data("iris", **options)


def test_fractions_of_zero_leave_no_split() -> None:
    data = create_data("iris", val_fraction=0.0, test_fraction=0.0, batch_size=0)
    assert not data.has("val")
    assert not data.has("test")
    assert data.val_dataloader() == []
    assert next(iter(data.test_dataloader())).size == 150, "the test falls back to the training rows"
    with pytest.raises(ZooError, match="has no split 'test'; it has train"):
        data.rows("test")


def test_standardize_equals_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(1e4, [1e-3, 1.0, 1e5], (500, 3))
    scaler = StandardScaler().fit(x)
    for parts in (1, 7, 500):
        scaling = Standardize.fit(torch.from_numpy(x).tensor_split(parts))
        torch.testing.assert_close(scaling.mean, torch.from_numpy(scaler.mean_), rtol=1e-12, atol=0)
        torch.testing.assert_close(scaling.std, torch.from_numpy(scaler.scale_), rtol=1e-9, atol=0)


@pytest.mark.parametrize("value", [0.1, 1e300, -3.3, 0.0])
def test_a_constant_feature_divides_by_nothing(value: float) -> None:
    x = torch.full((997, 1), value, dtype=torch.float64)
    assert torch.equal(Standardize.fit(x.split(10))(Batch(x)).x, torch.zeros_like(x))


def test_scaling_comes_from_the_training_rows_alone() -> None:
    data = create_data("wine", seed=3)
    raw = create_data("wine", seed=3, standardize=False)
    take = {name: raw.rows(name)[torch.arange(len(raw.rows(name)))].x for name in ("train", "test")}
    mean, std = take["train"].mean(0), take["train"].std(0, correction=0)
    for name, x in take.items():
        scaled = data.rows(name)[torch.arange(len(x))].x
        torch.testing.assert_close(scaled, (x - mean) / std, rtol=1e-9, atol=1e-12)


def test_new_data_follow_the_scale_that_was_learnt() -> None:
    x = torch.randn(50, 2, dtype=torch.float64)
    learnt = ArrayData(x, standardize=True)
    new = ArrayData(x * 10 + 5, standardize=True)
    new.follow(learnt.preprocessing)
    expected = (x * 10 + 5 - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(new.rows("train")[torch.arange(50)].x, expected, rtol=1e-12, atol=1e-12)
    assert ArrayData(x).preprocessing.scaling is None
