"""A layer of a transformer as one node of autograd: the same as from its parts, and only where nobody looks in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sanitizer import compile_sanitized, run_sanitized
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import zoo.kernels
from zoo.layers import RMSNorm, TransformerDecoderLayer, TransformerEncoderLayer
from zoo.layers.lora import add_lora

pytestmark = pytest.mark.skipif(zoo.kernels.status().variant is None, reason=str(zoo.kernels.status()))

OPTIONS: list[dict[str, Any]] = [
    {}, {"causal": True}, {"window": 3}, {"positions": "alibi", "causal": True, "window": 2}, {"num_kv_heads": 2},
]  # fmt: skip


@pytest.fixture(autouse=True)
def kernels_on() -> Iterator[None]:
    yield
    zoo.kernels.use(True)


def make(width: int = 24, inner: int = 37, seed: int = 0, **options: Any) -> TransformerEncoderLayer:
    """A layer whose parameters are not those it began with."""
    torch.manual_seed(seed)
    layer = TransformerEncoderLayer(width, 4, inner, 0.0, batch_first=True, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.2)
    return layer


def is_one_node(y: Tensor) -> bool:
    return y.grad_fn is not None and "Parts" in y.grad_fn.name()


def both_ways(call: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What is found in one node, and from operations one by one."""
    found = []
    for enabled in (True, False):
        zoo.kernels.use(enabled)
        found.append(call())
    zoo.kernels.use(True)
    return found


def close(one: tuple[Tensor, ...], other: tuple[Tensor, ...], near: float = 2e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= near * (b.abs().max() + 1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(("activation", "bias"), product(["relu", "gelu", "gelu_tanh"], [False, True]))
def test_results_and_gradients_are_those_of_the_parts(
    options: dict[str, Any], norm_first: bool, activation: str, bias: bool
) -> None:
    layer = make(activation=activation, bias=bias, norm_first=norm_first, **options)
    x, d = torch.randn(3, 7, 24, requires_grad=True), torch.randn(3, 7, 24)
    padding = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [4], [0]])  # all, some and none are there
    hidden = torch.rand(7, 7) < 0.3
    for masks in ({}, {"src_mask": hidden}, {"src_key_padding_mask": padding}, {"src_mask": hidden * -1e9}):

        def call(masks: dict[str, Tensor] = masks) -> tuple[Tensor, ...]:
            y = layer(x, **masks)
            assert is_one_node(y) == (zoo.kernels.status().variant is not None)
            return (y, *torch.autograd.grad(y, [x, *layer.parameters()], d))

        close(*both_ways(call))


@pytest.mark.parametrize("norm_first", [False, True])
def test_sizes_and_layouts(norm_first: bool) -> None:
    for seed, (rows, steps, width, inner) in enumerate(
        [(1, 4, 4, 1), (2, 5, 20, 33), (5, 64, 48, 100), (1, 130, 8, 3)]
    ):
        layer = make(width, inner, seed, activation="gelu", norm_first=norm_first)
        base = torch.randn(rows, width, steps + 1)
        for x in (base[..., 1:].mT, base[:1, :, 1:].mT.expand(rows, -1, -1), base[..., :-1].mT.contiguous()):

            def call(layer: nn.Module = layer, x: Tensor = x) -> tuple[Tensor, ...]:
                leaf = x.detach().requires_grad_()
                y = layer(leaf)
                return (y, *torch.autograd.grad(y.mT.square().sum(), [leaf, *layer.parameters()]))

            close(*both_ways(call))


def test_numbers_of_any_size_and_place() -> None:
    layer = make(norm_first=True, activation="gelu")
    for scale, place in ((1e-20, 0.0), (1e10, 0.0), (1.0, 1e3)):
        x = (torch.randn(3, 7, 24) * scale + place).requires_grad_()
        near = 2e-5 * (1 + place)
        close(*both_ways(lambda x=x: (layer(x), *torch.autograd.grad(layer(x).sum(), list(layer.parameters())))), near)


