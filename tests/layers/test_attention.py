"""Attention against torch's: results, weights, gradients, parameters, all masks and options; and what torch lacks."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.layers import KeyValueCache, MultiheadAttention, scaled_dot_product_attention
from zoo.layers.positions import alibi_slopes, rotate

DOUBLE = torch.float64


def relative_error(ours: Tensor, oracle: Tensor, floor: float = 1e-300) -> float:
    """‖ours - oracle‖ / ‖oracle‖, and 0 for two zeros."""
    assert ours.shape == oracle.shape
    assert ours.dtype == oracle.dtype
    difference = (ours - oracle).norm().item()
    return difference / max(oracle.norm().item(), floor) if difference else 0.0


def both(*args: object, seed: int = 0, **kwargs: object) -> tuple[MultiheadAttention, nn.MultiheadAttention]:
    """Our layer and torch's, each drawn from the same seed."""
    modules = []
    for cls in (MultiheadAttention, nn.MultiheadAttention):
        torch.manual_seed(seed)
        modules.append(cls(*args, **kwargs))
    return modules[0], modules[1]


def biased(module: nn.Module) -> nn.Module:
    """The module with biases that are not all zero, as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
    return module


def gradients(results: list[Tensor], leaves: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Gradients of a random linear function of all results."""
    generator = torch.Generator().manual_seed(seed)
    loss = sum((r * torch.randn(r.shape, generator=generator, dtype=DOUBLE).to(r)).sum() for r in results)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """Options of a layer, what it is fed and under which masks."""
    heads = draw(st.integers(1, 3))
    width = heads * draw(st.integers(1, 4))
    options = {
        "bias": draw(st.booleans()), "add_bias_kv": draw(st.booleans()), "add_zero_attn": draw(st.booleans()),
        "batch_first": draw(st.booleans()), "dropout": draw(st.sampled_from([0.0, 0.4])),
    }  # fmt: skip
    fed = draw(st.sampled_from(["self", "memory", "apart"]))
    if fed != "self" and draw(st.booleans()):
        options["kdim"] = draw(st.integers(1, 5))
        options["vdim"] = options["kdim"] if fed == "memory" else draw(st.integers(1, 5))
    queries = draw(st.integers(1, 5))
    return {
        "sizes": (width, heads), "options": options, "fed": fed, "queries": queries, "rows": draw(st.integers(1, 3)),
        "keys": queries if fed == "self" else draw(st.integers(1, 5)), "unbatched": draw(st.booleans()),
        "mask": draw(st.sampled_from([None, "bool", "float", "heads bool", "heads float", "causal"])),
        "padding": draw(st.sampled_from([None, "bool", "float"])), "need_weights": draw(st.booleans()),
        "average": draw(st.booleans()), "training": draw(st.booleans()), "seed": draw(st.integers(0, 2**31)),
    }  # fmt: skip


