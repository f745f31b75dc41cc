"""Rows on disk, read group by group (row groups of Parquet, slices of a mapped array), split without an index.

Group g of n_g rows gives each split a seeded draw of its own; the sizes round the running total, so that
they are exact over all groups. No list of all rows is kept: the draw of a group is made again when the group
is read.

Legend: G groups, B batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.data.base import Rows
from zoo.data.spec import Batch
from zoo.numerics.hashing import epoch_generator

__all__ = ["GroupRows", "GroupSource", "GroupSplit"]

_MIN_BLOCK = 65_536


class GroupSource(Protocol):
    """Data that are read in groups."""

    sizes: list[int]

    def read(self, group: int) -> tuple[Tensor, Tensor | None]:
        """Return the inputs and the targets of one group."""
        ...


class GroupSplit:
    """Seeded, disjoint splits of grouped rows.

    Args:
        sizes: rows of each group.
        fractions: the shares of validation and test.
        seed: seed of the draws.
    """

    def __init__(self, sizes: list[int], fractions: tuple[float, float], seed: int) -> None:
        self.sizes, self.seed = torch.tensor(sizes, dtype=torch.int64), seed
        val, test = fractions
        held_out = _rounded_parts(self.sizes, val + test)
        val_sizes = _rounded_parts(held_out, val / (val + test) if val else 0.0)
        self.counts = {"train": self.sizes - held_out, "val": val_sizes, "test": held_out - val_sizes}

    def members(self, split: str, group: int) -> Tensor:
        """Return the sorted rows of a group that belong to a split."""
        train, val, _ = (int(self.counts[name][group]) for name in ("train", "val", "test"))
        size = int(self.sizes[group])
        if train == size and split == "train":
            return torch.arange(size)
        order = torch.randperm(size, generator=epoch_generator(self.seed, 0x5EED, group))
        start, stop = {"train": (0, train), "val": (train, train + val), "test": (train + val, size)}[split]
        return order[start:stop].sort().values


def _rounded_parts(sizes: Tensor, share: float) -> Tensor:
    """Return whole numbers near sizes · share whose running totals are the rounded running totals."""
    total = (sizes.cumsum(0).double() * share).round().long()
    return total.diff(prepend=torch.zeros(1, dtype=torch.int64))


class GroupRows(Rows):
    """One split of grouped rows; the groups of the current block are kept, and no more.

    Args:
        source: the groups.
        split: what belongs to which split.
        name: the split.
        transform: applied to each batch.
    """

    def __init__(
        self,
        source: GroupSource,
        split: GroupSplit,
        name: str,
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.source, self.split, self.name, self.transform = source, split, name, transform
        counts = split.counts[name]
        self.ends = counts.cumsum(0)  # (G,)
        self.num_rows = int(self.ends[-1]) if len(counts) else 0
        self.block_size = max(_MIN_BLOCK, int(counts.max())) if len(counts) else _MIN_BLOCK
        starts = torch.arange(0, max(self.num_rows, 1), self.block_size)
        stops = (starts + self.block_size).clamp(max=self.num_rows) - 1
        first, last = (torch.searchsorted(self.ends, edge, right=True) for edge in (starts, stops))
        self.capacity = int((last - first).max()) + 2
        self.cache: OrderedDict[int, tuple[Tensor, Tensor | None]] = OrderedDict()

    def __len__(self) -> int:
        return self.num_rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cache": OrderedDict()}  # a worker process reads for itself

    def group(self, group: int) -> tuple[Tensor, Tensor | None]:
        """Return this split's rows of a group."""
        if group in self.cache:
            self.cache.move_to_end(group)
            return self.cache[group]
        while len(self.cache) >= self.capacity:  # before reading, so that memory never holds one more
            self.cache.popitem(last=False)
        x, y = self.source.read(group)
        members = self.split.members(self.name, group)
        if len(members) < len(x):
            x, y = x[members], None if y is None else y[members]
        self.cache[group] = (x, y)
        return x, y

    def __getitem__(self, index: Tensor) -> Batch:
        groups = torch.searchsorted(self.ends, index, right=True)  # (B,)
        x = y = None
        for group in groups.unique().tolist():
            places = (groups == group).nonzero().squeeze(1)
            start = int(self.ends[group - 1]) if group else 0
            inputs, targets = self.group(group)
            rows = index[places] - start
            if x is None:
                x = inputs.new_empty(len(index), *inputs.shape[1:])
                y = None if targets is None else targets.new_empty(len(index), *targets.shape[1:])
            x[places] = inputs[rows]
            if y is not None and targets is not None:
                y[places] = targets[rows]
        if x is None:  # an empty index
            inputs, targets = self.group(0)
            x, y = inputs[:0], None if targets is None else targets[:0]
        batch = Batch(x, y)
        return self.transform(batch) if self.transform else batch
