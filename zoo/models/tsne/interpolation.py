r"""Repulsion of a two-dimensional t-SNE map by interpolation on a grid and the fast Fourier transform.

Sums over all pairs of a kernel of $y_i - y_j$ become sums over the nodes a, b of a regular grid, a convolution:

```math
\sum_j \kappa(y_i - y_j) \approx \sum_a \beta_a(y_i) \sum_b c_{a - b} \sum_j \beta_b(y_j), \qquad
\hat c(\theta) = \frac{\hat\kappa(\theta)}{b(\theta_1)^2\, b(\theta_2)^2}, \quad b(\theta) = \frac{3 + \cos\theta}{4},
```
```math
\kappa_Z(y) = \frac{1}{1 + |y|^2}, \qquad \kappa_F(y) = \frac{y}{(1 + |y|^2)^2}
```

| symbol | shape | meaning |
|---|---|---|
| Y | (N, 2) | the map |
| β | (9, N) | quadratic B-splines of the 3 × 3 nodes around each point |
| b | | their transform, by which the kernel is divided so that the sums are exact between nodes |
| G | | nodes a side, at most 0.35 apart |
| L | | length of the transforms, so padded that the convolution does not wrap around |

Sources: Linderman, Rachh, Hoskins, Steinerberger & Kluger 2019, "Fast interpolation-based t-SNE", Methods
(kernels, grid); Essmann et al. 1995, "A smooth particle mesh Ewald method", section II (B-splines).

Deviations from Linderman et al.: B-splines around each point take the place of Lagrange polynomials in fixed
boxes, and the force's own kernel, with one charge a point, that of $(1 + |y|^2)^{-2}$ with the charges 1, y₁, y₂: a
third of the error at about equal spacing, and one forward and two inverse transforms are enough. Z is taken from the
transforms (Parseval) without an inverse one, less what a point's own weight comes to on average. L is a product of 2,
3, 5 and 7, and where the map is small the spacing moves in steps of 5 %, so that the kernels are transformed only when
it has grown by so much.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Field", "GridRepulsion", "interpolation"]

_MIN_NODES = 128  # a side
_SPACING = 0.35  # the widest; the kernels vary over a length of 1
_BORDER = 2  # nodes beyond the outermost points on each side, of which the splines reach one
_PADDING = 16  # 1/b dies away by a factor of 6 a node: what the wrapped kernel's seam does is not felt
_STEP = 1.05


def _smooth(number: int) -> int:
    """The least even product of powers of 2, 3, 5 and 7 that is not below `number`: such transforms are fast."""
    number += number % 2
    while True:
        rest = number
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 2


def _layout(span: float) -> tuple[int, float]:
    """Number of nodes a side and their spacing, for a map that is `span` wide."""
    inner = _MIN_NODES - 2 * _BORDER - 1
    if span > inner * _SPACING:
        # As many nodes as the transform has room for, so that the kernels last while the map grows a little.
        length = _smooth(2 * (math.ceil(span / _SPACING) + 1 + 2 * _BORDER) + _PADDING)
        return (length - _PADDING) // 2, _SPACING
    exponent = math.ceil(math.log(max(span, 1e-12) / inner, _STEP))
    return _MIN_NODES, min(_STEP**exponent, _SPACING)


def interpolation(points: Tensor, origin: Tensor, spacing: float, side: int) -> tuple[Tensor, Tensor]:
    r"""Return the nodes of the grid around each point and their B-splines there.

    Args:
        points: (N, 2), on the grid.
        origin: the grid's lower corner, (2,).
        spacing: of the nodes.
        side: number of nodes a side, G.

    Returns:
        Flat indices of nodes (9, N), int64, and weights β (9, N) of sum 1 a point.

    Example:
        >>> index, weight = interpolation(torch.tensor([[1.0, 1.5]]), torch.zeros(2), spacing=1.0, side=4)
        >>> index.flatten().tolist(), (64 * weight).flatten().tolist()
        ([1, 2, 3, 5, 6, 7, 9, 10, 11], [4.0, 4.0, 0.0, 24.0, 24.0, 0.0, 4.0, 4.0, 0.0])
    """
    position = ((points - origin) / spacing).T  # (2, N)
    centre = position.round().clamp_(1, side - 2)
    t = position - centre  # the three nodes at −1, 0, 1
    beta = torch.stack([(0.5 - t).square_() / 2, 0.75 - t.square(), (0.5 + t).square_() / 2])  # (3, 2, N)
    node = centre.long() + torch.arange(-1, 2, device=points.device)[:, None, None]  # (3, 2, N)
    index = node[:, None, 0] * side + node[None, :, 1]  # (3, 3, N)
    return index.flatten(0, 1), (beta[:, None, 0] * beta[None, :, 1]).flatten(0, 1)


def _read(fields: Tensor, index: Tensor, beta: Tensor) -> Tensor:
    """Interpolate fields (F, G, G) at points whose nodes and weights are (9, N) each: (F, N)."""
    return torch.stack([(values.flatten()[index] * beta).sum(0) for values in fields])


class GridRepulsion:
    """Repulsive forces and Z of a map of N points in time linear in N; keeps the transformed kernels between calls.

    Example:
        >>> force, total = GridRepulsion()(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        >>> force[:, 0].round(decimals=4), total.round(decimals=4)
        (tensor([-0.2500,  0.2500]), tensor(1.))
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._kernels, self._own_weight = torch.empty(0), 1.0

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\sum_j w_{ij}^2 (y_i - y_j)$ (N, 2) and Z of a map (N, 2)."""
        origin, spacing, side = self._place(points)
        index, beta = interpolation(points, origin, spacing, side)
        kernels = self._transformed_kernels(side, spacing, points)  # (3, L, L/2 + 1)
        spectrum = self._spectrum(index, beta, side)  # (L, L/2 + 1)
        force = _read(self._convolve(spectrum, kernels[1:], side), index, beta)
        # Each frequency but the first and the last of the half spectrum stands for its mirror image too.
        power = (torch.view_as_real(spectrum).square_().sum(-1) * kernels[0].real).sum(0)
        total = (2 * power.sum() - power[0] - power[-1]) / len(spectrum) ** 2 - self._own_weight * len(points)
        return force.T, total

    def field(self, points: Tensor, margin: float) -> Field:
        """Return the repulsion that the points (N, 2) exert on others, up to `margin` outside their own range."""
        low, high = torch.aminmax(points, dim=0)
        origin, spacing, side = self._place(torch.stack([low - margin, high + margin]))
        kernels = self._transformed_kernels(side, spacing, points)
        spectrum = self._spectrum(*interpolation(points, origin, spacing, side), side)
        return Field(self._convolve(spectrum, kernels, side).contiguous(), origin, spacing)

    def _place(self, points: Tensor) -> tuple[Tensor, float, int]:
        """Lower corner of the grid, spacing and number of nodes a side, with the map in the grid's middle."""
        low, high = torch.aminmax(points, dim=0)
        side, spacing = _layout(float((high - low).max()))
        return (low + high - (side - 1) * spacing) / 2, spacing, side

    def _spectrum(self, index: Tensor, beta: Tensor, side: int) -> Tensor:
        charge = beta.new_zeros(side * side).index_add_(0, index.flatten(), beta.flatten())
        length = _smooth(2 * side + _PADDING)
        return torch.fft.rfft2(charge.view(side, side), s=(length, length))

    def _convolve(self, spectrum: Tensor, kernels: Tensor, side: int) -> Tensor:
        length = len(spectrum)
        return torch.fft.irfft2(spectrum * kernels, s=(length, length))[:, :side, :side]

    def _transformed_kernels(self, side: int, spacing: float, like: Tensor) -> Tensor:
        key = (side, spacing, like.dtype, like.device)
        if key != self._key:
            kernels, self._own_weight = _kernels(_smooth(2 * side + _PADDING), spacing)
            precision = torch.complex128 if like.dtype == torch.float64 else torch.complex64
            self._key, self._kernels = key, kernels.to(like.device, precision)
        return self._kernels


def _kernels(length: int, spacing: float) -> tuple[Tensor, float]:
    """Return transforms of κ_Z and the two components of κ_F over those of the splines, (3, L, L/2 + 1), and what
    becomes of a point's own weight, 1 but for the interpolation, on average over its places between the nodes."""
    frequency = torch.fft.fftfreq(length, dtype=torch.float64)
    offset = frequency * (length * spacing)  # 0 first, then the positive ones, then the negative
    weight = 1 / (1 + offset[:, None] ** 2 + offset**2)
    force = weight**2 * torch.stack(torch.meshgrid(offset, offset, indexing="ij"))
    cosine = torch.cos(2 * math.pi * frequency)
    spline = ((3 + cosine) / 4).square()
    overlap = (64 + 52 * cosine + 4 * cosine.square()) / 120  # of a spline with its neighbours: the quintic's values
    kernels = torch.fft.rfft2(torch.cat([weight[None], force]))
    share = (overlap / spline)[:, None] * (overlap / spline)
    own = float((torch.fft.fft2(weight).real * share).mean())
    return kernels / (spline[:, None] * spline[: length // 2 + 1]), own


class Field:
    """The repulsion of a fixed map at any place: Σ_j w(q, y_j) and Σ_j w(q, y_j)² (q − y_j).

    Args:
        values: the coefficients of the three sums at the nodes, (3, G, G).
        origin: the grid's lower corner, (2,).
        spacing: of the nodes.
    """

    def __init__(self, values: Tensor, origin: Tensor, spacing: float) -> None:
        self.values, self.origin, self.spacing = values, origin, spacing

    def __call__(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forces (Q, 2) and the sums of weights (Q,) at queries (Q, 2) on the grid."""
        index, beta = interpolation(queries, self.origin, self.spacing, self.values.shape[-1])
        read = (self.values.flatten(1)[:, index] * beta).sum(1)  # (3, Q)
        return read[1:].T, read[0]

    def clamp(self, queries: Tensor) -> Tensor:
        """Return queries (Q, 2) moved to the nearest place on the grid."""
        last = self.values.shape[-1] - 1 - _BORDER
        return queries.clamp(self.origin + _BORDER * self.spacing, self.origin + last * self.spacing)
