"""Recurrent layers beside torch's own: a training step (forward and backward) and inference, at four sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import zoo.layers
from benchmarks import Job

SIZES = [(64, 32, 128, 256), (128, 64, 256, 512), (256, 8, 64, 128), (28, 128, 28, 128)]  # T, B, D, H


def training(module: nn.Module, x: Tensor, gradient: Tensor, times: int) -> Callable[[], Tensor]:
    """Steps of forward and backward; the result is the gradient of W_hh."""

    def run() -> Tensor:
        for _ in range(times):
            module.zero_grad()
            module(x)[0].backward(gradient)
        return module.weight_hh_l0.grad

    return run


def inference(module: nn.Module, x: Tensor, times: int) -> Callable[[], Tensor]:
    """Forward passes without gradients."""

    def run() -> Tensor:
        with torch.inference_mode():
            for _ in range(times):
                output = module(x)[0]
        return output

    return run


def agree(ours: Tensor, peer: Tensor) -> None:
    """Both did the same work."""
    assert (ours - peer).norm() <= 1e-4 * peer.norm()


def jobs() -> Iterator[Job]:
    for kind in ("LSTM", "GRU", "RNN"):
        for steps, rows, inputs, hidden in SIZES:
            torch.manual_seed(0)
            modules = [getattr(home, kind)(inputs, hidden) for home in (zoo.layers, nn)]
            modules[1].load_state_dict(modules[0].state_dict())
            x, gradient = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
            # several steps a call, so that a call is long beside the clock and the scheduler
            times = max(1, round(2e9 / (steps * rows * (inputs + hidden) * hidden)))
            size = f"(T, B, D, H) = {(steps, rows, inputs, hidden)}, {times} ×"
            ours, peer = (training(m, x, gradient, times) for m in modules)
            yield Job(f"{kind} training, {size}", ours, peer, f"torch.nn.{kind}", pairs=11, check=agree)
            ours, peer = (inference(m, x, times) for m in modules)
            yield Job(f"{kind} inference, {size}", ours, peer, f"torch.nn.{kind}", pairs=11, check=agree)
