r"""Kernels: inner products in a space of features that is never entered.

| kernel | k(a, b) |
|---|---|
| linear | $a^\top b$ |
| poly | $(γ\, a^\top b + c)^d$ |
| rbf | $e^{-γ \lVert a - b \rVert^2}$ |
| sigmoid | $\tanh(γ\, a^\top b + c)$, which is no inner product for all γ and c |
| precomputed | the matrix that is given in place of the rows |

Legend: a, b rows of F features, c = `coef0`, d = `degree`.
Source: Boser, Guyon & Vapnik, "A training algorithm for optimal margin classifiers", 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import unknown_name
from zoo.numerics.distances import squared_distances

__all__ = ["KERNELS", "Kernel", "gamma_of", "kernel_matrix"]

KERNELS = ("linear", "poly", "rbf", "sigmoid", "precomputed")


class Kernel(NamedTuple):
    """A kernel with its constants.

    Attributes:
        name: one of `KERNELS`, or a function of rows (A, F) and (B, F) that returns (A, B).
        gamma: γ.
        degree: d.
        coef0: c.
    """

    name: str | Callable[[Any, Any], Any]
    gamma: float = 1.0
    degree: float = 3
    coef0: float = 0.0

    @property
    def given(self) -> bool:
        """Whether the matrix itself stands in place of the rows."""
        return self.name == "precomputed"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of rows (A, F) with rows (B, F), (A, B)."""
        return kernel_matrix(a, b, self)

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the kernel of each row (N, F) with itself, (N,)."""
        if self.given:
            return x.diagonal()
        if self.name == "rbf":
            return x.new_ones(len(x))
        if callable(self.name):
            return torch.cat([self(row, row).flatten() for row in x.split(1)])
        return _transform(x.square().sum(1), self)


def kernel_matrix(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """Return the kernel of every row of `a` with every row of `b`.

    Args:
        a: rows (A, F); of `precomputed` their kernel with the rows of `b` itself, (A, B).
        b: rows (B, F); not looked at for `precomputed`.
        kernel: which one.

    Raises:
        ZooError: for an unknown name, with the nearest ones.

    Example:
        >>> kernel_matrix(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), Kernel("poly", 1.0, 2, 1.0))
        tensor([[144.]])
    """
    if callable(kernel.name):
        return torch.as_tensor(kernel.name(a, b), dtype=a.dtype, device=a.device)
    if kernel.name not in KERNELS:
        raise unknown_name("kernel", str(kernel.name), KERNELS)
    if kernel.given:
        return a
    if kernel.name == "rbf":
        return squared_distances(a, b).mul_(-kernel.gamma).exp_()
    return _transform(a @ b.mT, kernel)


def _transform(inner: Tensor, kernel: Kernel) -> Tensor:
    """The kernel from inner products, but for `rbf`."""
    if kernel.name == "linear":
        return inner
    inner = inner.mul(kernel.gamma).add_(kernel.coef0)
    return inner.tanh_() if kernel.name == "sigmoid" else inner.pow_(kernel.degree)


def gamma_of(gamma: str | float, x: Tensor) -> float:
    """Return γ as a number: `scale` is 1 / (F · Var(X)), `auto` is 1 / F.

    Args:
        gamma: a number, `scale` or `auto`.
        x: the rows of training, (N, F).

    Example:
        >>> gamma_of("scale", torch.tensor([[0.0, 2.0]], dtype=torch.float64))
        0.5
    """
    if not isinstance(gamma, str):
        return float(gamma)
    features = max(1, x.shape[1])
    if gamma == "auto":
        return 1 / features
    variance = float(x.double().var(correction=0)) if x.numel() else 0.0
    return 1 / (features * variance) if variance > 0 else 1.0
