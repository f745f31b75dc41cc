"""A tree, a forest and boosting beside scikit-learn's (and LightGBM's), from arrays to a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import zoo
from benchmarks import Job

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
