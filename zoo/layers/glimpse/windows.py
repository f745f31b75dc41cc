r"""Gaussian windows: a soft glimpse of an image through a grid of filters, whose place, spread and width are put out.

```math
F_X[i, a] = \frac{1}{Z_i} \exp\Bigl(-\frac{(a - μ_i^X)^2}{2σ^2}\Bigr), \qquad
μ_i^X = g_X + \bigl(i - \tfrac{N - 1}{2}\bigr) δ, \qquad g = γ\, F_Y\, x\, F_X^\top
```

Each row of a filter bank is a distribution Pr(a | g_X, δ, σ) over the pixels of a line, and the glimpse is the mean of
the image under it: attention over positions, differentiable in all of its parameters.

Letters: B images of C channels, A × W pixels (a down, b across); N × N filters; (g_X, g_Y) the centre, δ the stride and
σ the width in pixels, γ the brightness.

Source: Gregor et al., "DRAW: a recurrent neural network for image generation", 2015, eq. 19-27. Deviations: pixels are
counted from 0; Z is a softmax, so that no window, however far from the image, divides by zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Window", "read_window", "window_filters", "window_of"]


class Window(NamedTuple):
    """Where a grid of filters lies on each image, (B,) each: in pixels, but for the brightness."""

    x: Tensor
    y: Tensor
    stride: Tensor
    width: Tensor
    brightness: Tensor


def window_of(outputs: Tensor, height: int, width: int, size: int) -> Window:
    """Return the windows that a network's outputs (B, 5) stand for; zeros are the whole image.

    The outputs are the centre, across and down, and the logarithms of σ², of the stride and of the brightness.

    Args:
        outputs: (B, 5).
        height: pixels of the image, down.
        width: pixels of the image, across.
        size: N.

    Raises:
        ValueError: outputs are not five for each row.

    Example:
        >>> window = window_of(torch.zeros(1, 5), 28, 28, 4)
        >>> window.x, window.stride
        (tensor([13.5000]), tensor([9.]))
    """
    if outputs.dim() != 2 or outputs.shape[1] != 5:
        raise ValueError(f"outputs must be of shape (B, 5), not {tuple(outputs.shape)}")
    x, y, log_variance, log_stride, log_brightness = outputs.unbind(1)
    whole = (max(height, width) - 1) / max(size - 1, 1)
    return Window(
        (width - 1) / 2 + (width + 1) / 2 * x, (height - 1) / 2 + (height + 1) / 2 * y, whole * log_stride.exp(),
        (log_variance / 2).exp(), log_brightness.exp(),
    )  # fmt: skip


def window_filters(centre: Tensor, stride: Tensor, width: Tensor, size: int, length: int) -> Tensor:
    """Return a bank of N filters over a line of pixels, (B, N, length), each of which sums to 1.

    Args:
        centre: of the grid, (B,).
        stride: δ, (B,).
        width: σ, (B,).
        size: N.
        length: pixels of the line.

    Example:
        >>> one = torch.ones(1)
        >>> window_filters(2 * one, one, 0.01 * one, 3, 5)[0]  # narrow filters take single pixels
        tensor([[0., 1., 0., 0., 0.],
                [0., 0., 1., 0., 0.],
                [0., 0., 0., 1., 0.]])
    """
    places = torch.arange(size, device=centre.device, dtype=centre.dtype) - (size - 1) / 2  # (N,)
    means = centre.unsqueeze(1) + places * stride.unsqueeze(1)  # (B, N)
    pixels = torch.arange(length, device=centre.device, dtype=centre.dtype)
    apart = (pixels - means.unsqueeze(-1)) / width.view(-1, 1, 1)  # (B, N, length)
    return (-apart.square() / 2).softmax(-1)


def read_window(images: Tensor, window: Window, size: int) -> Tensor:
    """Return what each image looks like through its window, (B, C, N, N).

    Args:
        images: (B, C, H, W).
        window: where the filters lie.
        size: N.

    Example:
        >>> read_window(torch.ones(2, 1, 8, 8), window_of(torch.zeros(2, 5), 8, 8, 3), 3).shape
        torch.Size([2, 1, 3, 3])
    """
    height, width = images.shape[-2:]
    down = window_filters(window.y, window.stride, window.width, size, height).unsqueeze(1)  # (B, 1, N, H)
    across = window_filters(window.x, window.stride, window.width, size, width).unsqueeze(1)  # (B, 1, N, W)
    return window.brightness.view(-1, 1, 1, 1) * (down @ images @ across.transpose(-1, -2))
