"""Frequent itemsets beside mlxtend's apriori and fpgrowth and efficient-apriori, each on baskets in the form it takes.

The groceries are read from the file that `ZOO_GROCERIES` names, if it is set; the synthetic baskets are made here.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

import zoo
from benchmarks import Job, Later
from benchmarks._grid import name_of
from zoo.data.transactions import BasketData, BasketRows, encode_baskets
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
        ours = functools.partial(frequent_itemsets, list(Batches(rows)), support)
        for peer_name, peer in (("mlxtend", mlxtend(rows, support)), ("efficient-apriori", efficient(rows, support))):
            title = f"itemsets of {name}, support {support}"
            yield Job(title, ours, peer, peer_name, pairs=pairs, bound=0.5, check=check)


SHORT = 1.0  # seconds of a call that is made twice
MOST = 1 << 31  # bytes of truth values
GRID = (  # baskets, different items, support
    (100, 20, 0.05), (100, 200, 0.06), (1_000, 20, 0.02), (1_000, 200, 0.02), (1_000, 2_000, 0.01),
    (10_000, 50, 0.005), (10_000, 1_000, 0.01), (100_000, 20, 0.005), (100_000, 500, 0.01), (1_000_000, 50, 0.01),
)  # fmt: skip


def grid() -> Iterator[Later]:
    """Yield few and many baskets, numbered, and as lists of words from the first look at them to the itemsets.

    The peer is the quickest of all on the same baskets, each in the form that it takes.
    """
    for count, num_items, support in GRID:
        where = {"rows": count, "features": num_items, "support": support}
        for what, make in (("itemsets", numbered), ("lists of words", words)):
            name = f"{what}, {name_of(**where)}"
            if make is numbered or count <= 100_000:
                yield Later(name, functools.partial(make, name, where), quick=count <= 10_000)


@functools.lru_cache(maxsize=1)
def baskets_of(rows: int, features: int, support: float) -> BasketRows:
    """The baskets of a place in the grid."""
    return synthetic_baskets(rows, features)


def numbered(name: str, where: dict[str, Any]) -> Job:
    """Baskets of numbers."""
    rows, support = baskets_of(**where), where["support"]
    peers = {f"mlxtend ({form})": mlxtend(rows, support, form) for form in forms(rows, support)}
    peer_name, peer = quickest({"efficient-apriori": efficient(rows, support), **peers})
    ours = functools.partial(frequent_itemsets, list(Batches(rows)), support)
    return Job(name, ours, peer, peer_name, check=check, where=where)


def words(name: str, where: dict[str, Any]) -> Job:
    """Lists of words, which are numbered first."""
    from efficient_apriori import itemsets_from_transactions

    rows, support = baskets_of(**where), where["support"]
    baskets = [[f"item {item}" for item in basket] for basket in tuples(rows)]

    def fit() -> int:
        model = zoo.create_model("apriori", min_support=support)
        return len(zoo.fit(model, BasketData(baskets), device="cpu").supports)

    def efficient() -> int:
        return sum(map(len, itemsets_from_transactions(baskets, min_support=support, max_length=20)[0].values()))

    def mlxtend(form: str) -> int:
        import pandas as pd
        from mlxtend import frequent_patterns
        from mlxtend.preprocessing import TransactionEncoder

        encoder = TransactionEncoder()
        table = pd.DataFrame(encoder.fit_transform(baskets), columns=encoder.columns_)
        return len(getattr(frequent_patterns, form)(table, min_support=support))

    def agree(ours: int, theirs: int) -> None:
        assert ours == theirs

    peers = {f"mlxtend ({form})": functools.partial(mlxtend, form) for form in forms(rows, support)}
    peer_name, peer = quickest({"efficient-apriori": efficient, **peers})
    return Job(name, fit, peer, peer_name, check=agree, where=where)


def forms(rows: BasketRows, support: float) -> list[str]:
    """mlxtend's functions; its apriori holds a truth value for each basket and pair of frequent items."""
    frequent = int((rows.items.bincount() >= support * len(rows)).sum())
    return ["fpgrowth", "apriori"] if len(rows) * math.comb(frequent, 2) <= MOST else ["fpgrowth"]


def quickest(peers: dict[str, Callable[[], Any]]) -> tuple[str, Callable[[], Any]]:
    """The one of the least CPU time, after a call to warm up where that is short; one that takes longer is ended."""
    least, found = math.inf, ""
    for name, call in peers.items():
        with contextlib.suppress(TimeoutError):
            seconds = taken(call, max(least, SHORT))
            if seconds < SHORT:
                seconds = taken(call, math.inf)
            if seconds < least:
                least, found = seconds, name
    return found, peers[found]


def taken(call: Callable[[], Any], most: float) -> float:
    """The seconds of CPU time of a call, which is ended by a `TimeoutError` after the most that it may take."""

    def end(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, most if most < math.inf else 0)
    try:
        start = time.process_time()
        call()
        return time.process_time() - start
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def mlxtend(rows: BasketRows, support: float, form: str = "apriori") -> functools.partial[int]:
    """mlxtend's function of that name on a table of truth values."""
    import pandas as pd
    from mlxtend import frequent_patterns

    baskets = torch.repeat_interleave(torch.arange(len(rows)), rows.lengths)
    table = torch.zeros(len(rows), int(rows.items.max()) + 1, dtype=torch.bool)
    table[baskets, rows.items.long()] = True
    frame = pd.DataFrame(table.numpy())
    return functools.partial(lambda: len(getattr(frequent_patterns, form)(frame, min_support=support)))


def efficient(rows: BasketRows, support: float) -> functools.partial[int]:
    """efficient-apriori on a list of tuples."""
    from efficient_apriori import itemsets_from_transactions

    baskets = tuples(rows)
    return functools.partial(
        lambda: sum(map(len, itemsets_from_transactions(baskets, min_support=support, max_length=20)[0].values()))
    )


def tuples(rows: BasketRows) -> list[tuple[int, ...]]:
    """The baskets in Python."""
    flat, ends = rows.items.tolist(), rows.lengths.cumsum(0).tolist()
    return [tuple(flat[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
