r"""What t-SNE minimizes, and its gradient: how far a map's nearness Q is from the rows' nearness P.

```math
\mathrm{KL}(P \| Q) = \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad q_{ij} = \frac{w_{ij}}{Z}, \qquad
w_{ij} = \frac{1}{1 + |y_i - y_j|^2}, \qquad Z = \sum_{i \ne j} w_{ij}
```
```math
\frac{\partial \mathrm{KL}}{\partial y_i} = 4 \Big( \underbrace{\sum_j p_{ij} w_{ij} (y_i - y_j)}_{\text{attraction}}
- \frac{1}{Z} \underbrace{\sum_j w_{ij}^2 (y_i - y_j)}_{\text{repulsion}} \Big)
```

| symbol | shape | meaning |
|---|---|---|
| Y | (N, E) | the map: one point of E dimensions a row |
| P | (N, N) | affinities, dense or over M near pairs (`zoo.models.tsne.affinities`) |
| C | | rows of a chunk, so that an N × N matrix is never held for Y |

Source: van der Maaten & Hinton 2008, equations 4 and 5; the split into two forces: van der Maaten 2014, section 4.2.
Far pairs may be interpolated instead (`zoo.models.tsne.interpolation`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from zoo.kernels import tsne as kernel
from zoo.models.tsne.affinities import DenseAffinities, SparseAffinities, dense_affinities, sparse_affinities
from zoo.models.tsne.interpolation import GridRepulsion

__all__ = [
    "MapObjective",
    "dense_forces",
    "exact_repulsion",
    "kl_divergence",
    "map_weights",
    "sparse_attraction",
    "unit_scale",
]

_CHUNK_ELEMENTS = 1 << 20  # entries of a chunk: its matrices stay within the processor's cache
_DENSE_ROWS = 1000  # the most of which all pairs enter P by default
_FEW_ROWS = 300  # interpolating the repulsion of fewer saves nothing
_SWEPT_ROWS = {True: 10_000, False: 2000}  # the most whose repulsion is summed by default, with a kernel or without


def map_weights(queries: Tensor, points: Tensor) -> Tensor:
    """Return w = 1 / (1 + |q − y|²) of queries (C, E) and points (N, E) as a matrix (C, N)."""
    denominator = queries.new_ones(queries.shape[0], points.shape[0])  # a trace takes any number of queries
    for query, point in zip(queries.T, points.T, strict=True):
        denominator += (query[:, None] - point).square_()
    return denominator.reciprocal_()


def _forces(coefficient: Tensor, queries: Tensor, points: Tensor) -> Tensor:
    """Σ_j c_ij (q_i − y_j) of coefficients (C, N)."""
    return coefficient.sum(1, keepdim=True) * queries - coefficient @ points


def dense_forces(points: Tensor, affinities: DenseAffinities) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return attraction (N, E), repulsion $\sum_j w_{ij}^2 (y_i - y_j)$ (N, E) and Z in one sweep over all pairs.

    Example:
        >>> half = DenseAffinities(torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
        >>> dense_forces(torch.tensor([[0.0], [1.0]]), half)
        (tensor([[-0.2500],
                [ 0.2500]]), tensor([[-0.2500],
                [ 0.2500]]), tensor(1.))
    """
    return _sweep(points, affinities.matrix)


