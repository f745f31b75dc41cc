r"""Dropout from raw tensors: drop-ins for `torch.nn.Dropout` and its forms for channels, and one for all steps alike.

Each number is kept with probability q = 1 − p, and divided by it, so that its mean stays what it was:

```math
y_i = x_i\, m_i / q, \qquad m_i \sim \mathrm{Bernoulli}(q)
```

Here p is the chance to be dropped, as in torch; in Srivastava et al. it is the chance to be kept, our q.

Source: Srivastava et al. 2014. Deviation: on a CPU p is rounded to a multiple of 2⁻¹⁶ (and q with it, so that the mean
is exact): four numbers share 64 random bits, which takes a third of the time of torch's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.kernels.masks import dropout_mask

__all__ = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "VariationalDropout", "dropout"]


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


class _SharedDropout(Dropout):
    """Dropout that zeroes together what lies along some axes: a mask of one number for all of it."""

    def _mask_shape(self, shape: torch.Size) -> list[int]:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        mask = dropout_mask(self._mask_shape(input.shape), self.p, input.dtype, input.device)
        return input.mul_(mask) if self.inplace else input * mask


class Dropout1d(_SharedDropout):
    """Zeroes whole channels of sequences (B, C, T) or (C, T) with probability p, as `torch.nn.Dropout1d`.

    Neighbours in a channel say nearly the same, so that dropping them one by one drops little (Tompson et al. 2015).

    Args:
        p: probability of becoming 0, in [0, 1].
        inplace: change the input itself.

    Raises:
        ValueError: p is not in [0, 1], or the input has another number of axes.

    Example:
        >>> bool(Dropout1d(0.5)(torch.ones(2, 3, 4)).std(-1).any())  # a channel is there or it is not
        False
    """

    axes: ClassVar[int] = 1  # of a channel

    def _mask_shape(self, shape: torch.Size) -> list[int]:
        if len(shape) not in (self.axes + 1, self.axes + 2):
            raise ValueError(f"{type(self).__name__} takes {self.axes + 1} or {self.axes + 2} axes, not {len(shape)}.")
        return [*shape[: len(shape) - self.axes], *[1] * self.axes]

    def __prepare_scriptable__(self) -> nn.Module:  # type: ignore[override]
        """What `torch.jit.script` takes in its place."""
        return getattr(nn, type(self).__name__)(self.p, self.inplace).train(self.training)


class Dropout2d(Dropout1d):
    """Zeroes whole channels of images (B, C, H, W) or (C, H, W) with probability p, as `torch.nn.Dropout2d`.

    Arguments are those of `Dropout1d`.

    Example:
        >>> Dropout2d(1.0)(torch.ones(1, 2, 2, 2)).sum()
        tensor(0.)
    """

    axes = 2


class Dropout3d(Dropout1d):
    """Zeroes whole channels of volumes (B, C, D, H, W) or (C, D, H, W) with probability p, as `torch.nn.Dropout3d`.

    Arguments are those of `Dropout1d`.

    Example:
        >>> Dropout3d(0.5).eval()(torch.ones(1, 1, 1, 1, 1)).shape
        torch.Size([1, 1, 1, 1, 1])
    """

    axes = 3


class VariationalDropout(_SharedDropout):
    """Zeroes the same numbers at every step of a sequence with probability p (Gal & Ghahramani 2016).

    Args:
        p: probability of becoming 0, in [0, 1].
        batch_first: whether sequences come as (B, T, H), or as (T, B, H); either way one may come without B.
        inplace: change the input itself.

    Raises:
        ValueError: p is not in [0, 1].

    Example:
        >>> y = VariationalDropout(0.5)(torch.ones(2, 5, 3))
        >>> bool((y == y[:, :1]).all())
        True
    """

    def __init__(self, p: float = 0.5, batch_first: bool = True, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        self.batch_first = batch_first

    def _mask_shape(self, shape: torch.Size) -> list[int]:
        steps = len(shape) - 2 if self.batch_first or len(shape) < 3 else len(shape) - 3
        return [1 if axis == steps else size for axis, size in enumerate(shape)]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, batch_first={self.batch_first}"


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
