"""The hierarchy of clusters beside SciPy's and fastcluster's, from rows to the linkage matrix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import Job
from benchmarks._grid import name_of
from zoo.models.agglomerative.linkage import linkage


def rows(count: int, features: int, centers: int = 0) -> np.ndarray:
    """Normally distributed rows, around one place or around several."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, features))
    if centers:
        x += 5 * rng.standard_normal((centers, features))[rng.integers(centers, size=count)]
    return x


def agree(a: Tensor, b: np.ndarray) -> None:
    """The same merges, and heights to 1e-10."""
    np.testing.assert_array_equal(a[:, [0, 1, 3]].numpy(), b[:, [0, 1, 3]])
    np.testing.assert_allclose(a[:, 2].numpy(), b[:, 2], rtol=1e-10)


def job(name: str, x: np.ndarray, method: str, peer: Callable[..., Any], peer_name: str) -> Job:
    """One linkage of rows (N, F) by ours and by the peer."""
    tensor = torch.from_numpy(x)
    pairs = 3 if len(x) > 10_000 else 5
    return Job(name, lambda: linkage(tensor, method), lambda: peer(x, method), peer_name, pairs=pairs, check=agree)


def jobs() -> Iterator[Job]:
    import fastcluster
    from scipy.cluster import hierarchy

    for kind, centers in (("one cloud", 0), ("20 clouds", 20)):
        x = rows(10_000, 32, centers)
        for method in ("ward", "average"):
            for peer, peer_name in ((hierarchy.linkage, "SciPy"), (fastcluster.linkage, "fastcluster")):
                yield job(f"{method}, 10,000 × 32, {kind}", x, method, peer, peer_name)
    vector = fastcluster.linkage_vector
    yield job("ward in linear memory, 10,000 × 32, one cloud", rows(10_000, 32), "ward", vector, "fastcluster")
    yield job("single in linear memory, 50,000 × 16, one cloud", rows(50_000, 16), "single", vector, "fastcluster")


METHODS = ("ward", "average", "complete", "single", "centroid", "median")


def grid() -> Iterator[Job]:
    """Yield each linkage of few and many rows, beside the quicker of SciPy and fastcluster."""
    import fastcluster
    from scipy.cluster import hierarchy

    for count, features in ((100, 2), (100, 100), (1_000, 2), (1_000, 100), (4_000, 8), (2_000, 1_000)):
        x = rows(count, features)
        for method in METHODS:
            # SciPy's median and centroid search a heap, fastcluster's others are the quicker.
            peer, peer_name = min(
                ((hierarchy.linkage, "SciPy"), (fastcluster.linkage, "fastcluster")),
                key=lambda peer: _seconds(peer[0], x, method),
            )
            where = {"rows": count, "features": features, "dtype": "float64"}
            tensor = torch.from_numpy(x)
            yield Job(
                f"{method}, {name_of(**where)}",
                lambda tensor=tensor, method=method: linkage(tensor, method),
                lambda x=x, method=method, peer=peer: peer(x, method),
                peer_name,
                where=where,
                quick=count <= 1_000,
            )


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    """The time of a call, after one to warm up."""
    call(*arguments)
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start