def exact_repulsion(points: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $\sum_j w_{ij}^2 (y_i - y_j)$ (N, E) and Z, in time quadratic and memory linear in N.

    Example:
        >>> exact_repulsion(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        (tensor([[-0.2500,  0.0000],
                [ 0.2500,  0.0000]]), tensor(1.))
    """
    return _sweep(points, None)[1:]


def _sweep(points: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if kernel.available(points):
        return kernel.tsne_sweep(points, matrix)
    attracted, repelled, total = torch.zeros_like(points), torch.empty_like(points), points.new_zeros(())
    size = max(1, _CHUNK_ELEMENTS // len(points))
    for start in range(0, len(points), size):
        chunk = slice(start, start + size)
        weight = map_weights(points[chunk], points)  # (C, N)
        total += weight.sum()
        if matrix is not None:
            attracted[chunk] = _forces(matrix[chunk] * weight, points[chunk], points)
        repelled[chunk] = _forces(weight.square_(), points[chunk], points)
    return attracted, repelled, total - len(points)


def sparse_attraction(points: Tensor, affinities: SparseAffinities) -> Tensor:
    r"""Return $\sum_j p_{ij} w_{ij} (y_i - y_j)$, (N, E), in time linear in the number of near pairs.

    Example:
        >>> from zoo.models.tsne.affinities import sparse_affinities
        >>> near = sparse_affinities(torch.tensor([[0.0], [1.0]]), perplexity=1).to(torch.float32, "cpu")
        >>> sparse_attraction(torch.tensor([[0.0], [1.0]]), near)
        tensor([[-0.2500],
                [ 0.2500]])
    """
    if kernel.available(points) and affinities.weight.dtype == points.dtype:
        return kernel.tsne_pull(points, affinities.pointer, affinities.column, affinities.entry)
    coefficient = affinities.weight / _pair_denominator(points, affinities)  # (M,)
    shape = (len(points), len(points))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # "beta state"
        matrix = torch.sparse_csr_tensor(
            affinities.pointer, affinities.column, coefficient.gather(0, affinities.pair), shape, check_invariants=False
        )
    # A last column of ones brings the row sums out of the same product.
    product = matrix @ torch.cat([points, torch.ones_like(points[:, :1])], 1)  # (N, E + 1)
    return product[:, -1:] * points - product[:, :-1]


def _pair_denominator(points: Tensor, affinities: SparseAffinities) -> Tensor:
    """1 + |y_i − y_j|² of each near pair, (M,)."""
    total: Tensor | None = None
    for coordinate in points.T.contiguous():
        difference = coordinate.gather(0, affinities.source).sub_(coordinate.gather(0, affinities.target))
        total = difference.square_().add_(1) if total is None else total.addcmul_(difference, difference)
    assert total is not None
    return total


def kl_divergence(
    points: Tensor, affinities: DenseAffinities | SparseAffinities, total: Tensor | None = None
) -> Tensor:
    r"""Return KL(P ‖ Q) in nats, differentiable; a pair with p = 0 counts nothing.

    Args:
        points: the map (N, E).
        affinities: P.
        total: Z if it is known, such as from the interpolation; otherwise it is summed exactly.

    Example:
        >>> half = DenseAffinities(torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
        >>> kl_divergence(torch.tensor([[0.0], [1.0]]), half)
        tensor(0.)
    """
    size = max(1, _CHUNK_ELEMENTS // len(points))
    parts = points.split(size)
    if total is None:
        total = torch.stack([map_weights(part, points).sum() for part in parts]).sum() - len(points)
    if isinstance(affinities, SparseAffinities):
        weight = affinities.weight
        cross = 2 * (weight @ _pair_denominator(points, affinities).log())
        return affinities.negative_entropy + cross + 2 * weight.sum() * total.log()
    value = affinities.negative_entropy
    for part, matrix in zip(parts, affinities.matrix.split(size), strict=True):
        value = value - (matrix * map_weights(part, points).log()).sum()
    return value + affinities.matrix.sum() * total.log()


def unit_scale(rows: Tensor, like: Tensor | None = None) -> Tensor:
    """Return rows, or distances, over the power of two that brings those of `like` to about 1.

    Affinities do not depend on it, it rounds nothing, and no square overflows or vanishes.
    """
    like = rows if like is None else like
    largest = float(like.abs().amax()) if like.numel() else 0.0
    if 1e-6 < largest < 1e6 or largest == 0:
        return rows
    power = -math.frexp(largest)[1]
    return (
        rows * 2.0 ** (power // 2) * 2.0 ** (power - power // 2)
    )  # the power of a denormal number is too large for one


class MapObjective:
    """KL(P ‖ Q) of a map and its gradient, all pairs of points summed or the far ones interpolated.

    Args:
        rows: (N, D), or distances (N, N) for the metric `precomputed`.
        num_components: E.
        perplexity: below N.
        metric: one of `zoo.numerics.distances.METRICS`.
        method: `exact`, `fft` (for E = 2), or `auto`: above 1,000 rows only the nearest enter P, and above 10,000 (or
            2,000, where there is no kernel) far points are interpolated.
        num_neighbors: of a row, which enter P; None for all up to 1,000 rows (and for `exact`), else 3 · perplexity.

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
        rows, self.method = unit_scale(rows), method
        self.affinities: DenseAffinities | SparseAffinities
        large = method == "fft" or (method == "auto" and len(rows) > _DENSE_ROWS)
        if large or num_neighbors is not None:
            self.affinities = sparse_affinities(rows, perplexity, metric, num_neighbors)
        else:
            self.affinities = dense_affinities(rows.double(), perplexity, metric)
        self._helper: ThreadPoolExecutor | None = None
        self._interpolated = GridRepulsion() if num_components == 2 and method != "exact" else None

    def to(self, like: Tensor) -> MapObjective:
        """Bring P to the type and device of a map; returns itself."""
        self.affinities = self.affinities.to(like.dtype, like.device)
        return self

    def _interpolates(self, points: Tensor) -> bool:
        most = _FEW_ROWS if self.method == "fft" else _SWEPT_ROWS[kernel.available(points)]
        return self._interpolated is not None and len(points) > most

    def repulsion(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of the repulsion (N, E), and Z, of all pairs or interpolated."""
        if self._interpolated is not None and self._interpolates(points):
            return self._interpolated(points)
        return exact_repulsion(points)

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
    def side_by_side(self, points: Tensor) -> Iterator[None]:
        """Inside, the two forces of a map that is interpolated are computed at once, each by half of the threads.

        They are chains of some thirty short operations. Where each of these is split, it ends in a wait for the slowest
        thread, which on a busy machine is most of the time; side by side there is one wait a step.
        """
        threads = torch.get_num_threads()
        sparse = self.affinities if isinstance(self.affinities, SparseAffinities) else None
        if sparse is None or sparse.weight.is_cuda or threads == 1 or not self._interpolates(points):
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
