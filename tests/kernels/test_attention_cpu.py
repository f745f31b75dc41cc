"""The compiled kernel of attention against the formula in double precision, over sizes, strides, masks and dropout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.kernels import attention_cpu
from zoo.kernels.attention import Inputs
from zoo.layers import MultiheadAttention, scaled_dot_product_attention
from zoo.layers.attention import _BLOCKWISE, _formula, _Split

SIZES = st.sampled_from([1, 2, 5, 6, 7, 15, 16, 17, 31, 63, 64, 65, 97, 130])
WIDTHS = st.sampled_from([1, 3, 8, 15, 16, 17, 33, 64, 80])


@st.composite
def cases(draw: st.DrawFn) -> Inputs:
    """Sizes about those of a vector, a tile and a block, grouped heads, masks, and tensors of any strides."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    rows, groups, shared = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    heads, queries, keys, width, other = groups * shared, draw(SIZES), draw(SIZES), draw(WIDTHS), draw(WIDTHS)
    layout = draw(st.sampled_from(["heads", "steps", "strided", "expanded"]))

    def tensor(heads: int, steps: int, width: int) -> Tensor:
        if layout == "strided":
            return torch.randn(rows, heads, steps, 2 * width)[..., ::2].requires_grad_()
        if layout == "expanded":
            return torch.randn(1, heads, steps, 1).div(5).expand(rows, heads, steps, width).requires_grad_()
        if layout == "steps":
            return torch.randn(rows, steps, heads, width).transpose(1, 2).requires_grad_()
        return torch.randn(rows, heads, steps, width).requires_grad_()

    mask = None
    if draw(st.booleans()):
        mask = torch.randn(draw(st.sampled_from([1, rows])), draw(st.sampled_from([1, heads])), queries, keys)
        mask = mask[:, :, :: draw(st.sampled_from([1, queries]))]
        mask = mask.masked_fill(torch.rand(mask.shape) < draw(st.sampled_from([0.0, 0.4, 1.0])), -torch.inf)
    return Inputs(
        tensor(heads, queries, width), tensor(groups, keys, width), tensor(groups, keys, other), mask,
        torch.rand(heads) if draw(st.booleans()) else None, None, draw(st.sampled_from([0.1, 0.5])), 0.0,
        draw(st.booleans()), draw(st.sampled_from([0, 0, 1, 4, 70])), draw(st.sampled_from([0, 0, 3, 200])),
    )  # fmt: skip


def compare(x: Inputs) -> None:
    exact = Inputs(*(t.detach().double().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t for t in x))
    up = torch.randn(*x.q.shape[:3], x.v.shape[3])
    found = []
    for function, y in ((_BLOCKWISE, x), (_formula, exact)):
        out = function(y)
        found.append([out, *torch.autograd.grad(out, y[:3], up.to(out.dtype))])
    size = up.norm().item() * x.v.detach().norm().item()  # of the terms that a gradient is the difference of
    slope = 0.0 if x.slopes is None else x.slopes.abs().max().item()
    far = slope * (x.offset + x.q.shape[2] + x.k.shape[2])  # what is taken from scores, which rounds them
    for mine, oracle in zip(*found, strict=True):
        assert mine.isfinite().all()
        near = 5e-6 * (oracle.norm().item() + 0.1 * size) + torch.finfo(torch.float32).eps * far * size
        assert (mine - oracle).norm() <= near


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=cases())
def test_results_and_gradients_are_the_formulas(kernels: str, x: Inputs) -> None:
    assert attention_cpu.fits(x) == (kernels != "0")
    compare(x)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=cases())
def test_any_results_and_gradients_are_the_formulas(kernels: str, x: Inputs) -> None:
    compare(x)


def test_numbers_that_exponentials_do_not_hold(kernels: str) -> None:
    """Scores of ±10,000, scores of nothing but −∞, and NaN, which stays where it is seen."""
    q, k, v = (torch.randn(1, 2, 40, 16) for _ in range(3))
    for sign in (1, -1):
        out = _BLOCKWISE(Inputs(1000 * q, sign * 10 * k, v))
        oracle = _formula(Inputs(*(t.double() for t in (1000 * q, sign * 10 * k, v))))
        assert (out - oracle).norm() <= 1e-3 * oracle.norm()
    hidden = torch.zeros(1, 1, 40, 40).masked_fill(torch.arange(40).view(-1, 1) == 7, -torch.inf)
    out = _BLOCKWISE(Inputs(q, k, v, hidden))
    assert not out[:, :, 7].any()
    assert out[:, :, 8].any()
    v[0, 0, 30, 3] = torch.nan
    out = _BLOCKWISE(Inputs(q, k, v, causal=True))
    assert out[0, 0, 30:, 3].isnan().all()
    assert not out[0, 1].isnan().any()


