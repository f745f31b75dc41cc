"""A tree, a forest and boosting beside scikit-learn's (and LightGBM's), from arrays to a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import zoo
from benchmarks import Job


def jobs() -> Iterator[Job]:
    from sklearn.datasets import make_classification
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    x, y = make_classification(120_000, 20, n_informative=10, random_state=0)
    x, y, held_x, held_y = x[:100_000], y[:100_000], x[100_000:], y[100_000:]

    def fit(name: str, **hparams: Any) -> Any:
        return zoo.fit(zoo.create_model(name, **hparams), x, y)

    def check(ours: Any, peer: Any) -> None:
        accuracy = float(np.mean(ours.predict(held_x).numpy() == held_y))
        assert accuracy > peer.score(held_x, held_y) - 0.005

    yield Job(
        "decision tree, all thresholds, 100,000 × 20",
        lambda: fit("decision_tree", num_bins=None),
        lambda: DecisionTreeClassifier(random_state=0).fit(x, y),
        "scikit-learn",
        check=check,
    )
    yield Job(
        "random forest, 100 trees, 100,000 × 20",
        lambda: fit("random_forest", oob_score=False),
        lambda: RandomForestClassifier(100, random_state=0).fit(x, y),
        "scikit-learn",
        pairs=1,
        check=check,
    )

    many_x, many_y = make_classification(500_000, 20, n_informative=10, random_state=0)

    def boosted() -> Any:
        return zoo.fit(zoo.create_model("gradient_boosting"), many_x, many_y)

    yield Job(
        "gradient boosting, 100 trees, 500,000 × 20",
        boosted,
        lambda: HistGradientBoostingClassifier(max_iter=100, early_stopping=False).fit(many_x, many_y),
        "scikit-learn",
        pairs=3,
    )
    try:
        import lightgbm
    except ImportError:  # a peer of the `dev` extra
        return
    threads = torch.get_num_threads()
    yield Job(
        "gradient boosting, 100 trees, 500,000 × 20",
        boosted,
        lambda: lightgbm.LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=threads).fit(many_x, many_y),
        "LightGBM",
        pairs=3,
    )
