"""Trees, forests and boosting through scikit-learn's names: its own on the same rows, option by option."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.ensemble
import sklearn.tree
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score, mean_pinball_loss

import zoo.sklearn as zs


def without_ties(rows: int = 300, classes: int = 0):
    """Features whose values are all different, and targets that no two splits part equally well."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 4)).astype(np.float32).astype(np.float64)
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * rng.standard_normal(rows)
    return x, np.digitize(y, np.quantile(y, np.linspace(0, 1, classes + 1)[1:-1])) if classes else y


# -- one tree ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {}, {"min_samples_leaf": 0.03, "min_samples_split": 0.2}, {"max_leaf_nodes": 9},
        {"min_impurity_decrease": 0.01},
        {"criterion": "absolute_error", "max_depth": 3}, {"ccp_alpha": 0.01}, {"monotonic_cst": [1, 0, -1, 0]},
    ],
    ids=str,
)  # fmt: skip
def test_a_tree_of_values_is_scikit_learns(options):
    x, y = without_ties()
    options = {"max_depth": 6, "min_samples_leaf": 5, **options}
    ours = zs.DecisionTreeRegressor(**options).fit(x, y)
    theirs = sklearn.tree.DecisionTreeRegressor(random_state=0, **options).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-9)
    assert (ours.get_depth(), ours.get_n_leaves()) == (theirs.get_depth(), theirs.get_n_leaves())
    if "criterion" not in options:
        np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, rtol=1e-6)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 5.0, 2: 0.5}])
@pytest.mark.parametrize("criterion", ["gini", "log_loss"])
def test_a_tree_of_classes_is_scikit_learns_node_by_node(criterion, class_weight):
    x, y = without_ties(classes=3)
    weight = np.linspace(0.5, 2, len(x))
    options = {"criterion": criterion, "class_weight": class_weight, "max_depth": 4, "min_samples_leaf": 12}
    ours = zs.DecisionTreeClassifier(**options).fit(x, y, weight)
    theirs = sklearn.tree.DecisionTreeClassifier(random_state=0, **options).fit(x, y, weight)
    for name in ("children_left", "children_right", "feature", "n_node_samples"):
        np.testing.assert_array_equal(getattr(ours.tree_, name), getattr(theirs.tree_, name), err_msg=name)
    for name in ("value", "weighted_n_node_samples", "impurity"):
        np.testing.assert_allclose(getattr(ours.tree_, name), getattr(theirs.tree_, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.apply(x), theirs.apply(x))
    np.testing.assert_array_equal(ours.decision_path(x).toarray(), theirs.decision_path(x).toarray())
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9)
    np.testing.assert_array_equal(ours.tree_.predict(x), ours.predict_proba(x))


def test_missing_values_sparse_rows_and_several_targets():
    x, y = without_ties()
    x[::7, 1] = np.nan
    options = {"max_depth": 4, "min_samples_leaf": 5}
    ours = zs.DecisionTreeRegressor(**options).fit(x, y)
    theirs = sklearn.tree.DecisionTreeRegressor(random_state=0, **options).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-9)
    rows = sparse.random(200, 6, 0.4, format="csr", random_state=0)
    values = rows.sum(1).A1 + 0.01 * np.arange(200)
    dense = zs.RandomForestRegressor(5, random_state=0).fit(rows.toarray(), values)
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix):
        again = zs.RandomForestRegressor(5, random_state=0).fit(kind(rows), values)
        np.testing.assert_array_equal(again.predict(kind(rows)), dense.predict(rows.toarray()))
    both = np.c_[y, x[:, 0]]
    two = zs.DecisionTreeRegressor(**options).fit(x, both)
    np.testing.assert_allclose(
        two.predict(x), sklearn.tree.DecisionTreeRegressor(random_state=0, **options).fit(x, both).predict(x), rtol=1e-9
    )
    with pytest.raises(ValueError, match="makes sparse rows dense, and 1,000,000 × 1,000 are more than"):
        zs.DecisionTreeClassifier().fit(sparse.csr_matrix((10**6, 1000)), np.arange(10**6) % 2)


def test_one_class_and_columns_of_targets():
    x, _ = without_ties()
    for model in (zs.DecisionTreeClassifier(), zs.RandomForestClassifier(3), zs.HistGradientBoostingClassifier()):
        model.fit(x, ["only"] * len(x))
        assert set(model.predict(x[:5])) == {"only"}
        np.testing.assert_allclose(model.predict_proba(x[:5]), 1)
    with pytest.warns(DataConversionWarning):
        zs.RandomForestClassifier(3).fit(x, (x[:, :1] > 0))


# -- forests -----------------------------------------------------------------------------------------------------------


