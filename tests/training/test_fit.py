"""`zoo.fit`: the same models in one line of Python, on arrays, tables and DataModules."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from support import bits, create, default_data
from torch.utils.data import DataLoader, TensorDataset

import zoo
from zoo.data.registry import create_data

SPEC = zoo.DataSpec("tabular", (3,), "value")


@pytest.fixture
def table() -> tuple[torch.Tensor, torch.Tensor]:
    """80 rows, y linear in x with noise, float64."""
    x = torch.randn(80, 3, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3 + 0.1 * torch.randn(80, dtype=torch.float64)
    return x, y


def exact(x: Any, y: Any, **options: Any) -> Any:
    return zoo.fit(zoo.create_model("linear_regression", solver="exact"), x, y, **options)


def test_the_exact_fit_is_that_of_least_squares(table: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = table
    model = exact(x, y)
    design = torch.cat([torch.ones(80, 1, dtype=torch.float64), x], 1)
    oracle = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    assert torch.allclose(model.bias, oracle[:1], rtol=1e-9, atol=1e-12)
    assert torch.allclose(model.weight[0], oracle[1:], rtol=1e-9, atol=1e-12)
    assert torch.allclose(model.predict(x), design @ oracle, rtol=1e-9, atol=1e-12)
    assert not model.training


@pytest.mark.parametrize("form", ["numpy", "lists", "float32", "pandas", "pyarrow"])
def test_arrays_of_any_form_give_the_same(form: str, table: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = table
    if form == "numpy":
        given: tuple[Any, Any] = (x.numpy(), y.numpy())
    elif form == "lists":
        given = (x.tolist(), y.tolist())
    elif form == "float32":
        given = (x.float(), y.float())
    elif form == "pandas":
        pandas = pytest.importorskip("pandas")
        given = (pandas.DataFrame(x.numpy(), columns=["a", "b", "c"]), pandas.Series(y.numpy()))
    else:
        pa = pytest.importorskip("pyarrow")
        given = (pa.table({name: x[:, i].numpy() for i, name in enumerate("abc")}), y.numpy())
    expected, found = exact(x, y), exact(*given)
    bound = 1e-12 if form in ("numpy", "pandas", "pyarrow") else 1e-6  # lists become float32
    assert torch.allclose(found.weight, expected.weight, rtol=bound, atol=bound)
    if form in ("pandas", "pyarrow"):
        assert found.spec.feature_names == ("a", "b", "c")


def test_weights_count_as_repeated_rows(table: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = table
    weight = torch.randint(0, 4, (80,)).double()
    repeated = torch.repeat_interleave(torch.arange(80), weight.long())
    weighted, repeats = exact(x, y, sample_weight=weight), exact(x[repeated], y[repeated])
    assert torch.allclose(weighted.weight, repeats.weight, rtol=1e-9, atol=1e-12)
    assert torch.allclose(weighted.bias, repeats.bias, rtol=1e-9, atol=1e-12)


def test_weights_of_a_gradient_model_count_as_repeated_rows() -> None:
    batch = zoo.Batch(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([1.0, 2, 0, 3, 1, 1]))
    model = zoo.create_model("mlp", zoo.DataSpec("tabular", (3,), "class", num_classes=2)).double()
    weighted = model.as_batch(batch)
    repeated = torch.repeat_interleave(torch.arange(6), batch.weight.long())  # type: ignore[union-attr]
    repeats = zoo.Batch(weighted.x[repeated], weighted.y[repeated])  # type: ignore[index]
    ours = model.objective.loss(model.output(weighted), weighted)  # type: ignore[union-attr, operator]
    theirs = model.objective.loss(model.output(repeats), repeats)  # type: ignore[union-attr, operator]
    assert torch.allclose(ours, theirs, rtol=1e-12)


def test_ridge_is_the_penalty_of_the_formula(table: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = table
    model, penalty = exact(x, y, l2=0.3), 0.3
    w, b = model.weight[0].clone().requires_grad_(), model.bias.clone().requires_grad_()
    objective = (y - x @ w - b).square().mean() + penalty * w.square().sum()
    gradients = torch.autograd.grad(objective, (w, b))
    assert max(float(g.abs().max()) for g in gradients) < 1e-12


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"])
def test_every_optimizer_comes_near_the_exact_solution(
    optimizer: str, table: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = table
    lr = {"lbfgs": 1.0, "adagrad": 1.0, "sgd": 0.1}.get(optimizer, 0.03)
    options = {"lr": lr, **({"weight_decay": 0.0} if optimizer == "adamw" else {})}
    model = zoo.fit(
        zoo.create_model("linear_regression", solver="gradient"), x, y, optimizer=optimizer,
        optimizer_options=options, batch_size=0, max_epochs=200, standardize=False, device="cpu",
    )  # fmt: skip
    assert torch.allclose(model.weight.double(), exact(x, y).weight, atol=0.02)


def test_a_gradient_model_learns_classes_from_text_labels() -> None:
    iris = create_data("iris", test_fraction=0.0, val_fraction=0.0).rows("train")[torch.arange(150)]
    labels = np.array(["setosa", "versicolor", "virginica"])[iris.y.numpy()]  # type: ignore[union-attr]
    model = zoo.create_model("mlp", widths=[16])
    zoo.fit(model, iris.x, labels, lr=0.02, max_epochs=30, device="cpu")
    assert model.spec is not None
    assert model.spec.class_names == ("setosa", "versicolor", "virginica")
    assert model.score(iris.x, labels) > 0.95
    assert set(model.predict(iris.x)) == set(labels)
    probability = model.predict_columns(iris.x)["probability"]
    assert probability.shape == (150, 3)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_stream_alone() -> None:
    x, y = torch.randn(40, 3), torch.randint(0, 2, (40,))
    before = torch.get_rng_state()
    models = [
        zoo.fit(zoo.create_model("mlp", widths=[4], dropout=0.5), x, y, max_epochs=2, seed=seed, device="cpu")
        for seed in (1, 1, 2)
    ]
    digests = [bits(dict(model.named_parameters())) for model in models]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_is_fitted_to_its_own_datamodule(name: str) -> None:
    data = default_data(name)
    options: dict[str, Any] = {} if zoo.create_model(name).streaming else {"limit_train_batches": 2}
    model = zoo.create_model(name)
    assert zoo.fit(model, data, max_epochs=1, device="cpu", **options) is model
    assert model.spec == data.spec
    assert not model.training
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


class Foreign(pl.LightningDataModule):
    """A DataModule that knows nothing of the zoo."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.rows = TensorDataset(x, y)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=16)


