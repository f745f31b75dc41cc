"""The compiled Newton steps of linear machines: at their end the gradient is zero, whatever the rows are."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels.finite_newton import available, finite_newton
from zoo.models.svm.primal import HeldRows, NewtonSearch


def a_case(seed: int) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Rows, targets, costs and the other arguments, drawn: strided, equal, of zeros, more or fewer than the weights."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 3, 7, 40, 131]), draw.choice([0, 1, 2, 5, 17, 64, 150])
    machines, epsilon = draw.choice([1, 1, 2, 5]), draw.choice([None, 0.0, 0.1])
    x = torch.randn(features, rows, generator=make, dtype=torch.float64).T
    if draw.random() < 0.3:
        x = x.round()
    if draw.random() < 0.2:
        x = x[:1].expand_as(x)
    if draw.random() < 0.2:
        x = x * (torch.arange(rows) % 2)[:, None]
    y = torch.randn(rows, machines, generator=make, dtype=torch.float64).T + x.sum(1)
    y = y if epsilon is not None else torch.where(y > 0, 1.0, -1.0).double()
    cost = 10.0 ** draw.randint(-3, 2) * torch.rand(machines, rows, generator=make, dtype=torch.float64)
    cost[:, ::5] = 0
    options = {"constant": draw.choice([0.0, 1.0, 7.0]), "penalized": draw.random() < 0.7 or rows == 1}
    return x, y, cost, {**options, "epsilon": epsilon}


def objective(x: Tensor, y: Tensor, cost: Tensor, weight: Tensor, options: dict) -> Tensor:
    """J of each machine, (K,), from its formula."""
    scores = weight[:, :-1] @ x.T + options["constant"] * weight[:, -1:]
    epsilon = options["epsilon"]
    miss = (1 - y * scores).clamp_min(0) if epsilon is None else ((y - scores).abs() - epsilon).clamp_min(0)
    penalized = weight if options["penalized"] else weight[:, :-1]
    return 0.5 * penalized.square().sum(1) + (cost * miss.square()).sum(1)


@pytest.mark.parametrize("seed", range(60))
def test_the_gradient_is_zero_at_the_end(seed: int, compiled: str) -> None:
    x, y, cost, options = a_case(seed)
    weight, reach, found = finite_newton(x, y, cost, **options, tol=1e-10, max_iter=500)
    assert bool((found[:, 3] == 1).all())
    weight.requires_grad_()
    value = objective(x, y, cost, weight, options)
    torch.testing.assert_close(found[:, 0], value.detach(), rtol=1e-12, atol=1e-14)
    (gradient,) = torch.autograd.grad(value.sum(), weight)
    origin = torch.zeros_like(weight).requires_grad_()
    (first,) = torch.autograd.grad(objective(x, y, cost, origin, options).sum(), origin)
    scale = first.norm(dim=1) + 1e-12 * cost.sum(1)
    assert bool((gradient.norm(dim=1) <= 1e-8 * scale).all())
    far = (y != 0) if options["epsilon"] is None else (y.abs() > options["epsilon"])
    expected = (2 * (cost * far) @ x.square()).amax(0)
    torch.testing.assert_close(reach, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(12))
def test_the_steps_are_those_of_the_torch_form(seed: int, compiled: str) -> None:
    x, y, cost, options = a_case(seed)
    search = NewtonSearch(len(y), x.shape[1] + 1, 1e-6, 500)
    held = HeldRows(x, y.T, cost.T, options["constant"], options["epsilon"])
    penalty = torch.ones(x.shape[1] + 1, dtype=torch.float64)
    penalty[-1] = float(options["penalized"])
    while not search.finished:
        sums, at = held.sums(search.trial), search.trial
        search.update(sums.value + 0.5 * (penalty * at * at).sum(1), sums.gradient + penalty * at,
                      sums.hessian + penalty.diag())  # fmt: skip
    found = finite_newton(x, y, cost, **options, tol=1e-6, max_iter=500)[2]
    torch.testing.assert_close(found[:, 0], search.value, rtol=1e-10, atol=1e-12)
    assert int(found[:, 2].max()) == int(search.passes)
    short = finite_newton(x, y, cost, **options, tol=1e-300, max_iter=1)[2]
    assert bool((short[:, 2] == 1).all())


def test_what_has_no_answer_is_said(compiled: str) -> None:
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.ones(1, 30, dtype=torch.float64)
    for value in (float("nan"), float("inf"), 1e200):
        for rows, features in ((30, 3), (2, 3)):
            wrong = x[:rows, :features].clone()
            wrong[0, 0] = value
            _, _, found = finite_newton(wrong, y[:, :rows], y[:, :rows], 1.0, True, 0.1, 1e-4, 50)
            assert found[0, 3] == -1
    empty = finite_newton(x[:0], y[:, :0], y[:, :0], 1.0, True, None, 1e-4, 50)
    assert not empty[0].any()


def test_the_operator_is_what_torch_expects(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.ones(3, 5, dtype=torch.float64)
    rest = (1.0, True, None, 1e-4, 50)
    torch.library.opcheck(torch.ops.zoo.finite_newton, (x, y, y, *rest), test_utils=("test_schema", "test_faketensor"))
    for wrong in ((x.float(), y, y), (x[0], y, y), (x, y[:, 1:], y), (x, y[:, 1:], y[:, 1:]), (x, y, y.float())):
        with pytest.raises(RuntimeError, match="zoo::finite_newton: "):
            finite_newton(*wrong, *rest)
    assert not available(x.float())
    assert not available(x.to_sparse_csr())
    assert not available(torch.empty(2000, 1).expand(2000, 1500).double())
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert not available(x)
    with pytest.raises(RuntimeError, match="needs the compiled kernels"):
        finite_newton(x, y, y, *rest)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_finite_newton import a_case, finite_newton
for seed in range(300):
    x, y, cost, options = a_case(seed)
    finite_newton(x, y, cost, **options, tol=1e-8, max_iter=60)
    finite_newton(x[:0], y[:, :0], cost[:, :0], **options, tol=1e-8, max_iter=60)
"""
    sanitized(script)
