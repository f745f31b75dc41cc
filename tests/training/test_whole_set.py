"""training=batch, stochastic, minibatch: steps over all rows in chunks of any size, over one, over some."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import CPU, checkpoint_bits, compose, run_command

import zoo
from zoo.training.run import build
from zoo.training.trainer import make_trainer, seed_all

MLP = ["model=mlp", "data=iris", "model.widths=[6]", "model.activation=tanh", "trainer.precision=64-true", CPU]


def weights(*overrides: str, epochs: int = 4, **options: object) -> dict[str, torch.Tensor]:
    settings = compose(*MLP, *overrides)
    seed_all(0)
    model, data = build(settings)
    options = {"accelerator": "cpu", "precision": "64-true", "max_epochs": epochs, "progress": False, **options}
    make_trainer(model, **options).fit(model, datamodule=data)  # type: ignore[arg-type]
    return model.state_dict()


@pytest.mark.parametrize(
    "extra", [[], ["regularization=elastic_net", "regularization.l1=0.01"]], ids=["plain", "penalty"]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_chunks_of_any_size_end_in_the_weights_of_one_batch(extra: list[str], optimizer: str) -> None:
    options = [f"optimizer={optimizer}", "optimizer.lr=0.05", *extra]
    whole = weights("data.batch_size=0", *options)
    for size in (7, 40, 1000):
        chunks = weights(f"data.batch_size={size}", *options, whole_set=True)
        for key, value in whole.items():
            assert torch.allclose(value, chunks[key], rtol=1e-12, atol=1e-12), (size, key)


def test_tokens_count_as_they_do_in_one_batch() -> None:
    """Texts of different lengths: the mean is over tokens, which a mean of the batches' means is not."""
    torch.manual_seed(0)
    texts = ["a bc", "def ghij klm", "n", "opqr stu vw xyz", "abc", "de fg"]

    def trained(size: int, **options: object) -> dict[str, torch.Tensor]:
        model = zoo.create_model("mlp", widths=[4], embedding_size=3)
        zoo.fit(
            model,
            texts,
            ["x", "y"] * 3,
            batch_size=size,
            max_epochs=3,
            text="tokens",
            optimizer="sgd",
            lr=0.5,
            **options,
        )
        return model.state_dict()

    whole, chunks = trained(0), trained(4, whole_set=True)
    assert all(torch.allclose(whole[key], chunks[key], rtol=1e-5, atol=1e-6) for key in whole)


def test_weights_of_rows_are_weighed_over_all_chunks() -> None:
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    y, w = (x[:, 0] > 0).long(), torch.arange(1.0, 31.0)

    def trained(size: int, **options: object) -> dict[str, torch.Tensor]:
        model = zoo.create_model("mlp", widths=[4])
        zoo.fit(model, x, y, sample_weight=w, batch_size=size, max_epochs=5, optimizer="sgd", lr=0.5, **options)
        return model.state_dict()

    whole, chunks = trained(0), trained(7, whole_set=True)
    assert all(torch.allclose(whole[key], chunks[key], rtol=1e-5, atol=1e-6) for key in whole)


def test_clipping_and_the_drawn_norm_see_the_mean_gradient() -> None:
    options = ["optimizer=sgd", "optimizer.lr=1.0"]
    whole = weights("data.batch_size=0", *options, gradient_clip_val=0.01)
    chunks = weights("data.batch_size=16", *options, gradient_clip_val=0.01, whole_set=True)
    assert all(torch.allclose(whole[key], chunks[key], rtol=1e-11, atol=1e-12) for key in whole)


def test_the_command_line_sets_rows_and_a_rate_that_suits(tmp_path: Path) -> None:
    steps = {}
    for method in ("batch", "stochastic", "minibatch"):
        folder = tmp_path / method
        command = [*MLP, f"training={method}", "trainer.max_epochs=2", "logger=[]", f"run_dir={folder}"]
        assert run_command(command) == 0
        config = OmegaConf.load(folder / "config.yaml")
        steps[method] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        usual = compose(*MLP)
        rows = {"batch": 105, "stochastic": 1, "minibatch": usual["data"]["batch_size"]}[method]
        expected = usual["optimizer"]["lr"] * math.sqrt(rows / usual["data"]["batch_size"])
        assert config.optimizer.lr == pytest.approx(expected)
        assert json.loads((folder / "metrics.json").read_text())
        if method == "minibatch":  # which changes no setting
            continue
        before = checkpoint_bits(folder / "checkpoints" / "last.ckpt")
        assert run_command(command) == 0  # nothing is left to do, and the settings are the same
        assert checkpoint_bits(folder / "checkpoints" / "last.ckpt") == before
    assert steps["batch"] == 2
    assert steps["stochastic"] == 2 * 105
    said = [
        *MLP,
        "training=batch",
        "optimizer.lr=0.3",
        "trainer.max_epochs=1",
        "logger=[]",
        f"run_dir={tmp_path / 'said'}",
    ]
    assert run_command(said) == 0
    assert OmegaConf.load(tmp_path / "said" / "config.yaml").optimizer.lr == 0.3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=mlp", "data=iris", "training=batch", "optimizer=lbfgs"], "pass data.batch_size=0"),
        (["model=mlp", "data=iris", "training=stochastic", "data.batch_size=8"], "leave data.batch_size out"),
        (["model=kmeans", "training=batch"], "training=batch does nothing for kmeans"),
        (["model=mlp", "data=iris", "training.name=all"], "training.name must be one of batch, stochastic, minibatch"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    overrides: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*overrides, CPU, f"run_dir={tmp_path / 'run'}"]) == 1
    assert words in capsys.readouterr().err


def test_in_python_too_a_step_of_many_evaluations_is_over_one_batch() -> None:
    x = torch.randn(9, 2)
    with pytest.raises(zoo.ZooError, match="lbfgs evaluates the loss anew within a step"):
        zoo.fit(zoo.create_model("mlp", widths=[2]), x, x[:, 0], optimizer="lbfgs", whole_set=True)