def test_a_foreign_datamodule_trains_a_built_model_and_is_explained_to_one_that_is_not(
    table: tuple[torch.Tensor, torch.Tensor],
) -> None:
    model = zoo.create_model("linear_regression", spec=SPEC, solver="exact")
    zoo.fit(model, Foreign(*table), device="cpu")
    assert torch.allclose(model.weight, exact(*table).weight, rtol=1e-9)  # type: ignore[arg-type]
    with pytest.raises(zoo.ZooError, match="Foreign has no `spec`"):
        zoo.fit(zoo.create_model("linear_regression"), Foreign(*table), device="cpu")


def test_mistakes_are_one_line(table: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = table
    for data, message in [
        ((x, y[:-1]), "X has 80 rows and y has 79"),
        ((x[:, 0], y), r"pass X\[:, None\]"),
        ((x[:0], y[:0]), "empty"),
        ((x, y.round().long()), r"class targets .* Integers that are values .* \(in Python by y of floats\)"),
        ((np.ma.masked_less(x.numpy(), x.flatten().kthvalue(7)[0].item()), y), "X holds 6 NaN values"),
        ((x, None), "linear_regression learns from targets: pass y"),
        ((x.index_fill(0, torch.tensor([3]), float("nan")), y), "X holds 3 NaN values"),
        ((x, y.index_fill(0, torch.tensor([3]), float("inf"))), "y holds 1 infinite values"),
    ]:
        with pytest.raises(zoo.ZooError, match=message) as caught:
            exact(*data)
        assert "\n" not in str(caught.value)
    with pytest.raises(zoo.ZooError, match=r"Expected inputs of shape \(N, 3\), got \(2, 4\)"):
        exact(x, y).predict(torch.zeros(2, 4))
    with pytest.raises(zoo.ZooError, match="with arrays only"):
        exact(default_data("linear_regression"), y)
    with pytest.raises(zoo.ZooError, match=r"regularization\.l1 must be a number of at least 0"):
        exact(x, y, l1=-1.0)


def test_predictions_do_not_depend_on_the_chunk() -> None:
    data = default_data("mlp")
    model, x = create("mlp", data).double(), data.rows("train")[torch.arange(50)].x
    assert torch.equal(model.predict(x, batch_size=7), model.predict(x, batch_size=50))


def test_a_model_that_was_in_training_stays_in_training() -> None:
    model = create("mlp").train()
    model.predict(torch.zeros(1, 1, 8, 8))
    assert model.training


def test_a_penalty_of_a_model_without_weights():
    with pytest.raises(zoo.ZooError, match="kmeans has no weights to penalize"):
        zoo.fit(zoo.create_model("kmeans", num_clusters=2), torch.randn(9, 2), l2=0.1)


def test_the_first_argument_is_a_model() -> None:
    with pytest.raises(zoo.ZooError, match=r"takes a model first, not str: pass zoo\.create_model\('kmeans'\)"):
        zoo.fit("kmeans", torch.zeros(4, 2))


def test_an_argument_that_is_unknown_or_of_no_use_is_refused_by_name() -> None:
    x, y = torch.randn(30, 2), torch.arange(30) % 2
    with pytest.raises(zoo.ZooError, match=r"zoo\.fit has no argument 'max_epoch'\. Did you mean max_epochs"):
        zoo.fit(zoo.create_model("mlp"), x, y, max_epoch=3)
    with pytest.raises(zoo.ZooError, match="no argument 'epochs'"):
        zoo.fit(zoo.create_model("kmeans"), x, epochs=3)
    with pytest.raises(zoo.ZooError, match="lr does nothing for kmeans"):
        zoo.fit(zoo.create_model("kmeans"), x, lr=0.1)
    with pytest.raises(zoo.ZooError, match="mlp learns from targets: pass y"):
        zoo.fit(zoo.create_model("mlp"), x)
    with pytest.raises(zoo.ZooError, match="30 rows and y has 10"):
        zoo.fit(zoo.create_model("mlp"), x, y[:10])
    with pytest.raises(zoo.ZooError, match=r"optimizer\.lr must be a number above 0"):
        zoo.fit(zoo.create_model("mlp"), x, y, lr=-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": Callback}, r"list of Lightning's Callbacks, not the class Callback: pass Callback\(\)"),
        ({"callbacks": "early"}, "list of Lightning's Callbacks, not 'early'"),
        ({"gradient_clip_val": -1}, "gradient_clip_val must be a number of at least 0 or null, not -1"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be an integer of at least 1, not 0"),
        ({"enable_progress_bar": True}, "enable_progress_bar .* is set by the zoo; pass progress=True"),
        ({"overfit_batches": 1}, "overfit_batches .* is set by the zoo; pass a few rows, or limit_train_batches"),
    ],
    ids=str,
)
def test_an_option_of_the_trainer_that_would_fail_in_training_is_one_line(options: dict, message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.fit(zoo.create_model("mlp", widths=[2]), torch.randn(12, 2), torch.arange(12) % 2, **options)


def test_an_option_of_the_trainer_reaches_a_streaming_model_too() -> None:
    seen = []

    class Watch(Callback):
        def on_train_epoch_end(self, *args: object) -> None:
            seen.append(args)

    zoo.fit(zoo.create_model("kmeans", num_clusters=2), torch.randn(30, 2), callbacks=[Watch()])
    assert seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be an integer of at least 1 or null, not 0"),
        ({"max_epochs": -1}, "max_epochs must be an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size must be an integer of at least 0 or null, not 1.5"),
        ({"validation": 1.0}, "validation must be a number"),
        ({"seed": 2**70}, "seed must be an integer of at least 0 and at most 4294967295"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, not 'tpu'"),
        ({"standardize": "yes"}, "standardize must be true or false"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["kmeans", "mlp"])
def test_an_argument_out_of_range_is_one_line(name: str, options: dict, message: str) -> None:
    y = None if name == "kmeans" else torch.arange(12) % 2
    with pytest.raises(zoo.ZooError, match=message):
        zoo.fit(zoo.create_model(name), torch.randn(12, 2), y, **options)


def test_a_second_fit_to_rows_of_another_width_is_one_line() -> None:
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    model = zoo.fit(zoo.create_model("mlp"), x, y, max_epochs=1, device="cpu")
    with pytest.raises(zoo.ZooError, match=r"The model was built for tabular data \(4\).*these are tabular data \(2\)"):
        zoo.fit(model, x[:, :2], y, max_epochs=1, device="cpu")


def test_missing_labels_are_no_class() -> None:
    with pytest.raises(zoo.ZooError, match="y has 2 missing labels"):
        zoo.fit(zoo.create_model("mlp"), torch.randn(4, 2), ["a", None, "b", float("nan")])


@pytest.mark.parametrize("averaging", [None, {"name": "ema", "decay": 0.5}])
def test_a_fit_that_may_stop_early_ends_with_the_weights_of_its_best_validation(averaging: Any) -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] + torch.randn(60, generator=torch.Generator().manual_seed(1))  # noise, which is learnt by heart
    losses: list[float] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, model: Any) -> None:
            losses.append(float(trainer.callback_metrics["val/loss"]))

    def fitted(**options: Any) -> Any:
        losses.clear()
        model = zoo.create_model("mlp", widths=[32])
        return zoo.fit(model, x, y, validation=0.3, max_epochs=16, lr=0.1, callbacks=[Watch()], averaging=averaging,
                       **options)  # fmt: skip

    model = fitted(early_stopping={"patience": 3, "min_delta": 0.0})
    assert len(losses) == losses.index(min(losses)) + 4 < 16
    data = model.trainer.datamodule
    rows = model.as_batch(data.rows("val")[torch.arange(18)])
    assert float(model.evaluate(rows)["loss"].detach().mean()) == pytest.approx(min(losses), rel=1e-5)
    for given, words in ((True, "must be a mapping"), ({"patience": -1}, "at least 0"), ({"wait": 1}, "must be a map")):
        with pytest.raises(zoo.ZooError, match=words):
            fitted(early_stopping=given)
    with pytest.raises(zoo.ZooError, match=r"there are none: pass validation=0\.2"):
        zoo.fit(zoo.create_model("mlp"), x, y, early_stopping={"patience": 3})
    with pytest.raises(zoo.ZooError, match=r"optimizer is a name, such as 'adam'"):
        fitted(optimizer=torch.optim.Adam)
    last = fitted()  # what may not stop ends where it ends
    assert float(last.evaluate(rows)["loss"].detach().mean()) == pytest.approx(losses[-1], rel=1e-5)
