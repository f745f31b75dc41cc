"""Encoder and decoder layers, their stacks and the whole transformer against torch's; decoding with a cache."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import zoo.layers
from zoo.layers import (
    LayerNorm,
    Transformer,
    TransformerCache,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

DOUBLE = torch.float64
KINDS = (
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerDecoder",
    "Transformer",
)


def relative_error(ours: Tensor, oracle: Tensor, floor: float = 1e-300) -> float:
    """‖ours - oracle‖ / ‖oracle‖, and 0 for two zeros."""
    assert ours.shape == oracle.shape
    assert ours.dtype == oracle.dtype
    difference = (ours - oracle).norm().item()
    return difference / max(oracle.norm().item(), floor) if difference else 0.0


def make(home: object, kind: str, seed: int = 0, **options: object) -> nn.Module:
    """A layer of 6 with 2 heads, or a stack of two, from a seed."""
    torch.manual_seed(seed)
    options = {"dim_feedforward": 7, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "Transformer":
            return home.Transformer(6, 2, 2, 2, **options)
        layer = getattr(home, kind if kind.endswith("Layer") else f"{kind}Layer")(6, 2, **options)
        if kind.endswith("Layer"):
            return layer
        norm = home.LayerNorm(6, dtype=options.get("dtype"), device=options.get("device"))
        return getattr(home, kind)(layer, 2, norm)


def biased(module: nn.Module) -> nn.Module:
    """The module with parameters that are not those it began with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
    return module


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """Options of a layer and the masks that it is given."""
    kind = draw(st.sampled_from(KINDS))
    return {
        "kind": kind, "seed": draw(st.integers(0, 2**31)), "rows": draw(st.integers(1, 3)),
        "steps": draw(st.integers(1, 5)), "memory": draw(st.integers(1, 5)), "unbatched": draw(st.booleans()),
        "mask": draw(st.sampled_from([None, "bool", "float", "heads", "causal"])), "padding": draw(st.booleans()),
        "memory_mask": draw(st.booleans()), "memory_padding": draw(st.booleans()), "training": draw(st.booleans()),
        "options": {
            "batch_first": draw(st.booleans()), "norm_first": draw(st.booleans()), "bias": draw(st.booleans()),
            "activation": draw(st.sampled_from(["relu", "gelu", F.silu])), "dropout": 0.0,
            "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-2])),
        },
    }  # fmt: skip


def fed_by(case: dict, device: torch.device, dtype: torch.dtype) -> tuple[list[Tensor], dict]:
    """Sequences, and the masks by torch's names. Every query sees a key, as torch needs it."""
    torch.manual_seed(case["seed"])
    rows = 1 if case["unbatched"] else case["rows"]

    def sequence(steps: int) -> Tensor:
        shape = (rows, steps, 6) if case["options"]["batch_first"] else (steps, rows, 6)
        x = torch.randn(shape, dtype=DOUBLE).to(device, dtype)
        x = x.squeeze(0 if case["options"]["batch_first"] else 1) if case["unbatched"] else x
        return x.requires_grad_()

    def hidden(*shape: int) -> Tensor:
        mask = torch.rand(shape, device=device) < 0.4
        mask[..., 0] = False
        return mask

    def padded(steps: int) -> Tensor:
        return hidden(steps) if case["unbatched"] else hidden(rows, steps)

    steps, memory = case["steps"], case["memory"]
    mask = None
    if case["mask"] == "causal":
        mask = torch.ones(steps, steps, device=device).triu(1).bool()
    elif case["mask"] is not None:
        mask = hidden(*((rows * 2,) if case["mask"] == "heads" else ()), steps, steps)
        if case["mask"] == "float":
            mask = torch.randn(steps, steps, dtype=dtype, device=device).masked_fill(mask, -torch.inf)
    padding = padded(steps) if case["padding"] else None
    memory_mask = hidden(steps, memory) if case["memory_mask"] else None
    memory_padding = padded(memory) if case["memory_padding"] else None
    if case["kind"].startswith("TransformerEncoder"):
        first = "src_mask" if case["kind"].endswith("Layer") else "mask"
        return [sequence(steps)], {first: mask, "src_key_padding_mask": padding}
    names = {"tgt_mask": mask, "tgt_key_padding_mask": padding, "memory_mask": memory_mask}
    names["memory_key_padding_mask"] = memory_padding
    if case["kind"] == "Transformer":
        return [sequence(memory), sequence(steps)], names | {"src_key_padding_mask": memory_padding}
    return [sequence(steps), sequence(memory)], names


