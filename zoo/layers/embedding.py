r"""Tokens as vectors, and vectors as scores of tokens: the embedding table, used from both sides.

```math
x_t = s\, E_{w_t}, \qquad \mathrm{logits}_t = E\, h_t
```

Legend: E the table of V tokens × D numbers, w_t the token of step t, s = √D or 1, h_t the last hidden state.

Source: Press & Wolf 2017 (one table for both); Vaswani et al. 2017, §3.4 (√D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """Looks tokens up in a table, and scores states with the same table.

    Args:
        num_tokens: V.
        embed_dim: D.
        padding_idx: the token whose vector is 0 and gets no gradient.
        scaled: multiply the vectors by √D, as the transformer does.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: a size is below 1, or `padding_idx` is no token.

    Example:
        >>> embedding = TokenEmbedding(100, 8)
        >>> embedding.logits(embedding(torch.tensor([[1, 2, 3]]))).shape
        torch.Size([1, 3, 100])
    """

    def __init__(
        self,
        num_tokens: int,
        embed_dim: int,
        padding_idx: int | None = None,
        scaled: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_tokens < 1 or embed_dim < 1:
            raise ValueError(f"num_tokens and embed_dim must be at least 1, not {num_tokens} and {embed_dim}")
        if padding_idx is not None and not 0 <= padding_idx < num_tokens:
            raise ValueError(f"padding_idx must be a token below {num_tokens}, not {padding_idx}")
        self.num_tokens, self.embed_dim, self.padding_idx, self.scaled = num_tokens, embed_dim, padding_idx, scaled
        self.weight = nn.Parameter(torch.empty(num_tokens, embed_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from N(0, 1/D) where the vectors are scaled, else from N(0, 0.02²); padding is 0."""
        nn.init.normal_(self.weight, std=self.embed_dim**-0.5 if self.scaled else 0.02)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.weight[self.padding_idx].zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """(…,) whole numbers below V to (…, D)."""
        vectors = F.embedding(tokens, self.weight, self.padding_idx)
        return vectors * math.sqrt(self.embed_dim) if self.scaled else vectors

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) to (…, V)."""
        return F.linear(hidden, self.weight)

    def extra_repr(self) -> str:
        changed = {"padding_idx": None, "scaled": False}
        shown = [f"{name}={getattr(self, name)}" for name, value in changed.items() if getattr(self, name) != value]
        return ", ".join([f"{self.num_tokens}, {self.embed_dim}", *shown])
