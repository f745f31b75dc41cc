"""The zoo's own sampler: which rows make up which batch is a function of (seed, epoch) alone.

That one property gives exact resume (skip what has been seen), distributed training without repeated rows,
and the same rows for one process and for many. Rows are shuffled inside blocks and the blocks among
themselves, so that data read from disk in blocks is shuffled too; data in memory is one block, and the
shuffle is then uniform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

from zoo.numerics.hashing import epoch_generator

__all__ = ["BatchSampler", "Steps"]

_POOL = 50  # batches whose rows are put together by their length


class Steps(Protocol):
    """The number of steps of rows, given their numbers: a tensor, or what finds them out when they are asked for."""

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


class BatchSampler(Sampler[Tensor]):
    """Yield index tensors, one a batch.

    With `world_size` processes a global batch has `world_size × batch_size` rows, of which process `rank`
    takes every `world_size`-th: no row is repeated or left out, and every process gets the same number of
    batches, the last one perhaps smaller by a row (or empty, unless `drop_ragged`). Where it does not matter which
    rows are in a batch together, each process takes its `share` of the order in one piece instead, and reads no more
    blocks than that lies in.

    Args:
        num_rows: number of rows in all.
        batch_size: rows a batch and process.
        shuffle: whether the order changes with the epoch.
        seed: seed of the order.
        block_size: rows read together; None for data in memory.
        rank: this process.
        world_size: number of processes.
        num_steps: of each row, by its number: where batches are shuffled, each is of rows of similar length.
        drop_ragged: leave out a last global batch of fewer rows than processes, for steps that all must take.
        share: whether each process takes a piece of the order in place of a part of each batch.
        on_epoch: told of each epoch that is set, for rows that change with it.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        block_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_steps: Steps | None = None,
        drop_ragged: bool = False,
        share: bool = False,
        on_epoch: Callable[[int], None] | None = None,
    ) -> None:
        self.num_rows, self.batch_size, self.shuffle, self.seed = num_rows, batch_size, shuffle, seed
        self.block_size = min(block_size or num_rows, num_rows) or 1
        self.rank, self.world_size, self.num_steps = rank, world_size, num_steps
        ragged = num_rows % self.global_batch_size
        self.usable_rows = num_rows - ragged if drop_ragged and ragged < world_size else num_rows
        self.share = share and world_size > 1
        self.epoch, self.on_epoch = 0, on_epoch
        self.skip_batches = 0  # consumed by the next iteration

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of epoch `epoch`."""
        self.epoch = epoch
        if self.on_epoch:
            self.on_epoch(epoch)

    def __len__(self) -> int:
        return -(-self.usable_rows // self.global_batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        skip, self.skip_batches = self.skip_batches, 0
        if self.share:
            yield from self._own_batches(skip)
            return
        start = skip * self.global_batch_size
        pending, needed = [], min(self.global_batch_size, self.usable_rows - start)
        for rows in self._blocks(start):
            while needed and len(rows) >= needed:
                pending.append(rows[:needed])
                rows = rows[needed:]
                batch = pending[0] if len(pending) == 1 else torch.cat(pending)
                yield batch[self.rank :: self.world_size] if self.world_size > 1 else batch
                start, pending = start + len(batch), []
                needed = min(self.global_batch_size, self.usable_rows - start)
            if not needed:
                return
            if len(rows):
                pending.append(rows)
                needed -= len(rows)

    def _own_batches(self, skip: int) -> Iterator[Tensor]:
        """Yield the batches of this process's piece of the order, from the `skip`-th on; the last may be empty."""
        first, end = (self.usable_rows * rank // self.world_size for rank in (self.rank, self.rank + 1))
        start = min(first + skip * self.batch_size, end)
        rows, blocks = torch.empty(0, dtype=torch.int64), self._blocks(start)
        for _ in range(skip, len(self)):
            size = min(self.batch_size, end - start)
            while len(rows) < size:
                rows = torch.cat([rows, next(blocks)])
            yield rows[:size]
            rows, start = rows[size:], start + size

    def _bucketed(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Order shuffled rows such that every batch holds rows of similar length, and the batches come in any order.

        Of some batches' rows those of similar length are put together, so that which rows meet changes with the epoch.
        """
        assert self.num_steps is not None
        size = self.global_batch_size
        pools = [pool[self.num_steps[pool].argsort(stable=True)] for pool in rows.split(size * _POOL)]
        batches = torch.cat(pools).split(size)
        whole = batches[:-1] if len(batches[-1]) < size else batches  # the rest comes last
        order = torch.randperm(len(whole), generator=generator).tolist()
        return torch.cat([*(whole[i] for i in order), *batches[len(whole) :]])

    def _blocks(self, start: int) -> Iterator[Tensor]:
        """Yield the rows of each block in the epoch's order, from the `start`-th row of that order on."""
        num_blocks = -(-self.num_rows // self.block_size)
        order: Iterable[int] = range(num_blocks)
        if self.shuffle:
            order = torch.randperm(num_blocks, generator=epoch_generator(self.seed, self.epoch)).tolist()
        for block in order:
            first = block * self.block_size
            size = min(self.block_size, self.num_rows - first)
            if start >= size:
                start -= size
                continue
            if self.shuffle:
                generator = epoch_generator(self.seed, self.epoch, block)
                rows = torch.randperm(size, generator=generator).add_(first)
                if self.num_steps is not None:
                    rows = self._bucketed(rows, generator)
            else:
                rows = torch.arange(first, first + size)
            yield rows[start:] if start else rows
            start = 0
