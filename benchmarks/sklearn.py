"""Small data through the estimators, where start-up is what counts, beside scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zoo.sklearn
from benchmarks import Job


def jobs() -> Iterator[Job]:
    import sklearn.cluster
    import sklearn.decomposition
    import sklearn.linear_model
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
    from sklearn.preprocessing import StandardScaler

    digits, numbers = load_digits(return_X_y=True)
    cancer, classes = load_breast_cancer(return_X_y=True)
    cancer = StandardScaler().fit_transform(cancer)
    diabetes, values = load_diabetes(return_X_y=True)

    def job(name: str, ours: Any, peer: Any, *data: Any, bound: float = 1.5) -> Job:
        return Job(name, lambda: ours().fit(*data), lambda: peer().fit(*data), "scikit-learn", pairs=11, bound=bound)

    z = zoo.sklearn
    yield job("KMeans(10), digits", lambda: z.KMeans(10), lambda: sklearn.cluster.KMeans(10), digits)
    yield job("KMeans(10), breast cancer", lambda: z.KMeans(10), lambda: sklearn.cluster.KMeans(10), cancer)
    yield job("PCA(), diabetes", lambda: z.PCA(), lambda: sklearn.decomposition.PCA(), diabetes)
    yield job("PCA(20), digits", lambda: z.PCA(20), lambda: sklearn.decomposition.PCA(20), digits)
    for name, ours, *data in (
        ("LogisticRegression(), breast cancer", z.LogisticRegression, cancer, classes),
        ("LogisticRegression(), digits", z.LogisticRegression, StandardScaler().fit_transform(digits), numbers),
        ("LinearRegression(), diabetes", z.LinearRegression, diabetes, values),
        ("Ridge(), diabetes", z.Ridge, diabetes, values),
        ("Lasso(), diabetes", z.Lasso, diabetes, values),
        ("ElasticNet(), diabetes", z.ElasticNet, diabetes, values),
    ):
        yield job(name, ours, getattr(sklearn.linear_model, ours.__name__), *data)
