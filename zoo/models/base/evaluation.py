r"""How the values that a model gives its rows become the metrics of a split.

A model's `evaluate(batch)` gives each row one value a metric, $v_i$. What is reported of them is the mean
$\sum_i w_i v_i / \sum_i w_i$ with the rows' weights, over all batches and processes, or what the model's `pooling()`
names instead. Everything is added up in float64, so that batch sizes and the number of processes do not matter.

Letters: B rows of a batch, K targets, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.metric import Metric

__all__ = ["R2", "ClassF1", "Evaluation", "ExpMean", "MacroF1", "Mean", "Pooling", "Ratio", "Sum"]


class Pooling(Metric):
    """What becomes of the values of all rows: a torchmetrics metric that is updated with values, targets and weights.

    A subclass implements `update(values, y, weight)` with values (B, ...), targets (B, ...) and weights (B,).
    """

    full_state_update = False

    def add_sum(self, name: str, *shape: int) -> None:
        """Add a state of zeros, float64, that processes add up."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")


class Sum(Pooling):
    r"""$\sum_i w_i v_i$.

    >>> total = Sum()
    >>> total.update(torch.tensor([1.0, 2.0]), None, torch.tensor([1.0, 3.0]))
    >>> total.compute().item()
    7.0
    """

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("total")

    def update(self, values: Tensor, y: Tensor | None, weight: Tensor) -> None:
        self.total += weight.double() @ values.double()

    def compute(self) -> Tensor:
        return self.total


class Mean(Sum):
    r"""$\sum_i w_i v_i / \sum_i w_i$."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("weight")

    def update(self, values: Tensor, y: Tensor | None, weight: Tensor) -> None:
        super().update(values, y, weight)
        self.weight += weight.double().sum()

    def compute(self) -> Tensor:
        return self.total / self.weight


class ExpMean(Mean):
    """exp of the mean: the perplexity, of losses."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class Ratio(Pooling):
    r"""$\sum_i w_i a_i / \sum_i w_i b_i$ of values $(a_i, b_i)$, such as bits and characters.

    >>> ratio = Ratio()
    >>> ratio.update(torch.tensor([[1.0, 2.0], [5.0, 1.0]]), None, torch.ones(2))
    >>> ratio.compute().item()
    2.0
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 2)

    def update(self, values: Tensor, y: Tensor | None, weight: Tensor) -> None:
        self.totals += weight.double() @ values.double()

    def compute(self) -> Tensor:
        return self.totals[0] / self.totals[1]


class MacroF1(Pooling):
    r"""The mean over classes of $2 t / (2 t + f_+ + f_-)$, of those that occur in targets or predictions.

    t, f₊ and f₋ are the weights of the rows of a class that were found, that were taken for it, and that were missed;
    the values are predicted classes.
    """

    found: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("found", "predicted", "true"):
            self.add_sum(name, num_classes)

    def update(self, values: Tensor, y: Tensor, weight: Tensor) -> None:
        weight, size = weight.double(), len(self.true)
        self.true += torch.bincount(y, weight, minlength=size)
        self.predicted += torch.bincount(values, weight, minlength=size)
        self.found += torch.bincount(y, weight * (values == y), minlength=size)

    def compute(self) -> Tensor:
        return self._each().sum() / (self.true + self.predicted > 0).sum()

    def _each(self) -> Tensor:
        """F1 of each class, (C,), 0 of one that does not occur."""
        total = self.true + self.predicted
        return 2 * self.found / torch.where(total > 0, total, 1.0)


class ClassF1(MacroF1):
    r"""$2 t / (2 t + f_+ + f_-)$ of one class alone, such as the spam among messages.

    >>> f1 = ClassF1(2, of=1)
    >>> f1.update(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0]), torch.ones(3))
    >>> round(f1.compute().item(), 4)
    0.6667
    """

    def __init__(self, num_classes: int, of: int) -> None:
        super().__init__(num_classes)
        self.of = of

    def compute(self) -> Tensor:
        return self._each()[self.of]


class R2(Pooling):
    r"""$1 - \sum_i w_i (y_i - v_i)^2 / \sum_i w_i (y_i - \bar y)^2$, the mean over K targets.

    The values are predictions. The spread of the targets is merged from batch to batch (Chan, Golub & LeVeque 1983), so
    that targets of any size and offset keep their digits. As in scikit-learn a target that does not vary counts 1
    where it is predicted exactly and else 0, and of a single row there is no R².
    """

    rows: Tensor
    weight: Tensor
    mean: Tensor
    spread: Tensor
    residual: Tensor

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.add_sum("rows")
        self.add_sum("residual", num_targets)
        self.add_state("weight", torch.zeros(1, dtype=torch.float64), dist_reduce_fx=None)  # None: stacked
        for name in ("mean", "spread"):
            self.add_state(name, torch.zeros(1, num_targets, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, values: Tensor, y: Tensor, weight: Tensor) -> None:
        w, y = weight.double(), y.double().view(len(y), -1)  # (B,), (B, K)
        total = w.sum()
        if not total > 0:
            return
        # Scaled to sum 1 first, so that huge weights do not overflow.
        mean = (w / total) @ y
        spread = w @ (y - mean).square()
        self.rows += len(y)
        self.residual += w @ (y - values.double().view(len(y), -1)).square()
        self.weight, self.mean, self.spread = self._merge(
            torch.cat([self.weight, total.view(1)]), torch.cat([self.mean, mean.view(1, -1)]),
            torch.cat([self.spread, spread.view(1, -1)]),
        )  # fmt: skip

    @staticmethod
    def _merge(weight: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Join groups (G,), (G, K), (G, K) into one."""
        total = weight.sum().clamp_min(torch.finfo(torch.float64).tiny)
        joint = (weight / total) @ mean
        return weight.sum(0, keepdim=True), joint[None], (spread.sum(0) + weight @ (mean - joint).square())[None]

    def compute(self) -> Tensor:
        size = self.mean.shape[-1]
        groups = self.weight.view(-1), self.mean.view(-1, size), self.spread.view(-1, size)  # one a process
        weight, mean, spread = self._merge(*groups)
        rounding = weight[:, None] * (8 * torch.finfo(torch.float64).eps * mean).square()
        varies = (spread > rounding)[0]
        r2 = torch.where(varies, 1 - self.residual / spread[0], (self.residual <= rounding[0]).double())
        return torch.where(self.rows > 1, r2.mean(), torch.nan)


