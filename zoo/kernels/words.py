"""Words of texts and their numbers: an operator of `torch.library` over `words.c`, on a CPU.

`zoo::read_words` finds in one pass what the `tokenizers` library finds where there is no kernel (`available()`).

Letters: N texts, V words of the table, S slots of it, M words of the texts.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["AT", "BYTES", "FILLED", "FOUND", "STOPPED", "TEXT", "WORDS", "available", "read_words"]

AT, TEXT, FOUND, WORDS, BYTES, FILLED, STOPPED = range(7)
"""What the state holds: the next byte, its text, M so far, V, the bytes of the V words, how many of these have a slot,
and why the kernel stopped: 0 at the end, a character whose class is unknown, or -1 where there is no room."""

_CHARACTERS = 0x110000


class _ReadWords(ctypes.Structure):
    """`ReadWords` of words.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_texts", "num_slots", "words_room", "bytes_room", "other")),
        *((name, ctypes.c_void_p) for name in ("text", "ends", "classes", "slots", "names", "name_ends")),
        *((name, ctypes.c_void_p) for name in ("found", "found_ends", "state")),
    ]


def available() -> bool:
    """Return whether there is the kernel."""
    return function("read_words", _ReadWords) is not None


def _fake(text, ends, classes, slots, names, name_ends, found, found_ends, state, other):  # type: ignore[no-untyped-def]
    return None


@operator(_fake, mutates_args=("slots", "names", "name_ends", "found", "found_ends", "state"))
def read_words(
    text: Tensor, ends: Tensor, classes: Tensor, slots: Tensor, names: Tensor, name_ends: Tensor,
    found: Tensor, found_ends: Tensor, state: Tensor, other: int,
) -> None:  # fmt: skip
    """Go on finding the words of texts, in place, to their end or to where the kernel needs more room.

    Args:
        text: all texts, one after the other, in valid UTF-8, uint8.
        ends: where each ends, (N,), int64.
        classes: of all characters, (0x110000,), uint8: 0 unknown, 1 what parts words, others what a word is made of.
        slots: of the table, (S,), int64, zeros at first; S is a power of two above the room for words.
        names: the words of the table one after the other, uint8, with room for more.
        name_ends: where each ends, int64, with room for more.
        found: the number of each word of the texts, int32, with room for one a byte.
        found_ends: how many words there are up to the end of each text, (N,), int64.
        state: see `STOPPED`, (7,), int64.
        other: the number of a word that is not in the table; if negative, it is added.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
    """
    run = function("read_words", _ReadWords)
    if run is None:
        raise RuntimeError("zoo::read_words needs the compiled kernels: zoo.kernels.status() says why there are none")
    _check(text, ends, classes, slots, names, name_ends, found, found_ends, state)
    rooms = len(ends), len(slots), len(name_ends), len(names), other
    tensors = text, ends, classes, slots, names, name_ends, found, found_ends, state
    run(_ReadWords(*rooms, *(tensor.data_ptr() for tensor in tensors)))


def _check(
    text: Tensor, ends: Tensor, classes: Tensor, slots: Tensor, names: Tensor, name_ends: Tensor,
    found: Tensor, found_ends: Tensor, state: Tensor,
) -> None:  # fmt: skip
    """Raise unless the tensors are what the kernel reads and writes."""
    bytes_, words = (text, classes, names), (ends, slots, name_ends, found_ends, state)
    types = [(tensor, torch.uint8) for tensor in bytes_] + [(tensor, torch.int64) for tensor in words]
    for tensor, dtype in [*types, (found, torch.int32)]:
        if tensor.dtype != dtype or tensor.ndim != 1 or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise RuntimeError("zoo::read_words: all tensors must be rows of the types that are told, on the CPU")
    fits = len(classes) == _CHARACTERS and len(found) >= len(text) and len(found_ends) == len(ends) and len(state) == 7
    if not fits or len(slots) <= len(name_ends) or len(slots) & (len(slots) - 1):
        raise RuntimeError("zoo::read_words: the rooms do not fit together")
    if len(ends) and not bool((ends.diff() >= 0).all() and ends[0] >= 0 and ends[-1] <= len(text)):
        raise RuntimeError("zoo::read_words: the ends of the texts must ascend within the text")
    _, text_at, _, known, size, filled, _ = state.tolist()
    if not 0 <= filled <= known <= len(name_ends) or not 0 <= size <= len(names) or not 0 <= text_at <= len(ends):
        raise RuntimeError("zoo::read_words: the state is beyond the rooms")
