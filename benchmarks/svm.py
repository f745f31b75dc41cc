"""Support vector machines beside scikit-learn's (liblinear, libsvm), same parameters, from arrays to a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.datasets import make_classification

import zoo
import zoo.sklearn
from benchmarks import Job
from benchmarks._grid import name_of


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
    informative = max(2, min(features // 2, 10))
    x, y = make_classification(
        rows, features, n_informative=informative, n_redundant=min(2, features - informative), n_classes=classes,
        n_clusters_per_class=1 if classes > 2 else 2, flip_y=0.02, random_state=0,
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


LINEAR = (  # rows, features, classes
    (100, 2, 2), (100, 50, 2), (100, 1_000, 2), (1_000, 4, 2), (1_000, 20, 10), (1_000, 2_000, 2), (10_000, 20, 2),
    (10_000, 500, 3), (100_000, 4, 2), (100_000, 50, 2), (500_000, 8, 2),
)  # fmt: skip
KERNEL = (
    (100, 2, 2), (100, 200, 2), (300, 10, 3), (1_000, 4, 2), (1_000, 20, 10), (1_000, 1_000, 2), (3_000, 50, 2),
    (10_000, 4, 2), (10_000, 20, 2), (5_000, 300, 5),
)  # fmt: skip


def grid_linear() -> Iterator[Job]:
    """Yield linear machines of classes and values by scikit-learn's names, and `svm` by `zoo.fit`."""
    import sklearn.svm

    for rows, features, classes in LINEAR:
        exact, y = data(rows, features, classes)
        for dtype in ("float32", "float64"):
            x = exact.astype(dtype)
            where = {"rows": rows, "features": features, "classes": classes, "dtype": dtype}
            of, options = name_of(**where), {"where": where, "quick": rows * features <= 200_000}
            yield placed(f"LinearSVC, {of}", "LinearSVC", x, y, options)
        if classes == 2:
            yield placed(f"LinearSVC, hinge, {of}", "LinearSVC", x, y, options, loss="hinge", C=0.1)
            yield placed(f"LinearSVR, {of}", "LinearSVR", x, x @ np.linspace(0, 1, features) + y, options, C=0.1)
        yield Job(
            f"svm by zoo.fit, {of}",
            lambda x=x, y=y: zoo.fit(zoo.create_model("svm"), x, y, device="cpu"),
            lambda x=x, y=y: sklearn.svm.LinearSVC().fit(x, y),
            "scikit-learn", pairs=3, **options,
        )  # fmt: skip


def grid_kernel() -> Iterator[Job]:
    """Yield machines with kernels: fits of classes, values and outliers, and answers."""
    import sklearn.svm

    for rows, features, classes in KERNEL:
        x, y = data(rows, features, classes)
        where = {"rows": rows, "features": features, "classes": classes, "dtype": "float64"}
        of, options = name_of(**where), {"where": where, "quick": rows <= 1_000}
        yield placed(f"SVC, RBF, {of}", "SVC", x, y, options)
        yield placed(f"SVC, RBF, C = 100, {of}", "SVC", x, y, options, C=100.0)
        yield placed(f"SVC, poly, {of}", "SVC", x.astype("float32"), y, options, kernel="poly")
        yield placed(f"SVR, RBF, {of}", "SVR", x, x[:, 0] + 0.1 * y, options)
        yield placed(f"OneClassSVM, RBF, {of}", "OneClassSVM", x, None, options)
        ours, theirs = (module.SVC().fit(x, y) for module in (zoo.sklearn, sklearn.svm))
        yield Job(
            f"SVC predict, {of}", lambda x=x, m=ours: m.predict(x), lambda x=x, m=theirs: m.predict(x), "scikit-learn",
            pairs=3, **options,
        )  # fmt: skip


def placed(title: str, name: str, x: np.ndarray, y: np.ndarray | None, options: dict[str, Any], **hparams: Any) -> Job:
    """What `both` compares, at a place of a grid."""
    return replace(both(title, name, x, y, **hparams), check=None, **options)
