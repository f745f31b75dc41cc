r"""Where a step stands in its sequence: sinusoids, learned vectors, rotations and ALiBi, from raw tensors.

Attention alone sees a set; each of these tells it the order:

```math
P_{t,2i} = \sin(t\, θ^{-2i/D}), \quad P_{t,2i+1} = \cos(t\, θ^{-2i/D}), \qquad
q_t \mapsto R_t q_t, \; k_s \mapsto R_s k_s, \; (R_t q)^\top (R_s k) = q^\top R_{s-t}\, k, \qquad
s_{ts} \mapsto s_{ts} - m_h |t - s|
```

Legend: t, s positions, D width, d width of a head, θ = 10,000 the base of the wavelengths, R_t the rotation of each
pair of a head's numbers by the angles t θ^{-2i/d}, m_h the slope of head h.

Source: Vaswani et al. 2017, §3.5 (sinusoids; learned vectors compared); Su et al. 2021 (rotations), with the pairs of
GPT-NeoX and LLaMA, (x_i, x_{i+d/2}), where the paper takes neighbours: the same up to the order of a head's numbers;
Press, Smith & Lewis 2022 (ALiBi).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.layers.dropout import Dropout

__all__ = ["LearnedPositionalEncoding", "SinusoidalPositionalEncoding", "alibi_slopes", "rotate", "sinusoids"]

BASE = 10_000.0


def angles(positions: Tensor, width: int, base: float, dtype: torch.dtype) -> Tensor:
    """Return t θ^{-2i/D} for i < D/2, (…, D/2); in float32 at least, where bfloat16 would miss a whole turn."""
    exact = torch.promote_types(dtype, torch.float32)
    steps = torch.arange(0, width, 2, device=positions.device, dtype=exact)
    return positions.to(exact).unsqueeze(-1) * torch.exp(steps * (-math.log(base) / width))


def sinusoids(positions: Tensor, width: int, base: float = BASE, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return sin(t θ^{-2i/D}) at 2i and cos(t θ^{-2i/D}) at 2i + 1.

    Args:
        positions: t, of any shape.
        width: D; the last cosine is left out where it is odd.
        base: θ.
        dtype: of the result.

    Returns:
        (…, D).

    Example:
        >>> sinusoids(torch.tensor([0, 1]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    a = angles(positions, width, base, dtype)
    return torch.stack([a.sin(), a.cos()], dim=-1).flatten(-2)[..., :width].to(dtype)


def rotate(x: Tensor, positions: Tensor, base: float = BASE) -> Tensor:
    """Rotate the pairs (x_i, x_{i+d/2}) of each vector by its position's angles (rotary positions).

    Args:
        x: queries or keys, (…, T, d) with d even.
        positions: t, (T,), or (…, T) as the axes of x demand.
        base: θ.

    Raises:
        ValueError: d is odd.

    Example:
        >>> q, k = torch.randn(2, 1, 8).double()
        >>> near = rotate(q, torch.tensor([7])) @ rotate(k, torch.tensor([5])).T
        >>> far = rotate(q, torch.tensor([1002])) @ rotate(k, torch.tensor([1000])).T
        >>> torch.allclose(near, far)
        True
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rotary positions turn pairs of numbers: the width of a head must be even, not {x.shape[-1]}")
    a = angles(positions, x.shape[-1], base, x.dtype)  # (…, T, d / 2)
    cosine, sine = a.cos().to(x.dtype), a.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def alibi_slopes(num_heads: int, like: Tensor | None = None) -> Tensor:
    """Return m_h = 2^{-8h/H} for h = 1 … H, and for H that is no power of 2 the slopes in between that the paper takes.

    Args:
        num_heads: H.
        like: a tensor of the type and on the device that the slopes are to have.

    Example:
        >>> alibi_slopes(4)
        tensor([0.2500, 0.0625, 0.0156, 0.0039])
    """
    power = 2 ** math.floor(math.log2(num_heads))
    options = {"dtype": torch.float32, "device": None} if like is None else {"dtype": like.dtype, "device": like.device}
    whole = torch.arange(1, power + 1, **options) * (-8 / power)  # type: ignore[call-overload]
    between = torch.arange(1, 2 * power, 2, **options) * (-4 / power)  # type: ignore[call-overload]
    return torch.cat([whole, between])[:num_heads].exp2()


