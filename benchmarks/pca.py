"""PCA beside scikit-learn's, from an array to components."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import zoo
from benchmarks import Job
from benchmarks._grid import name_of


def jobs() -> Iterator[Job]:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    mix = rng.standard_normal((256, 256)) * np.logspace(0, -2, 256)
    wide = rng.standard_normal((200_000, 256)) @ mix.T + 3
    for dtype, precision, rtol in (("float64", "double", 1e-9), ("float32", "single", 1e-4)):
        x = wide.astype(dtype)

        def ours(x: np.ndarray = x, precision: str = precision) -> torch.Tensor:
            model = zoo.create_model("pca", num_components=32, precision=precision)
            return zoo.fit(model, x, device="cpu").explained_variance

        def peer(x: np.ndarray = x) -> np.ndarray:
            return PCA(32).fit(x).explained_variance_

        def check(a: torch.Tensor, b: np.ndarray, rtol: float = rtol) -> None:
            np.testing.assert_allclose(a.numpy(), b, rtol=rtol)

        yield Job(f"PCA, 200,000 × 256, 32 components, {dtype}", ours, peer, "scikit-learn", pairs=9, check=check)


GRID = (  # rows, features, components
    (100, 2, 2), (100, 50, 10), (100, 1_000, 10), (1_000, 4, 2), (1_000, 50, 10), (1_000, 2_000, 20),
    (2_000, 2_000, 200), (10_000, 4, 2), (10_000, 64, 64), (10_000, 500, 20), (100_000, 4, 2), (100_000, 50, 10),
    (20_000, 1_000, 50), (1_000_000, 4, 2), (1_000_000, 16, 4),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield fits of all shapes, with the solvers that both take by themselves; some of them streamed."""
    from sklearn.decomposition import PCA

    import zoo.sklearn as estimators

    rng = np.random.default_rng(0)
    for rows, features, components in GRID:
        scales = np.geomspace(1, 0.01, features)
        wide = rng.standard_normal((rows, features)) * scales + 3
        for dtype, precision in (("float32", "single"), ("float64", "double")):
            x = wide.astype(dtype)
            where = {"rows": rows, "features": features, "components": components, "dtype": dtype}

            def ours(x: np.ndarray = x, count: int = components) -> np.ndarray:
                return estimators.PCA(count, random_state=0).fit(x).explained_variance_

            def streamed(x: np.ndarray = x, precision: str = precision, count: int = components) -> np.ndarray:
                model = zoo.create_model("pca", num_components=count, precision=precision)
                return zoo.fit(model, x, batch_size=50_000, device="cpu").explained_variance.numpy()

            def peer(x: np.ndarray = x, count: int = components) -> np.ndarray:
                return PCA(count, random_state=0).fit(x).explained_variance_

            def check(a: np.ndarray, b: np.ndarray) -> None:
                np.testing.assert_allclose(a[0], b[0], rtol=1e-2)

            name, quick = f"PCA, {name_of(**where)}", rows * features <= 1_000_000
            yield Job(name, ours, peer, "scikit-learn", check=check, where=where, quick=quick)
            if rows >= 100_000:
                name = f"PCA, batches of 50,000, {name_of(**where)}"
                yield Job(name, streamed, peer, "scikit-learn, in memory", check=check, where=where)
