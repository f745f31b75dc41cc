"""The estimators keep scikit-learn's conventions and give its results."""

from __future__ import annotations

import inspect
import pickle
import warnings

import numpy as np
import pytest
import sklearn.cluster
import sklearn.decomposition
import sklearn.linear_model
import torch
from joblib import parallel_config
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import all_estimators
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

import zoo.sklearn as zs

WEIGHTS_MOVE_THE_DRAWS = {
    f"check_sample_weight_equivalence_on_{form}_data": "a row of weight two is not drawn like two rows at the start, "
    "as in scikit-learn's own"
    for form in ("dense", "sparse")
}
WEIGHTS_ARE_NOT_COUNTED = {
    "check_sample_weight_equivalence_on_dense_data": "min_samples_leaf counts rows, of which one of weight two is one, "
    "as in scikit-learn's own",
}
TASKS = ("Classifier", "Regressor")
EXPECTED_FAILURES = dict.fromkeys(("KMeans", "MiniBatchKMeans", "BisectingKMeans"), WEIGHTS_MOVE_THE_DRAWS)
EXPECTED_FAILURES |= {f"HistGradientBoosting{task}": WEIGHTS_ARE_NOT_COUNTED for task in TASKS}
THE_SEARCH_ENDS_WITHIN_TOL = dict.fromkeys(
    (f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")),
    "a search that ends within tol ends elsewhere for a row of weight two than for two rows, as in scikit-learn's own",
)
EXPECTED_FAILURES |= dict.fromkeys(("SVC", "SVR", "LinearSVR", "OneClassSVM"), THE_SEARCH_ENDS_WITHIN_TOL)
# What the checks fit hundreds of times must not train for long.
QUICK = {
    "MLPClassifier": {"max_iter": 30, "learning_rate_init": 0.02},
    "MLPRegressor": {"max_iter": 30, "learning_rate_init": 0.01},
    "TSNE": {"max_iter": 20, "perplexity": 3.0},
    **{f"{kind}{task}": {"n_estimators": 20} for kind in ("RandomForest", "ExtraTrees") for task in TASKS},
    **{f"HistGradientBoosting{task}": {"max_iter": 10, "learning_rate": 0.3, "min_samples_leaf": 5} for task in TASKS},
}
ESTIMATORS = [getattr(zs, name)(**QUICK.get(name, {})) for name in zs.__all__]


@parametrize_with_checks(
    ESTIMATORS, expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator).__name__, {})
)
def test_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", zs.__all__)
def test_parameters_are_scikit_learns(name):
    """Every parameter but `device` is one of scikit-learn's estimator of that name."""
    theirs = dict(all_estimators())[name]().get_params()
    assert set(getattr(zs, name)().get_params()) - {"device"} <= set(theirs)


def test_logistic_regression_is_scikit_learns():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    ours = zs.LogisticRegression(tol=1e-9).fit(x, y)
    theirs = sklearn.linear_model.LogisticRegression(tol=1e-12, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    margin = np.where(y == 1, 1, -1) * ours.decision_function(x)
    assert np.logaddexp(0, -margin).sum() + 0.5 * (ours.coef_**2).sum() == pytest.approx(37.758946, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_ridge_is_scikit_learns(alpha):
    x, y = load_diabetes(return_X_y=True)
    y = np.c_[y, -(y**0.5)]
    weight = np.linspace(0.1, 2, len(x))
    ours = zs.Ridge(alpha).fit(x, y, sample_weight=weight)
    theirs = sklearn.linear_model.Ridge(alpha, solver="svd").fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-9)


def test_kmeans_is_scikit_learns_from_the_same_start():
    x, _ = load_digits(return_X_y=True)
    start = x[:10]
    ours = zs.KMeans(10, init=start, tol=0.0).fit(x)
    theirs = sklearn.cluster.KMeans(10, init=start, tol=0.0, n_init=1).fit(x)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-9, atol=1e-6)
    assert ours.score(x) == pytest.approx(theirs.score(x), rel=1e-9)


