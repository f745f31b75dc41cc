"""The streamed minimizers against optimality conditions, an exhaustive search over signs, and SciPy."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import minimize

from zoo.models.linear.minimizers import (
    LBFGS,
    Newton,
    newton_step,
    pseudo_gradient,
)
from zoo.models.linear.quadratic import minimize_quadratic, solve_semidefinite


def spd(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.01 * torch.eye(size, dtype=torch.float64)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic_by_enumeration(h: torch.Tensor, c: torch.Tensor, l1: torch.Tensor) -> torch.Tensor:
    """The minimum over all patterns of signs −, 0, +: each a linear system."""
    best, best_value = None, torch.inf
    for signs in itertools.product([-1.0, 0.0, 1.0], repeat=len(c)):
        sign = torch.tensor(signs, dtype=c.dtype)
        rows = sign.nonzero().squeeze(1)
        x = torch.zeros_like(c)
        x[rows] = torch.linalg.solve(h[rows][:, rows], -(c + l1 * sign)[rows])
        value = 0.5 * x @ h @ x + c @ x + l1 @ x.abs()
        if value < best_value:
            best, best_value = x, value
    return best


@pytest.mark.parametrize("seed", range(8))
def test_coordinate_descent_finds_what_all_sign_patterns_find(seed):
    h, c = spd(5, seed), 2 * normal(5, seed=seed + 100)
    l1 = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    expected = quadratic_by_enumeration(h, c, l1)
    for start in (torch.zeros(5, dtype=torch.float64), normal(5, seed=seed + 200)):
        torch.testing.assert_close(minimize_quadratic(h, c, l1, start).x, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("free", [0, 3])
def test_coordinate_descent_meets_the_optimality_conditions_in_many_dimensions(free):
    h, c, l1 = spd(80, 1), normal(80, seed=2), torch.full((80,), 0.4, dtype=torch.float64)
    l1[:free] = 0
    x = minimize_quadratic(h, c, l1, torch.zeros(80, dtype=torch.float64)).x
    assert 0 < int((x == 0).sum()) < 80
    assert pseudo_gradient(h @ x + c, x, l1).abs().max() < 1e-11


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("penalty", [1e-6, 1e-3, 0.05])
@pytest.mark.parametrize(("rank", "seed"), [(4, 0), (4, 1), (14, 2), (19, 3)])
def test_the_penalty_decides_where_there_are_more_coordinates_than_rank(rank, seed, penalty, positive):
    a, b = normal(rank, 40, seed=seed), normal(rank, seed=seed + 50)
    a = a / torch.linalg.vector_norm(a, dim=0)
    h, c, l1 = a.T @ a, -(a.T @ b), torch.full((40,), penalty, dtype=torch.float64)
    above = torch.full((40,), positive)
    x, _, converged = minimize_quadratic(h, c, l1, torch.zeros_like(c), positive=above)
    slope = h @ x + c
    best = torch.where(x != 0, slope + l1 * x.sign(), ((-slope if positive else slope.abs()) - l1).clamp_min(0))
    assert converged
    assert best.abs().max() < 1e-11
    assert not positive or x.min() >= 0


def test_semidefinite_systems_get_the_shortest_solution():
    root = normal(6, 3, seed=3)
    a = root @ root.T
    b = a @ normal(6, seed=4)
    torch.testing.assert_close(solve_semidefinite(a, b), torch.linalg.pinv(a) @ b, rtol=1e-9, atol=1e-10)


def test_newton_step_leaves_alone_what_has_no_curvature():
    step = newton_step(
        torch.diag(torch.tensor([2.0, 0.0])).double(),
        torch.tensor([1.0, 0.0]).double(),
        *2 * (torch.zeros(2).double(),),
    )
    torch.testing.assert_close(step, torch.tensor([-0.5, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)


def run(minimizer, f, l1) -> int:
    """Drive a minimizer with exact derivatives of f; returns how often f was asked."""
    while not minimizer.finished:
        point = minimizer.point.clone().requires_grad_()
        value = f(point)
        (gradient,) = torch.autograd.grad(value, point)
        hessian = torch.autograd.functional.hessian(f, point.detach())
        minimizer.update(value.detach(), gradient, l1, hessian)
    return int(minimizer.passes)


def hard(w: torch.Tensor) -> torch.Tensor:
    """Convex, far from quadratic: full Newton steps from 0 overshoot."""
    a = normal(12, 4, seed=5)
    return torch.logsumexp(20 * (a @ w) - 3, 0) + torch.log(torch.cosh(5 * (w - 3))).sum()


@pytest.mark.parametrize("kind", [Newton, LBFGS])
def test_minimizers_find_scipys_minimum_where_full_steps_overshoot(kind):
    minimizer = kind(4, 1e-20, 1000)
    run(minimizer, hard, torch.zeros(4, dtype=torch.float64))
    assert minimizer.converged

    def numpy_f(w):
        point = torch.tensor(w, requires_grad=True)
        value = hard(point)
        value.backward()
        return value.item(), point.grad.numpy()

    oracle = minimize(numpy_f, [0.0] * 4, jac=True, method="BFGS", options={"gtol": 1e-11})
    torch.testing.assert_close(minimizer.point, torch.tensor(oracle.x), rtol=1e-6, atol=1e-8)
    gradient = torch.tensor(numpy_f(minimizer.point.numpy())[1])
    assert gradient.abs().max() < 1e-6  # of 100 at the start


@pytest.mark.parametrize("kind", [Newton, LBFGS])
def test_minimizers_meet_the_optimality_conditions_with_a_penalty(kind):
    l1 = torch.tensor([8.0, 8.0, 0.0, 8.0], dtype=torch.float64)
    minimizer = kind(4, 1e-20, 1000)
    run(minimizer, hard, l1)
    point = minimizer.point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(hard(point), point)
    assert 0 < int((minimizer.point == 0).sum()) < 4
    assert pseudo_gradient(gradient, minimizer.point, l1).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [Newton, LBFGS])
def test_accepted_values_never_rise(kind):
    minimizer, values, l1 = kind(4, 1e-16, 200), [], torch.full((4,), 0.5, dtype=torch.float64)
    while not minimizer.finished:
        point = minimizer.point.clone().requires_grad_()
        value = hard(point)
        (gradient,) = torch.autograd.grad(value, point)
        minimizer.update(value.detach(), gradient, l1, torch.autograd.functional.hessian(hard, point.detach()))
        values.append(float(minimizer.value))
    assert all(b <= a * (1 + 1e-13) for a, b in itertools.pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("kind", [Newton, LBFGS])
def test_a_point_without_a_finite_value_is_left_by_halving_the_step(kind):
    def barrier(w: torch.Tensor) -> torch.Tensor:
        return (5 * w - torch.log(1 - w.square())).sum()  # infinite or NaN outside (−1, 1)

    minimizer = kind(2, 1e-14, 500)
    run(minimizer, barrier, torch.zeros(2, dtype=torch.float64))
    root = (-1 + 26**0.5) / -5  # of 5 + 2 w / (1 − w²) = 0
    expected = torch.full((2,), root, dtype=torch.float64)
    torch.testing.assert_close(minimizer.point, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [Newton, LBFGS])
def test_max_passes_ends_at_the_best_point_that_was_evaluated(kind):
    minimizer = kind(4, 1e-20, 3)
    assert run(minimizer, hard, torch.zeros(4, dtype=torch.float64)) == 3
    assert not minimizer.converged
    assert float(hard(minimizer.point)) == float(minimizer.value)


def test_state_survives_a_round_trip_in_the_middle():
    l1 = torch.zeros(4, dtype=torch.float64)
    whole, first, second = (LBFGS(4, 1e-16, 12) for _ in range(3))
    run(whole, hard, l1)
    while first.passes != 5:
        point = first.point.clone().requires_grad_()
        value = hard(point)
        first.update(value.detach(), torch.autograd.grad(value, point)[0], l1)
    second.load_state_dict(first.state_dict())
    run(second, hard, l1)
    assert torch.equal(second.point, whole.point)
