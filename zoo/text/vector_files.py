r"""Files of word vectors: the text and the binary format of word2vec, and GloVe's, the text without its first line.

```
3 2                         V words, D numbers each          (GloVe's files begin with the first word)
the 0.25 -1.5               a word, a blank, D numbers; or the word, a blank and 4 D bytes of float32, little-endian
```

Source: Mikolov, Chen, Corrado & Dean 2013 (the tool `word2vec`); Pennington, Socher & Manning 2014 (`glove`). A word
holds no blank and no line's end; one of GloVe's published files has some with blanks, which are read.

Legend: V words, D numbers of a vector, B words of a block.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["VECTOR_FILES", "find_vectors", "read_vectors", "write_vectors"]

log = logging.getLogger(__name__)

VECTOR_FILES = ("vectors.bin", "vectors.txt")  # what a run of word vectors keeps
_BLOCK = 4096  # words that are read or written at a time
_CHUNK = 1 << 20  # bytes

Block = tuple[list[str], np.ndarray]


def find_vectors(path: str | Path) -> Path:
    """Return the file of word vectors that `path` means: the file itself, or that of a run's folder.

    Raises:
        ZooError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in VECTOR_FILES if (path / name).is_file()), None)
        if found is None:
            raise ZooError(f"The folder {path} holds no word vectors ({' or '.join(VECTOR_FILES)}).")
        return found
    if not path.is_file():
        raise ZooError(f"There are no word vectors at {path}: pass a file of them, or the run that learned them.")
    return path


# -- writing -----------------------------------------------------------------------------------------------------------


def write_vectors(file: str | Path | IO[bytes], words: Sequence[str], vectors: Tensor, *, binary: bool = True) -> None:
    """Write word vectors as word2vec does, so that gensim and the tools of that time read them.

    Args:
        file: the path, which ends in `.gz` to be compressed, or an open file.
        words: V words, the most frequent first.
        vectors: (V, D); they are written as float32.
        binary: 4 bytes a number; or the shortest decimal number that is read as the same float32.

    Raises:
        ZooError: for a word that the format has no room for, or another number of words than of vectors.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> write_vectors(file, ["to", "be"], torch.tensor([[0.5, -1.0], [0.1, 2.0]]), binary=False)
        >>> print(file.getvalue().decode(), end="")
        2 2
        to 0.5 -1.0
        be 0.1 2.0
    """
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise ZooError(f"{len(words)} words need as many vectors (V, D), not {tuple(vectors.shape)}.")
    for word in words:
        if not word or " " in word or "\n" in word:
            raise ZooError(f"The format of word vectors has no room for the word {word!r}, which is empty or parted.")
    if isinstance(file, str | Path):
        with _opened(Path(file), "wb") as opened:
            write_vectors(opened, words, vectors, binary=binary)
        return
    file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
    for start in range(0, len(words), _BLOCK):
        block = vectors[start : start + _BLOCK].detach().cpu().to(torch.float32).contiguous().numpy().astype("<f4")
        rows: Iterable[bytes]
        if binary:
            rows = (b" " + row.tobytes() for row in block)
        else:
            rows = (f" {' '.join(row)}\n".encode() for row in block.astype(str).tolist())
        file.write(b"".join(word.encode() + row for word, row in zip(words[start:], rows, strict=False)))


# -- reading -----------------------------------------------------------------------------------------------------------


def read_vectors(path: str | Path, only: Container[str] | None = None) -> tuple[list[str], Tensor]:
    """Read word vectors of any of the three formats, which the file itself tells apart, some at a time.

    Args:
        path: the file, which may be compressed (`.gz`), or the folder of a run that learned word vectors.
        only: the words that are wanted; the vectors of all others are not kept.

    Returns:
        The words, and their vectors (V, D), float32.

    Raises:
        ZooError: for a file that is cut off, longer than it says, or no file of word vectors.
    """
    path = find_vectors(path)
    words: list[str] = []
    parts: list[np.ndarray] = []
    seen: set[str] = set()
    repeated, dim = 0, 0
    try:
        with _opened(path, "rb") as file:
            for block, rows in _blocks(file, path):
                dim = rows.shape[1]
                if not np.isfinite(rows).all():
                    _refuse(path, f"the vector of '{block[int((~np.isfinite(rows)).any(1).argmax())]}' is not finite")
                kept = []
                for number, word in enumerate(block):
                    if word in seen:
                        repeated += 1
                    elif only is None or word in only:
                        kept.append(number)
                    seen.add(word)
                words += [block[number] for number in kept]
                parts.append(rows if len(kept) == len(block) else rows[kept])
    except (OSError, EOFError) as error:
        raise ZooError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if repeated:
        log.info("%s has %d words more than once: the first vector of each is taken.", path, repeated)
    return words, torch.from_numpy(np.concatenate([np.zeros((0, dim), np.float32), *parts]))


def _opened(path: Path, mode: str) -> Any:
    return gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode)


def _refuse(path: Path, why: str) -> NoReturn:
    raise ZooError(f"{path} is no whole file of word vectors: {why}.")