def test_mini_batches_one_by_one():
    x = np.random.default_rng(0).standard_normal((600, 2)) + np.repeat([[0, 0], [9, 0], [0, 9]], 200, 0)
    x = np.random.default_rng(1).permutation(x)
    model = zs.MiniBatchKMeans(3, random_state=0)
    for part in np.split(x, 12):
        model.partial_fit(part)
    best = sklearn.cluster.KMeans(3, n_init=5, random_state=0).fit(x)
    assert -model.score(x) < 1.05 * best.inertia_


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
def test_agglomerative_is_scikit_learns(linkage):
    x = np.random.default_rng(0).standard_normal((80, 3))
    ours = zs.AgglomerativeClustering(5, linkage=linkage).fit_predict(x)
    theirs = sklearn.cluster.AgglomerativeClustering(5, linkage=linkage).fit_predict(x)
    pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == 5  # the same groups under other numbers


@pytest.mark.parametrize("solver", ["auto", "full", "covariance_eigh"])
def test_pca_is_scikit_learns(solver):
    x, _ = load_digits(return_X_y=True)
    ours, theirs = zs.PCA(20, svd_solver=solver).fit(x), sklearn.decomposition.PCA(20, svd_solver="full").fit(x)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(ours.transform(x)), np.abs(theirs.transform(x)), atol=1e-8)
    np.testing.assert_allclose(
        ours.inverse_transform(ours.transform(x)), theirs.inverse_transform(theirs.transform(x)), atol=1e-8
    )
    assert ours.score(x[:, :]) == pytest.approx(theirs.score(x), rel=1e-6)


def test_maps_of_whole_numbers_keep_their_fractions():
    x, _ = load_iris(return_X_y=True)
    x = (10 * x).astype(int)[::3]
    model = zs.TSNE(perplexity=5, max_iter=100).fit(x)
    places = model.transform(x[:5])
    assert places.dtype.kind == "f"
    np.testing.assert_allclose(places, model.embedding_[:5], rtol=1e-5)


@pytest.mark.parametrize("cls", [zs.PCA, zs.IncrementalPCA])
def test_projections_of_another_width_are_refused_in_one_line(cls):
    x, _ = load_iris(return_X_y=True)
    model = cls(2).fit(x)
    with pytest.raises(ValueError, match=r"X has 3 columns, but this .*PCA has n_components_=2"):
        model.inverse_transform(np.zeros((4, 3)))


def test_incremental_pca_is_pca_of_all_rows():
    x, _ = load_iris(return_X_y=True)
    parts = zs.IncrementalPCA(3)
    for part in np.array_split(x, 7):
        parts.partial_fit(part)
    whole = zs.PCA(3).fit(x)
    np.testing.assert_allclose(parts.explained_variance_, whole.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-9)
    assert parts.n_samples_seen_ == len(x)


def test_mlps_learn():
    x, y = load_iris(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    assert zs.MLPClassifier((32,), learning_rate_init=0.01, random_state=0).fit(x, y).score(x, y) > 0.96
    values = zs.MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, random_state=0, max_iter=400).fit(
        x[:, :3], x[:, 3]
    )
    assert values.score(x[:, :3], x[:, 3]) > 0.9
    again = zs.MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, random_state=0, max_iter=400).fit(
        x[:, :3], x[:, 3]
    )
    np.testing.assert_array_equal(values.predict(x[:, :3]), again.predict(x[:, :3]))


def test_in_pipelines_and_searches():
    x, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), zs.PCA(2), zs.LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 10.0], "pca__n_components": [2, 3]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.9
    assert cross_val_score(clone(pipeline), x, y, cv=3).mean() > 0.88
    assert list(zs.PCA(2).fit(x).get_feature_names_out()) == ["pca0", "pca1"]