def compare(case: dict, device: torch.device, dtype: torch.dtype, bound: float) -> None:
    ours, theirs = (
        biased(make(home, case["kind"], dtype=dtype, device=device, **case["options"])).train(case["training"])
        for home in (zoo.layers, nn)
    )
    fed, masks = fed_by(case, device, dtype)
    results = []
    for module in (ours, theirs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = module(*fed, **masks)
        direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE).to(output)
        results.append([output, *torch.autograd.grad((output * direction).sum(), [*fed, *module.parameters()])])
    # Below the floor it is rounding that is told apart: of sums about 1 where a gradient is 0, as those of one key are.
    for mine, oracle in zip(*results, strict=True):
        assert relative_error(mine, oracle, 0.1 if dtype == torch.float32 else 1e-5) <= bound


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_results_and_gradients_equal_torchs(device: torch.device, case: dict) -> None:
    compare(case, device, DOUBLE, 1e-10)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), single=st.booleans())
def test_all_options_equal_torchs(device: torch.device, case: dict, single: bool) -> None:
    compare(case, device, torch.float32 if single else DOUBLE, 2e-5 if single else 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_torchs_parameters_under_torchs_names(kind: str) -> None:
    ours, theirs = (make(home, kind) for home in (zoo.layers, nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert {n for n, _ in ours.named_modules()} == {n for n, _ in theirs.named_modules()}


@pytest.mark.parametrize("depth", [0, 1, 12, 24])
def test_any_depth(depth: int) -> None:
    encoder = TransformerEncoder(TransformerEncoderLayer(4, 2, 4), depth)
    x = torch.randn(3, 2, 4)
    assert len(encoder.layers) == depth
    assert encoder(x).shape == x.shape
    with pytest.raises(ValueError, match="num_layers must be at least 0"):
        TransformerEncoder(TransformerEncoderLayer(4, 2, 4), -1)


@pytest.mark.parametrize("norm_first", [False, True])
def test_single_precision_in_any_layout(norm_first: bool) -> None:
    ours = biased(make(zoo.layers, "Transformer", dropout=0.0, norm_first=norm_first))
    theirs = make(nn, "Transformer", dropout=0.0, norm_first=norm_first, dtype=DOUBLE)
    theirs.load_state_dict(ours.state_dict())
    target = torch.randn(5, 2, 12)[..., ::2]
    for source in (torch.randn(1, 1, 6).expand(7, 2, 6), torch.randn(2, 7, 6).transpose(0, 1), torch.randn(7, 6, 2).mT):
        expected = theirs(source.double(), target.double())
        assert relative_error(ours(source, target).double(), expected) <= 2e-5
    assert ours(torch.randn(7, 0, 6), torch.randn(5, 0, 6)).shape == (5, 0, 6)


def test_what_sees_nothing_stays_finite() -> None:
    layer = TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x = torch.randn(2, 3, 8, requires_grad=True)
    output = layer(x, src_key_padding_mask=torch.tensor([[True] * 3, [False] * 3]))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in (x, *layer.parameters()))


# -- decoding ----------------------------------------------------------------------------------------------------------

OPTIONS = [{}, {"norm_first": True}, {"positions": "rotary", "num_kv_heads": 1}, {"window": 2, "positions": "alibi"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_decoder_with_a_cache_gives_what_it_gives_without(options: dict, batch_first: bool) -> None:
    layer = TransformerDecoderLayer(8, 2, 9, batch_first=batch_first, dtype=DOUBLE, causal=True, **options)
    decoder = biased(TransformerDecoder(layer, 3, LayerNorm(8, dtype=DOUBLE))).eval()
    axis = 1 if batch_first else 0
    x, memory = torch.randn(2, 6, 8, dtype=DOUBLE), torch.randn(2, 4, 8, dtype=DOUBLE)
    x, memory = (x, memory) if batch_first else (x.transpose(0, 1), memory.transpose(0, 1))
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    whole, cache = decoder(x, memory, memory_key_padding_mask=padding), TransformerCache(3)
    with torch.no_grad():
        parts = []
        for part in x.split([3, 1, 1, 1], dim=axis):
            parts.append(decoder(part, memory, memory_key_padding_mask=padding, cache=cache))
    assert cache.length == 6
    assert relative_error(torch.cat(parts, dim=axis), whole) <= 1e-12
    cache.truncate(4)
    rows = torch.tensor([1, 1, 0])
    cache.reorder(rows)
    last, new = x.narrow(axis, 4, 2).index_select(1 - axis, rows), memory.index_select(1 - axis, rows)
    found = decoder(last, new, memory_key_padding_mask=padding[rows], cache=cache)
    expected = whole.narrow(axis, 4, 2).index_select(1 - axis, rows)
    assert relative_error(found, expected) <= 1e-12


def test_an_encoder_with_a_cache_is_a_language_model() -> None:
    layer = TransformerEncoderLayer(8, 2, 9, batch_first=True, causal=True, dtype=DOUBLE)
    encoder = biased(TransformerEncoder(layer, 2)).eval()
    x, cache = torch.randn(2, 6, 8, dtype=DOUBLE), TransformerCache(2)
    with torch.no_grad():
        parts = [encoder(part, cache=cache) for part in x.split(1, dim=1)]
        assert relative_error(torch.cat(parts, dim=1), encoder(x)) <= 1e-12


def test_causal_needs_no_mask() -> None:
    model, source, target = (
        make(zoo.layers, "Transformer", dtype=DOUBLE).eval(),
        torch.randn(4, 2, 6),
        torch.randn(5, 2, 6),
    )
    source, target = source.double(), target.double()
    mask = Transformer.generate_square_subsequent_mask(5, dtype=DOUBLE)
    assert torch.equal(mask, nn.Transformer.generate_square_subsequent_mask(5, dtype=DOUBLE))
    expected = model(source, target, tgt_mask=mask)
    assert relative_error(model(source, target, tgt_is_causal=True), expected) <= 1e-14
    assert relative_error(model(source, target, tgt_mask=mask, tgt_is_causal=True), expected) <= 1e-14
    assert relative_error(model(source, target), expected) > 1e-3


def test_dropout_is_in_training_alone() -> None:
    layer, x = TransformerEncoderLayer(8, 2, 16), torch.randn(3, 2, 8)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_what_does_not_fit_is_named() -> None:
    model = make(zoo.layers, "Transformer")
    with pytest.raises(RuntimeError, match="batch number"):
        model(torch.zeros(3, 2, 6), torch.zeros(3, 1, 6))
    with pytest.raises(RuntimeError, match="feature number"):
        model(torch.zeros(3, 2, 6), torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match="activation must be relu, gelu"):
        TransformerEncoderLayer(8, 2, activation="swish")


def test_copies_and_repr() -> None:
    layer = TransformerDecoderLayer(8, 2, norm_first=True).eval()
    x = torch.randn(3, 2, 8)
    assert torch.equal(copy.deepcopy(layer)(x, x), layer(x, x))
    assert "norm_first=True" in repr(layer)
    custom = Transformer(8, 2, custom_encoder=nn.Identity(), num_decoder_layers=1)
    assert isinstance(custom.encoder, nn.Identity)
