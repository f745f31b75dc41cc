"""A table encoder: learnt from the training rows, in memory or group by group, and applied to all others.

Legend: N rows, F features.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from zoo.data.columns import Column, TableOptions, clean, distinct, plan
from zoo.data.names import check_columns
from zoo.data.spec import DataSpec
from zoo.errors import ZooError

__all__ = ["TableEncoder"]

log = logging.getLogger(__name__)

# Up to so many different integers are taken for classes.
_MAX_INTEGER_CLASSES = 20
_MAX_CLASSES = 10_000


class TableEncoder:
    """Turn tables into inputs (N, F) and targets (N,).

    Args:
        schema: columns of the training table.
        options: what the user said of them.
        where: the file, for messages.
    """

    def __init__(self, schema: pa.Schema, options: TableOptions, where: str) -> None:
        self.options, self.where = options, where
        self.features, self.target = plan(schema, options, where)
        self.is_class = False
        self.known = list(schema.names)  # all columns of the training table

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for a checkpoint."""
        return {
            "options": asdict(self.options),
            "features": [column.to_dict() for column in self.features],
            "target": None if self.target is None else self.target.to_dict(),
            "is_class": self.is_class,
            "known": self.known,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TableEncoder:
        """Rebuild the encoder that `to_dict` wrote."""
        encoder = cls.__new__(cls)
        encoder.options, encoder.where = TableOptions(**fields["options"]), "the training table"
        encoder.features = [Column(**column) for column in fields["features"]]
        encoder.target = None if fields["target"] is None else Column(**fields["target"])
        encoder.is_class, encoder.known = fields["is_class"], fields["known"]
        return encoder

    @property
    def columns(self) -> list[Column]:
        """All columns that are read."""
        return [*self.features, *([self.target] if self.target else [])]

    def clean(self, table: pa.Table, where: str | None = None) -> pa.Table:
        """Return the columns that are read, cleaned, without the rows that `missing=drop` drops.

        Raises:
            ZooError: for a column that is absent, or missing values that are to be refused.
        """
        where = where or self.where
        table = self._read(table, self.columns, where)
        if self.options.missing == "drop":
            valid = np.ones(len(table), dtype=bool)
            for values in table.columns:
                valid &= pc.is_valid(values).to_numpy()
            return table if valid.all() else table.filter(pa.array(valid))
        lacking = _lacking(table)
        if self.target and self.target.name in lacking:
            lack = f"{lacking[self.target.name]:,} of {len(table):,} values"
            raise ZooError(f"{where}: target column '{self.target.name}' lacks {lack}: pass data.missing=drop.")
        if lacking and self.options.missing == "refuse":
            others = "median, zero" if self.options.in_python else "median, zero, drop"
            mean, without = self.options.option("missing", "mean"), self.options.leave_out(*lacking)
            remedy = f"pass {mean} (or {others}), or {without.removeprefix('pass ')}"
            raise _missing(lacking, len(table), where, remedy)
        return table

    def check(self, names: list[str], where: str) -> None:
        """Raise one line if a table of such columns lacks a feature; note the columns that are not known."""
        check_columns(names, [column.name for column in self.features], self.known, where, self.where)

    def encode_inputs(self, table: pa.Table, where: str) -> Tensor:
        """Return the inputs (N, F) of a table that may have no target, one for each of its rows.

        Raises:
            ZooError: for a column that is absent, or a missing value that nothing stands in for.
        """
        self.check(table.schema.names, where)
        plain = _plain(table, self.features)
        if plain is not None:
            return plain
        table = self._read(table, self.features, where)
        lacking = _lacking(table)
        if lacking and self.options.missing in ("refuse", "drop"):
            mean = self.options.option("missing", "mean")
            remedy = f"fill them in or leave those rows out (training with {mean} learns what stands for them)"
            raise _missing(lacking, len(table), where, remedy)
        return self._inputs(table)

    def numbers(self, table: pa.Table, where: str) -> Tensor:
        """Return the feature columns as they stand, (N, columns): of text the place among the categories, else NaN.

        Raises:
            ZooError: for a column that is absent.
        """
        self.check(table.schema.names, where)
        table = self._read(table, self.features, where)
        return torch.stack([column.numbers(table.column(column.name)) for column in self.features], dim=1)

    def _read(self, table: pa.Table, columns: list[Column], where: str) -> pa.Table:
        check_columns(table.schema.names, [column.name for column in columns], table.schema.names, where, self.where)
        return pa.table({c.name: clean(table.column(c.name), c, self.options, where) for c in columns})

    def learn_target(self, tables: Iterable[pa.Table]) -> None:
        """Decide from the cleaned tables whether the target is a class or a value, and list the classes."""
        column, task = self.target, self.options.task
        if column is None:
            return
        if task == "regression" and column.kind == "text":
            raise ZooError(f"Target column '{column.name}' holds text: data.task=regression needs numbers.")
        few = column.integral and task is None
        if task == "regression" or (column.kind == "number" and not few and task is None):
            return
        limit = _MAX_INTEGER_CLASSES if few and column.kind == "number" else _MAX_CLASSES
        classes = distinct((table.column(column.name) for table in tables), limit)
        if len(classes) > limit:
            if column.kind == "number" and task is None:
                return
            raise ZooError(
                f"Target column '{column.name}' holds more than {limit:,} classes: see data.task=regression."
            )
        if len(classes) < 2:
            held = f"Target column '{column.name}' holds a single class ({', '.join(map(str, classes))})"
            raise ZooError(f"{held}: at least two are needed to tell them apart.")
        column.categories, self.is_class = classes, True
        log.info("Target '%s': classification into %d classes.", column.name, len(classes))

    def learn_features(self, tables: Iterable[pa.Table]) -> None:
        """Take fill values and categories from the cleaned training rows, in one pass."""
        for table in tables:
            for column in self.features:
                column.observe(table.column(column.name), self.options)
        for column in self.features:
            column.settle(self.options)

    def encode(self, table: pa.Table, where: str | None = None) -> tuple[Tensor, Tensor | None]:
        """Return inputs (N, F) and targets (N,) of a cleaned table.

        Raises:
            ZooError: for a class that was not among the training rows.
        """
        return self._inputs(table), None if self.target is None else self.encode_target(table, where)

    def _inputs(self, table: pa.Table) -> Tensor:
        x = torch.empty(len(table), sum(column.width for column in self.features), dtype=torch.float64)
        parts = x.split([column.width for column in self.features], dim=1)
        for column, out in zip(self.features, parts, strict=True):
            column.encode(table.column(column.name), out)
        return x

    def encode_target(self, table: pa.Table, where: str | None = None) -> Tensor:
        """Return the targets (N,) of a cleaned table."""
        assert self.target is not None
        values = table.column(self.target.name)
        if not self.is_class:
            return torch.from_numpy(values.to_numpy().copy())
        codes = self.target.codes(values)
        if bool((codes < 0).any()):
            unknown = values[int((codes < 0).nonzero()[0])].as_py()
            raise ZooError(
                f"{where or self.where}: target '{self.target.name}' has the class {unknown!r}, which the "
                f"training rows lack: if it is one of theirs, pass data.replace=[['{unknown}',NAME]]."
            )
        return codes

    @property
    def labels(self) -> list[str | int | float] | None:
        """What the table calls the classes 0 … C-1, or None where the target is no class."""
        if self.target is None or not self.is_class:
            return None
        as_whole = bool if self.target.boolean else int
        return [as_whole(v) if isinstance(v, float) and v.is_integer() else v for v in self.target.categories or ()]

    def spec(self) -> DataSpec:
        """Return what `encode` yields."""
        names = tuple(name for column in self.features for name in column.feature_names)
        fields: dict[str, Any] = {}
        if any(column.coding == "codes" for column in self.features):
            fields["categories"] = tuple(names for column in self.features for names in column.category_names)
        if self.target is not None and self.is_class:
            classes = tuple(_label(label) for label in self.labels or ())
            fields |= {"target": "class", "num_classes": len(classes), "class_names": classes}
        elif self.target is not None:
            fields |= {"target": "value", "target_names": (self.target.name,)}
        return DataSpec("tabular", (len(names),), feature_names=names, dtype="float64", **fields)


def _plain(table: pa.Table, columns: list[Column]) -> Tensor | None:
    """Return columns as they stand (N, F) where all are float64 without a value to clean, else None."""
    arrays = [table.column(column.name) for column in columns]
    if any(column.kind != "number" for column in columns):
        return None
    if any(not pa.types.is_float64(array.type) or array.null_count for array in arrays):
        return None
    # Columns are written beside each other four times as fast by `stack` as one by one.
    x = torch.stack([torch.from_dlpack(array.combine_chunks()) for array in arrays], dim=1)
    return x if math.isfinite(x.sum()) else None


def _lacking(table: pa.Table) -> dict[str, int]:
    """Return the number of missing values of each column that has some."""
    counts = {name: table.column(name).null_count for name in table.schema.names}
    return {name: count for name, count in counts.items() if count}


def _missing(lacking: dict[str, int], num_rows: int, where: str, remedy: str) -> ZooError:
    name, count = next(iter(lacking.items()))
    more = f" (and {len(lacking) - 1} more columns)" if len(lacking) > 1 else ""
    return ZooError(f"{where}: column '{name}' lacks {count:,} of {num_rows:,} values{more}: {remedy}.")


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
