"""From table columns to numbers: which columns are features, and how text and missing values are coded.

The rules, which options change: a missing value is refused; a text column of few different values becomes
one column of zeros and ones for each; dates, lists and bytes are refused; whatever is refused is refused by
the column's name. In a coded text column a missing value, or one never met in training, is all zeros
(onehot) or -1 (codes).

Legend: N rows, F features.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from zoo.data.names import listed, other_delimiter
from zoo.errors import ZooError, nearest

__all__ = ["CODINGS", "FEW_VALUES", "Column", "TableOptions", "clean", "plan", "settled"]

log = logging.getLogger(__name__)

# What becomes of columns of text; any other value of `data.text` names the one that holds texts to read.
CODINGS = ("auto", "refuse", "onehot", "codes")
FEW_VALUES = 20  # of text, which are coded unasked
# Numbers as people write them and no program reads them: 0,25 and 1.234,5 and 1,234.5 and 12 %.
_NUMBER = re.compile(r"(?=.*\d)\s*[-+]?(\d+|\d{1,3}([., ']\d{3})+)?([.,]\d+)?\s*%?\s*")
# How many different values a text column may have: 10,000 more columns would fill the memory.
_LIMITS = {"auto": FEW_VALUES, "refuse": 0, "onehot": 10_000, "codes": float("inf")}


@dataclass(frozen=True)
class TableOptions:
    """What the user says that the columns mean; see `zoo.data.files.TableData`.

    `missing` is never `auto` here: whether a model learns from missing values is known by then. `in_python` says that
    the user sets options as arguments of `zoo.fit`, which messages then name.
    """

    target: str | None = None
    task: str | None = None
    features: list[str] | None = None
    drop: list[str] = field(default_factory=list)
    missing: str = "refuse"
    text: str = "auto"
    replace: dict[str, str] = field(default_factory=dict)
    null_values: list[str] = field(default_factory=list)
    in_python: bool = False

    def option(self, name: str, value: str) -> str:
        """Return an option as the user gives it: `data.missing=mean`, or `missing='mean'`."""
        return f"{name}='{value}'" if self.in_python else f"data.{name}={value}"

    def leave_out(self, *names: str) -> str:
        """Return how the user leaves columns out."""
        if self.in_python:
            return f"leave out '{', '.join(names)}'"
        plain = all(re.fullmatch(r"\w+", name) for name in names)  # a shell and Hydra leave those as they are
        return f"pass data.drop=[{','.join(names)}]" if plain else f'pass "data.drop={list(names)}"'


def settled(options: TableOptions, takes_missing: bool) -> TableOptions:
    """Return the options with what `missing=auto` means to a model; raise one line if it cannot use `keep`."""
    if options.missing == "keep" and not takes_missing:
        keep, mean = options.option("missing", "keep"), options.option("missing", "mean")
        raise ZooError(f"{keep} is for models that learn from missing values, as trees do: pass {mean} for this one.")
    return replace(options, missing="keep" if takes_missing else "refuse") if options.missing == "auto" else options


@dataclass
class Column:
    """A column with the role that the first table gave it, and what was learnt of it from the training rows.

    Attributes:
        name: its name.
        kind: `number` or `text`.
        integral: whether the file says that it holds integers (or booleans).
        boolean: whether it says that it holds booleans.
        fill: what stands in for a missing number.
        categories: the values of a coded column, in order.
        coding: `onehot` or `codes`, for text.
    """

    name: str
    kind: str
    integral: bool = False
    boolean: bool = False
    fill: float = 0.0
    categories: list[Any] | None = None
    coding: str | None = None
    _seen: set[str] = field(default_factory=set)
    _chunks: list[pa.Array] = field(default_factory=list)
    _total: float = 0.0
    _count: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the name, the role, and what was learnt."""
        learnt = ("name", "kind", "integral", "boolean", "fill", "categories", "coding")
        return {key: getattr(self, key) for key in learnt}

    @property
    def width(self) -> int:
        """Number of features that it becomes."""
        return len(self.categories or ()) if self.coding == "onehot" else 1

    @property
    def feature_names(self) -> list[str]:
        """A name for each of those."""
        return [f"{self.name}={value}" for value in self.categories or ()] if self.coding == "onehot" else [self.name]

    @property
    def category_names(self) -> list[tuple[str, ...]]:
        """The names of the categories that each of those is a code of; none for numbers."""
        if self.coding == "codes":
            return [tuple(str(value) for value in self.categories or ())]
        return [()] * self.width

    def codes(self, values: pa.ChunkedArray) -> Tensor:
        """Return the place of each value among the categories, -1 for none, (N,)."""
        assert self.categories is not None
        kind = pa.string() if self.kind == "text" else pa.float64()
        found = pc.index_in(values, value_set=pa.array(self.categories, kind), skip_nulls=True)
        return _tensor(pc.fill_null(found, -1)).long()

    def numbers(self, values: pa.ChunkedArray) -> Tensor:
        """Return the cleaned values as numbers, (N,): of text the place among the categories; NaN where there is none.

        >>> Column("size", "text", categories=["large", "small"]).numbers(pa.chunked_array([["small", None]]))
        tensor([1., nan], dtype=torch.float64)
        """
        if self.kind == "number":
            return torch.from_numpy(values.to_numpy().astype(float))
        codes = self.codes(values).double()
        return codes.where(codes >= 0, math.nan)

    def encode(self, values: pa.ChunkedArray, out: Tensor) -> None:
        """Write the cleaned values as features into `out` (N, width)."""
        if self.kind == "number":
            out[:, 0] = _tensor(pc.fill_null(values, self.fill) if values.null_count else values)
            return
        codes = self.codes(values)
        if self.coding == "codes":
            out[:, 0] = codes
            if math.isnan(self.fill):
                out[codes < 0, 0] = math.nan
        else:
            rows = (codes >= 0).nonzero().squeeze(1)
            out.zero_()[rows, codes[rows]] = 1.0

    def observe(self, values: pa.ChunkedArray, options: TableOptions) -> None:
        """Look at cleaned training values, all at once or some at a time."""
        if self.kind == "text":
            if len(self._seen) <= _LIMITS[options.text]:
                self._seen |= set(pc.unique(values).to_pylist()) - {None}
        elif options.missing == "mean":
            self._count += pc.count(values).as_py()
            self._total += pc.sum(values).as_py() or 0.0
        elif options.missing == "median":
            self._chunks += values.chunks

    def settle(self, options: TableOptions) -> None:
        """Take the fill value, or the categories, from what was observed."""
        if self.kind == "text":
            self._settle_categories(options)
            self.fill = math.nan if options.missing == "keep" else 0.0
        elif options.missing in ("mean", "median"):
            self._settle_fill(options)
        elif options.missing == "keep":
            self.fill = math.nan

    def _settle_fill(self, options: TableOptions) -> None:
        if options.missing == "median":
            fill = pc.quantile(pa.chunked_array(self._chunks, pa.float64()), 0.5)[0].as_py()
            self._chunks = []
        else:
            fill = self._total / self._count if self._count else None
        if fill is None:
            where = f"Column '{self.name}' has no value in the training rows"
            raise ZooError(f"{where}: {options.leave_out(self.name)}.")
        self.fill = fill

    def _settle_categories(self, options: TableOptions) -> None:
        text, drop = options.text, options.leave_out(self.name).removeprefix("pass ")
        limit = _LIMITS[text]
        if text == "refuse":
            onehot = options.option("text", "onehot")
            raise ZooError(f"Column '{self.name}' holds text: pass {onehot} or codes, or {drop}.")
        self.categories, self._seen = sorted(self._seen), set()
        if text == "auto":
            self._check_numbers(options)
        if len(self.categories) > limit:
            remedy = f"pass {options.option('text', 'codes')} to number them"
            if all(_is_number(value) or _NUMBER.fullmatch(value) for value in self.categories):
                remedy = "they are numbers, which are read with a point and without other signs: write them so"
            raise ZooError(
                f"Column '{self.name}' holds text of more than {limit} different values (such as "
                f"{self.categories[0]!r}): {remedy}, or {drop}."
            )
        self.coding = "codes" if text == "codes" else "onehot"
        log.info("Column '%s' holds text: %d values, coded as %s.", self.name, len(self.categories), self.coding)

    def _check_numbers(self, options: TableOptions) -> None:
        """Raise one line if the text is rather a column of numbers with a stray word."""
        words = [value for value in self.categories or () if not _is_number(value)]
        if words and 2 * len(words) <= len(self.categories or ()):
            remedy = f"mend the file, or pass data.null_values=[{words[0]!r}] if that means a missing value"
            if options.in_python:
                remedy = "put None in the place of what means a missing value"
            what = f"Column '{self.name}' holds numbers but also text (such as {words[0]!r})"
            raise ZooError(f"{what}: {remedy}, or {options.leave_out(self.name).removeprefix('pass ')}.")


