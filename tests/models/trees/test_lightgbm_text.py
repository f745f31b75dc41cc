"""LightGBM's text model: what it trained predicts the same here, and what is grown here predicts the same there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

import zoo
from zoo import ZooError
from zoo.models.trees import GradientBoosting

lightgbm = pytest.importorskip("lightgbm")


def rows(kind: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows with missing values and a category, targets, and which columns are categories."""
    rng = np.random.default_rng(0)
    load = {"class": load_breast_cancer, "classes": load_iris}.get(kind, load_diabetes)
    x, y = load(return_X_y=True)
    x = np.c_[x[:, :4], rng.integers(0, 40, len(x))]
    chosen = np.isin(x[:, 4] % 7, [0, 3, 5])
    y = y + 80 * chosen if load is load_diabetes else np.where(chosen, y, (y + 1) % (y.max() + 1))
    x[rng.random(x.shape) < 0.15] = np.nan
    return x, y, [4]


def new_rows(x: np.ndarray) -> np.ndarray:
    """Those of training, others of any scale, some without missing values, unknown categories, zeros."""
    rng = np.random.default_rng(1)
    other = x * rng.choice([-1.0, 0.0, 1.0, 1e3], x.shape)
    other[:, 4] = rng.integers(-2, 90, len(x))
    return np.r_[x, np.nan_to_num(x), other]


PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("value", {"objective": "regression"}),
    ("value", {"objective": "regression_l1"}),
    ("value", {"objective": "quantile", "alpha": 0.8}),
    ("value", {"objective": "poisson"}),
    ("value", {"objective": "gamma"}),
    ("value", {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}),
    ("value", {"objective": "regression", "boosting": "dart"}),
    ("value", {"objective": "regression", "use_missing": False}),
    ("value", {"objective": "regression", "min_data_in_leaf": 1000}),  # stumps
    ("class", {"objective": "binary"}),
    ("class", {"objective": "binary", "sigmoid": 0.7}),
    ("classes", {"objective": "multiclass", "num_class": 3}),
]


@pytest.mark.parametrize(("kind", "parameters"), PARAMETERS, ids=str)
def test_what_lightgbm_trained_predicts_the_same_here_and_back_there(kind: str, parameters: dict[str, Any]) -> None:
    x, y, categorical = rows(kind)
    common = {
        "verbose": -1,
        "num_leaves": 9,
        "min_data_in_leaf": 5,
        "min_data_per_group": 5,
        "cat_smooth": 1,
        "cat_l2": 0,
        "num_threads": 1,
    }
    data = lightgbm.Dataset(x, y, categorical_feature=categorical)
    booster = lightgbm.train({**common, **parameters}, data, num_boost_round=12)
    given = new_rows(x)
    expected = booster.predict(given)
    model = GradientBoosting.from_lightgbm(booster.model_to_string())
    columns = model.predict_columns(given)
    found = (columns["probability"] if kind != "value" else columns["prediction"]).numpy()
    found = found[:, 1] if kind == "class" else found
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    again = lightgbm.Booster(model_str=model.to_lightgbm())
    np.testing.assert_allclose(again.predict(given), expected, rtol=1e-10, atol=1e-10)
    trained = [int(n) for n in booster.feature_importance("split")]
    assert [int(n) for n in again.feature_importance("split")] == trained
    if "min_data_in_leaf" not in parameters:
        assert trained[4] > 0, "no split of categories"
        gain = booster.feature_importance("gain")
        np.testing.assert_allclose(model.importances.numpy(), gain / gain.sum(), rtol=1e-4)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "gamma", "quantile", "two", "three"])
@pytest.mark.parametrize("categorical", [[4], None], ids=["categories", "numbers"])
def test_what_is_grown_here_predicts_the_same_in_lightgbm(loss: str, categorical: list[int] | None) -> None:
    kind = {"two": "class", "three": "classes"}.get(loss, "value")
    x, y, _ = rows(kind)
    if kind == "value":
        y = y.astype(float)
    options = {"loss": None if kind != "value" else loss, "categorical_features": categorical}
    model = zoo.create_model("gradient_boosting", num_trees=8, num_leaves=9, min_samples_leaf=5, **options)
    model = zoo.fit(model, x, y)
    booster = lightgbm.Booster(model_str=model.to_lightgbm())
    given = new_rows(x)
    columns = model.predict_columns(given)
    ours = (columns["probability"] if kind != "value" else columns["prediction"]).numpy()
    ours = ours[:, 1] if kind == "class" else ours
    np.testing.assert_allclose(booster.predict(given), ours, rtol=1e-10, atol=1e-10)
    again = GradientBoosting.from_lightgbm(model.to_lightgbm())
    torch.testing.assert_close(again(torch.from_numpy(given)), model(torch.from_numpy(given)), rtol=1e-10, atol=1e-10)


def test_a_file_is_read_saved_and_served(tmp_path: Path) -> None:
    x, y, categorical = rows("class")
    data = lightgbm.Dataset(x, y, categorical_feature=categorical, feature_name=[*"abcd", "code"])
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, num_boost_round=5)
    booster.save_model(tmp_path / "model.txt")
    model = GradientBoosting.from_lightgbm(tmp_path / "model.txt", class_names=["ill", "well"])
    assert model.spec.feature_names == ("a", "b", "c", "d", "code")
    zoo.save_model(model, tmp_path / "model.ckpt")
    again = zoo.load_model(tmp_path / "model.ckpt")
    wanted = np.array(["ill", "well"])[(booster.predict(x) > 0.5).astype(int)]
    assert list(again.predict(x)) == list(wanted)


def test_what_cannot_be_read_or_written_is_said_in_one_line(tmp_path: Path) -> None:
    x, y, _ = rows("value")

    def text(**parameters: Any) -> str:
        data = lightgbm.Dataset(np.nan_to_num(x), y > 150 if "cross_entropy" in parameters.values() else y)
        options = {"objective": "regression", "verbose": -1, "num_threads": 1, **parameters}
        return lightgbm.train(options, data, num_boost_round=2).model_to_string()

    for source, message in (
        ("no model\n", "no text model of LightGBM"),
        (str(tmp_path / "none.txt"), r"none.txt cannot be read: No such file"),
        (text(linear_tree=True), "linear leaves"),
        (text(zero_as_missing=True), "zeros for missing values"),
        (text(reg_sqrt=True), "objective regression sqrt predicts in a way that is not ours"),
    ):
        with pytest.raises(ZooError, match=message) as caught:
            GradientBoosting.from_lightgbm(source)
        assert "\n" not in str(caught.value)
    two = text(objective="cross_entropy").replace("objective=cross_entropy", "objective=binary sigmoid:1")
    with pytest.raises(ZooError, match="class_names needs 2 names, not 1"):
        GradientBoosting.from_lightgbm(two, class_names=["one"])
    values = np.c_[x, y + 0.5]
    model = zoo.create_model("gradient_boosting", num_trees=2, categorical_features=[5], min_samples_leaf=2)
    model = zoo.fit(model, values, values[:, 5])
    with pytest.raises(ZooError, match="categories are integers of 0 or more"):
        model.to_lightgbm()
