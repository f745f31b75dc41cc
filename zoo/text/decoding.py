r"""Choosing the next token from a language model's logits.

```math
p_i ∝ \exp(z_i / τ) \quad \text{over the } k \text{ largest } z_i
```
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["sample_token"]


def sample_token(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw a token for each row; temperature 0 takes the most probable one.

    Args:
        logits: (B, V).
        temperature: τ; below 1 sharpens, above 1 flattens.
        top_k: only the k most probable tokens, or None for all.
        generator: source of randomness.

    Returns:
        Token ids (B,).

    Example:
        >>> sample_token(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0.0).tolist()
        [1]
    """
    if temperature < 0:
        raise ZooError(f"temperature must be 0 or more, not {temperature}.")
    if temperature == 0:
        return logits.argmax(-1)
    if top_k is not None:
        threshold = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator).squeeze(-1)
