"""Convolution from raw tensors (im2col and a matrix product) beside torch's kernels: forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
import zoo.layers
from benchmarks import Job
from benchmarks._grid import name_of


def jobs() -> Iterator[Job]:
    for channels, out_channels, side in ((1, 32, 28), (32, 64, 14), (64, 128, 32)):
        peer = nn.Conv2d(channels, out_channels, 3, padding=1)
        ours = zoo.layers.Conv2d(channels, out_channels, 3, padding=1)
        ours.load_state_dict(peer.state_dict())
        x = torch.randn(64, channels, side, side, generator=torch.Generator().manual_seed(0))

        def step(layer: nn.Module, x: Tensor = x) -> Tensor:
            x = x.clone().requires_grad_()
            layer(x).square().sum().backward()
            return x.grad

        def check(a: Tensor, b: Tensor) -> None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

        name = f"convolution 3×3, 64 images {channels}×{side}×{side} to {out_channels}, forward and backward"
        yield Job(
            name,
            lambda layer=ours, step=step: step(layer),
            lambda layer=peer, step=step: step(layer),
            "torch.nn",
            bound=5,
            check=check,
        )


GRID = (  # rows, channels of each stage, channels in, side
    (1, (8,), 1, 8), (1, (32, 64), 3, 32), (8, (16, 32), 1, 28), (64, (16, 32), 1, 8), (64, (32, 64, 64), 1, 8),
    (64, (16, 32), 3, 32), (256, (8, 16), 1, 16), (1_024, (16,), 1, 8), (1, (64, 128), 3, 64),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield steps of `cnn` as it comes beside the same network of torch's modules."""
    for rows, channels, inputs, side in GRID:
        torch.manual_seed(0)
        spec = zoo.DataSpec("image", (inputs, side, side), "class", num_classes=10)
        ours = zoo.create_model("cnn", spec, channels=list(channels)).train()
        peer = plain(inputs, channels)
        x, y = torch.randn(rows, inputs, side, side), torch.randint(10, (rows,))
        where = {"rows": rows, "side": side, "channels": "-".join(map(str, channels)), "dtype": "float32"}

        def step(model: nn.Module, x: Tensor = x, y: Tensor = y) -> None:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()

        yield Job(
            f"cnn, forward and backward, {name_of(**where)}",
            lambda model=ours, step=step: step(model), lambda model=peer, step=step: step(model),
            "torch's modules", where=where, quick=rows * side * side * sum(channels) < 1e6,
        )  # fmt: skip


def plain(inputs: int, channels: tuple[int, ...]) -> nn.Module:
    """The network of `cnn` as one would write it with torch's modules."""
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *channels), channels, strict=False):
        convolved = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolved, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10))
