"""What the trainer costs: an mlp's epochs through Lightning and the zoo's loader, beside a plain loop over tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import zoo
import zoo.sklearn
from benchmarks import Job
from benchmarks._grid import name_of
from zoo.data.array_data import ArrayData
from zoo.training.trainer import make_trainer

ROWS, FEATURES, CLASSES, EPOCHS = 20_000, 64, 10, 2


def jobs() -> Iterator[Job]:
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,))
    for batch_size, width in ((64, 128), (256, 512)):

        def ours(batch_size: int = batch_size, width: int = width) -> None:
            model = zoo.create_model("mlp", widths=[width, width])
            data = ArrayData(x, y, batch_size=batch_size)
            make_trainer(model, max_epochs=EPOCHS, accelerator="auto", progress=False).fit(model, datamodule=data)

        def peer(batch_size: int = batch_size, width: int = width) -> None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            inputs, targets = x.to(device), y.to(device)
            net = nn.Sequential(
                nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
            ).to(device)
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            for _ in range(EPOCHS):
                for rows in torch.randperm(ROWS, device=device).split(batch_size):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
                    optimizer.step()

        name = f"mlp {FEATURES}-{width}-{width}-{CLASSES}, {EPOCHS} epochs of {ROWS:,} rows, batches of {batch_size}"
        yield Job(name, ours, peer, "plain PyTorch loop", bound=1.3)


GRID: tuple[tuple[int, int, tuple[int, ...], int], ...] = (  # rows, features, widths, epochs
    (100, 2, (10,), 50), (100, 2_000, (100,), 20), (1_000, 4, (100,), 20), (1_000, 50, (100, 100), 10),
    (1_000, 1_000, (256,), 5), (10_000, 4, (32,), 5), (10_000, 100, (100,), 3), (10_000, 500, (256, 128), 1),
    (100_000, 10, (100,), 1), (100_000, 100, (64, 64), 1), (1_000_000, 4, (16,), 1),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield epochs of the estimators beside scikit-learn's, which take the same steps of the same start."""
    import sklearn.neural_network

    rng = np.random.default_rng(0)
    for rows, features, widths, epochs in GRID:
        x = rng.standard_normal((rows, features))
        score = x @ rng.standard_normal(features) / features**0.5
        for dtype, name, y in (
            ("float32", "MLPClassifier", np.digitize(score, (-0.5, 0.5))),
            ("float64", "MLPClassifier", np.digitize(score, (-0.5, 0.5))),
            ("float32", "MLPRegressor", score),
        ):
            where = {"rows": rows, "features": features, "widths": "-".join(map(str, widths)), "dtype": dtype}
            ours, peer = (
                epochs_of(getattr(home, name), x.astype(dtype), y, widths, epochs)
                for home in (zoo.sklearn, sklearn.neural_network)
            )
            quick = rows * features * epochs * sum(widths) < 5e8
            title = f"{name}, {epochs} epochs, {name_of(**where)}"
            yield Job(title, ours, peer, "scikit-learn", where=where, quick=quick)


def epochs_of(cls: Any, x: np.ndarray, y: np.ndarray, widths: tuple[int, ...], epochs: int) -> Callable[[], Any]:
    """Return a call that fits an estimator for some epochs, none less."""
    options = {"max_iter": epochs, "tol": 0.0, "n_iter_no_change": epochs + 1, "random_state": 0}
    return lambda: cls(hidden_layer_sizes=widths, **options).fit(x, y)
