r"""Affinities of t-SNE: how near each pair of rows is, as a probability.

```math
p_{j|i} = \frac{\exp(-\beta_i \delta_{ij}^2)}{\sum_{k \ne i} \exp(-\beta_i \delta_{ik}^2)}, \qquad
p_{ij} = \frac{p_{j|i} + p_{i|j}}{2N}, \qquad -\sum_j p_{j|i} \log p_{j|i} = \log \mathrm{perplexity}
```

| symbol | shape | meaning |
|---|---|---|
| δ | (N, K) | distances of each row to K others: all of them, or the nearest 3 · perplexity |
| β | (N,) | precision of each row's Gaussian, from the last equation |
| P | (N, N) | joint probabilities, symmetric, of sum 1; sparse over M pairs i < j where K is small |

Source: van der Maaten & Hinton 2008, section 3 (dense); van der Maaten 2014, section 4.1 (sparse).

Deviations: β is found by Newton's method in log β, held in the bracket of the bisection that the papers use, so
that the entropy is met to 1e-10 rather than 1e-5. Distances of any metric are squared, as the Euclidean ones are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.numerics.distances import pairwise_distances
from zoo.numerics.neighbors import nearest_neighbors

__all__ = [
    "DenseAffinities",
    "SparseAffinities",
    "check_perplexity",
    "conditional_probabilities",
    "dense_affinities",
    "sparse_affinities",
]

_CHUNK_ELEMENTS = 1 << 22  # entries whose conditional probabilities are sought at a time: 32 MB in float64
_NOTHING = 1e-30  # an affinity that changes no digit of a map, whose forces would be denormal numbers in float32
_TURNS = 64  # of the search in a trace, which cannot end sooner; Newton's method takes some ten


def check_perplexity(perplexity: float, num_rows: int) -> None:
    """Raise one line unless `num_rows` rows can have the perplexity.

    >>> check_perplexity(30, 20)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: A perplexity of 30 needs more than 30 rows, and these are 20: pass model.perplexity below 20.
    """
    if num_rows < 2:
        raise ZooError(f"t-SNE needs at least 2 rows, got {num_rows}: a single row has no neighbours.")
    if not perplexity < num_rows:
        raise ZooError(
            f"A perplexity of {perplexity:g} needs more than {perplexity:g} rows, and these are {num_rows}: "
            f"pass model.perplexity below {num_rows}."
        )


def conditional_probabilities(
    squared: Tensor, perplexity: float, tolerance: float = 1e-10, loop: Callable[..., Any] | None = None
) -> Tensor:
    r"""Return $p_{j|i}$ whose entropy is the logarithm of `perplexity`, row by row.

    Args:
        squared: squared distances (N, K).
        perplexity: effective number of neighbours, above 0. One of K or more gives equal probabilities; so does,
            among the nearest, one below the number of those that are equally near.
        tolerance: largest error of the entropy, in nats (of float32 distances, 1e-5 is the least that can be met).
        loop: what a trace keeps as a loop, `zoo.layers.loop.traced_loop`; None outside of one.

    Returns:
        (N, K), each row of sum 1.

    Example:
        >>> p = conditional_probabilities(torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64), perplexity=2)
        >>> torch.special.entr(p).sum().exp()
        tensor(2.0000, dtype=torch.float64)
    """
    if loop is not None:
        return _search(squared, perplexity, tolerance, loop)
    return torch.cat([_search(part, perplexity, tolerance) for part in squared.split(_rows_at_once(squared.shape[1]))])


def _rows_at_once(width: int) -> int:
    return max(1, _CHUNK_ELEMENTS // max(width, 1))


def _search(squared: Tensor, perplexity: float, tolerance: float, loop: Callable[..., Any] | None = None) -> Tensor:
    """The roots of H(log β) = log perplexity for all rows: Newton steps, bisection where one leaves the bracket."""
    squared = squared - squared.amin(1, keepdim=True)  # the nearest at 0, so that no row underflows
    nearest = squared == 0
    target = math.log(perplexity)
    if perplexity >= squared.shape[1]:
        return torch.full_like(squared, 1 / squared.shape[1])
    hopeless = nearest.sum(1).log() >= target
    log_beta = -squared.mean(1).clamp_min(torch.finfo(squared.dtype).tiny).log()
    known = log_beta, torch.full_like(log_beta, -math.inf), torch.full_like(log_beta, math.inf)
    if loop is not None:

        def once(known: tuple[Tensor, ...], turn: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            _, excess, better = _turn(squared, known, target)
            found = excess.abs() <= tolerance  # a row that is there stays
            return tuple(torch.where(found, old, new) for old, new in zip(known, better, strict=True)), excess

        known = loop(once, known, torch.arange(_TURNS, device=squared.device))[0]
        probability = _entropy(squared, known[0], target)[0]
    else:
        for _ in range(200):
            probability, excess, known = _turn(squared, known, target)
            if bool((hopeless | (excess.abs() <= tolerance)).all()):
                break
    return torch.where(hopeless[:, None], nearest / nearest.sum(1, keepdim=True), probability)


def _turn(
    squared: Tensor, known: tuple[Tensor, ...], target: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Probabilities and excess of the entropy at log β, and the next log β with its bracket."""
    log_beta, low, high = known
    probability, excess, slope = _entropy(squared, log_beta, target)
    low = torch.where(excess > 0, log_beta, low)  # entropy falls as β grows
    high = torch.where(excess < 0, log_beta, high)
    return probability, excess, (_next_guess(log_beta, log_beta + excess / slope, low, high), low, high)


