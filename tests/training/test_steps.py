"""Steps that are taken directly are Lightning's own steps: the same bits, hooks, counters and logged values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support import bits
from torch import Tensor

import zoo
from zoo.data.array_data import ArrayData
from zoo.data.base import TensorRows
from zoo.data.spec import Batch
from zoo.models.base import gradient
from zoo.models.mlp import MLP
from zoo.optimizers import Recipe
from zoo.training import trainer as trainers
from zoo.training.steps import StepLoop

BY_VALUE = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
HOOKS = [
    name
    for name in dir(Callback)
    if name.startswith("on_") and not name.endswith(("checkpoint", "exception", "sanity_check_end"))
]


class Written(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Any] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:  # type: ignore[override]
        self.lines.append((dict(metrics), step))


class Heard(Callback):
    """Keeps which hooks were called, in which moment, with which values at hand; each has its own function."""

    def __init__(self) -> None:
        self.calls: list[Any] = []


def _hook(name: str) -> Any:
    def heard(self: Heard, trainer: Any, model: Any, *args: Any) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        count = sum(isinstance(value, Batch) for value in args)
        self.calls.append((name, trainer.global_step, trainer.is_last_batch, model._current_fx_name, values, count))
        if name == "on_train_batch_end":
            self.calls.append(float(args[0]["loss"]) if args[0] else None)

    return heard


for hook_name in HOOKS:
    setattr(Heard, hook_name, _hook(hook_name))


class Telling(MLP):
    """A user's model: it says more than a loss, logs in a step, and leaves out every third."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("seen", float(batch_idx), on_step=True, on_epoch=True)
        return None if batch_idx % 3 == 2 else {"loss": loss, "extra": batch_idx}

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None if parameter.grad is None else parameter.grad.sign()

    def configure_gradient_clipping(self, optimizer: Any, **options: Any) -> None:
        if any(parameter.grad is not None for parameter in self.parameters()):
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="value")


class Brief(MLP):
    """A user's step that does not ask for the batch's number."""

    def training_step(self, batch: Batch) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


