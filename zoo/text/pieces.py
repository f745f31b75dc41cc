"""A long text in pieces, cut where no token goes on, so that it is read and encoded some at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from zoo.errors import ZooError

__all__ = ["halves_refused", "pieces_of"]

_PIECE = 20_000  # characters; a whole book at once would take memory for every offset


def pieces_of(blocks: Iterable[str]) -> Iterator[str]:
    """Cut a long text where no token goes on: before a blank that parts two words.

    Args:
        blocks: the text, some at a time, cut anywhere.

    >>> list(pieces_of(["to be or n", "ot to be"]))
    ['to be or not to be']
    """
    rest = ""
    for block in blocks:
        text, start = rest + block, 0
        while len(text) - start > 2 * _PIECE:
            end = _cut(text, start + _PIECE)
            yield text[start:end]
            start = end
        rest = text[start:]
    while len(rest) > _PIECE:
        end = _cut(rest, _PIECE)
        yield rest[:end]
        rest = rest[end:]
    if rest:
        yield rest


def _cut(text: str, start: int) -> int:
    """Return the first place from `start` on at which a blank, or else a line's end, parts two words."""
    stop = min(start + _PIECE, len(text) - 1)
    for blank in (" ", "\n"):
        place = text.find(blank, start, stop)
        while place >= 0:
            if not text[place - 1].isspace() and not text[place + 1].isspace():
                return place
            place = text.find(blank, place + 1, stop)
    return stop


@contextmanager
def halves_refused(texts: Sequence[str]) -> Iterator[None]:
    """Raise one line where texts cannot be read because one holds half of a character, which UTF-8 has no bytes for.

    >>> with halves_refused(["to be", "or \\ud83d"]):
    ...     [text.encode() for text in ["to be", "or \\ud83d"]]
    Traceback (most recent call last):
    zoo.errors.ZooError: A text holds half of a character, U+D83D behind 'or ': read its file with errors='replace'.
    """
    try:
        yield
    except (UnicodeEncodeError, TypeError):  # Python's, and the library's
        for half in filter(None, map(re.compile("[\ud800-\udfff]").search, texts)):
            before = half.string[max(half.start() - 20, 0) : half.start()]
            raise ZooError(
                f"A text holds half of a character, U+{ord(half[0]):X} behind '{before}': read its file with "
                "errors='replace'."
            ) from None
        raise
