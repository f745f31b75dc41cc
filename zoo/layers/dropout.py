r"""Dropout from raw tensors: a drop-in for `torch.nn.Dropout`.

Each number is kept with probability q = 1 − p, and divided by it, so that its mean stays what it was:

```math
y_i = x_i\, m_i / q, \qquad m_i \sim \mathrm{Bernoulli}(q)
```

Source: Srivastava et al. 2014. Deviation: on a CPU p is rounded to a multiple of 2⁻¹⁶ (and q with it, so that the mean
is exact): four numbers share 64 random bits, which takes a third of the time of torch's.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.kernels.masks import dropout_mask

__all__ = ["Dropout", "dropout"]


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Return `x ⊙ m / (1 − p)` in training, and x itself otherwise.

    Args:
        x: numbers of any shape.
        p: probability of becoming 0, in [0, 1].
        training: whether to do anything.

    Raises:
        ValueError: p is not in [0, 1].

    Example:
        >>> import torch
        >>> dropout(torch.ones(1000), 0.2).unique()
        tensor([0.0000, 1.2500])
    """
    _check(p)
    return x * dropout_mask(x.shape, p, x.dtype, x.device) if training and p > 0 else x


class Dropout(nn.Module):
    """Zeroes each number with probability p in training, as `torch.nn.Dropout`.

    Args:
        p: probability of becoming 0, in [0, 1].
        inplace: change the input itself.

    Raises:
        ValueError: p is not in [0, 1].

    Example:
        >>> import torch
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
        mask = dropout_mask(input.shape, self.p, input.dtype, input.device)
        return input.mul_(mask) if self.inplace else input * mask

    def __prepare_scriptable__(self) -> nn.Dropout:
        """What `torch.jit.script` takes in its place."""
        return nn.Dropout(self.p, self.inplace).train(self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
