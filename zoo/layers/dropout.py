r"""Dropout from raw tensors: a drop-in for `torch.nn.Dropout`.

Each number is kept with probability q = 1 − p, and divided by it, so that its mean stays what it was:

```math
y_i = x_i\, m_i / q, \qquad m_i \sim \mathrm{Bernoulli}(q)
```

Source: Srivastava et al. 2014. Deviation: on a CPU p is rounded to a multiple of 2⁻¹⁶ (and q with it, so that the mean
is exact): four numbers share 64 random bits, which takes a quarter of the time of a uniform number for each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Dropout", "dropout", "dropout_mask"]

LEVELS = 1 << 16


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """Return 0 with probability p and 1 / (1 − p) else, in the shape and type of x.

    Example:
        >>> dropout_mask(torch.zeros(2, 3), p=0.0)
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    if p >= 1:
        return torch.zeros_like(x)
    if x.device.type != "cpu":
        return torch.rand(x.shape, dtype=torch.float32, device=x.device).ge(p).to(x.dtype) / (1 - p)
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return torch.zeros_like(x)
    words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 3) // 4,))
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform on −2¹⁵ … 2¹⁵ − 1
    kept = (bits >= dropped - LEVELS // 2) if x.dtype.itemsize == 2 else bits.to(x.dtype).ge_(dropped - LEVELS // 2)
    return kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Return `x ⊙ m / (1 − p)` in training, and x itself otherwise.

    Args:
        x: numbers of any shape.
        p: probability of becoming 0, in [0, 1].
        training: whether to do anything.

    Raises:
        ValueError: p is not in [0, 1].

    Example:
        >>> dropout(torch.ones(1000), 0.2).unique()
        tensor([0.0000, 1.2500])
    """
    _check(p)
    return x * dropout_mask(x, p) if training and p > 0 else x


class Dropout(nn.Module):
    """Zeroes each number with probability p in training, as `torch.nn.Dropout`.

    Args:
        p: probability of becoming 0, in [0, 1].
        inplace: change the input itself.

    Raises:
        ValueError: p is not in [0, 1].

    Example:
        >>> Dropout(0.5).eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        _check(p)
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        mask = dropout_mask(input, self.p)
        return input.mul_(mask) if self.inplace else input * mask

    def __prepare_scriptable__(self) -> nn.Dropout:
        """What `torch.jit.script` takes in its place."""
        return nn.Dropout(self.p, self.inplace).train(self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
