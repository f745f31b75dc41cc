"""Layer normalization with what stands on the residual path beside it, compiled, beside the formula in double."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.layer_norm import available, layer_norm, layer_norm_backward, normalized, normalized_sum


def case(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None]:
    """Rows of any count, width, scale, place and layout, gain and shift, gradients, and what is beside them."""
    rng = torch.Generator().manual_seed(seed)
    rows, width = (int(torch.randint(1, high, (), generator=rng)) for high in (150, 90))
    x, d, beside = (torch.randn(width, rows, 3, generator=rng, dtype=dtype)[:, :, 1].T for _ in range(3))
    x = (x + [0.0, 30.0][seed % 2]) * [1e-12, 1.0, 1e12][seed % 3]
    gain, shift = torch.randn(2, width, generator=rng, dtype=dtype)
    x, d = (x.contiguous(), d.contiguous()) if seed % 4 else (x, d)
    return x, gain if seed % 5 else None, shift if seed % 7 else None, d, beside if seed % 2 else None


@pytest.mark.parametrize("seed", range(40))
def test_any_size_layout_and_scale(kernels: str, seed: int) -> None:
    for dtype, near in ((torch.float32, 2e-5), (torch.float64, 1e-13)):
        x, gain, shift, d, beside = case(seed, dtype)
        eps = [0.0, 1e-5, 1e-2][seed % 3] if x.shape[1] > 1 else 1e-2  # 0 / 0 is no number
        exact = [None if t is None else t.double().clone().requires_grad_() for t in (x, gain, shift)]
        oracle = F.layer_norm(exact[0], x.shape[1:], *exact[1:], eps)
        wanted = torch.autograd.grad(oracle, [t for t in exact if t is not None], d.double())
        y, norms = layer_norm(x, gain, shift, eps)
        assert (y.dtype, norms.shape) == (dtype, (2, len(x)))
        torch.testing.assert_close(y.double(), oracle.detach(), rtol=0, atol=10 * near)
        d_x, *d_norm = layer_norm_backward(d, x, gain, norms, beside)
        slope = d_x.double() - (0 if beside is None else beside.double())
        size = near * 20 * float(norms[1].max()) + (0 if beside is None else near)
        torch.testing.assert_close(slope, wanted[0], rtol=0, atol=size)
        rest = iter(wanted[1:])
        for part, leaf in zip(d_norm, exact[1:], strict=True):
            if leaf is not None:
                torch.testing.assert_close(part.double(), next(rest), rtol=0, atol=near * len(x))


def test_a_row_far_from_zero_keeps_its_digits(compiled: str) -> None:
    x = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) + 1e4
    y, _ = layer_norm(x, None, None, 1e-5)
    torch.testing.assert_close(
        y.double(), F.layer_norm(x.double(), (300,)), rtol=0, atol=2e-3
    )  # half a step there is 5e-4


def test_a_row_of_what_is_no_number_stays_alone(kernels: str) -> None:
    x = torch.randn(5, 20)
    x[1, 3], x[3, 4] = torch.nan, torch.inf
    y, norms = layer_norm(x, None, None, 1e-5)
    d_x, *_ = layer_norm_backward(torch.ones(5, 20), x, None, norms, None)
    for found in (y, d_x):
        assert found[[0, 2, 4]].isfinite().all()
        assert found[[1, 3]].isnan().any(1).all()


def test_equal_numbers_give_the_shift(kernels: str) -> None:
    shift = torch.arange(7.0)
    for value in (0.0, 3.0, 1e8):
        y, norms = layer_norm(torch.full((2, 7), value), None, shift, 1e-5)
        assert torch.equal(y, shift.expand(2, 7))
        assert torch.isfinite(norms).all()


def test_a_row_does_not_depend_on_the_others(compiled: str) -> None:
    x, more, level = torch.randn(300, 37), torch.randn(300, 37), torch.randn(37)
    y, norms = normalized(x, None, None, 1e-5)
    alone = [normalized(x[i : i + 1], None, None, 1e-5) for i in range(300)]
    assert torch.equal(y, torch.cat([part for part, _ in alone]))
    assert torch.equal(norms, torch.cat([part for _, part in alone], 1))
    total, *found = normalized_sum(x, more.clone(), level, None, None, 1e-5)
    assert torch.equal(total, x + more + level)
    for part, whole in zip(found, normalized(total, None, None, 1e-5), strict=True):
        assert torch.equal(part, whole)


def test_threads_share_rows(compiled: str) -> None:
    torch.manual_seed(0)
    x, d = torch.randn(2, 3000, 67)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        y, norms = layer_norm(x, None, None, 1e-5)
        found.append((y, norms, *layer_norm_backward(d, x, None, norms, x)))
    torch.set_num_threads(before)
    for other in found[1:]:
        for one, two in zip(found[0][:3], other[:3], strict=True):
            assert torch.equal(one, two)
        torch.testing.assert_close(found[0][3:], other[3:])


def test_what_does_not_fit_is_refused() -> None:
    x, norms = torch.ones(3, 4), torch.ones(2, 3)
    for gain, shift in ((torch.ones(3), None), (None, torch.ones(4, dtype=torch.float64)), (torch.ones(4, 1), None)):
        with pytest.raises(RuntimeError, match="do not fit together"):
            layer_norm(x, gain, shift, 1e-5)
    for rows in (torch.ones(4), torch.ones(3, 0), torch.ones(3, 4, dtype=torch.int64)):
        with pytest.raises(RuntimeError, match="do not fit together"):
            layer_norm(rows, None, None, 1e-5)
    with pytest.raises(RuntimeError, match="norms must be"):
        layer_norm_backward(x, x, None, norms[:, :2], None)
    with pytest.raises(RuntimeError, match="do not fit together"):
        layer_norm_backward(x[:2], x, None, norms, None)
    with pytest.raises(RuntimeError, match="do not fit together"):
        layer_norm_backward(x, x, None, norms, x[:, :2])


def test_the_operators_are_complete(kernels: str) -> None:
    x, gain = torch.randn(5, 7), torch.randn(7)
    _, norms = layer_norm(x, gain, gain, 1e-5)
    utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.layer_norm.default, (x, gain, gain, 1e-5), test_utils=utils)
    torch.library.opcheck(torch.ops.zoo.layer_norm_backward.default, (x, x, gain, norms, x), test_utils=utils)
    assert available(x) == (kernels != "0")
    assert not available(x.double())


def test_no_rows(compiled: str) -> None:
    y, norms = layer_norm(torch.ones(0, 7), None, None, 1e-5)
    d_x, *d_norm = layer_norm_backward(y, y, None, norms, None)
    assert (y.numel(), norms.numel(), d_x.numel()) == (0, 0, 0)
    assert not torch.cat(d_norm).any()


@pytest.mark.slow
def test_nothing_is_read_or_written_out_of_bounds(sanitized: Callable[[str], None]) -> None:
    sanitized(
        """
import torch
from zoo.kernels.layer_norm import layer_norm, layer_norm_backward, normalized_sum
for rows in (0, 1, 63, 64, 65, 1000):
    for width in (1, 7, 8, 15, 16, 17, 33, 131):
        x, gain = torch.randn(rows, width), torch.randn(width)
        y, norms = layer_norm(x, gain, gain, 1e-5)
        d_x, *d_norm = layer_norm_backward(x, x, gain, norms, x)
        total, *_ = normalized_sum(x, x.clone(), gain, None, None, 1e-5)
        assert all(t.isfinite().all() for t in (y, d_x, *d_norm, total))
"""
    )
