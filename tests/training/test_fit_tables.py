"""`zoo.fit` on what users have: tables with text and gaps, targets of any size, labels of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import r2_score

import zoo
from zoo.data.registry import create_data
from zoo.data.scaling import Standardize

pandas = pytest.importorskip("pandas")

NUM_ROWS = 120


def network(name: str = "mlp", **options: Any) -> Any:
    own: dict[str, Any] = {"mlp": {"widths": [16]}, "logistic_regression": {"solver": "exact"}}
    return zoo.create_model(name, **own.get(name, {}), **options)


def fitted(x: Any, y: Any, name: str = "mlp", **options: Any) -> Any:
    settings = {"max_epochs": 25, "lr": 0.02, "device": "cpu", **options} if name == "mlp" else options
    return zoo.fit(network(name), x, y, **settings)


def frame() -> Any:
    """Numbers, text, categories, truth values, and gaps in two columns."""
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({
        "age": rng.normal(40, 10, NUM_ROWS), "city": rng.choice(["A", "B", "C"], NUM_ROWS),
        "size": pandas.Categorical(rng.choice(["s", "m"], NUM_ROWS)), "owner": rng.random(NUM_ROWS) < 0.5,
    })  # fmt: skip
    return table


def prices(table: Any) -> Any:
    return (table.city.map({"A": 0, "B": 50, "C": -20}).fillna(0) + table.age.fillna(40)).to_numpy() * 1e5


def gaps(table: Any) -> Any:
    table = table.copy()
    table.loc[::7, "age"] = np.nan
    table.loc[::9, "city"] = None
    return table


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "offset"), [(1e-12, 0.0), (1e12, 0.0), (2e5, 3e5), (1.0, 1e9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_network_learns_targets_of_any_scale_alike(scale: float, offset: float, dtype: torch.dtype) -> None:
    x = torch.randn(NUM_ROWS, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = 2 * x[:, 0].double() + x[:, 1].double() ** 2
    y = plain * scale + offset
    model, expected = fitted(x, y), r2_score(plain, fitted(x, plain).predict(x))
    assert expected > 0.9
    assert r2_score(y, model.predict(x)) == pytest.approx(expected, abs=1e-6)
    metrics = zoo.evaluate(model, x, y)
    assert metrics["r2"] == pytest.approx(expected, abs=1e-6)
    assert metrics["mae"] == pytest.approx(float((model.predict(x) - y).abs().mean()), rel=1e-9)  # in the user's units
    assert metrics["mse"] == pytest.approx(metrics["loss"] * float(y.var(correction=0)), rel=1e-5)


def test_several_targets_of_different_scales_and_a_constant_one() -> None:
    x = torch.randn(NUM_ROWS, 2, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, 0] * 1e6, x[:, 1] * 1e-6, torch.full((NUM_ROWS,), 7.0)], 1)
    found = fitted(x, y, max_epochs=60).predict(x)
    assert r2_score(y[:, :2], found[:, :2], multioutput="raw_values").min() > 0.9
    assert (found[:, 2] - 7).abs().max() < 0.5


def test_the_scale_of_the_targets_travels(tmp_path: Path) -> None:
    x = torch.randn(NUM_ROWS, 3)
    model = fitted(x, x[:, 0] * 1e5 + 4e5, max_epochs=2)
    zoo.save_model(model, tmp_path / "model.ckpt")
    again = zoo.load_model(tmp_path / "model.ckpt")
    assert torch.equal(again.predict(x), model.predict(x))
    other = network()
    other.build(model.spec)
    other.load_state_dict(model.state_dict())  # into a model that was never fitted
    assert torch.equal(other.objective.target_std, model.objective.target_std)
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "target_" not in k})  # of before they were
    assert other.objective.target_std is None


def test_linear_regression_by_steps_says_its_weights_in_units_of_the_targets() -> None:
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    y = 1e5 * (x[:, 0] - 2 * x[:, 1]) + 7e5
    model = zoo.create_model("linear_regression", solver="gradient")
    zoo.fit(model, x, y, max_epochs=40, lr=0.05, device="cpu")
    scaling = model.preprocessing.scaling
    assert torch.allclose(model.weight / scaling.std, torch.tensor([[1e5, -2e5]]).double(), rtol=1e-3)
    prepared = (x - scaling.mean) / scaling.std
    assert torch.allclose(prepared.double() @ model.weight[0] + model.bias, model.predict(x), rtol=1e-5)


def test_unscaled_targets_stay_unscaled() -> None:
    x = torch.randn(20, 2)
    assert fitted(x, x[:, 0] * 10, max_epochs=1, standardize=False).objective.target_std is None
    assert zoo.fit(zoo.create_model("linear_regression"), x, x[:, 0] * 10).objective.target_std is None


def test_data_of_the_command_line_scale_their_targets() -> None:
    data = create_data("diabetes", seed=1)
    rows = data.rows("train").batch
    assert data.target_scaling.mean.item() == pytest.approx(rows.y.mean().item(), rel=1e-12)
    assert create_data("diabetes", standardize=False).target_scaling is None
    assert create_data("iris").target_scaling is None


def test_gaps_are_left_out_of_the_scale() -> None:
    x = torch.randn(50, 3, dtype=torch.float64)
    x[::4, 1], x[:, 2] = torch.nan, torch.nan
    found, there = Standardize.fit(x.split(7)), x[:, 1][~x[:, 1].isnan()]
    assert torch.allclose(found.mean[:2], torch.stack([x[:, 0].mean(), there.mean()]), rtol=1e-12)
    assert torch.allclose(found.std[:2], torch.stack([x[:, 0].std(correction=0), there.std(correction=0)]), rtol=1e-12)
    assert found.std[2] == 1


# -- tables ------------------------------------------------------------------------------------------------------------


def test_text_and_categories_are_coded_and_travel(tmp_path: Path) -> None:
    table, y = frame(), prices(frame())
    model = fitted(table, y, max_epochs=40)
    assert model.score(table, y) > 0.95
    assert "city=B" in model.spec.feature_names
    zoo.save_model(model, tmp_path / "model.ckpt")
    again, expected = zoo.load_model(tmp_path / "model.ckpt"), model.predict(table)
    assert torch.equal(again.predict(table[table.columns[::-1]]), expected)
    forms = [pa.Table.from_pandas(table), {name: table[name].tolist() for name in table}]
    polars = pytest.importorskip("polars")
    for form in (*forms, polars.from_pandas(table)):
        assert torch.equal(again.predict(form), expected)
        same = fitted(form, y, max_epochs=1)
        assert same.spec.feature_names == model.spec.feature_names


def test_coding_is_learnt_from_the_training_rows_alone() -> None:
    table, y = frame(), prices(frame())
    table["city"] = [f"only {i}" for i in range(NUM_ROWS)]
    model = fitted(table, y, max_epochs=1, validation=0.5, text="codes")
    city = next(column for column in model.preprocessing.encoder.features if column.name == "city")
    assert len(city.categories) == NUM_ROWS // 2


@pytest.mark.parametrize("name", ["decision_tree", "random_forest", "gradient_boosting"])
def test_trees_learn_from_missing_values(name: str, tmp_path: Path) -> None:
    # That a value is missing says all.
    x = torch.randn(200, 2, dtype=torch.float64)
    lacks = torch.arange(200) % 3 == 0
    y = torch.where(lacks, 5.0, -5.0) + x[:, 1]
    x[lacks, 0] = torch.nan
    model = fitted(x.numpy(), y.numpy(), name)
    assert model.score(x, y) > 0.9
    assert model.predict([[np.nan, 0.0], [0.0, 0.0]]).sign().tolist() == [1, -1]
    zoo.save_model(model, tmp_path / "model.ckpt")
    assert torch.equal(zoo.load_model(tmp_path / "model.ckpt").predict(x), model.predict(x))
    table = gaps(frame())
    assert fitted(table, prices(table), name).predict(table).isfinite().all()
    with pytest.raises(zoo.ZooError, match="X holds 67 infinite values"):
        fitted(x.nan_to_num(torch.inf), y, name)


def test_files_with_gaps_are_kept_for_trees_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n" + "\n".join(f"{'' if i % 3 == 0 else i},{i % 5},{i / 2}" for i in range(60)))
    data = create_data("csv", path=str(path), target="y", task="regression")
    model = zoo.fit(zoo.create_model("decision_tree"), data)
    assert model.predict({"a": [None, 50.0], "b": [1, 1]}).isfinite().all()
    for missing in ("auto", "keep"):
        data = create_data("csv", path=str(path), target="y", task="regression", missing=missing)
        with pytest.raises(zoo.ZooError, match=r"data\.missing=mean"):
            zoo.fit(network(), data, max_epochs=1, device="cpu")


def test_gaps_are_filled_where_asked_and_new_rows_get_an_answer() -> None:
    table, y = gaps(frame()), prices(frame())
    model = fitted(table, y, missing="median", max_epochs=2)
    fill = next(column for column in model.preprocessing.encoder.features if column.name == "age").fill
    assert fill == pytest.approx(table.age.median())
    new = frame()[:2]
    new.loc[0, "age"], new.loc[1, "city"] = np.nan, "never met"
    assert model.predict(new).isfinite().all()
    rows = torch.tensor([[1.0, torch.nan], [3.0, 5.0], [2.0, 7.0]])
    model = fitted(rows, rows[:, 0], missing="mean", max_epochs=1)
    assert torch.equal(model.predict(rows[:1]), model.predict([[1.0, 6.0]]))


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "logistic_regression", "gradient_boosting", "naive_bayes"])
def test_integers_of_any_kind_are_labels(name: str, tmp_path: Path) -> None:
    x = torch.randn(NUM_ROWS, 2, generator=torch.Generator().manual_seed(0))
    for low, high in ((-1, 1), (3, 10**9)):
        y = torch.where(x[:, 0] > 0, high, low)
        options = {"l2": 0.01} if name == "logistic_regression" else {}
        model = fitted(x, y.numpy(), name, **options)
        assert set(model.predict(x).tolist()) == {low, high}
        assert model.score(x, y) > 0.9
        assert zoo.evaluate(model, x, y)["accuracy"] == pytest.approx(model.score(x, y))
        assert set(model.predict_table(x)["prediction"].to_pylist()) == {low, high}
    zoo.save_model(model, tmp_path / "model.ckpt")
    assert torch.equal(zoo.load_model(tmp_path / "model.ckpt").predict(x), model.predict(x))


def test_whole_numbers_in_floats_are_labels_where_only_classes_will_do() -> None:
    x = torch.randn(40, 2)
    y = torch.where(x[:, 0] > 0, 1.0, -1.0)
    assert fitted(x, y, "logistic_regression", l2=0.01).score(x, y) > 0.9
    assert fitted(x, y, max_epochs=1).spec.target == "value"


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_columns_of_tokens_are_found_by_name() -> None:
    table = pandas.DataFrame(np.arange(40).reshape(10, 4) % 7, columns=list("abcd"))
    y = np.arange(10) % 2
    model = zoo.fit(zoo.create_model("lstm", hidden_size=4), table, y, max_epochs=1, device="cpu")
    expected = model.predict_columns(table)["probability"]
    assert torch.equal(model.predict_columns(table[list("dcba")])["probability"], expected)
    with pytest.raises(zoo.ZooError, match="X has no column 'd'"):
        model.predict(table[list("abc")])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (gaps, {}, "column 'age' lacks 18 of 120 values .* pass missing='mean'"),
        (gaps, {"missing": "keep"}, "missing='keep' is for models that learn from missing values"),
        (lambda t: t.assign(city=[f"c{i}" for i in range(NUM_ROWS)]), {}, "pass text='codes' to number them, or leave"),
        (lambda t: t, {"text": "refuse"}, "Column 'city' holds text: pass text='onehot'"),
        (lambda t: t.assign(day=pandas.Timestamp("2020-01-01")), {}, "column 'day' holds values of type timestamp"),
        (lambda t: pandas.concat([t, t], axis=1), {}, "X has several columns named 'age': rename them"),
        (lambda t: pandas.DataFrame(np.ones((NUM_ROWS, 2)), columns=["a", "a"]), {}, "several columns named 'a'"),
        (lambda t: None, {}, "X is None: pass an array"),
        (lambda t: np.where(np.eye(NUM_ROWS) == 1, np.nan, 0.0), {}, "X holds 120 NaN values"),
    ],
    ids=["gaps", "keep", "many", "refused", "dates", "twice", "twice, numbers", "none", "array"],
)
def test_what_cannot_be_coded_is_one_line(change: Any, options: dict, message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        fitted(change(frame()), prices(frame()), **options)


def test_a_new_row_that_lacks_a_value_is_one_line() -> None:
    table = frame()
    model = fitted(table, prices(table), max_epochs=1)
    with pytest.raises(zoo.ZooError, match=r"column 'age' lacks 18 of 120 values.*training with missing='mean'"):
        model.predict(gaps(table)[["age", "size", "owner"]].assign(city="A"))
    with pytest.raises(zoo.ZooError, match="X is None"):
        model.predict(None)
