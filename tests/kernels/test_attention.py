"""The operator of attention by blocks against torch's and against the formula, with blocks of every shape."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import zoo.kernels.attention as blocks
from zoo.kernels.attention import Inputs
from zoo.layers import MultiheadAttention, scaled_dot_product_attention
from zoo.layers.attention import _BLOCKWISE, _formula
from zoo.layers.positions import alibi_slopes

DOUBLE = torch.float64


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 3, so that short sequences have several, the last one ragged."""
    monkeypatch.setattr(blocks, "BLOCK", 3)
    monkeypatch.setattr(blocks, "ROOM", 18)


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """Sizes, masks and the memory that the tensors lie in."""
    return {
        "rows": draw(st.integers(1, 2)), "heads": draw(st.integers(1, 3)), "queries": draw(st.integers(1, 8)),
        "keys": draw(st.integers(1, 8)), "widths": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "mask": draw(st.sampled_from([None, (1, 1, True), (2, 1, False), (1, 3, True), (2, 3, True)])),
        "hidden": draw(st.sampled_from([0.0, 0.4, 0.9, 1.0])), "causal": draw(st.booleans()),
        "window": draw(st.integers(0, 4)), "offset": draw(st.integers(0, 4)), "alibi": draw(st.booleans()),
        "scale": draw(st.sampled_from([0.1, 1.0, 20.0])), "strided": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
    }  # fmt: skip


def inputs_of(case: dict, dtype: torch.dtype) -> Inputs:
    torch.manual_seed(case["seed"])
    rows, heads, queries, keys = (case[name] for name in ("rows", "heads", "queries", "keys"))

    def tensor(steps: int, width: int) -> Tensor:
        if case["strided"]:  # as the heads of one product lie
            return torch.randn(rows, steps, heads, 2 * width, dtype=dtype)[..., ::2].transpose(1, 2).requires_grad_()
        return torch.randn(rows, heads, steps, width, dtype=dtype).requires_grad_()

    mask = None
    if case["mask"] is not None:
        row, head, wide = case["mask"]
        shape = (rows if row > 1 else 1, heads if head > 1 else 1, queries if wide else 1, keys)
        mask = torch.randn(shape, dtype=dtype).masked_fill(torch.rand(shape) < case["hidden"], -torch.inf)
    width, other = case["widths"]
    return Inputs(
        tensor(queries, width), tensor(keys, width), tensor(keys, other), mask,
        alibi_slopes(heads).to(dtype) if case["alibi"] else None, None, case["scale"], 0.0, case["causal"],
        case["window"], case["offset"],
    )  # fmt: skip


def compare(case: dict, dtype: torch.dtype, bound: float) -> None:
    x = inputs_of(case, dtype)
    exact = Inputs(*(t.detach().to(DOUBLE).requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t for t in x))
    found = []
    for function, y in ((_BLOCKWISE, x), (_formula, exact)):
        out = function(y)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE).to(dtype)
        found.append([out, *torch.autograd.grad(out, y[:3], direction.to(out.dtype))])
    for mine, oracle in zip(*found, strict=True):
        assert mine.isfinite().all()
        assert (mine - oracle).norm() <= bound * max(oracle.norm().item(), 0.1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_blocks_give_what_the_formula_gives(small: None, case: dict) -> None:
    compare(case, DOUBLE, 1e-10)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), single=st.booleans())
def test_any_blocks_give_what_the_formula_gives(small: None, case: dict, single: bool) -> None:
    if single and case["scale"] > 1:
        case = case | {"scale": 1.0}  # scores of hundreds are not right to 2e-5 in single precision by any formula
    compare(case, torch.float32 if single else DOUBLE, 2e-5 if single else 1e-10)


@pytest.mark.parametrize("length", [200, 512, 513, 1100])
@pytest.mark.parametrize("causal", [False, True])
def test_real_blocks_give_what_torch_gives(length: int, causal: bool) -> None:
    q, k, v = (torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3))
    direction = torch.randn(1, 2, length, 8)
    mine = scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert "attention" in type(mine.grad_fn).__name__.lower() or "zoo" in str(mine.grad_fn)
    oracle = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)), is_causal=causal)
    assert (mine - oracle).norm() <= 2e-6 * oracle.norm()
    gradients = zip(
        torch.autograd.grad(mine, (q, k, v), direction),
        torch.autograd.grad(oracle, (q, k, v), direction.double()),
        strict=True,
    )
    assert all((a - b).norm() <= 2e-6 * b.norm() for a, b in gradients)


def test_scores_far_from_zero() -> None:
    """Maxima of thousands, which the plain e^s could not hold, in a later block than those of hundreds."""
    q, k, v = torch.full((1, 1, 4, 4), 100.0), torch.randn(1, 1, 1200, 4), torch.randn(1, 1, 1200, 4)
    k[:, :, 700:] *= 30
    for sign in (1, -1):
        mine = _BLOCKWISE(Inputs(q, sign * k, v, scale=1.0))
        assert (mine - F.scaled_dot_product_attention(q, sign * k, v, scale=1.0)).abs().max() <= 1e-4


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_memory_is_linear_in_the_length() -> None:
    q, k, v, up = (torch.randn(1, 1, 1500, 4) for _ in range(4))
    x = Inputs(q, k, v, slopes=alibi_slopes(1), causal=True)
    with Largest() as largest:
        out, norm = blocks._forward(*x)
        blocks._backward(*x, out, norm, up)
    assert largest.size <= max(1500 * 4, blocks.BLOCK**2)  # and not 1500²


