"""Gradient boosting: scores beside its peers', losses beside autograd, and the same model for any batches."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeRegressor
from support import run_command
from torch import Tensor

import zoo
from zoo import ZooError
from zoo.data.spec import Batch, DataSpec
from zoo.models.trees import GradientBoosting
from zoo.models.trees.losses import Loss
from zoo.models.trees.trees import find_leaves, joined


def fitted(
    x: Tensor, y: Tensor, weight: Tensor | None = None, batch_size: int | None = None, **hparams: Any
) -> GradientBoosting:
    classes = None if y.is_floating_point() else int(y.max()) + 1
    target: Any = "value" if classes is None else "class"
    spec = DataSpec("tabular", (x.shape[1],), target, num_classes=classes, dtype="float64")
    model = zoo.create_model("gradient_boosting", spec, **{"seed": 0, **hparams})
    parts = [Batch(x, y, weight).rows(i) for i in torch.arange(len(x)).split(batch_size or len(x))]
    model.fit_batches(lambda: parts)
    return model.eval()


def tensors(load: Any) -> tuple[Tensor, Tensor]:
    x, y = load(return_X_y=True)
    return torch.from_numpy(x), torch.from_numpy(y)


def table(files: list[Path], **options: Any) -> Any:
    """Rows of CSV files, text as numbers."""
    pandas = pytest.importorskip("pandas")
    rows = pandas.concat([pandas.read_csv(file, skipinitialspace=True, **options) for file in files])
    for name in rows.columns:
        if not pandas.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].astype(str).str.rstrip(".").astype("category").cat.codes
    return rows


def test_california_housing_beside_lightgbm_and_scikit_learn(shared_data: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rows = table([shared_data / "tables/california_housing/housing.csv.gz"])
    y = rows.pop("median_house_value").to_numpy(float)
    x, order = rows.to_numpy(float), np.random.default_rng(0).permutation(len(rows))
    train, test = order[:16512], order[16512:]
    model = fitted(torch.from_numpy(x[train]), torch.from_numpy(y[train]))
    ours = r2_score(y[test], model(torch.from_numpy(x[test]))[:, 0])
    sklearn = HistGradientBoostingRegressor(max_iter=100, early_stopping=False).fit(x[train], y[train])
    peer = lightgbm.LGBMRegressor(n_estimators=100, verbose=-1, n_jobs=1).fit(x[train], y[train])
    assert ours > 0.995 * sklearn.score(x[test], y[test])
    assert ours > 0.995 * r2_score(y[test], peer.predict(x[test]))


def test_adult_beside_lightgbm_and_scikit_learn(shared_data: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    files = [shared_data / f"tables/adult/adult-{part}.csv.gz" for part in ("train", "test")]
    rows = table(files, header=None).dropna().to_numpy(float)
    (x, y), (test_x, test_y) = ((part[:, :14], part[:, 14].astype(int)) for part in (rows[:32561], rows[32561:]))
    model = fitted(torch.from_numpy(x), torch.from_numpy(y))
    ours = float((model.predict(test_x).numpy() == test_y).mean())
    sklearn = HistGradientBoostingClassifier(max_iter=100, early_stopping=False).fit(x, y)
    peer = lightgbm.LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=1).fit(x, y)
    assert ours > 0.995 * sklearn.score(test_x, test_y)
    assert ours > 0.995 * float((peer.predict(test_x) == test_y).mean())


def test_the_first_tree_is_scikit_learns() -> None:
    x, y = tensors(load_diabetes)
    x = x.float().double()
    model = fitted(x, y, num_trees=1, learning_rate=1.0, num_leaves=6, num_bins=None)
    peer = DecisionTreeRegressor(max_leaf_nodes=6, min_samples_leaf=20, random_state=0).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(model(x)[:, 0].numpy(), peer.predict(x.numpy()), rtol=1e-9)


@pytest.mark.parametrize("kind", ["two", "three", "squared_error", "absolute_error", "quantile", "poisson", "gamma"])
def test_derivatives_are_those_of_the_loss(kind: str) -> None:
    classes = {"two": 2, "three": 3}.get(kind)
    loss = Loss("log_loss" if classes else kind, 3 if classes == 3 else 1, 0.3)
    y = torch.randint(classes, (40,)).double() if classes else torch.rand(40).double()
    output = torch.randn(40, loss.num_outputs, dtype=torch.float64, requires_grad=True)
    factor = {"squared_error": 0.5, "absolute_error": 0.5}.get(
        kind, 1.0
    )  # what is reported is y's mean error, squared or not
    (slope,) = torch.autograd.grad(factor * loss.of_rows(output, y).sum(), output, create_graph=True)
    gradient, hessian = loss.derivatives(output, y)
    torch.testing.assert_close(gradient, -slope, rtol=1e-9, atol=1e-12)
    if kind in ("two", "squared_error", "poisson", "gamma"):
        (curvature,) = torch.autograd.grad(slope.sum(), output)
        torch.testing.assert_close(hessian, curvature, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"max_samples": 0.6, "max_features": 0.5}, {"patience": 3}, {"num_bins": 16, "l2": 1.0}],
    ids=str,
)
def test_the_same_model_for_any_batches_and_order(options: dict[str, Any]) -> None:
    x, y = tensors(load_breast_cancer)
    x[::9, 3] = torch.nan
    weight = torch.rand(len(x), dtype=torch.float64)
    whole = fitted(x, y, weight, num_trees=12, **options)
    for batch_size in (1, 7, 200, 569):
        order = torch.randperm(len(x))
        parts = fitted(x[order], y[order], weight[order], batch_size, num_trees=12, **options)
        assert torch.equal(parts.trees.feature, whole.trees.feature)
        assert torch.equal(parts.trees.threshold, whole.trees.threshold)
        torch.testing.assert_close(parts(x), whole(x), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(parts.train_losses, whole.train_losses, rtol=1e-9, atol=1e-12)


def test_the_kernel_and_torch_grow_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors(load_iris)
    ours = fitted(x, y, num_trees=8, min_samples_leaf=4)
    monkeypatch.setenv("ZOO_KERNELS", "0")
    plain = fitted(x, y, num_trees=8, min_samples_leaf=4)
    assert torch.equal(ours.trees.feature, plain.trees.feature)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-9, atol=1e-12)
    assert float((ours.predict(x) == y).double().mean()) > 0.97


def test_early_stopping_keeps_the_best_round_and_stages_lead_there() -> None:
    x, y = tensors(load_diabetes)
    model = fitted(x, y, patience=5, num_trees=200, learning_rate=0.3)
    rounds = len(model.trees.root)
    assert rounds == int(model.val_losses.argmin()) + 1 < len(model.val_losses) < 200
    stages = list(model.staged(x.numpy()))
    assert len(stages) == rounds
    torch.testing.assert_close(stages[-1], model(x), rtol=1e-12, atol=1e-9)
    every = fitted(x, y, num_trees=20)
    for stage, loss in zip(every.staged(x), every.train_losses, strict=True):
        assert float((stage[:, 0] - y).square().mean()) == pytest.approx(float(loss), rel=1e-9)
    assert bool((every.train_losses.diff() < 0).all())


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_a_quantile_is_above_that_share_of_the_rows(q: float) -> None:
    x = torch.rand(3000, 1, dtype=torch.float64)
    y = x[:, 0] * 3 + torch.randn(3000, dtype=torch.float64) * (0.2 + x[:, 0])
    model = fitted(x, y, loss="quantile", quantile=q, num_trees=40)
    assert float((y <= model(x)[:, 0]).double().mean()) == pytest.approx(q, abs=0.03)


def test_monotone_missing_values_and_scales() -> None:
    x = torch.rand(800, 2, dtype=torch.float64)
    y = (x[:, 0] * 6).sin() + x[:, 0] * 2 + x[:, 1]
    grid = torch.stack([torch.linspace(0, 1, 200), torch.full((200,), 0.5)], dim=1).double()
    assert bool((fitted(x, y, monotone=[1, 0])(grid)[:, 0].diff() >= 0).all())
    assert bool((fitted(x, y)(grid)[:, 0].diff() < 0).any())
    gone = x.clone()
    gone[::4, 1] = torch.nan
    assert bool(fitted(gone, y)(gone).isfinite().all())
    plain = fitted(x, y)(x)
    for factor, shift in ((1e-150, 0.0), (1e150, 0.0), (1.0, 1e6)):
        torch.testing.assert_close(fitted(x, y * factor + shift)(x), plain * factor + shift, rtol=1e-6, atol=0.0)


def test_mistakes_are_one_line() -> None:
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    for arguments, hparams, message in (
        ((x, torch.zeros(30).long() + 1), {}, "a single class"),
        ((x, y), {"loss": "log_loss"}, "model.loss=log_loss does not fit value targets"),
        ((x, y), {"num_leaves": 1}, "model.num_leaves must be at least 2"),
        ((x, y, -torch.ones(30)), {}, "negative sample weights"),
        ((x, y, torch.zeros(30)), {}, "no rows with a weight above 0"),
        ((x, y * torch.nan), {}, "NaN or infinite"),
        ((x[:1], y[:1]), {"patience": 3}, "Too few rows to hold some out"),
        ((x, y), {"monotone": [1]}, "model.monotone needs a number for each of the 2 features"),
    ):
        with pytest.raises(ZooError, match=message) as caught:
            fitted(*arguments, **hparams)
        assert "\n" not in str(caught.value)
    assert fitted(x[:1], y[:1]).predict(x).tolist() == [float(y[0])] * 30


# -- categories --------------------------------------------------------------------------------------------------------


def with_categories(rows: int = 600, classes: int = 0) -> tuple[Tensor, Tensor]:
    """A category of twelve, some of them missing, and a number."""
    make = torch.Generator().manual_seed(3)
    code = torch.randint(12, (rows,), generator=make).double() * 3 - 5
    number = torch.randn(rows, generator=make, dtype=torch.float64)
    worth = torch.randn(40, generator=make, dtype=torch.float64)[(code + 5).long()]
    y = worth + 0.3 * number
    x = torch.stack([code.masked_fill(torch.rand(rows, generator=make) < 0.1, torch.nan), number], dim=1)
    edges = y.quantile(torch.linspace(0, 1, classes + 1)[1:-1].double()) if classes else y
    return x, torch.bucketize(y, edges) if classes else y


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_categories_grow_the_same_by_kernel_and_torch_and_for_any_batches(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = with_categories(classes=classes)
    options = {"num_trees": 6, "num_leaves": 6, "categorical_features": [0]}
    whole = fitted(x, y, **options)
    assert bool(whole.trees.subset.any())
    order = torch.randperm(len(x))
    parts = fitted(x[order], y[order], None, 100, **options)
    monkeypatch.setenv("ZOO_KERNELS", "0")
    plain = fitted(x, y, **options)
    for other in (parts, plain):
        assert torch.equal(other.trees.subset, whole.trees.subset)
        assert torch.equal(other.trees.threshold, whole.trees.threshold)
        torch.testing.assert_close(other(x), whole(x), rtol=1e-9, atol=1e-12)


def test_one_split_of_categories_is_the_best_of_all_subsets() -> None:
    x, y = with_categories(200)
    x = x[~x[:, 0].isnan()]
    y, x = y[: len(x)], x[:, :1]
    model = fitted(x, y, num_trees=1, num_leaves=2, learning_rate=1.0, min_samples_leaf=1, categorical_features=[0])
    found = float((model(x)[:, 0] - y).square().sum())
    values, where = x[:, 0].unique(return_inverse=True)
    best = torch.inf
    for subset in range(1, 2 ** (len(values) - 1)):
        left = torch.tensor([subset >> k & 1 for k in range(len(values))]).bool()[where]
        if left.any() and not left.all():
            best = min(best, sum(float((y[s] - y[s].mean()).square().sum()) for s in (left, ~left)))
    assert found == pytest.approx(best, rel=1e-9)


def test_unknown_categories_go_where_missing_values_go() -> None:
    x, y = with_categories()
    model = fitted(x, y, num_trees=5, categorical_features=[0])
    missing, unknown = x[:50].clone(), x[:50].clone()
    missing[:, 0], unknown[:, 0] = torch.nan, 1000.5
    assert torch.equal(model(unknown), model(missing))
    assert not torch.equal(model(x[:50]), model(missing))
    for features, message in (([2], "must be between 0 and 1"), ([-1], "must be between 0 and 1")):
        with pytest.raises(ZooError, match=message):
            fitted(x, y, categorical_features=features)
    with pytest.raises(ZooError, match="has more than 8 categories"):
        fitted(x, y, categorical_features=[0], num_bins=8)


def test_trees_of_other_categories_are_joined() -> None:
    x, y = with_categories(300)
    other = x.clone()
    other[:, 0] += 3.0  # of which some are new, and one is gone
    a, b = (fitted(rows, y, num_trees=3, categorical_features=[0]).trees for rows in (x, other))
    both = joined([a, b])
    for rows in (x, other):
        leaves = find_leaves(both, rows)
        assert torch.equal(both.value[leaves[:3]], a.value[find_leaves(a, rows)])
        assert torch.equal(both.value[leaves[3:]], b.value[find_leaves(b, rows)])


def test_a_run_keeps_the_losses_of_all_rounds(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ["model=gradient_boosting", "model.num_trees=6", "model.patience=6", "data=diabetes"]
    assert run_command([*options, "trainer.accelerator=cpu", f"run_dir={tmp_path}"]) == 0
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    rounds = [row for row in rows if row["rounds/train_loss"]]
    assert [int(row["step"]) for row in rounds] == [1, 2, 3, 4, 5, 6]
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    for name in ("rounds/train_loss", "rounds/val_loss"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose([s.value for s in scalars], [float(row[name]) for row in rounds], rtol=1e-6)
    model = zoo.load_model(tmp_path)
    np.testing.assert_allclose([float(r["rounds/val_loss"]) for r in rounds], model.val_losses.numpy(), rtol=1e-12)


def test_a_tree_of_boosting_is_text_and_a_picture() -> None:
    for load in (load_iris, load_diabetes, load_breast_cancer):
        model = fitted(*tensors(load), num_trees=2, num_leaves=3, min_samples_leaf=5)
        text = model.to_text(1)
        assert text.count("rows") == 3
        assert "%" not in text
        assert model.to_graphviz(1).count("->") == 4
        assert model.diagram(1).axes


@pytest.mark.parametrize("classes", [2, 3])
def test_no_rows_get_no_answers(classes: int) -> None:
    x = torch.arange(30.0).view(-1, 1)
    model = zoo.fit(
        zoo.create_model("gradient_boosting", num_trees=2, min_samples_leaf=1), x, torch.arange(30) % classes
    )
    assert model.predict(x[:0]).shape == (0,)
    assert model.predict_columns(x[:0])["probability"].shape == (0, classes)
