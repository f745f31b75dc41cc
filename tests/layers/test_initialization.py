"""Weight initializations: the numbers of torch.nn.init from the same generator, and the deviations they promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import nn

import zoo
from zoo.layers import initialization

CASES: dict[str, list[dict[str, Any]]] = {
    "xavier_uniform_": [{}, {"gain": 1.7}],
    "xavier_normal_": [{}, {"gain": 1.7}],
    "kaiming_uniform_": [{}, {"a": 0.2, "mode": "fan_out"}, {"nonlinearity": "relu"}],
    "kaiming_normal_": [{}, {"a": 0.2, "mode": "fan_out"}, {"nonlinearity": "tanh"}],
    "orthogonal_": [{}, {"gain": 0.3}],
    "trunc_normal_": [{}, {"mean": 0.3, "std": 0.5, "a": -0.1, "b": 0.6}, {"mean": 0.0, "a": 1.5, "b": 4.0}],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_torchs(name: str, dtype: torch.dtype) -> None:
    if name == "trunc_normal_" and int(torch.__version__.split(".")[1]) < 15:
        pytest.skip("torch drew them otherwise before")
    for options in CASES[name]:
        for shape in ((4, 7), (7, 4), (3, 2, 3, 3), (1, 1)):
            both = []
            for home in (initialization, nn.init):
                generator = torch.Generator().manual_seed(3)
                both.append(getattr(home, name)(torch.empty(shape, dtype=dtype), **options, generator=generator))
            assert torch.equal(*both), (name, options, shape)


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-0.2, 0.5), (1.5, 4.0)])
def test_truncated_normal_numbers_have_the_mean_and_deviation_of_scipys(bounds: tuple[float, float]) -> None:
    torch.manual_seed(0)
    drawn = initialization.trunc_normal_(torch.empty(50_000, dtype=torch.float64), a=bounds[0], b=bounds[1])
    peer = scipy.stats.truncnorm(*bounds)
    assert bounds[0] <= float(drawn.min()) <= float(drawn.max()) <= bounds[1]
    assert abs(float(drawn.mean()) - peer.mean()) < 4 * peer.std() / len(drawn) ** 0.5
    assert float(drawn.std()) == pytest.approx(peer.std(), rel=0.02)


def test_gains_are_torchs() -> None:
    for name in ("linear", "identity", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "conv2d"):
        theirs = nn.init.calculate_gain("linear" if name == "identity" else name)  # type: ignore[arg-type]
        assert initialization.calculate_gain(name) == theirs
    assert initialization.calculate_gain("leaky_relu", 0.3) == nn.init.calculate_gain("leaky_relu", 0.3)
    with pytest.raises(ValueError, match="Unsupported nonlinearity softmax"):
        initialization.calculate_gain("softmax")
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        initialization.xavier_normal_(torch.empty(3))


@pytest.mark.parametrize("name", [*initialization.INITIALIZATIONS])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_network_begins_as_it_is_told(name: str, kind: str) -> None:
    spec = zoo.DataSpec(kind="image", shape=(1, 8, 8), target="class", num_classes=3)
    options = {"widths": [300, 200]} if kind == "mlp" else {"channels": [64, 80]}
    torch.manual_seed(0)
    model = zoo.create_model(kind, spec, initialization=name, **options)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        weight = layer.weight.detach().flatten(1)
        assert layer.bias is None or not layer.bias.any()
        if weight.numel() < 5000:
            continue
        rows, columns = layer.weight.shape[0], weight.shape[1]
        back = layer.weight.shape[0] * math.prod(layer.weight.shape[2:])
        deviation = {
            "xavier": math.sqrt(2) * math.sqrt(2 / (columns + back)), "kaiming": math.sqrt(2 / columns),
            "orthogonal": math.sqrt(2 / max(rows, columns)), "truncated": 0.02 * 0.8796,
        }[name.partition("_")[0]]  # fmt: skip
        assert float(weight.std()) == pytest.approx(deviation, rel=0.05)
    assert model(torch.randn(5, 1, 8, 8)).isfinite().all()
