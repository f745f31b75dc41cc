"""Arrays as a DataModule: what `zoo.fit(model, X, y)` trains on.

Legend: N rows, F features, T steps, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo.data.arrays import column_names, describe_inputs, to_inputs, to_tensor
from zoo.data.base import Rows
from zoo.data.spec import DataSpec
from zoo.data.splits import TabularData
from zoo.errors import ZooError

__all__ = ["ArrayData"]


class ArrayData(TabularData):
    """Arrays as a DataModule.

    Args:
        x: inputs, (N, F), (N, T, F) or (N, C, H, W): anything that `to_tensor` takes, or a list of sequences (T_i, F).
        y: targets, see `encode_targets`; None without.
        weight: non-negative sample weights (N,); None for one each.
        kind: `tokens` where `x` holds the ids of tokens, (N, T) or lists of any lengths; None follows the axes.
        val_fraction: share of the rows held out for validation.
        test_fraction: share of the rows held out for the test.
        standardize: whether each feature of rows (N, F) is scaled by the training rows.
        **options: those of `ZooDataModule`.

    Raises:
        ZooError: for arrays that do not fit together, with what is wrong.

    Example:
        >>> ArrayData([[0.0], [1.0], [2.0]], ["no", "yes", "yes"]).spec.class_names
        ('no', 'yes')
    """

    name = "arrays"

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        kind: str | None = None,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        standardize: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, test_fraction=test_fraction, standardize=standardize, **options)
        self._spec, batch = describe_inputs(to_inputs(x, kind), y, column_names(x))
        weight = None if weight is None else check_weight(to_tensor(weight, "weight"), batch.size)
        self.batch = batch._replace(weight=weight)
        self.standardize = standardize and self._spec.kind == "tabular"
        if self._spec.class_names is not None:  # text, which the codes stand for
            self.applied.labels = list(self._spec.class_names)

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        return self._spec, self.scale(self.split_tensors(self.batch, self._spec))


def check_weight(weight: Tensor, num_rows: int) -> Tensor:
    """Return sample weights (N,); raise one line unless they are non-negative, one a row and not all zero."""
    if tuple(weight.shape) != (num_rows,):
        raise ZooError(f"weight has shape {tuple(weight.shape)}: one weight for each of the {num_rows} rows is needed.")
    if bool((weight < 0).any()) or not bool(weight.any()):
        raise ZooError("weight must be non-negative, and positive for at least one row.")
    return weight
