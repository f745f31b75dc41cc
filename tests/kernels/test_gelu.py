"""GELU and its way back, compiled, beside the formula in double precision and beside torch's operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.gelu import gelu
from zoo.layers import FeedForward, TransformerEncoderLayer
from zoo.layers.feedforward import ACTIVATIONS

BOTH = pytest.mark.parametrize("tanh", [False, True])


def formula(x: Tensor, tanh: bool) -> Tensor:
    """x Φ(x) with no difference of what is nearly equal, or its approximation."""
    if tanh:
        return x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))
    return 0.5 * x * torch.special.erfc(x * -(0.5**0.5))


def case(seed: int, dtype: torch.dtype) -> Tensor:
    """Numbers of any count, scale and layout, none among them."""
    rng = torch.Generator().manual_seed(seed)
    rows, columns, scale = (int(torch.randint(high, (), generator=rng)) for high in (9, 70, 4))
    x = torch.randn(rows, 2 * columns, generator=rng, dtype=dtype) * [1e-30, 1e-3, 1.0, 5.0][scale]
    return [x, x[:, ::2], x.t(), x.unsqueeze(1).expand(-1, 3, -1), x[1:, 1:]][seed % 5]


@BOTH
@pytest.mark.parametrize("seed", range(40))
def test_any_size_layout_and_scale(kernels: str, seed: int, tanh: bool) -> None:
    for dtype, near in ((torch.float32, 4e-7), (torch.float64, 4e-15)):
        x = case(seed, dtype).requires_grad_()
        d = torch.randn(x.shape[::-1], dtype=dtype).permute(*range(x.ndim)[::-1])
        y = gelu(x, tanh)
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert ((y - formula(x.double(), tanh)).abs() <= near * x.abs()).all()
        (found,) = torch.autograd.grad(y, x, d)
        exact = x.detach().double().requires_grad_()
        (oracle,) = torch.autograd.grad(formula(exact, tanh), exact, d.double())
        torch.testing.assert_close(found.double(), oracle, rtol=0, atol=8 * near)


@BOTH
def test_every_float_that_counts(compiled: str, tanh: bool) -> None:
    x = torch.linspace(-15, 15, 200_003)
    exact = formula(x.double(), tanh)
    assert ((gelu(x, tanh) - exact).abs() <= 3e-7 * x.abs()).all()
    tail = (x > -6) & (x < 0)  # to a few digits where torch's own has none left
    assert ((gelu(x, tanh) / exact - 1)[tail].abs() <= 1e-5).all()


@BOTH
def test_the_ends(compiled: str, tanh: bool) -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e38, -1e38, 0.0, -0.0, 1e-45], requires_grad=True)
    y = gelu(x, tanh)
    torch.testing.assert_close(y, torch.tensor([torch.inf, 0, torch.nan, 1e38, 0, 0, 0, 0]), equal_nan=True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, torch.tensor([1, 0, torch.nan, 1, 0, 0.5, 0.5, 0.5]), equal_nan=True)
    d = torch.tensor([torch.nan, torch.inf])
    (slope,) = torch.autograd.grad(gelu(x[5:7], tanh), x, d)
    torch.testing.assert_close(slope[5:7], d / 2, equal_nan=True)


@BOTH
def test_derivatives_of_any_order(kernels: str, tanh: bool) -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gelu(x, tanh), x)
    assert torch.autograd.gradgradcheck(lambda x: gelu(x, tanh), x)
    single = x.detach().float().requires_grad_()
    found = []
    for function in (gelu, formula):
        (first,) = torch.autograd.grad(function(single, tanh).sin().sum(), single, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), single)
        found.append((first, second))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@BOTH
def test_the_operator_is_as_torch_wants_it(compiled: str, tanh: bool) -> None:
    for x in (torch.randn(4, 33), torch.randn(6, 5).t()):
        torch.library.opcheck(torch.ops.zoo.gelu.default, (x.requires_grad_(), tanh))
        torch.library.opcheck(torch.ops.zoo.gelu_backward.default, (torch.randn(x.shape), x.detach(), tanh))


def test_layers_take_it_and_transforms_do_not(compiled: str) -> None:
    layer, x = FeedForward(8, 2**12, "gelu_tanh"), torch.randn(64, 8)
    names = {node.name() for node in ancestors(layer(x).grad_fn)}
    assert "geluBackward" in names
    rows = torch.vmap(layer)(x)  # has no rule for it, and needs none
    torch.testing.assert_close(rows, layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert "geluBackward" not in {node.name() for node in ancestors(layer(x).grad_fn)}
    program = torch.export.export(layer, (x,))
    assert not any("zoo" in str(node.target) for node in program.graph.nodes)


def ancestors(node: object) -> list:
    """The nodes of autograd behind one."""
    found, waiting = [], [node]
    while waiting:
        found.append(waiting.pop())
        waiting += [parent for parent, _ in found[-1].next_functions if parent is not None]
    return found


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_a_layer_of_many_numbers_agrees_with_torchs_operators(kernels: str, activation: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2**20 // 64, 64, requires_grad=True)
    theirs = F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    torch.testing.assert_close(ACTIVATIONS[activation](x), theirs)
    layer = TransformerEncoderLayer(64, 4, 64, activation=activation)
    layer(x.view(-1, 32, 64)).sum().backward()
    assert layer.linear1.weight.grad.isfinite().all()


@pytest.mark.slow
def test_nothing_is_read_or_written_out_of_bounds(sanitized: Callable[[str], None]) -> None:
    sanitized(
        """
import torch
from zoo.kernels.gelu import gelu
for count in (0, 1, 7, 8, 15, 16, 17, 31, 8191, 8192, 8193, 300_001):
    for tanh in (False, True):
        x = (torch.randn(count) * 10).requires_grad_()
        gelu(x, tanh).sum().backward()
        assert x.grad.isfinite().all()
"""
    )
