"""Recurrent layers beside torch's own, with the kernels and without: training (forward and backward) and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import zoo.kernels
import zoo.layers
from benchmarks import Job

SIZES = [(64, 32, 128, 256), (128, 64, 256, 512), (256, 8, 64, 128), (28, 128, 28, 128)]  # T, B, D, H
TINY = (10, 1, 10, 20)  # what a call costs, rather than what is computed
BOUNDS = {"LSTM": 0.95, "GRU": 0.42, "RNN": 0.40}
TINY_BOUNDS = {"LSTM": 0.90, "GRU": 0.33, "RNN": 0.63}  # of training; inference is to be no slower


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


def pair(
    kind: str, size: tuple[int, ...], way: str, pairs: int, training_bound: float, inference_bound: float
) -> Iterator[Job]:
    """Training and inference of one kind of layer at one size."""
    steps, rows, inputs, hidden = size
    torch.manual_seed(0)
    modules = [getattr(home, kind)(inputs, hidden) for home in (zoo.layers, nn)]
    modules[1].load_state_dict(modules[0].state_dict())
    x, gradient = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
    # several steps a call, so that a call is long beside the clock and the scheduler
    times = min(500, max(1, round(6e8 / (steps * rows * (inputs + hidden) * hidden))))
    name = f"(T, B, D, H) = {size}, {times} ×, threads={torch.get_num_threads()}, {way}"
    options: dict = {"pairs": pairs, "check": agree}
    ours, peer = (training(m, x, gradient, times) for m in modules)
    yield Job(f"{kind} training, {name}", ours, peer, f"torch.nn.{kind}", bound=training_bound, **options)
    ours, peer = (inference(m, x, times) for m in modules)
    yield Job(f"{kind} inference, {name}", ours, peer, f"torch.nn.{kind}", bound=inference_bound, **options)


def jobs() -> Iterator[Job]:
    for kind, bound in BOUNDS.items():
        for size in SIZES:
            yield from pair(kind, size, str(zoo.kernels.status()), 11, bound, 1.0 if kind == "LSTM" else bound)
        yield from pair(kind, TINY, str(zoo.kernels.status()), 21, TINY_BOUNDS[kind], 1.0)
    zoo.kernels.use(False)  # as ZOO_KERNELS=0
    for kind in BOUNDS:
        for size in SIZES:
            yield from pair(kind, size, "without kernels", 5, 4.0, 4.0)
    zoo.kernels.use(True)
