"""Texts that are tokenized once, to a file that is mapped into memory, and gone on with where that was broken off.

The file is named after what made it: the tokenizer, and the documents with their sizes and times. Beside an unfinished
one lies how far it has come; of several processes one writes, and the others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["cache_folder", "fingerprint", "keep_text", "open_tokens", "write_tokens"]

log = logging.getLogger(__name__)

Spans = Sequence[tuple[int, int]]


def cache_folder(given: str | None) -> Path:
    """Return the folder of files that are made again if they are gone: the given one, or the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given or os.path.join(base, "zoo")).expanduser()


def fingerprint(tokenizer: str, documents: Iterable[Path | bytes], *parts: Any) -> str:
    """Return a name for the tokens of documents: another tokenizer, size, time or part of them gives another one."""
    digest = hashlib.sha256(tokenizer.encode())
    for document in documents:
        if isinstance(document, bytes):
            digest.update(hashlib.sha256(document).digest())
        else:
            stat = document.stat()
            digest.update(f"{document.absolute()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:24]


def keep_text(path: Path, make: Callable[[], str]) -> str:
    """Return what is in a file; what `make` gives, which is then kept there, where there is none."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    text, partial = make(), path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    return text


def open_tokens(path: Path) -> Tensor:
    """Return the tokens of a file, mapped into memory, (N,) int32."""
    return torch.from_file(str(path), shared=False, size=path.stat().st_size // 4, dtype=torch.int32)


def write_tokens(path: Path, spans: Spans, encode: Callable[[int, int], Iterator[np.ndarray]]) -> None:
    """Write the tokens of one span after the other, unless the file is there; go on with one that was broken off.

    Args:
        path: the file, which has its name only when it is whole.
        spans: from where to where in the text.
        encode: gives the tokens of a span, some at a time, int32.

    Raises:
        ZooError: if the file cannot be written.
    """
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            with contextlib.suppress(ImportError):  # elsewhere than on Unix every process writes for itself
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the process ends, however it does
            if not path.is_file():
                _write(path, spans, encode)
        path.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ZooError:
    return ZooError(f"{path} cannot be written ({error.strerror or error}): pass data.cache_dir=FOLDER.")


def _write(path: Path, spans: Spans, encode: Callable[[int, int], Iterator[np.ndarray]]) -> None:
    partial, progress = path.with_suffix(".part"), path.with_suffix(".json")
    done, size = _progress(progress, partial)
    if done:
        log.info("Going on to tokenize at part %d of %d, as %s.", done + 1, len(spans), path)
    else:
        log.info("Tokenizing once, as %s.", path)
    with open(partial, "r+b" if partial.is_file() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        for number in range(done, len(spans)):
            for tokens in encode(*spans[number]):
                file.write(np.ascontiguousarray(tokens, np.int32).data)
            file.flush()
            os.fsync(file.fileno())
            written = progress.with_suffix(".new")
            written.write_text(json.dumps({"done": number + 1, "size": file.tell()}))
            os.replace(written, progress)
    os.replace(partial, path)
    progress.unlink(missing_ok=True)


def _progress(progress: Path, partial: Path) -> tuple[int, int]:
    """Return how many spans an unfinished file holds, and how many of its bytes those are."""
    try:
        found = json.loads(progress.read_text())
        if partial.stat().st_size >= found["size"]:
            return int(found["done"]), int(found["size"])
    except (OSError, ValueError, KeyError):
        pass
    return 0, 0
