"""A long text in pieces, cut where no token goes on, so that it is read and encoded some at a time."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["pieces_of"]

_PIECE = 20_000  # characters; a whole book at once would take memory for every offset


def pieces_of(text: str) -> Iterator[str]:
    """Cut a long text where no token goes on: before a blank that parts two words.

    >>> "".join(pieces_of("to be or not to be"))
    'to be or not to be'
    """
    start = 0
    while start < len(text):
        end = _cut(text, start + _PIECE) if start + _PIECE < len(text) else len(text)
        yield text[start:end]
        start = end


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
