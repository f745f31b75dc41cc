r"""Convolutional network for images of any size and number of channels.

Each stage convolves, normalizes, bends and halves the image; the mean over what is left of it feeds a linear head:

```math
h_l = \mathrm{pool}\bigl(φ(\mathrm{norm}(w_l * h_{l-1} + β_l))\bigr), \qquad
\hat y = W\, \mathrm{dropout}\Bigl(\frac{1}{H_L W_L} \sum_{uv} h_{L,uv}\Bigr) + b
```

With `residual`, a stage is x ↦ φ(norm(w₂ ∗ φ(norm(w₁ ∗ x))) + s(x)), where s is the identity, or a 1×1 convolution
where the number of channels changes.

Legend: B batch, C channels, H×W image, L stages, ∗ the convolution of `zoo.layers.Conv2d`, φ = max(0, ·).

Source: LeCun, Bottou, Bengio & Haffner 1998; batch normalization of Ioffe & Szegedy 2015, after which a convolution
needs no bias; residual stages of He, Zhang, Ren & Sun 2016; the mean before the head of Lin, Chen & Yan 2014, which
makes the parameters independent of the image's size; dropout of whole channels of Tompson et al. 2015. Deviations:
convolutions keep the size (padding k // 2), and a side of one pixel is not pooled further, so that every image passes,
down to 1×1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers import Dropout2d, convolution
from zoo.layers.initialization import Initialization, initialize
from zoo.models.base import GradientModel
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CNN", "ConvStage", "Halve", "ResidualStage"]


class ConvStage(nn.Module):
    """φ(norm(w ∗ x)).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the window, odd.
        batch_norm: normalize over the batch.
        ops: module that provides `Conv2d`: `torch.nn` or `zoo.layers.convolution`.

    Example:
        >>> ConvStage(1, 8, 3, True, convolution)(torch.zeros(2, 1, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, batch_norm: bool, ops: ModuleType
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = ops.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))  # (B, C, H, W) → (B, C', H, W)