def distinct(parts: Iterable[pa.ChunkedArray], limit: float) -> list[Any]:
    """Return the sorted different values, or some that are more than `limit`."""
    values: set[Any] = set()
    for part in parts:
        values |= set(pc.unique(part).to_pylist())
        if len(values) > limit + 1:
            break
    return sorted(values - {None})


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _tensor(values: pa.ChunkedArray) -> Tensor:
    array = values.to_numpy()
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def plan(schema: pa.Schema, options: TableOptions, where: str) -> tuple[list[Column], Column | None]:
    """Return the feature columns and the target column of a table, with their roles.

    Args:
        schema: names and types of its columns.
        options: what the user said of them.
        where: the file, for messages.

    Raises:
        ZooError: for a name that is not there, with the nearest ones, or a type that cannot become numbers.
    """
    names = schema.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ZooError(f"{where} has several columns named '{repeated[0]}': rename them.")
    wanted = [
        *(options.features or []),
        *options.drop,
        *([options.target] if options.target is not None else []),
    ]
    for name in wanted:
        if name not in names:
            remedy = other_delimiter(names) or f"{nearest(name, names)} Its columns: {listed(names)}."
            raise ZooError(f"{where} has no column '{name}'.{remedy}")
    if options.target in (options.features or []):
        raise ZooError(f"data.target={options.target} is among data.features too: take it out of one of them.")
    left = options.features or [name for name in names if name != options.target]
    features = [_column(schema.field(name), where, options) for name in left if name not in options.drop]
    if not features:
        raise ZooError(f"{where} has no column left to learn from. Its columns: {listed(names)}.")
    return features, None if options.target is None else _column(schema.field(options.target), where, options)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _column(source: pa.Field, where: str, options: TableOptions) -> Column:
    kind = source.type.value_type if pa.types.is_dictionary(source.type) else source.type
    is_number = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    if any(check(kind) for check in is_number):
        boolean = pa.types.is_boolean(kind)
        return Column(source.name, "number", integral=pa.types.is_integer(kind) or boolean, boolean=boolean)
    if _is_text(kind):
        return Column(source.name, "text")
    found = f"values of type {kind}"
    if pa.types.is_binary(kind):
        parquet = where.endswith((".parquet", ".pq"))
        found = (
            "bytes, where text is kept as strings" if parquet else "bytes that are no UTF-8 text (see data.encoding)"
        )
    raise ZooError(f"{where}: column '{source.name}' holds {found}: convert it, or {options.leave_out(source.name)}.")


