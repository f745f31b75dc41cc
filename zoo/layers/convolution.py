r"""Convolution and pooling of images from raw tensors: drop-ins for `torch.nn.Conv2d`, `MaxPool2d` and `AvgPool2d`.

Every window of the image becomes a column (im2col), and the convolution one matrix product:

```math
y_{b o u v} = β_o + \sum_{c i j} w_{o c i j}\; x_{b\, c\, (s u + d i - p)\, (s v + d j - p)}
```

Legend: B batch, C channels in, O channels out, G groups, H×W image, K = k_h k_w places in the window, H'×W' windows,
L = H' W'; stride s, dilation d, padding p, each for height and width.

Source: LeCun et al. 1989 (convolution); Chellapilla, Puri & Simard 2006, §3 (im2col). As in torch, the kernel is not
flipped, so that this is, strictly, a correlation. Deviations: none; constructor, `state_dict`, initial parameters
under a seed, results and gradients are those of torch. Columns take K times the memory of the image, which torch's
own kernels save.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AvgPool2d", "Conv2d", "MaxPool2d", "windows"]

Size = int | tuple[int, int]


def pair(name: str, value: Any, low: int) -> tuple[int, int]:
    """Return (height, width) of a number, of one in a tuple, or of a pair, each at least `low`."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    values = values * 2 if len(values) == 1 else values
    if len(values) != 2 or any(not isinstance(v, int) or v < low for v in values):
        raise ValueError(f"{name} must be an integer of at least {low}, or two of them, not {value!r}")
    return values[0], values[1]


