"""Kernel machines beside scikit-learn's (libsvm)."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.svm
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, make_moons
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.models.svm.kernels import Kernel, kernel_matrix
from zoo.models.svm.one_vs_one import against_the_rest, pairs_of
from zoo.models.svm.platt import couple, fit_curve


def fit(x, y=None, name="kernel_svm", sample_weight=None, **hparams):
    return zoo.fit(zoo.create_model(name, **hparams), x, y, sample_weight=sample_weight, device="cpu")


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(x), y


def test_breast_cancer_has_the_certified_objective_and_support_vectors(cancer):
    for tol in (1e-3, 1e-8):
        model = fit(*cancer, tol=tol)
        assert float(model.objective_values) == pytest.approx(-59.761345, abs=1e-4)
        assert len(model.support_vectors) == 119


@pytest.mark.parametrize("path", ["kernel", "torch"])
def test_digits_are_read_as_often_as_by_libsvm(path, monkeypatch):
    if path == "torch":
        monkeypatch.setenv("ZOO_KERNELS", "0")
    x, y = load_digits(return_X_y=True)
    half = len(x) // 2
    model = fit(x[:half], y[:half], gamma=0.001)
    assert model.score(x[half:], y[half:]) == pytest.approx(0.96885, abs=1e-5)


KERNELS = [
    {"kernel": "rbf"},
    {"kernel": "rbf", "gamma": "auto", "C": 10.0},
    {"kernel": "linear"},
    {"kernel": "poly", "degree": 2, "coef0": 1.0},
    {"kernel": "sigmoid", "gamma": 0.01},
]


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize(("tol", "bound"), [(1e-3, 2e-2), (1e-8, 1e-4)])
def test_decisions_are_libsvms(options, tol, bound):
    x, y = load_iris(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    weight = np.linspace(0.2, 2, len(x))
    ours = fit(x, y, sample_weight=weight, decision="ovo", tol=tol, **options)
    theirs = sklearn.svm.SVC(decision_function_shape="ovo", tol=tol, **options).fit(x, y, sample_weight=weight)
    # libsvm's decision of a pair is above 0 for the first class
    np.testing.assert_allclose(-ours.predict_columns(x)["decision"], theirs.decision_function(x), atol=bound)
    if tol < 1e-3:
        np.testing.assert_array_equal(ours.num_support, theirs.n_support_)
        np.testing.assert_allclose(-ours.intercept, theirs.intercept_, atol=1e-5)


@pytest.mark.parametrize("options", [*KERNELS, {"epsilon": 0.0}, {"epsilon": 2.0, "C": 100.0}], ids=str)
def test_values_are_libsvms(options):
    x, y = load_diabetes(return_X_y=True)
    x, y = StandardScaler().fit_transform(x)[:150], y[:150] / 30
    ours, theirs = fit(x, y, tol=1e-7, **options), sklearn.svm.SVR(tol=1e-7, **options).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-4)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=1e-5)


@pytest.mark.parametrize("options", [{"nu": 0.1}, {"nu": 0.5, "kernel": "poly"}, {"nu": 0.9}], ids=str)
def test_one_class_is_libsvms(cancer, options):
    x = cancer[0][:200]
    ours = fit(x, name="one_class_svm", tol=1e-8, **options)
    theirs = sklearn.svm.OneClassSVM(tol=1e-8, **options).fit(x)
    decision = ours.predict_columns(x)["decision"].numpy()
    expected = theirs.decision_function(x)
    np.testing.assert_allclose(decision, expected, atol=1e-5 * np.abs(expected).max())
    outside = float((decision < -1e-6).mean())
    assert outside <= options["nu"] <= len(ours.support_vectors) / len(x) + 1e-9


def test_a_function_and_a_given_matrix_are_the_kernel_they_hold(cancer):
    x, y = torch.from_numpy(cancer[0][:120]), cancer[1][:120]
    plain = fit(x, y, kernel="poly", degree=2, gamma=0.1, coef0=1.0, tol=1e-8)
    kernel = Kernel("poly", 0.1, 2, 1.0)
    by_function = fit(x, y, kernel=lambda a, b: (0.1 * a @ b.T + 1) ** 2, tol=1e-8)
    by_matrix = fit(kernel_matrix(x, x, kernel), y, kernel="precomputed", tol=1e-8)
    new = torch.from_numpy(cancer[0][120:160])
    expected = plain.predict_columns(new)["decision"]
    torch.testing.assert_close(by_function.predict_columns(new)["decision"], expected, rtol=0, atol=1e-6)
    found = by_matrix.predict_columns(kernel_matrix(new, x, kernel))["decision"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_weights_count_as_rows():
    x, y = make_moons(60, noise=0.2, random_state=0)
    weight = np.arange(60) % 3
    ours = fit(x, y, sample_weight=weight.astype(float), gamma=1.0, tol=1e-9)
    repeated = fit(np.repeat(x, weight, 0), np.repeat(y, weight), gamma=1.0, tol=1e-9)
    grid = np.random.default_rng(0).standard_normal((50, 2))
    decisions = [m.predict_columns(grid)["decision"].numpy() for m in (ours, repeated)]
    np.testing.assert_allclose(*decisions, atol=1e-6)
    by_class = fit(x, y, class_weight=[1.0, 5.0], gamma=1.0, tol=1e-9)
    by_row = fit(x, y, sample_weight=np.where(y == 1, 5.0, 1.0), gamma=1.0, tol=1e-9)
    np.testing.assert_allclose(*(m.predict_columns(grid)["decision"].numpy() for m in (by_class, by_row)), atol=1e-6)


def test_balanced_weights_are_scikit_learns():
    x, y = make_moons(90, noise=0.2, random_state=1)
    x, y = x[(y == 0) | (np.arange(90) % 4 == 0)], y[(y == 0) | (np.arange(90) % 4 == 0)]
    ours = fit(x, y, class_weight="balanced", tol=1e-8)
    theirs = sklearn.svm.SVC(class_weight="balanced", tol=1e-8).fit(x, y)
    np.testing.assert_allclose(ours.predict_columns(x)["decision"], theirs.decision_function(x), atol=1e-5)


def test_the_curve_is_where_the_log_loss_is_least():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    z = rng.standard_normal(80) * 3
    positive = rng.random(80) < 1 / (1 + np.exp(-z + 0.5))
    target = np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))

    def loss(at):
        s = at[0] * z + at[1]
        return np.sum(np.logaddexp(0, s) - (1 - target) * s)

    best = minimize(loss, [0.0, 0.0], tol=1e-12)
    assert fit_curve(torch.from_numpy(z), torch.from_numpy(positive)) == pytest.approx(tuple(best.x), abs=1e-4)


def test_coupling_is_the_least_square_of_all_pairs():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    pairwise, pairs = rng.uniform(0.1, 0.9, 6), pairs_of(4)

    def value(logits):
        p = np.exp(logits) / np.exp(logits).sum()
        return sum((r * p[a] - (1 - r) * p[b]) ** 2 for r, (a, b) in zip(pairwise, pairs, strict=True))

    best = minimize(value, np.zeros(4), tol=1e-14)
    expected = np.exp(best.x) / np.exp(best.x).sum()
    np.testing.assert_allclose(couple(torch.from_numpy(pairwise)[None], 4)[0], expected, atol=1e-4)


def test_probabilities_are_near_what_happens():
    x, y = make_moons(400, noise=0.3, random_state=2)
    model = fit(x[:200], y[:200], probability=True)
    p = model.predict_columns(x[200:])["probability"].numpy()
    loss = -np.log(p[np.arange(200), y[200:]]).mean()
    assert loss < 0.35
    iris = load_iris(return_X_y=True)
    p = fit(*iris, probability=True).predict_columns(iris[0])["probability"]
    torch.testing.assert_close(p.sum(1), torch.ones(150, dtype=torch.float64))
    assert float((p.argmax(1).numpy() == iris[1]).mean()) > 0.95


def test_a_class_without_rows_never_wins():
    decisions = torch.randn(7, 3, dtype=torch.float64)
    assert against_the_rest(decisions, 3).shape == (7, 3)
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    model = zoo.create_model("kernel_svm", spec=zoo.DataSpec("tabular", (1,), "class", num_classes=3))
    model.fit_batches(lambda: [zoo.Batch(x, torch.tensor([0, 0, 2, 2]))])
    assert model.predict(x).tolist() == [0, 0, 2, 2]


def test_rows_far_from_zero_keep_their_digits(cancer):
    x, y = cancer
    near, far = fit(x, y, gamma=0.05, tol=1e-8), fit(x + 1e6, y, gamma=0.05, tol=1e-8)
    decisions = [m.predict_columns(z)["decision"] for m, z in ((near, x), (far, x + 1e6))]
    torch.testing.assert_close(*decisions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_and_single_rows_are_predicted(cancer, dtype):
    x = torch.from_numpy(cancer[0]).to(dtype)
    model = fit(x, cancer[1])
    plain = model.predict_columns(x)["decision"]
    strided = x.repeat_interleave(2, 1)[:, ::2]
    torch.testing.assert_close(model.predict_columns(strided)["decision"], plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.predict_columns(x[3:4])["decision"], plain[3:4], rtol=1e-9, atol=1e-9)


def test_a_run_keeps_the_support_vectors_and_no_row(cancer, tmp_path):
    model = fit(*cancer)
    zoo.save_model(model, tmp_path / "model.ckpt")
    again = zoo.load_model(tmp_path / "model.ckpt")
    assert len(again.rows) == 0
    np.testing.assert_array_equal(again.predict(cancer[0]), model.predict(cancer[0]))
    assert (tmp_path / "model.ckpt").stat().st_size < 80_000


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"C": 0.0}, "model.C must be above 0, not 0.0"),
        ({"kernel": "rfb"}, "rbf"),
        ({"gamma": "scales"}, "model.gamma"),
        ({"gamma": -1.0}, "model.gamma must be at least 0"),
        ({"class_weight": [1.0]}, "model.class_weight has 1 weights for 2 classes"),
        ({"degree": -1}, "model.degree must be at least 0"),
        ({"kernel": "precomputed"}, r"square matrix of all rows: this one is 4 × 1"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(hparams, message):
    x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    with pytest.raises(zoo.ZooError, match=message) as error:
        fit(x, y, **hparams)
    assert "\n" not in str(error.value)


def test_one_class_no_row_and_nan_are_one_line(cancer):
    spec = zoo.DataSpec("tabular", (2,), "class", num_classes=2)

    def give(x, y, weight=None):
        model = zoo.create_model("kernel_svm", spec=spec)
        model.fit_batches(lambda: [zoo.Batch(x, y, weight)])

    with pytest.raises(zoo.ZooError, match=r"at least two classes: all 3 are of class 1\. one_class_svm learns"):
        give(torch.randn(3, 2), torch.ones(3).long())
    with pytest.raises(zoo.ZooError, match="no row with a positive weight"):
        give(torch.randn(2, 2), torch.tensor([0, 1]), torch.zeros(2))
    with pytest.raises(zoo.ZooError, match="weight below 0"):
        give(torch.randn(2, 2), torch.tensor([0, 1]), torch.tensor([-1.0, 1.0]))
    for value in (float("nan"), float("inf")):
        with pytest.raises(zoo.ZooError, match="NaN or infinite"):
            give(torch.tensor([[0.0, value], [1.0, 1.0]]), torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match="has not converged in 3 steps"):
        fit(*cancer, max_iter=3)
    with pytest.raises(zoo.ZooError, match="order of its columns"):
        fit(torch.arange(9.0).view(3, 3), [0, 1, 1], kernel="precomputed")


def test_one_row_of_each_class():
    model = fit(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), kernel="linear", C=10.0, tol=1e-9)
    assert model.predict_columns(torch.tensor([[0.0, 5.0], [2.0, 0.0]]))["decision"].tolist() == pytest.approx([-1, 1])
