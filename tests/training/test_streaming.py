"""The invariant of streaming models: the same result for any batch size, order of rows and number of processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import (
    CPU,
    VARIANTS,
    assert_same,
    create,
    default_data,
    fitting_data,
    in_two_processes,
    label,
    model_config,
    piece_of,
    result,
    run_command,
    run_forked,
    tiny_batch,
    variant_data,
    variant_options,
)
from torch import Tensor

import zoo
from zoo.data.registry import create_data
from zoo.data.spec import Batch
from zoo.training.checkpoint import load_model
from zoo.training.run import build
from zoo.training.trainer import make_trainer, seed_all

# Long sequences of dependent steps enlarge the rounding of the first; the bound says by how much at most.
BOUNDS = {"tsne": 1e-3}


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=label)
def test_batch_sizes_and_the_order_of_rows_do_not_matter(name: str, hparams: dict[str, Any]) -> None:
    data = variant_data(name, hparams)
    batch = tiny_batch(data, 150)
    batch = Batch(*(c.double() if c is not None and c.is_floating_point() else c for c in batch))
    spec = replace(data.spec, dtype="float64")
    size, results = batch.size, []
    for batch_size, shuffled in [(size, False), (1, False), (7, False), (64, False), (7, True), (size, True)]:
        order = torch.randperm(size) if shuffled else torch.arange(size)
        model = create(name, spec, **hparams)
        pieces = [piece_of(batch, index) for index in order.split(batch_size)]
        values = model.fit_batches(lambda pieces=pieces: pieces)  # type: ignore[operator]
        results.append((f"batches of {batch_size}, shuffled {shuffled}", result(model, batch, values)))  # type: ignore[arg-type]
    for what, found in results[1:]:
        assert_same(found, results[0][1], BOUNDS.get(name, 1e-9), what)


def train_jobs(jobs: list[dict[str, Any]]) -> None:
    """Train as each job says, in this process, which may be one of two."""
    for job in jobs:
        settings = job["settings"]
        seed_all(settings["seed"])
        model, data = build(settings)
        options = {**settings["trainer"], "devices": job["devices"], "strategy": job["strategy"]}
        trainer = make_trainer(model, run_dir=job["folder"], progress=False, logger=False, **options)
        trainer.fit(model, datamodule=data)


def job(name: str, hparams: dict[str, Any], folder: Path, devices: int) -> dict[str, Any]:
    """A short training on the smallest data that fit, with a last batch that the processes cannot share evenly."""
    settings = {**model_config(name)}
    settings["model"] = {**settings["model"], **hparams}
    settings["data"] = variant_options(name, hparams)
    if settings["data"]["name"] == "csv":
        settings["data"]["batch_size"] = 26
    elif name == "glove":
        settings["data"]["batch_size"] = 31  # of 62 streams a text has another end than of 31
    elif "iris" in fitting_data(name):
        settings["data"] = {"name": "iris", "batch_size": 26}  # 105 rows: the last global batch of two has one
    settings["trainer"] = {**settings["trainer"], "accelerator": "cpu"}
    if name == "logistic_regression":  # separable classes have no minimum without a penalty
        settings["regularization"] = {**settings["regularization"], "l2": 1e-3}
    strategy = "ddp" if devices > 1 else "auto"
    return {
        "settings": settings,
        "folder": str(folder / name / label(hparams)),
        "devices": devices,
        "strategy": strategy,
    }


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Checkpoints of every streaming model, trained by one process and by two."""
    folders = {number: tmp_path_factory.mktemp(f"processes{number}") for number in (1, 2)}
    jobs = {n: [job(name, hparams, folder, n) for name, hparams in VARIANTS] for n, folder in folders.items()}
    in_two_processes(train_jobs, jobs[2])
    train_jobs(jobs[1])
    return folders


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=label)
def test_one_process_and_two_agree(name: str, hparams: dict[str, Any], one_and_two: dict[int, Path]) -> None:
    models = []
    for folder in one_and_two.values():
        models.append(load_model(folder / name / label(hparams) / "checkpoints" / "last.ckpt"))
    options = dict(job(name, hparams, Path(), 1)["settings"]["data"])
    batch = tiny_batch(create_data(options.pop("name"), **options), 1000)
    bound = BOUNDS.get(name, 1e-9)
    ours, theirs = (result(model, batch, {}) for model in models)  # type: ignore[arg-type]
    assert_same(ours, theirs, bound, "predictions")
    states = [{key: sorted_values(value) for key, value in model.state_dict().items()} for model in models]
    assert_same(states[1], states[0], bound, "state")


def sorted_values(value: Tensor) -> Tensor:
    """The values of a statistic without their order: processes collect rows in another one."""
    return value.double().flatten().sort().values


def test_two_processes_from_the_command_line(tmp_path: Path) -> None:
    command = ["model=linear_regression", CPU]
    assert run_command([*command, f"run_dir={tmp_path / 'one'}"]) == 0
    options = ["trainer.devices=2", "trainer.strategy=ddp", f"run_dir={tmp_path / 'two'}"]
    out = "\n".join(run_forked([*command, *options], tmp_path))
    assert out.count("run folder") == 2  # at the start and at the end, by the first process alone
    assert out.count("ended ") == out.count("diagnosis ") == 1
    one, two = (load_model(tmp_path / n / "checkpoints" / "last.ckpt") for n in ("one", "two"))
    assert torch.allclose(one.weight, two.weight, rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]


def test_a_statistic_that_is_not_finite_is_named() -> None:
    model = create("linear_regression")
    batch = tiny_batch(default_data("linear_regression"))
    batch.x[3, 2] = float("nan")
    with pytest.raises(zoo.ZooError, match="NaN"):
        model.fit_batches(lambda: [batch])  # type: ignore[operator]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_of_as_many_processes_goes_on_with_its_own_sums(world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(rank: int, size: int) -> Any:
        model = create("pca", default_data("pca").spec)
        model._trainer = SimpleNamespace(world_size=size, global_rank=rank)
        return model

    first, second = process(0, 2), process(1, 2)
    for model in (first, second):
        model.begin()
        model.accumulate(Batch(torch.randn(7, *first.spec.shape) + 3))
    states = [{name: value.clone() for name, value in model._state().items()} for model in (first, second)]
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, mine: found.__setitem__(slice(2), states))
    checkpoint: dict[str, Any] = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    rest = []
    for rank in range(world_size):
        model = process(rank, world_size)
        own = {**checkpoint, "state_dict": dict(checkpoint["state_dict"])}
        model.on_load_checkpoint(own)
        model.load_state_dict(own["state_dict"])
        model.on_train_start()
        rest.append(model._state())
    if world_size == 2:
        assert all(torch.equal(mine[name], value) for mine, state in zip(rest, states, strict=True)
                   for name, value in state.items())  # fmt: skip
    else:
        merged = first.merge(states)
        assert all(torch.equal(rest[0][name], value) for name, value in merged.items())
        assert all(not state["count"].any() for state in rest[1:])