@pytest.mark.parametrize("norm_first", [False, True])
def test_second_derivatives_are_those_of_the_parts(norm_first: bool) -> None:
    layer = make(8, 12, activation="gelu", norm_first=norm_first, causal=True)
    x = torch.randn(2, 5, 8, requires_grad=True)

    def call() -> tuple[Tensor, ...]:
        leaves = [x, *layer.parameters()]
        first = torch.autograd.grad(layer(x).sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), leaves)

    close(*both_ways(call), 1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
def test_what_is_frozen_gets_no_gradient(norm_first: bool) -> None:
    names = ["x", *dict(make().named_parameters())]
    sets = [{name} for name in names] + [set(names) - {name} for name in names] + [{"x", names[-1]}, set(names[5:])]
    for learning in sets:
        layer = make(activation="gelu", norm_first=norm_first)
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name in learning)
        x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)).requires_grad_("x" in learning)

        def call(layer: nn.Module = layer, x: Tensor = x) -> tuple[Tensor, ...]:
            for leaf in (x, *layer.parameters()):
                leaf.grad = None
            layer(x).square().sum().backward()
            return tuple(leaf.grad for leaf in (x, *layer.parameters()) if leaf.grad is not None)

        one, other = both_ways(call)
        assert len(one) == len(learning)
        close(one, other)


def test_a_way_back_may_be_gone_twice() -> None:
    layer, x = make(activation="gelu", norm_first=True), torch.randn(2, 5, 24, requires_grad=True)
    y = layer(x)
    first = torch.autograd.grad(y.sum(), [x, *layer.parameters()], retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(y.sum(), [x, *layer.parameters()]), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), x)


@pytest.mark.parametrize("norm_first", [False, True])
def test_what_is_written_over_in_between_is_noticed(norm_first: bool) -> None:
    for name in ("linear2.weight", "self_attn.in_proj_weight", "norm1.weight", "x"):
        layer, leaf = make(norm_first=norm_first), torch.randn(2, 5, 24, requires_grad=True)
        x = leaf * 1
        y = layer(x)
        with torch.no_grad():
            (x if name == "x" else layer.get_parameter(name)).mul_(2)
        with pytest.raises(RuntimeError, match="inplace"):
            y.sum().backward()


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_result_may_be_written_over(norm_first: bool) -> None:
    layer, x = make(norm_first=norm_first), torch.randn(2, 5, 24, requires_grad=True)
    d = torch.randn(2, 5, 24)
    (expected,) = torch.autograd.grad(2 * layer(x), x, d)
    assert torch.equal(torch.autograd.grad(layer(x).mul_(2), x, d)[0], expected)


def test_checkpoints_and_no_gradients() -> None:
    layer, x = make(activation="gelu"), torch.randn(2, 5, 24, requires_grad=True)
    y = layer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    again = checkpoint(layer, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], gradient)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(layer(x), y)


def hooked(layer: nn.Module) -> list[Any]:
    seen: list[Any] = []
    for module in layer.modules():
        module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    return seen


def test_hooks_are_called() -> None:
    layer, x = make(), torch.randn(2, 5, 24)
    seen = hooked(layer)
    assert not is_one_node(layer(x))
    assert {"Linear", "LayerNorm", "MultiheadAttention", "Dropout", "TransformerEncoderLayer"} <= set(seen)
    for name in ("norm1", "self_attn", "self_attn.out_proj", "dropout1", "norm2", "linear1", "linear2", "dropout"):
        for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
            layer, calls = make(), []
            getattr(layer.get_submodule(name), f"register_{register}")(lambda *_, calls=calls: calls.append(1))
            layer(x.requires_grad_()).sum().backward()
            assert calls, (name, register)
    layer, calls = make(), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    layer(x)
    handle.remove()
    assert len(calls) > 5


