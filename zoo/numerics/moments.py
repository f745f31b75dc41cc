r"""Mean and scatter of rows that arrive in batches, without the cancellation of $\sum x x^\top - n \mu
\mu^\top$.

```math
n = n_a + n_b,\qquad \delta = \mu_b - \mu_a,\qquad
\mu = \mu_a + \frac{n_b}{n} \delta,\qquad
M = M_a + M_b + \frac{n_a n_b}{n} \delta \delta^\top
```

All that a batch adds to the scatter matrix is thus the Gram matrix of its centred rows and of one row more,

```math
M = M_a + Z^\top Z,\qquad
Z = \begin{bmatrix} x_1 - \mu_b \\ \vdots \\ x_B - \mu_b \\ \sqrt{n_a n_b / n}\; \delta \end{bmatrix}
```

so that whatever follows from a Gram matrix can be kept instead of $M$: a triangular factor $R$ with
$R^\top R = M$, or the product $M \Omega$ with a few vectors. Two partial results merge by the last row alone.

- $n$: number of rows, or the sum of their weights; $\mu$ $(D,)$: mean; $D$ features
- $M$ $(D, D)$: scatter, $\sum_i w_i (x_i - \mu)(x_i - \mu)^\top$; $B$ rows in a batch

Sources: T. Chan, G. Golub and R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979 (the merge) and 1983 (the mean corrected in a second pass, for float32); D. Ross, J. Lim, R.-S. Lin and
M.-H. Yang, "Incremental learning for robust visual tracking", 2008, section 3.1 (the row more).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.kernels import moments as compiled

__all__ = ["centred_blocks", "gram", "mean_shift", "scatter_blocks", "scatter_of"]

# Letters: B rows, D features.

# Rows centred at a time: enough for a fast matrix product, few enough to stay in the processor's cache.
BLOCK = 4096
# Rows multiplied at a time where none are shifted: float32 sums grow no longer than this.
LARGE_BLOCK = 1 << 18


def mean_shift(count: Tensor, mean: Tensor, other_count: Tensor, other_mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Merge two means.

    Args:
        count: rows of the first, ().
        mean: their mean, (D,).
        other_count: rows of the second, ().
        other_mean: their mean, (D,).

    Returns:
        The count and the mean of both, and the row $\sqrt{n_a n_b / n}\, \delta$ that joins their scatters,
        (D,).

    Example:
        >>> one, three = torch.tensor(1.0), torch.tensor(3.0)
        >>> mean_shift(one, torch.tensor([0.0]), three, torch.tensor([4.0]))
        (tensor(4.), tensor([3.]), tensor([3.4641]))
    """
    total = count + other_count
    share = torch.where(total > 0, other_count / total, 0.0)  # nothing and nothing is nothing
    shift = other_mean - mean
    return total, mean + share * shift, (count * share).sqrt() * shift


