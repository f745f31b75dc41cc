"""What is logged reaches TensorBoard's file: in order, with its own step and moment, however a run ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo.data.array_data import ArrayData
from zoo.training.logger import RunLogger
from zoo.training.trainer import make_trainer


def scalars(folder: Path, tag: str) -> list[tuple[float, int, float]]:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return (
        [(event.wall_time, event.step, event.value) for event in found.Scalars(tag)]
        if tag in found.Tags()["scalars"]
        else []
    )


def test_records_keep_their_moments_and_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 20.0, 30.0])
    logger = RunLogger(str(tmp_path))
    _ = logger.experiment
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: next(moments))
        patch.setattr(time, "monotonic", lambda: logger._flushed_at)  # a second is not over
        for step in range(3):
            logger.log_metrics({"a": step / 2, "b": torch.tensor(1.0)}, step=step)
    assert scalars(tmp_path, "a") == []  # TensorBoard's thread sleeps
    logger.experiment.add_scalar("a", 9.0, 3, walltime=40.0)  # who writes by himself finds all that was logged before
    logger.flush()
    assert scalars(tmp_path, "a") == [(10.0, 0, 0.0), (20.0, 1, 0.5), (30.0, 2, 1.0), (40.0, 3, 9.0)]
    assert [value for _, _, value in scalars(tmp_path, "b")] == [1.0] * 3


def test_a_second_later_all_is_to_be_seen(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path))
    logger._flushed_at -= 1
    logger.log_metrics({"a": 1.0}, step=0)
    assert len(scalars(tmp_path, "a")) == 1


@pytest.mark.parametrize("status", ["success", "failed"])
def test_nothing_is_lost_however_a_run_ends(tmp_path: Path, status: str) -> None:
    logger = RunLogger(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finalize(status)
    assert len(scalars(tmp_path, "a")) == 1


def test_what_was_logged_before_a_checkpoint_is_in_the_file_when_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(30, 2)
    model = zoo.create_model("mlp", widths=[2])
    trainer = make_trainer(
        model, run_dir=tmp_path, max_epochs=2, accelerator="cpu", progress=False, log_every_n_steps=1,
        checkpoint_seconds=0.0,
    )  # fmt: skip
    save, checkpoints = trainer.save_checkpoint, []

    def saved(path: Path, *args: object) -> None:
        save(path, *args)
        checkpoints.append(path)
        rows = [step for _, step, _ in scalars(tmp_path, "loss_by_rows/train")]
        assert rows == list(range(10, 10 * trainer.global_step + 1, 10))

    monkeypatch.setattr(trainer, "save_checkpoint", saved)
    trainer.fit(model, datamodule=ArrayData(x, (x[:, 0] > 0).long(), batch_size=10))
    assert len(checkpoints) > 3
