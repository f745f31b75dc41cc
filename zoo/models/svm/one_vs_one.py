r"""One machine for each pair of classes, and the votes of all.

Of C classes the machine of the pair (a, b), a < b, decides for b where

```math
z_{ab}(x) = \sum_{i ∈ a ∪ b} β^{ab}_i k(x_i, x) + b_{ab} \ge 0
```

and the class with most votes wins, of several the first. A row of class a has one coefficient for each other class, so
that those of all machines fit in (C − 1, S): column i holds the coefficients of support vector i against the other
classes in their order, and support vectors of one class stand together.

A number for each class (one against the rest) adds to its votes a share of its confidences, in (−1/3, 1/3), that
decides between equal votes:

```math
o_c = v_c + \frac{s_c}{3 (|s_c| + 1)}, \qquad s_c = \sum_{a < c} z_{ac} - \sum_{b > c} z_{cb}
```

Legend: C classes, P = C (C − 1) / 2 pairs in the order (0, 1), (0, 2), …, S support vectors, B rows.
Source: Knerr, Personnaz & Dreyfus 1990; Hsu & Lin, "A comparison of methods for multiclass support vector machines",
    2002.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

__all__ = ["against_the_rest", "pair_decisions", "pairs_of", "votes"]


def pairs_of(num_classes: int) -> list[tuple[int, int]]:
    """Return the pairs of classes in their order.

    Example:
        >>> pairs_of(3)
        [(0, 1), (0, 2), (1, 2)]
    """
    return list(itertools.combinations(range(num_classes), 2))


def pair_decisions(kernel: Tensor, coefficients: Tensor, sizes: list[int], intercepts: Tensor) -> Tensor:
    """Return z of each pair, (B, P).

    Args:
        kernel: of rows with support vectors, (B, S).
        coefficients: (C − 1, S).
        sizes: support vectors of each of the C classes.
        intercepts: (P,).
    """
    num_classes = len(sizes)
    shares = torch.stack(
        [part @ own.T for part, own in zip(*(t.split(sizes, 1) for t in (kernel, coefficients)), strict=True)]
    )  # (C, B, C − 1): of the support vectors of each class, against each other one
    first, second = torch.tensor(pairs_of(num_classes), device=kernel.device).T
    return shares[first, :, second - 1].T + shares[second, :, first].T + intercepts


def votes(decisions: Tensor, num_classes: int) -> Tensor:
    """Return how many pairs decide for each class, (B, C).

    Example:
        >>> votes(torch.tensor([[1.0, 1.0, -1.0]]), 3)
        tensor([[0., 2., 1.]])
    """
    first, second = torch.tensor(pairs_of(num_classes), device=decisions.device).T
    count = decisions.new_zeros(decisions.shape[0], num_classes)
    won = (decisions >= 0).to(decisions.dtype)
    return count.index_add_(1, second, won).index_add_(1, first, 1 - won)


def against_the_rest(decisions: Tensor, num_classes: int) -> Tensor:
    """Return a number for each class, (B, C), from those of the pairs (B, P).

    Example:
        >>> against_the_rest(torch.tensor([[1.0, 1.0, -1.0]]), 3).argmax().item()
        1
    """
    first, second = torch.tensor(pairs_of(num_classes), device=decisions.device).T
    sums = decisions.new_zeros(decisions.shape[0], num_classes)
    sums = sums.index_add_(1, second, decisions).index_add_(1, first, -decisions)
    return votes(decisions, num_classes) + sums / (3 * (sums.abs() + 1))
