"""Normalization, dropout, positions, embedding and feed-forward: against torch's layers and against their formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo.layers
from zoo.layers import (
    Dropout,
    FeedForward,
    LearnedPositionalEncoding,
    RMSNorm,
    SinusoidalPositionalEncoding,
    TokenEmbedding,
)
from zoo.layers.dropout import dropout
from zoo.layers.normalization import layer_norm

DOUBLE = torch.float64

NORMS = [
    ("LayerNorm", (6,), {}, (2, 5, 6)), ("LayerNorm", ((5, 6),), {"eps": 1e-3}, (2, 5, 6)),
    ("LayerNorm", (6,), {"bias": False}, (2, 6)), ("LayerNorm", (6,), {"elementwise_affine": False}, (6,)),
    ("RMSNorm", (6,), {}, (2, 5, 6)), ("RMSNorm", ((5, 6),), {"eps": 1e-3}, (2, 5, 6)),
    ("RMSNorm", (6,), {"elementwise_affine": False}, (6,)),
    ("BatchNorm1d", (6,), {}, (5, 6)), ("BatchNorm1d", (6,), {"momentum": None}, (5, 6, 3)),
    ("BatchNorm1d", (6,), {"affine": False, "eps": 1e-3}, (5, 6)), ("BatchNorm2d", (6,), {}, (2, 6, 3, 4)),
    ("BatchNorm2d", (6,), {"track_running_stats": False}, (2, 6, 3, 4)),
    ("BatchNorm2d", (6,), {"momentum": 0.5}, (1, 6, 2, 1)),
]  # fmt: skip


def biased(module: nn.Module) -> nn.Module:
    """The module with parameters that are not those it began with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.3)
    return module


def results(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs of two training steps and of evaluation, the gradients of the second, and what is kept."""
    module.train()
    found = [module(x).detach(), module(x * 2 + 1)]
    direction = torch.randn(found[1].shape, generator=torch.Generator().manual_seed(2)).to(x)
    found += torch.autograd.grad((found[1] * direction).sum(), [x, *module.parameters()])
    return [*found, module.eval()(x), *module.buffers()]


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), NORMS, ids=str)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_normalization_is_torchs(
    name: str, sizes: tuple, options: dict, shape: tuple, dtype: torch.dtype, shift: float, device: torch.device
) -> None:
    ours, theirs = (biased(getattr(home, name)(*sizes, **options)).to(device) for home in (zoo.layers, nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours).startswith(f"{name}({sizes[0]}") or repr(ours).startswith(f"{name}({(sizes[0],)}")
    ours, theirs = ours.to(dtype), theirs.to(DOUBLE)
    x = (torch.randn(*shape, device=device) + shift).to(dtype)
    x = x.flip(0).mT.contiguous().mT if x.dim() > 1 else x  # not contiguous
    mine, oracle = results(ours, x.requires_grad_()), results(theirs, x.detach().double().requires_grad_())
    # gradients of data 100 away from 0 have lost two of seven digits before anything is computed
    bound = (1e-10 if dtype == DOUBLE else 2e-5) * (1 if shift == 0 else 100)
    for a, b in zip(mine, oracle, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=bound, atol=bound)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "BatchNorm1d"])
def test_normalization_of_half_precision(name: str, half: torch.dtype) -> None:
    x = torch.randn(16, 8) * 3 + 5
    ours = getattr(zoo.layers, name)(8)
    theirs = getattr(nn, name)(8)
    found = ours.to(half)(x.to(half))
    assert found.dtype == half
    torch.testing.assert_close(found.float(), theirs(x.to(half).float()), rtol=0.02, atol=0.02)


def test_the_formula_of_layer_norm() -> None:
    """`LayerNorm` calls torch's operator; this is what it stands for."""
    x, weight, bias = (torch.randn(*s, dtype=DOUBLE, requires_grad=True) for s in ((3, 4, 6), (4, 6), (4, 6)))
    mine, oracle = layer_norm(x, (4, 6), weight, bias), F.layer_norm(x, (4, 6), weight, bias)
    torch.testing.assert_close(mine, oracle, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(mine)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight, bias), direction) for y in (mine, oracle)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_normalization_names_what_does_not_fit() -> None:
    with pytest.raises(RuntimeError, match="last axes are"):
        RMSNorm(6)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="2D or 3D"):
        zoo.layers.BatchNorm1d(6)(torch.zeros(2, 6, 1, 1))
    with pytest.raises(RuntimeError, match="expected 6 channels"):
        zoo.layers.BatchNorm2d(6)(torch.zeros(2, 5, 1, 1))
    with pytest.raises(ValueError, match="more than 1 value"):
        zoo.layers.BatchNorm1d(6)(torch.zeros(1, 6))
    assert zoo.layers.BatchNorm1d(6).eval()(torch.zeros(0, 6)).shape == (0, 6)
    assert zoo.layers.LayerNorm(6)(torch.zeros(0, 6)).shape == (0, 6)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_dropout_zeroes_a_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    n = 100_003
    x = torch.ones(n, dtype=dtype, requires_grad=True)
    y = dropout(x, p)
    kept = y != 0
    spread = math.sqrt(p * (1 - p) / n)
    assert abs(kept.double().mean() - (1 - p)) <= 6 * spread
    assert y.dtype == dtype
    if p < 1:
        scale = torch.tensor(65536 / (65536 - round(p * 65536)), dtype=dtype)
        assert torch.equal(y[kept], scale.expand(int(kept.sum())))
        torch.testing.assert_close(scale.double(), torch.tensor(1 / (1 - p), dtype=DOUBLE), rtol=1e-2, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_draws_each_number_by_itself() -> None:
    """Four numbers share a random word: each of its parts drops as often, and with the others only by chance."""
    dropped = (dropout(torch.ones(50_000, 4), 0.3) == 0).double()
    assert ((dropped.mean(0) - 0.3).abs() <= 6 * math.sqrt(0.21 / 50_000)).all()
    assert ((torch.corrcoef(dropped.T) - torch.eye(4)).abs() <= 6 / math.sqrt(50_000)).all()
    torch.manual_seed(3)
    first = dropout(torch.ones(99), 0.5)
    assert not torch.equal(first, dropout(torch.ones(99), 0.5))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(torch.ones(99), 0.5))


