"""What the Checkpointer keeps: only states that are finite, and of every process its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import CPU, bits, compose, create

import zoo
from zoo.errors import ZooError
from zoo.training.run import build
from zoo.training.trainer import make_trainer, seed_all

MLP = ["model=mlp", "data=iris", "model.batch_norm=true", "trainer.max_epochs=2", CPU]


@pytest.mark.parametrize("broken", ["weight", "running_var"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_neither_checkpoint_is_written_of_a_state_that_is_not_finite(broken: str, value: float, tmp_path: Path) -> None:
    """The number breaks at the end of a validation whose value is the best so far."""
    model, data = build(compose(*MLP))
    names = [name for name in model.state_dict() if name.endswith(broken)]
    trainer = make_trainer(model, run_dir=tmp_path, checkpoint_seconds=1000, max_epochs=2, accelerator="cpu",
                           progress=False, logger=False)  # fmt: skip
    end = model.on_validation_epoch_end

    def breaks() -> None:
        end()
        if trainer.current_epoch == 1:
            trainer.callback_metrics[model.monitor] = torch.tensor(0.0 if model.monitor_mode == "min" else 2.0)
            model.state_dict(keep_vars=True)[names[-1]].data.fill_(value)

    model.on_validation_epoch_end = breaks  # type: ignore[method-assign]
    model.monitor, model.monitor_mode = "val/loss", "min"
    with pytest.raises(ZooError, match=f"{names[-1]} is not finite at step .*no checkpoint was written"):
        trainer.fit(model, datamodule=data)
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept["state_dict"].values())
    assert kept["epoch"] == 0
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_each_process_goes_on_with_the_state_of_its_own_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = zoo.DataSpec("tokens", (5,), "tokens", vocab_size=7, stream=True)
    models = [create(name, spec) for _ in range(2)]
    states: list[Any] = []
    for rank, model in enumerate(models):
        model._trainer = SimpleNamespace(world_size=2, global_rank=rank)  # type: ignore[assignment]
        torch.manual_seed(rank)
        model._carried["train"] = model.run(torch.randint(7, (3, 5)))[1]
        states.append(model._carried["train"])

    def gather(into: list[Any], mine: Any) -> None:
        into[:] = states

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    checkpoint: dict[str, Any] = {"state_dict": {}}
    models[0].on_save_checkpoint(checkpoint)
    for rank, model in enumerate(models):
        model._carried.clear()
        model.on_load_checkpoint(checkpoint)
        torch.testing.assert_close(model._carried["train"], states[rank], rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_that_ends_by_its_steps_is_validated_there_and_may_go_on(steps: int, tmp_path: Path) -> None:
    """Of two batches an epoch: within the first epoch, at its end, and within the second."""

    def run(folder: Path, until: int) -> Any:
        seed_all(0)
        model, data = build(compose("model=mlp", "data=iris", "data.batch_size=64", CPU))
        trainer = make_trainer(model, run_dir=folder, max_steps=until, accelerator="cpu", progress=False, logger=False)
        last = folder / "checkpoints" / "last.ckpt"
        trainer.fit(model, datamodule=data, ckpt_path=str(last) if last.exists() else None)
        return trainer

    trainer = run(tmp_path / "a", steps)
    assert not trainer.should_stop
    last, best = (torch.load(tmp_path / "a" / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("last", "best"))
    assert last["global_step"] == steps
    assert "val/loss" in trainer.callback_metrics
    if steps == 1:
        assert best["global_step"] == 1
    assert run(tmp_path / "a", 5).global_step == 5
    run(tmp_path / "straight", 5)
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("a", "straight")]
    assert bits(ends[0]["state_dict"]) == bits(ends[1]["state_dict"])
    assert ends[0]["epoch"] == ends[1]["epoch"]
