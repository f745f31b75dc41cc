"""Support vector machines beside scikit-learn's (liblinear, libsvm), same parameters, from arrays to a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.datasets import make_classification

import zoo
import zoo.sklearn
from benchmarks import Job


def jobs() -> Iterator[Job]:
    for rows, features in ((100_000, 100), (10_000, 20), (20_000, 500)):
        x, y = data(rows, features)
        yield both(f"LinearSVC, {rows:,} × {features}", "LinearSVC", x, y)
    x, y = data(100_000, 100)
    yield both("LinearSVC, hinge, 100,000 × 100", "LinearSVC", x, y, loss="hinge", C=0.01)
    yield both("LinearSVC, 10 classes, 20,000 × 50", "LinearSVC", *data(20_000, 50, 10))
    yield both("LinearSVR, 100,000 × 100", "LinearSVR", x, x @ np.linspace(0, 1, 100) + y, C=0.01)
    for rows, features, cost in ((10_000, 20, 1.0), (10_000, 20, 100.0), (1_000, 10, 1.0), (5_000, 200, 1.0)):
        x, y = data(rows, features)
        yield both(f"SVC, RBF, C = {cost:g}, {rows:,} × {features}", "SVC", x, y, C=cost)
    x, y = data(10_000, 20)
    yield both("SVC, poly, 10,000 × 20", "SVC", x, y, kernel="poly")
    yield both("SVC, linear, 5,000 × 20", "SVC", x[:5000], y[:5000], kernel="linear")
    yield both("SVC, RBF, 10 classes, 5,000 × 50", "SVC", *data(5_000, 50, 10))
    yield both("SVR, RBF, 5,000 × 20", "SVR", x[:5000], x[:5000, 0] + 0.1 * y[:5000])
    yield both("OneClassSVM, RBF, 10,000 × 20", "OneClassSVM", x)
    yield approximate(*data(200_000, 20))
    import sklearn.svm

    ours, theirs = (module.SVC().fit(x, y) for module in (zoo.sklearn, sklearn.svm))
    yield Job(
        "SVC predict, 10,000 × 20", lambda: ours.predict(x), lambda: theirs.predict(x), "scikit-learn", pairs=3,
    )  # fmt: skip


def data(rows: int, features: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mean 0 and deviation 1, half of whose features tell of the class."""
    informative = min(features // 2, 10)
    x, y = make_classification(
        rows, features, n_informative=informative, n_classes=classes, n_clusters_per_class=1 if classes > 2 else 2,
        flip_y=0.02, random_state=0,
    )  # fmt: skip
    return (x - x.mean(0)) / x.std(0), y


def approximate(x: np.ndarray, y: np.ndarray) -> Job:
    """The RBF kernel by 300 of the rows, in passes, beside scikit-learn's pipeline that holds all features."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    def check(ours: Any, theirs: Any) -> None:
        assert ours.score(x[:5000], y[:5000]) > theirs.score(x[:5000], y[:5000]) - 0.005

    return Job(
        "svm, 300 Nyström features, 200,000 × 20",
        lambda: zoo.fit(zoo.create_model("svm", features="nystroem"), x, y, batch_size=8192, device="cpu"),
        lambda: make_pipeline(Nystroem(gamma=1 / 20, n_components=300, random_state=0), LinearSVC()).fit(x, y),
        "scikit-learn",
        pairs=1,
        check=check,
    )


def both(title: str, name: str, x: np.ndarray, y: np.ndarray | None = None, **options: Any) -> Job:
    """A fit of ours and of scikit-learn's estimator of that name, which answer alike."""
    import sklearn.svm

    def check(ours: Any, theirs: Any) -> None:
        a, b = ours.predict(x[:2000]), theirs.predict(x[:2000])
        alike = np.mean(a == b) if name not in ("SVR", "LinearSVR") else np.corrcoef(a, b)[0, 1]
        assert alike > 0.98, alike

    return Job(
        title,
        lambda: getattr(zoo.sklearn, name)(**options).fit(x, y),
        lambda: getattr(sklearn.svm, name)(**options).fit(x, y),
        "scikit-learn",
        pairs=3,
        check=check,
    )
