"""MLPClassifier and MLPRegressor beside scikit-learn's: the same draws end in the same weights."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.neural_network as peer
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import zoo.sklearn as zs
from zoo.sklearn.perceptron import loss_and_gradients

X, SPECIES = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(X))
TARGETS = {
    "classes": (X, np.array(["setosa", "versicolor", "virginica"])[SPECIES]),
    "two": (X[:100], SPECIES[:100] - 1),
    "labels": (X, np.c_[SPECIES == 0, X[:, 0] > 0].astype(int)),
    "value": (X[:, :2], np.abs(X[:, 3])),
    "values": (X[:, :2], np.abs(X[:, 2:])),
}
OPTIONS = [
    {},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 1e-2, "max_iter": 60},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3},
    {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 2},
    {"activation": "tanh", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    {"activation": "logistic", "alpha": 0.1, "shuffle": False},
    {"activation": "identity", "batch_size": 33, "n_iter_no_change": np.inf},
    {"solver": "lbfgs", "max_iter": 8},
    {"solver": "lbfgs", "max_fun": 5},
]


def pair(target, **options):
    name = "MLPRegressor" if target.startswith("value") else "MLPClassifier"
    options = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3, **options}
    return getattr(zs, name)(**options), getattr(peer, name)(**options)


def fit(model, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data, **options)


def assert_same(ours, theirs, x, bound=1e-9):
    for a, b in zip([*ours.coefs_, *ours.intercepts_], [*theirs.coefs_, *theirs.intercepts_], strict=True):
        np.testing.assert_allclose(a, b, atol=bound)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("loss_", "loss_curve_", "best_loss_", "best_validation_score_", "validation_scores_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        if getattr(theirs, name, None) is not None:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9 + bound, err_msg=name)
    answer = "predict_proba" if hasattr(theirs, "predict_proba") else "predict"
    np.testing.assert_allclose(getattr(ours, answer)(x), getattr(theirs, answer)(x), atol=bound)
    np.testing.assert_array_equal(np.asarray(ours.predict(x)).shape, np.asarray(theirs.predict(x)).shape)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()) or "defaults")
@pytest.mark.parametrize("target", TARGETS)
def test_the_same_weights_as_scikit_learns(target, options):
    x, y = TARGETS[target]
    weight = WEIGHT[: len(x)] if OPTIONS.index(options) % 2 or not options else None
    ours, theirs = (fit(model, x, y, sample_weight=weight) for model in pair(target, **options))
    assert_same(ours, theirs, x)
    assert ours.score(x, y, weight) == pytest.approx(theirs.score(x, y, weight), abs=1e-9)


@pytest.mark.parametrize("target", ["value", "values"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_counts_by_the_poisson_deviance(target, solver):
    x, y = TARGETS[target]
    ours, theirs = (fit(model, x, y) for model in pair(target, loss="poisson", solver=solver))
    assert_same(ours, theirs, x)
    np.testing.assert_allclose(ours.model_.predict(torch.from_numpy(x)).numpy(), ours.predict(x), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("layout", ["csr_matrix", "csc_array", "rows the wrong way round"])
def test_rows_of_other_forms(dtype, solver, layout, monkeypatch):
    monkeypatch.setattr("zoo.sklearn.rows.BLOCK", 60)
    x, y = TARGETS["classes"]
    x = x.astype(dtype)
    given = np.asfortranarray(x[::-1])[::-1] if layout.startswith("rows") else getattr(sp, layout)(x)
    ours, theirs = (fit(model, given, y) for model in pair("classes", solver=solver))
    assert {part.dtype for part in (*ours.coefs_, *ours.intercepts_)} == {np.dtype(dtype)}
    assert ours.predict_proba(given).dtype == dtype
    if dtype == np.float64:
        assert_same(ours, theirs, given)
    else:
        np.testing.assert_allclose(ours.predict_proba(given), theirs.predict_proba(given), atol=0.01)
    np.testing.assert_allclose(ours.predict_proba(given), ours.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_batch_after_batch(target):
    x, y = TARGETS[target]
    for incremental in ("partial_fit", "warm_start"):
        models = pair(target, warm_start=incremental == "warm_start", max_iter=3)
        for _ in range(3):
            for model in models:
                if incremental == "warm_start":
                    fit(model, x, y)
                else:
                    classes = {} if target.startswith("value") else {"classes": np.unique(y)}
                    model.partial_fit(x, y, WEIGHT[: len(x)], **classes)
        assert_same(*models, x)
        assert len(models[0].loss_curve_) == (9 if incremental == "warm_start" else 3)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_that_are_set_are_used_everywhere(target):
    x, y = TARGETS[target]
    ours, theirs = (fit(model, x, y) for model in pair(target, warm_start=True))
    for model in (ours, theirs):
        model.coefs_ = [np.full_like(part, 0.1, order="F") for part in model.coefs_]
        model.intercepts_[-1] = model.intercepts_[-1] + 1.0
    answer = "predict" if target.startswith("value") else "predict_proba"
    np.testing.assert_allclose(getattr(ours, answer)(x), getattr(theirs, answer)(x), rtol=1e-12)
    inside = ours.model_.predict_columns(torch.from_numpy(x))
    if target in ("classes", "two"):
        np.testing.assert_allclose(inside["probability"].numpy(), ours.predict_proba(x), atol=1e-12)
    elif target != "labels":
        np.testing.assert_allclose(inside["prediction"].numpy(), ours.predict(x), atol=1e-12)
    fit(ours, x, y)
    fit(theirs, x, y)
    assert_same(ours, theirs, x)


def test_a_pickled_model_goes_on():
    x, y = TARGETS["classes"]
    one = zs.MLPClassifier((5,), random_state=0).partial_fit(x, y, classes=np.unique(y))
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(one.partial_fit(x, y).coefs_[0], other.partial_fit(x, y).coefs_[0])
    assert not hasattr(clone(other), "coefs_")


@pytest.mark.parametrize("options", [{"verbose": True}, {"verbose": True, "early_stopping": True}])
def test_what_is_said(options, capsys):
    said = []
    for model in pair("classes", max_iter=3, **options):
        fit(model, *TARGETS["classes"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_what_has_not_converged_says_so(solver):
    with pytest.warns(ConvergenceWarning):
        pair("classes", solver=solver, max_iter=2)[0].fit(*TARGETS["classes"])


def test_mistakes():
    x, y = TARGETS["classes"]
    model = zs.MLPClassifier((5,), max_iter=2)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        clone(model).partial_fit(x, y)
    begun = clone(model).partial_fit(x, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        begun.partial_fit(x, y, classes=["another", "setosa"])
    with pytest.raises(ValueError, match="`y` has classes not in"):
        begun.partial_fit(x, np.full(len(x), "none"))
    again = fit(clone(model).set_params(warm_start=True), x, y)
    with pytest.raises(ValueError, match="the same classes as in the previous call"):
        again.fit(x[:100], y[:100])
    with pytest.raises(AttributeError, match="partial_fit"):
        zs.MLPClassifier(solver="lbfgs").partial_fit(x, y)
    with pytest.raises(ValueError, match="does not support early_stopping"):
        clone(model).set_params(early_stopping=True).partial_fit(x, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="validation set is too small"):
        zs.MLPRegressor(early_stopping=True, validation_fraction=0.001).fit(x, x[:, 0])
    with pytest.raises(ValueError, match="must be > 0"):
        zs.MLPClassifier((5, 0)).fit(x, y)
    with pytest.raises(ValueError, match="of 0 or more"):
        zs.MLPRegressor(loss="poisson").fit(x, x[:, 0])
    with pytest.raises(ValueError, match="non-finite"):
        fit(zs.MLPRegressor(solver="sgd", learning_rate_init=1e10, max_iter=20), x, x[:, 0])
    with pytest.warns(UserWarning, match="clipped"):
        zs.MLPRegressor(batch_size=1000, max_iter=1).fit(x, x[:, 0])


def test_rows_without_weight_change_nothing():
    x, y = TARGETS["value"]
    options = {"batch_size": 50, "shuffle": False}
    weight = np.r_[np.ones(100), np.zeros(50)]
    ours = fit(pair("value", **options)[0], x, y, sample_weight=weight)
    plain = fit(pair("value", **options)[0], x[:100], y[:100])
    np.testing.assert_allclose(ours.coefs_[0], plain.coefs_[0], rtol=1e-12)


@pytest.mark.parametrize("link", ["identity", "logistic", "softmax", "exp"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_the_loss(link, activation, weighted):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, y = draw(9, 3), draw(9, 4).abs()
    y = y / y.sum(1, keepdim=True) if link == "softmax" else y.clamp_max(1.0)
    weight = draw(9).abs() if weighted else None
    layers = [
        (draw(3, 5).requires_grad_(), draw(5).requires_grad_()),
        (draw(5, 4).requires_grad_(), draw(4).requires_grad_()),
    ]
    hidden = {"identity": lambda z: z, "logistic": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[activation]
    z = hidden(x @ layers[0][0] + layers[0][1]) @ layers[1][0] + layers[1][1]
    loss = {
        "identity": lambda: ((z - y) ** 2).sum(1) / 2,
        "logistic": lambda: -(y * z.sigmoid().log() + (1 - y) * (1 - z.sigmoid()).log()).sum(1),
        "softmax": lambda: -(y * z.log_softmax(1)).sum(1),
        "exp": lambda: (z.exp() - y * z + y * y.log() - y).sum(1),
    }[link]()
    mass = torch.ones(9, dtype=torch.float64) if weight is None else weight
    mean = (loss * mass).sum() / mass.sum()
    penalty = 0.3 / 2 * sum(matrix.square().sum() for matrix, _ in layers)
    expected = torch.autograd.grad(mean + penalty, [part for layer in layers for part in layer])
    held = [tuple(part.detach() for part in layer) for layer in layers]
    value, found = loss_and_gradients(x, y, held, activation, link, weight, penalty=0.3)
    torch.testing.assert_close(value, mean.detach(), rtol=1e-12, atol=0)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
