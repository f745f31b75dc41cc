"""averaging=ema and swa: the numbers of torch.optim.swa_utils, in what is validated, tested, kept and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from support import CPU, run_command, spawn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

import zoo
from zoo.data.registry import create_data
from zoo.errors import ZooError
from zoo.optimizers import EMA, SWA, make_average
from zoo.optimizers.averaging import average_into
from zoo.training.averaging import Averaging, state_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("average", [EMA(0.9, warmup=False), SWA()], ids=["ema", "swa"])
def test_the_average_is_that_of_torch(average: EMA | SWA, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 2)).to(dtype)
    how = get_ema_multi_avg_fn(0.9) if isinstance(average, EMA) else get_swa_multi_avg_fn()
    theirs = AveragedModel(model, multi_avg_fn=how)
    ours = {name: torch.zeros_like(value) for name, value in state_of(model).items()}
    exact = {name: torch.zeros_like(value) for name, value in ours.items()}
    for count in range(20):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        theirs.update_parameters(model)
        average_into(ours, state_of(model), average.share(count))
        exact = {name: value + state_of(model)[name] / 20 for name, value in exact.items()}
    for name, value in theirs.module.state_dict().items():
        if isinstance(average, SWA) and dtype == torch.float64:  # torch takes 1 / (n + 1) in float32
            assert torch.allclose(ours[name], value, rtol=1e-6)
            assert torch.allclose(ours[name], exact[name], rtol=1e-14, atol=1e-14)
        else:
            assert torch.equal(ours[name], value)


class Follow(Callback):
    """Average the weights by torch's own class, at the same points."""

    def __init__(self, first: int, per_epoch: bool, **options: Any) -> None:
        self.first, self.per_epoch, self.options, self.model = first, per_epoch, options, None

    def on_train_batch_end(self, trainer: Any, model: Any, *args: Any) -> None:
        if trainer.global_step >= self.first and (trainer.is_last_batch or not self.per_epoch):
            if self.model is None:
                self.model = AveragedModel(model.net, **self.options)
            self.model.update_parameters(model.net)


def fitted(follow: Follow, averaging: Any, **options: Any) -> tuple[Any, torch.Tensor]:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    model = zoo.create_model("mlp", widths=[8], **options)
    zoo.fit(model, x, (x[:, 0] > 0).long(), batch_size=16, max_epochs=6, validation=0.2, averaging=averaging,
            callbacks=[follow], lr=0.05)  # fmt: skip
    return model, x


