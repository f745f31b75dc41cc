"""Naive Bayes beside scikit-learn's, through the estimators and through `zoo.fit`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import zoo
import zoo.sklearn
from benchmarks import Job
from benchmarks._grid import name_of


def jobs() -> Iterator[Job]:
    import sklearn.naive_bayes as peers

    rng = np.random.default_rng(0)

    def close(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a.theta_, b.theta_, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.var_, b.var_, rtol=1e-9)

    for classes in (2, 10):
        x, y = rng.standard_normal((1_000_000, 50)), rng.integers(0, classes, 1_000_000)
        name, ours, peer = f"1,000,000 × 50, {classes} classes", zoo.sklearn.GaussianNB, peers.GaussianNB
        yield Job(
            f"GaussianNB fit, {name}",
            lambda x=x, y=y: zoo.sklearn.GaussianNB().fit(x, y),
            lambda x=x, y=y: peers.GaussianNB().fit(x, y),
            "scikit-learn", check=close,
        )  # fmt: skip
        yield Job(
            f"naive_bayes by zoo.fit, {name}",
            lambda x=x, y=y: zoo.fit(zoo.create_model("naive_bayes"), x, y, device="cpu"),
            lambda x=x, y=y: peers.GaussianNB().fit(x, y),
            "scikit-learn",
        )  # fmt: skip
        a, b = ours().fit(x, y), peer().fit(x, y)
        yield Job(
            f"GaussianNB predict, {name}",
            lambda a=a, x=x: a.predict(x), lambda b=b, x=x: b.predict(x),
            "scikit-learn", pairs=3, check=np.testing.assert_array_equal,
        )  # fmt: skip

    x, y = rng.poisson(1.0, (200_000, 100)).astype(float), rng.integers(0, 5, 200_000)
    for kind in ("MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB"):
        yield from both(kind, "200,000 × 100 counts", x, y)
    from scipy import sparse

    places = rng.integers(0, 50_000, 3_000_000), rng.integers(0, 20_000, 3_000_000)
    words = sparse.csr_matrix((rng.integers(1, 6, 3_000_000).astype(float), places), shape=(50_000, 20_000))
    yield from both("MultinomialNB", "50,000 × 20,000, 3,000,000 not zero", words, rng.integers(0, 20, 50_000))


def both(kind: str, name: str, x: Any, y: np.ndarray) -> Iterator[Job]:
    """Fit and prediction of one estimator on the same rows."""
    import sklearn.naive_bayes as peers

    ours, peer = getattr(zoo.sklearn, kind), getattr(peers, kind)
    yield Job(f"{kind} fit, {name}", lambda: ours().fit(x, y), lambda: peer().fit(x, y), "scikit-learn")
    a, b = ours().fit(x, y), peer().fit(x, y)

    def close(mine: np.ndarray, theirs: np.ndarray) -> None:
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-9)

    def log_probabilities(model: Any) -> Any:
        return lambda: model.predict_log_proba(x)

    yield Job(
        f"{kind} predict_log_proba, {name}", log_probabilities(a), log_probabilities(b), "scikit-learn", check=close
    )


GRID = (  # rows, features, classes
    (100, 2, 2), (100, 50, 3), (100, 1_000, 2), (1_000, 4, 2), (1_000, 50, 10), (1_000, 2_000, 20), (10_000, 4, 2),
    (10_000, 100, 100), (100_000, 4, 2), (100_000, 100, 10), (1_000_000, 4, 2), (1_000_000, 16, 5),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield fits and answers of normal features and of counts, by both faces."""
    import sklearn.naive_bayes as peers

    rng = np.random.default_rng(0)
    for rows, features, classes in GRID:
        y = rng.integers(0, classes, rows)
        y[:classes] = np.arange(classes)
        normal = rng.standard_normal((rows, features)) + y[:, None] / classes
        place = {"rows": rows, "features": features, "classes": classes}
        options: dict[str, Any] = {"quick": rows * features <= 200_000}
        for dtype in ("float32", "float64"):
            x, where = normal.astype(dtype), place | {"dtype": dtype}
            of = name_of(**where)
            ours, peer = zoo.sklearn.GaussianNB(), peers.GaussianNB()
            yield Job(
                f"GaussianNB fit, {of}",
                lambda x=x, y=y, model=ours: model.fit(x, y), lambda x=x, y=y, model=peer: model.fit(x, y),
                "scikit-learn", where=where, **options,
            )  # fmt: skip
            yield Job(
                f"naive_bayes by zoo.fit, {of}",
                lambda x=x, y=y: zoo.fit(zoo.create_model("naive_bayes"), x, y, device="cpu"),
                lambda x=x, y=y, model=peer: model.fit(x, y),
                "scikit-learn", where=where, **options,
            )  # fmt: skip
            yield Job(
                f"GaussianNB predict, {of}",
                lambda x=x, model=ours: model.predict(x), lambda x=x, model=peer: model.predict(x),
                "scikit-learn", setup=partial(fit_once, (ours, peer), x, y), where=where, **options,
            )  # fmt: skip
        counts = rng.poisson(1.0, (rows, features)).astype(float)
        yield Job(
            f"MultinomialNB fit, {name_of(**place, dtype='float64')}",
            lambda x=counts, y=y: zoo.sklearn.MultinomialNB().fit(x, y),
            lambda x=counts, y=y: peers.MultinomialNB().fit(x, y),
            "scikit-learn", where=place, **options,
        )  # fmt: skip


def fit_once(models: tuple[Any, ...], x: np.ndarray, y: np.ndarray) -> None:
    """Fit what has not been, where the cells of fits were not measured."""
    for model in models:
        if not hasattr(model, "classes_"):
            model.fit(x, y)
