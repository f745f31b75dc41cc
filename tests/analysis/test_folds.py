"""Folds and samples: what scikit-learn's splitters promise, of sizes, classes and groups of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from zoo.analysis.folds import assign_folds, balanced_order, draw_samples
from zoo.errors import ZooError


def sizes(splitter, num_rows: int, y=None, groups=None) -> list[int]:
    """The sizes of scikit-learn's folds, sorted."""
    return sorted(len(held) for _, held in splitter.split(np.zeros((num_rows, 1)), y, groups))


@pytest.mark.parametrize(("num_rows", "num_folds"), [(2, 2), (7, 3), (10, 10), (23, 5), (100, 7)])
def test_sizes_are_scikit_learns(num_rows: int, num_folds: int) -> None:
    fold = assign_folds(num_rows, num_folds)
    assert sorted(fold.bincount(minlength=num_folds).tolist()) == sizes(KFold(num_folds), num_rows)
    assert torch.equal(fold, assign_folds(num_rows, num_folds))
    if num_rows > 7:
        assert not torch.equal(fold, assign_folds(num_rows, num_folds, seed=1))


@pytest.mark.parametrize("counts", [(10, 10), (1, 9), (50, 3, 8), (5, 5, 5, 5)])
@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_each_fold_has_its_share_of_each_class(counts: tuple[int, ...], num_folds: int) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y))]
    fold = assign_folds(len(y), num_folds, strata=y)
    assert int(fold.bincount(minlength=num_folds).max() - fold.bincount(minlength=num_folds).min()) <= 1
    for label in range(len(counts)):
        share = fold[y == label].bincount(minlength=num_folds)
        assert int(share.max() - share.min()) <= 1
    if min(counts) >= num_folds:
        theirs = sizes(StratifiedKFold(num_folds), len(y), y.numpy())
        assert max(theirs) - min(theirs) >= int(fold.bincount().max() - fold.bincount().min())


@pytest.mark.parametrize("stratified", [False, True])
def test_no_two_folds_share_a_group(stratified: bool) -> None:
    groups = torch.repeat_interleave(torch.arange(30), torch.randint(1, 20, (30,)))
    y = torch.randint(0, 2, (30,))[groups]  # a class a group
    fold = assign_folds(len(groups), 4, strata=y if stratified else None, groups=groups)
    for group in range(30):
        assert len(fold[groups == group].unique()) == 1
    spread = fold.bincount().double()
    theirs = sizes(StratifiedGroupKFold(4) if stratified else GroupKFold(4), len(groups), y.numpy(), groups.numpy())
    assert float(spread.max() - spread.min()) <= max(theirs) - min(theirs) + 20
    if stratified:
        share = torch.stack([y[fold == k].double().mean() for k in range(4)])
        assert float((share - y.double().mean()).abs().max()) < 0.15


def test_as_many_folds_as_groups_leaves_none_empty() -> None:
    groups = np.array(["a"] * 50 + ["b", "c", "d"])
    strata = torch.tensor([0] * 50 + [1, 2, 1])
    for given in (None, strata):
        assert sorted(assign_folds(53, 4, groups=groups, strata=given).bincount().tolist()) == [1, 1, 1, 50]


def test_each_beginning_of_a_balanced_order_has_its_share_of_each_class() -> None:
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    order = balanced_order(100, strata=y)
    assert torch.equal(order.sort().values, torch.arange(100))
    for size in (10, 30, 57, 90):
        counts = y[order[:size]].bincount(minlength=3).double()
        assert float((counts - size * torch.tensor([0.6, 0.3, 0.1])).abs().max()) <= 1


def test_samples() -> None:
    disjoint = torch.cat(draw_samples(100, 7, "disjoint"))
    assert len(disjoint.unique()) == len(disjoint) == 98
    drawn = torch.cat(draw_samples(200, 50))
    assert len(drawn) == 10_000
    assert float(drawn.bincount(minlength=200).double().var()) == pytest.approx(50, rel=0.35)  # binomial
    assert [len(sample) for sample in draw_samples(10, 3, size=4)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assign_folds(3, 4), "folds=4 are more than the 3 rows"),
        (lambda: assign_folds(3, 1), "folds must be at least 2, not 1"),
        (lambda: assign_folds(4, 3, groups=[1, 1, 2, 2]), "folds=3 are more than the 2 groups"),
        (lambda: assign_folds(4, 2, groups=[1, 2]), r"groups have shape \(2,\): one for each of the 4 rows"),
        (lambda: draw_samples(5, 6, "disjoint"), "6 disjoint samples"),
        (lambda: draw_samples(5, 2, "disjoint", size=3), "need more rows than the 5"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        call()