def test_whatever_is_not_known_is_left_alone() -> None:
    x = torch.randn(2, 5, 24)

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    changes: dict[str, Callable[[TransformerEncoderLayer], Any]] = {
        "a layer of the user's": lambda layer: setattr(layer, "linear1", Doubled(24, 37)),
        "another norm": lambda layer: setattr(layer, "norm2", RMSNorm(24)),
        "a method of the user's": lambda layer: setattr(layer.linear2, "forward", lambda x: x @ torch.ones(37, 24)),
        "an activation of the user's": lambda layer: setattr(layer, "activation", torch.tanh),
        "dropout": lambda layer: setattr(layer.dropout2, "p", 0.5),
        "double precision": lambda layer: layer.double(),
    }
    for name, change in changes.items():
        layer = make()
        change(layer)
        y = layer(x.double() if name == "double precision" else x)
        assert not is_one_node(y), name
    layer = make()
    layer.dropout2.p = 0.5
    assert is_one_node(layer.eval()(x))  # nothing is dropped there


@pytest.mark.parametrize("norm_first", [False, True])
def test_parametrizations_are_asked_once(norm_first: bool) -> None:
    x = torch.randn(2, 5, 24)
    layer = make(norm_first=norm_first)
    add_lora(layer, rank=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    learning = [p for p in layer.parameters() if p.requires_grad]
    assert is_one_node(layer(x))
    close(*both_ways(lambda: torch.autograd.grad(layer(x).square().sum(), learning)))
    found = []
    for enabled in (True, False):
        zoo.kernels.use(enabled)
        module = make(norm_first=norm_first)
        parametrizations.spectral_norm(module.linear1)
        module(x)
        found.append((module.linear1.parametrizations.weight[0]._u.clone(),))
    close(*found)


def test_transforms_and_modes_see_the_parts() -> None:
    layer, x = make(activation="gelu", norm_first=True), torch.randn(2, 5, 24)
    y = layer(x)
    by_row = torch.func.vmap(lambda row: layer(row.unsqueeze(0)).squeeze(0))(x)
    torch.testing.assert_close(by_row, y, rtol=1e-4, atol=1e-5)
    _, slope = torch.func.jvp(lambda x: layer(x), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, (layer(x.double().float() + 1e-3) - y) / 1e-3, rtol=0.1, atol=0.1)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() >= 2 * x.numel() * (4 * 24 + 2 * 37)
    traced = torch.jit.trace(layer.eval(), x, check_trace=False)
    torch.testing.assert_close(traced(x), y, rtol=1e-4, atol=1e-5)


def test_copies_learn_by_themselves() -> None:
    layer = make(activation="gelu")
    other, x = copy.deepcopy(layer), torch.randn(2, 5, 24)
    layer(x).sum().backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_decoder_layer_has_two_such_nodes(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = TransformerDecoderLayer(24, 4, 37, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    x, memory = torch.randn(2, 5, 24, requires_grad=True), torch.randn(2, 9, 24, requires_grad=True)
    d = torch.randn(2, 5, 24)

    def call() -> tuple[Tensor, ...]:
        y = layer(x, memory, tgt_is_causal=True)
        assert is_one_node(y) == (zoo.kernels.status().variant is not None)
        return (y, *torch.autograd.grad(y, [x, memory, *layer.parameters()], d))

    close(*both_ways(call))


def test_weights_of_other_shapes_are_left_to_the_parts() -> None:
    x = torch.randn(8, 50, 24)
    for name, shape in {
        "norm1.weight": (3,), "norm2.bias": (1,), "linear2.bias": (1,), "linear1.bias": (3,), "linear2.weight": (1, 37),
        "self_attn.in_proj_weight": (24, 24), "self_attn.out_proj.weight": (1, 24), "linear1.weight": (12, 24),
    }.items():  # fmt: skip
        found = []
        for enabled in (True, False):
            zoo.kernels.use(enabled)
            layer = make(bias=name.endswith("bias") or "norm" in name)
            home, _, field = name.rpartition(".")
            setattr(layer.get_submodule(home), field, nn.Parameter(torch.ones(shape)))
            try:
                found.append(layer(x))
            except RuntimeError as error:
                found.append(str(error))
        one, other = found
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            close((one,), (other,))
        else:
            assert one == other, name


def test_modules_of_other_kinds_are_left_to_the_parts() -> None:
    for name in ("norm1", "norm2", "linear1", "self_attn.out_proj"):
        layer = make(24, 24)
        home, _, field = name.rpartition(".")
        setattr(layer.get_submodule(home), field, nn.Identity())
        x = torch.randn(2, 5, 24)
        close(*both_ways(lambda layer=layer, x=x: (layer(x),)))


@pytest.mark.parametrize("steps", [7, 60])
def test_a_way_back_of_another_kind(steps: int) -> None:
    layer, x = make(activation="gelu", norm_first=True), torch.randn(2, steps, 24, requires_grad=True)
    y, d = layer(x), torch.randn(3, 2, steps, 24)
    (expected,) = torch.autograd.grad(y, x, d[0], retain_graph=True)
    (batched,) = torch.autograd.grad(y, x, d, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(batched[0], expected, rtol=1e-4, atol=1e-5)
    by_func = torch.func.vmap(lambda d: torch.autograd.grad(y, x, d, retain_graph=True)[0])(d)
    torch.testing.assert_close(by_func[0], expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = torch.autograd.grad(y, x, d[0], retain_graph=True)
    assert torch.equal(cast, expected)


def test_weights_that_two_parts_share_are_counted_once() -> None:
    layer, x = make(24, 24, activation="gelu"), torch.randn(2, 5, 24, requires_grad=True)
    layer.norm2, layer.linear2.weight = layer.norm1, layer.linear1.weight
    leaves = [x, layer.norm1.weight, layer.linear1.weight]
    first = torch.autograd.grad(layer(x).sin().sum(), leaves)
    close(torch.autograd.grad(layer(x).sin().sum(), leaves, create_graph=True), first)


def test_a_mask_written_over_in_between_is_noticed() -> None:
    layer, x, mask = make(), torch.randn(2, 5, 24, requires_grad=True), torch.zeros(5, 5)
    y = layer(x, src_mask=mask)
    mask.fill_(-torch.inf)
    with pytest.raises(RuntimeError, match="inplace"):
        y.sum().backward()
    with pytest.raises(Exception, match="meta"):
        layer(x, src_mask=torch.zeros(5, 5, device="meta"))


@pytest.mark.parametrize("steps", [13, 60])
def test_gradients_where_one_key_has_all_the_weight(steps: int) -> None:
    layer = make(16, 32)
    x, d = torch.randn(2, steps, 16) + 1e4, torch.randn(2, steps, 16)
    found = []
    for module, dtype in ((layer, torch.float32), (copy.deepcopy(layer).double(), torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        found.append(torch.autograd.grad(module(leaf), list(module.parameters()), d.to(dtype)))
    size = max(float(oracle.abs().max()) for oracle in found[1])
    for ours, oracle in zip(*found, strict=True):
        assert (ours - oracle).abs().max() <= 1e-3 * size


@pytest.mark.slow
def test_nothing_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    for variant in zoo.kernels.runnable():
        folder = tmp_path / variant
        folder.mkdir()
        compile_sanitized(variant, folder)
        run_sanitized(
            variant,
            folder,
            """
import torch
from zoo.layers import TransformerEncoderLayer
for rows, steps, width, inner in ((1, 4, 4, 1), (3, 17, 12, 33), (2, 65, 40, 70)):
    for first in (False, True):
        for options in ({"causal": True}, {"num_kv_heads": 2, "positions": "alibi"}, {"window": 5, "bias": False}):
            layer = TransformerEncoderLayer(width, 4, inner, 0.0, "gelu", batch_first=True, norm_first=first, **options)
            x = torch.randn(rows, steps, width, requires_grad=True)
            padding = torch.arange(steps).expand(rows, steps) >= steps - 2
            y = layer(x, src_key_padding_mask=padding)
            assert "Parts" in y.grad_fn.name()
            y.square().sum().backward()
            assert x.grad.isfinite().all()
""",
        )


def test_a_pass_without_gradients_keeps_nothing() -> None:
    layer = make(32, 128, activation="gelu", norm_first=True)
    x, kept = torch.randn(4, 16, 32), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        with torch.no_grad():
            y = layer(x)
        assert not kept
        assert torch.equal(layer(x), y)
        assert kept
