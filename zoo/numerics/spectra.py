r"""What follows from eigenvalues and eigenvectors: how many to keep, their signs, a sketch's, and a density.

Sources: J. Tropp, A. Yurtsever, M. Udell and V. Cevher, "Fixed-rank approximation of a positive-semidefinite matrix
from streaming data", 2017; M. Tipping and C. Bishop, "Probabilistic principal component analysis", 1999.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["components_for_share", "fix_signs", "nystrom", "probabilistic_log_density"]

# Letters: B rows, D features, D' eigenvalues, K components, L test vectors.


def fix_signs(components: Tensor) -> Tensor:
    """Turn each component so that its entry of largest magnitude is positive.

    Args:
        components: one a row, (K, D).

    Example:
        >>> fix_signs(torch.tensor([[0.6, -0.8], [-0.8, -0.6]]))
        tensor([[-0.6000,  0.8000],
                [ 0.8000,  0.6000]])
    """
    magnitude = components.abs()
    # Entries equal but for rounding must not let the order of the rows decide: the first of them does.
    largest = (magnitude >= magnitude.amax(1, keepdim=True) * (1 - 1e-6)).int().argmax(1, keepdim=True)
    return torch.where(components.gather(1, largest) < 0, -components, components)


def components_for_share(variance: Tensor, share: float) -> int:
    """The least number of components that explain more than a share of the variance.

    Args:
        variance: of all components, descending, (D',).
        share: between 0 and 1.

    Example:
        >>> components_for_share(torch.tensor([6.0, 3.0, 1.0]), 0.8)
        2
    """
    explained = variance.cumsum(0) / variance.sum()
    return min(int((explained <= share).sum()) + 1, len(variance))


def nystrom(sketch: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues and eigenvectors of $Y (\Omega^\top Y)^{+} Y^\top$, which approximates $M$ where $Y = M \Omega$.

    Args:
        sketch: $Y$, (D, L).
        test: $\Omega$ with orthonormal columns, (D, L).

    Returns:
        Eigenvalues, descending (L,), and eigenvectors, one a row (L, D).

    Source: Tropp et al. 2017, section 2.
    """
    core = test.T @ sketch  # (L, L)
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    kept = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    root = torch.where(kept, values, 1.0).rsqrt() * kept
    u, s, _ = torch.linalg.svd(sketch @ (vectors * root), full_matrices=False)
    return s.square(), u.T


def probabilistic_log_density(centred: Tensor, components: Tensor, variance: Tensor, noise_variance: Tensor) -> Tensor:
    r"""Log density of the normal distribution whose covariance the components and the noise make up.

    ```math
    \log p(x) = -\tfrac12 \Big( D \log 2 \pi + \sum_{j \le K} \Big( \log \lambda_j + \frac{t_j^2}{\lambda_j} \Big)
    + (D - K) \log \sigma^2 + \frac{\|x - \mu\|^2 - \|t\|^2}{\sigma^2} \Big)
    ```

    Args:
        centred: rows less the mean, (B, D).
        components: orthonormal, one a row, (K, D).
        variance: along the components, (K,).
        noise_variance: along all other directions, ().

    Returns:
        Log densities, (B,).

    Raises:
        ZooError: if a variance is zero, since there is then no density.

    Source: Tipping & Bishop 1999, section 3.2.

    Example:
        >>> line = torch.tensor([[1.0, 0.0]])
        >>> probabilistic_log_density(torch.zeros(1, 2), line, torch.tensor([1.0]), torch.tensor(1.0))
        tensor([-1.8379])
    """
    others = components.shape[1] - len(components)
    variances = torch.cat([variance, noise_variance.expand(others)])
    if not bool((variances > 0).all()):
        raise ZooError("The density needs a positive variance in every direction: keep fewer components.")
    projected = centred @ components.T  # (B, K)
    distance = (projected.square() / variance).sum(1)
    if others:
        outside = centred.square().sum(1) - projected.square().sum(1)
        distance = distance + outside.clamp_min(0) / noise_variance
    return -0.5 * (components.shape[1] * math.log(2 * math.pi) + variances.log().sum() + distance)