def steps_of(x: Tensor, positions: int | Tensor, axis: int) -> Tensor:
    """Return the position of each step of x from that of its first, or as given."""
    if isinstance(positions, Tensor):
        return positions
    return torch.arange(positions, positions + x.shape[axis], device=x.device)


class SinusoidalPositionalEncoding(nn.Module):
    """Adds sines and cosines of the position to each step: no parameters, and any length.

    Args:
        embed_dim: D.
        dropout: share of the sums dropped in training.
        base: θ.
        batch_first: the input is (B, T, D) instead of (T, B, D).

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the input is not D wide.

    Source: Vaswani et al. 2017, §3.5.

    Example:
        >>> SinusoidalPositionalEncoding(4)(torch.zeros(1, 2, 4))
        tensor([[[0.0000, 1.0000, 0.0000, 1.0000],
                 [0.8415, 0.5403, 0.0100, 0.9999]]])
    """

    def __init__(self, embed_dim: int, dropout: float = 0.0, base: float = BASE, batch_first: bool = True) -> None:
        super().__init__()
        if embed_dim < 1 or base <= 0:
            raise ValueError(f"embed_dim and base must be above 0, not {embed_dim} and {base}")
        self.embed_dim, self.base, self.batch_first = embed_dim, base, batch_first
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: int | Tensor = 0) -> Tensor:
        """(B, T, D), or unbatched (T, D), with the position of the first step or of each, (T,) or (B, T)."""
        check_width(x, self.embed_dim)
        by_row = self.batch_first or x.dim() == 2
        code = sinusoids(steps_of(x, positions, -2 if by_row else 0), self.embed_dim, self.base, x.dtype)
        return self.dropout(x + (code if by_row else seq_first(code)))

    def extra_repr(self) -> str:
        return f"{self.embed_dim}" + (f", base={self.base:g}" if self.base != BASE else "")


class LearnedPositionalEncoding(nn.Module):
    """Adds a learned vector to each step, one for each position up to a greatest length, as BERT and GPT-2 do.

    Args:
        max_length: positions that there are.
        embed_dim: D.
        dropout: share of the sums dropped in training.
        batch_first: the input is (B, T, D) instead of (T, B, D).
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an argument is out of range, or a step lies beyond `max_length`.
        RuntimeError: the input is not D wide.

    Source: Gehring et al. 2017, §3.1; drawn from N(0, 0.02²) as in Devlin et al. 2019.

    Example:
        >>> LearnedPositionalEncoding(16, 4)(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 5, 4])
    """

    def __init__(
        self,
        max_length: int,
        embed_dim: int,
        dropout: float = 0.0,
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if max_length < 1 or embed_dim < 1:
            raise ValueError(f"max_length and embed_dim must be at least 1, not {max_length} and {embed_dim}")
        self.max_length, self.embed_dim, self.batch_first = max_length, embed_dim, batch_first
        self.weight = nn.Parameter(torch.empty(max_length, embed_dim, device=device, dtype=dtype))
        self.dropout = Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from N(0, 0.02²)."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, positions: int | Tensor = 0) -> Tensor:
        """(B, T, D), or unbatched (T, D), with the position of the first step or of each, (T,) or (B, T)."""
        check_width(x, self.embed_dim)
        by_row = self.batch_first or x.dim() == 2
        if isinstance(positions, Tensor):
            code = self.weight[positions]
        else:
            end = positions + x.shape[-2 if by_row else 0]
            if end > self.max_length:
                raise ValueError(f"step {end} lies beyond max_length={self.max_length}: cut the sequence, or raise it")
            code = self.weight[positions:end]
        return self.dropout(x + (code if by_row else seq_first(code)))

    def extra_repr(self) -> str:
        return f"{self.max_length}, {self.embed_dim}"


def seq_first(code: Tensor) -> Tensor:
    """Lay the code of (T, D) or (B, T, D) out for an input of (T, B, D)."""
    return code.unsqueeze(1) if code.dim() == 2 else code.transpose(0, 1)


def check_width(x: Tensor, width: int) -> None:
    """Refuse what would be broadcast in silence."""
    if x.shape[-1] != width:
        raise RuntimeError(f"expected an input of width {width}, got {x.shape[-1]}")