def test_the_dropout_layer() -> None:
    x = torch.randn(3, 0)
    assert Dropout(0.5)(x).shape == x.shape
    assert repr(Dropout(0.3)) == repr(nn.Dropout(0.3))
    y = torch.ones(100)
    assert Dropout(0.5).eval()(y) is y
    assert Dropout(0.5, inplace=True)(y) is y
    assert 0 < (y == 0).sum() < 100
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dropout(1.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropout(y, -0.1)
    assert torch.equal(torch.jit.script(Dropout(0.3).eval())(y), y)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_by_hand(width: int) -> None:
    x = torch.randn(2, 5, width, dtype=DOUBLE)
    code = SinusoidalPositionalEncoding(width)(x, positions=3) - x
    for t in range(5):
        for i in range(width):
            angle = (t + 3) / 10000 ** (2 * (i // 2) / width)
            assert abs(code[1, t, i] - (math.cos(angle) if i % 2 else math.sin(angle))) <= 1e-12


@pytest.mark.parametrize("cls", [SinusoidalPositionalEncoding, LearnedPositionalEncoding])
def test_positions_of_rows_and_of_steps(cls: type) -> None:
    def make(**options: object) -> nn.Module:
        torch.manual_seed(1)
        return cls(4, **options) if cls is SinusoidalPositionalEncoding else cls(20, 4, **options)

    layer, x = make(), torch.randn(2, 3, 4)
    whole = layer(x)
    assert torch.equal(make(batch_first=False)(x.transpose(0, 1)), whole.transpose(0, 1))
    assert torch.equal(layer(x[0]), whole[0])
    assert torch.equal(layer(x[:, 2:], positions=2), whole[:, 2:])
    by_row = layer(x, positions=torch.tensor([[0, 1, 2], [5, 6, 7]]))
    assert torch.equal(by_row[0], whole[0])
    assert torch.equal(by_row[1], layer(x, positions=5)[1])
    turned = make(batch_first=False)(x.transpose(0, 1), positions=torch.tensor([[0, 1, 2], [5, 6, 7]]))
    assert torch.equal(turned.transpose(0, 1), by_row)
    assert torch.equal(copy.deepcopy(layer)(x), whole)
    with pytest.raises(RuntimeError, match="width 4, got 5"):
        layer(torch.zeros(2, 3, 5))


def test_a_step_beyond_the_learned_positions_is_named() -> None:
    layer = LearnedPositionalEncoding(4, 2)
    with pytest.raises(ValueError, match="step 5 lies beyond max_length=4"):
        layer(torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="at least 1"):
        LearnedPositionalEncoding(0, 2)
    assert repr(layer).startswith("LearnedPositionalEncoding(\n  4, 2")


def test_an_embedding_is_used_from_both_sides() -> None:
    layer = TokenEmbedding(10, 16, padding_idx=0, scaled=True)
    tokens = torch.tensor([[1, 0], [3, 9]])
    vectors = layer(tokens)
    assert torch.equal(vectors, layer.weight[tokens] * 4)
    assert (vectors[0, 1] == 0).all()
    assert torch.equal(layer.logits(vectors), vectors @ layer.weight.T)
    vectors.sum().backward()
    assert (layer.weight.grad[0] == 0).all()
    with pytest.raises(ValueError, match="padding_idx must be a token"):
        TokenEmbedding(10, 4, padding_idx=10)
    assert repr(layer) == "TokenEmbedding(10, 16, padding_idx=0, scaled=True)"


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "swiglu"])
def test_feed_forward_by_its_formula(activation: str) -> None:
    layer, x = FeedForward(4, 6, activation, dtype=DOUBLE), torch.randn(2, 3, 4, dtype=DOUBLE)

    def affine(part: nn.Linear, v: Tensor) -> Tensor:
        return v @ part.weight.T + part.bias

    u = affine(layer.linear1, x)
    normal = torch.distributions.Normal(torch.zeros((), dtype=DOUBLE), 1.0)
    inner = {
        "relu": lambda: u.clamp_min(0), "gelu": lambda: u * normal.cdf(u),
        "swiglu": lambda: affine(layer.gate, x) / (1 + (-affine(layer.gate, x)).exp()) * u,
        "gelu_tanh": lambda: 0.5 * u * (1 + (math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)).tanh()),
    }[activation]()  # fmt: skip
    torch.testing.assert_close(layer(x), affine(layer.linear2, inner), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="relu, gelu, gelu_tanh, swiglu"):
        FeedForward(4, 6, "tanh")
