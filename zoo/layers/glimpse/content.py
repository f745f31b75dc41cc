r"""Attention by content: how well a query fits each of S entries of a memory, and the mean of those that fit.

```math
e_{ts} = v^\top \tanh(W q_t + U m_s + b) \;\text{(additive)}, \qquad
e_{ts} = q_t^\top W m_s \;\text{(multiplicative)}, \qquad c_t = \sum_s \mathrm{softmax}_s(e_{ts})\, m_s
```

What of the scores depends on the memory alone, $U m_s + b$ or $W m_s$, is computed once by `project`.

Letters: B rows, T queries q of Q numbers, S entries of the memory m of M numbers, H hidden units.

Sources: Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and translate", 2015
(additive); Luong, Pham & Manning, "Effective approaches to attention-based neural machine translation", 2015
(multiplicative, their "general" score).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.glimpse.choice import expected_glimpse

__all__ = ["AdditiveAttention", "MultiplicativeAttention"]


class _ContentAttention(nn.Module):
    """What both kinds of score share: the distribution over the memory and its mean."""

    def project(self, memory: Tensor) -> Tensor:
        """Return what the scores need of a memory (B, S, M), computed once."""
        raise NotImplementedError

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """Return e, (B, T, S), of queries (B, T, Q) and what `project` returned."""
        raise NotImplementedError

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None = None, projected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the glimpses c (B, T, M) and the weights (B, T, S); zeros where a row's memory is empty.

        Args:
            query: q, (B, T, Q).
            memory: m, (B, S, M).
            mask: which entries are there, (B, S), bool; None for all.
            projected: what `project(memory)` returned, where it is at hand.
        """
        scores = self.scores(query, self.project(memory) if projected is None else projected)
        return expected_glimpse(memory, scores, mask)

    def _draw(self) -> None:
        """Draw all from U(-1/√n, 1/√n), n inputs, as torch's linear layers."""
        for parameter in self.parameters():
            bound = 1 / math.sqrt(parameter.shape[-1])
            nn.init.uniform_(parameter, -bound, bound)


class AdditiveAttention(_ContentAttention):
    """Attention scored by a small network, `v·tanh(W q + U m + b)`.

    Args:
        query_size: Q.
        memory_size: M.
        hidden_size: H.
        device: of the parameters.
        dtype: of the parameters.

    Source: Bahdanau, Cho & Bengio 2015, appendix A.1.2.

    Example:
        >>> context, weights = AdditiveAttention(4, 6, 8)(torch.randn(2, 3, 4), torch.randn(2, 5, 6))
        >>> context.shape, weights.shape
        (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        hidden_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: Any = {"device": device, "dtype": dtype}
        self.query_size, self.memory_size, self.hidden_size = query_size, memory_size, hidden_size
        self.weight_query = nn.Parameter(torch.empty(hidden_size, query_size, **factory))
        self.weight_memory = nn.Parameter(torch.empty(hidden_size, memory_size, **factory))
        self.bias = nn.Parameter(torch.empty(hidden_size, **factory))
        self.weight_score = nn.Parameter(torch.empty(hidden_size, **factory))
        self._draw()

    def project(self, memory: Tensor) -> Tensor:
        """(B, S, M) to (B, S, H)."""
        return nn.functional.linear(memory, self.weight_memory, self.bias)

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """(B, T, Q) and (B, S, H) to (B, T, S)."""
        asked = nn.functional.linear(query, self.weight_query)
        return (asked.unsqueeze(2) + projected.unsqueeze(1)).tanh() @ self.weight_score

    def extra_repr(self) -> str:
        return f"{self.query_size}, {self.memory_size}, {self.hidden_size}"


class MultiplicativeAttention(_ContentAttention):
    """Attention scored by a product, `q·W m`.

    Args:
        query_size: Q.
        memory_size: M.
        device: of the parameters.
        dtype: of the parameters.

    Source: Luong, Pham & Manning 2015, eq. 8.

    Example:
        >>> context, weights = MultiplicativeAttention(4, 6)(torch.randn(2, 3, 4), torch.randn(2, 5, 6))
        >>> context.shape, weights.shape
        (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.query_size, self.memory_size = query_size, memory_size
        self.weight = nn.Parameter(torch.empty(query_size, memory_size, device=device, dtype=dtype))
        self._draw()

    def project(self, memory: Tensor) -> Tensor:
        """(B, S, M) to (B, S, Q)."""
        return nn.functional.linear(memory, self.weight)

    def scores(self, query: Tensor, projected: Tensor) -> Tensor:
        """(B, T, Q) and (B, S, Q) to (B, T, S)."""
        return query @ projected.transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.query_size}, {self.memory_size}"
