"""PCA beside scikit-learn's, from an array to components."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import zoo
from benchmarks import Job


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
