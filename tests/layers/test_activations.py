"""Activations against torch's: values and gradients over the whole range, at kinks, of NaN and infinity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zoo.layers import activations
from zoo.models.mlp import ACTIVATIONS

CASES = {
    "relu": [{}],
    "leaky_relu": [{}, {"negative_slope": 0.3}],
    "elu": [{}, {"alpha": 0.3}],
    "gelu": [{}, {"approximate": "tanh"}],
    "silu": [{}],
    "softplus": [{}, {"beta": 2.5, "threshold": 7.0}],
    "sigmoid": [{}],
    "tanh": [{}],
    "hardtanh": [{}, {"min_val": -0.3, "max_val": 2.0}],
    "mish": [{}],
}
PEERS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}
POINTS = torch.cat([
    torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-8, 1.0, -1.0, 2.0, 19.9, 20.1, 88.0, -88.0, 709.0, -709.0, 1e4, -1e4]),
    torch.linspace(-30, 30, 601),
]).double()  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name: str, dtype: torch.dtype) -> None:
    rtol, atol = (1e-10, 1e-10) if dtype == torch.float64 else (2e-5, 2e-6)
    ours, theirs = getattr(activations, name), PEERS.get(name) or getattr(F, name)
    for options in CASES[name]:
        for x in (POINTS.to(dtype), POINTS.to(dtype)[::3].expand(2, -1).T, POINTS[:0].to(dtype)):
            found = []
            for function, leaf in ((ours, x.detach().requires_grad_()), (theirs, x.detach().double().requires_grad_())):
                y = function(leaf, **options)
                found.append((y.detach().double(), torch.autograd.grad(y.sum(), leaf)[0].double()))
            for mine, peer in zip(*found, strict=True):
                torch.testing.assert_close(mine, peer, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_goes_the_way_of_torchs(name: str) -> None:
    x = torch.tensor([float("nan"), float("inf")], dtype=torch.float64)
    ours, theirs = getattr(activations, name)(x), (PEERS.get(name) or getattr(F, name))(x)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e3])
def test_softmax(name: str, dim: int, scale: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x = scale * torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)[:, ::2]
        x[0, 0] = -float("inf") if scale == 1.0 else x[0, 0]
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        found = []
        for function in (getattr(activations, name), getattr(F, name)):
            leaf = x.clone().requires_grad_()
            y = function(leaf, dim)
            kept = torch.where(y.isfinite(), y * direction, torch.zeros_like(y)).sum()
            found.append((y.detach(), torch.autograd.grad(kept, leaf)[0]))
        for mine, peer in zip(*found, strict=True):
            torch.testing.assert_close(mine, peer, rtol=tolerance, atol=tolerance)
    assert (
        getattr(activations, name)(torch.zeros(3, dtype=torch.float16), 0, dtype=torch.float64).dtype == torch.float64
    )
    assert getattr(activations, name)(torch.zeros(0, 3), 0).shape == (0, 3)


def test_another_approximation_is_refused() -> None:
    with pytest.raises(ValueError, match="approximate argument must be either none or tanh"):
        activations.gelu(torch.zeros(1), "erf")  # type: ignore[arg-type]


def test_those_that_networks_choose_by_name_are_all_here() -> None:
    assert set(ACTIVATIONS) - {"identity"} <= set(CASES)