class Halved(MLP):
    """A user's model that takes a step after every second batch, as Lightning's page on `optimizer_step` shows."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2 == 0:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


MODELS = {"mlp": MLP, "telling": Telling, "brief": Brief, "halved": Halved}


def data() -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(44, 3, generator=generator)
    return ArrayData(x, (x.sum(1) > 0).long(), batch_size=8, val_fraction=0.2)


def run(model: Any, recipe: Recipe, options: dict[str, Any]) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model.train_by(recipe)
    heard, written = Heard(), Written()
    trainer = trainers.make_trainer(
        model, callbacks=[heard], logger=written, progress=False, accelerator="cpu",
        **{"max_epochs": 2, "log_every_n_steps": 2, **options},
    )  # fmt: skip
    trainer.fit(model, datamodule=data())
    state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return trainer.fit_loop.epoch_loop, heard.calls, written.lines, state["loops"], bits(model.state_dict())


@pytest.mark.parametrize(
    ("kind", "recipe", "options", "plain"),
    [
        ("mlp", Recipe(), {}, True),
        ("mlp", Recipe(), {"gradient_clip_val": 0.1}, True),
        ("mlp", Recipe("sgd", {"lr": 0.1}, l1=0.01), BY_VALUE, True),
        ("mlp", Recipe("lbfgs", {"lr": 0.5, "max_iter": 3}), {}, True),
        ("mlp", Recipe(scheduler="cosine", scheduler_options={}), {}, True),
        ("mlp", Recipe(scheduler="plateau", scheduler_options={"patience": 0}), {"max_epochs": 3}, True),
        ("mlp", Recipe(mixup=0.4, weight_noise=0.1), {"precision": "bf16-mixed"}, True),
        ("mlp", Recipe(), {"precision": "64-true"}, True),
        ("mlp", Recipe(), {"val_check_interval": 2, "max_epochs": 3}, True),
        ("mlp", Recipe(), {"max_steps": 7, "max_epochs": -1}, True),
        ("mlp", Recipe(), {"limit_train_batches": 2, "limit_val_batches": 0}, True),
        ("mlp", Recipe(), {"fast_dev_run": 2}, True),
        ("mlp", Recipe(), {"accumulate_grad_batches": 2}, False),
        ("mlp", Recipe(), {"profiler": "simple"}, False),
        ("telling", Recipe("sgd", {"lr": 0.1}), {"log_every_n_steps": 1}, True),
        ("brief", Recipe(), {}, True),
        ("halved", Recipe(), {}, False),
    ],
)  # fmt: skip
def test_a_step_is_lightnings(
    kind: str, recipe: Recipe, options: dict[str, Any], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "SHOWN", 0.0)  # losses are logged after every step, and not by the clock
    found = []
    for taken in (True, False):
        if not taken:
            monkeypatch.setattr(trainers, "take_plain_steps", lambda trainer: None)
        torch.manual_seed(1)
        found.append(run(MODELS[kind](widths=[4]), recipe, options))
    (direct, *ours), (usual, *lightnings) = found
    assert isinstance(direct, StepLoop)
    assert (direct._hooks is not None) == plain
    assert not isinstance(usual, StepLoop)
    for mine, theirs in zip(ours, lightnings, strict=True):
        assert mine == theirs


def test_hooks_of_a_datamodule_see_each_batch() -> None:
    class Doubling(ArrayData):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            seen.append(batch.size)
            return batch

    seen: list[int] = []
    x = torch.randn(20, 3)
    model = zoo.create_model("mlp", widths=[4])
    trainer = trainers.make_trainer(model, max_epochs=1, progress=False, accelerator="cpu")
    trainer.fit(model, datamodule=Doubling(x, torch.arange(20) % 2, batch_size=8))
    assert seen == [8, 8, 4]


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    class Bursting(MLP):
        def training_loss(self, batch: Batch) -> Tensor:
            return super().training_loss(batch) / (self.global_step != 1)

    model = Bursting(widths=[4])
    trainer = trainers.make_trainer(model, max_epochs=1, progress=False, accelerator="cpu")
    with pytest.raises(zoo.ZooError, match=r"at step 1 .epoch 0, batch 1.: no update was made"):
        trainer.fit(model, datamodule=data())
    assert trainer.global_step == 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("said", [1.0, {"los": 1.0}, (torch.ones(()), 1)])
def test_what_is_no_loss_is_refused_as_lightning_refuses_it(said: Any) -> None:
    class Odd(MLP):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return said

    model = Odd(widths=[4])
    trainer = trainers.make_trainer(model, max_epochs=1, progress=False, accelerator="cpu")
    with pytest.raises(MisconfigurationException, match="training_step"):
        trainer.fit(model, datamodule=data())


def test_a_fit_that_was_interrupted_leaves_nothing_in_the_next_ones_losses() -> None:
    class Interrupting(Callback):
        def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                raise RuntimeError("enough")

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append((float(outputs["loss"]), batch.size))

        def on_train_end(self, trainer: Any, model: Any) -> None:
            logged.append(float(trainer.callback_metrics["train/loss"]))

    losses: list[tuple[float, int]] = []
    logged: list[float] = []
    model, x = zoo.create_model("mlp", widths=[4]), torch.randn(20, 3)
    with pytest.raises(RuntimeError, match="enough"):
        zoo.fit(model, 1000 * x, torch.arange(20) % 2, batch_size=4, standardize=False, callbacks=Interrupting())
    zoo.fit(model, x, torch.arange(20) % 2, batch_size=8, max_epochs=1, callbacks=[Losses()])
    assert logged == [pytest.approx(sum(loss * size for loss, size in losses) / 20)]


def test_weights_that_a_step_shakes_are_put_back_where_it_fails() -> None:
    class Failing(MLP):
        def training_loss(self, batch: Batch) -> Tensor:
            loss = super().training_loss(batch)
            loss.register_hook(lambda gradient: 1 / 0)  # in the backward pass
            return loss

    model = Failing(widths=[4])
    model.train_by(Recipe(weight_noise=1.0))
    trainer = trainers.make_trainer(model, max_epochs=1, progress=False, accelerator="cpu")
    rows = data()
    model.build(rows.spec)
    before = bits(model.state_dict())
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, datamodule=rows)
    assert bits(model.state_dict()) == before


def test_batches_of_another_type_are_made_the_models_own_at_every_step() -> None:
    """What came as the model takes it is passed on as it is; the batch after it may be of another type."""
    of, batches = data(), itertools.count()
    rows = of.rows("train")
    assert isinstance(rows, TensorRows)
    rows.transform = lambda batch: batch if next(batches) % 3 else batch._replace(x=batch.x.double())
    trainer = trainers.make_trainer(MLP(), max_epochs=2, progress=False, accelerator="cpu")
    trainer.fit(MLP(widths=[4]), datamodule=of)
    assert trainer.global_step == next(batches)