@pytest.mark.parametrize("name", zs.__all__)
@pytest.mark.filterwarnings("ignore")  # of searches that end early
def test_in_searches_by_threads(name):
    """Threads side by side come to the scores of one, and the best model is what the same pipeline becomes alone."""
    x, y = load_iris(return_X_y=True)
    x, y = x[::5].round(), y[::5]
    estimator = getattr(zs, name)()
    quick = {"n_estimators": 2, "max_iter": 250 if name == "TSNE" else 9, "perplexity": 4.0, "random_state": 0}
    estimator.set_params(**{key: value for key, value in quick.items() if key in estimator.get_params()})
    pipeline = make_pipeline(FunctionTransformer(np.abs), estimator)

    def answers(fitted, x):
        given = ("predict", "transform", "fit_predict")
        return getattr(fitted, next(method for method in given if hasattr(fitted, method)))(x)

    def scoring(fitted, x, y=None):
        return fitted.score(x, y) if hasattr(fitted, "score") else float(answers(fitted, x).sum())

    with parallel_config("threading", n_jobs=2):
        scores = cross_val_score(pipeline, x, y, cv=2, scoring=scoring)
        search = GridSearchCV(pipeline, {"functiontransformer__func": [np.abs, np.square]}, cv=2, scoring=scoring)
        search.fit(x, y)
    np.testing.assert_array_equal(scores, cross_val_score(pipeline, x, y, cv=2, scoring=scoring))
    alone = clone(search.best_estimator_).fit(x, y)
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(answers(again, x), answers(alone, x))


@pytest.mark.parametrize("name", [name for name in zs.__all__ if is_classifier(getattr(zs, name)())])
@pytest.mark.filterwarnings("ignore")
def test_classes_are_of_scikit_learns_type(name):
    x, y = load_iris(return_X_y=True)
    for labels in (np.array(["a", "b", "c"], dtype=object)[y], y.astype(str), y.astype(float), y > 0):
        ours, theirs = getattr(zs, name)(), dict(all_estimators())[name]()
        for estimator in (ours, theirs):
            quick = {"n_estimators": 1, "max_iter": 2}
            estimator.set_params(**{key: value for key, value in quick.items() if key in estimator.get_params()})
            estimator.fit(x[::3], labels[::3])
        assert ours.classes_.dtype == theirs.classes_.dtype
        assert ours.classes_.tolist() == theirs.classes_.tolist()
        assert ours.predict(x).dtype == theirs.predict(x).dtype


# What a weight below 0 is: a row that counts against others, as in scikit-learn, or nothing that makes sense.
COUNTED = ("BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB", "MultinomialNB", "MLPClassifier")
LEFT_OUT = ("OneClassSVM", "SVC", "SVR")  # rows without a positive weight, as libsvm does
WEIGHTED = [name for name in zs.__all__ if "sample_weight" in inspect.signature(getattr(zs, name).fit).parameters]


@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "MLPRegressor"])
@pytest.mark.filterwarnings("ignore")
def test_negative_weights_are_scikit_learns_or_refused(name):
    x, y = load_iris(return_X_y=True)
    x, weight = x.round(), np.where(np.arange(len(x)) % 10, 1.0, -0.5)
    if name not in (*COUNTED, *LEFT_OUT):
        with pytest.raises(ValueError, match=r"(?i)negative .*weight"):
            getattr(zs, name)().fit(x, y, sample_weight=weight)
        return
    ours, theirs = getattr(zs, name)(), dict(all_estimators())[name]()
    if "random_state" in ours.get_params():
        ours.set_params(random_state=0), theirs.set_params(random_state=0)
    one, other = (estimator.fit(x, y, sample_weight=weight).predict(x) for estimator in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=2e-2 if name == "SVR" else 0)
    if name.endswith("NB"):
        with pytest.raises(ValueError, match="add up to less than 0 for a class"):
            ours.fit(x, y, sample_weight=np.where(y == 1, -1.0, 1.0))


def test_a_density_where_features_do_not_vary_is_refused_whatever_the_solver():
    x = load_digits().data  # three corners are never drawn upon
    for solver in ("full", "covariance_eigh"):
        model = zs.PCA("mle", svd_solver=solver).fit(x)
        assert model.n_components_ == 61
        with pytest.raises(ValueError, match="leave out features that are constant"):
            model.score(x)
    x = x[:, x.std(0) > 0]
    ours, theirs = (cls(n_components="mle").fit(x).score(x) for cls in (zs.PCA, sklearn.decomposition.PCA))
    assert ours == pytest.approx(theirs)


