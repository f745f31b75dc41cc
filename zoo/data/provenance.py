"""Where a run's data lie, and whether they are still what the run was trained on.

Paths are absolute in a run's config, and relative to the run's folder where the data lie in it, so that a run is
evaluated from any folder and may be moved with its data. `data.sha256` in the run, in the format of `sha256sum`, tells
changed files. A file in an object store, whose content is far, is told by its size and time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.data.registry import data_entry
from zoo.data.stores import is_stored, stamp

__all__ = ["absolute", "absolute_paths", "changed_files", "digests", "paths_from", "read_digests", "sha256sums"]


def absolute_paths(section: dict[str, Any], base: str | Path = ".") -> dict[str, Any]:
    """Return the options of `data` with every path absolute; relative ones start at `base`.

    Example:
        >>> absolute_paths({"name": "csv", "path": "a/*.csv"}, "/data")["path"]
        '/data/a/*.csv'
    """
    return _mapped(section, lambda path: absolute(path, base))


def paths_from(section: dict[str, Any], run: str | Path) -> dict[str, Any]:
    """Return the options of `data` with the absolute paths that lie in the folder of the run relative to it."""
    return _mapped(section, lambda path: _within(path, Path(run)))


def absolute(path: str, base: str | Path = ".") -> str:
    """Return a path from `base` on; an address is one already."""
    return path if is_stored(path) else os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def _within(path: str, run: Path) -> str:
    folder = os.path.abspath(run)
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path


def _mapped(section: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    entry = data_entry(str(section.get("name")))
    is_path: Callable[[str, Any], bool] = getattr(entry and entry.cls, "is_path", lambda option, value: False)
    changed = dict(section)
    for key, value in section.items():
        if not is_path(key, value):
            continue
        if isinstance(value, str) and value:
            changed[key] = change(value)
        elif isinstance(value, list | tuple):
            changed[key] = [change(item) if isinstance(item, str) else item for item in value]
    return changed


def digests(files: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the content of each file; of one in a store, that of its size and time."""
    found = {}
    for file in files:
        if is_stored(file):
            found[file] = stamp(file)
            continue
        with open(file, "rb") as content:
            found[file] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def sha256sums(found: dict[str, str], run: Path) -> str:
    """Return digests as `sha256sum` writes them, with the paths of `paths_from`."""
    return "".join(f"{digest}  {_within(absolute(file), run)}\n" for file, digest in found.items())


def read_digests(run: Path) -> dict[str, str] | None:
    """Return the digests of the files that a run was trained on, or None where it kept none."""
    file = run / "data.sha256"
    if not file.is_file():
        return None
    lines = [line.partition("  ") for line in file.read_text(encoding="utf-8").splitlines()]
    return {absolute(path, run): digest for digest, _, path in lines}


def changed_files(run: Path, files: list[str]) -> list[str]:
    """Return the files that are not what the run was trained on, in their order; none where it kept no digests."""
    before = read_digests(run)
    if before is None:
        return []
    now = digests(files)
    return [file for file, digest in now.items() if before.get(absolute(file)) != digest]
