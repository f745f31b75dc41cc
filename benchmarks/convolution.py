"""Convolution from raw tensors (im2col and a matrix product) beside torch's kernels: forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import zoo.layers
from benchmarks import Job


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
