"""One row times a matrix, compiled, beside torch's product in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels import row_product as compiled
from zoo.kernels.row_product import available, row_product
from zoo.layers import Linear
from zoo.layers.linear import linear


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LARGE", 0)
    monkeypatch.setattr(compiled, "_OF_THREAD", 100)


def needs_kernel(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("there is no kernel to call")


def case(seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A row, a matrix and a bias, each dense or not, of any size and scale."""
    rng = torch.Generator().manual_seed(seed)
    inputs, outputs, layout, scale = (int(torch.randint(high, (), generator=rng)) for high in (70, 70, 4, 3))
    x = torch.randn(1, 2 * inputs, generator=rng) * [1e-20, 1.0, 1e15][scale]
    x = x[0, ::2] if layout == 1 else x[:, :inputs] if layout == 2 else x[:, inputs:].view(1, 1, inputs)
    bias = torch.randn(2 * outputs, generator=rng)[::2] if seed % 3 else None
    return x, torch.randn(outputs, inputs, generator=rng), bias


def close(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """To rounding of what is added up, which may be far larger than the sum."""
    wide = [None if t is None else t.double() for t in (x, weight, bias)]
    exact = torch.nn.functional.linear(*wide)  # type: ignore[arg-type]
    size = torch.nn.functional.linear(*[None if t is None else t.abs() for t in wide])  # type: ignore[arg-type]
    assert found.shape == exact.shape
    assert found.dtype == torch.float32
    assert bool(((found.double() - exact).abs() <= 1e-6 * size).all())


@pytest.mark.parametrize("seed", range(60))
def test_any_size_layout_and_scale(kernels: str, seed: int) -> None:
    x, weight, bias = case(seed)
    with torch.no_grad():
        close(linear(x, weight, bias), x, weight, bias)
    if kernels != "0":
        close(row_product(x, weight.T.contiguous().T, bias), x, weight, bias)


def test_any_number_of_threads_gives_the_same_bits(kernels: str) -> None:
    needs_kernel(kernels)
    x, weight, bias = torch.randn(129), torch.randn(203, 129), torch.randn(203)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(row_product(x, weight, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_is_not_finite_stays_so(kernels: str) -> None:
    weight = torch.ones(20, 21)
    for wrong in (float("inf"), float("nan")):
        x = torch.zeros(1, 21)
        x[0, -1] = wrong
        with torch.no_grad():
            assert linear(x, weight)[0].isfinite().sum() == 0


def test_it_is_taken_where_it_may_be(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_kernel(kernels)
    calls = []
    monkeypatch.setattr("zoo.layers.linear.row_product", lambda *args: calls.append(0) or row_product(*args))
    layer, row = Linear(8, 4), torch.randn(1, 8)

    def taken(x: Tensor, layer: Linear = layer) -> bool:
        calls.clear()
        layer(x)
        return bool(calls)

    assert not taken(row)  # a gradient may be asked for
    with torch.no_grad():
        assert taken(row)
        assert taken(row[0])
        assert not taken(row.expand(2, 8))
        assert not taken(row.double(), Linear(8, 4).double())
        with torch.autocast("cpu"):
            assert not taken(row)
            assert layer(row).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused(kernels: str) -> None:
    needs_kernel(kernels)
    x, weight, bias = torch.randn(8), torch.randn(4, 8), torch.randn(4)
    wrong = [
        (x[:7], weight, bias), (x.view(8, 1), weight, bias), (x.double(), weight, bias), (x, weight, bias[:3]),
        (torch.randn(2, 8), weight, bias), (x, weight[0], None), (x, weight.half(), None), (x[0], weight, None),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(RuntimeError, match="zoo::row_product"):
            row_product(*arguments)


def test_the_operator_is_traced(kernels: str) -> None:
    needs_kernel(kernels)
    assert available(torch.randn(8), torch.randn(4, 8))
    arguments = (torch.randn(1, 8), torch.randn(4, 8), torch.randn(4))
    torch.library.opcheck(torch.ops.zoo.row_product.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_row_product import case
from zoo.kernels import row_product
row_product._OF_THREAD = 100
for seed in range(500):
    torch.set_num_threads(1 + seed % 3)
    row_product.row_product(*case(seed))
"""
    sanitized(script)
