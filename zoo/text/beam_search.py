r"""Beam search: the most probable continuations that a search of bounded breadth finds.

```math
\mathrm{score}(y) = \frac{1}{|y|^{α}} \sum_t \log p(y_t \mid y_{<t}, x)
```

Of each prompt K continuations are kept. Each step lengthens all of them by every token, takes the 2 K best, of which K
at least go on; those among the K best that end join the K best ended ones so far. α is the length penalty: 0 prefers
short continuations, 1 takes the mean log-probability of a token.

Legend: B prompts, K beams, V tokens of the vocabulary, t tokens so far, N tokens at most.

Source: Lowerre 1976; the length penalty and the rules of stopping as `transformers` has them, so that both find the
same tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.text.reading import Reader
from zoo.text.sampling import penalize_repetition

__all__ = ["Hypothesis", "beam_search"]


class Hypothesis(NamedTuple):
    """A continuation that was found.

    Attributes:
        tokens: its token ids, with the one that ends it.
        score: the sum of their log-probabilities over the number of tokens to the power α.
    """

    tokens: Tensor
    score: float


def beam_search(
    reader: Reader,
    *,
    steps: int,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    repetition_penalty: float = 1.0,
    ends: Callable[[Tensor], Tensor] | None = None,
) -> list[list[Hypothesis]]:
    """Return for each row of the reader the K best continuations, best first.

    Args:
        reader: the prompts.
        steps: N, the most tokens of a continuation.
        num_beams: K.
        length_penalty: α; above 0 favours longer continuations.
        early_stopping: True stops when K continuations have ended; False when the best that goes on has a lower score
            at its present length than all of them; `never` when it could not get a higher one at any length.
        repetition_penalty: θ on the log-probabilities of tokens that were there.
        ends: says of continuations (B, C, t) which have ended, (B, C), bool.
    """
    rows, device = len(reader.lengths), reader.tokens.device
    batch = torch.arange(rows, device=device).unsqueeze(1)  # (B, 1)
    tokens = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)  # (B, K, t), one beam at first
    scores = torch.zeros(rows, 1, device=device)  # (B, K)
    ended_scores = torch.full((rows, num_beams), -torch.inf, device=device)
    ended_tokens = torch.zeros(rows, num_beams, steps, dtype=torch.long, device=device)
    ended_lengths = torch.zeros(rows, num_beams, dtype=torch.long, device=device)
    is_open = torch.ones(rows, dtype=torch.bool, device=device)  # prompts whose ended ones can still be bettered
    for length in range(1, steps + 1):
        logits = reader.logits()  # (B · K, V)
        log_p = logits.float().log_softmax(-1) if logits.dtype != torch.float64 else logits.log_softmax(-1)
        if repetition_penalty != 1:
            log_p = penalize_repetition(log_p, reader.seen(log_p.shape[-1]), repetition_penalty)
        total = (scores.unsqueeze(-1) + log_p.view(*scores.shape, -1)).flatten(1)  # (B, K · V)
        best, index = total.topk(min(2 * num_beams, total.shape[1]))  # (B, 2 K)
        parent, token = index // log_p.shape[-1], index % log_p.shape[-1]
        tokens = torch.cat([tokens[batch, parent], token.unsqueeze(-1)], -1)  # (B, 2 K, t)
        ended = torch.full_like(best, length == steps, dtype=torch.bool)
        if ends is not None:
            ended = ended | ends(tokens)

        # Those of the K best that end are held against the ended ones so far.
        joins = ended & (torch.arange(best.shape[1], device=device) < num_beams) & is_open.unsqueeze(1)
        candidates = torch.cat(
            [ended_scores, torch.where(joins, best / float(length) ** length_penalty, -torch.inf)], 1
        )
        padded = torch.nn.functional.pad(tokens, (0, steps - length))
        lengths = torch.full_like(index, length)
        ended_scores, kept = candidates.topk(num_beams)
        ended_tokens = torch.cat([ended_tokens, padded], 1)[batch, kept]
        ended_lengths = torch.cat([ended_lengths, lengths], 1)[batch, kept]
        if length == steps:
            break

        # The K best that do not end go on.
        scores, kept = best.masked_fill(ended, -torch.inf).topk(min(num_beams, best.shape[1]))
        tokens, parent = tokens[batch, kept], parent.gather(1, kept)
        reached = float(steps) if early_stopping == "never" and length_penalty > 0 else float(length)
        is_open = is_open & (scores[:, 0] / reached**length_penalty > ended_scores[:, -1])
        if early_stopping is True:
            is_open = is_open & (ended_scores[:, -1] == -torch.inf)
        if not is_open.any():
            break
        reader.select((batch * (len(reader.lengths) // rows) + parent).flatten())
        reader.append(tokens[..., -1].flatten())
    if steps and not bool((ended_scores > -torch.inf).any(1).all()):
        raise ZooError("What the model says of the next token is not finite: its weights are damaged.")
    return [
        [Hypothesis(t[:n], float(s)) for t, n, s in zip(*found, strict=True) if s > -torch.inf]
        for found in zip(ended_tokens.cpu(), ended_lengths.tolist(), ended_scores.tolist(), strict=True)
    ]
