"""A tree, a forest and boosting beside scikit-learn's (and LightGBM's), from arrays to a fitted model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import zoo
import zoo.sklearn
from benchmarks import Job
from benchmarks._grid import name_of

SIZES = {"small, 1,000 × 20": (1000, 20), "tall, 100,000 × 5": (100_000, 5), "wide, 2,000 × 400": (2000, 400)}


def classes(rows: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_classification

    return make_classification(rows, features, n_informative=min(10, features // 2), n_redundant=0, random_state=0)


def fit(name: str, x: np.ndarray, y: np.ndarray, **hparams: Any) -> Any:
    return zoo.fit(zoo.create_model(name, **hparams), x, y)


def jobs() -> Iterator[Job]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    threads = torch.get_num_threads()
    all_x, all_y = classes(120_000, 20)
    x, y, held_x, held_y = all_x[:100_000], all_y[:100_000], all_x[100_000:], all_y[100_000:]

    def check(ours: Any, peer: Any) -> None:
        accuracy = float(np.mean(ours.predict(held_x).numpy() == held_y))
        assert accuracy > peer.score(held_x, held_y) - 0.005

    yield Job(
        "decision tree, all thresholds, 100,000 × 20",
        lambda: fit("decision_tree", x, y, num_bins=None),
        lambda: DecisionTreeClassifier(random_state=0).fit(x, y),
        "scikit-learn",
        check=check,
    )
    yield Job(
        "random forest, 100 trees, 100,000 × 20",
        lambda: fit("random_forest", x, y, oob_score=False),
        lambda: RandomForestClassifier(100, random_state=0, n_jobs=threads).fit(x, y),
        "scikit-learn",
        pairs=1,
        check=check,
    )
    many_x, many_y = classes(500_000, 20)
    yield from _boosting("100 trees, 500,000 × 20", many_x, many_y, pairs=3)
    for size, (rows, features) in SIZES.items():
        x, y = classes(rows, features)
        yield Job(
            f"decision tree, {size}",
            lambda x=x, y=y: fit("decision_tree", x, y, num_bins=None),
            lambda x=x, y=y: DecisionTreeClassifier(random_state=0).fit(x, y),
            "scikit-learn",
        )
        yield Job(
            f"random forest, 20 trees, {size}",
            lambda x=x, y=y: fit("random_forest", x, y, num_trees=20, oob_score=False),
            lambda x=x, y=y: RandomForestClassifier(20, random_state=0, n_jobs=threads).fit(x, y),
            "scikit-learn",
            pairs=3,
        )
        yield Job(
            f"gradient boosting, 30 trees, {size}",
            lambda x=x, y=y: fit("gradient_boosting", x, y, num_trees=30),
            lambda x=x, y=y: HistGradientBoostingClassifier(max_iter=30, early_stopping=False).fit(x, y),
            "scikit-learn",
        )


def _boosting(name: str, x: np.ndarray, y: np.ndarray, pairs: int) -> Iterator[Job]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def boosted() -> Any:
        return fit("gradient_boosting", x, y)

    yield Job(
        f"gradient boosting, {name}",
        boosted,
        lambda: HistGradientBoostingClassifier(max_iter=100, early_stopping=False).fit(x, y),
        "scikit-learn",
        pairs=pairs,
    )
    try:
        import lightgbm
    except ImportError:  # a peer of the `dev` extra
        return
    threads = torch.get_num_threads()
    yield Job(
        f"gradient boosting, {name}",
        boosted,
        lambda: lightgbm.LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=threads).fit(x, y),
        "LightGBM",
        pairs=pairs,
    )


GRID = (  # rows, features, classes
    (100, 4, 2), (100, 100, 2), (1_000, 4, 2), (1_000, 20, 10), (1_000, 1_000, 2), (10_000, 4, 2), (10_000, 50, 5),
    (2_000, 2_000, 2), (100_000, 5, 2), (50_000, 30, 3),
)  # fmt: skip
MANY = (1_000_000, 4, 2)


def places(*more: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any], bool]]:
    """Yield rows, classes, their place and whether they are quick, in each type."""
    from sklearn.datasets import make_classification

    for rows, features, classes in (*GRID, *more):
        x, y = make_classification(
            rows, features, n_informative=min(8, features - 1), n_redundant=0, n_classes=classes,
            n_clusters_per_class=1, flip_y=0.05, random_state=0,
        )  # fmt: skip
        for dtype in ("float32", "float64"):
            where = {"rows": rows, "features": features, "classes": classes, "dtype": dtype}
            yield x.astype(dtype), y, where, rows * features <= 50_000


def grid_tree() -> Iterator[Job]:
    """Yield trees of all thresholds by scikit-learn's names, of classes and values, and as they come by `zoo.fit`."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    for x, y, where, quick in places():
        options: dict[str, Any] = {"where": where, "quick": quick, "pairs": 3}
        of = name_of(**where)
        yield Job(
            f"DecisionTreeClassifier, {of}",
            lambda x=x, y=y: zoo.sklearn.DecisionTreeClassifier(random_state=0).fit(x, y),
            lambda x=x, y=y: DecisionTreeClassifier(random_state=0).fit(x, y),
            "scikit-learn", **options,
        )  # fmt: skip
        if where["dtype"] == "float32":
            yield Job(
                f"decision_tree by zoo.fit, {of}",
                lambda x=x, y=y: fit("decision_tree", x, y, seed=0),
                lambda x=x, y=y: DecisionTreeClassifier(random_state=0).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip
            values = x[:, 0] + 0.5 * x[:, -1] ** 2 + y
            yield Job(
                f"DecisionTreeRegressor of depth 8, {of}",
                lambda x=x, y=values: zoo.sklearn.DecisionTreeRegressor(max_depth=8, random_state=0).fit(x, y),
                lambda x=x, y=values: DecisionTreeRegressor(max_depth=8, random_state=0).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip


def grid_forest() -> Iterator[Job]:
    """Yield forests of 20 trees by scikit-learn's name and by `zoo.fit`."""
    from sklearn.ensemble import RandomForestClassifier

    for x, y, where, quick in places():
        options: dict[str, Any] = {"where": where, "quick": quick, "pairs": 3}
        of = name_of(**where)
        if where["dtype"] == "float64":
            yield Job(
                f"RandomForestClassifier, 20 trees, {of}",
                lambda x=x, y=y: zoo.sklearn.RandomForestClassifier(20, random_state=0).fit(x, y),
                lambda x=x, y=y: RandomForestClassifier(20, random_state=0, n_jobs=torch.get_num_threads()).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip
        else:
            yield Job(
                f"random_forest by zoo.fit, 20 trees, {of}",
                lambda x=x, y=y: fit("random_forest", x, y, num_trees=20, oob_score=False, seed=0),
                lambda x=x, y=y: RandomForestClassifier(20, random_state=0, n_jobs=torch.get_num_threads()).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip


def grid_boosting() -> Iterator[Job]:
    """Yield gradient boosting of 30 rounds beside scikit-learn's, and LightGBM's where it is installed."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rounds: dict[str, Any] = {"max_iter": 30, "early_stopping": False}
    has_other = importlib.util.find_spec("lightgbm") is not None
    for x, y, where, quick in places(MANY):
        options: dict[str, Any] = {"where": where, "quick": quick, "pairs": 3}
        of = name_of(**where)
        if where["dtype"] == "float64":
            yield Job(
                f"HistGradientBoostingClassifier, 30 rounds, {of}",
                lambda x=x, y=y: zoo.sklearn.HistGradientBoostingClassifier(**rounds).fit(x, y),
                lambda x=x, y=y: HistGradientBoostingClassifier(**rounds).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip
        else:
            yield Job(
                f"gradient_boosting by zoo.fit, 30 rounds, {of}",
                lambda x=x, y=y: fit("gradient_boosting", x, y, num_trees=30),
                lambda x=x, y=y: HistGradientBoostingClassifier(**rounds).fit(x, y),
                "scikit-learn", **options,
            )  # fmt: skip
            if has_other:
                yield Job(
                    f"gradient_boosting by zoo.fit, 30 rounds beside LightGBM, {of}",
                    lambda x=x, y=y: fit("gradient_boosting", x, y, num_trees=30),
                    lambda x=x, y=y: lightgbm_of(x, y), "LightGBM", **options,
                )  # fmt: skip


def lightgbm_of(x: np.ndarray, y: np.ndarray) -> Any:
    """30 rounds of LightGBM's."""
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=30, verbose=-1, n_jobs=torch.get_num_threads()).fit(x, y)
