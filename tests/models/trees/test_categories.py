"""Categories of tables: their names travel with the model, and new rows are read by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zoo

CITIES = np.array(["Bern", "Cork", "Graz", "Lyon", "Nice", "Oslo", "Rome", "Turku"])


def a_table(rows: int = 400):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    city = rng.integers(0, 8, rows)
    value = np.array([3.0, -1.0, 2.5, 0.0, -2.0, 1.0, 4.0, -3.0])[city] + 0.1 * rng.standard_normal(rows)
    table = pandas.DataFrame({"city": CITIES[city], "size": rng.standard_normal(rows)})
    table.loc[::17, "city"] = None
    return table, value


@pytest.mark.parametrize("name", ["decision_tree", "gradient_boosting"])
def test_codes_of_a_table_are_categories(name: str, tmp_path: Path) -> None:
    table, y = a_table()
    options = {"max_depth": 2} if name == "decision_tree" else {"num_trees": 30, "num_leaves": 4}
    model = zoo.fit(zoo.create_model(name, **options), table, y, text="codes")
    assert model.spec.categories == (tuple(CITIES), ())
    assert model.categorical == (0,)
    as_numbers = zoo.fit(zoo.create_model(name, categorical_features=[], **options), table, y, text="codes")
    assert float((model.predict(table) - y).square().mean()) < float((as_numbers.predict(table) - y).square().mean())
    if name == "decision_tree":
        assert "city in {Cork, Lyon, Nice, Turku}" in model.to_text()
        assert "city in {Cork, Lyon, Nice, Turku}" in model.to_graphviz()
    other = table.assign(city=["Wien"] * len(table))  # which no row had: a missing value
    none = table.assign(city=[None] * len(table)).astype({"city": object})
    assert torch.equal(model.predict(other), model.predict(none))
    zoo.save_model(model, tmp_path / "model.ckpt")
    again = zoo.load_model(tmp_path / "model.ckpt")
    assert again.spec.categories == model.spec.categories
    assert torch.equal(again.predict(table), model.predict(table))


def test_a_direction_leaves_a_feature_a_number() -> None:
    table, y = a_table()
    model = zoo.fit(zoo.create_model("gradient_boosting", num_trees=3, monotone=[1, 0]), table, y, text="codes")
    assert model.categorical == ()
