"""Files of baskets: a line of items each, or a Parquet table with a column of zeros and ones for each item."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from typing import IO

from zoo.errors import ZooError

__all__ = ["SUFFIXES", "read_baskets"]

_TEXT = (".csv", ".txt", ".dat")
SUFFIXES = (*_TEXT, *(f"{suffix}.gz" for suffix in _TEXT), ".parquet", ".pq")


def read_baskets(path: str, delimiter: str | None = None, encoding: str = "utf8") -> Iterator[list[str]]:
    """Yield the items of each basket of a file; an empty line is an empty basket.

    Items are taken as they stand: blanks around a name belong to it, except in `.dat` files, whose items are separated
    by blanks.

    Args:
        path: a file of one of `SUFFIXES`.
        delimiter: what stands between the items of a line; None for a comma, and for blanks in `.dat` files.
        encoding: text encoding.

    Raises:
        ZooError: for a damaged file, the wrong encoding, or a Parquet column that is not zeros and ones.
    """
    if path.endswith((".parquet", ".pq")):
        yield from _read_parquet(path)
        return
    blanks = delimiter is None and path.removesuffix(".gz").endswith(".dat")
    try:
        with _open(path, encoding) as file:
            if blanks:
                yield from (line.split() for line in file)
            else:
                for row in csv.reader(file, delimiter=delimiter or ","):
                    yield [item for item in row if item]
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is not {encoding} text ({error.reason}): pass its encoding as data.encoding.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ZooError(f"{path} is truncated or damaged ({error}): fetch it again.") from None
    except (csv.Error, TypeError) as error:
        raise ZooError(f"{path} cannot be read with data.delimiter={delimiter!r}: {error}.") from None


def _open(path: str, encoding: str) -> IO[str]:
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return open(path, encoding=encoding, newline="")


def _read_parquet(path: str) -> Iterator[list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ZooError(f"{path} is not a whole Parquet file: {error}") from None
    names = file.schema_arrow.names
    for batch in file.iter_batches():
        columns = [_flags(batch.column(number), name, path) for number, name in enumerate(names)]
        for row in zip(*columns, strict=True):
            yield [name for name, chosen in zip(names, row, strict=True) if chosen]


def _flags(column: object, name: str, path: str) -> list[bool]:
    values = column.to_pylist()  # type: ignore[attr-defined]
    if any(value not in (0, 1) for value in set(values)):
        raise ZooError(f"{path}: column '{name}' holds other values than 0 and 1: one column an item is expected.")
    return values
