"""Estimators under scikit-learn's own names and parameters, thin over the models of the zoo, plus `device`.

>>> from zoo.sklearn import LinearRegression
>>> LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]).predict([[2.0]]).round(6).tolist()
[4.0]

An estimator is imported on first use, and of the zoo what it is made of.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.sklearn.agglomerative import AgglomerativeClustering
    from zoo.sklearn.boosting import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from zoo.sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
    from zoo.sklearn.decomposition import PCA, IncrementalPCA
    from zoo.sklearn.kernel_approximation import Nystroem, RBFSampler
    from zoo.sklearn.linear import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
    from zoo.sklearn.manifold import TSNE
    from zoo.sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
    from zoo.sklearn.neural import MLPClassifier, MLPRegressor
    from zoo.sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, OneClassSVM
    from zoo.sklearn.trees import (
        DecisionTreeClassifier,
        DecisionTreeRegressor,
        ExtraTreeClassifier,
        ExtraTreeRegressor,
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )

__all__ = [
    "PCA",
    "SVC",
    "SVR",
    "TSNE",
    "AgglomerativeClustering",
    "BernoulliNB",
    "BisectingKMeans",
    "CategoricalNB",
    "ComplementNB",
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ElasticNet",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GaussianNB",
    "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor",
    "IncrementalPCA",
    "KMeans",
    "Lasso",
    "LinearRegression",
    "LinearSVC",
    "LinearSVR",
    "LogisticRegression",
    "MLPClassifier",
    "MLPRegressor",
    "MiniBatchKMeans",
    "MultinomialNB",
    "Nystroem",
    "OneClassSVM",
    "RBFSampler",
    "RandomForestClassifier",
    "RandomForestRegressor",
    "Ridge",
]

_HOMES = {
    "AgglomerativeClustering": "agglomerative",
    "BernoulliNB": "naive_bayes",
    "BisectingKMeans": "cluster",
    "CategoricalNB": "naive_bayes",
    "ComplementNB": "naive_bayes",
    "DecisionTreeClassifier": "trees",
    "DecisionTreeRegressor": "trees",
    "ElasticNet": "linear",
    "ExtraTreeClassifier": "trees",
    "ExtraTreeRegressor": "trees",
    "ExtraTreesClassifier": "trees",
    "ExtraTreesRegressor": "trees",
    "GaussianNB": "naive_bayes",
    "HistGradientBoostingClassifier": "boosting",
    "HistGradientBoostingRegressor": "boosting",
    "IncrementalPCA": "decomposition",
    "KMeans": "cluster",
    "Lasso": "linear",
    "LinearRegression": "linear",
    "LinearSVC": "svm",
    "LinearSVR": "svm",
    "LogisticRegression": "linear",
    "MLPClassifier": "neural",
    "MLPRegressor": "neural",
    "MiniBatchKMeans": "cluster",
    "MultinomialNB": "naive_bayes",
    "Nystroem": "kernel_approximation",
    "OneClassSVM": "svm",
    "PCA": "decomposition",
    "RBFSampler": "kernel_approximation",
    "RandomForestClassifier": "trees",
    "RandomForestRegressor": "trees",
    "Ridge": "linear",
    "SVC": "svm",
    "SVR": "svm",
    "TSNE": "manifold",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.sklearn' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"zoo.sklearn.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
