"""Documents in a fixed order as one long text, of which any part is read from disk some at a time."""

from __future__ import annotations

import bisect
import codecs
import importlib
import io
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from zoo.errors import ZooError
from zoo.text.pieces import pieces_of

__all__ = ["Corpus"]

_BLOCK = 1 << 20
_FAR = 1 << 16  # how far a cut may move to the end of a line
_PACKED = {".gz": "gzip", ".xz": "lzma", ".bz2": "bz2"}  # and the modules that unpack it


class Corpus:
    """Documents one after the other; places in them are counted in bytes of all of them.

    Line ends are read as `\\n`, and a mark of the byte order is left out.

    Args:
        documents: UTF-8 files, or texts in memory; a file that is packed (.gz, .xz, .bz2) is unpacked in memory.

    Raises:
        ZooError: for a file that cannot be read, or documents without a character.

    Example:
        >>> corpus = Corpus(["one\\ntwo\\n", "three"])
        >>> [list(pieces) for _, pieces in corpus.read(0, corpus.size)]
        [['one\\ntwo\\n'], ['three']]
    """

    def __init__(self, documents: Sequence[Path | str]) -> None:
        self.documents = [d.encode() if isinstance(d, str) else _unpacked(d) for d in documents]
        self.ends = list(accumulate(_size(document) for document in self.documents))
        self.size = self.ends[-1] if self.ends else 0
        if not self.size:
            named = next((f"{d} is empty" for d in self.documents if isinstance(d, Path)), "The text is empty")
            raise ZooError(f"{named}: there is nothing to learn from.")

    def cut(self, share: float) -> int:
        """Return the place near a share of the text at which a line begins, or at least a word or a character."""
        return self.boundary(round(self.size * share))

    def boundary(self, place: int) -> int:
        """Return the first place from `place` on at which a line begins, or at least a word or a character."""
        if place <= 0 or place >= self.size:
            return max(0, min(place, self.size))
        number = bisect.bisect_right(self.ends, place)
        start = self.ends[number - 1] if number else 0
        with self._open(number) as file:
            file.seek(place - start)
            ahead = file.read(_FAR)
        line = ahead.find(b"\n")
        if line >= 0:
            return place + line + 1
        blank = ahead.find(b" ")
        if blank >= 0:
            return place + blank
        continued = next((i for i, byte in enumerate(ahead) if byte & 0xC0 != 0x80), len(ahead))
        return place + continued

    def spans(self, start: int, stop: int, size: int) -> list[tuple[int, int]]:
        """Return parts of about `size` bytes that make up the text from `start` to `stop`."""
        places = [start]
        while places[-1] < stop:
            places.append(min(self.boundary(places[-1] + size), stop))
        return list(pairwise(places))

    def read(self, start: int, stop: int) -> Iterator[tuple[bool, Iterator[str]]]:
        """Yield each document from `start` to `stop`: whether it begins after another one, and its text in pieces.

        No token goes on from a piece to the next; see `zoo.text.pieces`.
        """
        for number, end in enumerate(self.ends):
            begin = self.ends[number - 1] if number else 0
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield first == begin > 0, pieces_of(self._read(number, first - begin, last - begin))

    def _open(self, number: int) -> io.BufferedIOBase:
        document = self.documents[number]
        return io.BytesIO(document) if isinstance(document, bytes) else document.open("rb")

    def _name(self, number: int) -> str:
        document = self.documents[number]
        return str(document) if isinstance(document, Path) else "The text"

    def _read(self, number: int, start: int, stop: int) -> Iterator[str]:
        utf8 = codecs.getincrementaldecoder("utf-8" if start else "utf-8-sig")()
        lines = io.IncrementalNewlineDecoder(utf8, translate=True)
        place = start
        with self._open(number) as file:
            file.seek(start)
            while place < stop:
                block = file.read(min(_BLOCK, stop - place))
                if not block:
                    raise ZooError(f"{self._name(number)} has become shorter while it was read.")
                pending = len(utf8.getstate()[0])  # bytes of a character that the block before broke
                try:
                    text = lines.decode(block, final=place + len(block) == stop)
                except UnicodeDecodeError as error:
                    at = place - pending + error.start
                    where = f"{self._name(number)} is not UTF-8 text"
                    raise ZooError(f"{where} ({error.reason} at byte {at}).") from None
                yield text
                place += len(block)


def _unpacked(file: Path) -> Path | bytes:
    """Return the content of a packed file, since places in it are none on disk; any other file as it is."""
    if file.suffix not in _PACKED:
        return file
    module = importlib.import_module(_PACKED[file.suffix])
    try:
        with module.open(file) as packed:
            return packed.read()
    except (EOFError, OSError, zlib.error, getattr(module, "LZMAError", OSError)) as error:
        raise ZooError(f"{file} is truncated or damaged ({error}): fetch it again.") from None


def _size(document: Path | bytes) -> int:
    if isinstance(document, bytes):
        return len(document)
    try:
        return document.stat().st_size
    except OSError as error:
        raise ZooError(f"{document} cannot be read: {error.strerror}.") from None
