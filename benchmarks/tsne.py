"""t-SNE of 20,000 MNIST images (50 components, 750 steps) beside openTSNE (FFT) and scikit-learn (Barnes-Hut)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from benchmarks import Job
from benchmarks._grid import name_of
from zoo.models.tsne.affinities import SparseAffinities, dense_affinities, sparse_affinities
from zoo.models.tsne.objective import kl_divergence

ROWS, COMPONENTS, PERPLEXITY = 20_000, 50, 30.0
EARLY_STEPS, STEPS = 250, 750
THREADS = 2


@cache
def images() -> Tensor:
    """The rows (20,000, 50): principal components of the first training images, found by $MNIST_ROOT or beside us."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = os.environ.get("MNIST_ROOT", str(beside) if beside.is_dir() else "data")
    data = zoo.create_data("mnist", root=root, val_fraction=0.0)
    x = data.rows("train")[torch.arange(ROWS)].x.flatten(1)
    return zoo.fit(zoo.create_model("pca", num_components=COMPONENTS), x).predict(x).float()


@cache
def affinities() -> SparseAffinities:
    """The one P by which all maps are judged."""
    return sparse_affinities(images(), PERPLEXITY)


def divergence(points: Any) -> float:
    """KL(P ‖ Q) of a map, all pairs summed in float64."""
    return float(kl_divergence(torch.as_tensor(points, dtype=torch.float64), affinities()))


def ours() -> Tensor:
    return zoo.fit(zoo.create_model("tsne", perplexity=PERPLEXITY, num_steps=STEPS), images()).embedding


def opentsne(x: Tensor | None = None, method: str = "fft", threads: int = THREADS) -> Any:
    from openTSNE import TSNE

    peer = TSNE(
        perplexity=PERPLEXITY,
        early_exaggeration_iter=EARLY_STEPS,
        n_iter=STEPS - EARLY_STEPS,
        negative_gradient_method=method,
        n_jobs=threads,
        random_state=0,
    )
    return peer.fit((images() if x is None else x).double().numpy())


def scikit_learn(x: Tensor | None = None, threads: int = THREADS) -> Any:
    from sklearn.manifold import TSNE

    peer = TSNE(perplexity=PERPLEXITY, max_iter=STEPS, n_jobs=threads, random_state=0)
    return peer.fit_transform((images() if x is None else x).numpy())


def not_worse_by(share: float) -> Callable[[Any, Any], None]:
    """Return a check that our map's divergence is at most `share` above the peer's."""

    def check(mine: Any, other: Any) -> None:
        a, b = divergence(mine), divergence(other)
        print(f"KL divergence: ours {a:.4f}, peer's {b:.4f}")
        if a > b * (1 + share):
            raise AssertionError(f"our KL divergence {a:.4f} is more than {share:.0%} above the peer's {b:.4f}")

    return check


def jobs() -> Iterator[Job]:
    try:
        images()
    except zoo.ZooError as error:
        print(f"left out: {error}")
        return
    name = f"tsne of {ROWS:,} MNIST images, {COMPONENTS} features, {STEPS} steps"
    yield Job(name, ours, opentsne, "openTSNE (FFT)", pairs=5, check=not_worse_by(0.02))
    yield Job(name, ours, scikit_learn, "scikit-learn (Barnes-Hut)", pairs=3, check=not_worse_by(0.02))


GRID = ((100, 2), (100, 50), (300, 10), (1_000, 2), (1_000, 50), (1_000, 1_000), (3_000, 10), (10_000, 50))


def grid() -> Iterator[Job]:
    """Yield maps of few and many rows, with the method that ours takes by itself, beside the quicker of the two peers.

    All take 750 steps.
    """
    threads = torch.get_num_threads()
    for rows, features in GRID:
        x = clouds(rows, features)
        where = {"rows": rows, "features": features, "dtype": "float32"}
        peers = {
            "openTSNE (FFT)": partial(opentsne, x, "fft", threads),
            "openTSNE (Barnes-Hut)": partial(opentsne, x, "bh", threads),
            "scikit-learn (Barnes-Hut)": partial(scikit_learn, x, threads),
        }
        if rows > 3_000:  # by far the quicker there
            peers = {"openTSNE (FFT)": peers["openTSNE (FFT)"]}
        name = min(peers, key=lambda name: _seconds(peers[name]))
        yield Job(
            f"{STEPS} steps, {name_of(**where)}",
            lambda x=x: zoo.fit(zoo.create_model("tsne", num_steps=STEPS), x, device="cpu").embedding,
            peers[name],
            name,
            pairs=5 if rows <= 300 else 2 if rows <= 1_000 else 1,
            check=partial(_no_worse, x) if rows > 100 else None,  # so few come to rest in one of several minima
            where=where,
            quick=rows <= 300,
        )


def clouds(rows: int, features: int) -> Tensor:
    """Ten clouds that touch."""
    generator = torch.Generator().manual_seed(0)
    center = 2 * torch.randn(10, features, generator=generator)
    return torch.randn(rows, features, generator=generator) + center[torch.arange(rows) % 10]


def _no_worse(x: Tensor, mine: Any, other: Any) -> None:
    """Our divergence, over all pairs or over neighbours, is not a twentieth above the peer's."""
    rows = x.double()
    known = dense_affinities(rows, PERPLEXITY) if len(x) <= 1_000 else sparse_affinities(rows, PERPLEXITY)
    a, b = (float(kl_divergence(torch.as_tensor(points, dtype=torch.float64), known)) for points in (mine, other))
    if a > 1.05 * b:
        raise AssertionError(f"our KL divergence {a:.4f} is more than 5% above the peer's {b:.4f}")


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
