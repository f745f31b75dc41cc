"""Reading tables with PyArrow: CSV (gzip too) and Parquet, one file or many, in memory or by row groups.

Whatever PyArrow refuses (a ragged row, a truncated file, bytes that are no text) ends in one line with the
file's name.
"""

from __future__ import annotations

import codecs
import csv
import errno
import glob
import hashlib
import io
import json
import logging
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from zoo.data.names import listed, other_delimiter
from zoo.data.stores import find_stored, is_stored, modified, source_of, system_of
from zoo.data.token_file import cache_folder
from zoo.errors import ZooError, nearest

__all__ = ["CsvFormat", "ParquetFiles", "find_files", "header_of", "open_csv", "read_csv", "read_parquet", "stream_csv"]

log = logging.getLogger(__name__)

# How PyArrow names a column in its messages.
_COLUMN = re.compile(r"In CSV column #(\d+): ")
_ROW = re.compile(r"Row #(\d+): ")
_BLOCK = 1 << 18  # bytes of a CSV that are read at a time where it is streamed
_TABLE = 1 << 20  # and about as many of the tables that are made of them
_PIECE = 1 << 22  # and of a file whose pieces are parsed apart
_LINE = 1 << 12  # bytes in which a line mostly ends
_AHEAD = 4  # tables that are made before they are asked for


def find_files(path: str | list[str] | None, suffixes: tuple[str, ...], option: str = "path") -> list[str]:
    """Return the files that `path` means: a file, a list, a folder (its files with a suffix) or a pattern, sorted.

    Each may lie in an object store: see `zoo.data.stores`.

    Raises:
        ZooError: if there are none, with similar names from the same folder.
    """
    if not path:
        raise ZooError(f"data.{option} is not set: pass data.{option}=FILE (or a list, a folder, a pattern).")
    if not isinstance(path, str):
        return [file for item in path for file in find_files(item, suffixes, option)]
    if is_stored(path):
        return find_stored(path, suffixes, option)
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        files = sorted(str(p) for p in Path(path).iterdir() if p.name.endswith(suffixes) and p.is_file())
        if not files:
            raise ZooError(f"The folder {path} holds no {' or '.join(suffixes)} file.")
        return files
    files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    if not files:
        folder = Path(path).parent
        similar = nearest(Path(path).name, [p.name for p in folder.iterdir()]) if folder.is_dir() else ""
        raise ZooError(f"No such file: {path} (data.{option}).{similar}")
    return files


