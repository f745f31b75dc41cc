"""Cross-validation, learning and validation curves: scikit-learn's scores, and nothing learnt from rows held out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.naive_bayes
import torch
from scipy import stats
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.analysis import cross_validation, learning_curve, validation_curve
from zoo.analysis.cross_validation import divisions, interval
from zoo.analysis.learners import HELD, ArrayLearner, Job, RunLearner
from zoo.errors import ZooError

PEERS = {
    "linear_regression": (sklearn.linear_model.LinearRegression(), load_diabetes(return_X_y=True), "r2"),
    "naive_bayes": (sklearn.naive_bayes.GaussianNB(), load_iris(return_X_y=True), "accuracy"),
}


@pytest.mark.parametrize("name", PEERS)
def test_scores_are_scikit_learns_on_the_same_folds(name: str) -> None:
    peer, (x, y), metric = PEERS[name]
    model = zoo.create_model(name)
    learner = ArrayLearner.of(model, x, y)
    population = learner.population()
    pairs = [pair for seed in (0, 1) for pair in divisions(population, 5, seed=seed)]
    found = cross_validation(model, x, y, folds=5, repeats=2)
    theirs = cross_val_score(peer, x, y, cv=[(a.numpy(), b.numpy()) for a, b in pairs])
    np.testing.assert_allclose(found.values(metric), theirs, atol=1e-9, rtol=0)
    assert found.intervals()[metric].mean == pytest.approx(theirs.mean(), abs=1e-9)
    assert [row["repeat"] for row in found.table()] == [0] * 5 + [1] * 5
    assert model.spec is None  # the user's model was not touched


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    values = np.random.default_rng(0).normal(size=10)
    se = math.sqrt((1 / 10 + 1 / 9) * values.var(ddof=1))
    low, high = stats.t.interval(0.95, 9, values.mean(), se)
    found = interval(values, 1 / 9)
    assert (found.low, found.mean, found.high) == pytest.approx((low, values.mean(), high), abs=1e-12)
    assert math.isnan(interval([1.0], 0.5).low)


def test_scaling_and_categories_are_learnt_from_the_training_rows_of_each_fold() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=60)
    numbers[7] = 1e6  # one row that would rule the scaling
    kinds = np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]
    kinds[7] = "z"
    table, y = {"number": numbers, "kind": kinds}, numbers + (kinds == "a")
    learner = ArrayLearner.of(zoo.create_model("mlp", widths=[2]), table, y, options={"max_epochs": 1})
    population = learner.population()
    pairs = divisions(population, 4)
    with_it = next(train for train, held in pairs if 7 in train)
    train, held = next((train, held) for train, held in pairs if 7 in held)
    for rows, sees in ((train, False), (with_it, True)):
        model, data = learner.fit({"train": rows, HELD: held}, 0, {})
        assert ("kind=z" in (data.spec.feature_names or ())) == sees
        scaling = model.preprocessing.scaling
        assert float(scaling.mean[0]) == pytest.approx(numbers[rows.numpy()].mean(), rel=1e-6)
        assert float(model.objective.target_mean) == pytest.approx(y[rows.numpy()].mean(), rel=1e-5)


def test_a_standardized_fit_scores_as_a_pipeline_does() -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.create_model("kernel_svm")
    found = cross_validation(model, x * [1, 100, 1, 1], y, folds=3, standardize=True)
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    pairs = divisions(ArrayLearner.of(model, x, y).population(), 3)
    theirs = cross_val_score(
        make_pipeline(StandardScaler(), SVC()), x, y, cv=[(a.numpy(), b.numpy()) for a, b in pairs]
    )
    np.testing.assert_allclose(found.values("accuracy"), theirs, atol=1e-9)


def test_a_learning_curve_ends_where_cross_validation_stands() -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.create_model("naive_bayes")
    found = learning_curve(model, x, y, sizes=[0.2, 1.0], folds=3)
    whole = cross_validation(model, x, y, folds=3)
    assert found.values == [20, 100]
    assert [fold["accuracy"] for fold in found.held[-1]] == pytest.approx(whole.values("accuracy"), abs=1e-12)
    mean, deviation = found.means("accuracy")
    assert mean[-1] == pytest.approx(np.mean(whole.values("accuracy")))
    assert deviation[-1] == pytest.approx(np.std(whole.values("accuracy")))
    assert set(found.table()[0]) >= {"rows", "accuracy", "accuracy_std", "train_accuracy"}
    assert len(found.figure().axes[0].lines) == 2


def test_a_validation_curve_changes_the_model_or_the_training_and_leaves_gaps() -> None:
    x, y = load_iris(return_X_y=True)
    depth = validation_curve(zoo.create_model("decision_tree"), x, y, parameter="max_depth", values=[1, 4], folds=3)
    train = depth.means("accuracy", "train")[0]
    assert train[0] < 0.7 < 0.95 < train[1]
    model = zoo.create_model("linear_regression", solver="gradient")
    rates = validation_curve(
        model, 1e3 * x, x[:, 0], parameter="lr", values=[1e-3, 1e30], folds=2, max_epochs=2, optimizer="sgd",
        standardize=False,
    )  # fmt: skip
    assert rates.held[1] == [{}, {}] or math.isnan(rates.means("mse")[0][1]) or rates.means("mse")[0][1] > 1e20


def test_processes_find_the_same(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.create_model("mlp", widths=[3])
    learner = ArrayLearner.of(model, x, y, options={"max_epochs": 1})
    jobs = [Job(train, held) for train, held in divisions(learner.population(), 2)]
    here, again = learner.train(jobs[0]), learner.train(jobs[0])
    assert here == again  # the same seed, the same model, whoever trained before


@pytest.mark.slow
def test_two_processes_find_the_same() -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.create_model("mlp", widths=[3])
    one, two = (cross_validation(model, x, y, folds=2, processes=number, max_epochs=2) for number in (1, 2))
    assert one.folds == two.folds


def test_weights_count_in_training_and_in_the_metrics() -> None:
    x, y = load_diabetes(return_X_y=True)
    weight = np.where(np.arange(len(y)) % 3 == 0, 0.0, 1.0)
    model = zoo.create_model("linear_regression")
    pairs = divisions(ArrayLearner.of(model, x, y).population(), 3)
    found = cross_validation(model, x, y, weight, folds=3)
    for (train, held), value in zip(pairs, found.values("r2"), strict=True):
        kept, asked = train[weight[train] > 0], held[weight[held] > 0]
        peer = sklearn.linear_model.LinearRegression().fit(x[kept], y[kept])
        assert value == pytest.approx(peer.score(x[asked], y[asked]), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, y: cross_validation(m, x[:3], y[48:51]), "folds=5 are more than the 3 rows"),
        (lambda m, x, y: cross_validation(m, x, np.zeros(150, int)), "class"),
        (lambda m, x, y: cross_validation(m, x, x[:, 0]), "naive_bayes takes tabular data with class targets"),
        (
            lambda m, x, y: cross_validation(zoo.create_model("decision_tree"), x, x[:, 0], stratified=True),
            "are values",
        ),
        (lambda m, x, y: cross_validation(m, x, y, groups=[1, 2]), r"groups have shape \(2,\)"),
        (lambda m, x, y: cross_validation(m, x, y, repeats=0), "repeats must be at least 1"),
        (lambda m, x, y: cross_validation(m, x, y, processes=0), "processes must be at least 1"),
        (lambda m, x, y: cross_validation("naive_bayes", x, y), "A model of zoo.create_model is needed first"),
        (lambda m, x, y: cross_validation(zoo.create_model("kmeans"), x, y), "kmeans learns without targets"),
        (lambda m, x, y: learning_curve(m, x, y, sizes=[1.5]), "sizes must be shares above 0 and at most 1.0"),
        (lambda m, x, y: learning_curve(m, x, y, sizes=[]), "sizes are empty"),
        (lambda m, x, y: learning_curve(m, x, y, sizes=[500]), "numbers up to the 120 rows of a training, not 500"),
        (
            lambda m, x, y: validation_curve(m, x, y, parameter="max_dept", values=[1]),
            "no parameter 'max_dept' to vary",
        ),
        (lambda m, x, y: validation_curve(m, x, y, parameter="var_smoothing", values=[-1.0]), "var_smoothing must be"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message: str) -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ZooError, match=message) as raised:
        call(zoo.create_model("naive_bayes"), x, y)
    assert "\n" not in str(raised.value)


def test_a_run_is_trained_again_as_its_config_says(tmp_path: Path) -> None:
    from support import compose

    settings = compose("model=decision_tree", "data=iris", "model.max_depth=2")
    assert compose(name="evaluate")["cross_validation"]["folds"] == 5
    learner = RunLearner(settings, "cpu")
    population = learner.population()
    assert (len(population.y), len(population.pool), len(population.test)) == (150, 120, 30)
    (train, held), *_ = divisions(population, 4)
    x, y = load_iris(return_X_y=True)
    from sklearn.tree import DecisionTreeClassifier

    peer = DecisionTreeClassifier(max_depth=2).fit(x[train], y[train])
    assert learner.train(Job(train, held)).held["accuracy"] == pytest.approx(peer.score(x[held], y[held]), abs=0.04)
    deep = learner.train(Job(train, held, 0, {"max_depth": 6}))
    assert deep.train["accuracy"] > learner.train(Job(train, held)).train["accuracy"]
    for name, message in (("optimizer.lrr", "no key 'optimizer.lrr'"), ("depth", "no key 'model.depth' to vary")):
        with pytest.raises(ZooError, match=message):
            learner.check([name])


@pytest.mark.parametrize("data", ["digits", "blobs", "digits_rows", "adding"])
def test_rows_of_every_kind_are_divided(data: str) -> None:
    module, whole = zoo.create_data(data), zoo.create_data(data)
    members = whole.members()
    assert torch.equal(torch.cat(list(members.values())).sort().values, torch.arange(sum(map(len, members.values()))))
    parts = {"train": torch.cat([members["test"][:3], members["train"][:2]]), HELD: members["train"][5:9]}
    module.divide(parts)
    taken, first, second = module.rows("train")[torch.arange(5)], whole.rows("test"), whole.rows("train")
    for field in ("x", "y"):
        expected = torch.cat([getattr(first[torch.arange(3)], field), getattr(second[torch.arange(2)], field)])
        assert torch.equal(getattr(taken, field), expected)
        assert torch.equal(
            getattr(module.rows(HELD)[torch.arange(4)], field), getattr(second[torch.arange(5, 9)], field)
        )
