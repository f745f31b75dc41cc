"""Mixup, label noise and weight noise: what a step sees, drawn from the stream that a checkpoint holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.optimizers import Recipe
from zoo.optimizers.noise import mixup, noisy_classes, noisy_values, restore
from zoo.training.schema import leave_out_unused

SPEC = zoo.DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3)


def model_of(spec: zoo.DataSpec = SPEC, **noise: Any) -> Any:
    torch.manual_seed(0)
    model = zoo.create_model("mlp", widths=[8])
    model.train_by(Recipe(**noise))
    return model.build(spec)


def test_mixed_rows_lie_between_rows_by_a_beta_share() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    shares = []
    for _ in range(500):
        mixed = mixup(x, 0.4)
        assert torch.allclose(mixed.x, mixed.share * x + (1 - mixed.share) * x[mixed.partner], atol=1e-14)
        assert mixed.partner.sort().values.tolist() == list(range(6))
        shares.append(mixed.share)
    share = torch.tensor(shares)
    # Beta(α, α): mean ½, variance 1 / (4 (2 α + 1))
    assert abs(float(share.mean()) - 0.5) < 3 * float(share.std()) / len(share) ** 0.5
    assert abs(float(share.var()) * 4 * 1.8 - 1) < 0.2


def test_the_mixed_loss_is_that_of_both_targets_and_of_values_has_the_gradient_of_the_mixed_one() -> None:
    model, x, y = model_of(mixup=0.7), torch.randn(9, 4), torch.arange(9) % 3
    weight = torch.rand(9)
    torch.manual_seed(5)
    loss = model.mixed_loss(Batch(x, y, weight))
    torch.manual_seed(5)
    mixed = mixup(x, 0.7)
    output = model(mixed.x)
    losses = [F.cross_entropy(output, of, reduction="none") for of in (y, y[mixed.partner])]
    expected = mixed.share * (losses[0] * weight).sum() / weight.sum()
    expected += (1 - mixed.share) * (losses[1] * weight[mixed.partner]).sum() / weight.sum()
    assert torch.allclose(loss, expected)

    values = model_of(zoo.DataSpec(kind="tabular", shape=(4,), target="value"), mixup=0.7).double()
    x, y = x.double(), torch.randn(9, dtype=torch.float64)
    torch.manual_seed(5)
    values.mixed_loss(Batch(x, y)).backward()
    ours = values.net[1].weight.grad.clone()
    values.zero_grad()
    target = mixed.share * y + (1 - mixed.share) * y[mixed.partner]
    x_mixed = mixed.share * x + (1 - mixed.share) * x[mixed.partner]
    (values(x_mixed).squeeze(1) - target).square().mean().backward()
    assert torch.allclose(values.net[1].weight.grad, ours, atol=1e-7)


def test_labels_are_wrong_as_often_as_they_should_be() -> None:
    torch.manual_seed(0)
    n, p, classes = 10**6, 0.3, 5
    y = torch.arange(n) % classes
    wrong = float((noisy_classes(y, p, classes) != y).double().mean())
    expected = p * (classes - 1) / classes
    assert abs(wrong - expected) < 3 * (expected * (1 - expected) / n) ** 0.5
    noise = noisy_values(torch.zeros(n), 0.5)
    assert abs(float(noise.mean())) < 3 * 0.5 / n**0.5
    assert abs(float(noise.var()) / 0.25 - 1) < 3 * (2 / n) ** 0.5


def test_the_gradient_is_taken_at_shaken_weights_and_moves_the_weights_themselves() -> None:
    model = model_of(weight_noise=0.3)
    batch = Batch(torch.randn(9, 4), torch.arange(9) % 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    loss = model.training_step(batch, 0)
    shaken = {name: value.clone() for name, value in model.state_dict().items()}
    loss.backward()
    gradient = model.net[1].weight.grad.clone()
    restore(model._undisturbed)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = {name for name in before if not torch.equal(shaken[name], before[name])}
    assert changed == {"net.1.weight", "net.3.weight"}  # biases are left alone
    model.load_state_dict(shaken)
    model.zero_grad()
    model.training_loss(batch).backward()
    assert torch.equal(model.net[1].weight.grad, gradient)


def test_a_loss_that_is_not_finite_leaves_the_weights_unshaken() -> None:
    model = model_of(weight_noise=0.3)
    before = model.net[1].weight.clone()
    with pytest.raises(ZooError, match="The loss is nan"):
        model.training_step(Batch(torch.full((3, 4), float("nan")), torch.arange(3)), 0)
    assert torch.equal(model.net[1].weight, before)


def test_what_cannot_be_disturbed_is_refused() -> None:
    tokens = zoo.DataSpec(kind="tokens", shape=(5,), target="tokens", vocab_size=7)
    image = zoo.DataSpec(kind="image", shape=(1, 8, 8), target="class", num_classes=3)
    for name, spec, noise, why in (
        ("lstm", tokens, {"label_noise": 0.1}, "here the targets are tokens: leave it out"),
        ("lstm", tokens, {"mixup": 0.1}, "lstm reads tokens: leave it out"),
        ("ram", image, {"mixup": 0.1}, "ram has a loss of its own: leave it out"),
    ):
        model = zoo.create_model(name)
        model.train_by(Recipe(**noise))
        with pytest.raises(ZooError, match=why):
            model.build(spec)
    for noise in ({"label_noise": 2.0}, {"mixup": -1.0}, {"weight_noise": float("nan")}):
        with pytest.raises(ZooError, match=f"regularization.{next(iter(noise))} must be"):
            Recipe(**noise)


@pytest.mark.parametrize("name", ["mixup", "label_noise", "weight_noise"])
def test_models_that_take_no_steps_refuse_them(name: str) -> None:
    for model in ("kmeans", "word2vec"):
        with pytest.raises(ZooError, match=f"regularization={name} does nothing for {model}"):
            leave_out_unused({}, zoo.create_model(model), [f"regularization={name}"])