def clean(values: pa.ChunkedArray, column: Column, options: TableOptions, where: str) -> pa.ChunkedArray:
    """Return a column as float64, or as text without blanks around it, with every missing value null.

    Raises:
        ZooError: for text or infinity in a column of numbers.
    """
    is_text = _is_text(values.type)
    if column.kind == "text" or is_text:
        values = _clean_text(values, options)
        if column.kind == "text":
            return values
    try:
        values = pc.cast(
            pc.cast(values, pa.int8()) if pa.types.is_boolean(values.type) else values,
            pa.float64(),
            safe=False,
        )
    except pa.ArrowInvalid as error:
        raise ZooError(f"{where}: column '{column.name}' holds text where numbers are expected ({error}).") from None
    if math.isfinite(pc.sum(values).as_py() or 0.0):
        return values
    infinite = pc.sum(pc.is_inf(values)).as_py()
    if infinite:
        raise ZooError(f"{where}: column '{column.name}' holds {infinite} infinite values: mend them, or drop it.")
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def _clean_text(values: pa.ChunkedArray, options: TableOptions) -> pa.ChunkedArray:
    values = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    if options.replace:
        places = pc.index_in(values, value_set=pa.array(list(options.replace), pa.string()))
        renamed = pc.take(pa.array(list(options.replace.values()), pa.string()), places)
        values = pc.if_else(pc.is_valid(places), renamed, values)
    missing = pc.is_in(values, value_set=pa.array(options.null_values, pa.string()))
    return pc.if_else(missing, pa.scalar(None, pa.string()), values)