def windows(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Return the pixels of every window, place by place: K strided slices of the image.

    Args:
        x: images, padded already, (B, C, H, W).
        kernel: height and width of the window.
        stride: steps between windows.
        dilation: steps between the places of a window.

    Returns:
        (B, C, K, H', W').

    Raises:
        RuntimeError: the image is smaller than a window.

    Example:
        >>> windows(torch.arange(6.0).view(1, 1, 2, 3), (2, 2), (1, 1), (1, 1))[0, 0].flatten(1).T
        tensor([[0., 1., 3., 4.],
                [1., 2., 4., 5.]])
    """
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(size < span for size, span in zip(x.shape[-2:], spans, strict=True)):
        raise RuntimeError(
            f"the image of {x.shape[-2]}×{x.shape[-1]} (with its padding) is smaller than a window of "
            f"{spans[0]}×{spans[1]}: use more padding, or a smaller kernel_size or dilation"
        )
    rows, columns = ((n - span) // s + 1 for n, span, s in zip(x.shape[-2:], spans, stride, strict=True))
    places = [
        x[
            ...,
            top : top + stride[0] * (rows - 1) + 1 : stride[0],
            left : left + stride[1] * (columns - 1) + 1 : stride[1],
        ]
        for top in range(0, spans[0], dilation[0])
        for left in range(0, spans[1], dilation[1])
    ]
    return torch.stack(places, dim=2)


class Conv2d(nn.Module):
    """Convolution of images, as `torch.nn.Conv2d`.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: height and width of the window.
        stride: steps between windows.
        padding: pixels added at each side, or `same`, or `valid` for none.
        dilation: steps between the places of a window.
        groups: G blocks of channels that do not see each other.
        bias: whether each output channel adds a number.
        padding_mode: what is added: `zeros`, `reflect`, `replicate` or `circular`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: for sizes below 1, groups that do not divide the channels, or an unknown padding.
        RuntimeError: images of another number of axes or channels, or smaller than a window.

    Example:
        >>> Conv2d(3, 8, kernel_size=3, padding=1)(torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups or min(in_channels, out_channels) < 1:
            raise ValueError(
                f"groups ({groups}) must divide in_channels ({in_channels}) and out_channels ({out_channels})"
            )
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"padding_mode must be zeros, reflect, replicate or circular, not {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = pair("kernel_size", kernel_size, 1), pair("stride", stride, 1)
        self.dilation, self.padding_mode = pair("dilation", dilation, 1), padding_mode
        self.padding = padding if isinstance(padding, str) else pair("padding", padding, 0)
        self._sides = self._padding_sides()
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _padding_sides(self) -> tuple[int, int, int, int]:
        """Pixels added left, right, above and below."""
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "same":
            if self.stride != (1, 1):
                raise ValueError("padding='same' needs stride 1")
            total = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2
        if isinstance(self.padding, str):
            raise ValueError(f"padding must be numbers, 'same' or 'valid', not {self.padding!r}")
        return self.padding[1], self.padding[1], self.padding[0], self.padding[0]

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly from ±1/√fan_in, as torch does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        images, single = _batched(x)
        if images.shape[1] != self.in_channels:
            raise RuntimeError(f"expected {self.in_channels} channels, got {images.shape[1]}: input is (B, C, H, W)")
        if any(self._sides):
            images = F.pad(images, self._sides, self.padding_mode.replace("zeros", "constant"))
        patches = windows(images, self.kernel_size, self.stride, self.dilation)  # (B, C, K, H', W')
        size = patches.shape[-2:]
        weight = self.weight.reshape(self.groups, self.out_channels // self.groups, -1)  # (G, O / G, C K / G)
        columns = patches.reshape(
            images.shape[0], self.groups, weight.shape[-1], size[0] * size[1]
        )  # (B, G, C K / G, L)
        out = (weight @ columns).reshape(images.shape[0], self.out_channels, *size)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype).view(-1, 1, 1)  # under autocast the product's type is the result's
        out = _as_dense_as(out, images, self.weight)
        return out.squeeze(0) if single else out

    def __prepare_scriptable__(self) -> nn.Conv2d:
        """What `torch.jit.script` takes in its place: torch's layer with these very parameters."""
        layer = nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation,
            self.groups, self.bias is not None, cast(Any, self.padding_mode), device="meta",
        )  # fmt: skip
        layer.weight, layer.bias = self.weight, self.bias
        return layer.train(self.training)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        changed = {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}
        changed |= {} if self.bias is not None else {"bias": False}
        return ", ".join([text, *(f"{name}={value}" for name, value in changed.items())])


def _batched(x: Tensor) -> tuple[Tensor, bool]:
    """Return (B, C, H, W) of that or of a single image (C, H, W), and whether it was single."""
    if x.ndim not in (3, 4):
        raise RuntimeError(f"expected images (B, C, H, W) or one image (C, H, W), got {tuple(x.shape)}")
    return (x.unsqueeze(0), True) if x.ndim == 3 else (x, False)


def _as_dense_as(out: Tensor, *models: Tensor) -> Tensor:
    """Lay the channels of a pixel side by side if one of the models does (torch.channels_last)."""
    # A compiler lays out its own memory, and a question about strides would tie its graph to these sizes.
    if not torch.compiler.is_compiling() and any(map(_channels_last, models)):
        return out.contiguous(memory_format=torch.channels_last)
    return out


def _channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side in memory, read from the strides: vmap knows no formats."""
    _, channels, height, width = x.shape
    return x.stride() == (channels * height * width, 1, width * channels, channels) and channels * height * width > 1


class _Pool2d(nn.Module):
    """What both poolings share: windows that may reach over the edge."""

    def __init__(self, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool) -> None:
        super().__init__()
        self._said = (kernel_size, kernel_size if stride is None else stride, padding, dilation)  # for repr
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("stride", stride, 1)
        self.padding, self.dilation = pair("padding", padding, 0), pair("dilation", dilation, 1)
        self.ceil_mode = ceil_mode
        if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(self.padding, self.kernel_size, self.dilation, strict=True)):
            raise ValueError(f"padding {self.padding} must be at most half of kernel_size {self.kernel_size}")

    def _overhang(self, axis: int, size: int) -> int:
        """Pixels that the last window of `ceil_mode` needs beyond the padding; it starts inside of image or padding."""
        if not self.ceil_mode:
            return 0
        padding, stride = self.padding[axis], self.stride[axis]
        span = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        steps = -(-(size + 2 * padding - span) // stride)
        if steps * stride >= size + padding:
            steps -= 1
        return max(0, steps * stride + span - size - 2 * padding)

    def _windows(self, x: Tensor, fill: float, beyond: float) -> Tensor:
        """Windows of the image within `fill` for padding and `beyond` for what `ceil_mode` adds, (B, C, K, H', W')."""
        (top, left), (height, width) = self.padding, x.shape[-2:]
        x = F.pad(x, (left, left, top, top), value=fill)
        x = F.pad(x, (0, self._overhang(1, width), 0, self._overhang(0, height)), value=beyond)
        return windows(x, self.kernel_size, self.stride, self.dilation)

    def extra_repr(self) -> str:
        size, stride, padding, _ = self._said
        return f"kernel_size={size}, stride={stride}, padding={padding}"


class MaxPool2d(_Pool2d):
    """The largest pixel of each window, as `torch.nn.MaxPool2d`; the first of equals takes the gradient.

    The padding is smaller than every pixel, and never the largest where all pixels of a window are −∞.

    Args:
        kernel_size: height and width of the window.
        stride: steps between windows; the window itself by default.
        padding: pixels of −∞, or of the smallest integer, at each side.
        dilation: steps between the places of a window.
        return_indices: return the place of each largest pixel in the flattened image too.
        ceil_mode: let the last window reach over the edge.

    Example:
        >>> MaxPool2d(2)(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
        [5.0, 7.0, 13.0, 15.0]
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.return_indices = return_indices

    def __prepare_scriptable__(self) -> nn.MaxPool2d:
        """What `torch.jit.script` takes in its place."""
        arguments = (self.kernel_size, self.stride, self.padding, self.dilation, self.return_indices, self.ceil_mode)
        return nn.MaxPool2d(*arguments)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        images, single = _batched(x)
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        values = self._windows(images, lowest, lowest)  # (B, C, K, H', W')
        largest, place = values.max(2)  # (B, C, H', W')
        if any(self.padding) or self.ceil_mode:
            inside = self._windows(torch.ones_like(images[:1, :1], dtype=torch.uint8), 0, 0).expand(values.shape)
            beyond = inside.gather(2, place.unsqueeze(2)).squeeze(2) == 0  # the padding came first among equals
            place = torch.where(beyond, inside.max(2).indices, place)
            largest = values.gather(2, place.unsqueeze(2)).squeeze(2)
        largest = _as_dense_as(largest, images)
        if single:
            largest, place = largest.squeeze(0), place.squeeze(0)
        return (largest, self._positions(place, images.shape[-1])) if self.return_indices else largest

    def _positions(self, place: Tensor, width: int) -> Tensor:
        row = place // self.kernel_size[1] * self.dilation[0] - self.padding[0]
        column = place % self.kernel_size[1] * self.dilation[1] - self.padding[1]
        down = torch.arange(place.shape[-2], device=place.device).unsqueeze(1) * self.stride[0]
        right = torch.arange(place.shape[-1], device=place.device) * self.stride[1]
        return (row + down) * width + column + right

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self._said[3]}, ceil_mode={self.ceil_mode}"


class AvgPool2d(_Pool2d):
    """The mean of each window, as `torch.nn.AvgPool2d`.

    Args:
        kernel_size: height and width of the window.
        stride: steps between windows; the window itself by default.
        padding: zeros at each side.
        ceil_mode: let the last window reach over the edge.
        count_include_pad: whether the padding counts in the mean.
        divisor_override: divide the sum by this instead of the number of pixels.

    Example:
        >>> AvgPool2d(2)(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def __prepare_scriptable__(self) -> nn.AvgPool2d:
        """What `torch.jit.script` takes in its place."""
        sizes = (self.kernel_size, self.stride, self.padding)
        return nn.AvgPool2d(*sizes, self.ceil_mode, self.count_include_pad, self.divisor_override)

    def forward(self, x: Tensor) -> Tensor:
        images, single = _batched(x)
        total = self._windows(images, 0, 0).sum(2, dtype=x.dtype)  # (B, C, H', W')
        counted: Tensor | int
        if self.divisor_override is not None:
            counted = self.divisor_override
        else:
            counted = self._windows(torch.ones_like(images[:1, :1]), int(self.count_include_pad), 0).sum(2)
        # of whole numbers a whole number, as torch has it
        mean = _as_dense_as(total.div(counted, rounding_mode=None if x.is_floating_point() else "trunc"), images)
        return mean.squeeze(0) if single else mean
