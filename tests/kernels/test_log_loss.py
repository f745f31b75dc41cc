"""The compiled log loss against the same in torch operations: shapes, strides, weights, extreme logits, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels.log_loss import available, log_loss, log_loss_minimize
from zoo.models.linear.log_loss import derivatives

SIZES = [(1, 1, 1), (2, 3, 2), (31, 16, 1), (32, 15, 3), (33, 17, 4), (70, 5, 9), (257, 40, 1), (100, 33, 5)]
WIDE = [(1, 256, 1), (8, 257, 1), (21, 300, 1), (40, 263, 2)]  # of one logit and no Hessian: without a copy of the rows
VIEWS: list[Callable[[Tensor], Tensor]] = [
    torch.clone,
    lambda x: torch.stack([x, -x], x.ndim)[..., 0],
    lambda x: x.T.contiguous().T if x.ndim == 2 else x,
    lambda x: x[:1].expand_as(x),
]


def a_case(sizes: tuple[int, ...], intercept: bool = True, size: float = 1.0, view: Callable = torch.clone) -> tuple:
    rows, features, outputs = sizes
    x, shift, scale = (
        torch.randn(*shape, dtype=torch.float64) for shape in ((rows, features), (features,), (features,))
    )
    y, point = torch.randint(max(2, outputs), (rows,)), size * torch.randn(outputs, features + intercept).double()
    return tuple(view(t) for t in (x, shift, scale, y, point))


def in_torch(x, shift, scale, y, weight, class_weight, point) -> tuple[Tensor, ...]:
    design = (x - shift) * scale
    if point.shape[1] > x.shape[1]:
        design = torch.cat([design, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    z = design @ point.T
    predicted = (z[:, 0] > 0).long() if len(point) == 1 else z.argmax(1)
    counted = torch.ones(len(x), dtype=torch.float64) if weight is None else weight
    losses, gradient, hessian = derivatives(
        z, design, y, counted if class_weight is None else counted * class_weight[y]
    )
    return torch.stack([losses, counted @ (predicted != y).double()]), gradient, hessian


def close(found: Tensor, expected: Tensor, share: float = 1e-13) -> None:
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= share * (1 + expected.abs().max())).all(), (found - expected).abs().max()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums_are_those_of_torch_operations(compiled: str, sizes: tuple[int, ...], view: Callable) -> None:
    for number, (intercept, size) in enumerate([(True, 1.0), (False, 0.01), (True, 30.0)]):
        x, shift, scale, y, point = a_case(sizes, intercept, size, view)
        weight = view(torch.rand(len(x), dtype=torch.float64)) if number else None
        by_class = view(torch.rand(max(2, sizes[2]), dtype=torch.float64)) if number == 2 else None
        found = log_loss(x, shift, scale, y, weight, by_class, point, True)
        for a, b in zip(found, in_torch(x, shift, scale, y, weight, by_class, point), strict=True):
            close(a, b)
        sums, gradient, nothing = log_loss(x, shift, scale, y, weight, by_class, point, False)
        assert torch.equal(sums, found[0])
        assert torch.equal(gradient, found[1])
        assert not nothing.numel()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("sizes", WIDE, ids=str)
def test_wide_rows_give_the_sums_of_torch_operations(compiled: str, sizes: tuple[int, ...], view: Callable) -> None:
    for number, (intercept, unit) in enumerate([(True, 1.0), (False, 2.0**-300), (True, 2.0**600)]):
        x, shift, scale, y, point = a_case(sizes, intercept, 0.3)
        x, shift, scale = view((x * unit).float().double() if unit == 1 else x * unit), shift * unit, scale / unit
        scale[3] = 0.0
        weight = view(torch.rand(len(x), dtype=torch.float64)) if number else None
        by_class = view(torch.rand(max(2, sizes[2]), dtype=torch.float64)) if number == 2 else None
        found = log_loss(x, shift, scale, y, weight, by_class, point, False)
        for a, b in zip(found[:2], in_torch(x, shift, scale, y, weight, by_class, point), strict=False):
            close(a, b)
        if unit == 1:
            single = log_loss(x.float(), shift, scale, y, weight, by_class, point, False)
            assert all(torch.equal(a, b) for a, b in zip(single, found, strict=True))


def test_rows_of_float32_give_what_they_give_as_float64(compiled: str) -> None:
    for view in VIEWS:
        x, shift, scale, y, point = a_case((70, 17, 3), view=view)
        single = view(x.float())
        found, expected = (
            log_loss(rows, shift, scale, y, None, None, point, True) for rows in (single, single.double())
        )
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_losses_keep_their_digits_however_small(compiled: str, outputs: int) -> None:
    others = max(1, outputs - 1)  # classes whose logits are zero
    point = torch.zeros(outputs, 1, dtype=torch.float64)
    point[-1] = 1.0
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    sizes = torch.logspace(-18, 6, 120, dtype=torch.float64)
    for z in torch.cat([-sizes, zero, sizes]).tolist():
        below = math.log(others) + math.log1p(math.exp(z) / others) if z < 0 else z + math.log1p(others * math.exp(-z))
        above = math.log1p(others * math.exp(-z)) if z > 0 else math.log(others) + math.log1p(math.exp(z) / others) - z
        for y, exact in ((0, below), (max(1, outputs - 1), above)):
            x = torch.tensor([[z]], dtype=torch.float64)
            (loss, _), gradient, _ = log_loss(x, zero, one, torch.tensor([y]), None, None, point, True)
            assert abs(loss - exact) <= 1e-15 * exact + 1e-307, (z, y)
            assert gradient.isfinite().all()


def test_rows_of_any_number_add_up_and_threads_change_no_more_than_rounding(compiled: str) -> None:
    x, shift, scale, y, point = a_case((20_011, 30, 4))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several = log_loss(x, shift, scale, y, None, None, point, True)  # 2.8e8 products
        torch.set_num_threads(1)
        whole = log_loss(x, shift, scale, y, None, None, point, True)
    finally:
        torch.set_num_threads(threads)
    parts = [
        log_loss(a, shift, scale, b, None, None, point, True) for a, b in zip(x.split(7001), y.split(7001), strict=True)
    ]
    for a, b, c in zip(whole, several, zip(*parts, strict=True), strict=True):
        close(b, a)
        close(sum(c), a)
    assert not any(t.any() for t in log_loss(x[:0], shift, scale, y[:0], None, None, point, True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_the_loss(compiled: str, value: float) -> None:
    for outputs in (1, 3):
        x, shift, scale, y, point = a_case((40, 3, outputs))
        x[5], y[5] = value, 0
        point[:, :3], scale[:] = 1.0, 1.0
        point[1:] *= -1
        y[5] = int(value > 0) if outputs > 1 else int(value < 0)
        assert not log_loss(x, shift, scale, y, None, None, point, True)[0][0].isfinite()


def test_the_operator_is_what_torch_expects(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, shift, scale, y, point = a_case((9, 3, 4))
    weight, by_class = torch.rand(9).double(), torch.rand(4).double()
    utilities = ("test_schema", "test_faketensor")
    whole = (x, shift, scale, y, weight, by_class, point, True)
    torch.library.opcheck(torch.ops.zoo.log_loss.default, whole, test_utils=utilities)
    for place, wrong in enumerate(
        (x.half(), shift[1:], scale[:, None], y.int(), weight[1:], by_class[:, None], point[:, :2])
    ):
        arguments = [x, shift, scale, y, weight, by_class, point]
        arguments[place] = wrong
        with pytest.raises(RuntimeError, match="zoo::log_loss: inputs"):
            log_loss(*arguments, True)
    beyond = torch.full_like(y, 2**40)  # a class that there is not counts for nothing, and reads nothing
    assert not log_loss(x, shift, scale, beyond, weight, by_class, point, True)[0][0]
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert not available(x)
    with pytest.raises(RuntimeError, match="needs the compiled kernels"):
        log_loss(x, shift, scale, y, None, None, point, True)


def search(x, shift, scale, y, point, weight=None, by_class=None, **options) -> tuple[Tensor, ...]:
    ridge, unit = torch.full_like(point, 0.01), torch.ones_like(shift)
    options = {"newton": True, "tolerance": 1e-14, "limit": None, "max_passes": 50, **options}
    rows = x, shift, scale, y, weight, by_class, 0 * point, ridge
    return log_loss_minimize(*rows, (unit, torch.zeros_like(unit)), total=float(len(x)), **options)


@pytest.mark.parametrize("newton", [True, False])
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_where_the_search_ends_no_derivative_is_left(compiled: str, outputs: int, newton: bool) -> None:
    case = a_case((60, 4, outputs), view=VIEWS[1])
    point, gradient, sums, (passes, converged, value, _, _) = search(*case, newton=newton, limit=1e-9, tolerance=0.0)
    x, shift, scale, y, _ = case
    losses, slope, _ = log_loss(x, shift, scale, y, None, None, point, False)
    assert converged
    assert 1 < passes < 50
    assert (slope / 60 + 0.02 * point).abs().max() <= 1e-9
    close(gradient, slope / 60 + 0.02 * point)
    close(sums, losses)
    close(value, losses[0] / 60 + 0.01 * point.square().sum())
    *_, (passes, converged, *_) = search(*case, newton=newton, max_passes=2)
    assert (passes, converged) == (2, 0)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_factor_of_the_curvature_leads_there_in_fewer_passes(compiled: str, outputs: int) -> None:
    x, shift, scale, y, point = a_case((400, 6, outputs))
    x = x @ torch.randn(6, 6, dtype=torch.float64)  # correlated
    shift, scale = x.mean(0), 1 / x.std(0)
    design = torch.cat([(x - shift) * scale, torch.ones(400, 1, dtype=torch.float64)], 1)
    factor = torch.linalg.cholesky(design.T @ design / (4 * 400) + 0.02 * torch.eye(7))
    options = {"newton": False, "limit": 1e-9, "tolerance": 0.0}
    plain, other = (search(x, shift, scale, y, point, factor=f, **options) for f in (None, factor))
    close(other[0], plain[0], 1e-6)
    assert other[3][0] < plain[3][0]


def test_the_search_is_an_operator_and_refuses_what_does_not_fit(compiled: str) -> None:
    x, shift, scale, y, point = a_case((9, 3, 4))
    rows, numbers = (x, shift, scale, y, None, None, point, point.abs()), (9.0, True, 1e-9, -1.0, 5)
    utilities = ("test_schema", "test_faketensor")
    whole = (*rows, None, scale.abs(), shift, *numbers)
    torch.library.opcheck(torch.ops.zoo.log_loss_minimize.default, whole, test_utils=utilities)
    for wrong in (
        (*rows, None, scale[1:], shift),
        (*rows, None, scale, shift.float()),
        (*rows, x[:3], scale, shift),
        (*rows[:-1], point[1:], None, scale, shift),
    ):
        with pytest.raises(RuntimeError, match="zoo::log_loss_minimize: ridge"):
            torch.ops.zoo.log_loss_minimize(*wrong, *numbers)
    flat = torch.zeros_like(point)  # without a ridge, two columns that are one have no definite system
    x[:, 1] = x[:, 0]
    same = x, shift * 0, scale * 0 + 1, y, None, None, flat, flat, None, scale * 0 + 1, shift * 0
    assert not torch.ops.zoo.log_loss_minimize(*same, *numbers)[3][0]


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_log_loss import SIZES, WIDE, a_case, log_loss, search
for sizes in [*SIZES, *WIDE, (0, 2, 3), (5, 1, 12)]:
    for intercept in (False, True):
        x, shift, scale, y, point = a_case(sizes, intercept, 3.0)
        weight, by_class = torch.rand(len(x)).double(), torch.rand(max(2, sizes[2])).double()
        for hessian in (False, True):
            log_loss(x, shift, scale, y, weight, by_class, point, hessian)
            log_loss(x, shift, scale, y, None, None, point, hessian)
            search(x, shift, scale, y, point, weight, by_class, newton=hessian)
torch.set_num_threads(2)
x, shift, scale, y, point = a_case((100_000, 20, 2))
log_loss(x, shift, scale, y, None, None, point, True)
"""
    sanitized(script)
