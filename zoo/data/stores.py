"""Files in object stores, such as `s3://bucket/rows.parquet`, read through `pyarrow.fs`.

What stands behind the `?` of an address is the store's own: `region`, `scheme`, `endpoint_override` and what else
PyArrow knows, and `anonymous=true` for a bucket that anybody may read. It goes with the file's name without being part
of it, so that names end in `.csv` or `.parquet`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from zoo.errors import ZooError, nearest

__all__ = ["StoredFile", "find_stored", "is_stored", "modified", "source_of", "stamp", "system_of"]

_PATIENCE = 20  # seconds that Google's store is asked again; PyArrow asks for 15 minutes, which looks like a hang


class StoredFile(str):
    """The name of a file in a store.

    Args:
        name: without what stands behind the `?`.
        query: that.
    """

    query: str

    def __new__(cls, name: str, query: str = "") -> StoredFile:
        file = super().__new__(cls, name)
        file.query = query
        return file


def is_stored(path: Any) -> bool:
    """Whether a path is the address of a store.

    >>> is_stored("s3://bucket/rows.csv"), is_stored("rows.csv"), is_stored("C:/rows.csv")
    (True, False, False)
    """
    return isinstance(path, str) and re.match(r"(?!file:)[a-z][a-z0-9+.-]+://", path) is not None


@functools.lru_cache(maxsize=64)
def _opened(root: str, query: str) -> tuple[Any, str]:
    """Return the file system of a bucket, and the bucket's name there."""
    import pyarrow as pa
    import pyarrow.fs as pafs

    options = dict(parse_qsl(query))
    anonymous = options.pop("anonymous", "false").lower() in ("true", "1")
    store = root.partition("://")[0]
    if anonymous and store == "s3":
        known = {"region", "scheme", "endpoint_override"}
        if options.keys() - known:
            raise ZooError(
                f"{root} with anonymous=true takes {', '.join(sorted(known))}, not {min(options.keys() - known)}."
            )
        return pafs.S3FileSystem(anonymous=True, **options), root.partition("://")[2]
    if store in ("gs", "gcs"):
        options.setdefault("retry_limit_seconds", str(_PATIENCE))
    if anonymous:
        root = root.replace("://", "://anonymous@", 1)
    try:
        return pafs.FileSystem.from_uri(f"{root}?{urlencode(options)}" if options else root)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ZooError(f"{root} cannot be opened: {_first_line(error)}") from None


def system_of(file: str) -> tuple[Any, str]:
    """Return the file system of a stored file, and what the file is called there."""
    query = getattr(file, "query", "")
    store, _, path = file.partition("://")
    bucket, _, key = path.partition("/")
    system, root = _opened(f"{store}://{bucket}", query)
    return system, f"{root.rstrip('/')}/{key}"


def source_of(file: str) -> Any:
    """Return a file as a stream of bytes, unpacked where it is `.gz`."""
    import pyarrow as pa

    if not is_stored(file):
        return pa.input_stream(file)
    system, path = system_of(file)
    return system.open_input_stream(path)  # which looks at the suffix


def modified(file: str) -> tuple[int, int]:
    """Return the size of a file, and when it was written, in nanoseconds."""
    if not is_stored(file):
        about = os.stat(file)
        return about.st_size, about.st_mtime_ns
    system, path = system_of(file)
    with _reached(file, "path"):
        about = system.get_file_info(path)
    return int(about.size or 0), int(about.mtime_ns or 0)


def stamp(file: str) -> str:
    """Return what tells a stored file that has been changed: a digest of its size and time, as its content is far."""
    return hashlib.sha256(repr(modified(file)).encode()).hexdigest()


def find_stored(path: str, suffixes: tuple[str, ...], option: str) -> list[str]:
    """Return the files that an address means: a file, a folder (its files with a suffix) or a pattern with `*`, sorted.

    Raises:
        ZooError: if there are none, or the store does not answer.
    """
    import pyarrow.fs as pafs

    if not {".csv", ".parquet"} & set(suffixes):
        raise ZooError(f"{path}: CSV and Parquet are read from where they are stored; copy this here first.")
    parts = urlsplit(path.replace("#", "%23"))
    if parts.password:
        raise ZooError(
            f"data.{option} holds a password, which would go into the run's folder: leave it to the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    name, _, query = path.partition("?")
    with _reached(name, option):
        system, inner = system_of(StoredFile(name, query))
        kind = pafs.FileType.NotFound if "*" in name else system.get_file_info(inner.rstrip("/")).type
        if kind == pafs.FileType.File:
            return [StoredFile(name, query)]
        folder = inner if kind == pafs.FileType.Directory else inner.partition("*")[0].rpartition("/")[0]
        selector = pafs.FileSelector(
            folder.rstrip("/"), recursive=re.search(r"\*.*/|\*\*", name) is not None, allow_not_found=True
        )
        there = [about.path for about in system.get_file_info(selector) if about.type == pafs.FileType.File]
    if kind == pafs.FileType.Directory:
        chosen = [file for file in there if file.endswith(suffixes)]
        if not chosen:
            raise ZooError(f"The folder {name} holds no {' or '.join(suffixes)} file.")
    else:
        chosen = [file for file in there if _expression(inner).fullmatch(file)]
        if not chosen:
            similar = nearest(inner.rpartition("/")[2], [file.rpartition("/")[2] for file in there])
            raise ZooError(f"No such file: {name} (data.{option}).{similar}")
    store = name.partition("://")[0]
    return [StoredFile(f"{store}://{file}", query) for file in sorted(chosen)]


@contextlib.contextmanager
def _reached(name: str, option: str) -> Iterator[None]:
    """Turn what a store answers instead of files into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ZooError(f"{name} cannot be reached (data.{option}): {_first_line(error)}") from None


def _expression(pattern: str) -> re.Pattern[str]:
    """Return a pattern in which `*` stands for any signs but `/`, and `**` for any.

    >>> bool(_expression("s3://b/*.csv").fullmatch("s3://b/a.csv")), bool(_expression("b/*").fullmatch("b/a/c"))
    (True, False)
    """
    parts = re.split(r"(\*\*/?|\*)", pattern)
    signs = {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}
    return re.compile("".join(signs.get(part, re.escape(part)) for part in parts))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].partition(" error_info=")[0][:300].rstrip(".") + "."
