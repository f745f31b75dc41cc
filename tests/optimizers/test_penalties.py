"""L1 by proximal steps: the minimum of scikit-learn, with the same weights at zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression
from support import CPU, run_command
from torch import Tensor

import zoo
from zoo.errors import ZooError
from zoo.optimizers import Recipe


def standardized(load: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = load(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y


def descend(model: Any, batch: tuple[Tensor, Tensor], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Take so many steps over all rows as the model's recipe says; return weights and intercept."""
    optimizer, batch = model.recipe.build_optimizer(model), model.as_batch(batch)
    for _ in range(steps):
        loss = model.objective.loss(model.output(batch), batch)
        penalty = model.recipe.penalty(model)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        model.recipe.after_step(model, optimizer)
        optimizer.zero_grad()
    return model.linear.weight.detach().numpy()[0], model.linear.bias.detach().numpy()


@pytest.mark.parametrize(
    ("l1", "l2", "momentum"),
    [(10.0, 0.0, {"momentum": 0.9, "dampening": 0.5}), (2.0, 0.05, {"momentum": 0.9, "nesterov": True})],
)
def test_diabetes_ends_in_the_minimum_of_scikit_learn(l1: float, l2: float, momentum: dict[str, Any]) -> None:
    x, y = standardized(load_diabetes)
    spec = zoo.DataSpec(kind="tabular", shape=(x.shape[1],), target="value")
    model = zoo.create_model("linear_regression", spec, solver="gradient").double()
    rate = 0.05
    model.train_by(Recipe("sgd", {"lr": rate, **momentum}, l1=l1, l2=l2, l1_steps="proximal"))
    w, b = descend(model, (torch.tensor(x), torch.tensor(y)), 1500)
    # Theirs is half the mean squared error: α ρ = λ₁ / 2, α (1 − ρ) = λ₂.
    alpha = l1 / 2 + l2
    peer = ElasticNet(alpha, l1_ratio=l1 / 2 / alpha, tol=1e-14, max_iter=10**6) if l2 else Lasso(l1 / 2, tol=1e-14)
    peer.fit(x, y)

    def objective(w: np.ndarray, b: Any) -> float:
        return np.square(y - x @ w - b).mean() + l1 * np.abs(w).sum() + l2 * np.square(w).sum()

    assert objective(w, b) <= objective(peer.coef_, peer.intercept_) * (1 + 1e-6)
    assert set(np.flatnonzero(w)) == set(np.flatnonzero(peer.coef_))
    assert 0 < (w == 0).sum() < len(w)
    np.testing.assert_allclose(w, peer.coef_, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_breast_cancer_ends_in_the_minimum_of_scikit_learn() -> None:
    x, y = standardized(load_breast_cancer)
    l1 = 0.02
    spec = zoo.DataSpec(kind="tabular", shape=(x.shape[1],), target="class", num_classes=2)
    model = zoo.create_model("logistic_regression", spec, solver="gradient", binary_logit=True).double()
    model.train_by(Recipe("sgd", {"lr": 0.3, "momentum": 0.98}, l1=l1, l1_steps="proximal"))
    w, b = descend(model, (torch.tensor(x), torch.tensor(y)), 3000)
    peer = LogisticRegression(l1_ratio=1.0, solver="saga", C=1 / (l1 * len(y)), tol=1e-9, max_iter=20000).fit(x, y)

    def objective(w: np.ndarray, b: Any) -> float:
        return np.logaddexp(0, -(2 * y - 1) * (x @ w + b)).mean() + l1 * np.abs(w).sum()

    theirs = objective(peer.coef_[0], peer.intercept_)
    assert objective(w, b) <= theirs * (1 + 1e-6)
    assert set(np.flatnonzero(w)) == set(np.flatnonzero(np.abs(peer.coef_[0]) > 1e-9))
    assert 10 < (w == 0).sum() < len(w)


def test_steps_by_the_subgradient_leave_no_weight_at_zero_and_proximal_ones_do(tmp_path: Path) -> None:
    zeros = {}
    for steps in ("gradient", "proximal"):
        command = [
            "model=mlp",
            "data=iris",
            "model.widths=[8]",
            "optimizer=sgd",
            "optimizer.lr=0.05",
            "regularization=l1",
        ]
        command += [
            "regularization.l1=0.05",
            f"regularization.l1_steps={steps}",
            "trainer.max_epochs=8",
            "logger=[]",
            CPU,
        ]
        assert run_command([*command, f"run_dir={tmp_path / steps}"]) == 0
        state = zoo.load_model(tmp_path / steps / "checkpoints" / "last.ckpt").state_dict()
        zeros[steps] = {key: int((value == 0).sum()) for key, value in state.items() if "weight" in key}
        assert not any((value == 0).any() for key, value in state.items() if "bias" in key)
    assert not any(zeros["gradient"].values())
    assert sum(zeros["proximal"].values()) > 0


def test_proximal_steps_belong_to_gradient_descent() -> None:
    with pytest.raises(ZooError, match="optimizer=sgd"):
        Recipe("adam", {"lr": 0.1}, l1=0.1, l1_steps="proximal")
    assert Recipe("adam", {"lr": 0.1}, l1_steps="proximal").l1 == 0