class Evaluation(nn.Module):
    """The metrics of one split, from the values of its rows.

    Args:
        pooling: what becomes of the values of a name; those of all others are averaged.

    Example:
        >>> evaluation = Evaluation({})
        >>> evaluation.update({"loss": torch.tensor([1.0, 3.0])}, None, torch.ones(2))
        >>> {name: value.item() for name, value in evaluation.compute().items()}
        {'loss': 2.0}
    """

    def __init__(self, pooling: dict[str, Pooling]) -> None:
        super().__init__()
        self.pooling = nn.ModuleDict(pooling)
        self._seen: dict[str, None] = {}  # names that this pass over the split has met, in order

    def update(self, values: dict[str, Tensor], y: Tensor | None, weight: Tensor) -> None:
        """Add the rows of a batch: values of each name (B, ...), their targets and their weights (B,)."""
        for name, value in values.items():
            self._seen[name] = None
            self._pooling(name).to(weight.device).update(value.detach(), y, weight)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics over all processes, and start anew."""
        found = {}
        names, self._seen = self._names(), {}
        for name in names:
            metric: Any = self._pooling(name)
            found[name] = metric.compute()
            metric.reset()
        return found

    def _pooling(self, name: str) -> Any:
        if name not in self.pooling:
            self.pooling[name] = Mean()
        return self.pooling[name]

    def _names(self) -> list[str]:
        """The names that any process has seen: with few rows one may have seen none."""
        names = list(self._seen)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return names
        everybody: list[list[str]] = [[]] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everybody, names)
        return list(dict.fromkeys(name for theirs in everybody for name in theirs))
