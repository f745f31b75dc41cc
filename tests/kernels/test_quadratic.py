"""Coordinate descent, compiled, beside the loop over coordinates in NumPy and the optimality conditions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.kernels.quadratic import available, quadratic_sweeps
from zoo.models.linear.minimizers import pseudo_gradient
from zoo.models.linear.quadratic import _descend, _sweep, minimize_quadratic


def needs_kernel(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("there is no kernel to call")


def case(seed: int) -> tuple[Tensor, ...]:
    """Hessian, linear term, penalties, which may not be negative, and a point: of any size, rank and scale."""
    rng = torch.Generator().manual_seed(seed)
    size, rank, scale = int(torch.randint(1, 40, (), generator=rng)), 1 + seed % 41, [1e-30, 1.0, 1e20][seed % 3]
    root = torch.randn(rank, size, generator=rng, dtype=torch.float64)
    root[:, torch.rand(size, generator=rng) < 0.1] = 0.0  # no curvature, and no slope
    hessian = root.T @ root / rank
    linear = scale * root.T @ torch.randn(rank, generator=rng, dtype=torch.float64)
    l1 = scale * torch.rand(size, generator=rng, dtype=torch.float64)
    above = torch.rand(size, generator=rng) < 0.3
    x = scale * torch.randn(size, generator=rng, dtype=torch.float64) * (torch.rand(size, generator=rng) < 0.5)
    return hessian, linear, l1, above, torch.where(above, x.clamp_min(0), x)


@pytest.mark.parametrize("seed", range(60))
def test_a_sweep_is_that_of_the_loop(kernels: str, seed: int) -> None:
    needs_kernel(kernels)
    hessian, linear, l1, above, x = case(seed)
    slope, hold = hessian @ x + linear, 1.01 * l1
    expected, left = x.clone().numpy(), slope.clone().numpy()
    _sweep(hessian.numpy(), left, l1.numpy(), hold.numpy(), above.numpy(), expected)
    wide = torch.zeros(len(x), 2 * len(x), dtype=torch.float64)
    wide[:, ::2] = hessian
    quadratic_sweeps(wide[:, ::2], l1, hold, above, slope, x, 1, 1)
    size = float(np.abs(expected).max()) + float(l1.max())
    np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-9 * size)
    np.testing.assert_allclose(slope, left, rtol=1e-9, atol=1e-9 * size * float(hessian.abs().max()))


@pytest.mark.parametrize("seed", range(30))
def test_sweeps_never_raise_the_value_and_keep_the_signs_that_are_asked_for(kernels: str, seed: int) -> None:
    hessian, linear, l1, above, x = case(seed)

    def value(x: Tensor) -> float:
        return float(0.5 * x @ hessian @ x + linear @ x + l1 @ x.abs())

    before, after = value(x), x.numpy()
    _descend(hessian.numpy(), (hessian @ x + linear).numpy(), l1.numpy(), l1.numpy(), above.numpy(), after)
    assert value(x) <= before + 1e-9 * abs(before)
    assert not bool((x[above] < 0).any())


@pytest.mark.parametrize("seed", range(30))
def test_the_minimum_meets_the_optimality_conditions(kernels: str, seed: int) -> None:
    hessian, linear, l1, above, x = case(3 * seed + 1)
    hessian = hessian + 0.1 * torch.eye(len(x), dtype=torch.float64)
    found = minimize_quadratic(hessian, linear, l1, x, positive=above)
    assert found.converged
    slope = pseudo_gradient(hessian @ found.x + linear, found.x, l1, above)
    assert float(slope.abs().max()) <= 1e-10 * (1 + float(linear.abs().max()))


def test_sweeps_end_where_signs_stay(kernels: str) -> None:
    needs_kernel(kernels)
    one, nothing = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    hessian, never = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
    slope, x = 2 * one, nothing.clone()
    quadratic_sweeps(hessian, nothing, nothing, never, slope, x, 0, 1)
    assert not x.any()
    quadratic_sweeps(hessian, nothing, nothing, never, slope, x, 10, 2)
    assert x.tolist() == [-2.0, -2.0, -2.0]
    assert not slope.any()


def test_what_does_not_fit_is_refused(kernels: str) -> None:
    needs_kernel(kernels)
    hessian, linear, l1, above, x = case(1)
    right = [hessian, l1, l1, above, linear, x, 1, 1]
    pair = torch.stack([x, x], 1)
    for place, wrong in ((0, hessian[:, :0]), (0, hessian.float()), (1, l1[1:]), (3, l1), (4, pair[:, 0]), (5, pair)):
        with pytest.raises(RuntimeError, match="zoo::quadratic_sweeps"):
            quadratic_sweeps(*right[:place], wrong, *right[place + 1 :])


def test_the_operator_is_traced(kernels: str) -> None:
    needs_kernel(kernels)
    hessian, linear, l1, above, x = case(1)
    assert available(hessian)
    assert not available(hessian.float())
    arguments = hessian, l1, l1, above, linear, x, 2, 1
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.quadratic_sweeps.default, arguments, test_utils=tests)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_quadratic import case
from zoo.kernels.quadratic import quadratic_sweeps
for seed in range(500):
    hessian, linear, l1, above, x = case(seed)
    quadratic_sweeps(hessian, l1, l1, above, hessian @ x + linear, x, 20, 1 + seed % 3)
"""
    sanitized(script)
