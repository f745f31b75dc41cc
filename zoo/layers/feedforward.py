r"""The part of a transformer that works on each step by itself, from raw tensors.

```math
\mathrm{FFN}(x) = φ(x W_1^\top + b_1)\, W_2^\top + b_2, \qquad
\mathrm{SwiGLU}(x) = \bigl(\mathrm{silu}(x W_g^\top + b_g) ⊙ (x W_1^\top + b_1)\bigr) W_2^\top + b_2
```

Legend: D width, F inner width, φ = max(0, ·), or GELU u Φ(u) with Φ the normal distribution, or its form with tanh that
GPT-2 was trained with; silu(u) = u σ(u).

Source: Vaswani et al. 2017, §3.3; Hendrycks & Gimpel 2016 (GELU); Shazeer 2020 (SwiGLU).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels import gelu as compiled
from zoo.layers.dropout import Dropout
from zoo.layers.linear import Linear
from zoo.layers.usable import transformed

__all__ = ["ACTIVATIONS", "FeedForward"]

_LEAST = {"none": 1 << 20, "tanh": 1 << 14}  # numbers from which on the kernel is faster than torch's operators, or
_BACK = {"none"}  # faster on the way back alone


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU by whichever is faster: torch's operator, or the kernel of `zoo.kernels.gelu`."""
    if torch.compiler.is_compiling():  # for any size
        return F.gelu(x, approximate=approximate)
    many = x.numel() >= _LEAST[approximate] and (approximate not in _BACK or torch.is_grad_enabled())
    if many and compiled.available(x) and not transformed(x):
        return compiled.gelu(x, approximate == "tanh")
    return F.gelu(x, approximate=approximate)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": _gelu,
    "gelu_tanh": partial(_gelu, approximate="tanh"),
    "swiglu": F.silu,
}


class FeedForward(nn.Module):
    """Two affine maps with a nonlinearity between them, at every step alike.

    Args:
        embed_dim: D.
        hidden_dim: F.
        activation: `relu`, `gelu`, `gelu_tanh` or `swiglu`.
        dropout: share of the inner numbers dropped in training.
        bias: have b_1 and b_2 (and b_g).
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: a size is below 1, the activation is unknown, or `dropout` is not in [0, 1].

    Example:
        >>> FeedForward(8, 32, activation="swiglu")(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or hidden_dim < 1:
            raise ValueError(f"embed_dim and hidden_dim must be at least 1, not {embed_dim} and {hidden_dim}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.embed_dim, self.hidden_dim, self.activation = embed_dim, hidden_dim, activation
        self.linear1 = Linear(embed_dim, hidden_dim, bias=bias, device=device, dtype=dtype)
        self.linear2 = Linear(hidden_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        gated = activation == "swiglu"
        self.gate = Linear(embed_dim, hidden_dim, bias=bias, device=device, dtype=dtype) if gated else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        φ = ACTIVATIONS[self.activation]
        hidden = φ(self.linear1(x)) if self.gate is None else φ(self.gate(x)) * self.linear1(x)  # (…, F)
        return self.linear2(self.dropout(hidden))

    def extra_repr(self) -> str:
        return f"activation={self.activation}"