def fed_by(case: dict, device: torch.device, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], dict]:
    """Leaves; query, key and value; and the arguments beside them. Every query sees a key, as torch needs it."""
    torch.manual_seed(case["seed"])
    (width, heads), options, rows = case["sizes"], case["options"], 1 if case["unbatched"] else case["rows"]
    queries, keys = case["queries"], case["keys"]

    def sequence(steps: int, features: int) -> Tensor:
        shape = (rows, steps, features) if options["batch_first"] else (steps, rows, features)
        x = torch.randn(shape).to(device, dtype)  # the same numbers in any type
        return (x.squeeze(0 if options["batch_first"] else 1) if case["unbatched"] else x).requires_grad_()

    query = sequence(queries, width)
    key = sequence(keys, options.get("kdim", width))
    value = sequence(keys, options.get("vdim", width))
    fed = {"self": [query] * 3, "memory": [query, key, key], "apart": [query, key, value]}[case["fed"]]
    arguments: dict = {"need_weights": case["need_weights"], "average_attn_weights": case["average"]}
    if case["mask"] is not None:
        shape = (rows * heads, queries, keys) if "heads" in case["mask"] else (queries, keys)
        hidden = torch.rand(shape) < 0.4
        if case["mask"] == "causal":
            hidden = torch.ones(queries, keys).triu(1).bool()
        hidden[..., 0] = False
        mask = torch.randn(shape).masked_fill(hidden, -torch.inf) if "float" in case["mask"] else hidden
        arguments["attn_mask"] = mask.to(device) if mask.dtype == torch.bool else mask.to(device, dtype)
        # given the hint, torch hides the keys that it adds itself from all queries but the last; without, from none
        extra = options["add_bias_kv"] or options["add_zero_attn"]
        arguments["is_causal"] = case["mask"] == "causal" and queries == keys and not extra
    if case["padding"] is not None:
        hidden = torch.rand(rows, keys) < 0.4
        hidden[:, 0] = False
        padding = torch.randn(rows, keys).masked_fill(hidden, -torch.inf) if case["padding"] == "float" else hidden
        padding = padding[0] if case["unbatched"] else padding
        arguments["key_padding_mask"] = padding.to(device) if padding.dtype == torch.bool else padding.to(device, dtype)
    leaves = {id(x): x for x in fed}
    return list(leaves.values()), fed, arguments


def compare(case: dict, device: torch.device, dtype: torch.dtype, bound: float) -> None:
    """Ours in a type beside torch's in double precision."""
    ours, theirs = both(*case["sizes"], dtype=dtype, device=device, **case["options"])
    theirs.double().load_state_dict(biased(ours).state_dict())
    results = []
    for module, kind in ((ours, dtype), (theirs, DOUBLE)):
        module.train(case["training"])
        if case["training"]:
            module.dropout = 0.0  # the masks are drawn in another way
        leaves, fed, arguments = fed_by(case, device, kind)
        output, weights = module(*fed, **arguments)
        values = [output, *([] if weights is None else [weights])]
        found = [*values, *gradients(values, [*leaves, *module.parameters()])]
        with torch.no_grad():
            found.append(module(*fed, **arguments)[0])
        results.append(found)
    for mine, oracle in zip(*results, strict=True):
        # where the terms of a gradient cancel, their rounding stays (some 1e-16 of each, in float64): below 0.1,
        # and 1e-5, the bound is one of the difference
        assert relative_error(mine.double(), oracle, 0.1 if dtype == torch.float32 else 1e-5) <= bound


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_results_weights_and_gradients_equal_torchs(device: torch.device, case: dict) -> None:
    compare(case, device, DOUBLE, 1e-10)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), single=st.booleans())
def test_all_options_equal_torchs(device: torch.device, case: dict, single: bool) -> None:
    compare(case, device, torch.float32 if single else DOUBLE, 2e-5 if single else 1e-10)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 3, "vdim": 5}, {"add_bias_kv": True}], ids=str)
