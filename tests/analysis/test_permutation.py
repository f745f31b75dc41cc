"""Permutation importances: the falls that theory tells, scikit-learn's, and every kind of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.inspection import permutation_importance as theirs

import zoo
import zoo.sklearn as zs
from zoo.analysis import permutation_importance
from zoo.errors import ZooError


def test_of_a_linear_model_it_is_twice_the_share_of_the_variance() -> None:
    x = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([3.0, 0.0, -1.0], dtype=torch.float64)
    model = zoo.fit(zoo.create_model("linear_regression"), x, y)
    found = permutation_importance(model, x, y, num_repeats=4)
    torch.testing.assert_close(found.mean, torch.tensor([1.8, 0.0, 0.2]).double(), atol=0.06, rtol=0)
    assert found.score == pytest.approx(1.0)
    assert found.falls.shape == (3, 4)
    torch.testing.assert_close(found.mean, found.falls.mean(1))
    again = permutation_importance(model, x, y, num_repeats=4)
    assert torch.equal(again.falls, found.falls)
    other = permutation_importance(model, x, y, num_repeats=4, seed=1)
    assert not torch.equal(other.falls, found.falls)


@pytest.mark.parametrize("name", ["decision_tree", "naive_bayes", "logistic_regression"])
def test_classes_beside_scikit_learns(name: str) -> None:
    x, y = load_wine(return_X_y=True)
    model = zoo.fit(zoo.create_model(name), x, y)
    found = permutation_importance(model, x, y, num_repeats=8)

    class Peer(zs.GaussianNB):
        def predict(self, X):
            return model.predict(X).numpy()

    peer = theirs(Peer().fit(x, y), x, y, n_repeats=8, random_state=0, scoring="accuracy")
    np.testing.assert_allclose(found.mean.numpy(), peer.importances_mean, atol=0.03)


def test_tables_labels_weights_and_missing_values() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"kind": np.array(["a", "b"])[rng.integers(0, 2, 200)], "size": rng.standard_normal(200)})
    table.loc[::9, "size"] = np.nan
    y = np.where(table["kind"] == "a", "yes", "no")
    model = zoo.fit(zoo.create_model("gradient_boosting", num_trees=5), table, y, text="codes")
    found = permutation_importance(model, table, y, sample_weight=np.linspace(0, 1, 200))
    assert found.names == ("kind", "size")
    assert found.mean[0] == pytest.approx(0.5, abs=0.1)
    assert float(found.mean[1]) == 0
    assert list(table["kind"][:3]) == list(table["kind"][:3])


def test_what_it_cannot_do_is_said_in_one_line() -> None:
    x, y = load_wine(return_X_y=True)
    model = zoo.fit(zoo.create_model("decision_tree"), x, y)
    for arguments, options, message in (
        ((model, x, y), {"num_repeats": 0}, "num_repeats must be at least 1, not 0"),
        ((model, x[:, :, None], y), {}, r"X has the shape \(178, 13, 1\)"),
        ((zoo.fit(zoo.create_model("kmeans"), x), x, y), {}, "predicts no targets"),
    ):
        with pytest.raises(ZooError, match=message):
            permutation_importance(*arguments, **options)
