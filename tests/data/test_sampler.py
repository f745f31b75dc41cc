"""Which rows make up which batch: every row once, the same for any number of processes, exactly skippable."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from zoo.data.sampler import BatchSampler
from zoo.numerics.hashing import epoch_generator

SHAPES = [(1, 1, None), (10, 3, None), (64, 64, None), (97, 10, 16), (100, 7, 1), (50, 80, 13), (33, 4, 1000)]


def batches(*args, **options) -> list[list[int]]:
    return [batch.tolist() for batch in BatchSampler(*args, **options)]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("num_rows", "batch_size", "block_size"), SHAPES)
def test_every_row_once_in_full_batches(num_rows: int, batch_size: int, block_size: int | None, shuffle: bool) -> None:
    sampler = BatchSampler(num_rows, batch_size, shuffle=shuffle, block_size=block_size)
    found = [batch.tolist() for batch in sampler]
    assert len(found) == len(sampler)
    assert all(len(batch) == batch_size for batch in found[:-1])
    assert sorted(row for batch in found for row in batch) == list(range(num_rows))


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize(("num_rows", "batch_size", "block_size"), SHAPES)
def test_processes_share_the_batches_of_one(
    num_rows: int, batch_size: int, block_size: int | None, world_size: int
) -> None:
    """Rank r takes every world_size-th row of the global batch: no row twice, none left out, as many batches each."""
    options = {"shuffle": True, "block_size": block_size, "seed": 3}
    single = batches(num_rows, batch_size * world_size, **options)
    ranks = [batches(num_rows, batch_size, rank=r, world_size=world_size, **options) for r in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(single)}
    for step, whole in enumerate(single):
        for rank, found in enumerate(ranks):
            assert found[step] == whole[rank::world_size]
    sizes = [len(rank[-1]) for rank in ranks]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize(("num_rows", "batch_size", "block_size"), [*SHAPES, (90, 4, 9)])
def test_shares_are_pieces_of_one_order_and_come_in_as_many_batches_each(
    num_rows: int, batch_size: int, block_size: int | None, world_size: int, shuffle: bool
) -> None:
    options = {"shuffle": shuffle, "block_size": block_size, "seed": 3}
    order = [row for batch in batches(num_rows, batch_size, **options) for row in batch]
    shared = {"share": True, "world_size": world_size, **options}
    ranks = [batches(num_rows, batch_size, rank=r, **shared) for r in range(world_size)]
    assert [row for rank in ranks for batch in rank for row in batch] == order
    assert {len(rank) for rank in ranks} == {-(-num_rows // (batch_size * world_size))}
    sizes = [sum(map(len, rank)) for rank in ranks]
    assert max(sizes) - min(sizes) <= 1
    for rank, whole in enumerate(ranks):
        assert all(len(batch) == batch_size for batch in whole[:-2])
        sampler = BatchSampler(num_rows, batch_size, rank=rank, **shared)
        sampler.skip_batches = 1
        assert [batch.tolist() for batch in sampler] == whole[1:]  # as a resumed run goes on
        if block_size:
            touched = {row // block_size for batch in whole for row in batch}
            assert len(touched) <= -(-sizes[rank] // block_size) + 1


@pytest.mark.parametrize(("num_rows", "steps"), [(7, 2), (8, 2), (9, 2), (10, 3), (11, 3)])
def test_drop_ragged_leaves_out_a_batch_that_not_all_processes_have(num_rows: int, steps: int) -> None:
    """With 2 processes of 2 rows the last global batch needs 2 rows at least."""
    ranks = [batches(num_rows, 2, rank=rank, world_size=2, drop_ragged=True) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [steps, steps]
    assert all(batch for rank in ranks for batch in rank)
    one = batches(num_rows, 2, drop_ragged=True)
    assert sum(map(len, one)) == num_rows


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("num_rows", "batch_size", "block_size"), SHAPES)
@pytest.mark.parametrize("world_size", [1, 2])
def test_skipping_is_exact(
    num_rows: int, batch_size: int, block_size: int | None, world_size: int, shuffle: bool
) -> None:
    sampler = BatchSampler(
        num_rows, batch_size, shuffle=shuffle, block_size=block_size, seed=5, rank=world_size - 1, world_size=world_size
    )
    sampler.set_epoch(2)
    whole = [batch.tolist() for batch in sampler]
    for skip in range(len(whole) + 1):
        sampler.skip_batches = skip
        assert [batch.tolist() for batch in sampler] == whole[skip:]
    assert [batch.tolist() for batch in sampler] == whole, "the skip counts once"


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = BatchSampler(1000, 100, shuffle=True, seed=seed, block_size=300)
        sampler.set_epoch(epoch)
        return [batch.tolist() for batch in sampler]

    assert order(0, 1) == order(0, 1)
    different = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_shuffle_moves_nobody_elses_random_numbers() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(BatchSampler(100, 10, shuffle=True, block_size=7))
    assert torch.equal(torch.rand(3), expected)


def test_blocks_are_read_one_after_the_other() -> None:
    rows = [row for batch in batches(1000, 32, shuffle=True, block_size=100) for row in batch]
    blocks = [row // 100 for row in rows]
    changes = sum(a != b for a, b in pairwise(blocks))
    assert changes == 9, "each of the ten blocks is visited once"
    assert blocks[::100] != sorted(blocks[::100]), "blocks are shuffled"
    assert all(rows[i : i + 100] != sorted(rows[i : i + 100]) for i in range(0, 1000, 100)), "and the rows within"


def test_unshuffled_order_is_that_of_the_rows() -> None:
    assert [row for batch in batches(25, 4, block_size=10) for row in batch] == list(range(25))


def test_shuffle_is_uniform() -> None:
    """Over 2,000 epochs each of 5 rows comes first a fifth of the time: 400 ± 4 standard deviations (17.9)."""
    sampler = BatchSampler(5, 1, shuffle=True)
    first = torch.zeros(5)
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        first[next(iter(sampler))] += 1
    assert (first - 400).abs().max() < 72


def test_no_rows_give_no_batches() -> None:
    assert batches(0, 10) == batches(0, 10, shuffle=True) == []


def test_on_epoch_hears_every_epoch() -> None:
    heard: list[int] = []
    sampler = BatchSampler(3, 1, on_epoch=heard.append)
    sampler.set_epoch(4)
    sampler.set_epoch(5)
    assert heard == [4, 5]


def test_epoch_generators_differ_by_position() -> None:
    draws = {
        float(torch.rand((), generator=epoch_generator(seed, *position), dtype=torch.float64))
        for seed in (0, 1, 2**63)
        for position in ((0,), (1,), (0, 0), (0, 1), (1, 0))
    }
    assert len(draws) == 15
