"""Two processes that hold a share of each layer (FSDP2) end where one process ends that holds them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, TINY, checkpoint_bits, run_command, spawn

import zoo
from zoo.errors import ZooError
from zoo.optimizers import Recipe
from zoo.training.checkpoint import load_model
from zoo.training.shares import ShareStrategy
from zoo.training.trainer import make_trainer

TEXT = [
    "data=text_file",
    "data.path=text.txt",
    "data.sequence_length=8",
    "data.tokenizer=char",
    "data.val_fraction=0.1",
]
MODELS = {
    "gpt": [*TEXT, "histograms=true"],
    "bert": [*TEXT, "model.layers=torch"],
    "transformer": ["data=dates", "data.num_pairs=400"],
    "transformer_encoder": ["data=digits", "model.readout=cls"],
}
STEPS = ["trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.check_val_every_n_epoch=null", "seed=3",
         "trainer.log_every_n_steps=2", "regularization=gradient_clipping", "scheduler=none",
         "model.dropout=0.0", CPU]  # fmt: skip


def run(folder: Path, name: str, devices: int, *more: str) -> dict[str, float]:
    """Train from the command line; return the metrics that the run ends with."""
    (folder / "text.txt").write_text("the cat sat on the mat. " * 40)
    sharing = ["trainer.strategy=fsdp", "trainer.devices=2"] if devices == 2 else []
    batch = f"data.batch_size={8 // devices}"
    process = spawn([f"model={name}", *TINY[name], *MODELS[name], *STEPS, *sharing, batch, *more], folder)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    place = next((option.removeprefix("run_dir=") for option in more if option.startswith("run_dir=")), "run")
    assert "Not all pictures" not in said
    return json.loads((folder / place / "metrics.json").read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_with_a_share_each_end_as_one(name: str, tmp_path: Path) -> None:
    one, two = (run(tmp_path, name, devices, f"run_dir=run{devices}") for devices in (1, 2))
    assert one.keys() == two.keys()
    for key, value in one.items():
        if not key.startswith("train/"):  # which the first process says of its own rows
            assert two[key] == pytest.approx(value, rel=1e-6 if key == "val/loss" else 1e-4), key
    files = [sorted(path.name for path in (tmp_path / f"run{n}" / "pictures").iterdir()) for n in (1, 2)]
    assert files[0] == files[1] != []
    models = [load_model(tmp_path / f"run{n}" / "checkpoints" / "last.ckpt") for n in (1, 2)]
    for key, value in models[0].state_dict().items():
        if not key.endswith("in_proj_bias"):  # of the keys it has no gradient but rounding, of which Adam makes steps
            torch.testing.assert_close(models[1].state_dict()[key], value, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.slow
def test_a_resumed_run_of_shares_ends_in_the_same_bits(tmp_path: Path) -> None:
    run(tmp_path, "gpt", 2, "run_dir=whole")
    run(tmp_path, "gpt", 2, "run_dir=parts", "trainer.max_steps=4")
    run(tmp_path, "gpt", 2, "run_dir=parts")
    whole, parts = (tmp_path / place / "checkpoints" / "last.ckpt" for place in ("whole", "parts"))
    assert checkpoint_bits(whole) == checkpoint_bits(parts)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_what_has_no_layers_to_share_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["model=mlp", "data=iris", "trainer.strategy=fsdp", "trainer.devices=2", f"run_dir={tmp_path / 'run'}"]
    assert run_command([*command, CPU]) == 1
    assert capsys.readouterr().err == (
        "error: strategy=fsdp shares out transformer layers, and mlp has none: pass strategy=ddp.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        ({}, {"averaging": "ema"}, "averaging asks for all: leave it out"),
        ({"l2": 0.1}, {}, r"regularization\.l2 asks for all: take optimizer\.weight_decay"),
        ({"optimizer": "muon"}, {}, "optimizer=muon looks at whole matrices"),
        ({"weight_noise": 0.1}, {}, r"regularization\.weight_noise asks for all: leave it out"),
    ],
)
def test_what_asks_for_whole_weights_is_one_line(recipe: dict[str, Any], options: dict[str, Any], says: str) -> None:
    model = zoo.create_model("gpt")
    model.train_by(Recipe(**recipe))
    with pytest.raises(ZooError, match=says):
        make_trainer(model, strategy="fsdp", devices=2, accelerator="cpu", **options)


def test_a_share_of_a_model_predicts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = zoo.DataSpec("tokens", (4,), "tokens", vocab_size=5)
    model: Any = zoo.create_model("gpt", spec, num_layers=1, num_heads=1, hidden_size=4)
    assert isinstance(make_trainer(model, strategy="fsdp", devices=2, accelerator="cpu").strategy, ShareStrategy)
    monkeypatch.setattr(type(model), "_is_shared", True)
    with pytest.raises(ZooError, match=r"zoo.load_model\(RUN\) has it whole"):
        model.generate("a")
