"""k-means against scikit-learn: Lloyd from the same centroids for the same iterations, mini-batches, and small data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zoo
from benchmarks import Job
from benchmarks._grid import name_of


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


GRID = (  # rows, features, clusters
    (100, 2, 3), (100, 50, 5), (1_000, 2, 5), (1_000, 20, 8), (1_000, 1_000, 10), (2_000, 2_000, 20),
    (10_000, 2, 8), (10_000, 32, 64), (10_000, 500, 10), (100_000, 2, 5), (100_000, 10, 100), (100_000, 100, 10),
    (1_000_000, 8, 8),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield Lloyd's iterations from given centroids, and whole fits as they come, of rows from few to many."""
    for rows, features, clusters in GRID:
        base = mixture(rows, features, clusters)
        for dtype in (torch.float32, torch.float64):
            x = base.to(dtype)
            where = {"rows": rows, "features": features, "K": clusters, "dtype": str(dtype).removeprefix("torch.")}
            start = x[:clusters].clone()
            yield Job(
                f"Lloyd, 10 iterations, {name_of(**where)}",
                ours(x, start, max_iter=10, tolerance=0.0),
                peers(x.numpy(), start.numpy(), max_iter=10, tol=0.0),
                "scikit-learn",
                check=agree,
                where=where,
                quick=rows <= 10_000,
            )
        yield whole(x, clusters, where)
        if rows <= 10_000:
            yield whole(x, clusters, where, "bisecting_kmeans", "BisectingKMeans")


def whole(x: Tensor, clusters: int, where: dict[str, Any], name: str = "kmeans", peer_name: str = "KMeans") -> Job:
    """A fit with the defaults of both, from the first draw to the labels; other seeds each time."""
    import sklearn.cluster

    array, seeds, others = x.numpy(), itertools.count(), itertools.count()

    def fit() -> Tensor:
        model = zoo.fit(zoo.create_model(name, num_clusters=clusters, seed=next(seeds)), x, device="cpu")
        return model.predict(x)

    def peer() -> np.ndarray:
        return getattr(sklearn.cluster, peer_name)(clusters, random_state=next(others)).fit(array).labels_

    title = f"{peer_name} as it comes, {name_of(**where)}"
    return Job(title, fit, peer, "scikit-learn", pairs=7, where=where, quick=len(x) <= 10_000)
