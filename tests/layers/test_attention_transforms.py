"""Attention and transformer layers under gradient checks, torch.compile, torch.export, torch.func and autocast."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from zoo.layers import (
    FeedForward,
    KeyValueCache,
    MultiheadAttention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    scaled_dot_product_attention,
)

DOUBLE = torch.float64
ATTENTION = [
    {}, {"num_kv_heads": 1, "positions": "rotary"}, {"window": 2, "causal": True, "positions": "alibi"},
    {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
]  # fmt: skip

# what costs seconds each is run with the others by `make test-all`
SOME = [
    options if k in (0, 2) else pytest.param(options, marks=pytest.mark.slow) for k, options in enumerate(ATTENTION)
]


def attention(seed: int = 0, dtype: torch.dtype = DOUBLE, **options: object) -> MultiheadAttention:
    torch.manual_seed(seed)
    return MultiheadAttention(4, 2, batch_first=True, dtype=dtype, **options)


def encoder(dtype: torch.dtype = DOUBLE, **options: object) -> TransformerEncoderLayer:
    torch.manual_seed(0)
    return TransformerEncoderLayer(4, 2, 6, batch_first=True, dtype=dtype, **{"dropout": 0.0, **options})


def sequence(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("options", ATTENTION, ids=str)
@pytest.mark.parametrize("padded", [pytest.param(False, marks=pytest.mark.slow), True])
def test_gradients_and_their_gradients(options: dict, padded: bool) -> None:
    layer = attention(**options)
    padding = torch.tensor([[False, True], [True, True]]) if padded else None
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        masks = {"key_padding_mask": padding}
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, x, x), masks)

    inputs = [sequence(2, 2, 4), *(p.detach().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_the_function(masked: bool) -> None:
    q, k, v = (sequence(2, n, 3) for n in (4, 5, 5))
    mask = torch.randn(4, 5, dtype=DOUBLE).masked_fill(torch.eye(4, 5).bool(), -torch.inf)
    mask[2] = -torch.inf
    mask = mask.requires_grad_() if masked else None
    inputs = (q, k, v, mask) if masked else (q, k, v)
    assert torch.autograd.gradgradcheck(scaled_dot_product_attention, inputs)
    assert torch.autograd.gradcheck(scaled_dot_product_attention, (q, k, v))
    finite = torch.randn(4, 5, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(scaled_dot_product_attention, (q, k, v, finite))


@pytest.mark.parametrize("options", SOME, ids=str)
@pytest.mark.parametrize("need_weights", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compile_traces_whole(options: dict, need_weights: bool) -> None:
    torch._dynamo.reset()
    layer = attention(**options)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    padding = torch.tensor([[False, False, True, False], [False] * 4])
    results = []
    x = sequence(2, 4, 4)
    for call in (layer, compiled):
        output, _ = call(x, x, x, key_padding_mask=padding, need_weights=need_weights)
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])])
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(*results, strict=True))


def test_compile_with_dropout_and_any_length() -> None:
    torch._dynamo.reset()
    layer = encoder(dropout=0.2, dtype=torch.float32, causal=True)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list) -> object:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    for steps in (4, 5, 7, 9):
        x = torch.randn(2, steps, 4)
        torch.manual_seed(steps)
        found = compiled(x)
        torch.manual_seed(steps)
        assert torch.equal(found, layer(x))
    assert len(graphs) <= 2  # the first length, and any


@pytest.mark.parametrize("options", SOME, ids=str)
def test_export_for_any_number_of_rows_and_steps(options: dict) -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention(**options)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    module = Self().eval()
    shapes = ({0: torch.export.Dim("rows", min=2, max=64), 1: torch.export.Dim("steps", min=4, max=64)},)
    exported = torch.export.export(module, (torch.randn(3, 5, 4, dtype=DOUBLE),), dynamic_shapes=shapes)
    x = torch.randn(7, 9, 4, dtype=DOUBLE)
    assert torch.allclose(exported.module()(x), module(x), rtol=1e-12)


@pytest.mark.parametrize("options", [{"causal": True, "window": 10}, {"num_kv_heads": 2}], ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "swiglu"])
def test_export_asks_for_no_size_that_a_kernel_begins_at(options: dict, activation: str) -> None:
    """Steps from a few, below each such size, to thousands, above them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = MultiheadAttention(64, 4, batch_first=True, **options)
            self.ahead = FeedForward(64, 256, activation)
            self.layer = TransformerEncoderLayer(64, 4, 256, activation="gelu", batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.attention(x, x, x, need_weights=False)[0]
            return self.layer(self.ahead(x))

    module = Block().eval()
    shapes = ({1: torch.export.Dim("steps", min=2, max=20_000)},)
    exported = torch.export.export(module, (torch.randn(2, 16, 64),), dynamic_shapes=shapes)
    for steps in (5, 700):
        x = torch.randn(2, steps, 64)
        assert torch.allclose(exported.module()(x), module(x), atol=1e-5)


@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_vmap_over_sequences_and_over_models(options: dict) -> None:
    layer = attention(**options)
    xs = torch.randn(6, 5, 4, dtype=DOUBLE)
    mapped = torch.func.vmap(lambda x: layer(x, x, x)[0])(xs)
    assert torch.allclose(mapped, layer(xs, xs, xs)[0], rtol=1e-12)
    masks = torch.rand(6, 5, 5) < 0.5
    mapped = torch.func.vmap(lambda x, mask: layer(x, x, x, attn_mask=mask)[0])(xs, masks)
    assert torch.allclose(mapped, torch.stack([layer(x, x, x, attn_mask=m)[0] for x, m in zip(xs, masks, strict=True)]))
    models = [attention(seed=s, **options) for s in range(3)]
    stacked, _ = torch.func.stack_module_state(models)
    together = torch.func.vmap(lambda p: torch.func.functional_call(layer, p, (xs, xs, xs))[0])(stacked)
    assert torch.allclose(together, torch.stack([m(xs, xs, xs)[0] for m in models]), rtol=1e-12)


@pytest.mark.parametrize("make", [attention, encoder])
def test_per_sample_gradients_and_jacobians(make: object) -> None:
    layer = make()
    parameters = dict(layer.named_parameters())
    xs = torch.randn(3, 5, 4, dtype=DOUBLE)

    def run(p: dict, x: Tensor) -> Tensor:
        output = torch.func.functional_call(layer, p, (x, x, x) if isinstance(layer, MultiheadAttention) else (x,))
        return output[0] if isinstance(output, tuple) else output

    def loss(p: dict, x: Tensor) -> Tensor:
        return run(p, x).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, xs)
    whole = torch.func.grad(lambda p: sum(loss(p, x) for x in xs))(parameters)
    assert all(torch.allclose(each[name].sum(0), whole[name], rtol=1e-9, atol=1e-12) for name in parameters)
    expected = torch.autograd.functional.jacobian(lambda v: run(parameters, v), xs[0])
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(lambda v: run(parameters, v))(xs[0]), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_the_meta_device_knows_the_shapes(options: dict) -> None:
    layer = attention(**options).to("meta")
    x = torch.randn(3, 5, 4, dtype=DOUBLE, device="meta", requires_grad=True)
    padding = torch.zeros(3, 5, dtype=torch.bool, device="meta")
    output, weights = layer(x, x, x, key_padding_mask=padding)
    extra = ("add_bias_kv" in options) + ("add_zero_attn" in options)
    assert output.shape == x.shape
    assert weights.shape == (3, 5, 5 + extra)
    output.sum().backward()
    made = MultiheadAttention(4, 2, device="meta", **options)
    assert all(p.device.type == "meta" for p in made.parameters())