def centred_blocks(
    count: Tensor, mean: Tensor, x: Tensor, weight: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Add rows to a mean, some thousand at a time.

    Args:
        count: rows so far, () float64.
        mean: their mean, (D,) float64.
        x: new rows, (B, D).
        weight: non-negative weights of the new rows, (B,).
        dtype: floating type of the centred rows.

    Yields:
        Count and mean with the block, and the rows Z whose Gram matrix the block adds to the scatter, (B' +
        1, D). The memory of Z is used again for the next block.
    """
    buffer = x.new_empty(min(len(x), BLOCK) + 1, x.shape[1], dtype=dtype)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK].to(dtype)
        z = buffer[: len(rows) + 1]
        centred, part = z[:-1], None if weight is None else weight[start : start + BLOCK].to(dtype)
        block_count = count.new_tensor(len(rows)) if part is None else part.sum(dtype=torch.float64)
        middle = average(rows, part)
        torch.sub(rows, middle, out=centred)
        block_mean = middle.double()
        if dtype == torch.float32:  # where rows lie far from zero, rounding leaves much of their mean
            rest = average(centred, part)
            centred -= rest
            block_mean += rest.double()
        if part is not None:
            centred *= part.sqrt().unsqueeze(1)
        count, mean, z[-1] = mean_shift(count, mean, block_count, block_mean)
        yield count, mean, z


def scatter_blocks(
    count: Tensor, mean: Tensor, x: Tensor, weight: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Add rows to a mean and to the whole scatter matrix.

    Narrow rows on a CPU are read once, by a compiled kernel that sums in float64 (`zoo.kernels.moments`).

    Args:
        count: rows so far, () float64.
        mean: their mean, (D,) float64.
        x: new rows, (B, D).
        weight: non-negative weights of the new rows, (B,).
        dtype: floating type of the products.

    Yields:
        Count and mean with the block, and what it adds to the scatter, (D, D) float64.
    """
    if len(x) and (weight is None or compiled.available(x, x.shape[1])):
        added_count, middle, added = scatter_of(x, weight, dtype)
        count, mean, row = mean_shift(count, mean, added_count, middle)
        yield count, mean, added.addr_(row, row)
        return
    for count, mean, z in centred_blocks(count, mean, x, weight, dtype):  # noqa: B020
        yield count, mean, gram(z)


def scatter_of(
    x: Tensor, weight: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean (D,) and scatter matrix (D, D) of rows, all float64; arguments are those of `scatter_blocks`.

    Only rows that the kernel takes may have weights.

    Example:
        >>> count, mean, scatter = scatter_of(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        >>> count.item(), mean.tolist(), scatter.tolist()
        (2.0, [2.0, 2.0], [[2.0, 4.0], [4.0, 8.0]])
    """
    if compiled.available(x, x.shape[1]):
        return compiled.moments(x, None, None if weight is None else weight.double())
    return torch.tensor(float(len(x)), dtype=torch.float64, device=x.device), *_shifted_scatter(x, dtype)


def _shifted_scatter(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""The mean of rows (B, D), (D,), and their scatter about it, (D, D), both float64.

    Rows are measured from a point $s$ near their mean $\mu$, judged by some 256 of them, or from zero where that is
    near enough: $\sum (x - s)(x - s)^\top - n (\mu - s)(\mu - s)^\top$ then loses less than a digit. Where the some
    misled, the mean that was found is the point of a second reading.
    """
    some = x[:: max(1, len(x) // 256)].double()
    middle = some.mean(0)
    variance = (some - middle).square().mean(0)
    near = x.dtype == dtype and bool((middle.square() <= 4 * variance).all())
    shift = None if near else middle.to(dtype)
    for _ in range(2):
        offset, scatter = _products(x, shift, dtype)  # µ − s
        shifted = middle.new_zeros(x.shape[1]) if shift is None else shift.double()
        middle, scatter = shifted + offset, scatter.addr_(offset, offset, alpha=-len(x))
        if not bool((offset.square() * len(x) > 16 * scatter.diagonal()).any()):
            break
        shift = middle.to(dtype)
    return middle, scatter


def _products(x: Tensor, shift: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean of rows less a point (D,), and the sum of their products, (D, D), both float64."""
    width = x.shape[1]
    total = x.new_zeros(width, dtype=torch.float64)
    if shift is None:
        for rows in x.split(LARGE_BLOCK):
            total += average(rows, None).double() * len(rows)
        return total / len(x), functools.reduce(Tensor.add_, map(gram, x.split(LARGE_BLOCK)))
    scatter = x.new_zeros(width, width, dtype=torch.float64)
    buffer = x.new_empty(min(len(x), BLOCK), width, dtype=dtype)
    for rows in x.split(BLOCK):
        z = torch.sub(rows.to(dtype), shift, out=buffer[: len(rows)])
        total += average(z, None).double() * len(rows)
        scatter += gram(z)
    return total / len(x), scatter


def average(rows: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over the rows, (B, D) to (D,); zero where the weights are."""
    if weight is None:
        return rows.new_ones(len(rows)) @ rows / max(1, len(rows))
    total = weight.sum()
    return weight @ rows / torch.where(total > 0, total, 1.0)


def gram(z: Tensor) -> Tensor:
    r"""The matrix $Z^\top Z$ of rows (B, D), (D, D) float64.

    Example:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[1., 2.],
                [2., 5.]], dtype=torch.float64)
    """
    if z.device.type != "cpu":
        return (z.T @ z).double()
    # NumPy sees that both factors are one and makes half of the products (syrk), for which torch has no call.
    rows = z.numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # which the sums show
        return torch.from_numpy(rows.T @ rows).double()
