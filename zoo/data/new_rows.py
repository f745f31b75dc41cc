"""New rows without targets, from files or standard input, some at a time: what `predict` reads.

What a file holds follows from its name and from what the model was built for; standard input is CSV, or lines.

Legend: N rows.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.names import check_columns
from zoo.data.preprocessing import Preprocessing
from zoo.data.spec import DataSpec
from zoo.data.tables import CsvFormat, ParquetFiles, find_files, header_of, open_csv
from zoo.errors import ZooError

__all__ = ["new_files", "read_images", "read_new_rows"]

_LINES = 4096
_IMAGES = 256
_BYTES = 1 << 25


def read_new_rows(
    path: str | list[str], spec: DataSpec, preprocessing: Preprocessing, options: dict[str, Any]
) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield rows as `model.predict` takes them, the file that they are from, and columns that name them, if any.

    Args:
        path: the files: one, a list, a folder, a pattern, or `-` for standard input.
        spec: what the model was built for.
        preprocessing: what it learnt of the training rows.
        options: those of the run's data that say how files are written: `delimiter`, `encoding`, `columns`, ….

    Raises:
        ZooError: for files that such a model cannot read.
    """
    files = new_files(path, spec, preprocessing)
    if preprocessing.text is not None:
        yield from _texts(files, preprocessing.text.column, options)
        return
    for file in files:
        suffix = Path(file.removesuffix(".gz")).suffix.lower()
        if suffix == ".npy":
            yield from ((rows, file, {}) for rows in _arrays(file))
        elif spec.kind == "tabular":
            parquet = suffix in (".parquet", ".pq")
            rows = _row_groups(file, spec, preprocessing) if parquet else _csv(file, spec, preprocessing, options)
            yield from ((table, file, {}) for table in rows)
        elif spec.kind == "transactions":
            yield from ((rows, file, {}) for rows in _chunks(_baskets(file, options), _LINES))
        elif spec.kind in ("tokens", "pairs"):
            yield from ((lines, file, {}) for lines in _chunks(_lines(file), _LINES))
        elif spec.kind == "series":
            yield from ((rows, file, {}) for rows in _windows(file, spec, options))
    if spec.kind == "image" and not str(files[0]).endswith(".npy"):
        for i in range(0, len(files), _IMAGES):
            part = files[i : i + _IMAGES]
            yield read_images(part, spec, preprocessing), part[0], {"path": part}


def new_files(path: str | list[str], spec: DataSpec, preprocessing: Preprocessing) -> list[str]:
    """Return the files of new rows that `path` means to a model; `-` is standard input."""
    if path == "-":
        return ["-"]
    if preprocessing.text is not None:
        return find_files(path, (*_TABLES, ".txt"))
    if spec.kind in ("tabular", "transactions") and preprocessing.encoder is None and spec.feature_names is None:
        return find_files(path, (".npy",))
    return find_files(path, _SUFFIXES[spec.kind])


