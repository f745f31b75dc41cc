r"""Tokens hidden from a model that is to guess them: 15 % of a text, of which 80 % read [MASK], 10 % another token.

Which ones follows from the text itself and the number of the draw, and not from the rows beside it nor from padding:

```math
u_{bt} = h(k, g_b + t), \qquad g_b = \sum_{t \le n_b} h(0, w_{bt} + V t), \qquad
\text{hidden: the } \max(1, \lfloor 0.15\, n_b + ½ \rfloor) \text{ smallest } u_{bt}
```

Legend: B texts, T steps, w their tokens, n_b how many of a text may be hidden, V tokens of the vocabulary, k the number
of the draw, h SplitMix64.

Source: Devlin et al. 2019, §3.1 and A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.numerics.hashing import splitmix64, stream_key, uniforms

__all__ = ["IGNORED", "hide_tokens"]

IGNORED = -100  # a target that does not count, as in torch


def hide_tokens(
    tokens: Tensor,
    mask: Tensor | None,
    *,
    vocab_size: int,
    mask_token: int,
    kept: tuple[int, ...] = (),
    share: float = 0.15,
    draw: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return what the model reads, (B, T), and what it is to guess, (B, T), −100 where nothing is.

    Args:
        tokens: (B, T).
        mask: which of them are there, (B, T); None for all.
        vocab_size: V, the tokens that may stand in the place of another.
        mask_token: [MASK].
        kept: tokens that are not hidden where a text has others.
        share: of a text that is hidden, one token at least.
        draw: k.

    Example:
        >>> read, guessed = hide_tokens(torch.arange(20).view(1, 20), None, vocab_size=20, mask_token=20)
        >>> int((guessed >= 0).sum())
        3
    """
    there = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    special = torch.isin(tokens, torch.tensor(kept, device=tokens.device, dtype=tokens.dtype))
    usual = there & ~special
    may = torch.where(usual.any(1, keepdim=True), usual, there)
    text = splitmix64(0, tokens + vocab_size * steps).masked_fill(~there, 0).sum(1, keepdim=True)  # (B, 1)
    key = stream_key(draw, 0xBE27)
    order = uniforms(splitmix64(key, text + 2 * steps), torch.float64)[0].masked_fill(~may, 2.0)
    rank = order.argsort(dim=1, stable=True).argsort(dim=1)
    count = (share * may.sum(1, keepdim=True) + 0.5).long().clamp_min(1)
    hidden = may & (rank < count)
    kind, other = uniforms(splitmix64(key, text + 2 * steps + 1), torch.float64)
    drawn = (other * vocab_size).long().clamp_max(vocab_size - 1)
    read = torch.where(kind <= 0.8, mask_token, torch.where(kind <= 0.9, drawn, tokens))
    return torch.where(hidden, read, tokens), torch.where(hidden, tokens, IGNORED)