def test_a_forest_is_as_good_as_scikit_learns_and_scores_what_it_did_not_see():
    x, y = load_digits(return_X_y=True)
    ours = zs.RandomForestClassifier(40, oob_score=True, random_state=0).fit(x, y)
    theirs = sklearn.ensemble.RandomForestClassifier(40, oob_score=True, random_state=0).fit(x, y)
    assert ours.oob_score_ > theirs.oob_score_ - 0.01
    assert ours.oob_decision_function_.shape == theirs.oob_decision_function_.shape
    assert np.mean(ours.oob_decision_function_.argmax(1) == y) == ours.oob_score_
    by = zs.RandomForestClassifier(40, oob_score=accuracy_score, random_state=0).fit(x, y)
    assert by.oob_score_ == ours.oob_score_
    trees = ours.estimators_
    mean = np.mean([tree.predict_proba(x[:50]) for tree in trees], axis=0)
    np.testing.assert_allclose(mean, ours.predict_proba(x[:50]), rtol=1e-12)
    np.testing.assert_array_equal(np.stack([t.apply(x[:50]) for t in trees], 1), ours.apply(x[:50]))
    share = np.mean([tree.feature_importances_ for tree in trees], axis=0)
    np.testing.assert_allclose(share / share.sum(), ours.feature_importances_, rtol=1e-9, atol=1e-12)
    path, starts = ours.decision_path(x[:5])
    assert path.shape == (5, starts[-1])
    np.testing.assert_array_equal(path[:, starts[3] : starts[4]].toarray(), trees[3].decision_path(x[:5]).toarray())
    assert len(ours) == 40


@pytest.mark.parametrize("cls", [zs.RandomForestRegressor, zs.ExtraTreesRegressor])
def test_a_forest_goes_on_as_if_it_had_been_grown_at_once(cls):
    x, y = load_diabetes(return_X_y=True)
    more = cls(4, warm_start=True, bootstrap=True, random_state=3).fit(x, y)
    more.set_params(n_estimators=16, oob_score=True).fit(x, y)
    once = cls(16, bootstrap=True, oob_score=True, random_state=3).fit(x, y)
    np.testing.assert_array_equal(more.predict(x), once.predict(x))
    np.testing.assert_array_equal(more.oob_prediction_, once.oob_prediction_)
    np.testing.assert_allclose(more.feature_importances_, once.feature_importances_, rtol=1e-12)
    with pytest.warns(UserWarning, match="does not fit new trees"):
        more.fit(x, y)
    with pytest.raises(ValueError, match="n_estimators=2 must be larger"):
        more.set_params(n_estimators=2).fit(x, y)


def test_draws_of_rows():
    x, y = load_diabetes(return_X_y=True)
    few = zs.RandomForestRegressor(20, max_samples=44, random_state=0).fit(x, y)
    many = zs.RandomForestRegressor(20, max_samples=2.0, random_state=0).fit(x, y)
    drawn = [np.mean([tree.tree_.n_node_samples[0] for tree in forest.estimators_]) for forest in (few, many)]
    assert drawn[0] == pytest.approx(len(x) * (1 - np.exp(-44 / 442)), rel=0.1)
    assert drawn[1] == pytest.approx(len(x) * (1 - np.exp(-2)), rel=0.05)
    for options, message in (
        ({"oob_score": True, "bootstrap": False}, "Out of bag estimation only available if bootstrap=True"),
        ({"max_samples": 443}, "must be <= n_samples=442"),
        ({"max_samples": 5.0}, "4 times as often at most"),
    ):
        with pytest.raises(ValueError, match=message):
            zs.RandomForestRegressor(2, **options).fit(x, y)


# -- boosting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "squared_error"}, {"loss": "poisson"}, {"loss": "gamma"}, {"loss": "absolute_error"},
        {"l2_regularization": 5.0}, {"max_leaf_nodes": None, "max_depth": 3},
    ],
    ids=str,
)  # fmt: skip
def test_boosting_of_values_is_scikit_learns_without_ties(options):
    x, y = without_ties()
    x = np.round(x, 1)  # fewer values than bins, which then are the same
    y = np.exp(y / 3)
    weight = np.linspace(0.5, 2, len(x))
    options = {"max_iter": 8, "max_leaf_nodes": 6, "early_stopping": False, **options}
    ours = zs.HistGradientBoostingRegressor(**options).fit(x, y, weight)
    theirs = sklearn.ensemble.HistGradientBoostingRegressor(**options).fit(x, y, weight)
    if options.get("loss") == "absolute_error":  # whose leaves' medians are not the middle of two there
        assert np.abs(ours.predict(x) - y).mean() < 1.02 * np.abs(theirs.predict(x) - y).mean()
        return
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=2e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_boosting_of_classes_is_scikit_learns_without_ties(classes):
    x, y = without_ties(classes=classes)
    x, weight = np.round(x, 1), np.random.default_rng(1).uniform(0.5, 2, len(x))  # which break ties
    options = {"max_iter": 6, "max_leaf_nodes": 6, "early_stopping": False}
    ours = zs.HistGradientBoostingClassifier(**options).fit(x, y, weight)
    theirs = sklearn.ensemble.HistGradientBoostingClassifier(**options).fit(x, y, weight)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=2e-4)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), rtol=2e-4, atol=2e-4)
    stages = list(ours.staged_predict_proba(x))
    assert len(stages) == ours.n_iter_ == 6
    np.testing.assert_allclose(stages[2], list(theirs.staged_predict_proba(x))[2], rtol=2e-4)
    np.testing.assert_array_equal(list(ours.staged_predict(x))[-1], ours.predict(x))


