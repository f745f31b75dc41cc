"""Estimators under scikit-learn's own names and parameters, thin over the models of the zoo, plus `device`.

>>> from zoo.sklearn import LinearRegression
>>> LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]).predict([[2.0]]).round(6).tolist()
[4.0]
"""

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
