r"""Probabilities from decisions: a logistic curve for each pair of classes, and one distribution from all pairs.

The curve is fitted to decisions of rows that the machine did not see (5-fold cross-validation), with targets that are a
little inside of 0 and 1:

```math
r_{ab}(x) = P(b \mid a \text{ or } b) = \frac1{1 + e^{A z_{ab} + B}}, \qquad
t_+ = \frac{N_+ + 1}{N_+ + 2}, \quad t_- = \frac1{N_- + 2}
```

A and B are where the log loss is least (Newton with backtracking). Of more classes, p is the distribution that comes
nearest to all pairs:

```math
\min_p \sum_{a < b} (r_{ab}\, p_a - (1 - r_{ab})\, p_b)^2, \quad \sum_c p_c = 1
```

Legend: N rows, B rows of prediction, C classes, P pairs.
Source: Platt, "Probabilistic outputs for support vector machines", 1999; Lin, Lin & Weng, "A note on Platt's
probabilistic outputs", 2007; Wu, Lin & Weng, "Probability estimates for multi-class classification by pairwise
coupling", 2004. Deviation: the linear system of p is solved at once, where libsvm iterates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.svm.one_vs_one import pairs_of

__all__ = ["couple", "curve", "fit_curve"]

_RIDGE, _TOLERANCE, _STEPS = 1e-12, 1e-5, 100


def curve(decisions: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """Return 1 / (1 + exp(A z + B)) of decisions (B, P), A and B (P,)."""
    return torch.sigmoid(-(decisions * slope + offset))


def fit_curve(decisions: Tensor, positive: Tensor) -> tuple[float, float]:
    """Return A and B.

    Args:
        decisions: of rows that the machine has not seen, (N,), float64.
        positive: whether a row is of the class that positive decisions are for, (N,).

    Example:
        >>> a, b = fit_curve(torch.tensor([-1.0, 1.0]).double(), torch.tensor([False, True]))
        >>> round(a, 3), abs(b) < 1e-3
        (-0.693, True)
    """
    count = int(positive.sum()), int((~positive).sum())
    target = torch.where(positive, (count[0] + 1) / (count[0] + 2), 1 / (count[1] + 2)).double()
    design = torch.stack([decisions, torch.ones_like(decisions)], 1)  # (N, 2)
    point = design.new_tensor([0.0, torch.tensor((count[1] + 1) / (count[0] + 1)).log()])

    def loss(at: Tensor) -> Tensor:
        z = design @ at
        return (F.softplus(-z) + target * z).sum()  # −t log p − (1 − t) log (1 − p) of p = σ(−z)

    value = loss(point)
    for _ in range(_STEPS):
        p = torch.sigmoid(-(design @ point))
        gradient = design.T @ (target - p)
        if float(gradient.abs().max()) < _TOLERANCE:
            break
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + _RIDGE * torch.eye(2).to(design)
        direction = -torch.linalg.solve(hessian, gradient)
        step, slope = 1.0, float(gradient @ direction)
        while step > 1e-10 and float(loss(point + step * direction)) > float(value) + 1e-4 * step * slope:
            step /= 2
        if step <= 1e-10:
            break
        point = point + step * direction
        value = loss(point)
    return point[0].item(), point[1].item()


def couple(pairwise: Tensor, num_classes: int) -> Tensor:
    """Return the probabilities of all classes, (B, C), from those of the second of each pair, (B, P).

    Example:
        >>> couple(torch.tensor([[0.25]]), 2)
        tensor([[0.7500, 0.2500]])
    """
    if num_classes == 2:
        return torch.cat([1 - pairwise, pairwise], 1)
    pairwise = pairwise.clamp(1e-7, 1 - 1e-7)
    first, second = torch.tensor(pairs_of(num_classes), device=pairwise.device).T
    system = pairwise.new_zeros(pairwise.shape[0], num_classes + 1, num_classes + 1)
    system[:, first, second] = system[:, second, first] = -pairwise * (1 - pairwise)
    squares = pairwise.new_zeros(pairwise.shape[0], num_classes)
    squares.index_add_(1, first, pairwise.square()).index_add_(1, second, (1 - pairwise).square())
    system[:, range(num_classes), range(num_classes)] = squares
    system[:, -1, :-1] = system[:, :-1, -1] = 1
    right = pairwise.new_zeros(num_classes + 1)
    right[-1] = 1
    solve = _eliminated if torch.compiler.is_exporting() else torch.linalg.solve
    p = solve(system, right.expand(pairwise.shape[0], -1))[:, :-1].clamp_min(0)
    return p / p.sum(1, keepdim=True)


def _eliminated(system: Tensor, right: Tensor) -> Tensor:
    """The solution (B, n) of systems (B, n, n) by elimination, in operations that every runtime has.

    All but the last two pivots are above 0: the system is a positive semidefinite matrix with a border of ones. The
    last two unknowns are solved for together, since either of their pivots may be 0.
    """
    size = system.shape[-1]
    table = torch.cat([system, right.unsqueeze(-1)], -1)  # (B, n, n + 1)
    for k in range(size - 2):
        pivot = table[:, k : k + 1] / table[:, k : k + 1, k : k + 1]  # (B, 1, n + 1)
        rest = table - table[:, :, k : k + 1] * pivot
        table = torch.cat([rest[:, :k], pivot, rest[:, k + 1 :]], 1)
    (a, b), (c, d) = (table[:, row, -3:-1].unbind(-1) for row in (-2, -1))
    u, v = table[:, -2, -1], table[:, -1, -1]
    last = torch.stack([d * u - b * v, a * v - c * u], -1) / (a * d - b * c).unsqueeze(-1)  # (B, 2)
    first = table[:, :-2, -1] - (table[:, :-2, -3:-1] @ last.unsqueeze(-1)).squeeze(-1)
    return torch.cat([first, last], -1)
