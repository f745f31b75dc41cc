"""The affine map against torch's, where oneDNN takes the products and where it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import zoo.kernels.onednn
import zoo.layers.linear
from zoo.layers import Linear


@pytest.fixture(params=["large", "small"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for home in (zoo.layers.linear, zoo.kernels.onednn):
        monkeypatch.setattr(home, "wins", lambda: True)
    monkeypatch.setattr(zoo.layers.linear, "_LARGE", 0 if request.param == "large" else 1 << 60)
    return request.param


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 12), (2, 3, 12), (12,), (0, 12), (3, 0, 12)], ids=str)
@pytest.mark.parametrize("layout", ["dense", "strided", "expanded"])
def test_results_and_gradients_are_torchs(way: str, bias: bool, shape: tuple, layout: str) -> None:
    ours = Linear(12, 9, bias)
    theirs = nn.Linear(12, 9, bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape[:-1], 24)[..., ::2] if layout == "strided" else torch.randn(shape)
    x = torch.randn(1).expand(shape) if layout == "expanded" else x
    found = []
    for module, leaf in ((ours, x.detach().requires_grad_()), (theirs, x.detach().double().requires_grad_())):
        out = module(leaf)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        found.append([out, *torch.autograd.grad(out, [leaf, *module.parameters()], direction)])
    for mine, oracle in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), oracle, rtol=2e-5, atol=2e-6)


def test_the_large_way_is_taken(way: str) -> None:
    out = Linear(3, 4)(torch.randn(2, 3))
    assert ("Product" in type(out.grad_fn).__name__) == (way == "large")


def test_a_large_product_compiles_in_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.layers.linear, "_LARGE", 0)
    zoo.kernels.onednn.wins.cache_clear()
    layer, x = Linear(3, 4), torch.randn(2, 3)
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))


def test_gradients_of_gradients_and_transforms(way: str) -> None:
    layer, x = Linear(3, 4), torch.randn(5, 3, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), [x, layer.weight, layer.bias])
    plain = nn.Linear(3, 4)
    plain.load_state_dict(layer.state_dict())
    (first,) = torch.autograd.grad(plain(x).square().sum(), x, create_graph=True)
    expected = torch.autograd.grad(first.square().sum(), [x, plain.weight, plain.bias])
    for a, b in zip(second, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))
    out = layer(x)
    directions = torch.randn(2, *out.shape)
    together = torch.autograd.grad(out, x, directions, is_grads_batched=True, retain_graph=True)[0]
    each = [torch.autograd.grad(out, x, d, retain_graph=True)[0] for d in directions]
    torch.testing.assert_close(together, torch.stack(each))
    tangent = torch.func.jvp(layer, (x.detach(),), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, torch.ones_like(x) @ layer.weight.T)


def test_compile_script_autocast_and_meta(way: str) -> None:
    layer, x = Linear(3, 4), torch.randn(5, 3)
    assert torch.equal(torch.jit.script(layer)(x), nn.functional.linear(x, layer.weight, layer.bias))
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    out: Tensor = Linear(3, 4, device="meta")(torch.empty(2, 3, device="meta"))
    assert out.shape == (2, 4)
    with pytest.raises(RuntimeError):
        layer(torch.randn(5, 4))


def test_frozen_weights_get_no_gradient(way: str) -> None:
    layer, x = Linear(3, 4), torch.randn(5, 3, requires_grad=True)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [5] * 4
    assert x.grad is not None
