"""Synthetic rows: pure functions of seed and row number, with the distributions that their options say."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.data import create_data
from zoo.errors import ZooError

ALL = [("blobs", {"num_features": 5}), ("moons", {}), ("regression", {"num_features": 4})]


def everything(data: Any, split: str = "train") -> tuple[Tensor, Tensor]:
    batch = data.rows(split)[torch.arange(len(data.rows(split)))]
    return batch.x, batch.y


@pytest.mark.parametrize(("name", "options"), ALL)
def test_rows_do_not_depend_on_how_they_are_asked_for(name: str, options: dict) -> None:
    """Bit for bit the same in any order, in any company and in another process's copy."""
    data = create_data(name, num_rows=50_000, **options)
    x, y = everything(data)
    rows = data.rows("train")
    index = torch.randperm(len(rows))[:5000]
    again = pickle.loads(pickle.dumps(rows))[index]
    assert torch.equal(again.x, x[index])
    assert torch.equal(again.y, y[index])
    for row in index[:20].tolist():
        alone = rows[torch.tensor([row])]
        assert torch.equal(alone.x[0], x[row])
        assert torch.equal(alone.y[0], y[row])


@pytest.mark.parametrize(("name", "options"), ALL)
def test_splits_are_ranges_of_one_stream(name: str, options: dict) -> None:
    shares = {"val_fraction": 0.0, "test_fraction": 0.0}
    whole, _ = everything(create_data(name, num_rows=1000, **shares, **options))
    data = create_data(name, num_rows=1000, **options)
    parts = [everything(data, split)[0] for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [700, 100, 200]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_seed_decides(name: str, options: dict) -> None:
    x, y = everything(create_data(name, seed=1, **options))
    same, _ = everything(create_data(name, seed=1, **options))
    other, _ = everything(create_data(name, seed=2, **options))
    assert torch.equal(x, same)
    assert not torch.equal(x, other)
    assert x.dtype == create_data(name, **options).spec.torch_dtype
    assert x.isfinite().all()
    assert y.isfinite().all()


def test_blobs_have_their_centers_and_spread() -> None:
    centers = [[0.0, 0.0, 10.0], [5.0, -5.0, 0.0]]
    x, y = everything(create_data("blobs", num_rows=40_000, centers=centers, cluster_std=0.5, val_fraction=0.0))
    assert abs(y.double().mean() - 0.5) < 5 * 0.5 / 32_000**0.5
    for label, center in enumerate(centers):
        cluster = x[y == label].double()
        error = 5 * 0.5 / len(cluster) ** 0.5
        assert (cluster.mean(0) - torch.tensor(center)).abs().max() < error
        assert (cluster.std(0) - 0.5).abs().max() < error
        assert (torch.corrcoef(cluster.T) - torch.eye(3)).abs().max() < 5 / len(cluster) ** 0.5


def test_blobs_draw_distinct_centers() -> None:
    centers = create_data("blobs", num_classes=50, num_features=3, center_box=2.0).centers  # type: ignore[attr-defined]
    assert centers.abs().max() <= 2
    assert torch.pdist(centers).min() > 0


def test_moons_lie_on_their_half_circles() -> None:
    x, y = everything(create_data("moons", num_rows=2000, noise=0.0))
    upper, lower = x[y == 0], x[y == 1]
    assert (upper.norm(dim=1) - 1).abs().max() < 1e-6
    assert upper[:, 1].min() >= -1e-6
    assert ((lower - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs().max() < 1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6
    assert abs(len(upper) - 700) < 5 * (1400 * 0.25) ** 0.5


def test_regression_has_its_weights() -> None:
    """Without noise the rows determine them (least squares); with it the residuals have its deviation."""
    data: Any = create_data("regression", num_rows=5000, num_features=6, noise=0.0)
    x, y = everything(data)
    design = torch.cat((x, torch.ones(len(x), 1, dtype=x.dtype)), dim=1)
    solution = torch.linalg.lstsq(design, y.unsqueeze(1)).solution.squeeze(1)
    torch.testing.assert_close(solution, torch.cat((data.weight, data.bias.view(1))), rtol=1e-9, atol=0)
    noisy: Any = create_data("regression", num_rows=5000, num_features=6, noise=3.0)
    x, y = everything(noisy)
    residual = y - x @ noisy.weight - noisy.bias
    assert abs(residual.std() - 3) < 5 * 3 / (2 * 3500) ** 0.5


def test_a_trillion_rows_cost_nothing() -> None:
    data = create_data("blobs", num_rows=10**12, num_features=16)
    batch = data.rows("train")[torch.tensor([0, 10**11, 7 * 10**11 - 1])]
    assert batch.x.shape == (3, 16)
    first = next(iter(data.train_dataloader()))
    assert first.x.shape == (64, 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blobs", {"num_rows": 0}, "data.num_rows must be at least 1, not 0"),
        ("blobs", {"num_features": 0}, "data.num_features"),
        ("blobs", {"cluster_std": -1.0}, "data.cluster_std"),
        ("blobs", {"centers": [[0.0], [1.0, 2.0]]}, "data.centers must be a list of points of one length"),
        ("blobs", {"centers": []}, "data.centers"),
        ("moons", {"noise": float("nan")}, "data.noise"),
        ("regression", {"noise": "much"}, "data.noise must be a number, not 'much'"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_data(name, **options)


@pytest.mark.parametrize("batch_size", [0, 100])
def test_a_solver_finds_the_weights_from_the_stream(batch_size: int) -> None:
    import zoo

    data: Any = create_data("regression", num_rows=1000, num_features=3, noise=0.0, batch_size=batch_size)
    model: Any = zoo.fit(zoo.create_model("linear_regression", solver="exact"), data)
    torch.testing.assert_close(model.linear.weight[0], data.weight, rtol=1e-9, atol=0)
    torch.testing.assert_close(model.linear.bias[0], data.bias, rtol=1e-9, atol=0)