def _entropy(squared: Tensor, log_beta: Tensor, target: float) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (N, K), their entropy less the target, and −dH/d log β = β² Var(δ²)."""
    energy = squared * log_beta.exp()[:, None]
    weight = (-energy).exp()
    total = weight.sum(1)
    probability = weight.div_(total[:, None])
    mean = torch.linalg.vecdot(probability, energy)
    variance = torch.linalg.vecdot(probability, energy.square_()) - mean.square()
    return probability, total.log() + mean - target, variance


def _next_guess(log_beta: Tensor, newton: Tensor, low: Tensor, high: Tensor) -> Tensor:
    middle = torch.where(low.isinf(), log_beta - 2, torch.where(high.isinf(), log_beta + 2, (low + high) / 2))
    # Newton may leave a bracket of one known end as far as 5 in log β, which is more than it ever needs.
    # A row that is there stays: its step is lost in rounding, and the middle of its bracket would be far off.
    inside = (newton >= low) & (newton <= high) & ((newton - log_beta).abs() < 5)
    return torch.where(inside, newton, middle)


@dataclass(frozen=True)
class DenseAffinities:
    """Joint probabilities of all pairs.

    Attributes:
        matrix: P, (N, N), symmetric, zero on the diagonal.
    """

    matrix: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str) -> DenseAffinities:
        """Return the affinities in a type and on a device; those below 1e-30 are zero, as denormal ones are slow."""
        return DenseAffinities(torch.where(self.matrix < _NOTHING, 0, self.matrix).to(device, dtype))

    @functools.cached_property
    def negative_entropy(self) -> Tensor:
        """Sum of p log p."""
        return torch.xlogy(self.matrix, self.matrix).sum()


@dataclass(frozen=True)
class SparseAffinities:
    """Joint probabilities of the M pairs that are near, as a list of pairs and as a symmetric matrix of 2M entries.

    A force is computed once a pair and then serves both of its entries in the matrix.

    Attributes:
        source, target: rows i < j of each pair, (M,) int64, in lexicographic order.
        weight: p_ij, (M,); twice their sum is 1.
        pointer, column: the matrix's pattern in compressed rows, (N + 1,) and (2M,) int32.
        pair: which pair each entry of the matrix belongs to, (2M,) int64.
    """

    source: Tensor
    target: Tensor
    weight: Tensor
    pointer: Tensor
    column: Tensor
    pair: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str) -> SparseAffinities:
        """Return the affinities in a type and on a device."""
        indices = (t.to(device) for t in (self.pointer, self.column, self.pair))
        return SparseAffinities(self.source.to(device), self.target.to(device), self.weight.to(device, dtype), *indices)

    @functools.cached_property
    def entry(self) -> Tensor:
        """p_ij of each entry of the matrix, (2M,)."""
        return self.weight.gather(0, self.pair)

    @functools.cached_property
    def negative_entropy(self) -> Tensor:
        """Sum of p log p, each pair twice as in the matrix."""
        return 2 * torch.xlogy(self.weight, self.weight).sum()

    def dense(self) -> Tensor:
        """Return P as a matrix (N, N)."""
        num_rows = len(self.pointer) - 1
        matrix = self.weight.new_zeros(num_rows, num_rows)
        matrix[self.source, self.target] = self.weight
        matrix[self.target, self.source] = self.weight
        return matrix


def dense_affinities(rows: Tensor, perplexity: float, metric: str = "euclidean") -> DenseAffinities:
    """Return the joint probabilities of all pairs of rows (N, D), in memory quadratic in N.

    Raises:
        ZooError: if the perplexity is not below N, or N is 1.

    Example:
        >>> dense_affinities(torch.tensor([[0.0], [1.0], [2.0]]), perplexity=2).matrix
        tensor([[0.0000, 0.1667, 0.1667],
                [0.1667, 0.0000, 0.1667],
                [0.1667, 0.1667, 0.0000]])
    """
    check_perplexity(perplexity, len(rows))
    size = len(rows)
    matrix = rows.new_zeros(size, size)
    for start in range(0, size, _rows_at_once(size)):
        stop = min(start + _rows_at_once(size), size)
        other = torch.ones(stop - start, size, dtype=torch.bool, device=rows.device)
        other.diagonal(start).fill_(False)
        distance = pairwise_distances(rows[start:stop], rows, metric)
        squared = distance[other].view(stop - start, size - 1).square_()
        matrix[start:stop][other] = conditional_probabilities(squared, perplexity).flatten()
    return DenseAffinities((matrix + matrix.T).div_(2 * size))


def sparse_affinities(
    rows: Tensor, perplexity: float, metric: str = "euclidean", num_neighbors: int | None = None
) -> SparseAffinities:
    """Return the joint probabilities of each row (N, D) and its nearest neighbours.

    Args:
        rows: (N, D); a matrix of distances for the metric `precomputed`.
        perplexity: effective number of neighbours, below N.
        metric: one of `zoo.numerics.distances.METRICS`.
        num_neighbors: K, by default 3 · perplexity, at most N − 1.

    Raises:
        ZooError: if the perplexity is not below N, or N is 1.

    Example:
        >>> near = sparse_affinities(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), perplexity=1, num_neighbors=1)
        >>> near.source.tolist(), near.target.tolist(), near.weight.tolist()
        ([0, 1, 2], [1, 2, 3], [0.25, 0.125, 0.125])
    """
    check_perplexity(perplexity, len(rows))
    wanted = math.ceil(3 * perplexity) if num_neighbors is None else num_neighbors
    distance, neighbor = nearest_neighbors(rows, min(wanted, len(rows) - 1), metric=metric)
    conditional = conditional_probabilities(distance.double().square_(), perplexity)
    return symmetrize(neighbor, conditional)


def symmetrize(neighbor: Tensor, conditional: Tensor) -> SparseAffinities:
    """Return p_ij = (p_{j|i} + p_{i|j}) / 2N of neighbours' indices and conditional probabilities, both (N, K)."""
    size = len(neighbor)
    row = torch.arange(size, device=neighbor.device)[:, None]
    key = (torch.minimum(row, neighbor) * size + torch.maximum(row, neighbor)).flatten()
    pairs, position = key.unique(return_inverse=True)
    weight = conditional.new_zeros(len(pairs)).index_add_(0, position, conditional.flatten()) / (2 * size)
    source, target = pairs // size, pairs % size
    order = torch.cat([pairs, target * size + source]).argsort()
    starts, ends = torch.cat([source, target]), torch.cat([target, source])
    pointer = torch.cat([starts.new_zeros(1), starts.bincount(minlength=size).cumsum(0)])
    return SparseAffinities(source, target, weight, pointer.int(), ends[order].int(), order % len(pairs))