def test_a_seed_draws_torchs_parameters_under_torchs_names(options: dict) -> None:
    ours, theirs = both(6, 2, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same shape in memory of several kinds."""
    wide = torch.randn(*x.shape[:-1], 2 * x.shape[-1])
    return {
        "strided": wide[..., ::2], "transposed": torch.randn(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1),
        "expanded": torch.randn(1, *x.shape[1:]).expand(x.shape),
        "columns": torch.randn(*x.shape[:-2], x.shape[-1], x.shape[-2]).mT,
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["strided", "transposed", "expanded", "columns"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_single_precision_in_any_layout(layout: str, batch_first: bool, scale: float) -> None:
    ours, theirs = both(16, 4, batch_first=batch_first)
    ours.load_state_dict(biased(theirs).state_dict())
    x = layouts(torch.randn(7, 9, 16))[layout] * scale
    results = []
    for module, dtype in ((ours, torch.float32), (theirs, torch.float32), (theirs.to(DOUBLE), DOUBLE)):
        leaf = x.detach().to(dtype).requires_grad_()
        module.to(dtype)
        values = list(module(leaf, leaf, leaf, average_attn_weights=False))
        results.append([v.double() for v in (*values, *gradients(values, [leaf, *module.parameters()]))])
    for mine, single, oracle in zip(*results, strict=True):
        # at a scale of 30 the scores reach hundreds, and no softmax of them in single precision is right to 2e-5
        bound = 2e-5 if scale <= 1 else 2 * relative_error(single, oracle, 0.1) + 2e-5
        assert relative_error(mine, oracle, 0.1) <= bound


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (0, 0, 4)])
def test_empty_inputs(shape: tuple[int, ...]) -> None:
    ours, theirs = both(4, 2)
    x = torch.randn(shape, requires_grad=True)
    output, weights = ours(x, x, x)
    assert output.shape == shape
    assert weights.shape == (shape[1], shape[0], shape[0])
    output.sum().backward()
    assert x.grad.shape == shape
    no_keys = torch.randn(0, 2, 4)
    output, _ = ours(torch.randn(3, 2, 4), no_keys, no_keys)
    assert torch.equal(output, ours.out_proj.bias.expand(3, 2, 4))
    del theirs


# -- the function ------------------------------------------------------------------------------------------------------

MASKS = {
    "none": None,
    "bool": torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool),
    "float": torch.tensor([[0.5, -torch.inf, -2, 0], [1, 1, 1, 1], [0, 0, 3, 0]], dtype=DOUBLE),
    "by row": torch.arange(2 * 3 * 4, dtype=DOUBLE).view(2, 1, 3, 4).sin(),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"enable_gqa": True}], ids=str)
def test_the_function_is_torchs(mask: str, options: dict) -> None:
    torch.manual_seed(0)
    groups = 2 if "enable_gqa" in options else 4
    q, k, v = (torch.randn(2, h, n, 5, dtype=DOUBLE, requires_grad=True) for h, n in ((4, 3), (groups, 4), (groups, 4)))
    found = []
    for function in (scaled_dot_product_attention, F.scaled_dot_product_attention):
        out = function(q, k, v, attn_mask=MASKS[mask], **options)
        found.append([out, *gradients([out], [q, k, v])])
    for mine, oracle in zip(*found, strict=True):
        assert relative_error(mine, oracle) <= 1e-12


@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (2, 4), (4, 2), (1, 3)])
def test_causal_is_torchs(queries: int, keys: int) -> None:
    q, k, v = (torch.randn(2, 3, n, 4, dtype=DOUBLE) for n in (queries, keys, keys))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative_error(scaled_dot_product_attention(q, k, v, is_causal=True), expected) <= 1e-12


@pytest.mark.parametrize("window", [1, 2, 3, 9])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("offset", [0, 2])
def test_windows_and_offsets_are_masks(window: int, causal: bool, offset: int) -> None:
    q, k, v = (torch.randn(2, n, 4, dtype=DOUBLE) for n in (4, 6, 6))
    seen = torch.tensor(
        [[abs(t + offset - s) < window and not (causal and s > t + offset) for s in range(6)] for t in range(4)]
    )
    found = scaled_dot_product_attention(q, k, v, is_causal=causal, window=window, offset=offset)
    assert relative_error(found, F.scaled_dot_product_attention(q, k, v, attn_mask=seen)) <= 1e-12


@pytest.mark.parametrize("options", [{"is_causal": True}, {"window": 2}, {"is_causal": True, "window": 2}])
@pytest.mark.parametrize("offset", [-9, -3, 9])
def test_queries_before_or_behind_all_keys_see_nothing(options: dict, offset: int) -> None:
    q, k, v = (torch.randn(2, n, 4, dtype=DOUBLE, requires_grad=True) for n in (4, 6, 6))
    window, causal = options.get("window", 99), "is_causal" in options
    seen = torch.tensor(
        [[abs(t + offset - s) < window and not (causal and s > t + offset) for s in range(6)] for t in range(4)]
    )
    found = scaled_dot_product_attention(q, k, v, offset=offset, **options)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=seen)
    assert bool((found[:, ~seen.any(1)] == 0).all())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    both = (torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (found, expected))
    torch.testing.assert_close(*both, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 0, 5, 4), (2, 3, 0, 4), (2, 3, 5, 0)])
def test_empty_axes_stay_empty(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    out = scaled_dot_product_attention(x, x, x)
    out.sum().backward()
    assert out.shape == x.grad.shape == shape


def test_alibi_takes_the_distance_from_the_scores() -> None:
    slopes = torch.tensor([0.5, 0.25, 0.1], dtype=DOUBLE)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=DOUBLE) for _ in range(3))
    distance = torch.tensor([[abs(t - s) for s in range(5)] for t in range(5)])
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=-slopes.view(3, 1, 1) * distance)
    assert relative_error(scaled_dot_product_attention(q, k, v, alibi=slopes), expected) <= 1e-12


def test_slopes_can_learn_on_sequences_of_any_length() -> None:
    for steps in (5, 200):
        q, slopes = torch.randn(1, 2, steps, 4, dtype=DOUBLE), torch.rand(2, dtype=DOUBLE, requires_grad=True)
        (gradient,) = torch.autograd.grad(scaled_dot_product_attention(q, q, q, alibi=slopes).square().sum(), slopes)
        back = torch.arange(steps).unsqueeze(1) - torch.arange(steps)
        bias = -slopes.view(-1, 1, 1) * back.abs()
        (oracle,) = torch.autograd.grad(F.scaled_dot_product_attention(q, q, q, bias).square().sum(), slopes)
        assert relative_error(gradient, oracle) <= 1e-10


def test_slopes_of_the_paper() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    expected = [2.0**-h for h in range(1, 9)] + [2.0 ** -(h / 2) for h in (1, 3, 5, 7)]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor(expected))


# -- no NaN ------------------------------------------------------------------------------------------------------------


@st.composite
def hiding(draw: st.DrawFn) -> dict:
    """Masks that may hide everything."""
    return {
        "queries": draw(st.integers(1, 4)), "keys": draw(st.integers(1, 4)), "seed": draw(st.integers(0, 2**31)),
        "share": draw(st.sampled_from([0.3, 0.8, 1.0])), "padded": draw(st.sampled_from([0.0, 0.6, 1.0])),
        "value": draw(st.sampled_from([-torch.inf, torch.finfo(torch.float32).min, -1e30])),
        "float": draw(st.booleans()), "causal": draw(st.booleans()), "window": draw(st.sampled_from([None, 1, 2])),
        "positions": draw(st.sampled_from([None, "rotary", "alibi"])), "groups": draw(st.sampled_from([1, 2])),
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(case=hiding())
def test_no_mask_makes_nan_and_what_sees_nothing_is_zero(case: dict) -> None:
    torch.manual_seed(case["seed"])
    layer = MultiheadAttention(
        8, 2, batch_first=True, causal=case["causal"], window=case["window"], positions=case["positions"],
        num_kv_heads=case["groups"],
    )  # fmt: skip
    queries, keys = case["queries"], case["keys"]
    query, memory = (torch.randn(3, n, 8, requires_grad=True) for n in (queries, keys))
    hidden, padding = torch.rand(queries, keys) < case["share"], torch.rand(3, keys) < case["padded"]
    mask = torch.zeros(hidden.shape).masked_fill(hidden, case["value"]) if case["float"] else hidden
    output, weights = layer(query, memory, memory, attn_mask=mask, key_padding_mask=padding)
    leaves = [query, memory, *layer.parameters()]
    assert all(x.isfinite().all() for x in (output, weights, *gradients([output, weights], leaves)))
    near = torch.tensor(
        [
            [case["window"] is None or abs(t - s) < case["window"] for s in range(keys)]
            for t in range(queries)
        ]
    )  # fmt: skip
    seen = near & ~padding.unsqueeze(1)
    if case["causal"]:
        seen = seen & torch.ones(queries, keys, dtype=torch.bool).tril()
    if not case["float"] or case["value"] == -torch.inf:
        seen = seen & ~hidden
        assert torch.equal(weights > 0, seen)
    nothing = ~seen.any(dim=-1)
    assert (weights[nothing] == 0).all()
    assert torch.equal(output[nothing], layer.out_proj.bias.expand_as(output[nothing]))
    torch.testing.assert_close(weights.sum(-1), (~nothing).float())


# -- heads, windows, positions, cache ----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_heads_are_repeated_heads(groups: int) -> None:
    layer = biased(MultiheadAttention(8, 4, batch_first=True, num_kv_heads=groups, dtype=DOUBLE))
    whole = MultiheadAttention(8, 4, batch_first=True, dtype=DOUBLE)
    with torch.no_grad():
        for name in ("in_proj_weight", "in_proj_bias"):
            q, k, v = getattr(layer, name).split([8, 2 * groups, 2 * groups])
            repeated = [x.unflatten(0, (groups, 2)).repeat_interleave(4 // groups, 0).flatten(0, 1) for x in (k, v)]
            getattr(whole, name).copy_(torch.cat([q, *repeated]))
    whole.out_proj = layer.out_proj
    x = torch.randn(3, 5, 8, dtype=DOUBLE)
    for mine, oracle in zip(
        layer(x, x, x, average_attn_weights=False), whole(x, x, x, average_attn_weights=False), strict=True
    ):
        assert relative_error(mine, oracle) <= 1e-12


def test_rotary_positions_are_turns_of_complex_numbers() -> None:
    x = torch.randn(2, 3, 5, 8, dtype=DOUBLE)
    positions = torch.tensor([0, 1, 7, 100, 5000])
    numbers = torch.complex(*x.chunk(2, dim=-1))
    angles = positions.view(-1, 1) * 10000 ** (-torch.arange(4, dtype=DOUBLE) / 4)
    turned = numbers * torch.polar(torch.ones_like(angles), angles)
    assert relative_error(rotate(x, positions), torch.cat([turned.real, turned.imag], dim=-1)) <= 1e-12


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_positions_are_relative(positions: str) -> None:
    """A sequence behind padding gives what it gives alone."""
    layer = biased(MultiheadAttention(8, 2, batch_first=True, causal=True, positions=positions, dtype=DOUBLE))
    x = torch.randn(1, 4, 8, dtype=DOUBLE)
    padded = torch.cat([torch.randn(1, 3, 8, dtype=DOUBLE), x], dim=1)
    hidden = torch.tensor([[True] * 3 + [False] * 4])
    alone, behind = layer(x, x, x)[0], layer(padded, padded, padded, key_padding_mask=hidden)[0][:, 3:]
    assert relative_error(behind, alone) <= 1e-12
    plain = MultiheadAttention(8, 2, batch_first=True, causal=True, dtype=DOUBLE)
    plain.load_state_dict(layer.state_dict())
    assert relative_error(plain(x, x, x)[0], alone) > 1e-3


OPTIONS = [
    {}, {"num_kv_heads": 1}, {"window": 3}, {"positions": "rotary"}, {"positions": "alibi", "window": 2},
    {"add_bias_kv": True, "add_zero_attn": True}, {"kdim": 8, "vdim": 8, "bias": False, "batch_first": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("steps", [(1,) * 7, (4, 1, 1, 1), (2, 3, 2)], ids=str)
def test_a_cache_changes_nothing(options: dict, steps: tuple[int, ...]) -> None:
    layer = biased(MultiheadAttention(8, 4, causal=True, dtype=DOUBLE, **{"batch_first": True, **options}))
    axis = 1 if layer.batch_first else 0
    x = torch.randn(2, 7, 8, dtype=DOUBLE) if axis else torch.randn(7, 2, 8, dtype=DOUBLE)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, :2] = True
    whole, cache, seen, parts = layer(x, x, x, key_padding_mask=padding, need_weights=False)[0], KeyValueCache(), 0, []
    with torch.no_grad():
        for part in x.split(list(steps), dim=axis):
            seen += part.shape[axis]
            parts.append(layer(part, part, part, key_padding_mask=padding[:, :seen], cache=cache)[0])
    assert cache.length == 7
    assert relative_error(torch.cat(parts, dim=axis), whole) <= 1e-12


def test_a_cache_forgets_and_reorders() -> None:
    layer = biased(MultiheadAttention(8, 2, batch_first=True, causal=True, positions="rotary", dtype=DOUBLE))
    x, guess = torch.randn(3, 5, 8, dtype=DOUBLE), torch.randn(3, 2, 8, dtype=DOUBLE)
    rows, cache = torch.tensor([2, 2, 0, 1]), KeyValueCache()
    with torch.no_grad():
        layer(x[:, :3], x[:, :3], x[:, :3], cache=cache)
        layer(guess, guess, guess, cache=cache)
        cache.truncate(3)
        cache.reorder(rows)
        found = layer(x[rows, 3:], x[rows, 3:], x[rows, 3:], cache=cache)[0]
        assert relative_error(found, layer(x, x, x)[0][rows, 3:]) <= 1e-12
        with pytest.raises(RuntimeError, match="begin a new cache"):
            layer(x, x, x, cache=cache)
    with pytest.raises(RuntimeError, match="the cache is empty"):
        KeyValueCache().stored()


def test_a_fixed_cache_keeps_the_memory() -> None:
    layer = biased(MultiheadAttention(8, 2, kdim=3, vdim=3, batch_first=True, dtype=DOUBLE))
    memory, x, cache = torch.randn(2, 4, 3, dtype=DOUBLE), torch.randn(2, 5, 8, dtype=DOUBLE), KeyValueCache(fixed=True)
    with torch.no_grad():
        whole = layer(x, memory, memory)[0]
        parts = [
            layer(step, memory * (t == 0), memory * (t == 0), cache=cache)[0] for t, step in enumerate(x.split(1, 1))
        ]
    assert relative_error(torch.cat(parts, dim=1), whole) <= 1e-12


# -- dropout, errors, tools --------------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_returns_what_it_used() -> None:
    layer = MultiheadAttention(4, 1, dropout=0.25, batch_first=True)
    x = torch.randn(1, 40, 4).expand(500, -1, -1)
    _, weights = layer(x, x, x)
    _, whole = layer.eval()(x, x, x)
    assert abs((weights == 0).float().mean() - 0.25) < 0.005
    torch.testing.assert_close(weights[weights > 0], (whole / 0.75)[weights > 0])
    torch.testing.assert_close(weights.mean(0), whole[0], rtol=0, atol=6 * whole.max().item() / math.sqrt(3 * 500))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "must divide embed_dim"), ({"num_heads": 0}, "greater than 0"),
        ({"num_kv_heads": 3}, "must divide num_heads"), ({"dropout": 1.5}, "in .0, 1."), ({"window": 0}, "at least 1"),
        ({"positions": "learned"}, "'rotary', 'alibi' or None"),
        ({"num_heads": 8, "positions": "rotary"}, "must be even"),
        ({"positions": "rotary", "rotary_base": 0.0}, "rotary_base must be above 0"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiheadAttention(8, **{"num_heads": 2, **options})


@pytest.mark.parametrize(
    ("fed", "arguments", "message"),
    [
        ([(2, 3, 7)], {}, "8 wide"), ([(2, 3, 8), (2, 3, 7)], {}, "8 and 8 wide"),
        ([(2, 3, 8), (1, 3, 8)], {}, "agree in rows"),
        ([(3, 8), (2, 3, 8)], {}, "all .T, D."), ([(2, 3, 8), (3, 8)], {}, "batched key"),
        ([(2, 3, 8)], {"attn_mask": torch.zeros(3, 4)}, "attn_mask must be of shape"),
        ([(2, 3, 8)], {"key_padding_mask": torch.zeros(3, 3)}, "key_padding_mask must be of shape"),
        ([(2, 3, 8)], {"attn_mask": torch.zeros(3, 3, dtype=torch.long)}, "booleans or floating-point"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(fed: list, arguments: dict, message: str) -> None:
    query = torch.zeros(fed[0])
    memory = torch.zeros(fed[1]) if len(fed) > 1 else query
    with pytest.raises(ValueError, match=message):
        MultiheadAttention(8, 2, batch_first=True)(query, memory, memory, **arguments)


def test_shapes_that_no_attention_has_are_named() -> None:
    q, wide, many = torch.zeros(2, 3, 8), torch.zeros(2, 3, 9), torch.zeros(2, 4, 8)
    for key, value in ((wide, q), (q, many)):
        with pytest.raises(ValueError, match="as wide as queries and as many as values"):
            scaled_dot_product_attention(q, key, value)
    with pytest.raises(ValueError, match="length must be at least 0"):
        KeyValueCache().truncate(-1)


@pytest.mark.parametrize("steps", [4, 200])  # by the formula, and by the operator
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_mask": torch.ones(4, 4).long()}, "booleans or floating-point numbers, not torch.int64"),
        ({"attn_mask": torch.ones(7, 4).bool()}, r"broadcasts to \(1, 2, \d+, \d+\), not \(7, 4\)"),
        ({"attn_mask": torch.ones(3, 1, 1, 1).bool()}, r"not \(3, 1, 1, 1\)"),
        ({"dropout_p": 1.5}, "dropout_p must be in .0, 1., not 1.5"), ({"window": 1.5}, "at least 1, and whole"),
        ({"alibi": torch.ones(3)}, "one slope for each head"),
    ],
)  # fmt: skip
def test_arguments_that_no_attention_has_are_named(steps: int, options: dict, message: str) -> None:
    q = torch.zeros(1, 2, steps, 8)
    with pytest.raises(ValueError, match=message):
        scaled_dot_product_attention(q, q, q, **options)


def test_heads_and_axes_that_no_attention_has_are_named() -> None:
    q = torch.zeros(1, 4, 3, 8)
    with pytest.raises(ValueError, match="keys and values must have as many heads, not 4 and 2"):
        scaled_dot_product_attention(q, q, q[:, :2], enable_gqa=True)
    with pytest.raises(ValueError, match="at least two axes"):
        scaled_dot_product_attention(q[0, 0, 0], q, q)


def test_masks_of_what_is_broadcast() -> None:
    """Rows of queries and heads of keys that the others have one of."""
    shapes = ((2, 1, 3, 4), (1, 3, 5, 4), (1, 3, 5, 4))
    fed, mask = [torch.randn(shape, dtype=DOUBLE) for shape in shapes], torch.rand(2, 3, 3, 5) > 0.2
    oracle = F.scaled_dot_product_attention(*(x.expand(2, 3, *x.shape[2:]) for x in fed), attn_mask=mask)
    assert relative_error(scaled_dot_product_attention(*fed, attn_mask=mask), oracle) <= 1e-12


def test_heads_of_no_width_take_the_mean() -> None:
    none, values = torch.zeros(1, 2, 3, 0), torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(
        scaled_dot_product_attention(none, none, values), values.mean(2, keepdim=True).expand(1, 2, 3, 4)
    )


def test_repr_shows_what_is_not_at_its_default() -> None:
    text = repr(MultiheadAttention(8, 2, 0.1, bias=False, add_bias_kv=True, kdim=3, num_kv_heads=1, positions="rotary"))
    assert "8, 2, dropout=0.1, kdim=3, num_kv_heads=1, positions=rotary, bias=False, add_bias_kv=True" in text


@pytest.mark.parametrize("options", [{}, {"window": 2, "causal": True, "positions": "rotary", "num_kv_heads": 1}])
def test_copies_and_scripts(options: dict) -> None:
    layer = MultiheadAttention(8, 2, batch_first=True, **options)
    x = torch.randn(2, 3, 8)
    assert torch.equal(copy.deepcopy(layer)(x, x, x)[0], layer(x, x, x)[0])
    if options:
        with pytest.raises(ValueError, match="cannot be scripted"):
            torch.jit.script(layer)
    else:
        torch.testing.assert_close(torch.jit.script(layer)(x, x, x)[0], layer(x, x, x)[0])
