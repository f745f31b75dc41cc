"""t-SNE of 20,000 MNIST images (50 components, 750 steps) beside openTSNE (FFT) and scikit-learn (Barnes-Hut)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from benchmarks import Job
from zoo.models.tsne.affinities import SparseAffinities, sparse_affinities
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


def opentsne() -> Any:
    from openTSNE import TSNE

    peer = TSNE(
        perplexity=PERPLEXITY,
        early_exaggeration_iter=EARLY_STEPS,
        n_iter=STEPS - EARLY_STEPS,
        negative_gradient_method="fft",
        n_jobs=THREADS,
        random_state=0,
    )
    return peer.fit(images().double().numpy())


def scikit_learn() -> Any:
    from sklearn.manifold import TSNE

    return TSNE(perplexity=PERPLEXITY, max_iter=STEPS, n_jobs=THREADS, random_state=0).fit_transform(images().numpy())


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
