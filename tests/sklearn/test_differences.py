"""Every parameter and fitted attribute of scikit-learn's class is here, or in a list with a reason."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.utils import all_estimators, get_tags
from sklearn.utils.estimator_checks import check_param_validation

import zoo.sklearn as zs
from zoo.sklearn.differences import ATTRIBUTES, DEFAULTS, IDLE, REFUSED, REFUSED_VALUES, check_refused

PEERS = {name: peer for name, peer in all_estimators() if name in zs.__all__}
QUICK = {
    "TSNE": {"max_iter": 250, "perplexity": 3.0},
    "MLPClassifier": {"max_iter": 5},
    "MLPRegressor": {"max_iter": 5},
    **{
        f"{kind}{task}": {"n_estimators": 4, "random_state": 0}
        for kind in ("ExtraTrees", "RandomForest")
        for task in ("Classifier", "Regressor")
    },
}


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(cls).parameters)


def checked(name: str) -> bool:
    """Whether the estimator's parameters are checked by scikit-learn's mechanism."""
    return "_parameter_constraints" in vars(getattr(zs, name))


@pytest.mark.parametrize("name", zs.__all__)
def test_every_parameter_is_taken_or_refused_with_a_reason(name):
    ours, theirs = parameters(getattr(zs, name)), parameters(PEERS[name])
    refused, idle = REFUSED.get(name, {}), IDLE.get(name, {})
    assert set(theirs) <= set(ours) | set(refused), set(theirs) - set(ours) - set(refused)
    assert set(ours) - {"device"} <= set(theirs), "no names of our own but device"
    assert set(refused) <= set(theirs), "the list names what is not there"
    assert set(idle) <= set(ours) - set(refused)
    assert all(isinstance(reason, str) and len(reason) > 5 for reason in (*refused.values(), *idle.values()))


@pytest.mark.parametrize("name", [name for name in zs.__all__ if checked(name)])
def test_defaults_and_order_are_scikit_learns(name):
    ours, theirs = parameters(getattr(zs, name)), parameters(PEERS[name])
    others = {
        parameter for parameter in set(ours) & set(theirs) if ours[parameter].default != theirs[parameter].default
    }
    assert others == set(DEFAULTS.get(name, {})), others
    for parameter in set(ours) & set(theirs):
        assert ours[parameter].kind == theirs[parameter].kind, parameter


@pytest.mark.parametrize("name", [name for name in zs.__all__ if checked(name)])
def test_parameters_are_checked_by_scikit_learns_own_mechanism(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_param_validation(name, getattr(zs, name)())


# What scikit-learn allows beside the default.
OTHER_VALUES = {
    "copy_X": [False],
    "copy": [False],
    "copy_x": [False],
    "algorithm": ["elkan"],
    "angle": [0.0, 0.9],
    "n_jobs": [2],
    "verbose": [1],
    "tol": [1e-2, 1e-9],
    "random_state": [0, np.random.RandomState(1)],
    "precompute": [True],
    "selection": ["random"],
    "dual": [True],
    "power_iteration_normalizer": ["QR", "LU", "none"],
    "solver": ["newton-cg", "newton-cholesky", "sag", "saga"],
}
OTHER_SOLVERS = {"Ridge": ["svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga"]}
SETTINGS = {
    "TSNE": {"random_state": 0},
    "KMeans": {"random_state": 0},
    "BisectingKMeans": {"random_state": 0},
    "Nystroem": {"random_state": 0, "n_components": 5},
    "PCA": {"svd_solver": "randomized", "n_components": 2, "random_state": 0},
}


def shown(model):
    """The fitted attributes that hold numbers."""
    values = {key: getattr(model, key) for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    return {k: np.asarray(v) for k, v in values.items() if isinstance(v, np.ndarray | float | int)}


@pytest.mark.parametrize("name", [name for name in IDLE if name in zs.__all__])
def test_what_is_idle_changes_no_bit(name):
    """Each value that scikit-learn allows, in turn."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 4)), rng.integers(0, 2, 40)
    settings = {**QUICK.get(name, {}), **SETTINGS.get(name, {})}
    plain = shown(getattr(zs, name)(**settings).fit(x, y))
    assert plain
    for parameter in IDLE[name]:
        others = OTHER_SOLVERS.get(name, OTHER_VALUES["solver"]) if parameter == "solver" else OTHER_VALUES[parameter]
        for value in [*others, x.T @ x] if parameter == "precompute" else others:
            model = shown(getattr(zs, name)(**{**settings, parameter: value}).fit(x, y))
            for key, expected in plain.items():
                np.testing.assert_array_equal(model[key], expected, err_msg=f"{parameter}={value!r}: {key}")


def fitted(estimator):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 3))
    y = (x[:, 0] > 0).astype(int) if is_classifier(estimator) else x @ [1.0, 2.0, 3.0]
    if get_tags(estimator).input_tags.positive_only:
        x = np.abs(x).round()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(estimator).fit(x, y)


@pytest.mark.parametrize("name", zs.__all__)
def test_every_fitted_attribute_is_there_or_listed(name):
    ours, theirs = (fitted(cls(**QUICK.get(name, {}))) for cls in (getattr(zs, name), PEERS[name]))
    wanted = {key for key in vars(theirs) if key.endswith("_") and not key.startswith("_")}
    missing = {key for key in wanted if not hasattr(ours, key)}
    assert missing == set(ATTRIBUTES.get(name, {})), missing ^ set(ATTRIBUTES.get(name, {}))
    if not checked(name):
        return
    for key in wanted - missing:  # of the same type and shape
        a, b = getattr(ours, key), getattr(theirs, key)
        if isinstance(b, list):
            assert len(a) == len(b), key
            continue
        a, b = np.asarray(a), np.asarray(b)
        if b.dtype != object:
            assert a.shape == b.shape, key
            assert np.can_cast(a.dtype, b.dtype, "same_kind"), key


def test_a_refused_value_says_why():
    name, defaults = "HistGradientBoostingClassifier", {"interaction_cst": None}
    check_refused(name, defaults, defaults)
    with pytest.raises(ValueError, match=r"interaction_cst='pairwise' of Hist.* is not supported: .+\."):
        check_refused(name, {"interaction_cst": "pairwise"}, defaults)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "reason"),
    [
        (name, parameter, value, reason)
        for name, parameters in REFUSED_VALUES.items()
        for parameter, values in parameters.items()
        for value, reason in values.items()
    ],
)
def test_a_value_that_is_refused_says_why(name, parameter, value, reason):
    x, y = np.arange(12.0).reshape(6, 2), [0, 1] * 3
    PEERS[name](**QUICK.get(name, {}), **{parameter: value}).fit(x, y)
    with pytest.raises(ValueError, match=f"{parameter}='{value}' of {name} is not supported: {reason}"):
        getattr(zs, name)(**{parameter: value}).fit(x, y)


def test_validation_can_be_switched_off_as_in_scikit_learn():
    with sklearn.config_context(skip_parameter_validation=True):
        zs.Lasso(alpha=0.1, selection="of no such name").fit([[0.0], [1.0]], [0.0, 1.0])
