r"""Text cut into blocks of centre words, each with the words around it.

A word that is left out is left out before windows are drawn, so that the words on both sides of it become neighbours:
rare words always, a frequent word w with the probability $1 - p_w$,

```math
p_w = \min\!\Big(1, \sqrt{t / f_w} + t / f_w\Big), \qquad f_w = n_w / \textstyle\sum_v n_v
```

Around each centre a window of b words on each side is drawn, b uniform on 1 … R, so that a word at distance d is met
with probability $(R - d + 1) / R$.

```
text    … 4 8 | 1 5 9 2 | 6 5 …       a block of C = 4 centres, 1 5 9 2
halo      4 8   1 5 9 2   6 5         and its halo of L = C + 2R words, R = 2
```

Every centre of a block is near every word of its halo, so that their scores are one small matrix product, of which a
band is used.

Legend: B texts, T tokens of each, V tokens of the vocabulary, N blocks, C centres of a block, L = C + 2R words of its
halo, R the largest window, n_w how often w is in the training text, t the threshold.

Source: Mikolov, Sutskever, Chen, Corrado & Dean 2013, §2.3; the probability is that of their tool `word2vec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CENTRES", "Blocks", "Windows", "draw_windows", "expected_blocks", "keep_probability"]

CENTRES = 16  # C


class Blocks(NamedTuple):
    """Centres and the words around them.

    Attributes:
        centre: (N, C).
        halo: (N, L).
        band: how much each word of the halo counts as context of each centre, (N, C, L): 0 or 1 of a drawn window.
        weight: how much each centre counts by itself, (N, C).
    """

    centre: Tensor
    halo: Tensor
    band: Tensor
    weight: Tensor

    def parts(self, size: int) -> Iterator[Blocks]:
        """Yield `size` blocks at a time."""
        yield from (Blocks(*part) for part in zip(*(tensor.split(size) for tensor in self), strict=True))


class Windows(NamedTuple):
    """Texts one after the other, cut into blocks, and how far each centre looks.

    Attributes:
        text: the words, R places before the first centre and behind the last, (N C + 2R,).
        there: whether there is a word, (N C + 2R,), bool.
        reach: b of each centre, (N, C); 0 where there is none.
    """

    text: Tensor
    there: Tensor
    reach: Tensor

    def blocks(self, dtype: torch.dtype = torch.float32) -> Blocks:
        """Return the centres and the words around them, each of which counts 1 where it is in the window."""
        width = len(self.text) - self.reach.numel()  # 2R
        centre = self.text[width // 2 : len(self.text) - width // 2].view(-1, CENTRES)
        if not len(self.reach):
            empty = self.text.new_zeros(0, CENTRES + width)
            return Blocks(centre, empty, empty[:, None].expand(0, CENTRES, -1).to(dtype), centre.to(dtype))
        halo, around = (whole.unfold(0, CENTRES + width, CENTRES) for whole in (self.text, self.there))
        near = distances(CENTRES, width // 2, self.text.device) <= self.reach[:, :, None]
        return Blocks(centre, halo, (near & around[:, None]).to(dtype), (self.reach > 0).to(dtype))


def keep_probability(counts: Tensor, threshold: float) -> Tensor:
    """Return how probable it is that a word stays in the text, (V,): 0 for one that the training text lacks.

    Args:
        counts: n_w, (V,).
        threshold: t; 0 keeps all.

    Example:
        >>> keep_probability(torch.tensor([0, 1, 99]), 0.01)
        tensor([0.0000, 1.0000, 0.1106], dtype=torch.float64)
    """
    counts = counts.double()
    there = counts > 0
    if not threshold:
        return there.double()
    rate = threshold * counts.sum() / torch.where(there, counts, 1.0)
    return torch.where(there, (rate.sqrt() + rate).clamp_max(1.0), 0.0)


def distances(centres: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Return how far each word of a halo is from each centre, (C, L); of a centre from itself 2R + C, beyond all."""
    place = torch.arange(centres + 2 * radius, device=device) - radius
    distance = (place - place[radius : radius + centres, None]).abs()
    return distance.masked_fill_(distance == 0, 2 * radius + centres)


def draw_windows(tokens: Tensor, keep: Tensor, radius: int, generator: torch.Generator | None = None) -> Windows:
    """Leave out frequent words and draw windows.

    Args:
        tokens: texts, none of which goes on in the next, (B, T).
        keep: probability that each token is kept, (B, T).
        radius: R.
        generator: source of randomness.
    """
    device = tokens.device
    draw = torch.rand(tokens.shape, generator=generator, dtype=keep.dtype, device=device)
    kept = draw < keep  # (B, T)
    words, row = tokens[kept], kept.nonzero()[:, 0]  # (K,)
    num_rows = len(tokens)
    # R empty places between two texts, so that no window reaches from one into the next.
    size = len(words) + radius * (num_rows - 1) if len(words) else 0
    num_blocks = -(-size // CENTRES)
    text = torch.zeros(num_blocks * CENTRES + 2 * radius, dtype=torch.long, device=device)
    there = torch.zeros_like(text, dtype=torch.bool)
    place = torch.arange(len(words), device=device) + radius * (row + 1)
    text[place], there[place] = words, True
    reach = torch.randint(1, radius + 1, (num_blocks, CENTRES), generator=generator, device=device)
    return Windows(text, there, reach * there[radius : len(there) - radius].view(-1, CENTRES))


def expected_blocks(tokens: Tensor, keep: Tensor, radius: int) -> Blocks:
    """Return blocks of texts as they stand, in which each pair counts as probably as it would be drawn.

    No word is left out, so that distances are those of the text.

    Args:
        tokens: (B, T).
        keep: probability that each token is kept, (B, T).
        radius: R.

    Returns:
        B · ⌈T / C⌉ blocks, those of a text one after the other, whose bands hold probabilities.
    """
    num_rows, steps = tokens.shape
    each = -(-steps // CENTRES)
    width = each * CENTRES + 2 * radius
    text, weight = tokens.new_zeros(num_rows, width), keep.new_zeros(num_rows, width)
    text[:, radius : radius + steps], weight[:, radius : radius + steps] = tokens, keep
    centre = text[:, radius : radius + each * CENTRES].reshape(-1, CENTRES)
    halo = text.unfold(1, CENTRES + 2 * radius, CENTRES).reshape(-1, CENTRES + 2 * radius)
    around = weight.unfold(1, CENTRES + 2 * radius, CENTRES).reshape(-1, 1, CENTRES + 2 * radius)
    within = around[:, 0, radius : radius + CENTRES]  # (N, C)
    met = (radius + 1 - distances(CENTRES, radius, tokens.device)).clamp_min(0).to(keep.dtype) / radius
    return Blocks(centre, halo, within[:, :, None] * met * around, within)
