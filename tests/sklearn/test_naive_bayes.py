"""The naive Bayes estimators: scikit-learn's attributes, types, errors and `partial_fit`."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn.naive_bayes as peers
from sklearn.datasets import load_digits
from sklearn.utils._testing import assert_allclose

import zoo.sklearn as zs

KINDS = ["GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB"]
SPARSE = ["MultinomialNB", "ComplementNB", "BernoulliNB"]
DISCRETE = KINDS[1:]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("GaussianNB", {}),
    ("GaussianNB", {"priors": np.arange(1, 11) / 55, "var_smoothing": 1e-3}),
    ("MultinomialNB", {"alpha": np.linspace(0.1, 2, 64), "fit_prior": False}),
    ("MultinomialNB", {"class_prior": list(range(1, 11))}),  # which sum to 55: shown as given
    ("ComplementNB", {"norm": True}),
    ("ComplementNB", {"alpha": 0.3}),
    ("BernoulliNB", {"binarize": 7.5}),
    ("BernoulliNB", {"binarize": 3, "fit_prior": False, "alpha": 1e-3}),
    ("CategoricalNB", {}),
    ("CategoricalNB", {"min_categories": 20, "alpha": 0.5}),
    ("CategoricalNB", {"min_categories": [17 + i % 3 for i in range(64)]}),
]


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x, np.array([f"digit {label}" for label in y])


def assert_same(ours: Any, theirs: Any, x: Any, rtol: float = 1e-10, atol: float = 1e-9) -> None:
    """The same attributes, of the same types, and the same answers."""
    wanted = [key for key in vars(theirs) if key.endswith("_") and key != "model_"]
    assert wanted
    for key in wanted:
        a, b = getattr(ours, key), getattr(theirs, key)
        for mine, other in zip(a, b, strict=True) if isinstance(b, list) else [(a, b)]:
            if np.asarray(other).dtype.kind in "OU":
                np.testing.assert_array_equal(mine, other)
            else:
                assert_allclose(mine, other, rtol=rtol, atol=1e-12, err_msg=key)
                assert np.asarray(mine).dtype == np.asarray(other).dtype, key
                assert type(mine) is type(other), key
    for method in ("predict_joint_log_proba", "predict_log_proba", "predict_proba"):
        mine, other = getattr(ours, method)(x), getattr(theirs, method)(x)
        assert_allclose(mine, other, rtol=rtol, atol=atol, err_msg=method)
        assert mine.dtype == other.dtype, method
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_attributes_and_answers_are_scikit_learns(kind: str, options: dict[str, Any]) -> None:
    x, y = digits()
    assert_same(getattr(zs, kind)(**options).fit(x, y), getattr(peers, kind)(**options).fit(x, y), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_results_have_scikit_learns_types(kind: str, dtype: Any) -> None:
    x, y = digits()
    rows = (x > 7).astype(dtype) if dtype is bool else x.astype(dtype)
    single = kind == "GaussianNB" and dtype is np.float32  # there computed in float32, which a tiny variance would show
    options = {"var_smoothing": 1e-2} if single else {}
    ours, theirs = (getattr(module, kind)(**options).fit(rows, y) for module in (zs, peers))
    assert_same(ours, theirs, rows, *((2e-4, 1e-4) if single else ()))


@pytest.mark.parametrize("kind", DISCRETE)
@pytest.mark.parametrize("weighted", [False, True])
def test_partial_fits_are_scikit_learns(kind: str, weighted: bool) -> None:
    x, y = digits()
    ours, theirs = getattr(zs, kind)(), getattr(peers, kind)()
    if kind == "CategoricalNB":  # whose n_categories_ in scikit-learn are those of the last batch alone
        ours.set_params(min_categories=17), theirs.set_params(min_categories=17)
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    for start in range(0, len(x), 400):
        part = slice(start, start + 400)
        for model in (ours, theirs):
            model.partial_fit(
                x[part], y[part], classes=np.unique(y) if start == 0 else None,
                sample_weight=None if weight is None else weight[part],
            )  # fmt: skip
    assert_same(ours, theirs, x)


@pytest.mark.parametrize("kind", KINDS)
def test_partial_fits_are_one_fit(kind: str) -> None:
    x, y = digits()
    order = np.argsort(y, kind="stable")  # one class after the other
    parts, whole = getattr(zs, kind)(), getattr(zs, kind)().fit(x, y)
    for rows in np.array_split(order, 23):
        parts.partial_fit(x[rows], y[rows], classes=np.unique(y))
    assert_same(parts, whole, x)
    assert_same(whole.partial_fit(x, y), getattr(zs, kind)().fit(np.r_[x, x], np.r_[y, y]), x)


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_sparse_rows(kind: str, form: str) -> None:
    x, y = digits()
    rows = scipy.sparse.coo_matrix(x).asformat(form)
    weight = np.random.default_rng(0).random(len(x))
    ours, theirs = (getattr(module, kind)().fit(rows, y, weight) for module in (zs, peers))
    assert_same(ours, theirs, rows)
    assert_allclose(ours.predict_proba(rows), ours.predict_proba(x), atol=1e-9)
    array = scipy.sparse.csr_array(x)
    np.testing.assert_array_equal(
        getattr(zs, kind)().fit(array, y).predict(array), getattr(zs, kind)().fit(x, y).predict(x)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_always_the_answer(kind: str) -> None:
    x, _ = digits()
    ours, theirs = (getattr(module, kind)().fit(x[:50], np.full(50, "a")) for module in (zs, peers))
    assert_same(ours, theirs, x[:50])
    assert set(ours.predict(x[:50])) == {"a"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["negative strides", "fortran", "read-only"])
def test_rows_may_lie_anyhow_in_memory(kind: str, form: str) -> None:
    x, y = digits()
    odd = {"negative strides": x[::-1][::-1][:, ::-1][:, ::-1], "fortran": np.asfortranarray(x), "read-only": x.copy()}[
        form
    ]
    if form == "negative strides":
        odd = np.ascontiguousarray(x[::-1])[::-1]
    odd.flags.writeable = form != "read-only"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = getattr(zs, kind)().fit(odd, y)
        np.testing.assert_array_equal(ours.predict(odd), getattr(zs, kind)().fit(x, y).predict(x))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_set_is_used(kind: str) -> None:
    """Attributes are what predictions follow from, and survive pickling."""
    x, y = digits()
    model = getattr(zs, kind)().fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    name = {"GaussianNB": "theta_"}.get(kind, "feature_log_prob_")
    value = getattr(again, name)
    setattr(again, name, [part[::-1] for part in value] if isinstance(value, list) else value[::-1].copy())
    assert (again.predict(x) != model.predict(x)).mean() > 0.5


def test_a_tiny_alpha_is_raised_with_a_warning() -> None:
    x, y = digits()
    with pytest.warns(UserWarning, match="alpha too small"):
        ours = zs.MultinomialNB(alpha=0.0, force_alpha=False).fit(x, y)
    with pytest.warns(UserWarning, match="alpha too small"):
        theirs = peers.MultinomialNB(alpha=0.0, force_alpha=False).fit(x, y)
    assert_same(ours, theirs, x)


def test_a_category_never_seen_says_nothing() -> None:
    model = zs.CategoricalNB().fit([[0, 1], [1, 0], [2, 1]], ["no", "no", "yes"])
    with pytest.raises(IndexError):
        peers.CategoricalNB().fit([[0, 1], [1, 0], [2, 1]], ["no", "no", "yes"]).predict([[2, 9]])
    one = zs.CategoricalNB().fit([[0], [1], [2]], ["no", "no", "yes"])
    assert_allclose(model.predict_proba([[2, 9]]), one.predict_proba([[2]]))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (zs.GaussianNB(priors=[0.5, 0.5]), "Number of priors must match"),
        (zs.GaussianNB(priors=[0.5, 0.4, 0.2]), "sum of the priors should be 1"),
        (zs.GaussianNB(priors=[1.5, -0.25, -0.25]), "non-negative"),
        (zs.MultinomialNB(class_prior=[1.0]), "Number of priors must match"),
        (zs.MultinomialNB(alpha=[1.0]), "alpha is an array"),
        (zs.BernoulliNB(alpha=[1.0, -1.0]), "All values in alpha"),
        (zs.CategoricalNB(min_categories=[1, 2, 3]), "should have shape"),
        (zs.CategoricalNB(min_categories=[1.0, 2.0]), "integral type"),
        (zs.BernoulliNB(binarize=-1.0), "The 'binarize' parameter of BernoulliNB must be"),
    ],
)
def test_mistakes_are_told_as_by_scikit_learn(estimator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit([[0, 1], [1, 0], [1, 1]], ["a", "b", "c"])


def test_classes_are_named_first_and_kept() -> None:
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        zs.GaussianNB().partial_fit([[0.0], [1.0]], [0, 1])
    model = zs.GaussianNB().partial_fit([[0.0], [1.0]], [0, 1], classes=[0, 1])
    with pytest.raises(ValueError, match="do not exist in the initial classes"):
        model.partial_fit([[0.0]], [2])
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit([[0.0]], [1], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="Negative values in data"):
        zs.MultinomialNB().fit([[-1.0], [1.0]], [0, 1])
