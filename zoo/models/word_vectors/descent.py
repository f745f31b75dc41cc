r"""A step of gradient descent on some rows of a table.

The gradients of a row that occurs several times add up, all taken where the table was before the step. With many of
them the row is thrown beyond the minimum of them all, and further with each step. So the step is bounded by the
curvature: of logistic regressions with inputs $h_j$ and weights $w_j$ the second derivative is nowhere above

```math
L_r = \tfrac14 \sum_j w_j \|h_j\|^2,
\qquad
z_r \leftarrow z_r - \min(η, c / L_r) \sum_{\text{occurrences}} \frac{∂J}{∂z_r}
```

and a step below 2 / L never makes them worse. Rare words, whose L is small, take the step η as it is.

Legend: R rows of the table, n occurrences, D numbers of a row, η the rate, c the bound of the step.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["descend"]


def descend(table: Tensor, rows: Tensor, gradient: Tensor, curvature: Tensor, rate: float, bound: float) -> None:
    """Take the step, in place.

    Args:
        table: (R, D).
        rows: the row of each occurrence, (n,).
        gradient: (n, D), of which nothing is left.
        curvature: what each occurrence adds to L, (n,).
        rate: η.
        bound: c.

    Example:
        >>> import torch
        >>> table = torch.zeros(2, 1)
        >>> descend(table, torch.tensor([1, 1]), -torch.ones(2, 1), torch.tensor([0.5, 0.5]), 0.5, 1.0)
        >>> table.flatten().tolist()
        [0.0, 1.0]
    """
    total = table.new_zeros(len(table)).scatter_add_(0, rows, curvature)
    share = (bound / total).clamp_max_(rate)[rows]
    # With an expanded index scatter_add_ sorts the rows, and adds them up on all threads in one order.
    table.scatter_add_(0, rows.unsqueeze(1).expand_as(gradient), gradient.mul_(share.unsqueeze(1).neg_()))
