r"""Words drawn as the noise that a context is told from.

```math
P(w) = n_w^{α} / \textstyle\sum_v n_v^{α}
```

Legend: V words, n_w how often w is met, α the power.

Source: Mikolov, Sutskever, Chen, Corrado & Dean 2013, §2.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cumulative", "draw_words", "spread_words"]


def cumulative(counts: Tensor, power: float) -> Tensor:
    """Return P(0) + … + P(w) for each word, (V,), float64; a word of count 0 has no share, whatever the power."""
    share = torch.where(counts > 0, counts.double().clamp_min(1).pow(power), 0.0).cumsum(0)
    return share / share[-1]


def draw_words(noise: Tensor, number: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return words drawn from cumulated probabilities (V,), (number, size), those of a row from all parts of them.

    The k-th of a row comes from the k-th of `size` equal parts of the noise: a row has a word w size · P(w) times in
    expectation, as in a free draw, varies less, and is found faster.

    Example:
        >>> draw_words(cumulative(torch.tensor([1, 1]), 0.75), 2, 4)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1]])
    """
    place = torch.rand(number, size, generator=generator, dtype=noise.dtype, device=noise.device)
    place.add_(torch.arange(size, device=noise.device)).div_(size)
    return torch.searchsorted(noise, place, right=True, out_int32=True).long().clamp_max_(len(noise) - 1)


def spread_words(noise: Tensor, number: int) -> Tensor:
    """Return words that stand at even distances in the cumulated probabilities (V,): a draw without chance."""
    place = (torch.arange(number, dtype=noise.dtype, device=noise.device) + 0.5) / number
    return torch.searchsorted(noise, place, right=True)
