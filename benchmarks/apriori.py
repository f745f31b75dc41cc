"""Frequent itemsets beside mlxtend's apriori and efficient-apriori, each on baskets in the form that it takes.

The groceries are read from the file that `ZOO_GROCERIES` names, if it is set; the synthetic baskets are made here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import Job
from zoo.data.transactions import BasketRows, encode_baskets
from zoo.models.apriori.itemsets import Level, frequent_itemsets


def synthetic_baskets(count: int, num_items: int = 100, num_patterns: int = 30) -> BasketRows:
    """Baskets of about ten items: some of popularity falling with their number, and one of some patterns in each."""
    generator = torch.Generator().manual_seed(0)
    popularity = 0.25 / (1 + torch.arange(num_items)) ** 0.5
    chosen = torch.rand(count, num_items, generator=generator) < popularity
    patterns = torch.rand(num_patterns, num_items, generator=generator).topk(4).indices
    followed = patterns[torch.randint(num_patterns, (count,), generator=generator)]
    chosen.scatter_(1, followed, torch.rand(count, 4, generator=generator) < 0.8)
    return BasketRows(chosen.nonzero()[:, 1].int(), chosen.sum(1))


def groceries() -> BasketRows:
    """The 9,835 baskets of the file."""
    with open(os.environ["ZOO_GROCERIES"], encoding="utf8") as file:
        items, lengths, _ = encode_baskets(line.rstrip("\n").split(",") for line in file)
    return BasketRows(items, lengths)


class Batches:
    """The baskets in batches, as often as a pass asks for them."""

    def __init__(self, rows: BasketRows, batch_size: int = 65_536) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.rows), self.batch_size):
            batch = self.rows[slice(start, start + self.batch_size)]
            assert batch.lengths is not None
            yield batch.items, batch.lengths


def check(ours: tuple[list[Level], int], theirs: Any) -> None:
    """Both found the same number of itemsets."""
    assert sum(len(level.counts) for level in ours[0]) == theirs


def jobs() -> Iterator[Job]:
    sources = [("1,000,000 synthetic baskets", synthetic_baskets, 1_000_000, 0.02, 3)]
    if "ZOO_GROCERIES" in os.environ:
        sources.insert(0, ("groceries", groceries, None, 0.002, 5))
    for name, make, count, support, pairs in sources:
        rows = make(count) if count else make()  # type: ignore[call-arg, operator]
        ours = functools.partial(frequent_itemsets, Batches(rows), support)
        for peer_name, peer in (("mlxtend", mlxtend(rows, support)), ("efficient-apriori", efficient(rows, support))):
            title = f"itemsets of {name}, support {support}"
            yield Job(title, ours, peer, peer_name, pairs=pairs, bound=0.5, check=check)


def mlxtend(rows: BasketRows, support: float) -> functools.partial[int]:
    """mlxtend's apriori on a table of truth values."""
    import pandas as pd
    from mlxtend.frequent_patterns import apriori

    baskets = torch.repeat_interleave(torch.arange(len(rows)), rows.lengths)
    table = torch.zeros(len(rows), int(rows.items.max()) + 1, dtype=torch.bool)
    table[baskets, rows.items.long()] = True
    frame = pd.DataFrame(table.numpy())
    return functools.partial(lambda: len(apriori(frame, min_support=support)))


def efficient(rows: BasketRows, support: float) -> functools.partial[int]:
    """efficient-apriori on a list of tuples."""
    from efficient_apriori import itemsets_from_transactions

    flat, ends = rows.items.tolist(), rows.lengths.cumsum(0).tolist()
    baskets = [tuple(flat[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return functools.partial(
        lambda: sum(map(len, itemsets_from_transactions(baskets, min_support=support, max_length=20)[0].values()))
    )
