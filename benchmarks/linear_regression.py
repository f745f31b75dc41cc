"""The exact solver beside scikit-learn's, from arrays to coefficients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import zoo
from benchmarks import Job


def jobs() -> Iterator[Job]:
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    for rows, features in ((1_000, 10), (200_000, 64), (1_000_000, 32)):
        x = rng.standard_normal((rows, features))
        y = x @ rng.standard_normal(features) + rng.standard_normal(rows)

        def ours(x: np.ndarray = x, y: np.ndarray = y) -> torch.Tensor:
            return zoo.fit(zoo.create_model("linear_regression"), x, y).weight[0]

        def peer(x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            return LinearRegression().fit(x, y).coef_

        def check(a: torch.Tensor, b: np.ndarray) -> None:
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-8)

        yield Job(f"least squares, {rows:,} × {features}, float64", ours, peer, "scikit-learn", check=check)
