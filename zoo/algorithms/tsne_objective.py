r"""What a t-SNE map starts from and what it minimizes, apart from who minimizes it.

Letters: N rows, D features, E dimensions of the map. The formulas are in `zoo.algorithms.tsne_gradient`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from zoo.algorithms.spectra import fix_signs
from zoo.algorithms.tsne_affinities import DenseAffinities, SparseAffinities, dense_affinities, sparse_affinities
from zoo.algorithms.tsne_gradient import dense_forces, exact_repulsion, kl_divergence, sparse_attraction
from zoo.algorithms.tsne_interpolation import GridRepulsion
from zoo.data.sampler import epoch_generator

__all__ = ["MapObjective", "side_by_side", "start_of_map"]

S, T = TypeVar("S"), TypeVar("T")

_EXACT_ROWS = 5000  # the most for which all pairs are looked at by default
_FEW_ROWS = 300  # interpolating the repulsion of fewer saves nothing
_START_DEVIATION = 1e-4


def start_of_map(rows: Tensor, num_components: int, init: str = "pca", seed: int = 0) -> Tensor:
    """Return where the optimization starts: principal components (or noise) of standard deviation 1e-4.

    Noise of a hundredth of that parts rows that are equal, and fills in for components that the rows do not have.

    Args:
        rows: (N, D).
        num_components: E.
        init: `pca` or `random`.
        seed: of the noise.

    Returns:
        (N, E), float64.
    """
    noise = torch.randn(len(rows), num_components, generator=epoch_generator(seed), dtype=torch.float64)
    noise = noise.to(rows.device) * _START_DEVIATION
    if init == "random":
        return noise
    centred = rows.double() - rows.double().mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = fix_signs(vectors.T.flip(0)[:num_components])
    start = centred @ axes.T
    deviation = start[:, 0].std(correction=0)
    noise[:, : len(axes)] *= 0.01
    if deviation > 0:
        noise[:, : len(axes)] += start * (_START_DEVIATION / deviation)
    return noise


def side_by_side(first: Callable[[], T], second: Callable[[], S], device: torch.device) -> tuple[T, S]:
    """Return the results of two computations that each take half of the processor's threads, at the same time.

    Both forces are chains of some thirty short operations. Split one by one, each of these ends in a wait for the
    slowest thread, which on a busy machine is most of the time; side by side there is one wait a step.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return first(), second()
    other = _workers(threads).submit(first)
    torch.set_num_threads(threads // 2)
    try:
        mine = second()
    finally:
        torch.set_num_threads(threads)
    return other.result(), mine


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    # The number of threads is one of each thread's own settings, and the second half is the caller's.
    return ThreadPoolExecutor(1, "tsne", torch.set_num_threads, (threads - threads // 2,))


class MapObjective:
    """KL(P ‖ Q) of a map and its gradient, all pairs of points summed or the far ones interpolated.

    Args:
        rows: (N, D), or distances (N, N) for the metric `precomputed`.
        num_components: E.
        perplexity: below N.
        metric: one of `zoo.algorithms.neighbors.METRICS`.
        method: `exact`, `fft` (for E = 2), or `auto`: `fft` above 5,000 rows.
        num_neighbors: of a row, which enter P; None for all up to 5,000 rows (and for `exact`), else 3 · perplexity.

    Raises:
        ZooError: if the perplexity is not below N, or N is 1.

    Example:
        >>> rows = points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> MapObjective(rows, num_components=1, perplexity=1).gradient(points, exaggeration=2.0)
        tensor([[-1.],
                [ 1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        rows: Tensor,
        num_components: int = 2,
        perplexity: float = 30.0,
        metric: str = "euclidean",
        method: str = "auto",
        num_neighbors: int | None = None,
    ) -> None:
        large = method == "fft" or (method == "auto" and len(rows) > _EXACT_ROWS)
        self.affinities: DenseAffinities | SparseAffinities
        if large or num_neighbors is not None:
            self.affinities = sparse_affinities(rows, perplexity, metric, num_neighbors)
        else:
            self.affinities = dense_affinities(rows.double(), perplexity, metric)
        interpolate = large and num_components == 2 and len(rows) > _FEW_ROWS
        self.repulsion = GridRepulsion() if interpolate else exact_repulsion

    def to(self, like: Tensor) -> MapObjective:
        """Bring P to the type and device of a map; returns itself."""
        self.affinities = self.affinities.to(like.dtype, like.device)
        return self

    def gradient(self, points: Tensor, exaggeration: float = 1.0) -> Tensor:
        """Return 4 (exaggeration · attraction − repulsion / Z) of a map, (N, E)."""
        if isinstance(self.affinities, DenseAffinities):
            attraction, repulsion, total = dense_forces(points, self.affinities)
        else:
            affinities = self.affinities
            attraction, (repulsion, total) = side_by_side(
                lambda: sparse_attraction(points, affinities), lambda: self.repulsion(points), points.device
            )
        return attraction.mul_(exaggeration).sub_(repulsion / total).mul_(4)

    def divergence(self, points: Tensor) -> Tensor:
        """Return KL(P ‖ Q) of a map, in nats."""
        return kl_divergence(points, self.affinities, self.repulsion(points)[1])
