r"""What a t-SNE map starts from and what it minimizes, apart from who minimizes it.

Letters: N rows, D features, E dimensions of the map. The formulas are in `zoo.models.tsne.gradient`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from zoo.models.tsne.affinities import DenseAffinities, SparseAffinities, dense_affinities, sparse_affinities
from zoo.models.tsne.gradient import dense_forces, exact_repulsion, kl_divergence, sparse_attraction
from zoo.models.tsne.interpolation import GridRepulsion
from zoo.numerics.hashing import epoch_generator
from zoo.numerics.spectra import fix_signs

__all__ = ["MapObjective", "start_of_map"]

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


class MapObjective:
    """KL(P ‖ Q) of a map and its gradient, all pairs of points summed or the far ones interpolated.

    Args:
        rows: (N, D), or distances (N, N) for the metric `precomputed`.
        num_components: E.
        perplexity: below N.
        metric: one of `zoo.numerics.distances.METRICS`.
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
        self._helper: ThreadPoolExecutor | None = None
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
            attraction, repulsion, total = self._forces(points, self.affinities)
        return attraction.mul_(exaggeration).sub_(repulsion / total).mul_(4)

    def _forces(self, points: Tensor, affinities: SparseAffinities) -> tuple[Tensor, Tensor, Tensor]:
        if self._helper is None:
            return sparse_attraction(points, affinities), *self.repulsion(points)
        attraction = self._helper.submit(sparse_attraction, points, affinities)
        repulsion, total = self.repulsion(points)
        return attraction.result(), repulsion, total

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Inside, the two forces of a large map are computed at the same time, each by half of the threads.

        They are chains of some thirty short operations. Where each of these is split, it ends in a wait for the slowest
        thread, which on a busy machine is most of the time; side by side there is one wait a step.
        """
        threads = torch.get_num_threads()
        if isinstance(self.affinities, DenseAffinities) or self.affinities.weight.is_cuda or threads == 1:
            yield
            return
        # The number of threads is a setting of each thread's own, and new ones take what was set last.
        with ThreadPoolExecutor(1, "tsne", torch.set_num_threads, (threads - threads // 2,)) as self._helper:
            try:
                self._helper.submit(torch.get_num_threads).result()
                torch.set_num_threads(threads // 2)
                yield
            finally:
                self._helper = None
                torch.set_num_threads(threads)

    def divergence(self, points: Tensor) -> Tensor:
        """Return KL(P ‖ Q) of a map, in nats."""
        return kl_divergence(points, self.affinities, self.repulsion(points)[1])
