"""Recurrent layers beside torch's own, with the kernels and without: training (forward and backward) and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import zoo.kernels
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


def pair(kind: str, size: tuple[int, ...], way: str, pairs: int, bound: float) -> Iterator[Job]:
    """Training and inference of one kind of layer at one size."""
    steps, rows, inputs, hidden = size
    torch.manual_seed(0)
    modules = [getattr(home, kind)(inputs, hidden) for home in (zoo.layers, nn)]
    modules[1].load_state_dict(modules[0].state_dict())
    x, gradient = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
    # several steps a call, so that a call is long beside the clock and the scheduler
    times = max(1, round(2e8 / (steps * rows * (inputs + hidden) * hidden)))
    name = f"(T, B, D, H) = {size}, {times} ×, threads={torch.get_num_threads()}, {way}"
    options: dict = {"pairs": pairs, "check": agree, "bound": bound}
    ours, peer = (training(m, x, gradient, times) for m in modules)
    yield Job(f"{kind} training, {name}", ours, peer, f"torch.nn.{kind}", **options)
    ours, peer = (inference(m, x, times) for m in modules)
    yield Job(f"{kind} inference, {name}", ours, peer, f"torch.nn.{kind}", **options)


def jobs() -> Iterator[Job]:
    for kind in ("LSTM", "GRU", "RNN"):
        for size in SIZES:
            yield from pair(kind, size, str(zoo.kernels.status()), pairs=9, bound=1)
    zoo.kernels.use(False)  # as ZOO_KERNELS=0
    for kind in ("LSTM", "GRU", "RNN"):
        for size in SIZES:
            yield from pair(kind, size, "without kernels", pairs=5, bound=4)
    zoo.kernels.use(True)
