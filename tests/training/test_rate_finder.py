"""find_lr=true: a rate that lowers the loss, found on a copy: the training that follows differs in nothing else."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from support import CPU, TINY, bits, compose, run_command

import zoo
import zoo.training.run
from zoo.training.rate_finder import find_rate, range_test, smooth
from zoo.training.run import build
from zoo.training.trainer import make_trainer, seed_all

RATES = [10 ** (-7 + t / 15) for t in range(120)]


def test_the_smoothed_loss_is_a_mean_that_leaves_lines_and_constants_alone() -> None:
    assert torch.allclose(smooth(torch.full((9,), 3.0).double(), 2.0), torch.full((9,), 3.0).double(), atol=1e-14)
    line = smooth(torch.arange(60.0).double(), 2.0)
    assert torch.allclose(line[20:40], torch.arange(20.0, 40.0).double(), atol=1e-12)


@pytest.mark.parametrize("steepest", [1e-4, 1e-2, 0.3])
def test_under_noise_the_steepest_descent_is_found_within_a_factor_of_two(steepest: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = 0.03 * torch.randn(len(RATES), generator=generator).double()
        losses = [2.3 - 2 / (1 + (steepest / rate) ** 2) + float(e) for rate, e in zip(RATES, noise, strict=True)]
        found = find_rate(RATES, losses).suggestion
        assert found is not None
        assert abs(math.log2(found / steepest)) < 1


def test_noise_and_rising_losses_have_no_rate() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = [(1 + 0.1 * torch.randn(len(RATES), generator=generator)).tolist() for _ in range(20)]
    assert sum(find_rate(RATES, losses).suggestion is not None for losses in noise) <= 2
    assert find_rate(RATES, [1 + rate for rate in RATES]).suggestion is None
    assert find_rate(RATES[:4], [4.0, 3.0, 2.0, 1.0]).suggestion is None  # too short to tell


OPTIONS = ["model=mlp", "data=iris", "model.widths=[8]", "model.dropout=0.3", "data.batch_size=16", CPU]


def test_the_model_and_all_random_streams_are_left_as_they_were() -> None:
    settings = compose(*OPTIONS)
    ends = []
    for looked in (False, True):
        seed_all(0)
        model, data = build(settings)
        if looked:
            before, states = bits(model.state_dict()), (random.getstate(), str(np.random.get_state()))
            drawn = torch.get_rng_state()
            found = range_test(model, data, steps=40, accelerator="cpu")
            assert found.suggestion is not None
            assert 1e-5 < found.suggestion < 1
            assert bits(model.state_dict()) == before
            assert (random.getstate(), str(np.random.get_state())) == states
            assert torch.equal(torch.get_rng_state(), drawn)
        make_trainer(model, max_epochs=2, progress=False, accelerator="cpu").fit(model, datamodule=data)
        ends.append(bits(model.state_dict()))
    assert ends[0] == ends[1]


def test_a_run_says_the_rate_takes_it_and_goes_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = [*OPTIONS, "find_lr=true", "logger=[]", "diagnosis=false", f"run_dir={tmp_path / 'a'}"]
    assert run_command([*command, "trainer.max_epochs=1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    rate = zoo.training.run.read_config(tmp_path / "a/config.yaml")["optimizer"]["lr"]
    assert f"find_lr optimizer.lr={rate:.3g}, at which the loss fell fastest" in said
    lines = (tmp_path / "a/pictures/learning_rate.csv").read_text().splitlines()
    assert lines[0] == "learning_rate,loss,smoothed"
    assert len(lines) > 50
    assert (tmp_path / "a/pictures/learning_rate.png").exists()
    settings = compose(*command[:-1])  # going on, nothing is looked for again
    model, data = build(settings)
    settings, found = zoo.training.run._with_found_rate(model, data, settings, tmp_path / "a", [])
    assert (settings["optimizer"]["lr"], found) == (rate, None)
    assert model.recipe.optimizer_options["lr"] == rate


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["model=kmeans"], "find_lr=true does nothing for kmeans: it takes no steps"),
        (["model=mlp", "optimizer.lr=0.1"], "optimizer.lr=0.1 says it: leave one of the two out"),
        (["model=mlp", "scheduler=one_cycle"], "scheduler=one_cycle takes scheduler.max_lr"),
        (["model=mlp", "trainer.devices=2"], "find it with trainer.devices=1"),
    ],
)
def test_what_leaves_no_rate_to_find_is_refused(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_command([*options, "find_lr=true", f"run_dir={tmp_path / 'a'}", CPU]) == 1
    assert why in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in zoo.list_models() if not zoo.registry.model_entry(n).cls.streaming])
def test_every_model_of_steps_can_be_asked(name: str) -> None:
    settings = compose(f"model={name}", *TINY.get(name, []), CPU)
    seed_all(0)
    model, data = build(settings)
    if model.streaming or "steps" not in model.heeds:
        return
    before = bits(model.state_dict())
    found = range_test(model, data, accelerator="cpu")
    assert len(found.losses) > 20
    assert found.losses.isfinite().all()
    assert bits(model.state_dict()) == before
