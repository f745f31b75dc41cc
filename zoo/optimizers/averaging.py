r"""Averages of the weights along a training: what is evaluated and kept is smoother than what a step leaves.

With θ_n the weights at the n-th point that is taken, n = 0, 1, 2, …, both averages are one recursion:

```math
\bar θ_0 = θ_0, \qquad \bar θ_n = \bar θ_{n-1} + a_n (θ_n - \bar θ_{n-1})
```

- `EMA`, exponential, of the weights after every step: $a_n = 1 - d$, or with a warm-up
  $a_n = 1 - \min(d, \frac{1+n}{10+n})$;
- `SWA`, the plain mean of the weights at the ends of the last epochs: $a_n = \frac{1}{n+1}$.

Sources: Polyak & Juditsky 1992; Izmailov, Podoprikhin, Garipov, Vetrov & Wilson 2018; the warm-up of Abadi et al. 2016
(TensorFlow). Without it the numbers are those of `torch.optim.swa_utils.AveragedModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError, unknown_name
from zoo.optimizers.options import check_options

__all__ = ["AVERAGES", "EMA", "SWA", "average_into", "make_average"]


@dataclass(frozen=True)
class EMA:
    """The exponential moving average of the weights after every step.

    Attributes:
        decay: d, how much of the average a step leaves as it is, in [0, 1).
        warmup: begin with less of it, so that the first weights are forgotten.

    Example:
        >>> [round(EMA(0.99).share(n), 3) for n in (0, 1, 90, 10_000)]
        [1.0, 0.818, 0.09, 0.01]
    """

    decay: float = 0.999
    warmup: bool = True

    def share(self, count: int) -> float:
        """Return a_n, what the n-th point counts beside the average of those before."""
        if not count:
            return 1.0
        return 1 - min(self.decay, (1 + count) / (10 + count)) if self.warmup else 1 - self.decay


@dataclass(frozen=True)
class SWA:
    """The mean of the weights at the ends of the last epochs.

    Attributes:
        start: share of the run's steps after which weights are taken, in [0, 1).
        every: steps from one point to the next; None: an epoch.
        swa_lr: learning rate from then on; None: that of the optimizer and its schedule.

    Example:
        >>> [SWA().share(n) for n in (0, 1, 3)]
        [1.0, 0.5, 0.25]
    """

    start: float = 0.75
    every: int | None = None
    swa_lr: float | None = None

    def share(self, count: int) -> float:
        """Return a_n, what the n-th point counts beside the average of those before."""
        return 1 / (count + 1)


AVERAGES: dict[str, type[EMA] | type[SWA]] = {"ema": EMA, "swa": SWA}


def make_average(name: str, **options: object) -> EMA | SWA | None:
    """Return an average by its name; None for `none`.

    Raises:
        ZooError: for an unknown name or option, or a value out of range.
    """
    if name == "none":
        if options:
            raise ZooError(f"averaging=none has no option '{next(iter(options))}': choose averaging=ema or swa.")
        return None
    if name not in AVERAGES:
        raise unknown_name("averaging", name, ("none", *AVERAGES))
    check_options("averaging", name, AVERAGES[name], dict(options))
    return AVERAGES[name](**options)  # type: ignore[arg-type]


@torch.no_grad()
def average_into(averages: Mapping[str, Tensor], values: Mapping[str, Tensor], share: float) -> None:
    """Move each average towards the value of its name by a share of what lies between them, in place.

    What is no floating number, such as a count, is taken as it is.

    Args:
        averages: the averages so far.
        values: tensors of the same names and shapes.
        share: a_n; 1 takes the values themselves.

    Example:
        >>> average = {"weight": torch.tensor([1.0])}
        >>> average_into(average, {"weight": torch.tensor([3.0])}, 0.5)
        >>> average["weight"]
        tensor([2.])
    """
    kinds: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for name, average in averages.items():
        value = values[name]
        if share == 1 or not (average.is_floating_point() or average.is_complex()):
            average.copy_(value)
            continue
        ours, theirs = kinds.setdefault((average.device, average.dtype), ([], []))
        ours.append(average)
        theirs.append(value)
    for ours, theirs in kinds.values():
        torch._foreach_lerp_(ours, theirs, share)
