"""Two processes that hold a share of each layer (FSDP2) end where one process ends that holds them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import CHECKOUT

from zoo.training.checkpoint import load_model

SCRIPT = """
import json, sys
import zoo
from lightning.pytorch.strategies import ModelParallelStrategy
from zoo.optimizers import Recipe
from zoo.training.trainer import make_trainer, seed_all

devices, name = int(sys.argv[1]), sys.argv[2]
seed_all(0)
options = {"path": "text.txt", "sequence_length": 8, "tokenizer": "char", "val_fraction": 0.1, "test_fraction": 0.0}
data = zoo.create_data("text_file", batch_size=8 // devices, **options)
model = zoo.create_model(name, num_layers=2, num_heads=2, hidden_size=8, dropout=0.0)
model.train_by(Recipe("adamw", {"lr": 1e-2}))
model.build(data.spec)
shares = {"devices": 2, "strategy": ModelParallelStrategy(2, 1, save_distributed_checkpoint=False)}
trainer = make_trainer(model, run_dir=f"run{devices}", max_steps=4, accelerator="cpu", progress=False,
                       gradient_clip_val=1.0, logger=False, **(shares if devices == 2 else {}))
trainer.fit(model, datamodule=data)
if trainer.is_global_zero:
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    kept = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters())
    print("values " + json.dumps({"val/loss": values["val/loss"], "kept": kept}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_two_processes_with_a_share_each_end_as_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(SCRIPT)
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    said = []
    for devices in ("1", "2"):
        command = [sys.executable, "fit.py", devices, name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        line = next(line for line in done.stdout.splitlines() if line.startswith("values "))
        said.append(json.loads(line.removeprefix("values ")))
    assert said[1]["val/loss"] == pytest.approx(said[0]["val/loss"], rel=1e-6)
    assert 0.45 < said[1]["kept"] / said[0]["kept"] < 0.6  # about half of all numbers
    one, two = (load_model(tmp_path / f"run{devices}" / "checkpoints" / "last.ckpt") for devices in (1, 2))
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, rtol=1e-4, atol=1e-4)
