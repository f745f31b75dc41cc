r"""Features whose inner products come near a kernel, for rows that are too many for all their pairs.

Nyström: M of the rows stand for all, and the inner products of the features with those of any row are exact there,

```math
φ(x) = K_{MM}^{-1/2}\, k(x_M, x), \qquad φ(a)^\top φ(b) = k(a, x_M)\, K_{MM}^{-1}\, k(x_M, b)
```

Random Fourier features: the RBF kernel is the mean of waves whose frequencies are normal,

```math
φ_m(x) = \sqrt{2 / M}\, \cos(ω_m \cdot x + b_m), \qquad ω_m \sim N(0, 2γ I), \quad b_m \sim U(0, 2π)
```

Legend: B rows, F features, M landmarks or waves.
Source: Williams & Seeger, "Using the Nyström method to speed up kernel machines", 2001; Rahimi & Recht, "Random
features for large-scale kernel machines", 2007.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fourier_features", "normalization", "waves"]


def normalization(kernel: Tensor, smallest: float = 1e-12) -> Tensor:
    """Return K^(−1/2) of the landmarks' kernel (M, M), with singular values of `smallest` at least.

    Example:
        >>> normalization(torch.tensor([[4.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.5, 0.0], [0.0, 1.0]]
    """
    u, s, vh = torch.linalg.svd(kernel)
    return (u / s.clamp_min(smallest).sqrt()) @ vh


def waves(num_features: int, num_waves: int, gamma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return frequencies (F, M) and phases (M,), float64."""
    frequencies = torch.randn(num_features, num_waves, generator=generator, dtype=torch.float64)
    phases = torch.rand(num_waves, generator=generator, dtype=torch.float64)
    return frequencies * (2 * gamma) ** 0.5, phases * (2 * torch.pi)


def fourier_features(x: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
    """Return φ of rows (B, F), (B, M).

    Example:
        >>> x = torch.tensor([[0.3, 0.1]]).double()
        >>> w, b = waves(2, 20_000, 1.0, torch.Generator().manual_seed(0))
        >>> a, b = fourier_features(x, w, b), fourier_features(0 * x, w, b)
        >>> round(float(a @ b.T), 1)  # exp(−0.1) = 0.905
        0.9
    """
    return (x @ frequencies).add_(phases).cos_().mul_((2 / len(phases)) ** 0.5)