def test_directions():
    x, y = without_ties()
    grid = np.repeat(x[:20], 30, 0)
    grid[:, 2] = np.tile(np.linspace(-2, 2, 30), 20)
    model = zs.HistGradientBoostingRegressor(max_iter=20, monotonic_cst=[0, 0, -1, 0]).fit(x, y)
    assert (np.diff(model.predict(grid).reshape(20, 30)) <= 0).all()
    theirs = sklearn.ensemble.HistGradientBoostingRegressor(max_iter=20, monotonic_cst=[0, 0, -1, 0]).fit(x, y)
    assert model.score(x, y) == pytest.approx(theirs.score(x, y), abs=0.02)
    with pytest.raises(ValueError, match="not supported for multiclass"):
        zs.HistGradientBoostingClassifier(monotonic_cst=[1, 0, 0, 0]).fit(x, np.arange(300) % 3)


def test_quantiles():
    x, y = load_diabetes(return_X_y=True)
    for q in (0.1, 0.9):
        options = {"loss": "quantile", "quantile": q, "max_iter": 40}
        ours, theirs = (
            kind(**options).fit(x, y)
            for kind in (zs.HistGradientBoostingRegressor, sklearn.ensemble.HistGradientBoostingRegressor)
        )
        losses = [mean_pinball_loss(y, model.predict(x), alpha=q) for model in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=0.1)
    with pytest.raises(ValueError, match="loss='quantile' needs a quantile"):
        zs.HistGradientBoostingRegressor(loss="quantile").fit(x, y)