_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "tabular": (*_TABLES, ".npy"),
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".npy"),
    "sequence": (".npy",),
    "tokens": (".txt",),
    "pairs": (".txt",),
    "series": (".csv",),
    "transactions": (".csv", ".txt", ".dat", ".csv.gz", ".txt.gz", ".dat.gz", ".parquet", ".pq"),
}


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _arrays(file: str) -> Iterator[np.ndarray]:
    from zoo.data.mapped import open_npy

    x = open_npy(file)
    rows = max(1, _BYTES // max(1, x[:1].nbytes))
    yield from (np.array(x[i : i + rows]) for i in range(0, len(x), rows))


def _csv(file: str, spec: DataSpec, preprocessing: Preprocessing, options: dict[str, Any]) -> Iterator[Any]:
    """Yield the columns that the model reads, of the types that it reads them in."""
    import pyarrow as pa

    encoder = preprocessing.encoder
    nulls = tuple(encoder.options.null_values if encoder else options.get("null_values") or ("", "NA", "nan"))
    delimiter = options.get("delimiter") or ("\t" if ".tsv" in Path(file).name else ",")
    form = CsvFormat(options.get("columns"), delimiter, options.get("encoding") or "utf8", nulls)
    source: Any = sys.stdin.buffer if file == "-" else file
    where = "Standard input" if file == "-" else file
    names = form.columns or header_of(source, form)
    if encoder is not None:
        encoder.check(names, where)
        types = {c.name: pa.string() if c.kind == "text" else pa.float64() for c in encoder.features}
    else:
        types = {name: pa.float64() for name in spec.feature_names or names}
    yield from open_csv(source, names, form, types, where)


def _texts(files: list[str], column: str, options: dict[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield the texts of a table's column, or of a file or standard input that has one a line."""
    import pyarrow as pa

    for file in files:
        suffix = Path(file.removesuffix(".gz")).suffix.lower()
        if suffix in (".parquet", ".pq"):
            parquet = ParquetFiles([file])
            check_columns(parquet.schema.names, [column], parquet.schema.names, file)
            yield from ((parquet.read(group, [column])[0], file, {}) for group in range(len(parquet.groups)))
        elif suffix in (".csv", ".tsv"):
            delimiter = options.get("delimiter") or ("\t" if suffix == ".tsv" else ",")
            form = CsvFormat(options.get("columns"), delimiter, options.get("encoding") or "utf8", texts=(column,))
            names = form.columns or header_of(file, form)
            yield from ((table, file, {}) for table in open_csv(file, names, form, {column: pa.string()}, file))
        else:
            yield from ((lines, file, {}) for lines in _chunks(_lines(file), _LINES))


def _row_groups(file: str, spec: DataSpec, preprocessing: Preprocessing) -> Iterator[Any]:
    files, encoder = ParquetFiles([file]), preprocessing.encoder
    if encoder is not None:
        encoder.check(files.schema.names, file)
    names = [c.name for c in encoder.features] if encoder else list(spec.feature_names or files.schema.names)
    for group in range(len(files.groups)):
        yield files.read(group, names)[0]


def _lines(file: str) -> Iterator[str]:
    """Yield each line, an empty one too, so that the answers stand beside them."""
    try:
        if file == "-":
            yield from (line.rstrip("\n") for line in sys.stdin)
            return
        with open(file, encoding="utf-8") as source:
            yield from (line.rstrip("\n") for line in source)
    except UnicodeDecodeError as error:
        where = "Standard input" if file == "-" else file
        raise ZooError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}): convert it first.") from None


def _baskets(file: str, options: dict[str, Any]) -> Iterator[list[str]]:
    from zoo.data.basket_files import read_baskets

    if file == "-":
        rows = csv.reader(sys.stdin, delimiter=options.get("delimiter") or ",")
        return ([item for item in row if item] for row in rows)
    return read_baskets(file, options.get("delimiter"), options.get("encoding") or "utf8")


def _windows(file: str, spec: DataSpec, options: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yield every window of a series, the last of which is followed by nothing yet."""
    from zoo.data.series import read_column

    values = read_column(Path(file), options.get("column"))[1].numpy()
    window = spec.shape[0]
    if len(values) < window:
        raise ZooError(f"{file} has {len(values)} steps; the model sees {window} before it says the next.")
    yield np.lib.stride_tricks.sliding_window_view(values, window)[:, :, None].copy()


def read_images(files: list[str], spec: DataSpec, preprocessing: Preprocessing) -> Any:
    """Return image files (N, C, H, W) in the size, the channels and the units of the training images."""
    import torch

    from zoo.data.image_folder import Decoder

    channels, height, width = spec.shape
    pixels = Decoder([Path(file) for file in files], (height, width), channels)[torch.arange(len(files))]
    return pixels if preprocessing.white == 255 else pixels * (preprocessing.white / 255)
