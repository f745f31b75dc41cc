r"""Words as bags of character n-grams, so that words with a common part share what is learned of it.

```math
v_w = \frac{1}{1 + |G_w|} \Big( z_w + \sum_{g \in G_w} z_g \Big)
```

$G_w$ are all runs of a to b characters of the word between its marks, `<where>`: `<wh`, …, `ere>`. Their vectors
lie in M buckets, bucket $\mathrm{fnv}(g) \bmod M$, behind those of the V words. A word that was never met is the mean
of its n-grams alone.

Legend: V words, M buckets, G n-grams of all words, D numbers of a vector.

Source: Bojanowski, Grave, Joulin & Mikolov 2017; the mean, the buckets and the FNV-1a hash (in which fastText takes a
byte as a signed number) are those of their tool fastText.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Bags", "bags_of", "n_gram_buckets"]

_PRIME, _BASIS, _MASK = 16_777_619, 2_166_136_261, 0xFFFF_FFFF


class Bags(NamedTuple):
    """The rows of a table that make up each word's vector, one word after the other.

    Attributes:
        rows: (V + G,).
        starts: where each word's rows begin, and where the last one's end, (V + 1,).
    """

    rows: Tensor
    starts: Tensor

    def of(self, words: Tensor) -> Bags:
        """Return the bags of some words (n,)."""
        lengths = self.starts[words + 1] - self.starts[words]
        starts = F.pad(lengths.cumsum(0), (1, 0))
        shift = (self.starts[words] - starts[:-1]).repeat_interleave(lengths)
        return Bags(self.rows[torch.arange(len(shift), device=words.device) + shift], starts)

    @property
    def lengths(self) -> Tensor:
        """How many rows each word has, (V,)."""
        return self.starts.diff()

    def mean(self, table: Tensor) -> Tensor:
        """Return the mean of each word's rows of a table (R, D), (V, D)."""
        return F.embedding_bag(self.rows, table, self.starts, mode="mean", include_last_offset=True)

    def spread(self, gradient: Tensor) -> Tensor:
        """Return the gradient of each row, (V + G, D), from that of each word's mean, (V, D)."""
        share = gradient / self.lengths.clamp_min(1).unsqueeze(1)
        return share.repeat_interleave(self.lengths, 0)


def bags_of(words: Sequence[str], shortest: int, longest: int, buckets: int) -> Bags:
    """Return for each word its own row, and those of its n-grams, which lie behind the rows of all words.

    Args:
        words: V words; an empty one has its own row alone.
        shortest: a, characters.
        longest: b, characters.
        buckets: M.
    """
    found, word = n_gram_buckets(words, shortest, longest, buckets)
    own = torch.arange(len(words))
    rows, place = torch.cat([own, len(words) + found]), torch.cat([own, word]).argsort(stable=True)
    lengths = torch.bincount(word, minlength=len(words)) + 1
    return Bags(rows[place], F.pad(lengths.cumsum(0), (1, 0)))


def n_gram_buckets(words: Sequence[str], shortest: int, longest: int, buckets: int) -> tuple[Tensor, Tensor]:
    """Return the bucket of each n-gram, (G,), and its word, (G,).

    Args:
        words: V words; an empty one has no n-grams.
        shortest: a, characters.
        longest: b, characters.
        buckets: M.

    Example:
        >>> n_gram_buckets(["it"], 3, 4, 2_000_000)[1].tolist()  # <it, it>, <it>
        [0, 0, 0]
    """
    marked = [f"<{word}>".encode() if word else b"" for word in words]
    text = torch.frombuffer(bytearray(b"".join(marked) + b"\0"), dtype=torch.uint8)  # never empty
    starts = ((text & 0xC0) != 0x80).nonzero()[:, 0]  # of characters, and of the last byte, which is none
    ends = torch.tensor([0, *map(len, marked)]).cumsum(0)[1:]
    word = torch.searchsorted(ends, starts, right=True)[:-1]  # (characters,)
    found, owner = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    for size in range(shortest, longest + 1):
        if size >= len(starts):
            break
        begin, stop, own = starts[:-size], starts[size:], word[: len(starts) - size]
        inside = stop <= ends[own]
        if size == 1:  # a mark by itself says nothing
            inside &= (begin != F.pad(ends, (1, 0))[own]) & (stop != ends[own])
        found.append(_fnv(text, begin[inside], stop[inside]) % buckets)
        owner.append(own[inside])
    return torch.cat(found), torch.cat(owner)


def _fnv(text: Tensor, begin: Tensor, stop: Tensor) -> Tensor:
    """Return the 32-bit FNV-1a hash of each run of bytes, int64."""
    value = torch.full_like(begin, _BASIS)
    signed = text.view(torch.int8).long() & _MASK  # as fastText has it: bytes above 127 fill the upper ones too
    for offset in range(int((stop - begin).max()) if len(begin) else 0):
        place = begin + offset
        mixed = ((value ^ signed[place.clamp_max(len(text) - 1)]) * _PRIME) & _MASK
        value = torch.where(place < stop, mixed, value)
    return value
