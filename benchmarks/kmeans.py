"""k-means against scikit-learn: Lloyd from the same centroids for the same iterations, mini-batches, and small data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zoo
from benchmarks import Job


def mixture(num_rows: int, num_features: int, num_clusters: int) -> Tensor:
    """Rows around centers that overlap, so that centroids keep moving for more than ten iterations."""
    generator = torch.Generator().manual_seed(0)
    center = 0.5 * torch.randn(num_clusters, num_features, generator=generator)
    label = torch.randint(num_clusters, (num_rows,), generator=generator)
    return torch.randn(num_rows, num_features, generator=generator).add_(center[label])


def ours(x: Tensor, start: Tensor, **hparams: Any) -> Callable[[], float]:
    """Return a call that fits on one batch of all rows, labels them and returns the inertia."""
    spec = zoo.DataSpec(kind="tabular", shape=tuple(x.shape[1:]), dtype=str(x.dtype).removeprefix("torch."))

    def call() -> float:
        model = zoo.create_model("kmeans", spec, num_clusters=len(start), **hparams)
        model.start_from(start)
        model.fit_batches(lambda: [x])
        model.predict(x, batch_size=len(x))
        return float(model.inertia)

    return call


def peers(x: np.ndarray, start: np.ndarray, **options: Any) -> Callable[[], float]:
    """Return a call that does the same with scikit-learn's."""
    from sklearn.cluster import KMeans

    return lambda: KMeans(len(start), init=start, n_init=1, algorithm="lloyd", **options).fit(x).inertia_


def agree(inertia: float, theirs: float) -> None:
    """Check that both ended alike; rows on a border, which rounding in float32 decides, make the difference."""
    np.testing.assert_allclose(inertia, theirs, rtol=2e-3)


def jobs() -> Iterator[Job]:
    """Yield the jobs."""
    for num_rows, num_features, num_clusters in ((1_000_000, 32, 64), (200_000, 16, 8), (50_000, 128, 256)):
        x = mixture(num_rows, num_features, num_clusters)
        start = x[:num_clusters].clone()
        yield Job(
            f"Lloyd, 10 iterations and labels, {num_rows:,} × {num_features}, K = {num_clusters}, float32",
            ours(x, start, max_iter=10, tolerance=0.0),
            peers(x.numpy(), start.numpy(), max_iter=10, tol=0.0),
            "scikit-learn",
            check=agree,
        )
    yield digits()


def digits() -> Job:
    """Small data, from the first draw to the labels."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    array = load_digits().data
    x = torch.from_numpy(array)
    spec = zoo.DataSpec(kind="tabular", shape=(64,), dtype="float64")

    def fit() -> Tensor:
        model = zoo.create_model("kmeans", spec, num_clusters=10, seed=0)
        model.fit_batches(lambda: [x])
        return model.predict(x)

    return Job(
        "digits, 1,797 × 64, K = 10, k-means|| against k-means++, until at rest",
        fit,
        lambda: KMeans(10, random_state=0).fit(array).labels_,
        "scikit-learn",
        pairs=15,
        bound=2.0,
    )
