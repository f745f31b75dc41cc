"""The convolutional network: any size of image, raw layers equal torch's, and it learns the digits."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo import Batch, DataSpec, ZooError
from zoo.data.registry import create_data
from zoo.models.cnn import CNN


def spec(*shape: int, **fields) -> DataSpec:
    return DataSpec(kind="image", shape=shape, **({"target": "class", "num_classes": 4} | fields))


def build(*shape: int, fields: dict | None = None, **hyperparameters) -> CNN:
    model = CNN(**{"channels": [4, 6], **hyperparameters})
    return model.build(spec(*shape, **(fields or {})))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (3, 1, 9), (2, 5, 5), (1, 8, 8), (3, 32, 20), (3, 224, 224)])
@pytest.mark.parametrize("residual", [False, True])
def test_any_image_passes(shape, residual):
    model = build(*shape, residual=residual, channels=[4, 4, 6, 6])
    output = model(torch.randn(2, *shape))
    assert output.shape == (2, 4)
    output.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_parameters_do_not_depend_on_the_size_of_the_image():
    small, large = build(3, 2, 2), build(3, 64, 48)
    large.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, 2, 2)
    assert large.eval()(x).shape == small.eval()(x).shape


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("pool", ["max", "avg", "none"])
@pytest.mark.parametrize("kernel_size", [1, 5])
def test_raw_layers_give_torchs_output_and_gradients(residual, pool, kernel_size):
    options = {"residual": residual, "pool": pool, "kernel_size": kernel_size}
    ours, theirs = (build(3, 7, 10, layers=layers, **options).double() for layers in ("zoo", "torch"))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 7, 10, dtype=torch.float64)
    outputs = [model(x) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    gradients = [
        torch.autograd.grad(output.square().sum(), list(model.parameters()))
        for output, model in zip(outputs, (ours, theirs), strict=True)
    ]
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-10)


def test_forward_is_the_formula():
    """One stage written out: convolution, ReLU, maximum of each 2×2 window, mean, affine head."""
    model = build(1, 4, 4, channels=[2], batch_norm=False).double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    conv, padded = model.first_convolution, torch.zeros(6, 6, dtype=torch.float64)
    padded[1:5, 1:5] = x[0, 0]
    hidden = torch.zeros(2, 4, 4, dtype=torch.float64)
    for o in range(2):
        for u in range(4):
            for v in range(4):
                hidden[o, u, v] = (conv.weight[o, 0] * padded[u : u + 3, v : v + 3]).sum() + conv.bias[o]
    pooled = hidden.clamp_min(0).view(2, 2, 2, 2, 2).amax((2, 4))
    expected = model.head.weight @ pooled.mean((1, 2)) + model.head.bias
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-12, atol=1e-14)


def test_a_residual_stage_with_zero_weights_passes_its_input_on():
    model = build(2, 4, 4, channels=[2], residual=True, batch_norm=False, pool="none")
    stage = model.stages[0]
    with torch.no_grad():
        stage.conv.weight.zero_()
        stage.conv.bias.zero_()
    x = torch.rand(3, 2, 4, 4)
    assert torch.equal(stage(x), x)


def test_values_are_predicted_too():
    model = build(1, 6, 6, fields={"target": "value", "num_classes": None, "num_targets": 2})
    batch = Batch(torch.randn(3, 1, 6, 6), torch.randn(3, 2))
    assert model.predict_batch(batch)["prediction"].shape == (3, 2)
    assert torch.isfinite(model.objective.loss(model(batch.x), batch))


def test_dropout_acts_in_training_alone():
    model = build(1, 6, 6, dropout=0.5, batch_norm=False)
    x = torch.randn(8, 1, 6, 6)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_spatial_dropout_drops_whole_channels_behind_each_stage():
    model = build(1, 6, 6, spatial_dropout=0.25, batch_norm=False, pool="none")
    assert [type(stage).__name__ for stage in model.stages] == ["ConvStage", "Dropout2d"] * 2
    x = model.stages[0](torch.rand(400, 1, 6, 6)) + 1  # (400, 4, 6, 6), nowhere 0
    dropped = model.train().stages[1](x)
    kept = (dropped != 0).flatten(2).float().mean(-1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(kept.mean() - 0.75) < 4 * (0.25 * 0.75 / kept.numel()) ** 0.5
    assert torch.allclose(dropped, x * kept[..., None, None] / 0.75)
    assert torch.equal(model.eval().stages[1](x), x)
    assert not hasattr(build(1, 6, 6).stages[1], "p")  # none unless it is asked for


def test_default_has_less_than_a_hundred_thousand_parameters_on_mnist():
    model = CNN().build(DataSpec(kind="image", shape=(1, 28, 28), target="class", num_classes=10))
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"channels": []}, "channels must be one or more"),
        ({"channels": [8, 0]}, "channels must be one or more"),
        ({"kernel_size": 4}, "kernel_size must be odd, such as 5, not 4"),
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"dropout": 1.5}, "dropout must be at least 0 and at most 1"),
    ],
)
def test_mistakes_are_one_line(hyperparameters, message):
    with pytest.raises(ZooError, match=message):
        CNN(**hyperparameters)


def test_tables_are_refused_with_what_is_accepted():
    with pytest.raises(ZooError, match="cnn takes image data with class targets or image data with value targets, but"):
        CNN().build(DataSpec(kind="tabular", shape=(4,), target="class", num_classes=2))


@pytest.mark.parametrize("residual", [False, True])
def test_pictures_show_filters_and_misclassified_images(residual):
    model = build(1, 8, 8, residual=residual).eval()
    batch = Batch(torch.randn(40, 1, 8, 8), torch.arange(40) % 4)
    pictures = dict(model.pictures(batch, model.predict_batch(batch)))
    assert set(pictures) == {"filters", "misclassified"}
    wrong = int((model.predict(batch.x) != batch.y).sum())
    assert sum(bool(axes.images) for axes in pictures["misclassified"].axes) == min(wrong, 24)
    right = Batch(batch.x, model.predict(batch.x))
    assert "misclassified" not in dict(model.pictures(right, model.predict_batch(right)))


def test_digits_are_learnt():
    data = create_data("digits")
    model = zoo.fit(zoo.create_model("cnn"), data, max_epochs=5, lr=5e-3)
    rows = data.rows("test")
    test = rows[torch.arange(len(rows))]
    assert float((model.predict(test) == test.y).double().mean()) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_digits_reach_the_accuracy_of_the_documentation(seed):
    data = create_data("digits", seed=seed)
    model = zoo.fit(zoo.create_model("cnn"), data, max_epochs=20, lr=1e-3, seed=seed)
    rows = data.rows("test")
    test = rows[torch.arange(len(rows))]
    assert float((model.predict(test) == test.y).double().mean()) >= 0.985
