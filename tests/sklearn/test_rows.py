"""Rows that are as they should be are taken as they are; of all others scikit-learn decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils import validation
from sklearn.utils._param_validation import validate_parameter_constraints

import zoo.sklearn as zs
from zoo.sklearn.base import _defaults
from zoo.sklearn.rows import classes_of, validate_data

CHECKS = {"dtype": [np.float64, np.float32], "accept_sparse": "csr", "order": "C"}
X, Y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1])
OPTIONS = {"random_state": 0, "n_clusters": 1, "max_iter": 3}


def outcome(function, *args, **options):
    """What comes out, or the error's words; and what the estimator then knows of its rows."""
    estimator = zs.Ridge()
    estimator.n_features_in_ = 3
    try:
        found = function(estimator, *args, **options)
    except (TypeError, ValueError) as error:
        found = (type(error), str(error))
    return found, estimator.n_features_in_, hasattr(estimator, "feature_names_in_")


def same(a, b):
    if isinstance(a, tuple) and not isinstance(a[0], type):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.flags.c_contiguous == b.flags.c_contiguous and np.array_equal(a, b)
    return type(a) is type(b) and (sparse.issparse(a) or a == b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_rows_also_with_gradients_and_of_half_precision(dtype):
    x = torch.tensor(X, dtype=dtype, requires_grad=True)
    y = torch.tensor(Y, dtype=dtype, requires_grad=True)
    model, peer = zs.Ridge().fit(x, y), zs.Ridge().fit(X, Y)  # these numbers are whole in each of them
    np.testing.assert_allclose(model.predict(x), peer.predict(X), rtol=1e-5)


@pytest.mark.parametrize("make", [zs.Ridge, zs.SVR, zs.LinearSVR, zs.DecisionTreeRegressor, zs.KMeans, zs.MLPRegressor])
@pytest.mark.parametrize("rows", [X[:1][::-1], X[:, :1][:, ::-1], X[::-1, ::-1]])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_axes_that_run_backwards_are_taken_those_of_one_number_too(make, rows):
    y = Y[: len(rows)].astype(float)[::-1]
    model, peer = make(), make()
    for each in (model, peer):
        each.set_params(**{name: value for name, value in OPTIONS.items() if name in each.get_params()})
    found = model.fit(rows, y).predict(rows)
    np.testing.assert_allclose(found, peer.fit(rows.copy(), y.copy()).predict(rows.copy()), rtol=1e-9)


@pytest.mark.parametrize(
    "make", [zs.LinearRegression, zs.LogisticRegression, zs.LinearSVC, zs.LinearSVR, zs.MLPClassifier]
)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_fit_and_no_look_at_the_model_moves_the_generator_of_torch(make, form):
    before = torch.get_rng_state()
    model = make().fit(form(X), Y)
    assert model.model_ is not None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [zs.LinearRegression, zs.Ridge])
def test_one_row_is_fitted_without_a_word_of_lapack(make, capfd):
    make().fit(X[:1], [1.0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:invalid value")  # of scikit-learn, that infinities have no sum
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        X,
        X.astype(np.float32),
        X.astype(np.float16),
        X.astype(int),
        X.astype(">f8"),
        X.astype(object),
        X + 1j,
        X.tolist(),
        np.asfortranarray(X),
        X[:, ::-1],
        X[:, :2],
        X[:1],
        X[:0],
        X[:, :0],
        X[0],
        X[None],
        np.where(X == 5, np.nan, X),
        np.where(X == 5, -np.inf, np.where(X == 4, np.inf, X)),
        np.full((4, 3), np.finfo(float).max),
        sparse.csr_matrix(X),
        np.ma.masked_array(X, X == 3),
    ],
    ids=str,
)
def test_rows_are_as_scikit_learns(rows, reset):
    for more in ({}, {"ensure_min_samples": 2}, {"dtype": np.float64}, {"ensure_non_negative": True}):
        options = {"reset": reset, **CHECKS, **more}
        ours, theirs = outcome(validate_data, rows, **options), outcome(validation.validate_data, rows, **options)
        assert same(ours, theirs)


@pytest.mark.parametrize(
    "y",
    [Y, Y.astype(float), Y > 0, Y.astype(str), Y.astype(object), Y.tolist(), Y[:, None], Y[:3], np.repeat(Y, 2)[::2],
     None, np.array([0.0, np.nan, 1.0, 1.0]), np.array([0.0, np.inf, -np.inf, 1.0]), np.full(4, 1e308),
     np.float64(1.0)],
    ids=str,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:A column-vector", "ignore:invalid value")
def test_targets_are_as_scikit_learns(y):
    for more in ({}, {"multi_output": True, "y_numeric": True}):
        ours, theirs = (outcome(f, X, y, **CHECKS, **more) for f in (validate_data, validation.validate_data))
        assert same(ours, theirs)


def test_names_of_features_are_known_to_a_second_fit():
    pandas = pytest.importorskip("pandas")
    model = zs.Ridge().fit(pandas.DataFrame(X, columns=list("abc")), X[:, 0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    assert not hasattr(model.fit(X, X[:, 0]), "feature_names_in_")


@pytest.mark.parametrize("name", zs.__all__)
def test_defaults_need_no_check(name):
    """Which is why none of them is looked at when an estimator is fitted."""
    estimator = getattr(zs, name)
    validate_parameter_constraints(estimator._parameter_constraints, _defaults(estimator), caller_name=name)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, bool])
@pytest.mark.parametrize("values", [[0, 1], [1, 0, 1, 1], [100, 102, 100, 104, 102], [5, 5, 5], [0, 127, 3], [7]])
def test_classes_are_numpys(values, dtype):
    y = np.asarray(values).astype(dtype)
    for shift in (0, -128, np.iinfo(np.int64).max - 127):
        if shift and dtype is np.int64:
            y = np.asarray(values) + shift
        found, expected = classes_of(np.repeat(y, 3)), np.unique(np.repeat(y, 3), return_inverse=True)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
