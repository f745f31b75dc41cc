r"""How often each tree of a forest sees each row: a Poisson variate that the row's content, the tree and the seed
decide.

```math
P(w = k) = e^{-r} r^k / k!,
```

with rate r, 1 for as many rows as there are. Drawing n rows with replacement gives binomial counts, of which these are
the limit; they need neither n nor the row's place, so that a forest is the same for any batches, order and processes.

Letters: T trees, N rows.
Sources: Breiman, "Random forests", 2001; Oza & Russell, "Online bagging and boosting", 2001 (Poisson weights).
Deviation: rows of equal content and target are drawn together.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.numerics.hashing import splitmix64, stream_key

__all__ = ["Bootstrap", "bootstrap_keys", "poisson_thresholds"]

_BOOTSTRAP = 0xB007  # the stream of the weights
_STEP_INVERSE = pow(0x9E37_79B9_7F4A_7C15, -1, 2**64)
_STEP_INVERSE -= 2**64 * (_STEP_INVERSE >= 2**63)  # as int64
MOST = 15  # times that a row is drawn; of more the probability is 2e-14 at the rate 1, and 5e-6 at 4, the greatest


class Bootstrap(NamedTuple):
    """Hashes of the rows' contents (N,), keys of the trees (T,) and thresholds of the variate (15,)."""

    content: Tensor
    keys: Tensor
    thresholds: Tensor

    def factor(self) -> Tensor:
        """Return how often each tree sees each row, (T, N), int64."""
        # A key is an offset of the counter, in units of SplitMix64's step: one call serves all trees.
        words = splitmix64(0, self.content + (self.keys * _STEP_INVERSE).unsqueeze(1))
        return torch.bucketize((words >> 32) & 0xFFFF_FFFF, self.thresholds, right=True)


@functools.lru_cache(maxsize=8)
def bootstrap_keys(seed: int, num_trees: int) -> Tensor:
    """Return a key for each tree, (T,)."""
    return torch.tensor([stream_key(seed, _BOOTSTRAP, tree) for tree in range(num_trees)])


def poisson_thresholds(rate: float) -> Tensor:
    """Return the values of a 32-bit word from which on the variate is more than 0, 1, …, (15,), int64.

    >>> round((poisson_thresholds(1.0)[0] / 2**32).item(), 6)  # 1 / e
    0.367879
    """
    probability = [math.exp(-rate) * rate**k / math.factorial(k) for k in range(MOST)]
    return torch.tensor([round(math.fsum(probability[: k + 1]) * 2**32) for k in range(MOST)])
