"""What models that need all rows at once share: the pass collects them, in an order of their own.

The order of rows follows from what stands in them, so that the answer is the same, to the bit, for any batch size, any
number of processes and any order in which they came. Memory: N rows of F features take 8 N (F + 2) bytes until they are
solved (sparse ones 16 bytes a stored number), and none afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.base.streaming import StreamingModel
from zoo.numerics.collected import Collected, in_order
from zoo.numerics.sparse import as_rows, is_sparse, sparse_rows, stored

__all__ = ["Collected", "CollectsRows"]


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
        state = self._state()
        x = state["rows"] if "rows" in state else self._sparse(state)
        self.reset_accumulators()
        return in_order(self.entry.name, x, state["targets"], state["weights"], sort=sort)

    def _sparse(self, state: dict[str, Tensor]) -> Tensor:
        """The matrix (CSR) of the rows that were collected."""
        assert self.spec is not None
        lengths, columns, values = (state[f"row_{name}"] for name in ("lengths", "columns", "values"))
        crow = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return sparse_rows(crow, columns, values, (len(lengths), self.spec.num_features))
