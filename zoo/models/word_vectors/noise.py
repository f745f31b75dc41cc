r"""Words drawn as the noise that a context is told from.

```math
P(w) = n_w^{α} / \textstyle\sum_v n_v^{α}
```

The noise is a table in which each word stands as often as it is drawn: a draw is a place in it.

Legend: V words, n_w how often w is met, α the power, S places of the table.

Source: Mikolov, Sutskever, Chen, Corrado & Dean 2013, §2.2; the table is that of their tool `word2vec`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_words", "noise_table", "spread_words"]

_PLACES, _EACH = 1 << 20, 32  # S is at least so many, and so many for each word on average


def noise_table(counts: Tensor, power: float) -> Tensor:
    """Return the words at even distances of their cumulated probabilities, (S,), int32; one of count 0 is not there.

    Args:
        counts: n_w, (V,).
        power: α.
    """
    share = torch.where(counts > 0, counts.double().clamp_min(1).pow(power), 0.0).cumsum(0)
    size = max(_PLACES, _EACH * len(counts))
    step = float(share[-1]) / size
    # the places (k + ½) of the table below each share: a search by place would take half the time of a small text
    below = (share / step - 0.5).ceil().clamp_(0, size)
    below += ((below + 0.5) * step < share).double() - ((below - 0.5) * step >= share).double()
    words = torch.arange(len(counts), dtype=torch.int32)
    return words.repeat_interleave(below.long().diff(prepend=torch.zeros(1, dtype=torch.long)), output_size=size)


def draw_words(noise: Tensor, number: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return words drawn from a table of noise (S,), (number, size), those of a row from all parts of it.

    The k-th of a row comes from the k-th of `size` equal parts: a row has a word w size · P(w) times in expectation, as
    in a free draw, and varies less.

    Example:
        >>> draw_words(noise_table(torch.tensor([1, 1]), 0.75), 2, 4)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1]])
    """
    start = torch.arange(size, device=noise.device) * len(noise) // size  # of each part
    within = torch.empty(number, size, dtype=torch.int32, device=noise.device)
    within.random_(max(1, len(noise) // size), generator=generator)
    return noise.index_select(0, (start + within).flatten()).view(number, size).long()


def spread_words(noise: Tensor, number: int) -> Tensor:
    """Return words that stand at even distances in a table of noise (S,): a draw without chance."""
    place = (torch.arange(number, dtype=torch.float64, device=noise.device) + 0.5) * (len(noise) / number)
    return noise[place.long()].long()
