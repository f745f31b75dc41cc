r"""New rows in a finished t-SNE map: each is placed by itself, and the map stays as it is.

```math
\min_y \mathrm{KL}_y = \sum_j p_j \log \frac{p_j}{q_j}, \qquad q_j = \frac{w_j}{\sum_k w_k}, \qquad
w_j = \frac{1}{1 + |y - y_j|^2}, \qquad y^{(0)} = \sum_j p_j y_j
```

Legend: y the new point, E dimensions; y_j the N fixed points; p_j the conditional probabilities of the new row's K
nearest fitted rows, of perplexity 5. Q new rows are placed at once; none feels another, so that the result is the same
in any company.

Source: Poličar, Stražar & Zupan 2021, "Embedding to reference t-SNE space addresses batch effects in single-cell
classification", section 2.2.

Deviations: steps are cut to a quarter of a unit instead of gradients. A row that is equal to a fitted one takes its
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.models.tsne.affinities import conditional_probabilities
from zoo.models.tsne.interpolation import Field, GridRepulsion
from zoo.models.tsne.objective import map_weights

__all__ = ["ExactField", "fixed_field", "place"]

_MARGIN = 5.0  # how far outside the map a new point may come to lie
_CHUNK_ELEMENTS = 1 << 20


class ExactField:
    """The repulsion of a fixed map of any dimension, summed over all its points.

    Args:
        points: the fixed map, (N, E).
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points
        self.low, self.high = points.amin(0) - _MARGIN, points.amax(0) + _MARGIN

    def __call__(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forces (Q, E) and the sums of weights (Q,) at queries (Q, E)."""
        forces, totals = [], []
        rows = max(1, _CHUNK_ELEMENTS // len(self.points))
        for part in (queries,) if torch.compiler.is_exporting() else queries.split(rows):
            weight = map_weights(part, self.points)  # (C, N)
            totals.append(weight.sum(1))
            weight = weight.square_()
            forces.append(weight.sum(1, keepdim=True) * part - weight @ self.points)
        return torch.cat(forces), torch.cat(totals)

    def clamp(self, queries: Tensor) -> Tensor:
        """Return queries (Q, E) moved to the nearest place within reach of the map."""
        return queries.clamp(self.low, self.high)


def fixed_field(points: Tensor) -> Field | ExactField:
    """Return the repulsion of a fixed map (N, E): interpolated in two dimensions, exact in others."""
    return GridRepulsion().field(points, _MARGIN) if points.shape[1] == 2 else ExactField(points)


def place(
    distance: Tensor,
    neighbor: Tensor,
    points: Tensor,
    descend: Callable[[Tensor, Tensor, Tensor, Tensor], None],
    perplexity: float = 5.0,
    steps: int = 250,
    exaggeration: float = 1.5,
    *,
    field: Field | ExactField | None = None,
    loop: Callable[..., Any] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return where new rows lie in the map, and what divergence is left of each.

    Args:
        distance: of each new row to its nearest fitted rows, (Q, K), the nearest first.
        neighbor: which rows these are, (Q, K).
        points: the fixed map, (N, E).
        descend: moves places (Q, E) in place, given the gradient, the last update and the gains, of the same shape.
        perplexity: of p_j; a third of K suits.
        steps: how often they are moved; 0 leaves the new points at their start.
        exaggeration: of p_j while they are moved.
        field: the repulsion of the map, where it is known already.
        loop: what a trace keeps as a loop, `zoo.layers.loop.traced_loop`; None outside of one.

    Returns:
        Places (Q, E) and divergences (Q,).

    Example:
        >>> from zoo.optimizers.delta_bar_delta import delta_bar_delta_
        >>> points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> place(torch.tensor([[1.0, 1.0]]), torch.tensor([[0, 1]]), points, delta_bar_delta_, steps=0)[0]
        tensor([[2., 0.]])
    """
    probability = conditional_probabilities(distance.double().square(), perplexity, loop=loop).to(
        points.dtype
    )  # (Q, K)
    near = points[neighbor]  # (Q, K, E)
    start = torch.linalg.vecdot(probability[..., None], near, dim=1)  # (Q, E)
    repel = fixed_field(points) if field is None else field
    known = start, torch.zeros_like(start), torch.ones_like(start)  # place, last update, gains

    def step(place: Tensor, update: Tensor, gain: Tensor) -> None:
        attraction, _ = _attraction(place, near, probability)
        repulsion, total = repel(place)
        descend(place, (exaggeration * attraction - repulsion / total[:, None]).mul_(4), update, gain)
        place.copy_(repel.clamp(place))

    def once(known: tuple[Tensor, ...], turn: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        fresh = tuple(part.clone() for part in known)
        step(*fresh)
        return fresh, turn

    if loop is not None:
        known = loop(once, known, torch.arange(steps, device=points.device))[0]
    else:
        for _ in range(steps):
            step(*known)
    place = torch.where(distance[:, :1] == 0, near[:, 0], known[0])
    _, log_weight = _attraction(place, near, probability)
    cross = torch.linalg.vecdot(probability, log_weight)
    divergence = torch.xlogy(probability, probability).sum(1) - cross + repel(place)[1].log()
    return place, divergence


def _attraction(place: Tensor, near: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_j p_j w_j (y − y_j), (Q, E), and log w, (Q, K)."""
    difference = place[:, None] - near  # (Q, K, E)
    denominator = 1 + difference.square().sum(2)
    return ((probability / denominator)[..., None] * difference).sum(1), -denominator.log()
