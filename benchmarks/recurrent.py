"""Recurrent layers beside torch's own, with the kernels and without: training (forward and backward) and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import zoo.kernels
import zoo.layers
from benchmarks import Job
from benchmarks._grid import name_of

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


GRID = (  # rows B, hidden H, inputs, steps T
    (1, 20, 10, 10), (1, 512, 64, 100), (8, 64, 8, 200), (32, 16, 4, 50), (32, 128, 128, 64), (32, 512, 256, 32),
    (128, 64, 28, 28), (128, 256, 64, 32), (512, 32, 16, 20), (1_024, 128, 32, 16), (4_096, 8, 2, 50),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield steps forward and backward, and forward alone, of each kind of layer."""
    for kind in BOUNDS:
        for rows, hidden, inputs, steps in GRID:
            for dtype in (torch.float32, torch.float64):
                torch.manual_seed(0)
                modules = [getattr(home, kind)(inputs, hidden, dtype=dtype) for home in (zoo.layers, nn)]
                modules[1].load_state_dict(modules[0].state_dict())
                x = torch.randn(steps, rows, inputs, dtype=dtype)
                gradient = torch.randn(steps, rows, hidden, dtype=dtype)
                where = {"rows": rows, "hidden": hidden, "inputs": inputs, "steps": steps, "dtype": str(dtype)[6:]}
                work = steps * rows * (inputs + hidden) * hidden
                for way, runs in (("training", training), ("inference", inference)):
                    if dtype == torch.float64 and way == "inference":
                        continue
                    ours, peer = (runs(module, x, *([gradient] if way == "training" else []), 1) for module in modules)
                    yield Job(
                        f"{kind} {way}, {name_of(**where)}", ours, peer, f"torch.nn.{kind}", check=agree, where=where,
                        quick=work <= 5e7 and dtype == torch.float32,
                    )  # fmt: skip
