"""Dropout and its forms: which numbers fall together, and how many of a million do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from zoo import layers
from zoo.layers.dropout import dropout

FORMS = {  # each with an input of many groups that fall together, and the axes of a group
    "Dropout": ((1000, 1000), ()),
    "Dropout1d": ((1000, 1000, 2), (2,)),
    "Dropout2d": ((1000, 1000, 1, 2), (2, 3)),
    "Dropout3d": ((1000, 1000, 1, 1, 2), (2, 3, 4)),
    "VariationalDropout": ((1000, 2, 1000), (1,)),
}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", FORMS)
def test_mean_and_variance_of_a_million_draws(name: str, p: float) -> None:
    torch.manual_seed(0)
    shape, axes = FORMS[name]
    y = getattr(layers, name)(p)(torch.ones(shape))
    first: Tensor = y[tuple(0 if axis in axes else slice(None) for axis in range(len(shape)))]
    if axes:
        assert torch.equal(y, first.view([1 if axis in axes else n for axis, n in enumerate(shape)]).expand(shape))
    n = first.numel()
    assert n == 10**6
    dropped = round(p * 65536) / 65536
    q = 1 - dropped
    mean, variance, fourth = 1.0, dropped / q, q * (1 / q - 1) ** 4 + dropped
    assert abs(float(first.double().mean()) - mean) < 3 * math.sqrt(variance / n)
    # About the mean that is known; where p = ½ every number lies as far from it as any other.
    spread = float((first.double() - mean).square().mean())
    assert abs(spread - variance) <= 3 * math.sqrt(max(fourth - variance**2, 0) / n) + 1e-12


@pytest.mark.parametrize("name", FORMS)
def test_evaluation_p_of_0_and_1_gradients_and_places(name: str) -> None:
    make = getattr(layers, name)
    x = torch.randn(3, 4, *[2] * (len(FORMS[name][0]) - 2))
    assert make(0.5).eval()(x) is x
    assert make(0.0)(x) is x
    assert not make(1.0)(x).any()
    leaf = x.clone().requires_grad_()
    y = make(0.5)(leaf)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    assert torch.allclose(gradient * leaf, y)
    z = x.clone()
    assert make(0.5, inplace=True)(z) is z
    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1\.5"):
        make(1.5)
    if hasattr(nn, name):
        assert repr(make(0.3)).startswith(repr(getattr(nn, name)(0.3)))
    assert torch.equal(dropout(x, 0.5, training=False), x)


def test_steps_come_first_or_second_and_channels_with_or_without_a_batch() -> None:
    torch.manual_seed(0)
    y = layers.VariationalDropout(0.5, batch_first=False)(torch.ones(7, 40, 30))
    assert torch.equal(y, y[:1].expand(7, 40, 30))
    assert len(y[0].unique(dim=0)) > 1
    alone = layers.VariationalDropout(0.5)(torch.ones(7, 30))
    assert torch.equal(alone, alone[:1].expand(7, 30))
    channels = layers.Dropout2d(0.5)(torch.ones(50, 3, 3))
    assert 0 < len(channels[:, 0, 0].nonzero()) < 50
    with pytest.raises(ValueError, match="Dropout2d takes 3 or 4 axes, not 2"):
        layers.Dropout2d(0.5)(torch.ones(2, 2))