class ResidualStage(nn.Module):
    """φ(norm(w₂ ∗ φ(norm(w₁ ∗ x))) + s(x)); arguments as those of `ConvStage`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, batch_norm: bool, ops: ModuleType
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.first = ConvStage(in_channels, out_channels, kernel_size, batch_norm, ops)
        self.conv = ops.Conv2d(out_channels, out_channels, kernel_size, padding=padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity()
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else ops.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(self.first(x))) + self.skip(x))


class Halve(nn.Module):
    """Pool windows of 2×2, and of less along a side of one pixel.

    Args:
        pool: class of the pooling layer.

    Example:
        >>> Halve(nn.MaxPool2d)(torch.zeros(1, 1, 1, 6)).shape
        torch.Size([1, 1, 1, 3])
    """

    def __init__(self, pool: type[nn.Module]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        window = (min(2, x.shape[-2]), min(2, x.shape[-1]))
        return x if window == (1, 1) else self.pool(window)(x)

    def extra_repr(self) -> str:
        return self.pool.__name__


@register_model(
    "cnn",
    family="convolutional",
    accepts={"image": ("class", "value")},
    source="LeCun, Bottou, Bengio & Haffner 1998",
)
class CNN(GradientModel):
    """Convolutional network, plain or residual, for images of any size and number of channels.

    Args:
        channels: channels of each stage.
        kernel_size: side of the convolutions' window, odd.
        pool: what halves the image after each stage: `max`, `avg`, or `none` to keep its size.
        batch_norm: normalize over the batch after each convolution.
        residual: two convolutions a stage and a connection around them.
        dropout: share of the last features dropped in training, in [0, 1].
        spatial_dropout: share of the channels behind each stage dropped in training, each as a whole, in [0, 1].
        initialization: how the weights begin: `xavier_uniform`, `xavier_normal`, `kaiming_uniform`, `kaiming_normal`,
            `orthogonal` (with the gain of ReLU), or `truncated_normal` of deviation 0.02, with biases of
            0; None: as torch's layers begin.
        layers: `torch`, or `zoo` for convolution and pooling from raw tensors: the same results, slower.

    Raises:
        ZooError: if there is no stage, a width is below 1, `kernel_size` is even or a share of dropout outside [0, 1].

    Example:
        >>> import torch, zoo
        >>> spec = zoo.DataSpec(kind="image", shape=(3, 32, 32), target="class", num_classes=10)
        >>> zoo.create_model("cnn", spec, channels=[16, 32])(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    compiles = True

    def __init__(
        self,
        *,
        channels: Sequence[int] = (32, 64, 64),
        kernel_size: int = 3,
        pool: Literal["max", "avg", "none"] = "max",
        batch_norm: bool = True,
        residual: bool = False,
        dropout: float = 0.0,
        spatial_dropout: float = 0.0,
        initialization: Initialization | None = None,
        layers: Literal["torch", "zoo"] = "torch",
    ) -> None:
        super().__init__()
        channels = list(channels)
        self.save_hyperparameters()
        if not channels or min(channels) < 1:
            raise ZooError(f"model.channels must be one or more numbers of at least 1, not {channels}.")
        check_range("kernel_size", kernel_size, 1)
        if kernel_size % 2 == 0:
            raise ZooError(f"model.kernel_size must be odd, such as {kernel_size + 1}, not {kernel_size}.")
        check_range("dropout", dropout, 0, 1)
        check_range("spatial_dropout", spatial_dropout, 0, 1)
        self.channels, self.kernel_size, self.pool, self.batch_norm = channels, kernel_size, pool, batch_norm
        self.residual, self.dropout, self.layers = residual, dropout, layers

    def initialize(self, spec: DataSpec) -> None:
        ops: ModuleType = convolution if self.layers == "zoo" else nn
        stage = ResidualStage if self.residual else ConvStage
        pool = {"max": ops.MaxPool2d, "avg": ops.AvgPool2d, "none": None}[self.pool]
        stages: list[nn.Module] = []
        width = spec.shape[0]
        for next_width in self.channels:
            stages.append(stage(width, next_width, self.kernel_size, self.batch_norm, ops))
            if pool is not None:
                stages.append(Halve(pool))
            if self.hparams.spatial_dropout:
                stages.append(Dropout2d(self.hparams.spatial_dropout))
            width = next_width
        # With the channels of a pixel side by side in memory, torch's kernels take half the time.
        self.stages = nn.Sequential(*stages).to(memory_format=torch.channels_last)
        self.drop = nn.Dropout(self.dropout)
        self.head = nn.Linear(width, self.objective.num_outputs)
        if self.hparams.initialization is not None:
            initialize(self, self.hparams.initialization)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(x).mean((-2, -1))  # (B, C, H, W) → (B, C_L)
        return self.head(self.drop(features))  # (B, outputs)

    @property
    def first_convolution(self) -> nn.Module:
        """The convolution that sees the image itself."""
        stage: Any = self.stages[0]
        return stage.first.conv if self.residual else stage.conv

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        first = self.first_convolution
        answer = torch.relu(first(batch.x[:1])[0]) if batch.size else None  # (C, H, W)
        yield "filters", visual.filters(first.weight, answer)  # type: ignore[arg-type]
        if self.spec is not None and self.spec.target == "class" and batch.y is not None:
            wrong = (columns["prediction"] != batch.y).nonzero().squeeze(1)[:24]
            if len(wrong):
                yield "misclassified", misclassified(batch, columns["prediction"], wrong, self.spec)


def misclassified(batch: Batch, predicted: Tensor, rows: Tensor, spec: DataSpec) -> Figure:
    """Draw the images of the given rows under their true and predicted classes."""
    from zoo import visual

    assert batch.y is not None
    names = spec.class_names or tuple(map(str, range(spec.num_classes or 0)))
    pairs = zip(batch.y[rows].tolist(), predicted[rows].tolist(), strict=True)
    captions = [f"{names[true][:8]}→{names[guess][:8]}" for true, guess in pairs]
    return visual.images(batch.x[rows], captions, title=visual.titled("misclassified (true → predicted)"))