# -- dropout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [3, 5])
def test_both_ways_draw_the_same_mask(small: None, keys: int) -> None:
    x = Inputs(*(torch.randn(1, 2, n, 2, dtype=DOUBLE, requires_grad=True) for n in (4, keys, keys)))
    seed = torch.tensor(12345)

    def call(*tensors: Tensor) -> Tensor:
        return _BLOCKWISE(x._replace(q=tensors[0], k=tensors[1], v=tensors[2], seed=seed, dropout=0.4))

    assert torch.equal(call(*x[:3]), call(*x[:3]))
    assert not torch.equal(call(*x[:3]), _BLOCKWISE(x))
    assert torch.autograd.gradcheck(call, x[:3], fast_mode=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.gradgradcheck(call, x[:3])


def test_dropout_drops_its_share_of_the_weights() -> None:
    """Values of one-hot vectors show the weights."""
    n = 600
    q, k, v = torch.zeros(1, 1, n, 4), torch.zeros(1, 1, n, 4), torch.eye(n).view(1, 1, n, n)
    torch.manual_seed(1)
    weights = scaled_dot_product_attention(q, k, v, dropout_p=0.3)[0, 0] * n
    share = (weights == 0).double().mean().item()
    assert abs(share - 0.3) <= 6 * math.sqrt(0.21) / n
    torch.testing.assert_close(
        weights[weights > 0], torch.full_like(weights[weights > 0], 65536 / (65536 - round(0.3 * 65536)))
    )
    parts = [
        (weights[a, b] == 0).double().flatten()
        for a in (slice(0, 88), slice(512, 600))
        for b in (slice(0, 88), slice(512, 600))
    ]
    assert (torch.corrcoef(torch.stack(parts)) - torch.eye(4)).abs().max() <= 6 / 88  # each block has a mask of its own
    again = scaled_dot_product_attention(q, k, v, dropout_p=0.3)[0, 0] * n
    assert not torch.equal(again, weights)


# -- what torch expects of an operator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seeded", [False, True])
def test_the_operators_are_what_torch_expects(seeded: bool) -> None:
    groups = 1 if seeded else 3
    q, k, v = (torch.randn(2, heads, 5, 4, requires_grad=True) for heads in (3, groups, groups))
    x = Inputs(
        q, k, v, torch.randn(1, 1, 5, 5), alibi_slopes(3), torch.tensor(3) if seeded else None, 0.5, 0.3, True, 3, 0
    )
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(_BLOCKWISE.operator, tuple(x), test_utils=utilities)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_and_their_gradients(small: None, causal: bool) -> None:
    q, k, v = (torch.randn(1, 2, n, 2, dtype=DOUBLE, requires_grad=True) for n in (4, 5, 5))
    mask = torch.zeros(1, 1, 4, 5, dtype=DOUBLE).masked_fill(torch.rand(4, 5) < 0.3, -torch.inf)
    mask[:, :, 1] = -torch.inf

    def call(*tensors: Tensor) -> Tensor:
        return _BLOCKWISE(Inputs(*tensors, mask, causal=causal))

    assert torch.autograd.gradcheck(call, (q, k, v))
    assert torch.autograd.gradgradcheck(call, (q, k, v))


def test_batched_gradients() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    out = _BLOCKWISE(Inputs(q, k, v))
    directions = torch.randn(3, *out.shape)
    together = torch.autograd.grad(out, (q, k, v), directions, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(out, (q, k, v), d, retain_graph=True) for d in directions]
    for found, expected in zip(together, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(expected))


def test_compile_and_export_with_long_sequences() -> None:
    torch._dynamo.reset()
    layer = MultiheadAttention(16, 2, batch_first=True, causal=True, num_kv_heads=1)
    x = torch.randn(2, 200, 16)

    def run(y: Tensor) -> Tensor:
        return layer(y, y, y, need_weights=False)[0]

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x))
    leaves = list(layer.parameters())
    pairs = zip(torch.autograd.grad(compiled(x).sum(), leaves), torch.autograd.grad(run(x).sum(), leaves), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize(
    "options", [{}, {"num_kv_heads": 2}, {"window": 50, "positions": "alibi"}, {"positions": "rotary"}]
)
def test_a_layer_takes_the_operator_and_gives_the_same(options: dict) -> None:
    layer = MultiheadAttention(16, 4, batch_first=True, causal=True, dtype=DOUBLE, **options)
    x, padding = torch.randn(2, 150, 16, dtype=DOUBLE), torch.zeros(2, 150, dtype=torch.bool)
    padding[1, :20] = True
    by_blocks, by_formula = (layer(x, x, x, padding, need_weights=weights)[0] for weights in (False, True))
    assert not torch.equal(by_blocks, by_formula)  # two ways
    assert (by_blocks - by_formula).norm() <= 1e-12 * by_formula.norm()
