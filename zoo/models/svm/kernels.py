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

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError, unknown_name
from zoo.numerics.distances import squared_distances

__all__ = ["KERNELS", "Kernel", "check_squares", "check_variance", "gamma_of", "kernel_matrix", "too_large"]

KERNELS = ("linear", "poly", "rbf", "sigmoid", "precomputed")
WITH_GAMMA = ("poly", "rbf", "sigmoid")
SMALLEST = 1e-300  # variance of rows that vary


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


def gamma_of(gamma: str | float, x: Tensor, *, used: bool = True) -> float:
    """Return γ as a number: `scale` is 1 / (F · Var(X)), `auto` is 1 / F.

    Args:
        gamma: a number, `scale` or `auto`.
        x: the rows of training, (N, F).
        used: whether the kernel has a γ, which must then be sound.

    Raises:
        ZooError: where squares of the rows overflow or vanish, so that no number is γ.

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
    if used and not SMALLEST <= variance < math.inf:
        check_variance(variance, x.numel() > 0 and bool(x.min() < x.max()))
    return 1 / (features * variance) if variance > 0 else 1.0


def too_large(name: str) -> ZooError:
    """The one line for rows of whose squares a model can make nothing."""
    return ZooError(
        f"{name} met values so large that their squares overflow: scale the features, as standardize=true does."
    )


def check_squares(name: str, x: Tensor) -> None:
    """Raise one line unless the squared norms of rows (N, F), of a model of that name, are finite."""
    if not x.numel():
        return
    low, high = map(float, x.aminmax())
    if not math.isfinite(max(low * low, high * high) * x.shape[-1]):
        raise too_large(name)


def check_variance(variance: float, varies: bool) -> None:
    """Raise one line for the variance of rows whose squares overflow, or vanish although they vary."""
    if not SMALLEST <= variance < math.inf and varies:
        raise ZooError(
            "The rows are too large or too small for a kernel: their squares leave float64, and model.gamma=scale is 1 "
            "over their variance. Scale the features, as standardize=true does."
        )
