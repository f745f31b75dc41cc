"""The compiled duals beside the forms in torch operations, and beside a quadratic program."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo import kernels
from zoo.kernels import svm as compiled
from zoo.models.svm.coordinate_descent import descend, dual_descent
from zoo.models.svm.dual import Dual, classification, novelty, regression
from zoo.models.svm.kernels import Kernel
from zoo.models.svm.smo import smo, solve_pairs

NAMES = ("linear", "poly", "rbf", "sigmoid", "precomputed")


@pytest.fixture(params=kernels.runnable())
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if kernels.status().variant is None:
        pytest.skip(str(kernels.status()))
    return request.param


def a_case(seed: int, most: int = 90) -> tuple[Tensor, Dual]:
    """Rows and a dual of every kind, drawn."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 3, 9, 33, most]), draw.choice([1, 2, 5, 17, 70])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64)
    if draw.random() < 0.3:
        x = x.round()  # equal rows
    if draw.random() < 0.2:
        x[:] = x[0].clone()
    cost = torch.full((rows,), 10.0 ** draw.randint(-2, 1), dtype=torch.float64)
    if draw.random() < 0.4:
        cost *= torch.rand(rows, generator=make, dtype=torch.float64) + 0.1
    kind = draw.choice(["class", "one class", "value", "value without tube", "novelty"])
    if kind == "novelty":
        return x, novelty(cost, draw.choice([0.1, 0.5, 1.0]))
    if kind.startswith("value"):
        value = torch.randn(rows, generator=make, dtype=torch.float64) + x[:, 0]
        return x, regression(value, cost, 0.0 if kind.endswith("tube") else 0.2)
    sign = torch.where(torch.rand(rows, generator=make) < 0.5, 1.0, -1.0).double()
    return x, classification(sign if kind == "class" else torch.ones(rows).double(), cost)