def test_boosting_takes_infinite_values():
    x, y = load_diabetes(return_X_y=True)
    x[::17, 2], x[5::19, 2], x[3::23, 0] = np.inf, -np.inf, np.nan
    for bins in (8, 255):
        ours, theirs = (
            kind(max_iter=4, max_bins=bins).fit(x, y).predict(x)
            for kind in (zs.HistGradientBoostingRegressor, sklearn.ensemble.HistGradientBoostingRegressor)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(("loss", "q"), [("absolute_error", None), ("quantile", 0.1), ("quantile", 0.9)])
def test_leaves_hold_scikit_learns_quantiles_of_the_residuals(loss, q):
    x, y = load_diabetes(return_X_y=True)
    for leaves, weight in ((2, None), (4, None), (4, np.linspace(0.1, 2, len(x)))):  # few, so that no tie decides
        options = {"loss": loss, "quantile": q, "max_iter": 4, "max_leaf_nodes": leaves}
        ours, theirs = (
            kind(**options).fit(x, y, weight).predict(x)
            for kind in (zs.HistGradientBoostingRegressor, sklearn.ensemble.HistGradientBoostingRegressor)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_early_stopping_is_scikit_learns_on_the_same_rows():
    x, y = load_breast_cancer(return_X_y=True)
    x = np.round(x, 2)
    options = {
        "early_stopping": True,
        "n_iter_no_change": 3,
        "max_iter": 100,
        "learning_rate": 0.3,
        "max_leaf_nodes": 5,
    }
    given = {"X_val": x[400:], "y_val": y[400:]}
    ours = zs.HistGradientBoostingClassifier(**options).fit(x[:400], y[:400], **given)
    theirs = sklearn.ensemble.HistGradientBoostingClassifier(**options).fit(x[:400], y[:400], **given)
    assert len(ours.train_score_) == len(ours.validation_score_) == ours.n_iter_ + 1 < 100
    np.testing.assert_allclose(ours.train_score_[:2], theirs.train_score_[:2], rtol=1e-3)
    np.testing.assert_allclose(ours.validation_score_[0], theirs.validation_score_[0], rtol=1e-6)
    assert ours.validation_score_.max() > theirs.validation_score_.max() - 0.03
    recent = ours.validation_score_[-4:]
    assert recent[1:].max() <= recent[0] + 1e-7
    watched = zs.HistGradientBoostingClassifier(**options, validation_fraction=100, random_state=0).fit(x, y)
    assert watched.do_early_stopping_
    assert len(watched.validation_score_) == watched.n_iter_ + 1
    trains = zs.HistGradientBoostingClassifier(**options, validation_fraction=None, scoring="accuracy").fit(x, y)
    assert len(trains.validation_score_) == 0
    assert trains.train_score_[-1] == np.mean(trains.predict(x) == y)


@pytest.mark.parametrize("given", [{"n_iter_no_change": 3}, {"n_iter_no_change": 3, "max_iter": 6}, {"verbose": 1}])
def test_rounds_that_are_asked_about_together_end_where_they_would_one_by_one(monkeypatch, capsys, given):
    x, y = load_breast_cancer(return_X_y=True)
    options = {
        "early_stopping": True,
        "max_iter": 40,
        "learning_rate": 0.3,
        "max_leaf_nodes": 5,
        "random_state": 0,
        **given,
    }
    together = zs.HistGradientBoostingClassifier(**options).fit(x, y)
    said = capsys.readouterr().out
    monkeypatch.setattr("zoo.sklearn.boosting._FEW_NUMBERS", 0)
    single = zs.HistGradientBoostingClassifier(**options).fit(x, y)
    assert capsys.readouterr().out == said
    assert together.n_iter_ == single.n_iter_
    assert np.array_equal(together.train_score_, single.train_score_)
    assert np.array_equal(together.validation_score_, single.validation_score_)
    assert np.array_equal(together.predict_proba(x), single.predict_proba(x))
    again = [
        m.set_params(warm_start=True, max_iter=m.n_iter_ + 5, n_iter_no_change=9).fit(x, y) for m in (together, single)
    ]
    assert np.array_equal(*(model.predict_proba(x) for model in again))


def test_boosting_goes_on_as_if_it_had_been_trained_at_once():
    x, y = load_iris(return_X_y=True)
    options = {"warm_start": True, "random_state": 1, "max_features": 0.5}
    more = zs.HistGradientBoostingClassifier(max_iter=3, **options).fit(x, y)
    more.set_params(max_iter=8).fit(x, y)
    once = zs.HistGradientBoostingClassifier(max_iter=8, **options).fit(x, y)
    assert more.n_iter_ == 8
    np.testing.assert_allclose(more.predict_proba(x), once.predict_proba(x), rtol=1e-9)
    with pytest.raises(ValueError, match="max_iter=2 must be larger than or equal to n_iter_=8"):
        more.set_params(max_iter=2).fit(x, y)


def test_categories():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    codes, number = rng.integers(0, 12, 600), rng.standard_normal(600)
    y = rng.standard_normal(12)[codes] + 0.1 * number
    names = np.array([f"city {c}" for c in "qwertyuiopas"])
    frame = pandas.DataFrame({"city": pandas.Categorical(names[codes]), "number": number})
    options = {"max_iter": 30, "max_leaf_nodes": 4, "early_stopping": False}
    by_dtype = zs.HistGradientBoostingRegressor(**options).fit(frame, y)
    np.testing.assert_array_equal(by_dtype.is_categorical_, [True, False])
    order = np.argsort(np.argsort(names))
    numbers = np.c_[order[codes], number].astype(float)
    for given in ([0], [True, False]):
        again = zs.HistGradientBoostingRegressor(categorical_features=given, **options).fit(numbers, y)
        np.testing.assert_allclose(again.predict(numbers), by_dtype.predict(frame), rtol=1e-12)
    text = frame.astype({"city": object})
    by_name = zs.HistGradientBoostingRegressor(categorical_features=["city"], **options).fit(text, y)
    np.testing.assert_allclose(by_name.predict(text), by_dtype.predict(frame), rtol=1e-12)
    theirs = sklearn.ensemble.HistGradientBoostingRegressor(**options).fit(frame, y)
    assert by_dtype.score(frame, y) > theirs.score(frame, y) - 0.01
    plain = zs.HistGradientBoostingRegressor(categorical_features=None, **options).fit(numbers, y)
    assert plain.score(numbers, y) < by_dtype.score(frame, y)
    unknown = frame.assign(city=pandas.Categorical(["nowhere"] * 600))
    assert np.isfinite(by_dtype.predict(unknown)).all()
    for given, message in (
        ([7], "must be in"), ([True], "must have shape"), (["town"], "not a valid feature name"),
        ([0.5], "bool, int or str"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            zs.HistGradientBoostingRegressor(categorical_features=given).fit(frame, y)
    with pytest.raises(ValueError, match="Categorical feature at index 0 is expected to have a cardinality <= 8"):
        zs.HistGradientBoostingRegressor(max_bins=8, categorical_features=[0]).fit(numbers, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_dtype.predict(frame)