def test_a_run_ends_in_torchs_exponential_average() -> None:
    follow = Follow(0, False, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    model, _ = fitted(follow, {"name": "ema", "decay": 0.8, "warmup": False}, batch_norm=True)
    assert follow.model is not None
    for name, value in follow.model.module.state_dict().items():
        if value.is_floating_point():  # torch averages counts, too
            assert torch.equal(model.net.state_dict()[name], value), name


def test_a_run_ends_in_torchs_mean_with_statistics_measured_anew() -> None:
    follow = Follow(9, True, multi_avg_fn=get_swa_multi_avg_fn())
    model, _ = fitted(follow, {"name": "swa", "start": 0.5}, batch_norm=True)
    peer = follow.model
    assert peer is not None
    assert int(peer.n_averaged) == 4
    rows = model.trainer.datamodule.rows("train")
    update_bn([(rows[index].x,) for index in torch.arange(len(rows)).split(16)], peer)
    for name, value in peer.module.state_dict().items():
        assert torch.equal(model.net.state_dict()[name], value), name
    assert [m.momentum for m in model.modules() if hasattr(m, "momentum")] == [0.1]


def test_weights_that_two_layers_share_are_exchanged_once() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5))
    model[1].weight = model[0].weight
    averaging, before = Averaging(EMA()), {k: v.clone() for k, v in model.state_dict().items()}
    averaging._values = {name: torch.zeros_like(value) for name, value in state_of(model).items()}
    averaging._exchange(model)
    assert all(not value.any() for value in model.state_dict().values() if value.is_floating_point())
    averaging._exchange(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


RUN = ["model=mlp", "data=iris", "model.widths=[8]", "trainer.max_epochs=4", "logger=[]", "optimizer.lr=0.02", CPU]


def test_what_is_validated_and_kept_is_the_average(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_command([*RUN, "averaging=ema", f"run_dir={tmp_path / 'a'}"]) == 0
    checkpoint = torch.load(tmp_path / "a/checkpoints/best.ckpt", weights_only=True)
    raw, kept = checkpoint["averaging"]["weights"], checkpoint["state_dict"]
    assert checkpoint["averaging"]["count"] == 4
    assert not torch.equal(raw["net.1.weight"], kept["net.1.weight"])
    model, val = zoo.load_model(tmp_path / "a/checkpoints/last.ckpt"), create_data("iris").rows("val")
    metrics = json.loads((tmp_path / "a/metrics.json").read_text())["metrics"]
    batch = model.as_batch(val[torch.arange(len(val))])
    assert float(model.evaluate(batch)["loss"].detach().mean()) == pytest.approx(metrics["val/loss"], rel=1e-5)
    assert run_command([*RUN, "averaging=swa", f"run_dir={tmp_path / 'a'}"]) == 1
    assert "another averaging" in capsys.readouterr().err
    assert run_command([*RUN, "averaging=swa", "averaging.start=2", f"run_dir={tmp_path / 'b'}"]) == 1
    assert "averaging.start must be a number of at least 0 and below 1, not 2" in capsys.readouterr().err
    assert run_command(["model=kmeans", "averaging=ema", CPU]) == 1
    assert "averaging=ema does nothing for kmeans: it takes no steps" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [["averaging=ema", "averaging.decay=0.9"], ["averaging=swa"]], ids=["ema", "swa"])
def test_two_processes_average_as_one_does(averaging: list[str], tmp_path: Path) -> None:
    """Both see the rows of one batch between them, so that the steps are those of one process."""
    told = ["model=mlp", "data=iris", "model.widths=[8]", "logger=[]", "optimizer=sgd", "optimizer.lr=0.05",
            "trainer.precision=64-true", "data.val_fraction=0.16", "trainer.max_epochs=6", CPU, *averaging]  # fmt: skip
    two = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=8"]

    def ended(folder: str, *more: str) -> dict[str, Any]:
        process = spawn([*told, *more, f"run_dir={tmp_path / folder}"], tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        return torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)

    one, both = ended("one", "data.batch_size=16"), ended("two", *two)
    assert one["averaging"]["count"] == both["averaging"]["count"] > 1
    for of in (lambda c: c["state_dict"], lambda c: c["averaging"]["weights"]):
        for name, value in of(one).items():
            torch.testing.assert_close(of(both)[name], value, rtol=1e-9, atol=1e-12)
    metrics = [json.loads((tmp_path / folder / "metrics.json").read_text())["metrics"] for folder in ("one", "two")]
    assert metrics[0]["val/loss"] == pytest.approx(metrics[1]["val/loss"], rel=1e-9)


def test_a_swa_learning_rate_holds_from_its_start_on() -> None:
    rates: list[float] = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    x = torch.randn(40, 3)
    zoo.fit(zoo.create_model("mlp", widths=[4]), x, x[:, 0], batch_size=10, max_epochs=4, lr=0.05, callbacks=[Rates()],
            averaging={"name": "swa", "start": 0.5, "swa_lr": 0.3, "every": 3})  # fmt: skip
    assert rates == [0.05] * 8 + [0.3] * 8


def test_options_out_of_range_and_models_without_steps_are_refused() -> None:
    with pytest.raises(ZooError, match=r"averaging 'ema' has no option 'start'"):
        make_average("ema", start=0.5)
    with pytest.raises(ZooError, match=r"Unknown averaging 'emma'"):
        make_average("emma")
    with pytest.raises(ZooError, match=r"averaging does nothing for kmeans: it takes no steps"):
        zoo.fit(zoo.create_model("kmeans", num_clusters=2), torch.randn(9, 2), averaging="ema")
