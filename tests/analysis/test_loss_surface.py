"""The ways of trainings on the surface of their loss: points, planes and heights against the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support import CPU, compose, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import zoo
from zoo.analysis import WeightPath, loss_surface
from zoo.analysis.loss_surface import analyze, path_of, surface_of, surface_of_runs
from zoo.errors import ZooError
from zoo.training import weight_path
from zoo.training.analyses import Subject
from zoo.training.run import build
from zoo.training.sweep import Outcome, Run, Sweep
from zoo.training.sweep_ways import draw_ways
from zoo.training.trainer import make_trainer
from zoo.training.weight_path import flat_weights


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fitted(x: Tensor, y: Tensor, name: str = "linear_regression", **options: Any) -> tuple[Any, WeightPath]:
    way = WeightPath()
    model = zoo.create_model(name, solver="gradient")
    zoo.fit(model, x, y, lr=0.1, callbacks=[way], **{"optimizer": "sgd", "max_epochs": 5, **options})
    return model, way


def test_of_two_weights_the_plane_is_theirs_and_the_heights_are_the_loss() -> None:
    x = drawn(40, 1)
    y = 3 * x[:, 0] - 1 + 0.1 * drawn(40, seed=1)
    model, way = fitted(x, y, batch_size=8, l2=0.2)
    assert way.points.shape == (26, 2)
    assert torch.equal(way.points[-1], flat_weights(model))
    found = loss_surface(model, x, y, paths={"sgd": way.points}, size=9)
    assert torch.equal(found.paths["sgd"], way.points.double())
    z, t = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(correction=0), (y - y.mean()) / y.std(correction=0)
    for i, j in ((0, 0), (8, 3), (4, 8)):
        w, b = found.across[j], found.up[i]
        expected = (z.double() * w + b - t.double()).square().mean() + 0.2 * w**2
        assert float(found.losses[i, j]) == pytest.approx(float(expected), rel=1e-5)  # of rows that are float32
    low, high = found.paths["sgd"].amin(0), found.paths["sgd"].amax(0)
    assert (found.across[0] < low[0]) & (found.across[-1] > high[0]) & (found.up[0] < low[1]) & (found.up[-1] > high[1])


def test_of_many_weights_the_plane_holds_the_principal_directions_of_all_ways() -> None:
    x = drawn(60, 5)
    y = (x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0]) > 0).long() + (x[:, 0] > 1).long()
    model, slow = fitted(x, y, "logistic_regression", batch_size=0)
    model, fast = fitted(x, y, "logistic_regression", optimizer="adam", batch_size=10)
    before = flat_weights(model)
    found = loss_surface(model, x, y, paths={"sgd": slow.points, "adam": fast.points}, size=5)
    assert torch.equal(before, flat_weights(model))
    best = min(found.ends, key=lambda name: found.ends[name][1])
    centre = {"sgd": slow, "adam": fast}[best].points[-1].double()
    moved = torch.cat([(way.points.double() - centre) / len(way.points) ** 0.5 for way in (slow, fast)])
    values, vectors = torch.linalg.eigh(moved.T @ moved)
    for k in (0, 1):
        along = torch.cat([path[:, k] / len(path) ** 0.5 for path in found.paths.values()])
        assert torch.allclose(along.abs(), (moved @ vectors[:, -1 - k]).abs(), atol=1e-10)
        assert f"{float(values[-1 - k] / values.sum()):.0%}" in found.axes[k]
    assert found.ends["adam"][0] == pytest.approx(torch.log(torch.tensor(3.0)).item(), rel=1e-6)  # all weights are 0
    assert found.table()[0]["path"] == best
    assert len(found.figure().axes[0].lines) == 2


def test_long_ways_are_thinned_and_a_resumed_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(30, 2)
    _, whole = fitted(x, x[:, 0], batch_size=3, max_epochs=7)  # 70 steps
    monkeypatch.setattr(weight_path, "FINEST", 8)
    _, thin = fitted(x, x[:, 0], batch_size=3, max_epochs=7)
    steps = [*range(16), *range(16, 32, 2), *range(32, 64, 4), 64, 70]  # to 70, which is no eighth one
    assert torch.equal(thin.points, whole.points[steps])
    again = WeightPath()
    again.load_state_dict(thin.state_dict())
    assert torch.equal(again.points, thin.points)
    monkeypatch.setattr(weight_path, "MOST_NUMBERS", 11)  # of three weights less than four points
    assert not len(fitted(x, x[:, 0])[1].points)


def test_a_way_that_stands_still_or_diverged_is_drawn_as_far_as_it_goes() -> None:
    x = drawn(20, 3)
    model, way = fitted(x, x[:, 0])
    still = way.points[:1]
    found = surface_of(model, model.prepare(x)._replace(y=x[:, 0]), {"still": still}, size=3)
    assert found.losses.isfinite().all()
    gone = torch.cat([way.points, torch.full_like(still, torch.inf)])
    found = surface_of(model, model.prepare(x)._replace(y=x[:, 0]), {"gone": gone}, size=3)
    assert len(found.paths["gone"]) == len(way.points)
    with pytest.raises(ZooError, match=r"A path has 4 weights at each point, \(N, 4\): 'a' is \(3, 2\)"):
        loss_surface(model, x, x[:, 0], paths={"a": torch.zeros(3, 2)})
    tree = zoo.fit(zoo.create_model("decision_tree"), x, x[:, 0])
    with pytest.raises(ZooError, match="decision_tree with these settings takes no steps"):
        loss_surface(tree, x, x[:, 0], paths={"a": still})


TOLD = ["model=linear_regression", "model.solver=gradient", "data=regression", "data.num_features=1",
        "data.num_rows=40", "trainer.max_epochs=3", "optimizer.lr=0.05", "diagnosis=false"]  # fmt: skip


def check_runs(batch: Path, stochastic: Path) -> None:
    """Ways and losses of two runs over 28 rows, three times, in steps over all of them and over one."""
    assert [len(path_of(run)) for run in (batch, stochastic)] == [4, 3 * 28 + 1]
    for run in (batch, stochastic):
        found = EventAccumulator(str(run)).Reload()
        assert found.Scalars("loss_by_rows/train")[-1].step == 3 * 28
        assert [event.step for event in found.Scalars("loss_by_rows/val")] == [28, 56, 84]
        values = [event.value for event in found.Scalars("loss_by_rows/val")]
        assert values == [event.value for event in found.Scalars("val/loss")]
    losses = EventAccumulator(str(stochastic)).Reload()
    means = torch.tensor([event.value for event in losses.Scalars("loss_by_rows/train")]).view(3, 28).mean(1)
    assert means.tolist() == pytest.approx([event.value for event in losses.Scalars("train/loss")], rel=1e-5)


def test_ways_of_runs_are_laid_over_each_other_where_they_lower_the_same_loss(tmp_path: Path) -> None:
    runs, sweep = [], Sweep(tmp_path / "sweep")
    for number, size in enumerate((0, 1)):
        settings = compose(*TOLD, f"data.batch_size={size}")
        run, (model, data) = tmp_path / f"run_{number}", build(settings)
        trainer = make_trainer(model, run_dir=run, max_epochs=3, accelerator="cpu", progress=False)
        trainer.fit(model, datamodule=data)
        for logger in trainer.loggers:
            logger.finalize("success")
        OmegaConf.save(settings, run / "config.yaml")
        outcome = Outcome(float(number), "val/loss", folder=str(run))
        sweep.add(Run(number, {"data.batch_size": str(size)}, outcome))
        runs.append(run)
    check_runs(*runs)
    draw_ways(sweep)
    assert (tmp_path / "sweep" / "loss_surface.png").stat().st_size > 10_000
    assert EventAccumulator(str(tmp_path / "sweep")).Reload().Tags()["images"] == ["loss_surface"]
    subject = Subject(model, data, "test", settings, folder=runs[1])
    findings = analyze(subject, runs=[str(runs[0])])
    assert ["run_1" in row["path"] for row in findings.tables["loss_surface"]] == [True, False]
    losses = [row["last loss"] for row in findings.tables["loss_surface"]]
    assert losses == sorted(losses)
    other = OmegaConf.load(runs[1] / "config.yaml")
    other.data.num_rows = 41  # another loss
    OmegaConf.save(other, runs[1] / "config.yaml")
    assert surface_of_runs({"all": runs[0], "one": runs[1]}) is None


@pytest.mark.slow
def test_a_sweep_over_what_a_step_sees_draws_its_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = [f"run_dir={tmp_path / 'run'}", f"hydra.sweep.dir={tmp_path / 'sweep'}", CPU]
    assert run_command(["-m", "training=batch,stochastic", *TOLD, *where], pictures=True) == 0
    assert "loss_surface.png" in capsys.readouterr().out
    assert (tmp_path / "sweep" / "loss_surface.png").stat().st_size > 2_000  # few pixels
    check_runs(tmp_path / "run_0", tmp_path / "run_1")
    asked = ["analysis=loss_surface", f"loss_surface.runs=[{tmp_path / 'run_1'}]", "accelerator=cpu"]
    assert run_command([f"run={tmp_path / 'run_0'}", *asked], "evaluate") == 0
    table = (tmp_path / "run_0" / "evaluation" / "analysis" / "loss_surface.csv").read_text().splitlines()
    assert table[0] == "path,first loss,last loss"
    assert len(table) == 3
