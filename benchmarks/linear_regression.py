"""The exact solver beside scikit-learn's, from arrays to coefficients.

A path of a hundred lasso penalties beside scikit-learn's, which stops where a gap is small: as it comes, and asked for
as many digits as ours has, which ends at the minimum but for rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch

import zoo
from benchmarks import Job
from benchmarks._grid import name_of


def jobs() -> Iterator[Job]:
    from sklearn.datasets import load_diabetes
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

    diabetes = load_diabetes(return_X_y=True)
    x = rng.standard_normal((20_000, 100)) @ (np.eye(100) + 0.1 * rng.standard_normal((100, 100)))
    tall = x, x[:, :20] @ rng.standard_normal(20) + 5 * rng.standard_normal(len(x))
    yield path_job("lasso path of 100, diabetes, 442 × 10, as it comes", *diabetes, 1e-4)
    yield path_job("lasso path of 100, diabetes, 442 × 10, to rounding", *diabetes, 1e-15)
    yield path_job("lasso path of 100, 20,000 × 100, as it comes", *tall, 1e-4)


def path_job(name: str, x: np.ndarray, y: np.ndarray, tol: float) -> Job:
    from sklearn.linear_model import lasso_path

    def ours() -> np.ndarray:
        return zoo.fit(zoo.create_model("linear_regression"), x, y).path(100).weight[:, 0].numpy()

    def peer() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"alphas": 100, "tol": tol, "max_iter": 1_000_000, "precompute": "auto" if tol == 1e-4 else False}
            return lasso_path(x - x.mean(0), y - y.mean(), **options)[1].T

    def objective(w: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        residual = (y - y.mean())[:, None] - (x - x.mean(0)) @ w.T
        return np.square(residual).mean(0) / 2 + alphas * np.abs(w).sum(1)

    def check(a: np.ndarray, b: np.ndarray) -> None:
        largest = np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / len(x)
        alphas = np.geomspace(largest, largest / 1000, 100)
        assert (objective(a, alphas) <= objective(b, alphas) * (1 + 1e-12)).all()
        if tol < 1e-4:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)

    return Job(name, ours, peer, "scikit-learn", check=check, bound=5.0 if tol == 1e-4 else 1.0)


GRID = (  # rows, features
    (100, 2), (100, 20), (100, 500), (1_000, 2), (1_000, 50), (1_000, 2_000), (10_000, 10), (10_000, 500),
    (100_000, 2), (100_000, 50), (20_000, 1_000), (1_000_000, 4), (1_000_000, 20),
)  # fmt: skip


PENALIZED = ((1_000, 50), (10_000, 500), (100_000, 50))


def grid() -> Iterator[Job]:
    """Yield least squares of all shapes, of some of them penalized and streamed: the same call on both sides."""
    import sklearn.linear_model as peers

    import zoo.sklearn as estimators

    rng = np.random.default_rng(0)
    for rows, features in GRID:
        wide = rng.standard_normal((rows, features))
        target = wide @ rng.standard_normal(features) + rng.standard_normal(rows)
        for dtype in ("float32", "float64"):
            x, y = wide.astype(dtype), target.astype(dtype)
            where = {"rows": rows, "features": features, "dtype": dtype}
            chosen = {"LinearRegression": {}}
            if (rows, features) in PENALIZED:
                chosen |= {"Ridge": {}, "Lasso": {"alpha": 0.05}, "ElasticNet": {"alpha": 0.05}}
            for name, options in chosen.items():

                def ours(x: np.ndarray = x, y: np.ndarray = y, name: str = name, options: dict = options) -> np.ndarray:
                    return getattr(estimators, name)(**options).fit(x, y).coef_

                def peer(x: np.ndarray = x, y: np.ndarray = y, name: str = name, options: dict = options) -> np.ndarray:
                    return getattr(peers, name)(**options).fit(x, y).coef_

                title = f"{name}, {name_of(**where)}"
                yield Job(title, ours, peer, "scikit-learn", where=where, quick=rows * features <= 1_000_000)
            if rows >= 100_000:
                yield streamed(x, y, where)


def streamed(x: np.ndarray, y: np.ndarray, where: dict) -> Job:
    """Rows that come in batches, beside all of them at once."""
    from sklearn.linear_model import LinearRegression

    def ours() -> torch.Tensor:
        return zoo.fit(zoo.create_model("linear_regression"), x, y, batch_size=50_000, device="cpu").weight[0]

    title = f"least squares, batches of 50,000, {name_of(**where)}"
    return Job(title, ours, lambda: LinearRegression().fit(x, y).coef_, "scikit-learn, in memory", where=where)
