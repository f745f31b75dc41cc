"""The compiled moments of rows against NumPy's: shapes, strides, weights, points far away, threads, bad input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.kernels.moments import available, moments

VIEWS: list[Callable[[Tensor], Tensor]] = [
    torch.clone,
    lambda x: torch.stack([x, -x], x.ndim)[..., 0],
    lambda x: x.T.contiguous().T if x.ndim == 2 else x,
    lambda x: x[:1].expand_as(x),
]
SIZES = [(1, 1, 0), (2, 3, 1), (31, 16, 2), (65, 4, 0), (300, 5, 1), (97, 8, 0), (257, 40, 0), (1000, 63, 1)]


def close(found: Tensor, expected: np.ndarray, share: float = 1e-12) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max(initial=0) <= share * (1 + np.abs(expected).max(initial=0))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_scatter_are_numpys(compiled: str, dtype: torch.dtype, sizes: tuple, view: Callable) -> None:
    rows, features, targets = sizes
    for far, weighted in ((0.0, False), (1e6, True)):
        x = view((torch.randn(rows, features, dtype=torch.float64) + far).to(dtype))
        y = view(torch.randn(rows, targets, dtype=torch.float64)) if targets else None
        weight = torch.arange(rows, dtype=torch.float64) % 3 + (rows == 1) if weighted else None
        at = torch.cat([x[0].double(), y[0]]) if targets else x[0].double().clone()
        whole = np.c_[x.double().numpy(), np.empty((rows, 0)) if y is None else y.numpy()] - at.numpy()
        mass = np.ones(rows) if weight is None else weight.numpy()
        if weight is not None and rows > 1:  # what weighs nothing may hold anything
            x = x.contiguous()
            x[weight == 0] = float("nan")
        centred = whole - mass @ whole / mass.sum()
        count, mean, scatter = moments(x, y, weight, at)
        assert count == mass.sum()
        close(mean, mass @ whole / mass.sum())
        close(scatter, centred.T @ (mass[:, None] * centred))
        assert torch.equal(scatter, scatter.T)
        close(moments(x, y, weight, at, squares=True)[2], scatter.diagonal().numpy())


@pytest.mark.parametrize("far", [0.0, 1e8])
def test_no_digit_goes_where_the_rows_are_not_like_those_that_were_looked_at(compiled: str, far: float) -> None:
    rows = torch.arange(1_000)
    noise = torch.randn(1_000, 3, dtype=torch.float64)
    looked_at = (rows % 16 == 0).double()  # every sixteenth of a thousand is
    weight = 1 - looked_at * (1 - 1e-12)
    x = noise + 1e4 * looked_at.unsqueeze(1) + far
    x = torch.cat([x, torch.full((1_000, 2), 0.1 + far)], 1)
    measured = x - x[1]  # exactly, where rows lie close together
    centred = (measured - weight @ measured / weight.sum()).numpy()
    for part in (x, x.T.contiguous().T):
        _, mean, scatter = moments(part, None, weight)
        expected = centred.T @ (weight.numpy()[:, None] * centred)
        close(scatter[:3, :3], expected[:3, :3], 1e-14)
        close(mean, (weight @ x / weight.sum()).numpy(), 1e-14)
        assert not scatter[3:].any()  # a column of one value varies by nothing


def test_threads_and_no_rows(compiled: str) -> None:
    x = torch.randn(30_001, 60) + 5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several = moments(x)
        torch.set_num_threads(1)
        one = moments(x)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(several, one, strict=True):
        close(a, b.numpy())
    close(one[2] / 30_000, np.cov(x.double().numpy().T))
    assert not any(t.any() for t in moments(x[:0]))
    assert moments(torch.tensor([[1.0], [float("inf")]]))[2].isnan().all()


def test_the_operator_is_what_torch_expects(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight, at = torch.randn(5, 3), torch.randn(5, 1).double(), torch.rand(5).double(), torch.rand(4).double()
    utilities = ("test_schema", "test_faketensor")
    for squares in (False, True):
        operator = torch.ops.zoo.moments.default
        torch.library.opcheck(operator, (x, y, weight, at, squares), test_utils=utilities)
    for wrong in ((x.half(), y, weight, at), (x, y[1:], weight, at), (x, y, weight[1:], at), (x, y, weight, at[1:])):
        with pytest.raises(RuntimeError, match="zoo::moments: inputs"):
            moments(*wrong)
    assert not available(x, 65)
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert not available(x)
    with pytest.raises(RuntimeError, match="needs the compiled kernels"):
        moments(x)


def test_nothing_is_read_or_written_out_of_bounds(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_moments import SIZES
from zoo.kernels.moments import moments
for rows, features, targets in SIZES:
    for dtype in (torch.float32, torch.float64):
        x, y = torch.randn(rows, features).to(dtype), torch.randn(rows, targets).double()
        for weight in (None, torch.arange(rows) % 2.0):
            for squares in (False, True):
                moments(x, y if targets else None, None if weight is None else weight.double(), squares=squares)
"""
    sanitized(script)