def check_feasible(beta: Tensor, dual: Dual) -> None:
    assert bool((beta >= dual.low).all())
    assert bool((beta <= dual.high).all())
    torch.testing.assert_close(beta.sum(), dual.start.sum(), rtol=1e-12, atol=1e-10 * float(beta.abs().sum() + 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_pairs_meet_what_the_torch_form_meets(seed: int, name: str, variant: str) -> None:
    x, dual = a_case(100 * NAMES.index(name) + seed)
    kernel = Kernel("rbf" if name == "precomputed" else name, 0.3, 3, 0.5)
    if name == "precomputed":
        x, kernel = kernel(x, x), Kernel("precomputed")
    # A sigmoid is no inner product: the search ends at a stationary point, which need not be the same one.
    tol = 1e-4
    ours, theirs = (
        smo(x, dual, kernel, tol=tol, max_iter=20_000),
        solve_pairs(x, dual, kernel, tol=tol, max_iter=20_000),
    )
    check_feasible(ours.beta, dual)
    if name == "sigmoid":
        return
    assert ours.violation <= tol
    assert theirs.violation <= tol
    size = float(dual.high.clamp_max(100).sum()) * tol
    assert ours.objective == pytest.approx(theirs.objective, abs=size, rel=1e-6)


@pytest.mark.parametrize(("shrinking", "cache_size"), [(False, 200.0), (True, 200.0), (True, 1e-6), (False, 1e-6)])
@pytest.mark.parametrize("features", [3, 65])
def test_shrinking_and_the_cache_change_nothing(shrinking: bool, cache_size: float, features: int) -> None:
    make = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 3, generator=make, dtype=torch.float64)
    if features > 3:  # rows of which several are read at once
        x = torch.cat([x, 0.05 * torch.randn(1500, features - 3, generator=make, dtype=torch.float64)], 1)
    sign = torch.where(x[:, 0] * x[:, 1] + 0.3 * torch.randn(1500, generator=make) > 0, 1.0, -1.0).double()
    dual = classification(sign, torch.full((1500,), 10.0).double())
    plain = smo(x, dual, Kernel("rbf", 0.5), tol=1e-6, shrinking=False)
    ours = smo(x, dual, Kernel("rbf", 0.5), tol=1e-6, shrinking=shrinking, cache_size=cache_size)
    assert ours.violation <= 1e-6
    check_feasible(ours.beta, dual)
    assert ours.objective == pytest.approx(plain.objective, rel=1e-8)
    torch.testing.assert_close(ours.slope, plain.slope, rtol=0, atol=1e-5)
    # f is what the coefficients say it is, also of rows that were left out.
    k = Kernel("rbf", 0.5)(x, x)
    torch.testing.assert_close(ours.slope, dual.target - k @ ours.beta, rtol=0, atol=1e-4)


def test_pairs_solve_the_quadratic_program() -> None:
    """Beside SciPy's general solver."""
    from scipy.optimize import minimize

    make = torch.Generator().manual_seed(3)
    x = torch.randn(12, 2, generator=make, dtype=torch.float64)
    for dual in (
        classification(torch.tensor([1.0, -1.0] * 6).double(), torch.linspace(0.5, 2, 12).double()),
        regression(x[:, 0].sin() * 3, torch.full((12,), 2.0).double(), 0.1),
        novelty(torch.ones(12).double(), 0.4),
    ):
        k = Kernel("rbf", 0.7)(x, x)

        def value(both, k=k, dual=dual):  # β = p − n
            beta = torch.from_numpy(both[:12] - both[12:])
            return float(0.5 * beta @ k @ beta - dual.target @ beta) + dual.epsilon * both.sum()

        bounds = [(max(0.0, a), max(0.0, b)) for a, b in zip(dual.low.tolist(), dual.high.tolist(), strict=True)]
        bounds += [(max(0.0, -b), max(0.0, -a)) for a, b in zip(dual.low.tolist(), dual.high.tolist(), strict=True)]
        start = torch.cat([dual.start.clamp_min(0), (-dual.start).clamp_min(0)]).numpy()
        total = float(dual.start.sum())
        constraint = {"type": "eq", "fun": lambda both, total=total: both[:12].sum() - both[12:].sum() - total}
        best = minimize(value, start, bounds=bounds, constraints=[constraint], options={"maxiter": 500, "ftol": 1e-12})
        assert smo(x, dual, Kernel("rbf", 0.7), tol=1e-8).objective == pytest.approx(best.fun, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("squared", [False, True])
def test_coordinates_meet_what_the_torch_form_meets(seed: int, squared: bool, variant: str) -> None:
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 9, 60]), draw.choice([1, 3, 18])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64)
    x[rows // 2] = 0
    cost = torch.rand(rows, generator=make, dtype=torch.float64) + 0.1
    if seed % 2:
        dual = regression(x.sum(1) + 1, cost, draw.choice([0.0, 0.1]), squared=squared)
    else:
        dual = classification(torch.where(x[:, 0] > 0.2, 1.0, -1.0).double(), cost, squared=squared)
    order, constant = torch.randperm(rows, generator=make), draw.choice([0.0, 1.0, 10.0])
    vectors = (dual.target, dual.low, dual.high, dual.diagonal, dual.start, order, constant, dual.epsilon)
    x *= torch.rand(x.shape, generator=make) > 0.3
    sparse = x.to_sparse_csr()
    dense_form, sparse_form = (x, None, None), (sparse.values(), sparse.crow_indices(), sparse.col_indices())
    results = []
    forms = dense_form, sparse_form
    for solve, form in (*((compiled.dual_descent, form) for form in forms), (descend, forms[seed % 2])):
        beta, weight, found = solve(*form, features, *vectors, 1e-10, bool(seed % 4 == 1), 100_000, 7)
        assert found[2] == 1
        assert bool(((beta >= dual.low) & (beta <= dual.high)).all())
        design = torch.cat([x, x.new_full((rows, 1), constant)], 1)
        torch.testing.assert_close(weight, beta @ design, rtol=1e-9, atol=1e-9)
        results.append(
            0.5 * weight.square().sum() + 0.5 * dual.diagonal @ beta.square() - dual.target @ beta
            + dual.epsilon * beta.abs().sum()
        )  # fmt: skip
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-8, atol=1e-8)


