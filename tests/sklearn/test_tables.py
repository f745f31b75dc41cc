"""Tables of pandas, polars and PyArrow, and their columns as targets, through the estimators and `zoo.fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import zoo
import zoo.sklearn as zs

NAMES = ["height", "width", "depth"]
X = np.random.default_rng(0).normal(size=(60, 3))
LABELS = np.where(X[:, 0] + X[:, 1] ** 2 > 0.5, "yes", "no")


def table_of(library: str, columns: dict[str, np.ndarray]) -> Any:
    """The columns as a table of that library."""
    module = pytest.importorskip(library)
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_estimators_take_tables(library: str) -> None:
    table = table_of(library, dict(zip(NAMES, X.T, strict=True)))
    labels = table_of(library, {"label": LABELS})["label"]
    model = zs.LogisticRegression().fit(table, labels)
    assert model.feature_names_in_.tolist() == NAMES
    plain = zs.LogisticRegression().fit(X, LABELS)
    assert_array_equal(model.predict(table), plain.predict(X))
    assert_allclose(model.coef_, plain.coef_, rtol=1e-9)
    assert_allclose(abs(zs.PCA(2).fit_transform(table)), abs(zs.PCA(2).fit_transform(X)), rtol=1e-9)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_fit_takes_tables_and_answers_rows_of_another_order_of_columns(library: str) -> None:
    table = table_of(library, dict(zip(NAMES, X.T, strict=True)))
    labels = table_of(library, {"label": LABELS})["label"]
    model = zoo.fit(zoo.create_model("decision_tree"), table, labels)
    assert model.spec is not None
    assert list(model.spec.feature_names or ()) == NAMES
    backwards = table_of(library, dict(zip(NAMES[::-1], X.T[::-1], strict=True)))
    assert_array_equal(model.predict(backwards), LABELS)
    assert model.score(backwards, labels) == 1
