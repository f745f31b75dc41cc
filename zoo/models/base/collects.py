"""What models that need all rows at once share: the pass collects them, in an order of their own.

The order of rows follows from what stands in them, so that the answer is the same, to the bit, for any batch size, any
number of processes and any order in which they came. Memory: N rows of F features take 8 N (F + 2) bytes until they are
solved (sparse ones 16 bytes a stored number), and none afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.models.base.streaming import StreamingModel
from zoo.numerics.hashing import content_order
from zoo.numerics.sparse import as_rows, is_sparse, sparse_rows, stored, take_rows

__all__ = ["Collected", "CollectsRows"]


class Collected(NamedTuple):
    """The rows of a pass.

    Attributes:
        x: rows with a weight above 0, (N, F), float64; a sparse matrix (CSR) where the batches held such.
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

    def collect(self, num_features: int, num_targets: int = 1, *, sparse: bool = False) -> None:
        """Register room for the rows, or for what sparse ones store; in `initialize`."""
        real = {"rows": (0, num_features), "targets": (0, num_targets), "weights": (0,)}
        if sparse:  # of which parts may follow each other like those of the others
            del real["rows"]
            real["row_values"] = (0,)
            for name in ("row_lengths", "row_columns"):
                self.register_accumulator(name, torch.zeros(0, dtype=torch.int64))
        for name, shape in real.items():
            self.register_accumulator(name, torch.zeros(shape, dtype=torch.float64))

    def accumulate(self, batch: Batch) -> None:
        x, size = as_rows(batch.x), batch.size
        y = x.new_zeros(size, 1) if batch.y is None or self.entry.unsupervised else batch.y.reshape(size, -1)
        weight = stored(x).new_ones(size) if batch.weight is None else batch.weight
        part = {"targets": y.to(x.dtype), "weights": weight}
        if is_sparse(x):
            part |= {"row_lengths": x.crow_indices().diff(), "row_columns": x.col_indices(), "row_values": x.values()}
        else:
            part["rows"] = x
        self.append(**part)

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
        y, weight = state["targets"], state["weights"]
        x = state["rows"] if "rows" in state else self._sparse(state)
        self.reset_accumulators()
        if bool((weight < 0).any()):
            raise ZooError(f"{name} was given a sample weight below 0: weights must be 0 or more.")
        place = torch.arange(len(x), device=x.device)
        if bool((weight == 0).any()):
            place = (weight > 0).nonzero().flatten()
            x, y, weight = take_rows(x, place), y[place], weight[place]
        if not len(y):
            raise ZooError(f"There is no row with a positive weight to fit {name} to.")
        numbers = stored(x)
        if not bool(torch.isfinite(numbers.sum() + y.sum() + weight.sum())) and not bool(numbers.isfinite().all()):
            raise ZooError(f"{name} met NaN or infinite values in the data: drop those rows or fill them in first.")
        order = content_order(x, y, weight)
        found = Collected(x, y.squeeze(1), weight, place, order.argsort())
        return Collected(*(take_rows(column, order) for column in found)) if sort else found

    def _sparse(self, state: dict[str, Tensor]) -> Tensor:
        """The matrix (CSR) of the rows that were collected."""
        assert self.spec is not None
        lengths, columns, values = (state[f"row_{name}"] for name in ("lengths", "columns", "values"))
        crow = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return sparse_rows(crow, columns, values, (len(lengths), self.spec.num_features))
