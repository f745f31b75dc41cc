r"""Pairs of words that stand together more often than by chance, such as new york, as one word.

```math
\mathrm{score}(a, b) = \frac{(n_{ab} - δ)\, N}{n_a\, n_b}
```

where N is the number of words of the text. A pair above the threshold becomes a word of its own.

Legend: B texts, T tokens of each, P phrases, n_a how often a word is met, n_ab how often b follows a, δ the
least of it.

Source: Mikolov, Sutskever, Chen, Corrado & Dean 2013, §4 (with the factor N of their tool `word2phrase`, which makes
the threshold independent of the length of the text).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["find_phrases", "join_phrases"]

_MOST = 1 << 24  # pairs that are counted at a time; the rare ones among them go first


def find_phrases(
    texts: Iterable[tuple[Tensor, Tensor]], counts: Tensor, threshold: float, min_count: int
) -> tuple[Tensor, Tensor]:
    """Return the phrases, (P, 2), the most frequent first, and how often each is met, (P,).

    Args:
        texts: tokens (B, T), and which of them are words, (B, T), some at a time.
        counts: how often each token is met, (V,).
        threshold: the least score.
        min_count: δ.
    """
    size = len(counts)
    pairs = met = torch.zeros(0, dtype=torch.long)
    for tokens, words in texts:
        both = words[:, :-1] & words[:, 1:]
        found, times = (tokens[:, :-1] * size + tokens[:, 1:])[both].unique(return_counts=True)
        pairs, place = torch.cat([pairs, found]).unique(return_inverse=True)
        met = torch.zeros_like(pairs).index_add_(0, place, torch.cat([met, times]))
        if len(pairs) > _MOST:
            pairs, met = pairs[met > 1], met[met > 1]
    first, second = pairs // size, pairs % size
    score = (met - min_count).double() * counts.sum() / (counts[first].double() * counts[second])
    chosen = ((score > threshold) & (met >= min_count)).nonzero()[:, 0]
    chosen = chosen[met[chosen].argsort(descending=True, stable=True)]
    return torch.stack([first, second], 1)[chosen], met[chosen]


def join_phrases(tokens: Tensor, words: Tensor, phrases: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Put a phrase in the place of its first word, and nothing in that of its second; from left to right.

    Args:
        tokens: (B, T).
        words: which of them are words, (B, T).
        phrases: (P, 2).
        vocab_size: V; phrase p becomes V + p.

    Returns:
        tokens: (B, T).
        words: which of them are there, (B, T).

    Example:
        >>> tokens = torch.tensor([[4, 1, 2, 3]])
        >>> join_phrases(tokens, tokens >= 0, torch.tensor([[1, 2], [2, 3]]), 5)
        (tensor([[4, 5, 2, 3]]), tensor([[ True,  True, False,  True]]))
    """
    if not len(phrases) or tokens.shape[1] < 2:
        return tokens, words
    keys, order = (phrases[:, 0] * vocab_size + phrases[:, 1]).sort()
    pair = tokens[:, :-1] * vocab_size + tokens[:, 1:]  # (B, T − 1)
    place = torch.searchsorted(keys, pair).clamp_max(len(keys) - 1)
    hit = (keys[place] == pair) & words[:, :-1] & words[:, 1:]
    # Of hits one after the other every second one counts: the words of the others are taken.
    step = torch.arange(hit.shape[1], device=tokens.device).expand_as(hit)
    last_miss = torch.where(hit, -1, step).cummax(1).values
    taken = hit & ((step - last_miss) % 2 == 1)
    joined, left = tokens.clone(), words.clone()
    joined[:, :-1] = torch.where(taken, vocab_size + order[place], joined[:, :-1])
    left[:, 1:] &= ~taken
    return joined, left