@pytest.mark.parametrize("value", [-1e9, -2.5e38, torch.finfo(torch.float32).min, 3e38])
@pytest.mark.parametrize("options", [{}, {"causal": True, "slopes": torch.tensor([0.5, 0.1])}], ids=["plain", "alibi"])
def test_masks_of_the_largest_numbers(kernels: str, value: float, options: dict) -> None:
    """Where all that is seen is masked by one finite number, scores are nothing beside it: weights are equal."""
    steps, up = 70, torch.randn(1, 2, 70, 16)
    mask = torch.randn(1, 1, steps, steps)
    mask[:, :, ::2] = value
    mask[:, :, 1::4, 40:] = torch.finfo(torch.float32).min  # rows in which some are hidden as well as can be
    mask[:, :, :, ::3] = -torch.inf
    mask[:, :, 6] = -torch.inf
    x = Inputs(*(torch.randn(1, 2, steps, 16, requires_grad=True) for _ in range(3)), mask, scale=0.25, **options)
    found = []
    for function in (_BLOCKWISE, _formula):
        out = function(x)
        found.append([out, *torch.autograd.grad(out, x[:3], up)])
    for mine, oracle in zip(*found, strict=True):
        assert (mine - oracle).norm() <= 2e-6 * oracle.norm()
    seen = torch.arange(steps) % 3 != 0
    if "causal" not in options:
        assert torch.allclose(found[0][0][:, :, 2], x.v[:, :, seen].mean(2), atol=1e-6)
    assert not found[0][0][:, :, 6].any()


