"""What models that need all rows at once share: the pass collects them, in an order of their own.

The order of rows follows from what stands in them, so that the answer is the same, to the bit, for any batch size, any
number of processes and any order in which they came. Memory: N rows of F features take 8 N (F + 2) bytes until they are
solved, and none afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base.streaming import StreamingModel
from zoo.numerics.hashing import content_hash

__all__ = ["Collected", "CollectsRows"]


class Collected(NamedTuple):
    """The rows of a pass.

    Attributes:
        x: rows with a weight above 0, (N, F), float64.
        y: targets, (N,) or (N, K).
        weight: sample weights, (N,).
        place: of each row among those that came, (N,).
        rank: place of each row in an order that does not depend on how they came, (N,).
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    place: Tensor
    rank: Tensor


_Base: Any = StreamingModel if TYPE_CHECKING else object


class CollectsRows(_Base):
    """A mixin for streaming models whose pass collects the rows."""

    rows: Tensor
    targets: Tensor
    weights: Tensor
    _pending: Any = ()  # nothing, where a solver collects no rows and a run goes on within its pass

    def collect(self, num_features: int, num_targets: int = 1) -> None:
        """Register room for the rows; in `initialize`."""
        self.register_accumulator("rows", torch.zeros(0, num_features, dtype=torch.float64))
        self.register_accumulator("targets", torch.zeros(0, num_targets, dtype=torch.float64))
        self.register_accumulator("weights", torch.zeros(0, dtype=torch.float64))
        self._pending = []

    def accumulate(self, batch: Batch) -> None:
        x = batch.x.flatten(1)
        y = x.new_zeros(len(x), 1) if batch.y is None or self.entry.unsupervised else batch.y.reshape(len(x), -1)
        weight = x.new_ones(len(x)) if batch.weight is None else batch.weight
        self._pending.append((x, y.to(x.dtype), weight))

    def reset_accumulators(self) -> None:
        super().reset_accumulators()
        self._pending = []

    def _state(self) -> dict[str, Tensor]:
        if self._pending:
            kept = [] if not len(self.rows) else [(self.rows, self.targets, self.weights)]
            parts = [*kept, *self._pending]
            columns = parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))
            self.rows, self.targets, self.weights = columns
            self._pending = []
        return super()._state()

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def take(self, *, sort: bool = True) -> Collected:
        """Return the rows of the pass, and forget them.

        Args:
            sort: whether to put them in the order that follows from what stands in them.

        Raises:
            ZooError: where there is no row of a positive weight, or a weight below 0, or an infinite value.
        """
        state, name = self._state(), self.entry.name
        x, y, weight = state["rows"], state["targets"], state["weights"]
        self.reset_accumulators()
        if bool((weight < 0).any()):
            raise ZooError(f"{name} was given a sample weight below 0: weights must be 0 or more.")
        place = torch.arange(len(x), device=x.device)
        if bool((weight == 0).any()):
            place = (weight > 0).nonzero().flatten()
            x, y, weight = x[place], y[place], weight[place]
        if not len(x):
            raise ZooError(f"There is no row with a positive weight to fit {name} to.")
        if not bool(torch.isfinite(x.sum() + y.sum() + weight.sum())) and not bool(torch.isfinite(x).all()):
            raise ZooError(f"{name} met NaN or infinite values in the data: drop those rows or fill them in first.")
        hashes = content_hash(x), content_hash(torch.cat([y, weight[:, None]], 1))
        order = (hashes[0] ^ (hashes[1] * 0x9E3779B1)).argsort(stable=True)
        found = Collected(x, y.squeeze(1), weight, place, order.argsort())
        return Collected(*(column[order] for column in found)) if sort else found
