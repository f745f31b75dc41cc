r"""Features of rows whose inner products come near the RBF kernel, learnt in one pass of which no row is kept.

γ = `scale` needs the variance of all values, which is merged from batch to batch; Nyström's landmarks are the M rows
whose hashes are smallest: a uniform draw of the distinct rows that is the same for any batch size, order of rows and
number of processes. Random Fourier features draw their waves from the seed.

Legend: N rows, F features, M components, B batch.
Source: those of `approximation.py`; Chan, Golub & LeVeque 1983 (merged variance).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.svm.approximation import fourier_features, normalization, waves
from zoo.models.svm.kernels import check_variance
from zoo.numerics.distances import squared_distances
from zoo.numerics.hashing import content_hash

__all__ = ["Look", "RBFFeatures"]


_SMALLEST = 1e-8  # singular value of the landmarks' kernel: below it lies what would only magnify rounding


class Look(NamedTuple):
    """What is kept of rows that were looked at.

    Attributes:
        moments: how many values, their mean, and the sum of squares about it, (3,).
        rows: those with the smallest hashes, (m, F), m ≤ M.
        keys: their hashes, rising, (m,), int64.
    """

    moments: Tensor
    rows: Tensor
    keys: Tensor

    @classmethod
    def of_none(cls, num_features: int) -> Look:
        """Return what is known of no rows."""
        zero = torch.zeros(3, dtype=torch.float64)
        return cls(zero, zero.new_zeros(0, num_features), torch.zeros(0, dtype=torch.int64))

    @classmethod
    def at(cls, x: Tensor, most: int) -> Look:
        """Look at rows (B, F), and keep at most that many."""
        mean = x.mean() if x.numel() else x.new_zeros(())
        moments = torch.stack([mean.new_tensor(float(x.numel())), mean, (x - mean).square().sum()])
        return cls(moments, x, content_hash(x))._least(most)

    def merge(self, other: Look, most: int) -> Look:
        """Return what is known of both."""
        (n, mean, spread), (m, middle, wide) = self.moments, other.moments
        total = (n + m).clamp_min(1)
        apart = (middle - mean).square() * n * m / total
        joint = torch.stack([n + m, (n * mean + m * middle) / total, spread + wide + apart])
        both = Look(joint, torch.cat([self.rows, other.rows]), torch.cat([self.keys, other.keys]))
        return both._least(most)

    def _least(self, most: int) -> Look:
        """Leave the distinct rows of the smallest hashes."""
        keys, place = self.keys.sort(stable=True)
        new = torch.ones_like(keys, dtype=torch.bool)
        new[1:] = keys[1:] != keys[:-1]
        chosen = place[new][:most]
        return Look(self.moments, self.rows[chosen], self.keys[chosen])

    @property
    def variance(self) -> float:
        """Of all values."""
        return float(self.moments[2] / self.moments[0].clamp_min(1))


class RBFFeatures(nn.Module):
    """φ of rows, whose inner products come near exp(−γ ‖a − b‖²).

    Args:
        kind: `nystroem` or `rff`.
        num_features: F.
        num_components: M.
        gamma: γ, a number, `scale` or `auto`.
        seed: of the waves.

    Example:
        >>> from zoo.models.svm.kernels import Kernel
        >>> features = RBFFeatures("nystroem", 2, 3, 1.0)
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double()
        >>> features.learn(Look.at(x, 3))
        >>> phi = features(x)
        >>> bool(torch.allclose(phi @ phi.T, Kernel("rbf", 1.0)(x, x)))
        True
    """

    gamma: Tensor
    landmarks: Tensor
    root: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(self, kind: str, num_features: int, num_components: int, gamma: str | float, seed: int = 0) -> None:
        super().__init__()
        self.kind, self.wanted = kind, gamma
        known = gamma if not isinstance(gamma, str) else 1 / max(1, num_features)
        self.register_buffer("gamma", torch.tensor(float(known), dtype=torch.float64))
        if kind == "nystroem":
            self.register_buffer("landmarks", torch.zeros(num_components, num_features, dtype=torch.float64))
            self.register_buffer("root", torch.zeros(num_components, num_components, dtype=torch.float64))
        else:  # drawn with γ = 1, and stretched when it is known
            frequencies, phases = waves(num_features, num_components, 1.0, torch.Generator().manual_seed(seed))
            self.register_buffer("frequencies", frequencies)
            self.register_buffer("phases", phases)

    def learn(self, look: Look) -> None:
        """Take γ and the landmarks from rows that were looked at; of fewer rows than M the features left are zero."""
        if self.wanted == "scale":
            check_variance(look.variance, len(look.rows) > 1)
        if self.wanted == "scale" and look.variance > 0:
            self.gamma.fill_(1 / (look.rows.shape[1] * look.variance))
        if self.kind == "nystroem":
            count = len(look.rows)
            self.landmarks.zero_()[:count] = look.rows
            self.root.zero_()[:count, :count] = normalization(self._kernel(look.rows, look.rows), _SMALLEST)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return squared_distances(a, b).mul_(-self.gamma).exp_()

    def forward(self, x: Tensor) -> Tensor:
        """Return φ of rows (B, F), (B, M)."""
        x = x.double()
        if self.kind == "nystroem":
            return self._kernel(x, self.landmarks) @ self.root.T
        return fourier_features(x, self.frequencies * self.gamma.sqrt(), self.phases)
