r"""Frequent itemsets: the sets of items that at least a given share of all baskets contains.

```math
\mathrm{supp}(S) = \frac{1}{n} \sum_{b=1}^{n} \prod_{i \in S} x_{bi},\qquad
C_k = \{ S : |S| = k,\ \text{every subset of } k-1 \text{ items of } S \text{ is in } F_{k-1} \},\qquad
F_k = \{ S \in C_k : \mathrm{supp}(S) \ge s \}
```

The baskets of a batch are a pair of flat tensors: `items`, the item numbers of all baskets one after the
other, and `lengths`, the number of items of each basket. Counting turns them round into one string of bits
for each item, so that the support of a set is the number of ones in the AND of its items' strings: 64
baskets a word.

- `items` $(N,)$ int64: item numbers from 0, $N$ the sum of the lengths
- `lengths` $(B,)$ int64: items in each of the $B$ baskets
- `itemsets` $(C, k)$ int64: $C$ sets of $k$ items, items ascending in a row, rows in lexicographic order
- $x_{bi}$: 1 where basket $b$ has item $i$; $n$: number of baskets; $s$: minimum support

Source: R. Agrawal and R. Srikant, "Fast algorithms for mining association rules", VLDB 1994, section 2.1.

Deviations: candidates are counted by bit strings instead of by a hash tree, with the same counts; in pass $k$
baskets with fewer than $k$ of the candidates' items are left out, since they can contain no candidate. Baskets in
memory are packed once, for all passes from the second on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.kernels import itemsets as compiled

__all__ = [
    "Level",
    "PackedBaskets",
    "check_support",
    "count_itemsets",
    "find_rows",
    "frequent_itemsets",
    "join_itemsets",
    "support_mask",
]

# Letters: N items in all, B baskets, C itemsets, k items of a set, M distinct items, W words of 64 baskets.

WORD = 64
# A byte of a word holds at most 8 ones, so 16 words can be added before a byte overflows.
WORDS_ADDED = 16
# Joins of frequent sets beyond which the candidates would fill the memory.
MOST_CANDIDATES = 1 << 25
# Words worked on at a time: a megabyte, which stays in a core's cache.
CHUNK = 1 << 17


class Level(NamedTuple):
    """The itemsets of one size and the number of baskets that contain each.

    Args:
        itemsets: item numbers, ascending in a row, rows in lexicographic order, (C, k).
        counts: number of baskets, (C,).
    """

    itemsets: Tensor
    counts: Tensor


def find_rows(table: Tensor, rows: Tensor) -> Tensor:
    r"""Find each of `rows` in a table of distinct rows in lexicographic order.

    Args:
        table: integers from 0, (C, k).
        rows: integers from 0, (R, k).

    Returns:
        The number of the equal row of the table, or -1 where there is none, (R,).

    Example:
        >>> find_rows(torch.tensor([[0, 1], [0, 3], [2, 3]]), torch.tensor([[2, 3], [1, 3]]))
        tensor([ 2, -1])
    """
    if len(table) == 0 or len(rows) == 0:
        return rows.new_full((len(rows),), -1)
    base, width = int(torch.maximum(table.max(), rows.max())) + 1, table.shape[1]
    if base**width < 1 << 63:  # a row is one number
        digits = base ** torch.arange(width - 1, -1, -1, device=table.device)
        keys, wanted = (table * digits).sum(1), (rows * digits).sum(1)
        place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, place, -1)
    place, found = rows.new_zeros(len(rows)), rows.new_ones(len(rows), dtype=torch.bool)
    prefix = table.new_zeros(len(table))  # numbers the distinct prefixes, which keeps the keys small for any k
    for column, wanted in zip(table.T, rows.T, strict=True):
        keys, inverse = torch.unique_consecutive(prefix * base + column, return_inverse=True)
        wanted = place * base + wanted
        place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        found &= keys[place] == wanted
        prefix = inverse
    return torch.where(found, place, -1)


def join_itemsets(frequent: Tensor) -> Tensor:
    r"""Candidates of $k$ items from all frequent sets of $k-1$: join those equal but for the last, prune.

    ```math
    C_k = \{ S \cup \{i, j\} : S \cup \{i\} \in F_{k-1},\ S \cup \{j\} \in F_{k-1},\ i < j \}
    \ \text{less those with a subset outside } F_{k-1}
    ```

    Args:
        frequent: itemsets in lexicographic order, (C, k - 1).

    Returns:
        Candidates in lexicographic order, (C', k).

    Raises:
        ZooError: if there are more than 33 million joins.

    Source: Agrawal & Srikant 1994, section 2.1.1.

    Example:
        >>> join_itemsets(torch.tensor([[0, 1], [0, 2], [1, 2], [1, 3]]))
        tensor([[0, 1, 2]])
    """
    count, width = frequent.shape
    if width == 1:
        _check_joins(count, width, count * (count - 1) // 2)
        return frequent[:, 0][torch.triu_indices(count, count, 1, device=frequent.device)].T.contiguous()
    if compiled.available(frequent.device):
        candidates, joins = compiled.join_sets(frequent, MOST_CANDIDATES)
        _check_joins(count, width, int(joins))
        return candidates
    index = torch.arange(count, device=frequent.device)
    new = (frequent[1:, :-1] != frequent[:-1, :-1]).any(dim=1)  # whether a row has another prefix than the one before
    ends = torch.nn.functional.pad(new.nonzero().flatten() + 1, (0, 1), value=count)
    partners = ends[torch.nn.functional.pad(new.cumsum(0), (1, 0))] - index - 1  # later rows of the same prefix
    _check_joins(count, width, int(partners.sum()))
    first = torch.repeat_interleave(index, partners)
    offset = torch.arange(len(first), device=frequent.device) - (partners.cumsum(0) - partners)[first]
    candidates = torch.cat([frequent[first], frequent[first + 1 + offset, -1:]], dim=1)
    if not len(candidates):
        return candidates
    # Without one of the last two items it is one of its two parents.
    kept = [[column for column in range(width + 1) if column != left_out] for left_out in range(width - 1)]
    parts = candidates.split(max(1, 8 * CHUNK // (width * len(kept))))
    there = [find_rows(frequent, part[:, kept].flatten(0, 1)).view(len(part), -1) >= 0 for part in parts]
    return candidates[torch.cat([found.all(1) for found in there])]


def _check_joins(count: int, width: int, joined: int) -> None:
    """Raise one line where `count` frequent sets of `width` items have too many joins."""
    if joined > MOST_CANDIDATES:
        raise ZooError(
            f"{count:,} frequent itemsets of {width} items make {joined:,} candidates, too many to count: raise "
            f"min_support, or set max_length to {width}."
        )


def distinct_items(items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The basket number and the item of each entry, each item once a basket, (N',) each."""
    baskets = torch.repeat_interleave(lengths)
    if len(items) < 2:
        return baskets, items
    base = int(items.max()) + 1
    keys = baskets * base + items
    if bool((keys[1:] > keys[:-1]).all()):  # ascending in each basket, as a DataModule yields them: nothing to sort
        return baskets, items
    keys = torch.unique(keys)
    return keys // base, keys % base


def pack_baskets(items: Tensor, lengths: Tensor, rank: Tensor, least: int = 1) -> Tensor:
    """Bit strings over the baskets, one for each item wanted.

    Args:
        items: item numbers, (N,).
        lengths: items in each basket, (B,).
        rank: row of each item in the result, or -1 for an item that is not wanted, (number of items,).
        least: baskets with fewer wanted items are left out.

    Returns:
        Words of 64 baskets; the order of the baskets in it means nothing, (M, W) int64.
    """
    baskets, items = distinct_items(items, lengths)
    row = rank[items]
    wanted = row >= 0
    row, baskets = row[wanted], baskets[wanted]
    large = torch.bincount(baskets, minlength=len(lengths)) >= least
    kept = large[baskets]
    row, column = row[kept], (large.cumsum(0) - 1)[baskets[kept]]
    words = whole_words(-(-int(large.sum()) // WORD))
    rows = int(rank.max()) + 1
    bits = items.new_zeros(rows * words)
    # Each bit is set once, so adding sets it; the 64th makes the word negative, as it should.
    bits.index_add_(0, row * words + column // WORD, torch.bitwise_left_shift(torch.ones_like(column), column % WORD))
    return bits.view(rows, words)


def whole_words(words: int) -> int:
    """As many words as can be added up some at a time; few are not."""
    return words if words <= WORDS_ADDED else -(-words // WORDS_ADDED) * WORDS_ADDED


def count_ones(words: Tensor, scratch: Tensor) -> Tensor:
    """The number of ones in each row, (C, W) to (C,); overwrites `words` and `scratch`, of one shape."""
    torch.bitwise_right_shift(words, 1, out=scratch)
    words.sub_(scratch.bitwise_and_(0x5555555555555555))  # ones in each pair of bits
    torch.bitwise_right_shift(words, 2, out=scratch)
    words.bitwise_and_(0x3333333333333333).add_(scratch.bitwise_and_(0x3333333333333333))  # in each four bits
    torch.bitwise_right_shift(words, 4, out=scratch)
    words.add_(scratch).bitwise_and_(0x0F0F0F0F0F0F0F0F)  # in each byte
    if words.shape[1] % WORDS_ADDED == 0:
        words = words.unflatten(1, (-1, WORDS_ADDED)).sum(2)
    return words.view(torch.uint8).sum(1, dtype=torch.int64)


def count_itemsets(items: Tensor, lengths: Tensor, itemsets: Tensor) -> Tensor:
    r"""The number of baskets that contain each itemset.

    ```math
    c_S = \sum_{b=1}^{B} \prod_{i \in S} x_{bi}
    ```

    Args:
        items: item numbers of all baskets one after the other, repeats and any order allowed, (N,) int64.
        lengths: number of items of each basket, (B,) int64.
        itemsets: sets of $k$ distinct items, (C, k) int64.

    Returns:
        Counts, (C,) int64.

    Example:
        >>> items, lengths = torch.tensor([0, 1, 1, 2, 0, 1, 2]), torch.tensor([2, 0, 2, 3])
        >>> count_itemsets(items, lengths, torch.tensor([[0, 1], [0, 2]]))
        tensor([2, 1])
    """
    if itemsets.numel() == 0 or items.numel() == 0:
        return itemsets.new_zeros(len(itemsets))
    largest = int(torch.maximum(items.max(), itemsets.max()))
    if itemsets.shape[1] == 1:
        return torch.bincount(distinct_items(items, lengths)[1], minlength=largest + 1)[itemsets[:, 0]]
    rank = ranks(itemsets, largest + 1)
    return count_packed(pack_baskets(items, lengths, rank, itemsets.shape[1]), rank[itemsets])


def count_batches(batches: Iterable[tuple[Tensor, Tensor]], itemsets: Tensor) -> Tensor:
    """The number of baskets in all batches that contain each itemset, (C,)."""
    counts = itemsets.new_zeros(len(itemsets))
    for items, lengths in batches:
        counts += count_itemsets(items, lengths, itemsets)
    return counts


def ranks(itemsets: Tensor, num_items: int) -> Tensor:
    """Number the items that occur in itemsets, ascending; -1 for one that does not, (num_items,)."""
    wanted = itemsets.new_zeros(num_items, dtype=torch.bool).index_fill_(0, itemsets.flatten(), True)
    return torch.where(wanted, wanted.cumsum(0) - 1, -1)


def count_packed(bits: Tensor, itemsets: Tensor) -> Tensor:
    """The number of baskets that contain each itemset, (C,).

    Args:
        bits: what `pack_baskets` returns, (M, W).
        itemsets: rows of `bits`, (C, k).
    """
    counts, words = itemsets.new_zeros(len(itemsets)), bits.shape[1]
    if words == 0:
        return counts
    if compiled.available(bits.device):
        return compiled.count_sets(bits, itemsets)
    step = max(1, CHUNK // words)
    buffers = bits.new_empty(2, min(step, len(itemsets)), words)
    for start in range(0, len(itemsets), step):
        chunk = itemsets[start : start + step]
        both, other = buffers[:, : len(chunk)]
        first, *others = chunk.unbind(1)
        torch.index_select(bits, 0, first, out=both)
        for column in others:
            both &= torch.index_select(bits, 0, column, out=other)
        counts[start : start + step] = count_ones(both, other)
    return counts


class PackedBaskets:
    """Baskets in memory, which are packed once and counted for itemsets of every size.

    Args:
        batches: pairs `(items, lengths)`.
    """

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.num_baskets = sum(len(lengths) for _, lengths in batches)
        self.num_items = 1 + max((int(items.max()) for items, _ in batches if items.numel()), default=-1)
        self._bits, self._rank = torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)

    def count(self, itemsets: Tensor) -> Tensor:
        """The number of baskets that contain each of the itemsets (C, k), (C,); sizes come in ascending order."""
        if itemsets.shape[1] == 1 or not len(itemsets):
            return count_batches(self.batches, itemsets)
        if not len(self._rank):  # larger sets have no other items
            self._rank = ranks(itemsets, max(self.num_items, int(itemsets.max()) + 1))
            packed = [pack_baskets(*batch, self._rank, itemsets.shape[1]) for batch in self.batches]
            words = sum(part.shape[1] for part in packed)
            if whole_words(words) > words:
                packed.append(packed[0].new_zeros(len(packed[0]), whole_words(words) - words))
            self._bits = packed[0] if len(packed) == 1 else torch.cat(packed, 1)
        return count_packed(self._bits, self._rank[itemsets])


def check_support(min_support: float, name: str = "min_support") -> None:
    """Raise one line unless the minimum support is a share in (0, 1] as a float or a number from 1 as an int."""
    whole = isinstance(min_support, int) and not isinstance(min_support, bool)
    if min_support >= 1 if whole else isinstance(min_support, float) and 0 < min_support <= 1:
        return
    raise ZooError(
        f"{name} is {min_support!r}: pass a share of the baskets above 0 and up to 1.0 as a float, or a number of "
        "baskets from 1 as an integer (1 keeps every itemset that occurs)."
    )


def support_mask(counts: Tensor, num_baskets: int, min_support: float) -> Tensor:
    """Which counts reach the minimum support: a share of the baskets if a float, a number if an int.

    Args:
        counts: number of baskets that contain each itemset, (C,).
        num_baskets: number of all baskets.
        min_support: share in (0, 1] as a float, or number from 1 as an int.

    Example:
        >>> support_mask(torch.tensor([1, 3]), 10, 0.3)
        tensor([False,  True])
    """
    if isinstance(min_support, int):
        return counts >= min_support
    return counts.double() / max(num_baskets, 1) >= min_support


def frequent_itemsets(
    batches: Iterable[tuple[Tensor, Tensor]], min_support: float, max_length: int | None = None
) -> tuple[list[Level], int]:
    r"""All itemsets of at least the minimum support, by one pass over the batches for each size.

    Args:
        batches: pairs `(items, lengths)`; iterated over once a pass, so no generator. A list is packed once.
        min_support: share of the baskets in (0, 1] as a float, or number of baskets from 1 as an int.
        max_length: most items in a set; any number if `None`.

    Returns:
        The frequent itemsets by size, from one item on, and the number of baskets.

    Raises:
        ZooError: if `min_support` is out of range.

    Source: Agrawal & Srikant 1994, figure 1.

    Example:
        >>> levels, n = frequent_itemsets([(torch.tensor([0, 1, 0, 1, 2]), torch.tensor([2, 2, 1]))], 0.5)
        >>> [level.itemsets.tolist() for level in levels], n
        ([[[0], [1]], [[0, 1]]], 3)
    """
    check_support(min_support)
    if isinstance(batches, list | tuple):
        packed = PackedBaskets(batches)
        num_items, num_baskets, count = packed.num_items, packed.num_baskets, packed.count
    else:
        num_items = 1 + max((int(items.max()) for items, _ in batches if items.numel()), default=-1)
        num_baskets = sum(len(lengths) for _, lengths in batches)
        count = functools.partial(count_batches, batches)
    levels: list[Level] = []
    candidates = torch.arange(num_items).unsqueeze(1)
    while len(candidates) and (max_length is None or candidates.shape[1] <= max_length):
        counts = count(candidates)
        kept = support_mask(counts, num_baskets, min_support)
        if not kept.any():
            break
        levels.append(Level(candidates[kept], counts[kept]))
        candidates = join_itemsets(levels[-1].itemsets)
    return levels, num_baskets
