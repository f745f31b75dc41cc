r"""Choosing the next token from a language model's logits.

```math
p_i ∝ \exp(z_i / τ) \quad \text{over the tokens that are kept}
```

Tokens are left out in this order: all but the $k$ most probable (top-k); all but the fewest most probable ones whose
probabilities sum to $p$ (top-p, the nucleus); all that are less probable than a share $m$ of the most probable (min-p).

Legend: B rows, V tokens of the vocabulary.

Source: Fan, Lewis & Dauphin 2018 (top-k); Holtzman et al. 2020 (top-p); Nguyen et al. 2025 (min-p); Keskar et al. 2019
(the penalty on repetition).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["filter_logits", "penalize_repetition", "sample_token"]


def filter_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Return the logits that a token is drawn from: divided by τ, and −∞ for those that are left out.

    Args:
        logits: (B, V).
        temperature: τ above 0; below 1 sharpens, above 1 flattens.
        top_k: keep the k most probable tokens, and those that are as probable as the last of them.
        top_p: keep the fewest most probable tokens whose probabilities sum to at least p; never none.
        min_p: keep tokens at least m times as probable as the most probable one.

    Returns:
        (B, V).

    Example:
        >>> filter_logits(torch.tensor([[0.0, 3.0, 1.0]]), top_k=2).tolist()
        [[-inf, 3.0, 1.0]]
    """
    logits = logits / temperature
    if top_k is not None:
        threshold = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p is not None and top_p < 1:
        ascending, order = logits.sort(-1)
        left_out = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        left_out[..., -1] = False
        logits = logits.masked_fill(left_out.scatter(-1, order, left_out), -torch.inf)
    if min_p is not None and min_p > 0:
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), -torch.inf)
    return logits


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that were there less probable: a logit above 0 is divided by θ, one below is multiplied by it.

    Args:
        logits: (B, V).
        seen: which tokens were there, (B, V), bool.
        penalty: θ; 1 changes nothing.

    Example:
        >>> seen = torch.tensor([[True, True, False]])
        >>> penalize_repetition(torch.tensor([[3.0, -1.0, 1.0]]), seen, 2.0).tolist()
        [[1.5, -2.0, 1.0]]
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Draw a token for each row; temperature 0 takes the most probable one.

    Args:
        logits: (B, V).
        temperature: τ; below 1 sharpens, above 1 flattens.
        top_k: only the k most probable tokens, or None for all.
        generator: source of randomness, or one for each row, so that a row is drawn as if it were alone.
        top_p: only the most probable tokens whose probabilities sum to p, or None for all.
        min_p: only tokens at least m times as probable as the most probable one, or None for all.

    Returns:
        Token ids (B,).

    Raises:
        ZooError: for a temperature below 0.

    Example:
        >>> sample_token(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0.0).tolist()
        [1]
    """
    if temperature < 0:
        raise ZooError(f"temperature must be 0 or more, not {temperature}.")
    if temperature == 0:
        return logits.argmax(-1)
    return draw(probabilities(logits, temperature, top_k, top_p, min_p), generator)


def probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Return the probabilities (B, V) that tokens are drawn with; arguments are those of `filter_logits`.

    Example:
        >>> probabilities(torch.tensor([[0.0, 3.0, 3.0]]), temperature=1e-300).tolist()
        [[0.0, 0.5, 0.5]]
    """
    logits = logits - logits.amax(-1, keepdim=True)  # none overflows, however low the temperature
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    return filter_logits(logits, temperature, top_k, top_p, min_p).softmax(-1)


def draw(probabilities: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
    """Draw a token (B,) from the probabilities (B, V) of each row."""
    try:
        if isinstance(generator, Sequence):
            rows = zip(probabilities.split(1), generator, strict=True)
            return torch.cat([torch.multinomial(row, 1, generator=own).view(1) for row, own in rows])
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
    except RuntimeError:
        if bool(probabilities.isfinite().all()):
            raise
        raise ZooError("What the model says of the next token is not finite: its weights are damaged.") from None