def _blocks(file: IO[bytes], path: Path) -> Iterator[Block]:
    """Yield words with their vectors (B, D), some at a time."""
    bytes_of = _Bytes(file)
    first = bytes_of.line(_CHUNK)
    if not first:
        _refuse(path, "it is empty")
    header = _header(first)
    if header is None:
        bytes_of.put_back(first)
        return (yield from _lines(bytes_of, path, None, first.rstrip().count(b" ")))
    count, dim = header
    if min(count, dim) < 1:
        _refuse(path, f"its first line says {count} words of {dim} numbers")
    if path.suffix != ".gz" and count * (2 * dim + 2) > path.stat().st_size:
        _refuse(path, f"its first line says {count:,} words of {dim:,} numbers, for which it is too short")
    start = bytes_of.line(64 * dim + 4096)
    bytes_of.put_back(start)
    yield from (_lines if _is_text(start, dim) else _records)(bytes_of, path, count, dim)


def _header(line: bytes) -> tuple[int, int] | None:
    """Return V and D of a first line that says them."""
    parts = line.split()
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(part.isdigit() for part in parts) else None


def _is_text(line: bytes, dim: int) -> bool:
    """Whether what follows the first line is a word and D numbers in decimal digits."""
    try:
        numbers = line.rstrip().rsplit(b" ", dim)[1:]
        return bool(numbers) and all(number.isascii() and np.isfinite(float(number)) for number in numbers)
    except ValueError:
        return False


def _lines(bytes_of: _Bytes, path: Path, count: int | None, dim: int) -> Iterator[Block]:
    if dim < 1:
        _refuse(path, "its first line holds no word with numbers behind it")
    number = 0
    words: list[str] = []
    rows: list[bytes] = []

    def block() -> Block:
        values = np.fromstring(b" ".join(rows).decode("latin-1"), np.float32, sep=" ")
        return words, values.reshape(len(words), dim)

    while line := bytes_of.line(None):
        number += 1
        if not line.strip():
            continue
        word, *values = line.rstrip(b" \r\n").rsplit(b" ", dim)
        if len(values) != dim or not _are_numbers(values):
            _refuse(path, f"vector {number} is not a word and {dim} numbers")
        words.append(_decoded(word, path, number))
        rows.append(b" ".join(values))
        if count is not None and number > count:
            _refuse(path, f"it holds more than the {count:,} words that its first line says")
        if len(words) == _BLOCK:
            yield block()
            words, rows = [], []
    if words:
        yield block()
    if count is not None and number < count:
        _refuse(path, f"it ends after {number:,} of {count:,} words")


def _are_numbers(values: list[bytes]) -> bool:
    """Whether each is a number: what NumPy's reader of many at once does not say."""
    try:
        return len(list(map(float, values))) > 0
    except ValueError:
        return False


def _records(bytes_of: _Bytes, path: Path, count: int, dim: int) -> Iterator[Block]:
    words: list[str] = []
    rows: list[bytes] = []
    for number in range(1, count + 1):
        word = bytes_of.until(b" ").lstrip(b"\n")  # which some tools write behind each vector
        row = bytes_of.take(4 * dim)
        if not word or len(row) < 4 * dim:
            _refuse(path, f"it ends after {number - 1:,} of {count:,} words")
        words.append(_decoded(word[:-1], path, number))
        rows.append(row)
        if len(words) == _BLOCK or number == count:
            yield words, np.frombuffer(b"".join(rows), "<f4").astype(np.float32).reshape(-1, dim)
            words, rows = [], []
    if bytes_of.take(_CHUNK).strip(b"\n"):
        _refuse(path, f"it holds more than the {count:,} words that its first line says")


def _decoded(word: bytes, path: Path, number: int) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        _refuse(path, f"word {number} is not UTF-8 text")


class _Bytes:
    """The bytes of a file, taken to the end of a line, of a word, or by number."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.buffer, self.place = file, b"", 0

    def line(self, most: int | None) -> bytes:
        """Return the next line with its end, or what there is of it within `most` bytes."""
        return self.until(b"\n", most)

    def until(self, mark: bytes, most: int | None = None) -> bytes:
        """Return what comes up to a mark, with it; without one, all that is left."""
        return self._taken(lambda: self.buffer.find(mark, self.place) + 1 or None, most)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        return self._taken(lambda: self.place + size if len(self.buffer) >= self.place + size else None, None)

    def put_back(self, taken: bytes) -> None:
        """Take the last bytes once more."""
        self.place -= len(taken)

    def _taken(self, end_of: Callable[[], int | None], most: int | None) -> bytes:
        while (end := end_of()) is None and (most is None or len(self.buffer) - self.place < most):
            more = self.file.read(_CHUNK)
            if not more:
                break
            self.buffer, self.place = self.buffer[self.place :] + more, 0
        start = self.place
        self.place = len(self.buffer) if end is None else end
        if most is not None:
            self.place = min(self.place, start + most)
        return self.buffer[start : self.place]
