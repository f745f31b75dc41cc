"""Linear machines beside scikit-learn's (liblinear)."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import sklearn.svm
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_moons
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.svm import primal
from zoo.models.svm.features import Look, RBFFeatures
from zoo.models.svm.kernels import Kernel
from zoo.models.svm.primal import HeldRows, squared_sums


def fit(x, y, sample_weight=None, **hparams):
    return zoo.fit(zoo.create_model("svm", **hparams), x, y, sample_weight=sample_weight, device="cpu")


def standardized(load):
    x, y = load(return_X_y=True)
    return StandardScaler().fit_transform(x), y


EXACT = {"tol": 1e-9, "max_iter": 200_000}
METHODS = [("hinge", "dual"), ("squared_hinge", "dual"), ("squared_hinge", "newton")]


@pytest.mark.parametrize(("loss", "method"), METHODS)
@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
@pytest.mark.parametrize("scaling", [1.0, 5.0])
def test_weights_are_liblinears(loss, method, load, scaling):
    x, y = standardized(load)
    weight = np.linspace(0.5, 1.5, len(x))
    ours = fit(x, y, weight, loss=loss, method=method, C=0.5, intercept_scaling=scaling, **EXACT)
    theirs = sklearn.svm.LinearSVC(loss=loss, C=0.5, intercept_scaling=scaling, dual=True, **EXACT)
    theirs.fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=1e-5)
    assert ours.score(x, y) == theirs.score(x, y)


@pytest.mark.parametrize("method", ["dual", "newton"])
@pytest.mark.parametrize("loss", ["epsilon_insensitive", "squared_epsilon_insensitive"])
def test_values_are_liblinears(loss, method):
    if (loss, method) == ("epsilon_insensitive", "newton"):
        pytest.skip("not a squared loss")
    x, y = standardized(load_diabetes)
    y = y / 50
    # Without a square the descent is slow to its last digits: both are where the objective is flat.
    squared = loss.startswith("squared")
    tol = 1e-9 if squared else 1e-5
    ours = fit(x, y, loss=loss, method=method, epsilon=0.2, tol=tol, max_iter=100_000)
    theirs = sklearn.svm.LinearSVR(loss=loss, epsilon=0.2, dual=True, tol=tol, max_iter=100_000).fit(x, y)

    def objective(w, b):
        short = np.maximum(0, np.abs(y - x @ w - b) - 0.2)
        return 0.5 * (w @ w + b * b) + (short**2 if squared else short).sum()

    best = objective(theirs.coef_, float(theirs.intercept_[0]))
    assert objective(ours.weight[0].numpy(), float(ours.bias)) == pytest.approx(best, rel=1e-10 if squared else 1e-5)
    np.testing.assert_allclose(ours.weight[0], theirs.coef_, atol=1e-5 if squared else 5e-3)


def test_the_objective_is_liblinears_and_no_method_is_below_another():
    x, y = standardized(load_breast_cancer)
    sign = np.where(y == 1, 1, -1)
    for loss, method in METHODS:
        ours = fit(x, y, loss=loss, method=method, **EXACT)
        theirs = sklearn.svm.LinearSVC(loss=loss, dual=True, **EXACT).fit(x, y)

        def objective(w, b, loss=loss):
            short = np.maximum(0, 1 - sign * (x @ w + b))
            return 0.5 * (w @ w + b * b) + (short**2 if loss != "hinge" else short).sum()

        best = objective(theirs.coef_[0], theirs.intercept_[0])
        assert objective(ours.weight[0].numpy(), float(ours.bias)) == pytest.approx(best, rel=1e-8)


def test_an_intercept_that_is_not_penalized():
    """The limit of a large constant feature."""
    x, y = standardized(load_breast_cancer)
    free = fit(x + 3.0, y, intercept_scaling=None, **EXACT)
    large = fit(x + 3.0, y, intercept_scaling=1e4, **EXACT)
    torch.testing.assert_close(free.weight, large.weight, rtol=1e-5, atol=1e-6)
    moved = fit(x, y, intercept_scaling=None, **EXACT)
    torch.testing.assert_close(free.weight, moved.weight, rtol=1e-6, atol=1e-8)
    none = fit(x, y, fit_intercept=False, **EXACT)
    theirs = sklearn.svm.LinearSVC(fit_intercept=False, dual=True, **EXACT).fit(x, y)
    np.testing.assert_allclose(none.weight, theirs.coef_, atol=1e-6)
    assert none.bias.tolist() == [0.0]


@pytest.mark.parametrize(("loss", "method"), METHODS)
def test_weights_of_rows_and_classes_count_as_rows(loss, method):
    x, y = standardized(load_iris)
    count = np.arange(len(x)) % 3
    options = {"loss": loss, "method": method, "tol": 1e-10, "max_iter": 100_000}
    ours = fit(x, y, count.astype(float), **options)
    repeated = fit(np.repeat(x, count, 0), np.repeat(y, count), **options)
    torch.testing.assert_close(ours.weight, repeated.weight, rtol=1e-6, atol=1e-7)
    balanced = fit(x[40:], y[40:], class_weight="balanced", **options)
    theirs = sklearn.svm.LinearSVC(loss=loss, class_weight="balanced", dual=True, tol=1e-10, max_iter=100_000)
    np.testing.assert_allclose(balanced.weight, theirs.fit(x[40:], y[40:]).coef_, atol=1e-5)
    given = fit(x[40:], y[40:], class_weight=[11 / 3, 11 / 15, 11 / 15], **options)
    torch.testing.assert_close(given.weight, balanced.weight, rtol=1e-6, atol=1e-7)


def test_gradient_steps_come_near_the_exact_minimum():
    x, y = standardized(load_breast_cancer)
    exact = fit(x, y, loss="hinge", C=0.1, **EXACT)
    model = zoo.create_model("svm", solver="gradient", loss="hinge")
    penalty = 1 / (2 * 0.1 * len(x))
    zoo.fit(model, x, y, lr=0.05, max_epochs=12, l2=penalty, device="cpu", progress=False, standardize=False)
    assert model.score(x, y) == pytest.approx(exact.score(x, y), abs=0.01)
    cosine = torch.nn.functional.cosine_similarity(model.weight.double(), exact.weight.double())
    assert cosine.item() > 0.95


def test_costs_and_weights_whose_squares_are_no_numbers():
    """Where they overflowed, or vanished, the first gradient seemed small enough, and all weights stayed 0."""
    x, y = standardized(load_iris)
    x, y = x[40:70, :2], y[40:70]
    tiny = [fit(x, y, method="newton", C=cost).weight / cost for cost in (1e-300, 1e-100)]
    torch.testing.assert_close(*tiny, rtol=1e-9, atol=0)
    huge = [fit(x, y, np.full(30, weight), method="newton").weight for weight in (1e300, 1e100)]
    torch.testing.assert_close(*huge, rtol=1e-9, atol=0)
    assert all(weight.abs().min() > 0.1 for weight in (*tiny, *huge))


def test_newton_takes_a_handful_of_passes():
    x, y = standardized(load_breast_cancer)
    assert int(fit(x, y).search.passes) <= 12


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"C": -1.0}, "model.C must be above 0"),
        (
            {"loss": "epsilon_insensitive"},
            "epsilon_insensitive does not fit the targets: take one of squared_hinge",
        ),
        ({"loss": "hinge", "method": "newton"}, "take method=dual"),
        ({"method": "dual", "intercept_scaling": None}, "penalizes the intercept"),
        ({"solver": "gradient", "class_weight": "balanced"}, "needs model.solver=exact"),
        ({"class_weight": [1.0, 2.0, 3.0]}, "3 weights for 2 classes"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(hparams, message):
    with pytest.raises(zoo.ZooError, match=message) as error:
        fit(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), **hparams)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("loss", "method"), METHODS)
def test_one_class_no_row_and_nan_are_one_line(loss, method):
    def give(x, y, weight=None):
        spec = zoo.DataSpec("tabular", (2,), "class", num_classes=2)
        model = zoo.create_model("svm", spec=spec, loss=loss, method=method)
        model.fit_batches(lambda: [zoo.Batch(x, y, weight)])

    with pytest.raises(zoo.ZooError, match="at least two classes: all 3 are of class 1"):
        give(torch.randn(3, 2), torch.ones(3).long())
    with pytest.raises(zoo.ZooError, match="no row with a positive weight"):
        give(torch.randn(2, 2), torch.tensor([0, 1]), torch.zeros(2))
    with pytest.raises(zoo.ZooError, match="weight below 0"):
        give(torch.randn(2, 2), torch.tensor([0, 1]), torch.tensor([-1.0, 1.0]))
    for value in (float("nan"), float("inf")):
        with pytest.raises(zoo.ZooError, match=r"NaN|infinite"):
            give(torch.tensor([[0.0, value], [1.0, 1.0]]), torch.tensor([0, 1]))


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_rows_in_memory_have_the_sums_of_a_pass(epsilon):
    x, cost = torch.randn(90, 140, dtype=torch.float64), torch.rand(90, 2, dtype=torch.float64)
    target = torch.randn(90, 2, dtype=torch.float64)
    target = target.sign() if epsilon is None else target
    held = HeldRows(x, target, cost, 2.0, epsilon)
    for scale in (0.0, 0.05, 0.1, 1.0, 0.05):
        point = scale * torch.randn(2, 141, dtype=torch.float64)
        for ours, theirs in zip(held.sums(point), squared_sums(x, target, cost, point, 2.0, epsilon), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 7), (40, 90)], ids=["narrow", "wide"])
@pytest.mark.parametrize("target", ["two", "three", "value"])
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced", "C": 0.3}, {"intercept_scaling": None}], ids=str)
@pytest.mark.parametrize("variant", ["0", None], ids=["torch", "kernel"])
def test_rows_at_once_are_the_machine_of_passes_over_batches(shape, target, options, variant, monkeypatch):
    """By a kernel in the space of weights or of rows, or by passes; weighted, and with rows that weigh nothing."""
    if target == "value" and "class_weight" in options:
        pytest.skip("values have no classes")
    if variant is not None:
        monkeypatch.setenv("ZOO_KERNELS", variant)
    make = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=make, dtype=torch.float64)
    y = x[:, 0] + 0.1 * torch.randn(len(x), generator=make)
    if target != "value":
        y = (y > 0).long() if target == "two" else (y > 0).long() + (y > 1)
    weight = torch.rand(len(x), generator=make, dtype=torch.float64) + 0.1
    for weights in (weight, weight * (torch.arange(len(x)) % 4 > 0)):
        found = []
        for size in (len(x), 17):
            classes = {"two": 2, "three": 3, "value": None}[target]
            spec = DataSpec("tabular", (shape[1],), "value" if classes is None else "class", num_classes=classes)
            model = zoo.create_model("svm", spec, tol=1e-12, **options)
            parts = [Batch(x[i], y[i], weights[i]) for i in torch.arange(len(x)).split(size)]
            values = model.fit_batches(lambda parts=parts: parts)
            assert model.search.converged
            found.append((model.weight, model.bias, torch.as_tensor(values["objective"])))
        torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-9)


# -- features of a kernel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["nystroem", "rff"])
def test_features_draw_the_boundary_of_the_kernel(features):
    x, y = make_moons(800, noise=0.2, random_state=0)
    exact = zoo.fit(zoo.create_model("kernel_svm"), x[:400], y[:400], device="cpu")
    model = fit(x[:400], y[:400], features=features, num_components=100)
    assert model.score(x[400:], y[400:]) > exact.score(x[400:], y[400:]) - 0.01
    assert float(model.feature_map.gamma) == pytest.approx(1 / (2 * x[:400].var()), rel=1e-9)
    values = fit(x[:400], np.sin(3 * x[:400, 0]), features=features, num_components=100, C=100.0)
    assert values.score(x[400:], np.sin(3 * x[400:, 0])) > 0.98


@pytest.mark.parametrize("features", ["nystroem", "rff"])
def test_features_are_the_same_for_any_batches_order_and_processes(features):
    x, y = make_moons(150, noise=0.2, random_state=0)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    found = []
    for order, size in ((torch.arange(150), 150), (torch.arange(150), 7), (torch.randperm(150), 64)):
        spec = zoo.DataSpec("tabular", (2,), "class", num_classes=2, dtype="float64")
        model = zoo.create_model("svm", features=features, num_components=30, spec=spec)
        parts = [zoo.Batch(x[part], y[part]) for part in order.split(size)]
        model.fit_batches(lambda parts=parts: parts)
        found.append(model.predict_columns(x)["decision"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[2], found[0], rtol=1e-8, atol=1e-8)
    first, second = Look.at(x[:50], 30), Look.at(x[50:], 30)  # of two processes
    both, whole = second.merge(first, 30), Look.at(x, 30)
    assert torch.equal(both.rows, whole.rows)
    assert both.variance == pytest.approx(whole.variance, rel=1e-12)
    assert whole.variance == pytest.approx(float(x.var(correction=0)), rel=1e-12)


def test_nystroem_of_all_rows_is_the_kernel_and_of_equal_rows_no_blow_up():
    x = torch.randn(20, 3, dtype=torch.float64)
    features = RBFFeatures("nystroem", 3, 40, 0.5)  # more than there are rows
    features.learn(Look.at(torch.cat([x, x]), 40))
    torch.testing.assert_close(features(x) @ features(x).T, Kernel("rbf", 0.5)(x, x), rtol=0, atol=1e-7)
    with pytest.raises(zoo.ZooError, match="fitted by Newton passes"):
        zoo.create_model("svm", features="rff", loss="hinge")


# -- sparse rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("target", ["class", "value"])
def test_newton_steps_of_sparse_rows_are_those_of_dense_ones(dtype, target):
    """Of rows in memory and batch by batch, weighted, with empty rows, without an intercept, and by pairs in parts."""
    make = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((40, 8), 0.3), make).to(dtype)
    x[::9], x[:, 3] = 0.0, 1.0
    y = torch.randint(3, (40,), generator=make) if target == "class" else x[:, 0] - x[:, 1] + torch.randn(40)
    weight = torch.randint(3, (40,), generator=make).double()
    classes = 3 if target == "class" else None
    for options in ({"intercept_scaling": None, "C": 3.0}, {"fit_intercept": False}):
        found = []
        for sparse, size, pairs in ((False, 40, 1 << 20), (True, 40, 1 << 20), (True, 25, 20)):
            spec = DataSpec("tabular", (8,), target, num_classes=classes, sparse=sparse)
            model = zoo.create_model("svm", spec, method="newton", tol=1e-10, **options)
            rows = [Batch(x, y, weight).rows(i) for i in torch.arange(40).split(size)]
            rows = [part._replace(x=part.x.to_sparse_csr()) for part in rows] if sparse else rows
            with mock.patch.object(primal, "_PAIRS", pairs):
                model.fit_batches(lambda rows=rows: rows)
            assert model.takes_sparse
            found.append((model.weight, model.bias, model(rows[0].x.double())))
        for ours in found[1:]:
            torch.testing.assert_close(ours[:2], found[0][:2], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found[1][2], found[0][2], rtol=1e-9, atol=1e-9)


def test_features_of_a_kernel_are_made_of_rows_with_their_zeros():
    x, y = torch.eye(6).repeat(3, 1), torch.arange(18) % 2
    spec = DataSpec("tabular", (6,), "class", num_classes=2, sparse=True)
    model = zoo.create_model("svm", spec, features="nystroem", num_components=4)
    model.fit_batches(lambda: [Batch(x.to_sparse_csr(), y)])
    assert not model.takes_sparse
    assert torch.equal(model.predict(Batch(x.to_sparse_csr())), model.predict(x, raw=False))
