r"""The losses that boosting descends: the constant to start from, derivatives, and the loss of each row.

| loss | $\ell(y, F)$ | $-\partial \ell / \partial F$ | $\partial^2 \ell / \partial F^2$ | predicts |
|---|---|---|---|---|
| `log_loss`, two classes | $\log(1 + e^F) - y F$ | $y - p$ | $p (1 - p)$ | $p = \sigma(F)$ |
| `log_loss`, C classes | $-\log p_y$ | $[y = c] - p_c$ | $p_c (1 - p_c)$ | p, the softmax of F |
| `squared_error` | $(y - F)^2 / 2$ | $y - F$ | 1 | F |
| `absolute_error`, `quantile` q | $q (y - F)^+ + (1 - q) (F - y)^+$ | $q - [y < F]$ | 1 | F |
| `poisson` | $e^F - y F$ | $y - e^F$ | $e^F$ | $e^F$ |
| `gamma` | $F + y e^{-F}$ | $y e^{-F} - 1$ | $y e^{-F}$ | $e^F$ |

Letters: N rows, K outputs (trees of a round).
Source: Friedman, "Greedy function approximation: a gradient boosting machine", 2001.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels import boosting as kernel
from zoo.models.trees.criteria import Units, power_of_two, units_for
from zoo.models.trees.nodes import RowSums

__all__ = ["OF_CLASSES", "OF_VALUES", "Loss", "Step", "quantiles"]

OF_CLASSES = ("log_loss",)
OF_VALUES = ("squared_error", "absolute_error", "quantile", "poisson", "gamma")


class Step(NamedTuple):
    """What a tree adds to an output: the leaf of each row, (N,), and what each node adds, (M,)."""

    leaf: Tensor
    value: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        name: of the table above.
        num_outputs: K; 1 but for more than two classes.
        q: of `quantile`.
    """

    name: str
    num_outputs: int = 1
    q: float = 0.5

    @property
    def leaf_quantile(self) -> float | None:
        """The quantile of its residuals that a leaf takes, where the second derivative says nothing; else None."""
        return {"absolute_error": 0.5, "quantile": self.q}.get(self.name)

    @property
    def is_log(self) -> bool:
        """Whether the outputs are logarithms of what is predicted."""
        return self.name in ("poisson", "gamma")

    def scaling(self, y: Tensor) -> tuple[Tensor, float]:
        """Return what is taken from targets (N,), and the power of two that they are divided by then."""
        if self.name == "log_loss" or self.is_log:
            return torch.zeros_like(y[0]), 1.0
        middle = y.min() / 2 + y.max() / 2
        return middle, power_of_two(float((y - middle).abs().max()))

    def per_unit(self, scale: float) -> float:
        """Return the loss of divided targets that is a loss of one."""
        return scale * scale if self.name == "squared_error" else scale

    def constant(self, y: Tensor, weight: Tensor) -> Tensor:
        """Return the best constant for targets (N,) of weights (N,), (K,)."""
        middle, scale = self.scaling(y)
        return self.start((y - middle) / scale, weight / power_of_two(float(weight.max()))) * scale + middle

    def start(self, y: Tensor, weight: Tensor) -> Tensor:
        """Return the best constant, (K,), from sums of integers.

        Args:
            y: targets, (N,), at most 1 where they are divided.
            weight: of each row, at most 1, (N,).
        """
        fixed = units_for(len(y), 1.0).fixed_weight(weight)
        if self.name == "log_loss":
            total = torch.zeros(max(2, self.num_outputs), dtype=torch.int64, device=y.device)
            share = total.index_add_(0, y.long(), fixed).double() / fixed.sum()
            share = share.clamp_min(1e-12)
            logits = share.log()  # of which any constant may be taken: their mean
            return logits[1:] - logits[:1] if self.num_outputs == 1 else logits - logits.mean()
        if self.leaf_quantile is not None:
            return quantiles(torch.zeros_like(y).long(), y, fixed, self.leaf_quantile, 1)
        units = units_for(len(y), 1.0, power_of_two(float(y.abs().max())))
        mean = (units.fixed_gradient(y * weight).sum().double() / units.gradient / weight.sum()).view(1)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log() if self.is_log else mean

    def derivatives(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative gradient and the second derivative of each row's loss, (N, K), at outputs (N, K)."""
        if self.name == "log_loss" and self.num_outputs > 1:
            p = output.softmax(1)
            return F.one_hot(y.long(), self.num_outputs).double() - p, p * (1 - p)
        y = y.unsqueeze(1)
        if self.name == "log_loss":
            p = output.sigmoid()
            return y - p, p * (1 - p)
        if self.name == "poisson":
            mean = output.exp()
            return y - mean, mean
        if self.name == "gamma":
            ratio = y * (-output).exp()
            return ratio - 1, ratio
        residual = y - output
        if self.name == "squared_error":
            return residual, torch.ones_like(residual)
        assert self.leaf_quantile is not None
        return self.leaf_quantile - (residual < 0).double(), torch.ones_like(residual)

    def sums(self, output: Tensor, y: Tensor, weight: Tensor) -> Iterator[tuple[Units, RowSums]]:
        """Yield what the rows add to the nodes of each output's tree, and in which units.

        Args:
            output: (N, K).
            y: targets, (N,).
            weight: at most 1; a row of weight 0 adds nothing, (N,).
        """
        if self._by_kernel(output):
            which, output = kernel.LOSSES.index(self.name), output[:, 0]
            mean = output.sigmoid() if self.name == "log_loss" else output
            units = _units(len(y), *kernel.largest_derivatives(which, mean, y, weight).tolist())
            h, g = kernel.fixed_derivatives(which, mean, y, weight, units.weight, units.gradient)
            yield units, RowSums(h, None, g.unsqueeze(1))
            return
        gradient, hessian = self.derivatives(output, y)
        for k in range(self.num_outputs):
            g, h = gradient[:, k] * weight, hessian[:, k] * weight
            units = _units(len(y), float(h.max()), float(g.abs().max()))
            fixed = units.fixed_weight(h).clamp_min(1) * (weight > 0)  # a row counts, however sure
            yield units, RowSums(fixed, None, units.fixed_gradient(g).unsqueeze(1))

    def add_leaves(
        self, output: Tensor, steps: Sequence[Step], y: Tensor, weight: Tensor, held_out: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (N, K) with a step added to each, and the sums of their losses times weights (N,).

        Args:
            output: before the steps, (N, K).
            steps: one for each output.
            y: targets, (N,).
            weight: of the losses, (N,).
            held_out: rows whose losses are the second sum, not the first, (N,), bool; or None.
        """
        if self._by_kernel(output):
            which, (step,) = kernel.LOSSES.index(self.name), steps
            after, losses = kernel.add_leaves(which, output[:, 0], *step, y, weight, held_out)
            return after.unsqueeze(1), losses[0], losses[1]
        after = output + torch.stack([value[leaf] for leaf, value in steps], 1)
        each = self.of_rows(after, y) * weight
        if held_out is None:
            return after, each.sum(), each.new_zeros(())
        return after, each[~held_out].sum(), each[held_out].sum()

    def _by_kernel(self, output: Tensor) -> bool:
        return self.name in kernel.LOSSES and self.num_outputs == 1 and kernel.available(output)

    def of_rows(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row, (N,); of errors not half of it, but the mean that people know them by."""
        if self.name == "log_loss":
            if self.num_outputs == 1:
                return F.binary_cross_entropy_with_logits(output[:, 0], y, reduction="none")
            return F.cross_entropy(output, y.long(), reduction="none")
        output = output[:, 0]
        if self.name == "poisson":
            return output.exp() - y * output
        if self.name == "gamma":
            return output + y * (-output).exp()
        residual = y - output
        if self.name == "squared_error":
            return residual.square()
        assert self.leaf_quantile is not None
        factor = 2.0 if self.name == "absolute_error" else 1.0
        return factor * torch.maximum(self.leaf_quantile * residual, (self.leaf_quantile - 1) * residual)


def _units(num_rows: int, hessian: float, gradient: float) -> Units:
    """Units for the sums of so many rows, of which these are the largest."""
    return units_for(num_rows, max(1.0, power_of_two(hessian)), power_of_two(gradient))


def quantiles(group: Tensor, value: Tensor, weight: Tensor, q: float, num_groups: int) -> Tensor:
    """Return the weighted quantile of the values of each group, (G,).

    Of n equal weights it lies between the values of ranks ⌊(n − 1) q⌋ and the next (Hyndman & Fan's type 7, NumPy's
    default). Of others it is the value that the share q of the weight reaches, or the middle of two where it is met.

    Args:
        group: of each value, (N,).
        value: (N,).
        weight: of each value, integers, (N,).
        q: in [0, 1].
        num_groups: G; a group without values has 0.

    Example:
        >>> value, one = torch.tensor([1.0, 2.0, 4.0]), torch.ones(3, dtype=torch.int64)
        >>> quantiles(torch.zeros(3).long(), value, one, 0.75, 1)
        tensor([3.])
    """
    order = value.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    group, value, weight = group[order], value[order], weight[order]
    number = torch.bincount(group, minlength=num_groups)
    first = number.cumsum(0) - number
    last = (first + number - 1).clamp_min(0)
    if bool((weight == weight[:1]).all()):
        rank = (number - 1).clamp_min(0).double() * q
        low = first + rank.long()
        high, share = torch.minimum(low + 1, last), rank - rank.floor()
    else:
        total = weight.new_zeros(num_groups).index_add_(0, group, weight)
        before = total.cumsum(0) - total
        running = weight.cumsum(0) - before[group]
        wanted = total.double() * q
        below = torch.zeros_like(total).index_add_(0, group, (running.double() < wanted[group]).long())
        upto = torch.zeros_like(total).index_add_(0, group, (running.double() <= wanted[group]).long())
        low, high = torch.minimum(first + below, last), torch.minimum(first + upto, last)
        share = torch.full_like(wanted, 0.5)
    low, high = value[low.clamp_max(len(value) - 1)], value[high.clamp_max(len(value) - 1)]
    return torch.where(number > 0, low * (1 - share) + high * share, 0.0).to(value.dtype)
