r"""A retina: patches around one place of an image, each twice as large as the one before and as coarse.

```math
ρ(x, l)_{kij} = \text{the mean of } x \text{ over cell } (i, j) \text{ of the square of side } g\,r^k
\text{ around } l, \qquad k = 0 … K - 1
```

Each cell is read at $r^k × r^k$ points by bilinear interpolation, all cells of all scales and images in one
`grid_sample`; where the square lies on the pixels' own grid this is the mean of the pixels. Outside of the image it is
dark.

Letters: B images of C channels, H × W pixels; l the place, (x, y) from (-1, -1), the upper left corner, to (1, 1); K
scales of g × g cells, r how much larger each is than the one before.

Source: Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014, §3.1.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["retina"]


def retina(images: Tensor, places: Tensor, size: int, num_scales: int = 1, ratio: int = 2) -> Tensor:
    """Return what a retina sees around a place of each image, (B, K, C, g, g).

    Args:
        images: (B, C, H, W).
        places: (B, 2), x and y; differentiable.
        size: g, cells on a side, which are pixels at the first scale.
        num_scales: K.
        ratio: r.

    Raises:
        ValueError: a size is below 1, or there are not as many places as images.

    Example:
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> retina(image, torch.zeros(1, 2), size=2)[0, 0, 0]  # the four pixels in the middle
        tensor([[ 5.,  6.],
                [ 9., 10.]])
    """
    if min(size, num_scales, ratio) < 1:
        raise ValueError(f"size, num_scales and ratio must be at least 1, not {size}, {num_scales} and {ratio}")
    if places.shape != (images.shape[0], 2):
        raise ValueError(f"places must be of shape ({len(images)}, 2), not {tuple(places.shape)}")
    height, width = images.shape[-2:]
    points = _points(size, num_scales, ratio, images.device, images.dtype)  # (N, 2), in pixels
    sides = points.new_tensor([width, height])
    grid = places.unsqueeze(1) + 2 * points / sides  # (B, N, 2)
    seen = F.grid_sample(images, grid.unsqueeze(1), align_corners=False)[:, :, 0]  # (B, C, N)
    counts = [(size * ratio**k) ** 2 for k in range(num_scales)]
    scales = []
    for k, part in enumerate(seen.split(counts, -1)):
        fine = ratio**k
        scales.append(part.view(*part.shape[:2], size, fine, size, fine).mean((3, 5)))  # (B, C, g, g)
    return torch.stack(scales, 1)


@functools.lru_cache(maxsize=32)
def _points(size: int, num_scales: int, ratio: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where all scales are read, in pixels from the place, row by row, (N, 2) as x and y."""
    found = []
    for k in range(num_scales):
        count = size * ratio**k
        line = torch.arange(count, device=device, dtype=dtype) + 0.5 - count / 2
        found.append(torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(-1, 2))
    return torch.cat(found)