@contextmanager
def _reading(path: str, names: list[str] | None = None) -> Iterator[None]:
    """Turn what goes wrong while reading into one line that names the file (and the column)."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowException, OSError, UnicodeError, LookupError, EOFError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # the disk that is written to is full
        text = (
            str(error).split("\n")[0].replace("CSV parse error: ", "").replace("CSV conversion error", "no conversion")
        )
        column = _COLUMN.search(text)
        if column and names:
            text = text.replace(column.group(0), f"column '{names[int(column.group(1))]}': ")
        hint = ": the file has no line" if text == "Empty CSV file" else ""
        if isinstance(error, UnicodeError) or "UTF8" in text or (_is_utf16(path) and text.startswith("Expected")):
            text, hint = "it is not UTF-8 text", _other_encoding(path)
        if text.startswith("Expected 1 columns") and (sign := next((sign for sign in ";\t|" if sign in text), "")):
            hint = f": pass data.delimiter={sign!r} if that stands between the values"
        if text.startswith("Could not skip initial"):
            text = "it holds a header line but no rows"
        raise ZooError(f"{path} cannot be read: {text[:300].rstrip('.')}{hint}.") from None


def _is_utf16(path: str) -> bool:
    """Whether a file begins with the mark of UTF-16."""
    try:
        with open(path, "rb") as file:
            return file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    except OSError:
        return False


def _other_encoding(path: str) -> str:
    """Return what to do about a file that is not written in the encoding that it is read in."""
    if _is_utf16(path):
        return ", but UTF-16: pass data.encoding=utf16"
    return ": pass data.encoding=latin1, or what it is written in"


@dataclass(frozen=True)
class CsvFormat:
    """How CSV files are written.

    Attributes:
        columns: the names of the columns of a file without a header line.
        delimiter: what stands between values.
        encoding: text encoding.
        null_values: what stands for a missing value.
        texts: columns of texts, as which any value is read: `NA` and `?` are texts, too.
    """

    columns: list[str] | None = None
    delimiter: str = ","
    encoding: str = "utf8"
    null_values: tuple[str, ...] = ("",)
    texts: tuple[str, ...] = ()

    def arguments(self, block_size: int = 1 << 22, types: dict[str, pa.DataType] | None = None) -> dict:
        """Return the options as PyArrow takes them."""
        # PyArrow compares untrimmed: after ", " a missing value has a blank before it.
        null_values = [blank + value for value in self.null_values for blank in ("", " ")]
        return {
            "read_options": pacsv.ReadOptions(column_names=self.columns, encoding=self.encoding, block_size=block_size),
            "parse_options": pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            "convert_options": pacsv.ConvertOptions(
                null_values=null_values,
                strings_can_be_null=not self.texts,
                column_types={**dict.fromkeys(self.texts, pa.string()), **(types or {})},
            ),
        }


def read_csv(path: str, form: CsvFormat) -> pa.Table:
    """Return a CSV file as a table; types follow from all its rows."""
    with _reading(path, form.columns), source_of(path) as source:
        table = pacsv.read_csv(source, **form.arguments())
        _ = table.schema.names  # which are decoded here
    if not len(table):
        raise ZooError(f"{path} holds a header line but no rows.")
    return table


def header_of(source: Any, form: CsvFormat) -> list[str]:
    """Return the names in the header line of a CSV file, or of a stream, which is left behind the line."""
    import gzip

    where = source if isinstance(source, str) else "Standard input"
    try:
        encoding = "utf-8-sig" if form.encoding in ("utf8", "utf-8") else form.encoding
        if is_stored(source):
            with io.TextIOWrapper(source_of(source), encoding=encoding) as file:
                text = file.readline()
        elif isinstance(source, str):
            with (
                gzip.open(source, "rt", encoding=encoding)
                if source.endswith(".gz")
                else open(source, encoding=encoding) as file
            ):
                text = file.readline()
        elif "\n".encode(encoding).endswith(b"\n"):
            text = source.readline().decode(encoding)
        else:  # the byte of a line's end is within others
            raise ZooError(f"{where} is not read in {form.encoding}: turn it into UTF-8 first, or pass a file.")
    except UnicodeError:
        raise ZooError(f"{where} is not {form.encoding} text{_other_encoding(where)}.") from None
    except LookupError:
        raise ZooError(f"{where} cannot be read: data.encoding={form.encoding} is not known.") from None
    except (OSError, EOFError) as error:
        raise ZooError(f"{where} cannot be read: {error}.") from None
    names = next(csv.reader([text], delimiter=form.delimiter), [])
    if not names:
        raise ZooError(f"{where} has no header line.")
    return names


def open_csv(
    source: Any, names: list[str], form: CsvFormat, types: dict[str, pa.DataType], where: str
) -> Iterator[pa.Table]:
    """Yield some columns of a CSV file, or of a stream whose header line was read, as tables of some megabytes.

    Args:
        source: the file's name, or the stream.
        names: all its columns.
        form: how it is written.
        types: the columns that are wanted, with their types.
        where: what messages call it.

    Raises:
        ZooError: for a value that is not of its column's type, or a damaged file.
    """
    for name in types:
        if names.count(name) != 1:
            if name in names:
                raise ZooError(f"{where} has several columns named '{name}': rename them.")
            remedy = other_delimiter(names) or f"{nearest(name, names)} Its columns: {listed(names)}."
            raise ZooError(f"{where} has no column '{name}'.{remedy}")
    arguments = form.arguments()
    arguments["convert_options"] = pacsv.ConvertOptions(
        null_values=arguments["convert_options"].null_values,
        strings_can_be_null=not form.texts,
        column_types=types,
        include_columns=list(types),
    )
    # PyArrow reads 32 blocks ahead; a row must not be longer than one.
    options = {"column_names": names, "encoding": form.encoding, "block_size": max(_BLOCK, 128 * len(names))}
    header = isinstance(source, str) and form.columns is None

    def stream(offset: int = 0, *, use_threads: bool = True) -> Iterator[pa.Table]:
        skipped = int(header and not offset)
        arguments["read_options"] = pacsv.ReadOptions(skip_rows=skipped, use_threads=use_threads, **options)
        with pa.OSFile(source) if offset else source_of(source) as file:
            if offset:
                file.seek(offset)
            # The system gets back what is freed; the default pool would keep several times what is in use.
            yield from _gathered(pacsv.open_csv(file, memory_pool=pa.system_memory_pool(), **arguments))

    def parse(piece: pa.Buffer) -> pa.Table:
        piece_options = pacsv.ReadOptions(use_threads=False, **options)
        piece_options.block_size = piece.size + 1
        unquoted = pacsv.ParseOptions(delimiter=form.delimiter)
        return pacsv.read_csv(
            pa.BufferReader(piece), piece_options, unquoted, arguments["convert_options"], pa.system_memory_pool()
        )

    with _reading(where, names):
        if not isinstance(source, str):
            yield from stream()  # not ahead: it may keep a thread waiting for ever
            return
        plain = not (source.endswith(".gz") or is_stored(source)) and form.encoding in ("utf8", "utf-8")
        offset, rows = (yield from _in_pieces(source, parse, header)) if plain else (0, 0)
        if not plain or offset < os.path.getsize(source):
            with _rows_before(rows):
                try:
                    yield from _read_ahead(stream(offset))
                except pa.ArrowInvalid:
                    for _ in stream(offset, use_threads=False):  # then PyArrow counts rows, and names the wrong one
                        pass
                    raise


def _in_pieces(
    path: str, parse: Callable[[pa.Buffer], pa.Table], header: bool
) -> Generator[pa.Table, None, tuple[int, int]]:
    """Yield tables of a file in its order, while two threads parse pieces of it; return where they end, and the rows.

    A line's end parts two rows as long as nothing is quoted, so they end before the one with the first quote.
    """
    with open(path, "rb") as file, ThreadPoolExecutor(2, "zoo-read") as threads:
        own = threading.local()  # of each thread the bytes that it reads into, again and again

        def read(start: int, end: int) -> pa.Table | None:
            if not hasattr(own, "bytes"):
                own.bytes = bytearray(_PIECE)
            size = os.preadv(file.fileno(), [memoryview(own.bytes)[: end - start]], start)
            quoted = own.bytes.find(b'"', 0, size) >= 0
            return None if quoted else parse(pa.py_buffer(memoryview(own.bytes)[:size]))

        def begun(number: int) -> list[tuple[int, Future[pa.Table | None]]]:
            return [(end, threads.submit(read, start, end)) for start, end in islice(places, number)]

        offset = _header_length(file) if header else 0
        rows = int(offset > 0)
        places = _whole_lines(file, offset) if offset or not header else iter(())
        coming = deque(begun(_AHEAD))
        while coming:
            end, reading = coming.popleft()
            with _rows_before(rows):
                table = reading.result()
            if table is None:
                threads.shutdown(cancel_futures=True)
                break
            coming.extend(begun(1))
            rows, offset = rows + len(table), end
            if len(table):
                yield table
    return offset, rows


def _header_length(file: IO[bytes]) -> int:
    """Return the length of a file's first line; 0 where it is not sure that its names end there."""
    line = file.readline(_PIECE)
    whole = line.endswith(b"\n") and b"\r" not in line[:-2] and line.count(b'"') % 2 == 0
    return len(line) if whole else 0


