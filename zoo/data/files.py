"""The user's own tables and arrays: CSV, Parquet and NumPy files, held in memory or streamed from disk.

Every rule that turns a column into numbers is stated in `zoo.data.columns`; fill values, categories and scaling are
taken from the training rows alone. Beyond `in_memory_limit` the rows stay on disk and are read by row groups; a CSV is
first kept as Parquet.

Legend: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from zoo.data import tables
from zoo.data.base import Rows, TensorRows
from zoo.data.columns import CODINGS, TableOptions, settled
from zoo.data.encoder import TableEncoder
from zoo.data.groups import GroupRows, GroupSplit
from zoo.data.names import check_columns
from zoo.data.registry import register_data
from zoo.data.spec import Batch, DataSpec
from zoo.data.splits import TabularData
from zoo.data.text_rows import TextRows, TokenStore, learn_texts
from zoo.data.text_table import TextOptions, TextTable
from zoo.data.text_view import TextView
from zoo.data.tokenizing import TokenizerOptions
from zoo.errors import ZooError, nearest
from zoo.text.learning import KINDS
from zoo.text.tokenizer import SHOWN, Tokenizer

__all__ = ["CsvData", "ParquetData", "TableData"]

_NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]


class TableData(TabularData):
    """Base of the tables: what the columns mean, and where the splits come from.

    Args:
        path: the files: one, a list, a folder or a pattern.
        target: name of the column to predict; None to learn without targets.
        task: `classification` or `regression`; None takes text and up to 20 different integers for classes.
        features: names of the columns to learn from; None for all but the target.
        drop: names of columns to leave out.
        missing: what becomes of missing values: `refuse`, `mean`, `median`, `zero`, `drop` for the whole row, or `keep`
            for models that learn from them, as trees do; `auto` keeps them for such models and else refuses.
        text: what becomes of text columns: `refuse`, `onehot`, `codes`; `auto` is onehot up to 20 different values. Or
            the name of the column whose texts are read, and no other.
        tokenizer: what a token of the texts is: see `zoo.data.text.TextData`.
        vocab_size: the most tokens.
        special_tokens: special tokens with their ids.
        min_count: how often a token must be met to be one.
        lowercase: read capital letters as small ones.
        max_length: the most tokens of a text, of which the first are kept; None for all.
        view: texts as `tokens`, or as a bag of them: `counts`, `binary` (0 and 1) or `tfidf`.
        ngrams: features of a bag are runs of 1 to so many tokens.
        max_features: the most features of a bag: the most frequent runs, or buckets.
        hashed: features of a bag are shared by runs of the same hash, so that no vocabulary of them is kept.
        replace: pairs of a text value in the files and what it is to be read as.
        null_values: what stands for a missing value.
        val_path: files of the validation split; None takes `val_fraction` of `path`.
        test_path: files of the test split; None takes `test_fraction` of `path`.
        in_memory_limit: bytes of table beyond which rows are streamed from disk.
        **options: those of `TabularData`.
    """

    suffixes: tuple[str, ...]
    path_options: tuple[str, ...] = ("path", "val_path", "test_path")

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        target: str | None = None,
        task: Literal["classification", "regression"] | None = None,
        features: list[str] | None = None,
        drop: list[str] | None = None,
        missing: Literal["auto", "refuse", "mean", "median", "drop", "zero", "keep"] = "auto",
        text: str = "auto",
        tokenizer: str = "word",
        vocab_size: int = 30_000,
        special_tokens: list[str] | dict[str, int] | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        max_length: int | None = 512,
        view: Literal["tokens", "counts", "binary", "tfidf"] = "tokens",
        ngrams: int = 1,
        max_features: int = 10_000,
        hashed: bool = False,
        replace: list[list[str]] | None = None,
        null_values: list[str] | None = None,
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        in_memory_limit: int = 1 << 30,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        nulls = list(_NULLS if null_values is None else null_values)
        self.options = TableOptions(target, task, features, list(drop or ()), missing, text, _pairs(replace), nulls)
        tokenizing = TokenizerOptions(tokenizer, vocab_size, special_tokens, min_count, lowercase)
        self.text_options = TextOptions(tokenizing, max_length, view, ngrams, max_features, hashed)
        if not self.has_texts and self.text_options != TextOptions():
            raise ZooError("Options of texts, such as data.view or data.tokenizer, need data.text=COLUMN.")
        self.path, self.in_memory_limit = path, in_memory_limit
        self.held_out_paths = {"val": val_path, "test": test_path}
        self.val_fraction = 0.0 if val_path else self.val_fraction
        self.test_fraction = 0.0 if test_path else self.test_fraction

    def is_large(self, paths: list[str]) -> bool:
        """Whether the files are to be streamed."""
        raise NotImplementedError

    def table(self, paths: list[str]) -> tuple[pa.Table, pa.Schema]:
        """Return the files as a table in memory, and all columns that they have."""
        raise NotImplementedError

    def stream(self, paths: list[str]) -> tables.ParquetFiles:
        """Return the files as row groups."""
        raise NotImplementedError

    @property
    def has_texts(self) -> bool:
        """Whether `data.text` names a column of texts."""
        return self.options.text not in CODINGS

    @classmethod
    def is_path(cls, option: str, value: Any) -> bool:
        return super().is_path(option, value) or (option == "tokenizer" and value not in KINDS)

    def load(self) -> tuple[DataSpec, dict[str, Rows | None]]:
        paths = tables.find_files(self.path, self.suffixes)
        if self.has_texts:
            return self._texts(paths)
        encoder, splits = self._stream(paths) if self.is_large(paths) else self._hold(paths)
        for name, given in self.held_out_paths.items():
            if given:
                splits[name] = self._held_out(tables.find_files(given, self.suffixes, f"{name}_path"), encoder)
        self.applied.encoder, self.applied.labels = encoder, encoder.labels
        return encoder.spec(), self.scale(splits)

    def files(self) -> list[str]:
        given = {"path": self.path, **{f"{name}_path": path for name, path in self.held_out_paths.items()}}
        read = [file for name, path in given.items() if path for file in tables.find_files(path, self.suffixes, name)]
        return [*read, *(self.text_options.tokenizing.files() if self.has_texts else ())]

    def column(self, name: str) -> Any:
        """Return a column of the files as an array, of the rows that splits are made of, learnt from or not.

        Raises:
            ZooError: for a column that is not there, or rows that are left out or streamed.
        """
        paths = tables.find_files(self.path, self.suffixes)
        if self.is_large(paths) or self.options.missing == "drop":
            why = "data.missing=drop leaves rows out" if self.options.missing == "drop" else "the files are streamed"
            raise ZooError(f"The column '{name}' is not looked up where {why}.")
        table = self.whole(paths, name)
        if name not in table.schema.names:
            raise ZooError(f"{paths[0]} has no column '{name}'.{nearest(name, table.schema.names)}")
        values = np.array(table.column(name).to_pylist())
        if not self.has_texts:
            return values
        labels = None if self.learnt is None else self.learnt.labels
        return values[self._text_table(paths).targets(labels)[1].numpy()]

    def whole(self, paths: list[str], name: str) -> pa.Table:
        """Return a table in memory that has the column of that name, if the files have it."""
        return self.table(paths)[0]

    def encoder(self, schema: pa.Schema, where: str) -> TableEncoder:
        """Return the encoder for such a table: a new one, or the one that a trained model brings."""
        if self.learnt is None or self.learnt.encoder is None:
            return TableEncoder(schema, settled(self.options, self.takes_missing), where)
        encoder = self.learnt.encoder
        check_columns(schema.names, [column.name for column in encoder.columns], encoder.known, where)
        return encoder

    # -- texts -------------------------------------------------------------------------------------------------

    def _texts(self, paths: list[str]) -> tuple[DataSpec, dict[str, Rows | None]]:
        """Tokenize the column of texts, and learn what a text becomes from the training rows."""
        labels = None if self.learnt is None else self.learnt.labels
        table = self._text_table(paths)
        y, there = table.targets(labels)
        rows = there.nonzero().squeeze(1)
        parts = self.split(len(rows), y[rows] if y is not None and table.encoder.is_class else None)
        index = {name: rows[part] for name, part in parts.items()}
        training = torch.zeros(len(there), dtype=torch.bool)
        training[index.get("train", rows[:0])] = True
        learnt = self.learnt is not None and self.learnt.text is not None
        view = self.learnt.text if learnt else self.text_options.view_of(self.options.text)  # type: ignore[union-attr]
        assert view is not None
        options = self.text_options.tokenizing
        store, tokenizer = learn_texts(table.texts, training, options, view, self.known_tokenizer, learnt)
        splits: dict[str, Rows | None] = {name: TextRows(store, part, y, view) for name, part in index.items()}
        for name, given in self.held_out_paths.items():
            if given:
                files = tables.find_files(given, self.suffixes, f"{name}_path")
                splits[name] = self._held_out_texts(files, table, view, tokenizer)
        self.applied.text, self.applied.labels = view, table.encoder.labels
        return table.spec(view, tokenizer, int(store.lengths.max())), splits

    def sample(self) -> list[tuple[str, int]]:
        rows = self.rows("train")
        if not isinstance(rows, TextRows):
            return []
        return Tokenizer.from_json(self.spec.tokenizer).shown(rows.first(SHOWN))

    def _text_table(self, paths: list[str]) -> TextTable:
        if self.is_large(paths):
            files = self.stream(paths)
            names = self._text_columns(files.schema)
            groups = range(len(files.groups))
            return TextTable(lambda: (files.read(g, names)[0] for g in groups), files.schema, self.options, paths[0])
        table, schema = self.table(paths)
        return TextTable(lambda: [table], schema, self.options, paths[0])

    def _text_columns(self, schema: pa.Schema) -> list[str]:
        wanted = (self.options.text, self.options.target)
        return [name for name in wanted if name is not None and name in schema.names]

    def _held_out_texts(self, paths: list[str], table: TextTable, view: TextView, tokenizer: Tokenizer) -> Rows:
        """Return the texts of a given split, seen as the training texts are."""
        held_out = self._text_table(paths)
        y, there = held_out.targets(table.encoder.labels)
        rows = there.nonzero().squeeze(1)
        store = TokenStore.of(held_out.texts(), view, tokenizer)
        return TextRows(store, rows, y, view)

    # -- columns -----------------------------------------------------------------------------------------------

    def _hold(self, paths: list[str]) -> tuple[TableEncoder, dict[str, Rows | None]]:
        """Read everything, split it by class, and learn the coding from the training rows."""
        table, schema = self.table(paths)
        encoder = self.encoder(schema, paths[0])
        table = encoder.clean(table, paths[0])
        if not len(table):
            raise ZooError(f"{paths[0]}: no row is left after data.missing=drop.")
        if self.learnt is None:
            encoder.learn_target([table])
        parts = self.split(len(table), encoder.encode_target(table, paths[0]) if encoder.is_class else None)
        if self.learnt is None:
            encoder.learn_features([table.take(parts["train"].numpy())] if "train" in parts else [])
        x, y = encoder.encode(table, paths[0])
        return encoder, {name: TensorRows(Batch(x, y).rows(rows)) for name, rows in parts.items()}

    def _stream(self, paths: list[str]) -> tuple[TableEncoder, dict[str, Rows | None]]:
        """Leave the rows on disk; one pass over them learns the coding."""
        if self.options.missing == "median":
            raise ZooError("data.missing=median needs all rows at once: pass mean, or raise data.in_memory_limit.")
        files = self.stream(paths)
        encoder = self.encoder(files.schema, paths[0])
        source = _Encoded(files, encoder)
        split = GroupSplit(source.sizes, (self.val_fraction, self.test_fraction), self.seed)
        if self.learnt is None:
            encoder.learn_target(source.tables())
            encoder.learn_features(source.training_tables(split))
        return encoder, {name: GroupRows(source, split, name) for name in split.counts}

    def _held_out(self, paths: list[str], encoder: TableEncoder) -> Rows:
        """Return the rows of a given split, coded as the training rows are."""
        if self.is_large(paths):
            source = _Encoded(self.stream(paths), encoder)
            return GroupRows(source, GroupSplit(source.sizes, (0.0, 0.0), self.seed), "train")
        table = encoder.clean(self.table(paths)[0], paths[0])
        return TensorRows(Batch(*encoder.encode(table, paths[0])))


class _Encoded:
    """The row groups of Parquet files as tensors."""

    def __init__(self, files: tables.ParquetFiles, encoder: TableEncoder) -> None:
        self.files, self.encoder = files, encoder
        self.names = [column.name for column in encoder.columns]
        self.sizes = files.sizes
        if encoder.options.missing == "drop":
            self.sizes = [len(table) for table in self.tables()]

    def table(self, group: int) -> tuple[pa.Table, str]:
        """Return a cleaned row group and the file that it is from."""
        table, path = self.files.read(group, self.names)
        return self.encoder.clean(table, path), path

    def tables(self) -> Iterator[pa.Table]:
        """Yield all cleaned row groups."""
        for group in range(len(self.files.groups)):
            yield self.table(group)[0]

    def training_tables(self, split: GroupSplit) -> Iterator[pa.Table]:
        """Yield the training rows of each group."""
        for group, table in enumerate(self.tables()):
            yield table.take(split.members("train", group).numpy())

    def read(self, group: int) -> tuple[Tensor, Tensor | None]:
        return self.encoder.encode(*self.table(group))


def _pairs(replace: list[list[str]] | None) -> dict[str, str]:
    if any(len(pair) != 2 for pair in replace or ()):
        raise ZooError('data.replace must be a list of pairs, such as [["N.Y.","New York"],["yes.","yes"]].')
    return dict(replace or [])


def check_delimiter(delimiter: str | None) -> None:
    """Raise one line for what cannot stand between the values of a CSV file."""
    if delimiter is not None and len(delimiter) != 1:
        raise ZooError(f"data.delimiter must be one character, not {delimiter!r}.")


@register_data("csv", kind="tabular", target="any")
class CsvData(TableData):
    """Your own CSV files, with or without a header line, gzip too.

    Args:
        columns: names of the columns of files without a header line.
        delimiter: what stands between values.
        encoding: text encoding of the files.
        cache_dir: where a file beyond `in_memory_limit` is kept as Parquet; None for the user's cache folder.
        **options: those of `TableData`.
    """

    suffixes = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
    path_options = ("path", "val_path", "test_path", "cache_dir")

    def __init__(
        self,
        *,
        columns: list[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf8",
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_delimiter(delimiter)
        texts = (self.options.text,) if self.has_texts else ()
        self.form = tables.CsvFormat(columns, delimiter, encoding, tuple(self.options.null_values), texts)
        self.cache_dir = cache_dir

    def is_large(self, paths: list[str]) -> bool:
        return sum(tables.csv_bytes(path) for path in paths) > self.in_memory_limit

    def table(self, paths: list[str]) -> tuple[pa.Table, pa.Schema]:
        table = tables.concat(paths, lambda path: tables.read_csv(path, self.form))
        return table, table.schema

    def stream(self, paths: list[str]) -> tables.ParquetFiles:
        return tables.ParquetFiles([tables.stream_csv(paths, self.form, self.cache_dir)])


@register_data("parquet", kind="tabular", target="any")
class ParquetData(TableData):
    """Your own Parquet files.

    Args:
        **options: those of `TableData`.
    """

    suffixes = (".parquet", ".pq")

    def is_large(self, paths: list[str]) -> bool:
        files = tables.ParquetFiles(paths)
        width = len(self.options.features or files.schema.names)
        return sum(files.sizes) * width * 8 > self.in_memory_limit

    def table(self, paths: list[str]) -> tuple[pa.Table, pa.Schema]:
        schema = tables.ParquetFiles(paths).schema
        if self.has_texts:
            names = self._text_columns(schema)
            return tables.concat(paths, lambda path: tables.read_parquet(path, names)), schema
        names = [column.name for column in self.encoder(schema, paths[0]).columns]
        return tables.concat(paths, lambda path: tables.read_parquet(path, names)), schema

    def whole(self, paths: list[str], name: str) -> pa.Table:
        names = [name] if name in tables.ParquetFiles(paths).schema.names else []
        return tables.concat(paths, lambda path: tables.read_parquet(path, names))

    def stream(self, paths: list[str]) -> tables.ParquetFiles:
        return tables.ParquetFiles(paths)
