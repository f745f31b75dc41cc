"""Arrays as a DataModule: what `zoo.fit(model, X, y)` trains on.

Legend: N rows, F features, T steps, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from zoo.data.arrays import (
    code_targets,
    column_names,
    describe_inputs,
    has_gaps,
    labels_of,
    needs_coding,
    to_inputs,
    to_tensor,
)
from zoo.data.base import Rows
from zoo.data.layout import Layout, layout_of, with_channels
from zoo.data.preprocessing import as_table, numbered
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import TabularData
from zoo.errors import ZooError

__all__ = ["ArrayData"]

_FILLS = ("mean", "median", "zero")
NO_AXES = "layout says what the axes of an array of numbers are: leave it out."


class ArrayData(TabularData):
    """Arrays and tables as a DataModule.

    A table with text, categories or missing values is coded by the rules of `zoo.data.columns`, as a CSV file is.

    Args:
        x: inputs, (N, F), (N, T, F), (N, H, W), (N, C, H, W) or (N, H, W, C): anything that `to_tensor` takes, a list
            of sequences (T_i, F), or a table, which may be a dict of columns.
        y: targets, see `encode_targets`; None without.
        weight: non-negative sample weights (N,); None for one each.
        kind: `tokens` where `x` holds the ids of tokens, (N, T) or lists of any lengths; None follows the axes.
        layout: what the axes of `x` are; `auto` as they look, see `zoo.data.layout`.
        val_fraction: share of the rows held out for validation.
        test_fraction: share of the rows held out for the test.
        standardize: whether each feature of rows (N, F) is scaled by the training rows, and target values for networks.
        missing: what becomes of missing values: `refuse`, `mean`, `median`, `zero`, or `keep` for models that learn
            from them; `auto` keeps them for such models and else refuses.
        text: what becomes of text columns: `refuse`, `onehot`, `codes`; `auto` is onehot up to 20 different values.
        takes_missing: whether the model that is trained learns from missing values.
        kinds: of data that this model reads.
        parts: row numbers of each split, in place of shares that are drawn.
        **options: those of `ZooDataModule`.

    Raises:
        ZooError: for arrays that do not fit together, with what is wrong.

    Example:
        >>> ArrayData([[0.0], [1.0], [2.0]], ["no", "yes", "yes"]).spec.class_names
        ('no', 'yes')
    """

    name, of_python = "arrays", True

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        kind: str | None = None,
        layout: Layout = "auto",
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        standardize: bool = False,
        missing: Literal["auto", "refuse", "mean", "median", "zero", "keep"] = "auto",
        text: Literal["auto", "refuse", "onehot", "codes"] = "auto",
        takes_missing: bool = False,
        kinds: Collection[str] = (),
        parts: dict[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, test_fraction=test_fraction, standardize=standardize, **options)
        self.takes_missing, self.kinds, self.parts = takes_missing, kinds, parts
        names = column_names(x)
        repeated = sorted({name for name in names or () if (names or []).count(name) > 1})
        if repeated:
            raise ZooError(f"X has several columns named '{repeated[0]}': rename them.")
        categories = None
        if kind is None and (needs_coding(x) if names is not None else missing in _FILLS and has_gaps(x)):
            inputs, names, categories = self._coded(x, y, missing, text)
        else:
            self.applied.missing = takes_missing and missing in ("auto", "keep")
            inputs = self._uncoded(x, kind)
            if inputs.x is not None and inputs.mask is None:
                axes = layout_of(inputs.x.shape, layout, kinds)
                inputs = inputs._replace(x=with_channels(inputs.x, axes))
                self.applied.layout = axes
        if layout != "auto" and self.applied.layout is None:
            raise ZooError(NO_AXES)
        self._spec, batch = describe_inputs(inputs, y, names)
        if categories is not None:
            self._spec = replace(self._spec, categories=categories)
        self.applied.labels = labels_of(y, self._spec.class_names)
        weight = None if weight is None else check_weight(to_tensor(weight, "weight"), batch.size)
        self.batch = batch._replace(weight=weight)
        self.standardize = standardize and self._spec.kind == "tabular"

    def _uncoded(self, x: Any, kind: str | None) -> Batch:
        """Return the inputs of arrays as they are."""
        try:
            return to_inputs(x, kind, missing=self.applied.missing)
        except ZooError as error:
            if kind is None and has_gaps(x):
                remedy = "drop those rows, or pass missing='mean', 'median' or 'zero' to fill them in"
                raise ZooError(f"{str(error).partition(':')[0]}: {remedy}.") from None
            raise

    def _coded(self, x: Any, y: Any, missing: str, text: str) -> tuple[Batch, list[str], Any]:
        """Return the inputs of a table as its training rows say, and their names and categories."""
        from zoo.data.columns import TableOptions, settled
        from zoo.data.encoder import TableEncoder

        options = settled(TableOptions(missing=missing, text=text, in_python=True), self.takes_missing)
        table = as_table(numbered(x) if column_names(x) is None else x)
        encoder = self.applied.encoder = TableEncoder(table.schema, options, "X")
        table = encoder.clean(table)
        codes, fields = (None, {}) if y is None else code_targets(y, len(table))
        parts = self.split(len(table), codes if fields.get("target") == "class" else None)
        encoder.learn_features([table.take(parts["train"].numpy())] if len(parts) > 1 else [table])
        spec = encoder.spec()
        return Batch(encoder.encode(table)[0]), list(spec.feature_names or ()), spec.categories

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        return self._spec, self.scale(self.split_tensors(self.batch, self._spec))


def check_weight(weight: Tensor, num_rows: int) -> Tensor:
    """Return sample weights (N,); raise one line unless they are non-negative, one a row and not all zero."""
    if tuple(weight.shape) != (num_rows,):
        raise ZooError(f"weight has shape {tuple(weight.shape)}: one weight for each of the {num_rows} rows is needed.")
    if bool((weight < 0).any()) or not bool(weight.any()):
        raise ZooError("weight must be non-negative, and positive for at least one row.")
    return weight