def test_a_mask_of_two_huge_numbers_leaves_the_keys_of_the_greater(kernels: str) -> None:
    q, k, v = (torch.randn(1, 2, 70, 16) for _ in range(3))
    for least, most in ((torch.finfo(torch.float32).min, -3.3e38), (-3.3e38, 3.3e38), (3.2e38, 3.3e38)):
        mask = torch.full((1, 1, 70, 70), least)
        mask[..., 8:10] = most
        out = _BLOCKWISE(Inputs(q, k, v, mask))
        assert torch.allclose(out, v[:, :, 8:10].mean(2, keepdim=True).expand_as(out), atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads_gives_the_same(kernels: str, threads: int) -> None:
    x = Inputs(*(torch.randn(1, 1, 600, 16, requires_grad=True) for _ in range(3)), scale=0.25)
    before, found = torch.get_num_threads(), []
    try:
        for number in (threads, 1):
            torch.set_num_threads(number)
            out = _BLOCKWISE(x)
            found.append([out, *torch.autograd.grad(out, x[:3], torch.ones_like(out))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) or kernels == "0"


def weights_of(seed: int, share: float = 0.3, rows: int = 2, steps: int = 150) -> Tensor:
    """The weights that dropout leaves of equal ones, by values of one-hot vectors."""
    q = torch.zeros(rows, 2, steps, 4)
    v = torch.eye(steps).expand(rows, 2, steps, steps)
    return _BLOCKWISE(Inputs(q, q, v, seed=torch.tensor(seed), dropout=share)) * steps


def test_dropout_drops_its_share_independently(kernels: str) -> None:
    weights = weights_of(7)
    kept = weights > 0
    assert (weights[kept] - 65536 / (65536 - round(0.3 * 65536))).abs().max() <= 1e-5
    assert abs(kept.double().mean().item() - 0.7) <= 5 * (0.21 / kept.numel()) ** 0.5
    assert torch.equal(weights, weights_of(7))
    others = [kept, weights_of(1 << 40) > 0, kept.flip(0), kept.flip(1), kept.roll(1, 2), kept.roll(1, 3), kept.mT]
    together = torch.corrcoef(torch.stack([other.double().flatten() for other in others]))
    assert (together - torch.eye(len(others))).abs().max() <= 5 / kept.numel() ** 0.5 * 1.5
    runs = torch.corrcoef(kept.double().flatten(0, 2).T) - torch.eye(kept.shape[-1])  # between the keys
    assert runs.abs().max() <= 6 / (kept.numel() / kept.shape[-1]) ** 0.5


def test_both_ways_drop_the_same(kernels: str) -> None:
    """The result is linear in the values, so that its gradient by them tells the weights, and they tell the result."""
    q, k, v = (torch.randn(2, 2, 70, 9, requires_grad=True) for _ in range(3))
    out = _BLOCKWISE(Inputs(q, k, v, seed=torch.tensor(3), dropout=0.4))
    d_q, d_v = torch.autograd.grad(out, (q, v), torch.ones_like(out))
    assert (d_v * v).sum().item() == pytest.approx(out.sum().item(), rel=1e-4)
    step = 1e-2 * torch.randn(q.shape)
    ends = [_BLOCKWISE(Inputs(q + s * step, k, v, seed=torch.tensor(3), dropout=0.4)).double().sum() for s in (1, -1)]
    assert (ends[0] - ends[1]).item() / 2 == pytest.approx((d_q * step).sum().item(), rel=2e-2, abs=2e-3)


def test_layers_take_it_where_it_is_faster(kernels: str) -> None:
    q, k, v = (torch.randn(2, 4, 130, 8, requires_grad=True) for _ in range(3))
    assert "attention" in type(scaled_dot_product_attention(q, k, v).grad_fn).__name__
    few = (t[:, :, :100] for t in (q, k, v))
    out = scaled_dot_product_attention(*few, dropout_p=0.1)
    assert ("attention" in type(out.grad_fn).__name__) == (kernels != "0")


def test_nothing_is_read_or_written_out_of_bounds(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from zoo.kernels.attention import Inputs
from zoo.layers.attention import _BLOCKWISE
for keys in (1, 6, 16, 63, 65, 130):
    for queries in (1, 7, 97):
        for width, other in ((1, 17), (16, 3), (33, 64)):
            for causal, window, offset in ((False, 0, 0), (True, 0, 3), (True, 5, 0), (False, 4, 140)):
                heads = ((2, queries, width), (1, keys, width), (1, keys, other))
                q, k, v = (torch.randn(2, *shape, requires_grad=True) for shape in heads)
                mask = torch.randn(1, 2, 1, keys) if window else None
                seed = torch.tensor(5) if causal else None
                out = _BLOCKWISE(Inputs(q, k, v, mask, torch.rand(2), seed, 0.3, 0.2, causal, window, offset))
                torch.autograd.grad(out.sum(), (q, k, v))
"""
    sanitized(script)


@pytest.mark.parametrize("shared", [1, 2])
def test_gradients_of_a_product_are_parts_of_one_tensor(compiled: str, shared: int) -> None:
    torch.manual_seed(0)
    rows, steps, groups, width = 3, 40, 2, 8
    sizes = [groups * shared, groups, groups]
    product = torch.randn(rows, steps, sum(sizes) * width, requires_grad=True)

    def mixed(packed: bool) -> Tensor:
        q, k, v = product.view(rows, steps, sum(sizes), width).transpose(1, 2).split(sizes, 1)
        return _BLOCKWISE(Inputs(q, k, v, scale=0.3, causal=True, packed=packed))

    up = torch.randn(rows, sizes[0], steps, width)
    apart, together = (torch.autograd.grad(mixed(packed), product, up)[0] for packed in (False, True))
    assert torch.equal(apart, together)
    seen = []
    q, k, v = _Split.apply(product, width, sizes[0], groups)
    for part in (q, k, v):
        part.register_hook(seen.append)
    (found,) = torch.autograd.grad(_BLOCKWISE(Inputs(q, k, v, scale=0.3, causal=True, packed=True)), product, up)
    assert torch.equal(found, apart)
    assert found.data_ptr() == seen[0].data_ptr()  # no copy of them
    q, k, v = _Split.apply(product, width, sizes[0], groups)
    (found,) = torch.autograd.grad(q.sum() + 2 * v.sum(), product)  # none of the keys, the others expanded
    assert found.view(-1, sum(sizes), width)[0, :, 0].tolist() == [1.0] * sizes[0] + [0.0] * groups + [2.0] * groups


def test_second_derivatives_through_a_layer(kernels: str) -> None:
    layer, x = MultiheadAttention(8, 2, batch_first=True, causal=True), torch.randn(16, 17, 8, requires_grad=True)
    found = []
    for small in (0, 1 << 60):  # by the operator, and by products
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zoo.layers.attention._SMALL", small)
            patch.setattr("zoo.layers.attention._WIDE", small)
            patch.setattr("zoo.layers.attention.blockwise_wins.__defaults__", (small,))
            out = layer(x, x, x, need_weights=False)[0]
            (first,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
            found.append((first, *torch.autograd.grad(first.square().sum(), [x, layer.in_proj_weight])))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [3, 4, 10, 16, 33])
@pytest.mark.parametrize("rows", [1, 64])
def test_a_short_sequence_is_the_same_alone_and_among_others(kernels: str, rows: int, steps: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, rows, 4, steps, 17).unbind()
    mask = torch.rand(rows, 1, 1, steps) < 0.7
    for options in ({"is_causal": True}, {"attn_mask": mask}, {"window": 2, "alibi": torch.rand(4)}):
        found = scaled_dot_product_attention(q, k, v, **options)
        wide = {n: x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x for n, x in options.items()}
        exact = scaled_dot_product_attention(q.double(), k.double(), v.double(), **wide)
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=2e-6)
