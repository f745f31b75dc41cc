"""The keys and values of the steps that a decoder has seen, so that each step is computed once.

Legend: B rows, G heads of keys and values, S steps seen, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["KeyValueCache", "TransformerCache"]


class KeyValueCache:
    """Keys and values of one attention layer, which grow with every call.

    The room doubles when it is full, so that S steps cost O(S) copies. It is for decoding: use it under
    `torch.inference_mode()` or `no_grad`.

    Args:
        fixed: keep what the first call stores, for attention to an encoder's memory that does not change.

    Attributes:
        length: S.

    Example:
        >>> cache = KeyValueCache()
        >>> for _ in range(3):
        ...     keys, values = cache.append(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
        >>> keys.shape, cache.length
        (torch.Size([1, 2, 3, 4]), 3)
    """

    def __init__(self, fixed: bool = False) -> None:
        self.fixed, self.length = fixed, 0
        self._room: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add steps (B, G, T, d) and return all, (B, G, S + T, d)."""
        end = self.length + key.shape[-2]
        if self.fixed:
            self._room = key, value
        else:
            if self._room is not None and key.shape[:2] != self._room[0].shape[:2]:
                kept, got = tuple(self._room[0].shape[:2]), tuple(key.shape[:2])
                raise RuntimeError(f"the cache holds {kept} rows and heads, the new step has {got}: begin a new cache")
            if self._room is None or end > self._room[0].shape[-2]:
                keys, values = (_grown(new, self._room and self._room[k], end) for k, new in enumerate((key, value)))
                self._room = keys, values
            for room, new in zip(self._room, (key, value), strict=True):
                room[:, :, self.length : end] = new
        self.length = end
        return self.stored()

    def stored(self) -> tuple[Tensor, Tensor]:
        """Return what there is, each (B, G, S, d).

        Raises:
            RuntimeError: nothing has been stored yet.
        """
        if self._room is None:
            raise RuntimeError("the cache is empty: append keys and values first")
        key, value = self._room
        return key[:, :, : self.length], value[:, :, : self.length]

    def truncate(self, length: int) -> None:
        """Forget the steps from `length` on, such as guesses that were refused."""
        if length < 0:
            raise ValueError(f"length must be at least 0, not {length}")
        self.length = min(self.length, length)

    def reorder(self, rows: Tensor) -> None:
        """Take these rows (…,) in the place of the present ones, as beam search does."""
        if self._room is not None:
            key, value = self._room
            self._room = key.index_select(0, rows), value.index_select(0, rows)


def _grown(new: Tensor, old: Tensor | None, length: int) -> Tensor:
    """Room for twice as many steps, with the old ones in it."""
    room = new.new_empty(*new.shape[:2], 2 * length, new.shape[3])
    if old is not None:
        room[:, :, : old.shape[2]] = old
    return room


class TransformerCache:
    """What each layer of an encoder or decoder keeps of the steps before.

    Args:
        num_layers: layers.

    Attributes:
        steps: for each layer, keys and values of the steps seen.
        memory: for each layer of a decoder, those of the encoder's memory, made by the first call.

    Example:
        >>> TransformerCache(2).length
        0
    """

    def __init__(self, num_layers: int) -> None:
        self.steps = [KeyValueCache() for _ in range(num_layers)]
        self.memory = [KeyValueCache(fixed=True) for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """S."""
        return self.steps[0].length if self.steps else 0

    def truncate(self, length: int) -> None:
        """Forget the steps from `length` on; the memory stays."""
        for cache in self.steps:
            cache.truncate(length)

    def reorder(self, rows: Tensor) -> None:
        """Take these rows (…,) in the place of the present ones, as beam search does."""
        for cache in (*self.steps, *self.memory):
            cache.reorder(rows)
