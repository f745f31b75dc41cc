"""Encoders, and encoders with decoders, on our layers beside the same models on torch's built-in ones, of the same
weights: training steps, and passes forward without gradients.

`seq2seq` is recurrent, with attention; it stands here because it answers the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

import zoo
from benchmarks import Job
from benchmarks._grid import name_of
from zoo.data.spec import Batch

VOCABULARY = 500
MODELS = ("transformer_encoder", "transformer", "seq2seq")
GRID = (  # rows B, width, steps T
    (1, 64, 16), (1, 256, 256), (16, 32, 8), (16, 128, 32), (32, 64, 128), (256, 64, 16), (8, 512, 64),
)  # fmt: skip


def example(name: str, rows: int, steps: int) -> tuple[zoo.DataSpec, Batch]:
    """Texts of a class, or pairs of texts, that end anywhere in their second half."""
    generator = torch.Generator().manual_seed(0)

    def texts() -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.randint((steps + 1) // 2, steps + 1, (rows, 1), generator=generator)
        lengths[0] = steps
        return torch.randint(VOCABULARY, (rows, steps), generator=generator), torch.arange(steps) < lengths

    tokens, mask = texts()
    if name == "transformer_encoder":
        spec = zoo.DataSpec("tokens", (steps,), "class", num_classes=5, vocab_size=VOCABULARY)
        return spec, Batch(tokens=tokens, mask=mask, y=torch.randint(5, (rows,), generator=generator))
    spec = zoo.DataSpec("pairs", (steps, steps), "tokens", vocab_size=VOCABULARY)
    target, target_mask = texts()
    y = target.roll(-1, 1).masked_fill(~target_mask, -100)
    return spec, Batch(source=tokens, source_mask=mask, target=target, target_mask=target_mask, y=y)


def calls(name: str, layers: str, rows: int, width: int, steps: int) -> dict[str, Callable[[], Any]]:
    """A training step, and a pass forward."""
    spec, batch = example(name, rows, steps)
    torch.manual_seed(0)
    model: Any = zoo.create_model(name, spec, hidden_size=width, layers=layers)

    def step() -> None:
        if not model.training:
            model.train()
        model.zero_grad()
        model.training_loss(batch).backward()

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        if model.training:
            model.eval()
        return model.output(batch)

    return {"a training step": step, "forward": forward}


def grid() -> Iterator[Job]:
    """Yield steps and passes of models of all shapes."""
    for name in MODELS:
        for rows, width, steps in GRID:
            ours, peer = calls(name, "zoo", rows, width, steps), calls(name, "torch", rows, width, steps)
            where = {"rows": rows, "width": width, "steps": steps}
            for what in ours:
                yield Job(
                    f"{name}, {what}, {name_of(**where)}", ours[what], peer[what], "torch's layers",
                    where=where, quick=rows * steps * width**2 < 1e7,
                )  # fmt: skip
