r"""Speculative decoding: a smaller model proposes some tokens, the larger one reads them all at once.

A proposal $x$ of the draft's probability $q(x)$ is taken with probability $\min(1, p(x) / q(x))$, where $p$ is what the
larger model says; at the first that is not taken a token is drawn from $\max(0, p − q)$, scaled to sum to 1. So every
token is drawn from $p$, whatever the draft proposes: only the time depends on it.

Legend: g proposals, V tokens of the vocabulary.

Source: Leviathan, Kalman & Matias 2023, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo.text.reading import Reader
from zoo.text.sampling import draw

__all__ = ["speculate"]


def speculate(
    reader: Reader,
    draft: Reader,
    distribution: Callable[[Tensor, Tensor | None], Tensor],
    *,
    steps: int,
    num_proposals: int = 4,
    needs_seen: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield `steps` tokens, (1,) each, as the reader's model alone would draw them.

    Args:
        reader: one row, read by the model that decides.
        draft: the same row, read by a smaller model; both keep `num_proposals` states.
        distribution: takes logits (n, V) and the tokens that were there (n, V), bool, or None, and returns the
            probabilities (n, V) that a token is drawn from.
        steps: number of tokens.
        num_proposals: g.
        needs_seen: whether the distribution asks for the tokens that were there.
        generator: source of randomness.
    """
    drawn = 0
    while drawn < steps:
        count = int(min(num_proposals, steps - drawn - 1, reader.span, draft.span))
        vocabulary, before = 0, None
        proposed, q = [], []  # tokens (1,), and the probabilities (V,) that they were drawn from
        for _ in range(count):
            logits = draft.logits().cpu()  # (1, V)
            vocabulary = logits.shape[-1]
            q.append(distribution(logits, draft.seen(vocabulary).cpu() if needs_seen else None)[0])
            proposed.append(draw(q[-1][None], generator))
            draft.append(proposed[-1])
        for token in proposed:
            reader.append(token)
        logits = reader.logits(every=True)[0, -count - 1 :].cpu()  # (g + 1, V)
        if needs_seen:
            reader_seen = reader.seen(logits.shape[-1]).cpu()
            before = _seen_before(reader, reader_seen, count)
        p = distribution(logits, before)
        accepted = 0
        for token, own in zip(proposed, q, strict=True):
            share = p[accepted, token] / own[token]
            if torch.rand(1, generator=generator) >= share:
                break
            accepted += 1
        if accepted < count:
            reader.back(count - accepted)
            draft.back(count - accepted)
            rest = (p[accepted] - q[accepted]).clamp_min(0)
            # Nothing is left where rounding alone made the difference between the two.
            chosen = draw(rest[None] if bool(rest.any()) else p[accepted][None], generator)
        else:
            chosen = draw(p[accepted][None], generator)
        reader.append(chosen)
        draft.append(chosen)
        drawn += accepted + 1
        yield from (*proposed[:accepted], chosen)


def _seen_before(reader: Reader, seen: Tensor, count: int) -> Tensor:
    """Which tokens were there before each of the last `count` tokens and behind them, (g + 1, V)."""
    length = reader.lengths[0]
    rows = []
    for end in range(length - count, length + 1):
        row = torch.zeros_like(seen[0])
        row[reader.tokens[0, :end].cpu()] = True
        rows.append(row)
    return torch.stack(rows)
