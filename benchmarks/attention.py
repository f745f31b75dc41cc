"""Attention and transformer layers beside torch's own: training (forward and backward), one core.

Where there is a GPU: the kernels of attention in Triton beside torch's, time and memory, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo.kernels
import zoo.layers
from benchmarks import Job
from benchmarks._grid import name_of

SIZES = [(32, 128, 256, 8), (8, 512, 256, 8), (64, 32, 128, 4), (12, 64, 128, 4)]  # B, T, D, H
BOUND = 0.95  # at the first of these sizes, and wherever there is dropout
OTHER_BOUND = 1.05
LONG_BOUND = 1.25  # beside torch's flash kernel
GPU_STEPS, GPU_TOKENS = (1024, 2048, 4096, 8192, 16384), 16384  # of a row, and of all rows


def training(
    module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor
) -> Callable[[], Tensor]:
    """A step of forward and backward; the result is the gradient of the input."""
    leaf = x.clone().requires_grad_()

    def run() -> Tensor:
        module.zero_grad()
        leaf.grad = None
        forward(leaf).backward(gradient)
        assert leaf.grad is not None
        return leaf.grad

    return run


def agree(ours: Tensor, peer: Tensor) -> None:
    """Both did the same work: a ReLU's input near 0 that rounds to the other side moves the gradient of a row."""
    assert (ours - peer).norm() <= 1e-3 * peer.norm()


def attention(size: tuple[int, ...], dropout: float, need_weights: bool) -> Job:
    """`MultiheadAttention` of one size."""
    rows, steps, width, heads = size
    torch.manual_seed(0)
    modules = [home.MultiheadAttention(width, heads, dropout, batch_first=True) for home in (zoo.layers, nn)]
    modules[1].load_state_dict(modules[0].state_dict())
    x, gradient = torch.randn(rows, steps, width), torch.randn(rows, steps, width)
    runs = [
        training(m, lambda v, m=m: m(v, v, v, need_weights=need_weights)[0], x, gradient)  # type: ignore[misc]
        for m in modules
    ]
    name = f"attention, (B, T, D, H) = {size}, dropout={dropout}, weights={need_weights}"
    bound = BOUND if dropout or size == SIZES[0] else OTHER_BOUND if need_weights or steps < 512 else LONG_BOUND
    return Job(name, *runs, "torch.nn.MultiheadAttention", 11, bound, check=None if dropout else agree)


def encoder(size: tuple[int, ...], dropout: float, norm_first: bool) -> Job:
    """An encoder layer of one size, four times as wide inside."""
    rows, steps, width, heads = size
    torch.manual_seed(0)
    options: dict = {"dropout": dropout, "batch_first": True, "norm_first": norm_first}
    modules = [home.TransformerEncoderLayer(width, heads, 4 * width, **options) for home in (zoo.layers, nn)]
    modules[1].load_state_dict(modules[0].state_dict())
    x, gradient = torch.randn(rows, steps, width), torch.randn(rows, steps, width)
    runs = [training(m, m, x, gradient) for m in modules]
    name = f"encoder layer, (B, T, D, H) = {size}, dropout={dropout}, norm_first={norm_first}"
    bound = BOUND if dropout or size == SIZES[0] else OTHER_BOUND
    return Job(name, *runs, "torch.nn.TransformerEncoderLayer", 11, bound, check=None if dropout else agree)


def long(steps: int, is_causal: bool) -> Job:
    """The function on one long sequence."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, steps, 64, requires_grad=True) for _ in range(3))
    gradient = torch.randn(1, 1, steps, 64)

    def run(function: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(function(q, k, v, is_causal=is_causal), q, gradient)[0]

    name = f"one head of 64, T = {steps:,}, causal={is_causal}"
    functions = (zoo.layers.scaled_dot_product_attention, F.scaled_dot_product_attention)
    return Job(name, *map(run, functions), "torch's flash attention", 7, LONG_BOUND, check=agree)


def long_on_gpu(steps: int, dtype: torch.dtype, is_causal: bool, what: str) -> Job:
    """The function on 16 heads of 64 on a GPU: seconds `forward` or `both` ways, or the `memory` of both."""
    torch.manual_seed(0)
    rows = GPU_TOKENS // steps
    q, k, v, gradient = (torch.randn(rows, 16, steps, 64, device="cuda", dtype=dtype) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def run(function: Callable[..., Tensor]) -> Callable[[], Tensor | float]:
        def forward() -> Tensor:
            with torch.no_grad():
                return function(q, k, v, is_causal=is_causal)

        def both() -> Tensor:
            return torch.cat(torch.autograd.grad(function(q, k, v, is_causal=is_causal), leaves, gradient), -1)

        def memory() -> float:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.autograd.grad(function(q, k, v, is_causal=is_causal), leaves, gradient)
            return (torch.cuda.max_memory_allocated() - before) / 1e6

        return {"forward": forward, "both": both, "memory": memory}[what]  # type: ignore[return-value]

    def close(ours: Tensor, peer: Tensor) -> None:
        assert (ours - peer).norm() <= (2e-3 if dtype == torch.float16 else 2e-2) * peer.norm()

    name = f"(B, H, T, d) = {(rows, 16, steps, 64)}, {str(dtype)[6:]}, causal={is_causal}, {what}"
    functions = (zoo.layers.scaled_dot_product_attention, F.scaled_dot_product_attention)
    unit, check = ("MB", None) if what == "memory" else ("", close)
    return Job(name, *map(run, functions), "torch's flash attention", 11, LONG_BOUND, check=check, unit=unit)


def jobs() -> Iterator[Job]:
    yield from on_gpu() if torch.cuda.is_available() else on_cpu()


def on_gpu() -> Iterator[Job]:
    assert zoo.kernels.on_gpu(torch.cuda.current_device()), zoo.kernels.status()
    for dtype in (torch.float16, torch.bfloat16):
        for is_causal in (False, True):
            for steps in GPU_STEPS:
                for what in ("forward", "both", "memory"):
                    yield long_on_gpu(steps, dtype, is_causal, what)


def on_cpu() -> Iterator[Job]:
    for size in SIZES:
        for dropout, need_weights in ((0.0, True), (0.0, False), (0.1, False)):
            yield attention(size, dropout, need_weights)
        for dropout, norm_first in ((0.0, False), (0.1, False), (0.1, True)):
            yield encoder(size, dropout, norm_first)
    for is_causal in (False, True):
        for steps in (2048, 8192):
            yield long(steps, is_causal)


GRID = (  # rows B, width D, steps T, heads H
    (1, 64, 16, 4), (1, 256, 128, 8), (1, 512, 1_024, 8), (4, 64, 256, 2), (8, 32, 64, 4), (12, 128, 64, 4),
    (32, 128, 32, 4), (32, 256, 64, 8), (64, 64, 16, 4), (256, 32, 16, 2), (1_024, 16, 8, 2),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield attention and encoder layers of all shapes, with and without dropout."""
    if torch.cuda.is_available():
        return
    for rows, width, steps, heads in GRID:
        size = (rows, steps, width, heads)
        where = {"rows": rows, "width": width, "steps": steps, "heads": heads}
        for dropout in (0.0, 0.1):
            options: dict = {"where": where, "quick": rows * steps * width < 2e5, "pairs": 5}
            of = f"dropout {dropout}, {name_of(**where, dtype='float32')}"
            yield replace(attention(size, dropout, need_weights=False), name=f"attention, {of}", **options)
            yield replace(encoder(size, dropout, norm_first=True), name=f"encoder layer, {of}", **options)
