r"""How often two words stand near each other in a text: a table that is kept sparse, and on disk where it is large.

```math
X_{ij} = \sum_{d=1}^{R} \frac{1}{d} \; \#\{t : w_t = j, \; w_{t-d} = i\}
```

and, where it is symmetric, the same with i and j exchanged added to it. Words that are left out are left out before
distances are taken, and no window reaches from one text into the next.

The sums are whole numbers of 1/L, where L is the least common multiple of 1, …, R (of larger windows than 22 a power of
two, to which 1/d is rounded), so that they depend on no order, and on no number of processes.

The entries lie in the order of their keys' hashes, which is as good as shuffled: whoever goes through the table from
front to back meets the words in no order. And since hashes spread evenly, parts of the table that lie on disk are
merged range by range.

Legend: B texts, T tokens, R window, V words, N entries.
Source: Pennington, Socher & Manning 2014, §4.2, and their tool `cooccur`, which cuts the table at a memory limit, too.
"""

from __future__ import annotations

import bisect
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.numerics.hashing import splitmix64

__all__ = ["CooccurrenceTable", "Entries", "cooccurrences", "unit_of_counts"]

_LARGEST = 22  # window whose least common multiple leaves 2³⁵ for the counts
_LEAST = 1 << 20  # entries that are gathered before they are joined
_BYTES = 16  # of an entry


class Entries(NamedTuple):
    """Entries of the table.

    Attributes:
        keys: i V + j of each, (N,), int64.
        counts: in whole numbers of 1/L, (N,), int64.
    """

    keys: Tensor
    counts: Tensor


def unit_of_counts(window: int) -> int:
    """Return L, of which 1/d is a whole number for each d of the window (or nearly so, of large ones).

    >>> unit_of_counts(10)
    2520
    """
    return math.lcm(*range(1, window + 1)) if window <= _LARGEST else 1 << 31


def cooccurrences(tokens: Tensor, text: Tensor, vocab_size: int, window: int, symmetric: bool = True) -> Entries:
    """Return the co-occurrences of words that stand at most a window apart in the same text.

    Args:
        tokens: the words of all texts, one text after the other, (M,).
        text: the number of the text of each, (M,), which does not fall.
        vocab_size: V.
        window: R.
        symmetric: whether order does not matter; then each pair of words has one entry, with i ≤ j, which stands for
            those of both orders.

    Example:
        >>> found = cooccurrences(torch.tensor([0, 1, 0]), torch.zeros(3), vocab_size=2, window=2)
        >>> sorted(zip(*map(torch.Tensor.tolist, found)))  # of 0 and 1 two at distance 1, of 0 and 0 one at 2; L = 2
        [(0, 1), (1, 4)]
    """
    unit, found = unit_of_counts(window), []
    for distance in range(1, min(window, len(tokens) - 1) + 1):
        near = text[distance:] == text[:-distance]
        before, after = tokens[:-distance][near].long(), tokens[distance:][near].long()
        if symmetric:
            before, after = torch.minimum(before, after), torch.maximum(before, after)
        keys = before * vocab_size + after
        found.append(Entries(keys, torch.full_like(keys, round(unit / distance))))
    return _joined(found)


class CooccurrenceTable:
    """Adds up entries, of which no more than fit into a limit are in memory at a time.

    Args:
        memory_limit: bytes of entries beyond which they are put on disk, in the system's folder for what is temporary.
        start: entries to begin with, in the order of the table.

    Example:
        >>> table = CooccurrenceTable(memory_limit=64)
        >>> for _ in range(3):
        ...     table.add(Entries(torch.arange(8), torch.ones(8, dtype=torch.int64)))
        >>> table.entries().counts.tolist()
        [3, 3, 3, 3, 3, 3, 3, 3]
    """

    def __init__(self, memory_limit: int, start: Entries | None = None) -> None:
        self.limit = max(1, memory_limit // _BYTES)
        self.runs: list[Entries] = []  # on disk, each in the order of the table
        self.waiting: list[Entries] = []
        self.num_waiting = self.num_joined = 0
        self._folder: tempfile.TemporaryDirectory | None = None
        self._files = 0
        if start is not None and len(start.keys):
            if len(start.keys) > self.limit // 2:
                self.runs.append(start)
            else:
                self.add(start)

    def add(self, entries: Entries) -> None:
        """Add entries, of which several may have the same key."""
        self.waiting.append(entries)
        self.num_waiting += len(entries.keys)
        if self.num_waiting > min(self.limit, max(2 * self.num_joined, _LEAST)):
            self._join()
            if self.num_waiting > self.limit // 2:
                self.runs.append(self._written(self.waiting))
                self.waiting, self.num_waiting, self.num_joined = [], 0, 0

    def entries(self) -> Entries:
        """Return all entries, each key once, in the order of the table; on disk, mapped, where they were put there."""
        self._join()
        if not self.runs:
            return self.waiting[0]
        parts = [*self.runs, *self.waiting]
        total = sum(len(part.keys) for part in parts)
        if len(parts) > 1:
            self.runs = [self._written(_merged(parts, 2 + 2 * total // self.limit))]
            self.waiting, self.num_waiting, self.num_joined = [], 0, 0
        return self.runs[0]

    def _join(self) -> None:
        joined = _joined(self.waiting)
        self.waiting = [joined]
        self.num_waiting = self.num_joined = len(joined.keys)

    def _written(self, parts: Iterable[Entries]) -> Entries:
        """Write entries one after the other, and map the files into memory."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="zoo-cooccurrence-")
        self._files += 1
        columns = [Path(self._folder.name, f"{name}{self._files}") for name in Entries._fields]
        size = 0
        with columns[0].open("wb") as keys, columns[1].open("wb") as counts:
            for part in parts:
                keys.write(part.keys.numpy().data)
                counts.write(part.counts.numpy().data)
                size += len(part.keys)
        return Entries(*(torch.from_file(str(path), shared=False, size=size, dtype=torch.int64) for path in columns))


def _merged(parts: Sequence[Entries], count: int) -> Iterator[Entries]:
    """Yield the entries of several tables joined, one of `count` ranges of hashes after the other."""
    edges = [-(2**63) + (number * 2**64) // count for number in range(1, count)]
    places = [[0, *(_place(part.keys, edge) for edge in edges), len(part.keys)] for part in parts]
    for ranges in zip(*map(pairwise, places), strict=True):
        slices = [slice(*edges) for edges in ranges]
        yield _joined([Entries(p.keys[s], p.counts[s]) for p, s in zip(parts, slices, strict=True)])


def _place(keys: Tensor, edge: int) -> int:
    """Return how many of the ordered keys have a hash below the edge."""
    return bisect.bisect_left(range(len(keys)), edge, key=lambda place: int(_order(keys[place : place + 1])))


def _order(keys: Tensor) -> Tensor:
    """What the table is sorted by: a hash that no two keys share."""
    return splitmix64(0, keys)


def _joined(parts: Sequence[Entries]) -> Entries:
    """Return the entries of several parts in the order of the table, those of a key added up."""
    keys, counts = (torch.cat([part[i].cpu() for part in parts] or [torch.zeros(0, dtype=torch.int64)]) for i in (0, 1))
    order = _order(keys)
    order, index = order.sort()
    last = torch.ones(len(keys), dtype=torch.bool)
    last[:-1] = order[1:] != order[:-1]
    total = counts[index].cumsum(0)[last]
    return Entries(keys[index[last]], torch.diff(total, prepend=total.new_zeros(1)))
