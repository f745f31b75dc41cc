"""Tokens that come one by one as text, up to a text that ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["TextStream"]

_CONTEXT = 8  # tokens before a piece that say how it is written: blanks between words, halves of characters
_HALF = "\N{REPLACEMENT CHARACTER}"  # what some bytes of a character that is not complete are decoded to


class _Decodes(Protocol):
    def decode(self, ids: Sequence[int]) -> str: ...


class TextStream:
    """Turns tokens into pieces of text: what may still change, or may begin a stop text, waits for what comes.

    Args:
        tokenizer: has `decode`.
        prompt: the token ids before.
        stops: texts that end it; they and what follows are left out.

    Attributes:
        stopped: whether one of the stop texts has come.

    Example:
        >>> from zoo.text import Tokenizer
        >>> tokenizer = Tokenizer.train(["to be or not"], "char")
        >>> stream = TextStream(tokenizer, [], stops=["be"])
        >>> [stream.push(number) for number in tokenizer.encode("to bet").tolist()]
        ['t', 'o', ' ', '', '', '']
        >>> stream.stopped
        True
    """

    def __init__(self, tokenizer: _Decodes, prompt: Sequence[int] = (), stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops, self.stopped = tokenizer, tuple(stops), False
        self._ids = list(prompt)[-_CONTEXT:]
        self._begin, self._read = 0, len(self._ids)
        self._waiting = ""

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        if self.stopped:
            return ""
        self._ids.append(token)
        return self._release(self._decoded(whole=False))

    def end(self) -> str:
        """Return what still waits: no more tokens come."""
        piece, self._waiting = ("" if self.stopped else self._waiting + self._decoded(whole=True)), ""
        return piece

    def _decoded(self, whole: bool) -> str:
        """The text of the tokens that were not returned yet."""
        before = self.tokenizer.decode(self._ids[self._begin : self._read])
        now = self.tokenizer.decode(self._ids[self._begin :])
        if not whole and (now.endswith(_HALF) or len(now) <= len(before)):
            return ""
        self._read = len(self._ids)
        self._begin = max(self._begin, self._read - _CONTEXT)
        return now[len(before) :]

    def _release(self, piece: str) -> str:
        """Return what of the text that waits and a new piece can be part of no stop text."""
        text = self._waiting + piece
        found = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._waiting = True, ""
            return text[: min(found)]
        held = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._waiting = text[len(text) - held :]
        return text[: len(text) - held]
