"""Steps of our optimizers against torch's foreach form of them, on ten million parameters in few and many tensors.

Muon stands beside torch's own, which has one form. Lion has no peer in torch: it stands beside AdamW, which keeps one
tensor more of each parameter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks import Job
from benchmarks._grid import name_of
from zoo.optimizers import SGD, Adafactor, Adagrad, Adam, AdamW, Lion, Muon, Recipe, RMSprop

CASES: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
    (Adam, {}),
    (Adam, {"amsgrad": True, "weight_decay": 1e-4}),
    (AdamW, {}),
    (RMSprop, {"momentum": 0.9, "centered": True}),
    (Adagrad, {}),
    (Adafactor, {}),
]
SHAPES = {"10 tensors": [(1000, 1000)] * 10, "200 tensors": [(316, 316), (316,)] * 100}


def parameters(shapes: list[Any], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters with gradients, the same in each call."""
    generator = torch.Generator().manual_seed(0)
    held = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    for parameter in held:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return held


def jobs() -> Iterator[Job]:
    """Yield the jobs."""
    for cls, options in CASES:
        for of, shapes in SHAPES.items():
            ours = cls(parameters(shapes), lr=1e-4, **options)
            peer = cls.built_in(parameters(shapes), lr=1e-4, foreach=True, **options)
            named = ", ".join(f"{key}={value}" for key, value in options.items())
            yield Job(
                f"{cls.__name__}({named}), {_of(of)}",
                ours.step,
                peer.step,
                "torch, foreach",
                pairs=15,
                bound=1.05,
            )
    for of, shapes in SHAPES.items():
        lion, adamw = Lion(parameters(shapes)), torch.optim.AdamW(parameters(shapes), foreach=True)
        yield Job(f"Lion(), {_of(of)}", lion.step, adamw.step, "torch's AdamW, foreach", pairs=15)
        matrices = [shape for shape in shapes if len(shape) == 2]
        muon, peer = Muon(parameters(matrices)), torch.optim.Muon(parameters(matrices))
        yield Job(f"Muon(), {_of(of)}, matrices alone", muon.step, peer.step, "torch", pairs=3, bound=1.05)


def _of(of: str) -> str:
    return f"a step, 10 million parameters in {of}, float32"


GRID = ((1_000, 2), (1_000, 50), (10_000, 4), (100_000, 4), (100_000, 100), (1_000_000, 6), (1_000_000, 300))
FUSED = (SGD, Adam, AdamW, Adagrad)  # of which torch has a step in one operation


def grid() -> Iterator[Job]:
    """Yield steps of the optimizers as a recipe makes them, beside that form of torch's which is fastest on a CPU."""
    for count, tensors in GRID:
        shapes = [(count // tensors // 4, 4)] * tensors
        for dtype in (torch.float32, torch.float64):
            where = {"parameters": count, "tensors": tensors, "dtype": str(dtype)[6:]}
            for cls, options in CASES:
                layers = nn.ParameterList(parameters(shapes, dtype))
                ours = Recipe(cls.__name__.lower(), {"lr": 1e-4, **options}).build_optimizer(layers)
                form = "fused" if cls in FUSED else "foreach"
                peer = cls.built_in(parameters(shapes, dtype), lr=1e-4, **{form: True}, **options)
                named = ", ".join(f"{key}={value}" for key, value in options.items())
                yield Job(
                    f"{cls.__name__}({named}), {name_of(**where)}", ours.step, peer.step, f"torch, {form}",
                    where=where, quick=count <= 100_000 and dtype == torch.float32,
                )  # fmt: skip