@contextmanager
def _rows_before(number: int) -> Iterator[None]:
    """Have PyArrow, which counts the rows of a piece, name the row of the file."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(_ROW.sub(lambda found: f"row {number + int(found[1])}: ", str(error))) from None


def _whole_lines(file: IO[bytes], start: int) -> Iterator[tuple[int, int]]:
    """Yield where pieces of a file begin and end, each of whole lines, up to a line that is longer than a piece."""
    size = os.fstat(file.fileno()).st_size
    while start < size:
        end = start + _PIECE
        if end >= size:
            yield start, size
            return
        back = min(_LINE, _PIECE)  # bytes before the end in which a line's end is looked for
        while not (found := os.pread(file.fileno(), back, end - back).rfind(b"\n") + 1) and back < _PIECE:
            back = min(4 * back, _PIECE)
        if not found:
            return
        end += found - back
        yield start, end
        start = end


def _read_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yield items while a second thread makes the next ones: PyArrow parses a stream in the thread that asks for it."""
    with ThreadPoolExecutor(1, "zoo-read") as thread:
        last = object()
        coming = deque(thread.submit(next, items, last) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not last:
            coming.append(thread.submit(next, items, last))
            yield item


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches to tables of a megabyte, so that what is done with each costs little a row."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= _TABLE:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if sum(batch.num_rows for batch in held):
        yield pa.Table.from_batches(held)


def stream_csv(paths: list[str], form: CsvFormat, folder: str | None) -> str:
    """Return a Parquet file with the rows of CSV files that are too large to hold, converting them if need be.

    It is kept under a name that follows from the files' paths, sizes and times, in `folder` or the user's
    cache.
    """
    stats = [(path if is_stored(path) else os.path.abspath(path), *modified(path)) for path in paths]
    key = hashlib.sha256(json.dumps([stats, asdict(form)]).encode()).hexdigest()[:24]
    target = cache_folder(folder) / f"{key}.parquet"
    if target.is_file():
        return str(target)
    log.info("Keeping %s as %s, from which rows are streamed.", ", ".join(paths), target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
            try:
                _convert(paths, form, file.name)
                os.replace(file.name, target)
            finally:
                Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        raise ZooError(f"{target} cannot be written ({error.strerror or error}): pass data.cache_dir=FOLDER.") from None
    return str(target)


def _convert(paths: list[str], form: CsvFormat, target: str) -> None:
    with _reading(paths[0], form.columns), source_of(paths[0]) as source:
        schema = pacsv.open_csv(source, **form.arguments(1 << 24)).schema
    # These types are those of the first block: a column without a value yet gets numbers, most likely.
    types = {f.name: pa.float64() if pa.types.is_null(f.type) else f.type for f in schema}
    while not _written(paths, form, types, target):
        pass


def _written(paths: list[str], form: CsvFormat, types: dict[str, pa.DataType], target: str) -> bool:
    """Write the Parquet file; or, if integers turn into decimals further down, note it in `types` and return False."""
    with pq.ParquetWriter(target, pa.schema(list(types.items()))) as writer:
        for path in paths:
            with _reading(path, list(types)), source_of(path) as source:
                try:
                    for batch in pacsv.open_csv(source, **form.arguments(1 << 24, types)):
                        writer.write_batch(batch, row_group_size=1 << 18)
                except pa.ArrowInvalid as error:
                    column = _COLUMN.search(str(error))
                    name = list(types)[int(column.group(1))] if column else ""
                    if types.get(name) != pa.int64():
                        raise
                    types[name] = pa.float64()
                    return False
    return True


def read_parquet(path: str, columns: list[str]) -> pa.Table:
    """Return some columns of a Parquet file as a table."""
    with _reading(path):
        where, system = _place(path)
        return pq.read_table(where, columns=columns, filesystem=system, page_checksum_verification=True)


def _place(path: str) -> tuple[str, Any]:
    """Return what a file is called, and in which file system that is not this machine's."""
    if not is_stored(path):
        return path, None
    system, name = system_of(path)
    return name, system


@contextmanager
def _open_parquet(path: str, metadata: Any = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; where its `metadata` are known, they are not read again."""
    name, system = _place(path)
    source = name if system is None else system.open_input_file(name)
    with pq.ParquetFile(source, metadata=metadata, pre_buffer=system is not None, page_checksum_verification=True) as f:
        yield f


class ParquetFiles:
    """Parquet files as one list of row groups.

    Args:
        paths: the files, whose columns must agree.
    """

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.groups: list[tuple[str, int]] = []  # (path, row group)
        self.sizes: list[int] = []  # rows of each
        self.metadata: dict[str, Any] = {}  # of files that are far
        schemas = []
        for path in paths:
            with _reading(path), _open_parquet(path) as file:
                metadata = file.metadata
                schemas.append(file.schema_arrow)
            if is_stored(path):
                self.metadata[path] = metadata
            filled = [g for g in range(metadata.num_row_groups) if metadata.row_group(g).num_rows]
            self.groups += [(path, g) for g in filled]
            self.sizes += [metadata.row_group(g).num_rows for g in filled]
        if not self.groups:
            raise ZooError(f"{paths[0]} holds no rows.")
        self.schema = schemas[0]

    def read(self, group: int, columns: list[str]) -> tuple[pa.Table, str]:
        """Return some columns of a row group, and the file that it is from."""
        path, number = self.groups[group]
        with _reading(path), _open_parquet(path, self.metadata.get(path)) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            return file.read_row_group(number, columns=there), path


def concat(paths: list[str], read: Callable[[str], pa.Table]) -> pa.Table:
    """Return the rows of several files as one table; their columns must agree."""
    tables = [read(path) for path in paths]
    if len(tables) == 1:
        return tables[0]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if set(table.schema.names) != set(tables[0].schema.names):
            odd = sorted(set(table.schema.names) ^ set(tables[0].schema.names))[0]
            raise ZooError(f"{path} and {paths[0]} differ in their columns: '{odd}' is in one of them alone.")
    with _reading(paths[0]):
        return pa.concat_tables(tables, promote_options="permissive")


def csv_bytes(path: str) -> int:
    """Return about how many bytes a CSV holds once it is unpacked."""
    return modified(path)[0] * (6 if path.endswith(".gz") else 1)
