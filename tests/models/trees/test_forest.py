"""Random forests: the figures on digits, the same bits for any batches, and the rows that a tree did not see."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import KFold
from support import bits
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.trees import RandomForest, tree_model
from zoo.models.trees.bootstrap import Bootstrap, bootstrap_keys, poisson_thresholds
from zoo.models.trees.trees import find_leaves


def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x), torch.from_numpy(y)


def fitted(x: Tensor, y: Tensor, batch_size: int | None = None, kept_bytes: int = 0, **hparams: Any) -> RandomForest:
    classes = None if y.is_floating_point() else int(y.max()) + 1
    target: Any = "value" if classes is None else "class"
    spec = DataSpec("tabular", (x.shape[1],), target, num_classes=classes, dtype="float64")
    model = zoo.create_model("random_forest", spec, **{"seed": 0, **hparams})
    parts = [Batch(x, y).rows(i) for i in torch.arange(len(x)).split(batch_size or len(x))]
    with mock.patch.object(tree_model, "KEPT_BYTES", kept_bytes):
        model.fit_batches(lambda: parts)
    return model.eval()


def test_digits_out_of_bag_and_in_ten_folds() -> None:
    x, y = digits()
    assert float(fitted(x, y).oob_score) >= 0.97
    right = []
    for train, test in KFold(10).split(x):
        forest = fitted(x[train], y[train], oob_score=False)
        right.append(float((forest.predict(x[test]) == y[test]).double().mean()))
    assert np.mean(right) >= 0.945


@pytest.mark.parametrize(
    "options",
    [{}, {"random_thresholds": True, "bootstrap": False}, {"max_leaf_nodes": 12}, {"max_samples": 0.5}],
    ids=str,
)
def test_the_same_bits_for_any_batches_and_order(options: dict[str, Any]) -> None:
    x, y = digits()
    x, y = x[:300, 10:40], y[:300]
    options = {"num_trees": 4, **options}
    whole = fitted(x, y, **options)
    for batch_size in (1, 7, 300):
        order = torch.randperm(300)
        kept = 1 << 28 if batch_size == 7 else 0
        parts = fitted(x[order], y[order], 64 if batch_size == 1 else batch_size, kept, **options)
        assert bits(parts.trees._asdict()) == bits(whole.trees._asdict())
        if parts.wants_score:
            assert float(parts.oob_score) == pytest.approx(float(whole.oob_score), rel=1e-12)


def test_trees_differ_and_more_trees_begin_with_the_same() -> None:
    x, y = digits()
    few, many = (fitted(x[:200], y[:200], num_trees=n, oob_score=False) for n in (2, 5))
    size = len(few.trees.feature)
    assert torch.equal(many.trees.feature[:size], few.trees.feature)
    assert torch.equal(many.trees.threshold[:size], few.trees.threshold)
    leaves = find_leaves(many.trees, x[:200]) - many.trees.root.unsqueeze(1)
    assert len({tuple(row.tolist()) for row in leaves}) == 5
    other = fitted(x[:200], y[:200], num_trees=2, oob_score=False, seed=1)
    assert bits(other.trees._asdict()) != bits(few.trees._asdict())


def test_draws_are_poisson() -> None:
    content = torch.arange(200_000)
    for rate in (1.0, 0.3):
        factor = Bootstrap(content, bootstrap_keys(0, 2), poisson_thresholds(rate)).factor().double()
        assert float(factor.mean()) == pytest.approx(rate, rel=0.01)
        assert float(factor.var()) == pytest.approx(rate, rel=0.02)
        assert float((factor == 0).double().mean()) == pytest.approx(np.exp(-rate), rel=0.01)
        assert abs(float(torch.corrcoef(factor)[0, 1])) < 0.01


def test_the_out_of_bag_score_is_that_of_the_trees_that_did_not_see_a_row() -> None:
    x, y = digits()
    x, y = x[:300], y[:300]
    forest = fitted(x, y, num_trees=9)
    seen = forest._row_sums(x, y, torch.ones(300).double()).bootstrap.factor() > 0
    leaves = find_leaves(forest.trees, x)
    right = total = 0
    for row in range(300):
        votes = [forest.trees.value[leaves[tree, row]] for tree in range(9) if not seen[tree, row]]
        if votes:
            total += 1
            right += int(torch.stack(votes).mean(0).argmax() == y[row])
    assert float(forest.oob_score) == pytest.approx(right / total, rel=1e-12)
    assert 250 < total < 300


def test_values_and_r2() -> None:
    x, y = (torch.from_numpy(a) for a in load_diabetes(return_X_y=True))
    forest = fitted(x, y, min_samples_leaf=3, max_features=0.4)
    value, number = forest.unseen_values(x, y, torch.ones(len(y)).double())
    assert bool((number > 0).all())
    r2 = 1 - (value[:, 0] - y).square().sum() / (y - y.mean()).square().sum()
    assert float(forest.oob_score) == pytest.approx(float(r2), rel=1e-9)
    assert float(r2) > 0.42
    assert float(fitted(x, y, bootstrap=False, num_trees=2).oob_score) != float(forest.oob_score)  # NaN


def test_probabilities_are_the_mean_of_the_trees() -> None:
    x, y = digits()
    forest = fitted(x[:500], y[:500], num_trees=7, oob_score=False, max_depth=4)
    expected = forest.trees.value[find_leaves(forest.trees, x[500:])].mean(0)
    columns = forest.predict_columns(x[500:])
    torch.testing.assert_close(columns["probability"], expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(columns["prediction"], expected.argmax(1))
