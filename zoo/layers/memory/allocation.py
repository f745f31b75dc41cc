r"""Where the heads of a differentiable neural computer look: at slots that are free, and along the order of writing.

```math
\begin{aligned}
u &= \bigl(u' + w' - u' ⊙ w'\bigr) ⊙ \prod_h (1 - f^h r^h) && \text{usage} \\
a_{φ_j} &= (1 - u_{φ_j}) \prod_{i < j} u_{φ_i}, \qquad u_{φ_1} ≤ u_{φ_2} ≤ … && \text{allocation} \\
p &= \bigl(1 - \textstyle\sum_i w_i\bigr) p' + w && \text{precedence} \\
L_{ij} &= (1 - w_i - w_j) L'_{ij} + w_i p'_j, \qquad L_{ii} = 0 && \text{links: } i \text{ was written after } j
\end{aligned}
```

Letters: B rows, R read heads, N slots; w where is written, r where was read, ′ the step before.

Source: Graves et al. 2016, Methods.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["allocation", "link", "precede", "use"]

_EPSILON = 1e-6  # the least usage in a product, whose gradient divides by it


def use(usage: Tensor, written: Tensor, read: Tensor, free: Tensor) -> Tensor:
    """Return how much each slot is in use after what was written and what is freed, (B, N).

    Args:
        usage: u′, (B, N).
        written: w′, where the step before wrote, (B, N).
        read: r, where the step before read, (B, R, N).
        free: f in [0, 1], whether what was read may go, (B, R).

    Example:
        >>> use(torch.zeros(1, 2), torch.tensor([[0.8, 0.0]]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.5]]))
        tensor([[0.4000, 0.0000]])
    """
    kept = _product(1 - free.unsqueeze(-1) * read)
    return (usage + written - usage * written) * kept


def allocation(usage: Tensor) -> Tensor:
    """Return where a new item goes, (B, N): to the slot that is used least, and to others as far as it is in use.

    Args:
        usage: u in [0, 1], (B, N).

    Example:
        >>> allocation(torch.tensor([[0.5, 1.0, 0.25]]))
        tensor([[0.1250, 0.0000, 0.7500]])
    """
    ordered, order = (_EPSILON + (1 - _EPSILON) * usage).sort(dim=1)
    before = torch.cat([torch.ones_like(ordered[:, :1]), _running_product(ordered[:, :-1])], dim=1)
    return torch.zeros_like(usage).scatter(1, order, (1 - ordered) * before)


def precede(precedence: Tensor, written: Tensor) -> Tensor:
    """Return how far each slot is the one that was written last, (B, N).

    Args:
        precedence: p′, (B, N).
        written: w, (B, N).

    Example:
        >>> precede(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.75]]))
        tensor([[0.2500, 0.7500]])
    """
    return (1 - written.sum(dim=1, keepdim=True)) * precedence + written


def link(links: Tensor, precedence: Tensor, written: Tensor) -> Tensor:
    """Return how far slot i was written right after slot j, (B, N, N).

    Args:
        links: L′, (B, N, N).
        precedence: p′, of the step before, (B, N).
        written: w, (B, N).

    Example:
        >>> link(torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([[[0., 0.],
                 [1., 0.]]])
    """
    later, earlier = written.unsqueeze(2), written.unsqueeze(1)  # (B, N, 1), (B, 1, N)
    moved = torch.addcmul(later * precedence.unsqueeze(1), 1 - later - earlier, links)
    return moved * (1 - torch.eye(written.shape[1], dtype=links.dtype, device=links.device))


def _product(x: Tensor) -> Tensor:
    """The product over the second of three dimensions; within `torch.export` by operations that other runtimes have."""
    return functools.reduce(torch.mul, x.unbind(1)) if torch.compiler.is_exporting() else x.prod(dim=1)


def _running_product(x: Tensor) -> Tensor:
    """The product of the numbers above 0 up to each, (B, N), by the same."""
    return x.log().cumsum(dim=1).exp() if torch.compiler.is_exporting() else x.cumprod(dim=1)
