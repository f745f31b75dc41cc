r"""The words of texts and their numbers, found in one pass over the texts by a compiled kernel.

Words are what the pre-tokenizer `Whitespace` of the `tokenizers` library finds, `\w+|[^\w\s]+`: runs of letters and
digits, and runs of other signs. To which of these a character belongs the library is asked, the first time that one of
its page of 256 is met.

Legend: N texts, M words of all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor

from zoo.kernels import words as kernel
from zoo.kernels.words import available
from zoo.text.pieces import halves_refused

__all__ = ["Words", "add_counts", "available", "lowered"]

_ROOM = 1024  # words that a table has room for at first
_PART = 4096  # texts that are read at once
_PAGE = 256
_BETWEEN, _LETTER, _SIGN = 1, 2, 3  # classes of characters


class Words:
    """Words and their numbers: those that are known, and those that are met.

    Args:
        names: the words that are known, which have the numbers from 0 on.

    Example:
        >>> words = Words()
        >>> [part.tolist() for part in words.read(["to be, or", "not to be!"])]
        [[0, 1, 2, 3, 4, 0, 1, 5], [4, 4]]
        >>> words.names()
        ['to', 'be', ',', 'or', 'not', '!']
    """

    @torch.inference_mode(False)  # what is made in there may not be written to outside
    def __init__(self, names: Sequence[str] = ()) -> None:
        known = [name.encode() for name in names]
        self._state = torch.zeros(7, dtype=torch.long)
        self._state[kernel.WORDS] = len(known)
        self._state[kernel.BYTES] = sum(map(len, known))
        self._names = _bytes(b"".join(known))
        self._ends = torch.tensor([len(name) for name in known], dtype=torch.long).cumsum(0)
        self._grow()

    def __len__(self) -> int:
        return int(self._state[kernel.WORDS])

    def names(self) -> list[str]:
        """Return the words in the order of their numbers."""
        text, ends = self._names.numpy().tobytes(), [0, *self._ends[: len(self)].tolist()]
        return [str(text[start:end], "utf-8") for start, end in pairwise(ends)]

    def read(self, texts: Iterable[str], other: int = -1) -> tuple[Tensor, Tensor]:
        """Return the numbers of the words of texts, one text after the other, and how many words each has.

        Args:
            texts: N texts.
            other: the number of a word that is not known; if negative, such a word gets the next number.

        Returns:
            The numbers (M,), int32, and how many each text has, (N,), int64.

        Raises:
            ZooError: for half of a character.
        """
        remaining, found = iter(texts), [torch.zeros(0, dtype=torch.int32)]
        lengths = [torch.zeros(0, dtype=torch.long)]
        while part := list(islice(remaining, _PART)):
            with halves_refused(part):
                encoded = [text.encode() for text in part]
            numbers, ends = self._read(encoded, other)
            found.append(numbers)
            lengths.append(ends.diff(prepend=ends.new_zeros(1)))
        return torch.cat(found), torch.cat(lengths)

    @torch.inference_mode(False)
    def _read(self, texts: list[bytes], other: int) -> tuple[Tensor, Tensor]:
        """Return the numbers of the words (M,), and how many there are up to the end of each text, (N,)."""
        text = _bytes(b"".join(texts))
        ends = torch.from_numpy(np.fromiter(map(len, texts), np.int64, len(texts))).cumsum(0)
        found, found_ends, state = torch.empty(len(text), dtype=torch.int32), torch.empty_like(ends), self._state
        state[[kernel.AT, kernel.TEXT, kernel.FOUND]] = 0
        while True:
            kernel.read_words(
                text, ends, _classes(), self._slots, self._names, self._ends, found, found_ends, state, other
            )
            stopped = int(state[kernel.STOPPED])
            if stopped == 0:
                return found[: int(state[kernel.FOUND])].clone(), found_ends
            if stopped < 0:
                self._grow()
            else:
                _ask(stopped // _PAGE)

    def _grow(self) -> None:
        """Make room for twice as many words, of which at most every second slot is taken."""
        room = max(_ROOM, 2 * len(self._ends))
        self._ends = torch.cat([self._ends, self._ends.new_zeros(room - len(self._ends))])
        self._names = torch.cat([self._names, self._names.new_zeros(max(16 * _ROOM, len(self._names)))])
        self._slots = torch.zeros(1 << (2 * room - 1).bit_length(), dtype=torch.long)
        self._state[kernel.FILLED] = 0


def add_counts(counts: Tensor, numbers: Tensor, size: int) -> Tensor:
    """Return counts (V,) with those of more numbers (M,) added, as those of `size` words.

    >>> add_counts(torch.tensor([1, 2]), torch.tensor([2, 0, 2]), 3)
    tensor([2, 2, 2])
    """
    more = torch.bincount(numbers, minlength=size)
    more[: len(counts)] += counts
    return more


def lowered(text: str) -> str:
    """Return a text in small letters, as the normalizer `Lowercase` of the library has it.

    >>> lowered("To BE")
    'to be'
    """
    if text.isascii():
        return text.lower()
    from tokenizers.normalizers import Lowercase

    with halves_refused([text]):
        return Lowercase().normalize_str(text)


def _bytes(text: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


@functools.cache
def _classes() -> Tensor:
    """The classes of all characters, 0 where the library was not asked yet, (0x110000,), uint8."""
    return _ask(0, torch.zeros(0x110000, dtype=torch.uint8))


def _ask(page: int, classes: Tensor | None = None) -> Tensor:
    """Ask the library for the classes of 256 characters: how it cuts `x?x` tells that of the sign in the middle."""
    from tokenizers.pre_tokenizers import Whitespace

    classes = _classes() if classes is None else classes
    first = page * _PAGE
    signs = [chr(i) for i in range(first, first + _PAGE) if not 0xD800 <= i < 0xE000]  # no halves of characters
    pieces = Whitespace().pre_tokenize_str("".join(f"x{sign}x " for sign in signs))
    starts = {start for _, (start, _) in pieces}
    for i, sign in enumerate(signs):
        alone, parts = 4 * i + 1 in starts, 4 * i + 2 in starts
        classes[ord(sign)] = _SIGN if alone else _BETWEEN if parts else _LETTER
    return classes