def test_strided_rows_are_the_same_rows() -> None:
    x, dual = a_case(5)
    wide = torch.randn(2 * x.shape[1], len(x), dtype=torch.float64).T
    wide[:, ::2] = x
    kernel = Kernel("poly", 0.3, 2, 1.0)
    assert torch.equal(smo(wide[:, ::2], dual, kernel).beta, smo(x, dual, kernel).beta)
    assert torch.equal(dual_descent(wide[:, ::2], dual).weight, dual_descent(x, dual).weight)


@pytest.mark.parametrize("operator", ["smo", "dual_descent"])
def test_what_does_not_fit_is_named(operator: str) -> None:
    if not compiled.available(torch.device("cpu")):
        pytest.skip("no kernel")
    x, v = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    rest, ends, column = (1.0, 0, 0, False, 1, 0), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 1])
    smo_rest = (2, 1.0, 3, 0.0, 0.0, 1e-3, True, -1, 10)
    calls = {
        "smo": [
            (lambda: compiled.smo(x.float(), v, v, v, v, *smo_rest), "x must be"),
            (lambda: compiled.smo(x, v[:2], v, v, v, *smo_rest), "target must be"),
            (lambda: compiled.smo(x, v, v, v, v, 4, *smo_rest[1:]), "square"),
            (lambda: compiled.smo(x, v, v, v, v, 9, *smo_rest[1:]), "kernel or degree"),
        ],
        "dual_descent": [
            (lambda: compiled.dual_descent(x, None, None, 2, v, v, v, v, v, v.long() + 0, *rest), "permutation"),
            (lambda: compiled.dual_descent(x, None, None, 2, v, v, v, v, v, v.long() + 3, *rest), "permutation"),
            (lambda: compiled.dual_descent(x, None, None, 3, v, v, v, v, v, v.long(), *rest), "num_features"),
            (lambda: compiled.dual_descent(x, None, None, 2, v, v.float(), v, v, v, torch.arange(3), *rest), "low"),
            *(
                (lambda c=c, e=e: compiled.dual_descent(v, e, c, 2, v, v, v, v, v, torch.arange(3), *rest), "sparse")
                for c, e in ((column + 1, ends), (column - 1, ends), (column, ends - 1), (column, ends.flip(0)),
                             (column, ends[:3]), (column[:2], ends), (column.int(), ends))
            ),
            (lambda: compiled.dual_descent(v, ends, column, 2, v[:2], v, v, v, v, torch.arange(3), *rest), "target"),
        ],
    }  # fmt: skip
    for call, message in calls[operator]:
        with pytest.raises(RuntimeError, match=message):
            call()


def test_the_operators_are_traced() -> None:
    x, v = torch.randn(5, 2, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    arguments = (x, v, -v, v, 0 * v, 2, 1.0, 3, 0.0, 0.0, 1e-3, True, -1, 10)
    torch.library.opcheck(torch.ops.zoo.smo, arguments, test_utils=("test_schema", "test_faketensor"))
    arguments = (x, None, None, 2, v, -v, v, 0 * v, 0 * v, torch.arange(5), 1.0, 0.0, 1e-3, False, 5, 0)
    torch.library.opcheck(torch.ops.zoo.dual_descent, arguments, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import random, torch
from test_svm import NAMES, Kernel, a_case, dual_descent, smo
for seed in range(250):
    x, dual = a_case(seed, 700)
    name, draw = NAMES[seed % 5], random.Random(seed)
    kernel = Kernel("rbf" if name == "precomputed" else name, 0.3, 3, 0.5)
    rows = kernel(x, x) if name == "precomputed" else x
    kernel = Kernel("precomputed") if name == "precomputed" else kernel
    smo(rows, dual, kernel, tol=1e-3, max_iter=4000, shrinking=seed % 3 > 0, cache_size=draw.choice([9.0, 0.05, 1e-6]))
    if not dual.start.any():
        dual_descent(x, dual, constant=draw.choice([0.0, 1.0]), max_iter=30)
        dual_descent(x.new_zeros(len(x), 0), dual, max_iter=5)
        dual_descent((x * (x > draw.choice([-9.0, 0.0, 1.0, 9.0]))).to_sparse_csr(), dual, max_iter=30)
"""
    sanitized(script)