def test_device_is_used(device):
    x, _ = load_iris(return_X_y=True)
    model = zs.KMeans(3, device=device.type, random_state=0).fit(x)
    assert model.model_.centroids.device.type == device.type
    assert model.inertia_ == pytest.approx(78.8514, rel=0.01) or model.inertia_ < 160


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (zs.Ridge(-1.0), r"The 'alpha' parameter of Ridge must be a float in the range \[0.0, inf\)"),
        (zs.Ridge([1.0, -1.0]), "alpha must be|do not correspond"),
        (zs.Ridge(solver="lbfgs"), "solver='lbfgs' goes with positive=True"),
        (
            zs.LogisticRegression(C=0),
            r"The 'C' parameter of LogisticRegression must be a float in the range \(0.0, inf\]",
        ),
        (zs.Lasso(precompute=[[1.0]]), r"precompute has shape \(1, 1\)"),
        (zs.PCA(9), "between 0 and"),
        (zs.PCA(svd_solver="ful"), "The 'svd_solver' parameter of PCA must be"),
        (zs.KMeans(1000), "n_clusters=1000"),
        (zs.TSNE(perplexity=500), "perplexity"),
        (zs.AgglomerativeClustering(2, distance_threshold=1.0), "Exactly one"),
        (zs.MLPClassifier(activation="relo"), "The 'activation' parameter of MLPClassifier must be"),
    ],
)
def test_mistakes(estimator, message):
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        estimator.fit(x, y)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (zs.KMeans(0), "The 'n_clusters' parameter of KMeans must be an int in the range"),
        (zs.KMeans(2, init="kmeans++"), "The 'init' parameter of KMeans must be"),
        (zs.MiniBatchKMeans(2, tol=-1.0), "The 'tol' parameter of MiniBatchKMeans"),
        (zs.BisectingKMeans(2, bisecting_strategy="all"), "The 'bisecting_strategy' parameter of BisectingKMeans"),
        (zs.AgglomerativeClustering(2, linkage="wards"), "The 'linkage' parameter of AgglomerativeClustering"),
        (zs.PCA(-1), "The 'n_components' parameter of PCA"),
        (zs.TSNE(perplexity=-1.0), "The 'perplexity' parameter of TSNE"),
        (zs.MLPRegressor(solver="adma"), "The 'solver' parameter of MLPRegressor"),
        (zs.MLPClassifier(device="tpu"), "The 'device' parameter of MLPClassifier"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_parameter_is_named_as_scikit_learn_names_it(estimator, message):
    x, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidParameterError, match=message):
        estimator.fit(x, y)


@pytest.mark.parametrize("name", zs.__all__)
def test_read_only_arrays_are_taken_without_a_word(name, monkeypatch):
    """torch warns of them once a process: whoever hands it one is caught here."""
    of_array = torch.from_numpy

    def watched(array):
        assert array.flags.writeable or warnings.filters[0][0] == "ignore"
        return of_array(array)

    monkeypatch.setattr(torch, "from_numpy", watched)
    random = np.random.default_rng(0)
    x, weight = random.random((30, 3)) * 3, np.ones(30)
    estimator = getattr(zs, name)()
    quick = {"n_estimators": 2, "max_iter": 300 if name == "TSNE" else 5, "perplexity": 5.0}
    estimator.set_params(**{key: value for key, value in quick.items() if key in estimator.get_params()})
    x = x.round() if name == "CategoricalNB" else x
    y = x[:, 0] + x[:, 1] if is_regressor(estimator) else (x[:, 0] > 1.5).astype(int)
    for array in (x, y, weight):
        array.setflags(write=False)
    weighted = "sample_weight" in inspect.signature(estimator.fit).parameters
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        estimator.fit(x, y, **({"sample_weight": weight} if weighted else {}))
        for method in ("predict", "transform", "predict_proba", "decision_function", "score_samples"):
            if hasattr(estimator, method):
                getattr(estimator, method)(x)
        if hasattr(estimator, "partial_fit"):
            clone(estimator).partial_fit(x, y, **({"classes": [0, 1]} if is_classifier(estimator) else {}))
