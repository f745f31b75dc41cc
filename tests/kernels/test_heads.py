"""The compiled step of a Neural Turing Machine's heads against the formula in float64: shapes, strides, scales."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import zoo.kernels
from zoo.kernels.heads import available, heads_backward, heads_forward
from zoo.layers.memory.heads import Heads, formula, move

SIZES = [  # B, N, and the heads
    (1, 1, Heads(1, 1, 2, 1)), (3, 5, Heads(2, 1, 4, 3)), (2, 17, Heads(1, 3, 21, 5)), (4, 64, Heads(2, 2, 16, 3)),
    (2, 3, Heads(3, 1, 2, 9)), (5, 40, Heads(1, 1, 20, 3)),
]  # fmt: skip
VIEWS: list[Callable[[Tensor], Tensor]] = [
    torch.clone,
    lambda x: torch.stack([x, -x], -1)[..., 0],
    lambda x: x.mT.contiguous().mT,
    lambda x: x[:1].expand(x.shape),
]


def inputs_of(rows: int, slots: int, heads: Heads, scale: float) -> list[Tensor]:
    """A memory with empty slots, weights with exact zeros, and what the heads are told."""
    memory = torch.randn(rows, slots, heads.slot_size) * (torch.rand(rows, slots, 1) > 0.3)
    weights = torch.randn(rows, heads.total, slots).mul(20).softmax(-1)
    return [memory, weights, scale * torch.randn(rows, sum(heads.sizes))]


def far(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest number."""
    return float(((found.double() - expected).abs().amax() / expected.abs().amax().clamp_min(1e-30)).detach())


@pytest.mark.parametrize("view", VIEWS, ids=["dense", "strided", "transposed", "expanded"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(
    kernels: str, sizes: tuple[int, int, Heads], view: Callable
) -> None:
    rows, slots, heads = sizes
    for scale in (1.0, 0.1, 5.0):
        torch.manual_seed(0)
        inputs = [view(x).requires_grad_() for x in inputs_of(rows, slots, heads, scale)]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        ours, theirs = move(*inputs, heads), formula(*exact, heads)  # type: ignore[arg-type]
        directions = [view(torch.randn(x.shape)) for x in ours]
        found = torch.autograd.grad(ours, inputs, directions)
        expected = torch.autograd.grad(theirs, exact, [d.double() for d in directions])
        assert max(map(far, ours, theirs)) <= 1e-5
        assert max(map(far, found, expected)) <= 1e-4


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, before = Heads(2, 1, 8, 3), torch.get_num_threads()
    inputs = inputs_of(7, 20, heads, 1.0)
    if not available(inputs[0]):
        pytest.skip(str(zoo.kernels.status()))
    monkeypatch.setattr(zoo.kernels.heads, "_ALONE", 0)
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values = heads_forward(*inputs, 2, 1, 3)
            found.append([*values, *heads_backward(*inputs, 2, 1, 3, *values)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("scale", [1e-30, 1e3, 1e6])
def test_nothing_that_heads_are_told_is_too_much(kernels: str, scale: float) -> None:
    inputs = [x.requires_grad_() for x in inputs_of(3, 9, Heads(2, 2, 4, 3), scale)]
    outputs = move(*inputs, Heads(2, 2, 4, 3))
    gradients = torch.autograd.grad(outputs, inputs, [torch.ones_like(x) for x in outputs])
    assert all(bool(x.isfinite().all()) for x in (*outputs, *gradients))


def test_no_rows_and_what_does_not_fit() -> None:
    heads = Heads(1, 1, 4, 3)
    memory, weights, told = inputs_of(2, 5, heads, 1.0)
    if not available(memory):
        pytest.skip(str(zoo.kernels.status()))
    assert [len(x) for x in heads_forward(memory[:0], weights[:0], told[:0], 1, 1, 3)] == [0, 0, 0]
    wrong = [
        (memory.double(), weights, told),
        (memory[:1], weights, told),
        (memory, weights[:, :1], told),
        (memory, weights, told[:, 1:]),
        (memory[:, :0], weights[..., :0], told),
    ]
    for given in wrong:
        with pytest.raises(RuntimeError, match="do not fit together"):
            heads_forward(*given, 1, 1, 3)
    with pytest.raises(RuntimeError, match="d_reads must be"):
        heads_backward(memory, weights, told, 1, 1, 3, memory, weights, told)


@pytest.mark.slow
def test_operators_are_ones_of_torch() -> None:
    inputs = inputs_of(2, 5, Heads(1, 1, 4, 3), 1.0)
    if not available(inputs[0]):
        pytest.skip(str(zoo.kernels.status()))
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.heads_forward.default, (*inputs, 1, 1, 3), test_utils=tests)
    values = heads_forward(*inputs, 1, 1, 3)
    torch.library.opcheck(torch.ops.zoo.heads_backward.default, (*inputs, 1, 1, 3, *values), test_utils=tests)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_heads import SIZES, VIEWS, inputs_of, move
for rows, slots, heads in SIZES:
    for view in VIEWS:
        for scale in (0.1, 1.0, 1e6):
            inputs = [view(x).requires_grad_() for x in inputs_of(rows, slots, heads, scale)]
            outputs = move(*inputs, heads)
            torch.autograd.grad(outputs, inputs, [view(torch.randn(x.shape)) for x in outputs])
"""
    sanitized(script)
