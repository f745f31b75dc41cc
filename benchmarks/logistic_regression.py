"""The exact solver beside scikit-learn's L-BFGS, from arrays to coefficients.

Independent features of one scale are the best case of L-BFGS, which then needs a dozen iterations. Of correlated ones,
as in most tables, it needs hundreds, and Newton as few passes as before. Ours must reach as low an objective.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import zoo
from benchmarks import Job
from benchmarks._grid import name_of

L2 = 1e-5
Fit = tuple[np.ndarray, np.ndarray]  # weights (K, F) and intercepts (K,)


def problem(rows: int, features: int, classes: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose classes follow the model itself, and whose features have a covariance of that condition number."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features))
    logits = x @ rng.standard_normal((features, classes)) + rng.gumbel(size=(rows, classes))
    rotation = np.linalg.qr(rng.standard_normal((features, features)))[0]
    return x * np.geomspace(1, condition**-0.5, features) @ rotation, logits.argmax(1)


def objective(x: np.ndarray, y: np.ndarray, fit: Fit) -> float:
    weights, intercepts = fit
    z = x @ weights.T + intercepts
    z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
    return (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]).mean() + L2 * np.square(weights).sum()


def jobs() -> Iterator[Job]:
    from sklearn.linear_model import LogisticRegression

    for rows, features, classes, condition in (
        (1_000, 10, 2, 1e3),
        (200_000, 32, 2, 1.0),
        (200_000, 32, 2, 1e3),
        (50_000, 32, 5, 1e3),
    ):
        x, y = problem(rows, features, classes, condition)
        c = 1 / (2 * L2 * rows)

        def ours(x: np.ndarray = x, y: np.ndarray = y) -> Fit:
            model = zoo.fit(zoo.create_model("logistic_regression", solver="exact"), x, y, l2=L2)
            return model.weight.numpy(), model.bias.numpy()

        def peer(x: np.ndarray = x, y: np.ndarray = y, c: float = c) -> Fit:
            model = LogisticRegression(C=c, tol=1e-6, max_iter=10_000).fit(x, y)
            return model.coef_, model.intercept_

        def check(a: Fit, b: Fit, x: np.ndarray = x, y: np.ndarray = y) -> None:
            assert objective(x, y, a) <= objective(x, y, b) * (1 + 1e-9)

        name = f"logistic regression, {rows:,} × {features}, {classes} classes, condition {condition:g}"
        yield Job(name, ours, peer, "scikit-learn (lbfgs)", check=check)


GRID = (  # rows, features, classes, condition
    (100, 2, 2, 10.0), (100, 20, 3, 10.0), (1_000, 4, 2, 10.0), (1_000, 20, 2, 1e3), (1_000, 500, 2, 10.0),
    (1_000, 2_000, 2, 10.0), (2_000, 64, 10, 10.0), (10_000, 20, 2, 10.0), (10_000, 200, 5, 10.0),
    (100_000, 4, 2, 10.0), (100_000, 20, 2, 10.0), (100_000, 20, 5, 10.0), (20_000, 500, 2, 10.0),
    (300_000, 20, 2, 10.0), (1_000_000, 4, 2, 10.0),
)  # fmt: skip


STREAMED = ((100_000, 20, 2), (1_000_000, 4, 2))


def grid() -> Iterator[Job]:
    """Yield fits of all shapes: the same call on both sides, C = 1, to the same tolerance; some of them streamed."""
    from sklearn.linear_model import LogisticRegression

    import zoo.sklearn as estimators

    for rows, features, classes, condition in GRID:
        wide, y = problem(rows, features, classes, condition)
        for dtype in ("float32", "float64"):
            x = wide.astype(dtype)
            where = {"rows": rows, "features": features, "classes": classes, "dtype": dtype}

            def ours(x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
                return estimators.LogisticRegression(max_iter=10_000).fit(x, y).coef_

            def streamed(x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
                model = zoo.create_model("logistic_regression", gradient_tol=1e-4)
                return zoo.fit(model, x, y, l2=1 / (2 * len(x)), batch_size=50_000, device="cpu").weight.numpy()

            def peer(x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
                return LogisticRegression(max_iter=10_000).fit(x, y).coef_

            name, whose = f"logistic regression, {name_of(**where)}", "scikit-learn (lbfgs)"
            yield Job(name, ours, peer, whose, where=where, quick=rows * features <= 1_000_000)
            if (rows, features, classes) in STREAMED:
                name = f"logistic regression, batches of 50,000, {name_of(**where)}"
                yield Job(name, streamed, peer, f"{whose}, in memory", where=where)
