"""A column of texts and a target: tokenizer, features and classes are learnt from the training rows.

Legend: N texts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from zoo.data.columns import TableOptions, clean
from zoo.data.encoder import TableEncoder
from zoo.data.spec import DataSpec
from zoo.data.text_view import TextView
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError
from zoo.text.tokenizer import Tokenizer

__all__ = ["TextOptions", "TextTable", "spec_of_texts"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextOptions:
    """What the user says of a column of texts; see `zoo.data.files.TableData` and `zoo.data.text_view.TextView`."""

    tokenizing: TokenizerOptions = field(default_factory=lambda: TokenizerOptions("word", 30_000))
    max_length: int | None = 512
    view: str = "tokens"
    ngrams: int = 1
    max_features: int = 10_000
    hashed: bool = False

    def __post_init__(self) -> None:
        for name in ("max_length", "ngrams", "max_features"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ZooError(f"data.{name} must be at least 1, not {value}.")

    def view_of(self, column: str) -> TextView:
        """Return the view of a column, of which nothing is learnt yet."""
        return TextView(column, self.view, self.max_length, self.ngrams, self.max_features, self.hashed)


class TextTable:
    """The texts and the targets of a table, of which parts are read again and again rather than held.

    Args:
        parts: gives the table some rows at a time, each time that it is called.
        schema: its columns.
        options: what the user said of them; `options.text` is the column of the texts.
        where: the file, for messages.

    Raises:
        ZooError: for a column that is not there, holds no text, or lacks a target.
    """

    def __init__(
        self, parts: Callable[[], Iterable[pa.Table]], schema: pa.Schema, options: TableOptions, where: str
    ) -> None:
        self.parts, self.where, self.column, self.options = parts, where, options.text, options
        if options.features:
            raise ZooError("data.text=COLUMN reads the texts of that column alone: leave data.features out.")
        if options.target == options.text:
            raise ZooError(f"data.target={options.target} is the column of data.text, too: name another.")
        chosen = replace(options, features=[options.text], drop=[], text="auto", missing="refuse")
        self.encoder = TableEncoder(schema, chosen, where)  # checks the names; it codes the target alone
        if self.encoder.features[0].kind != "text":
            found = "nothing" if pa.types.is_null(schema.field(options.text).type) else "numbers"
            raise ZooError(f"{where}: column '{options.text}' holds {found}: data.text names a column of texts.")

    def texts(self, training: Tensor | None = None) -> Iterator[list[str]]:
        """Yield the texts, or those of the training rows (N,), bool, some at a time; a missing one is empty."""
        start = 0
        for part in self.parts():
            values = part.column(self.column).cast(pa.large_string())
            if training is not None:
                values = values.filter(pa.array(training[start : start + len(part)].numpy()))
            start += len(part)
            for chunk in values.chunks:
                for i in range(0, len(chunk), 4096):
                    yield [text or "" for text in chunk[i : i + 4096].to_pylist()]

    def targets(self, labels: list[Any] | None = None) -> tuple[Tensor | None, Tensor]:
        """Return the coded targets, (N,), and which rows have one, (N,), bool.

        The classes are learnt, unless there are the `labels` of a trained model.
        """
        column = self.encoder.target
        if column is None:
            return None, torch.ones(sum(len(part) for part in self.parts()), dtype=torch.bool)
        parts = [clean(part.column(column.name), column, self.options, self.where) for part in self.parts()]
        values = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
        there = torch.from_numpy(pc.is_valid(values).to_numpy().copy())
        if values.null_count and self.options.missing != "drop":
            lack = f"{values.null_count:,} of {len(values):,} values"
            raise ZooError(f"{self.where}: target column '{column.name}' lacks {lack}: pass data.missing=drop.")
        table = pa.table({column.name: values.drop_null()})
        if labels is None:
            self.encoder.learn_target([table])
        else:
            column.categories = [float(v) if isinstance(v, int) else v for v in labels]
            self.encoder.is_class = True
        coded = self.encoder.encode_target(table, self.where)
        return torch.zeros(len(there), dtype=coded.dtype).masked_scatter_(there, coded), there

    def spec(self, view: TextView, tokenizer: Tokenizer, longest: int) -> DataSpec:
        """Return what the rows hold."""
        said = self.encoder.spec()
        target = {name: getattr(said, name) for name in ("target", "num_classes", "class_names", "target_names")}
        return spec_of_texts(view, tokenizer, longest, target)


def spec_of_texts(view: TextView, tokenizer: Tokenizer, longest: int, target: dict[str, Any]) -> DataSpec:
    """Return what the rows of texts hold: tokens, of which the longest text has so many, or bags."""
    if not view.is_bag:
        return DataSpec("tokens", (longest,), vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json(), **target)
    names = view.feature_names(tokenizer)
    shape = (view.num_features,)
    return DataSpec("tabular", shape, feature_names=names or None, tokenizer=tokenizer.to_json(), sparse=True, **target)
