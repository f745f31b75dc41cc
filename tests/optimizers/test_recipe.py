"""Optimizers by name: whose they are, which parameters each of their groups holds, and those that torch has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import CPU, run_command
from torch import nn

import zoo
from zoo.errors import ZooError
from zoo.optimizers import OPTIMIZERS, SCHEDULERS, Lion, Muon, Recipe
from zoo.optimizers.base import RawOptimizer
from zoo.optimizers.muon import orthogonalized
from zoo.training.main import config_dir
from zoo.training.run_config import read_config

BUILT_IN = sorted(name for name, cls in OPTIMIZERS.items() if getattr(cls, "built_in", None))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_source_says_whose_optimizer_it_is(name: str) -> None:
    module = nn.Linear(3, 2)
    assert type(Recipe(name, {}).build_optimizer(module)) is OPTIMIZERS[name]
    assert isinstance(Recipe(name, {"source": "zoo"}).build_optimizer(module), RawOptimizer)
    built_in: Any = OPTIMIZERS[name].built_in  # type: ignore[attr-defined]
    assert type(Recipe(name, {"source": "torch"}).build_optimizer(module)) is built_in


def test_adafactor_takes_its_eps_from_a_config_as_a_list() -> None:
    configured = yaml.safe_load((config_dir() / "optimizer" / "adafactor.yaml").read_text())
    options = {key: value for key, value in configured.items() if key != "name"}
    assert type(options["eps"]) is list
    optimizer = Recipe("adafactor", options).build_optimizer(nn.Linear(3, 2))
    assert optimizer.defaults["eps"] == (None, 0.001)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"tsne"}))
def test_one_cycle_is_the_rate_of_every_optimizer(name: str) -> None:
    optimizer = Recipe(name, {"lr": 0.5}).build_optimizer(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    schedule = SCHEDULERS["one_cycle"](optimizer, 10, max_lr=0.1)
    rates = []
    for _ in range(9):
        optimizer._opt_called = True  # no step is needed to ask for the rates
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[-1] < 1e-3


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(ZooError, match=r"optimizer.source must be one of zoo, torch, not 'apex'"):
        Recipe("adam", {"source": "apex"})
    with pytest.raises(ZooError, match="'lion' has no option 'source'"):
        Recipe("lion", {"source": "torch"})


def trained(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    small = ["model=mlp", "data=iris", "model.widths=[8]", "model.dropout=0.1", "trainer.max_epochs=2", CPU]
    assert run_command([*small, "logger=[]", f"run_dir={folder}", *overrides]) == 0
    return zoo.load_model(folder / "checkpoints" / "last.ckpt").state_dict()


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_a_run_ends_in_the_same_bits_with_either(name: str, tmp_path: Path) -> None:
    options = [f"optimizer={name}", *(["optimizer.max_iter=3"] if name == "lbfgs" else [])]
    ours = trained(tmp_path / "ours", *options)
    theirs = trained(tmp_path / "theirs", *options, "optimizer.source=torch")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_from_before_the_choice_goes_on(tmp_path: Path) -> None:
    """Its config says nothing of the source, and its checkpoint holds the state of torch's optimizer."""
    whole = trained(tmp_path / "whole", "optimizer.source=torch", "trainer.max_epochs=3")
    trained(tmp_path / "run", "optimizer.source=torch")
    config = tmp_path / "run" / "config.yaml"
    config.write_text("".join(line for line in config.open() if "source:" not in line))
    assert read_config(config)["optimizer"]["source"] == "zoo"
    again = trained(tmp_path / "run", "trainer.max_epochs=3")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_lion_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    theta, mean = rng.normal(size=(5, 4)), np.zeros((5, 4))
    parameter = nn.Parameter(torch.tensor(theta))
    optimizer = Lion([parameter], lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    for _ in range(30):
        gradient = rng.normal(size=theta.shape)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        theta = theta - 0.01 * (np.sign(0.8 * mean + 0.2 * gradient) + 0.1 * theta)
        mean = 0.95 * mean + 0.05 * gradient
    np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[parameter]["exp_avg"].numpy(), mean, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7)])
def test_the_step_of_muon_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    """About those of UVᵀ, whose directions it has: the matrix itself is badly conditioned."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    s = torch.logspace(0, -1.5, min(shape))
    made = orthogonalized(u @ torch.diag(s) @ vh, num_steps=6).float()
    assert made.shape == shape
    inner = u.T @ made @ vh.T
    assert (inner.diag() - 1).abs().max() < 0.45
    assert (inner - torch.diag(inner.diag())).abs().max() < 0.05


def test_muon_leaves_biases_norms_and_embeddings_to_adamw() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Conv2d(3, 2, 3))
    optimizer = Recipe("muon", {"lr": 0.02, "adamw_lr": 0.001}).build_optimizer(module)
    names = {id(p): name for name, p in module.named_parameters()}
    of_muon = {names[id(p)] for group in optimizer.param_groups if not group["adamw"] for p in group["params"]}
    assert of_muon == {"1.weight", "3.weight"}
    reference = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Conv2d(3, 2, 3))
    reference.load_state_dict(module.state_dict())
    theirs = torch.optim.AdamW(reference.parameters(), lr=0.001, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(5):
        for ours, other in zip(module.parameters(), reference.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            other.grad = ours.grad.clone()
        optimizer.step()
        theirs.step()
    for (name, ours), other in zip(module.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, other) == (name not in of_muon), name


def test_muon_of_no_recipe_takes_vectors_as_adamw_does() -> None:
    vector = nn.Parameter(torch.ones(3))
    optimizer = Muon([vector], lr=0.5, adamw_lr=None, weight_decay=0.0)
    vector.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    torch.testing.assert_close(vector.detach(), torch.tensor([0.5, 1.5, 0.5]))


@pytest.mark.parametrize("name", ["adafactor", "lion", "muon"])
def test_the_newer_ones_learn(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y, rate = (x[:, 0] * x[:, 1] > 0).long(), {"adafactor": 0.05, "lion": 3e-3, "muon": 0.05}[name]
    model = zoo.fit(zoo.create_model("mlp", widths=(16,)), x, y, optimizer=name, lr=rate, max_epochs=40)
    assert model.score(x, y) > 0.9