@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_autocast_to_bfloat16(options: dict) -> None:
    layer = attention(dtype=torch.float32, **options)
    x = sequence(3, 5, 4, dtype=torch.float32)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0] = True
    expected = layer(x, x, x, key_padding_mask=padding)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = layer(x, x, x, key_padding_mask=padding)
        alone, _ = layer(x, x, x, key_padding_mask=padding, need_weights=False)
    assert found.dtype == alone.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(alone.float(), expected, rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert x.grad.dtype == torch.float32
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_throughout(dtype: torch.dtype) -> None:
    layers = encoder(dropout=0.1), TransformerDecoderLayer(4, 2, 6, batch_first=True), FeedForward(4, 6, "swiglu")
    x = torch.randn(3, 5, 4).to(dtype)
    for layer in layers:
        fed = (x, x) if isinstance(layer, TransformerDecoderLayer) else (x,)
        found = layer.to(dtype)(*fed)
        assert found.dtype == dtype
        assert found.isfinite().all()
        expected = layer.eval()(*fed)
        whole = layer.float()(*(v.float() for v in fed))
        torch.testing.assert_close(expected.float(), whole, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_draws_the_same_masks(reentrant: bool) -> None:
    layer, x = encoder(dropout=0.3), sequence(2, 5, 4)
    leaves = [x, *layer.parameters()]
    torch.manual_seed(1)
    plain = torch.autograd.grad(layer(x).square().sum(), leaves)
    torch.manual_seed(1)
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(leaf.grad, expected) for leaf, expected in zip(leaves, plain, strict=True))


def test_a_cache_under_inference_mode() -> None:
    layer, x, cache = attention(causal=True), torch.randn(2, 3, 4, dtype=DOUBLE), KeyValueCache()
    with torch.inference_mode():
        parts = [layer(step, step, step, cache=cache)[0] for step in x.split(1, 1)]
        assert torch.allclose(torch.cat(parts, 1), layer(x, x, x)[0], rtol=1e-12)
