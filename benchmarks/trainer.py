"""What train.py costs: a step of an mlp, a cnn and an lstm behind the first epoch, beside a plain loop over tensors.

Ours has all that a run has (checkpoints, TensorBoard, gauges, progress, signals); the peer has the same layers, torch's
own optimizer and nothing else. Both take batches of 64.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch import Tensor, nn

import zoo
from benchmarks import Job
from benchmarks.predict import train
from zoo.data.array_data import ArrayData

BATCH, EPOCHS, CLASSES = 64, 3, 10
CASES = {  # rows, the shape of one, what is said of the model
    "mlp": (25_600, (64,), "model.widths=[128,128]"),
    "cnn": (12_800, (1, 8, 8), "model.channels=[16,32]"),
    "lstm": (12_800, (8, 8), "model.hidden_size=64"),
}


def plain_loop(model: nn.Module, x: Tensor, y: Tensor, clip: float | None) -> float:
    """Train in a plain loop; returns the microseconds of a step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    taken, steps = 0.0, 0
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            steps += epoch > 0
        taken += (time.perf_counter() - began) * (epoch > 0)
    return taken / steps * 1e6


def by_train(*overrides: str) -> float:
    """Train by train.py in this process; returns the microseconds of a step."""
    taken: list[float] = []
    usual = _TrainingEpochLoop.run

    def timed(loop: _TrainingEpochLoop, fetcher: object) -> None:
        began = time.perf_counter()
        usual(loop, fetcher)  # type: ignore[arg-type]
        taken.append((time.perf_counter() - began) / loop.batch_progress.current.completed)

    with mock.patch.object(_TrainingEpochLoop, "run", timed), tempfile.TemporaryDirectory() as folder:
        train(*overrides, f"run_dir={folder}/run")
    return sum(taken[1:]) / len(taken[1:]) * 1e6


def jobs() -> Iterator[Job]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, (rows, shape, widths) in CASES.items():
            inputs, targets = Path(folder, f"{name}_x.npy"), Path(folder, f"{name}_y.npy")
            x, y = rng.standard_normal((rows, *shape)).astype("float32"), rng.integers(0, CLASSES, rows)
            np.save(inputs, x)
            np.save(targets, y)

            def ours(name: str = name, widths: str = widths, inputs: Path = inputs, targets: Path = targets) -> float:
                return by_train(
                    f"model={name}", widths, "data=npy", f"data.path={inputs}", f"data.target={targets}",
                    "data.val_fraction=0", "data.test_fraction=0", f"data.batch_size={BATCH}", "optimizer.lr=0.001",
                    f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu",
                )  # fmt: skip

            def peer(name: str = name, widths: str = widths, x: np.ndarray = x, y: np.ndarray = y) -> float:
                option, value = widths.removeprefix("model.").split("=")
                sizes = [int(size) for size in value.strip("[]").split(",")]
                model = zoo.create_model(name, **{option: sizes if "[" in value else sizes[0]})
                inputs, classes = torch.from_numpy(x), torch.from_numpy(y)
                model.build(ArrayData(inputs, classes).spec)
                return plain_loop(model, inputs, classes, 1.0 if name == "lstm" else None)

            yield Job(f"{name} {widths.split('.')[1]}, {shape}, batches of {BATCH}", ours, peer, "a plain loop",
                      unit="µs a step", bound=1.15)  # fmt: skip
