"""The multilayer perceptron against scikit-learn's forward pass and its own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zoo

SPEC = zoo.DataSpec(kind="tabular", shape=(4,), target="class", num_classes=3)


def linears(model) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_forward_is_scikit_learns(activation):
    """The same weights in scikit-learn's MLPClassifier give the same class probabilities."""
    from sklearn.neural_network import MLPClassifier

    x = np.random.default_rng(0).standard_normal((20, 4))
    y = np.arange(20) % 3
    oracle = MLPClassifier(
        (8, 5), activation={"sigmoid": "logistic"}.get(activation, activation), max_iter=1, random_state=0
    )
    with pytest.warns(UserWarning, match="iterations"):
        oracle.fit(x, y)
    model = zoo.create_model("mlp", SPEC, widths=[8, 5], activation=activation).double()
    for layer, weight, bias in zip(linears(model), oracle.coefs_, oracle.intercepts_, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)
    np.testing.assert_allclose(
        model.predict_columns(x)["probability"].numpy(), oracle.predict_proba(x), rtol=1e-9, atol=1e-12
    )


def test_no_hidden_layer_is_linear():
    model = zoo.create_model("mlp", SPEC, widths=[])
    assert [tuple(layer.weight.shape) for layer in linears(model)] == [(3, 4)]


def test_dropout_only_in_training():
    model = zoo.create_model("mlp", SPEC, dropout=0.5)
    x = torch.ones(2, 4)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_batch_norm_before_the_nonlinearity():
    layers = list(zoo.create_model("mlp", SPEC, widths=[6], batch_norm=True).net)
    kinds = [type(layer) for layer in layers]
    assert kinds == [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


def test_regression_learns_a_curve():
    x = torch.linspace(-2, 2, 256).unsqueeze(1)
    model = zoo.fit(
        zoo.create_model("mlp", widths=[32, 32], activation="tanh"), x, x[:, 0].sin(), lr=0.01, max_epochs=90
    )
    assert (model.predict(x) - x[:, 0].sin()).square().mean() < 1e-3


def test_two_classes_by_one_logit():
    spec = zoo.DataSpec(kind="tabular", shape=(4,), target="class", num_classes=2)
    model, x = zoo.create_model("mlp", spec, widths=[3], binary_logit=True), torch.randn(5, 4)
    z = model(x)
    assert z.shape == (5, 1)
    found = model.predict_columns(x)
    torch.testing.assert_close(found["probability"], torch.cat([1 - z.sigmoid(), z.sigmoid()], 1))
    assert torch.equal(found["prediction"], (z[:, 0] > 0).long())


def test_counts_by_the_poisson_deviance():
    from sklearn.metrics import mean_poisson_deviance

    x = torch.linspace(-1, 1, 64).unsqueeze(1)
    y = (2 + 3 * x[:, 0]).exp().round()
    model = zoo.create_model("mlp", widths=[], loss="poisson")
    zoo.fit(model, x, y, lr=0.05, max_epochs=40)
    predicted = model.predict(x)
    assert bool((predicted > 0).all())
    measured = zoo.evaluate(model, x, y)
    assert measured["loss"] == pytest.approx(mean_poisson_deviance(y.numpy(), predicted.numpy()) / 2, rel=1e-5)
    assert measured["mse"] == pytest.approx(float((predicted - y).square().mean()), rel=1e-5)


def test_a_text_is_the_mean_of_its_tokens_whatever_their_order():
    spec = zoo.DataSpec("tokens", (5,), "class", num_classes=2, vocab_size=9)
    model = zoo.create_model("mlp", spec, widths=[], embedding_size=4).double()
    assert model.embedding.weight.abs().max() <= 0.25
    tokens = torch.tensor([[3, 1, 7], [7, 3, 1], [3, 0, 0]])
    mask = torch.tensor([[True] * 3, [True] * 3, [True, False, False]])
    (head,) = linears(model)
    expected = head(torch.stack([model.embedding.weight[[3, 1, 7]].mean(0)] * 2 + [model.embedding.weight[3]]))
    torch.testing.assert_close(model(tokens, mask), expected)
    torch.testing.assert_close(model(tokens[:2]), expected[:2])
    with pytest.raises(zoo.ZooError, match="embedding_size must be at least 1"):
        zoo.create_model("mlp", embedding_size=0)


def test_the_identity_leaves_a_linear_map():
    model = zoo.create_model("mlp", SPEC, widths=[6], activation="identity")
    first, second = linears(model)
    x = torch.randn(3, 4)
    torch.testing.assert_close(model(x), second(first(x)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [0]}, "widths must all be at least 1"),
        ({"dropout": 1.5}, "dropout must be at least 0 and at most 1"),
        ({"activation": "relo"}, "Did you mean relu"),
        ({"widths": "abc"}, "widths must be a list"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("mlp", **options)


def test_a_loss_of_values_is_refused_for_classes():
    with pytest.raises(zoo.ZooError, match="loss=poisson is for values, but the targets are class"):
        zoo.create_model("mlp", SPEC, loss="poisson")
