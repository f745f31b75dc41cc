"""The slope of a squared error, compiled, beside the torch form and the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels import slope as compiled
from zoo.kernels.slope import available, least_squares_slope
from zoo.models.linear.single_precision import _slope


def needs_kernel(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("there is no kernel to call")


def case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, targets, a point and coefficients: of any size, layout, scale and place, and none too."""
    rng = torch.Generator().manual_seed(seed)
    rows, features, targets = (int(torch.randint(high, (), generator=rng)) for high in (40, 40, 4))
    scale, layout = [1e-15, 1.0, 1e15][seed % 3], seed % 4
    x = scale * (torch.randn(rows, 2 * features, generator=rng) + [0.0, 1000.0][seed % 2])
    x = (x[:, ::2], x[:, :features], x[:, :features].T.contiguous().T, x[:, :1].expand(rows, features))[layout]
    y = torch.randn(2 * rows, targets, generator=rng, dtype=torch.float64)[::2]
    at = torch.cat([x[:1].double().sum(0), y[:1].sum(0)])
    w = torch.randn(targets, features, generator=rng, dtype=torch.float64).T / scale
    return x, y, at, w


@pytest.mark.parametrize("form", [least_squares_slope, _slope])
@pytest.mark.parametrize("seed", range(60))
def test_any_size_layout_and_scale(kernels: str, seed: int, form, monkeypatch: pytest.MonkeyPatch) -> None:
    if form is least_squares_slope:
        needs_kernel(kernels)
        monkeypatch.setattr(compiled, "PARALLEL", 100)
    x, y, at, w = case(seed)
    features, targets = w.shape
    rows, target = (torch.cat([x.double(), y], 1) - at).split([features, targets], 1)
    left = torch.cat([target - rows @ w, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    size = (target.abs() + rows.abs() @ w.abs()).sum() + len(x)
    found = form(x, y, at, w)
    bounds = size * (1 + rows.abs().max() if rows.numel() else 1), (1 + size) ** 2
    for part, exact, bound in zip(found, (left.T @ rows, left.T @ left), bounds, strict=True):
        assert part.shape == exact.shape
        assert bool(((part - exact).abs() <= 1e-13 * bound).all())


def test_what_does_not_fit_is_refused(kernels: str) -> None:
    needs_kernel(kernels)
    x, y, at, w = torch.ones(3, 2), torch.ones(3, 1).double(), torch.ones(3).double(), torch.ones(2, 1).double()
    for wrong in ((x.double(), y, at, w), (x, y[:2], at, w), (x, y, at[1:], w), (x, y, at, w.T), (x, y.float(), at, w)):
        with pytest.raises(RuntimeError, match="zoo::least_squares_slope"):
            least_squares_slope(*wrong)


def test_the_operator_is_traced(kernels: str) -> None:
    needs_kernel(kernels)
    x, y, at, w = torch.ones(3, 2), torch.ones(3, 1).double(), torch.ones(3).double(), torch.ones(2, 1).double()
    assert available(x)
    assert not available(x.double())
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.least_squares_slope.default, (x, y, at, w), test_utils=tests)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_slope import case
from zoo.kernels import slope
slope.PARALLEL = 100
for seed in range(500):
    torch.set_num_threads(1 + seed % 3)
    slope.least_squares_slope(*case(seed))
"""
    sanitized(script)
