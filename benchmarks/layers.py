"""Models at their default sizes, `model.layers=zoo` beside `model.layers=torch`: what the default follows from.

A training step (forward, backward) and a pass forward without gradients, on the first batch of the data that the
model's config chooses, on one thread by CPU time. Where a step of ours takes more than 1.05 of the built-in ones' time,
those are the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

import zoo
from benchmarks import Job
from zoo.data.spec import Batch

WORDS = {"tokenizer": "wordpiece", "vocab_size": 2000, "special_tokens": ["pad", "unknown", "cls", "sep", "mask"]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("digits_rows", {}),
    "lstm": ("digits_rows", {}),
    "gru": ("digits_rows", {}),
    "seq2seq": ("dates", {}),
    "transformer": ("dates", {}),
    "transformer_encoder": ("digits", {}),
    "gpt": ("python_docs", {"sequence_length": 64, "batch_size": 12}),
    "bert": ("python_docs", WORDS),
    "cnn": ("digits", {}),
}
BOUND = 1.05


def calls(name: str, layers: str) -> dict[str, Callable[[], Any]]:
    """A training step, and a pass forward, of a model of default size, on a batch."""
    source, options = MODELS[name]
    data = zoo.create_data(source, **options)
    data.setup()
    torch.manual_seed(0)
    model: Any = zoo.create_model(name, data.spec, layers=layers)
    batch: Batch = next(iter(data.train_dataloader()))

    def step() -> None:
        model.train().zero_grad()
        model.training_loss(batch).backward()

    @torch.no_grad()
    def forward() -> None:
        model.eval().output(batch)

    return {"training step": step, "forward": forward}


def jobs() -> Iterator[Job]:
    for name in MODELS:
        ours, peer = calls(name, "zoo"), calls(name, "torch")
        for what in ours:
            where = {"model": name}
            yield Job(f"{name}, {what}", ours[what], peer[what], "model.layers=torch", bound=BOUND, where=where)
