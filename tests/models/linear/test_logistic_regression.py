"""Logistic regression against autograd, scikit-learn, a certified minimum, and itself for any way of batching."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.preprocessing import StandardScaler

from zoo import Batch, DataSpec, ZooError
from zoo.models.linear.log_loss import cost, cost_gradient, derivatives, link
from zoo.models.linear.logistic_regression import LogisticRegression
from zoo.optimizers import Recipe


def data(load, rows: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = load(return_X_y=True)
    return torch.from_numpy(StandardScaler().fit_transform(x))[:rows], torch.from_numpy(y)[:rows]


def build(x, y, recipe=None, **hyperparameters) -> LogisticRegression:
    hyperparameters = {"solver": "exact", **hyperparameters}
    model = LogisticRegression(**hyperparameters)
    model.recipe = recipe or Recipe()
    spec = DataSpec(kind="tabular", shape=tuple(x.shape[1:]), target="class", num_classes=int(y.max()) + 1)
    return model.build(spec)


def fit(x, y, weight=None, *, batch_size=None, l1=0.0, l2=0.0, **hyperparameters) -> LogisticRegression:
    model = build(x, y, Recipe(l1=l1, l2=l2), **hyperparameters)
    size = batch_size or len(x)
    weights = [None] * len(x) if weight is None else weight.split(size)
    model.fit_batches(lambda: [Batch(*parts) for parts in zip(x.split(size), y.split(size), weights, strict=False)])
    return model


def peer(x, y, c: float, **options) -> Peer:
    options = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 100_000, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Peer(C=c, **options).fit(x.numpy(), y.numpy())


def close(ours, theirs, rtol: float = 1e-7, atol: float = 1e-8) -> None:
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=rtol, atol=atol)


# -- the formulas ------------------------------------------------------------------------------------------


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w, x = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4,), (9, 4)))
    return w, x, torch.randint(2, (9,), generator=generator)


def test_cost_is_the_plain_formula_and_its_gradient_is_autograds():
    w, x, y = problem()
    z = x @ w
    close(cost(w, x, y), (torch.log(1 + torch.exp(z)) - y * z).sum(), 1e-12, 0)
    w.requires_grad_()
    (expected,) = torch.autograd.grad(cost(w, x, y), w)
    close(cost_gradient(w.detach(), x, y), expected, 1e-12, 1e-14)
    p = link(z)
    close(cost(w.detach(), x, y), -(y * p.log() + (1 - y) * (1 - p).log()).sum(), 1e-12, 0)


def test_link_and_cost_do_not_overflow():
    z = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4], dtype=torch.float64)
    close(link(z), torch.sigmoid(z), 1e-15, 0)
    x, y = z.unsqueeze(1), torch.tensor([0, 0, 1, 1, 1])
    one = torch.ones(1, dtype=torch.float64)
    close(cost(one, x, y), 2 * np.log1p(np.exp(-30)) + np.log(2), 1e-12, 0)
    assert torch.isfinite(cost(-one, x, y))
    assert torch.isfinite(cost_gradient(-one, x, y)).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_derivatives_are_autograds(rows):
    _, x, y = problem(1)
    y = y if rows == 1 else torch.arange(9) % 3
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(9, generator=generator, dtype=torch.float64)

    def loss(w):
        z = x @ w.T
        if rows == 1:
            losses = torch.log(1 + torch.exp(z[:, 0])) - y * z[:, 0]
        else:
            losses = -z.softmax(1).log()[torch.arange(9), y]
        return weight @ losses

    value, gradient, hessian = derivatives(x @ w.T, x, y, weight)
    close(value, loss(w), 1e-12, 0)
    close(gradient, torch.autograd.functional.jacobian(loss, w), 1e-11, 1e-13)
    close(hessian, torch.autograd.functional.hessian(loss, w).reshape(4 * rows, 4 * rows), 1e-11, 1e-13)
    assert derivatives(x @ w.T, x, y, weight, hessian=False)[2] is None


# -- the exact solver --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "bound"), [("newton", 1e-9), ("lbfgs", 1e-8)])
def test_breast_cancer_reaches_the_certified_minimum(method, bound):
    x, y = data(load_breast_cancer)
    model = fit(x, y, l2=1 / (2 * len(x)), method=method, max_iter=1000)
    w, z = model.weight[0], model(x).squeeze(1)
    minimum = 0.5 * w.square().sum() + (torch.logaddexp(torch.zeros_like(z), z) - y * z).sum()
    assert abs(float(minimum) - 37.758946) < 1e-6
    oracle = peer(x, y, 1.0)
    close(model.weight, oracle.coef_, 1e-4 if method == "lbfgs" else 1e-9, 1e-5 if method == "lbfgs" else 1e-10)
    z = torch.from_numpy(oracle.decision_function(x.numpy()))
    w = torch.from_numpy(oracle.coef_)
    theirs = 0.5 * w.square().sum() + (torch.logaddexp(torch.zeros_like(z), z) - y * z).sum()
    assert float(minimum) <= float(theirs) * (1 + bound)


@pytest.mark.parametrize(("load", "rows"), [(load_iris, None), (load_digits, 400)])
def test_multinomial_equals_scikit_learn(load, rows):
    x, y = data(load, rows)
    model = fit(x, y, l2=1e-2)
    oracle = peer(x, y, 1 / (2e-2 * len(x)))
    close(model.weight, oracle.coef_)
    close(model(x).softmax(1), oracle.predict_proba(x.numpy()))


def test_two_classes_with_two_weight_vectors_equal_one_of_twice_the_penalty():
    x, y = data(load_breast_cancer)
    two, one = fit(x, y, l2=1e-3, binary_logit=False), fit(x, y, l2=5e-4)
    close(two.weight[1] - two.weight[0], one.weight[0])
    close(two.weight.sum(0), torch.zeros(30, dtype=torch.float64), 0, 1e-12)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.01, 0.005)])
def test_l1_and_elastic_net_equal_saga(method, l1, l2):
    x, y = data(load_breast_cancer)
    model = fit(x, y, l1=l1, l2=l2, method=method, max_iter=3000, tol=1e-12 if method == "newton" else 1e-16)
    total = l1 + 2 * l2
    oracle = peer(x, y, 1 / (len(x) * total), solver="saga", l1_ratio=l1 / total, tol=1e-11)
    close(model.weight, oracle.coef_, 1e-5, 1e-6)
    assert torch.equal(model.weight != 0, torch.from_numpy(oracle.coef_ != 0))
    assert 0 < int((model.weight == 0).sum()) < 30


def test_l1_equals_liblinear_without_an_intercept_to_penalize():
    """Liblinear penalizes its intercept, so both go without: each row is given its mirror image."""
    x, y = data(load_breast_cancer)
    x, y = torch.cat([x, -x]), torch.cat([y, 1 - y])
    model = fit(x, y, l1=0.02)
    close(model.bias, torch.zeros(1, dtype=torch.float64), 0, 1e-9)
    oracle = peer(x, y, 1 / (0.02 * len(x)), solver="liblinear", l1_ratio=1, fit_intercept=False, tol=1e-10)
    close(model.weight, oracle.coef_, 1e-6, 1e-7)


def test_l1_multinomial_meets_the_optimality_conditions():
    x, y = data(load_digits, 300)
    model = fit(x, y, l1=0.02)
    residual = (model(x).softmax(1) - torch.nn.functional.one_hot(y)) / len(x)
    slope, w = residual.T @ x, model.weight
    assert (slope[w == 0].abs() <= 0.02 + 1e-8).all()
    close(slope[w != 0], -0.02 * w[w != 0].sign(), 0, 1e-8)
    close(residual.sum(0), torch.zeros(10, dtype=torch.float64), 0, 1e-8)
    assert 0.5 < float((w == 0).double().mean()) < 1


@pytest.mark.parametrize("class_weight", ["balanced", [0.5, 3.0]])
def test_class_weights_equal_scikit_learns(class_weight):
    x, y = data(load_breast_cancer)
    model = fit(x, y, l2=1 / (2 * len(x)), class_weight=class_weight)
    given = class_weight if class_weight == "balanced" else dict(enumerate(class_weight))
    oracle = peer(x, y, 1.0, class_weight=given)
    close(model.weight, oracle.coef_)
    close(model.bias, oracle.intercept_)


def test_sample_weights_are_repetitions_and_zero_leaves_a_row_out():
    x, y = data(load_iris)
    weight = torch.arange(len(x)) % 3
    repeated = torch.repeat_interleave(torch.arange(len(x)), weight)
    ours = fit(x, y, weight.double(), l2=1e-2, class_weight="balanced")
    plain = fit(x[repeated], y[repeated], l2=1e-2, class_weight="balanced")
    close(ours.weight, plain.weight, 1e-9, 1e-10)
    close(ours.bias, plain.bias, 1e-9, 1e-10)


@pytest.mark.parametrize(
    ("load", "options"),
    [
        (load_breast_cancer, {"l2": 1e-3}),
        (load_breast_cancer, {"l1": 5e-3, "class_weight": "balanced"}),
        (load_breast_cancer, {"l2": 1e-2, "method": "lbfgs", "tol": 1e-15}),
        (load_iris, {"l2": 1e-3}),
    ],
)
def test_any_batch_size_and_order_of_rows_give_the_same(load, options):
    x, y = (rows[::4] for rows in data(load))  # batches of one row are slow
    whole = fit(x, y, **options)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 7, 64):
        parts = fit(x[order], y[order], batch_size=batch_size, **options)
        close(parts.weight, whole.weight, 1e-9, 1e-9)
        close(parts.bias, whole.bias, 1e-9, 1e-9)


def test_two_processes_add_up_to_one():
    x, y = data(load_iris)
    one, first, second = (build(x, y, Recipe(l2=1e-2)) for _ in range(3))
    while not one.done:
        for model, rows in ((one, slice(None)), (first, slice(0, None, 2)), (second, slice(1, None, 2))):
            model.reset_accumulators()
            with torch.no_grad():
                model.accumulate(Batch(x[rows], y[rows]))
        merged = first.merge([first._state(), second._state()])
        for model, state in ((one, one._state()), (first, merged), (second, merged)):
            for name, value in state.items():
                setattr(model, name, value)
            with torch.no_grad():
                model.solve()
    close(first.weight, one.weight, 1e-9, 1e-10)
    assert torch.equal(first.weight, second.weight)
    assert first.done


@pytest.mark.parametrize("options", [{"l2": 1e-2}, {"l1": 1e-2}, {"l2": 1e-2, "method": "lbfgs", "tol": 1e-15}])
def test_the_device_changes_nothing(options, device):
    if device.type == "cpu":
        pytest.skip("compares a device with the CPU: pass --device cuda")
    x, y = data(load_iris)
    expected = fit(x, y, **options).weight
    penalties = {name: options.get(name, 0.0) for name in ("l1", "l2")}
    model = build(x, y, Recipe(**penalties), **{k: v for k, v in options.items() if k not in penalties}).to(device)
    model.fit_batches(lambda: [Batch(x, y)])
    assert model.weight.device.type == device.type
    close(model.weight.cpu(), expected, 1e-9, 1e-9)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_second_fit_knows_nothing_of_the_first(method, class_weight):
    """What was wrong: the old weights stood, 0.0397 where a fresh model gives −0.0397."""
    x, y = data(load_breast_cancer)
    options = {"l2": 1e-2, "method": method, "class_weight": class_weight, "max_iter": 300}
    fresh, again = fit(x, y, **options), fit(1e6 - 5 * x[:300], y[:300], **options)
    again.fit_batches(lambda: [Batch(x, y)])
    assert torch.equal(again.weight, fresh.weight)
    assert torch.equal(again.bias, fresh.bias)


def test_a_warm_start_goes_on_from_the_last_weights():
    x, y = data(load_breast_cancer)
    model = fit(x, y, l2=1e-2, warm_start=True)
    cold, weight = model.minimizer.passes, model.weight.clone()
    model.fit_batches(lambda: [Batch(x, y)])
    assert model.minimizer.passes <= 2 < cold
    close(model.weight, weight, 1e-9, 1e-10)


def test_rows_in_memory_and_rows_in_batches_take_the_same_passes():
    x, y = data(load_iris)
    weight = torch.linspace(0.1, 2, len(x), dtype=torch.float64)
    whole, parts = (fit(x, y, weight, l1=1e-3, l2=1e-3, class_weight="balanced", batch_size=n) for n in (None, 40))
    assert whole.minimizer.passes == parts.minimizer.passes
    close(whole.weight, parts.weight, 1e-10, 1e-11)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize(("load", "rows"), [(load_breast_cancer, None), (load_iris, None), (load_digits, 300)])
def test_all_passes_in_compiled_code_are_those_of_the_minimizer(load, rows, method, intercept, monkeypatch):
    x, y = data(load, rows)
    if load is load_digits:
        x = x[:, 20:26].contiguous()
    weight = torch.linspace(0, 2, len(x), dtype=torch.float64)
    options = {"method": method, "fit_intercept": intercept, "class_weight": "balanced", "gradient_tol": 1e-6}
    compiled = fit(x, y, weight, l2=1e-2, **options)
    monkeypatch.setattr(LogisticRegression, "_minimize", lambda *_: None)
    plain = fit(x, y, weight, l2=1e-2, **options)
    close(compiled.weight, plain.weight, 1e-7, 1e-9)
    close(compiled.bias, plain.bias, 1e-7, 1e-9)
    assert abs(compiled.minimizer.passes - plain.minimizer.passes) <= (method == "lbfgs")  # rounding may end it sooner
    assert compiled.minimizer.converged
    close(compiled.minimizer.value, plain.minimizer.value, 1e-12)


def test_state_in_the_middle_travels_in_the_state_dict():
    x, y = data(load_breast_cancer)
    batches = [Batch(x, y)]
    whole, first, second = (build(x, y, Recipe(l2=1e-3), class_weight="balanced") for _ in range(3))
    whole.fit_batches(lambda: batches, max_passes=100)  # without the short way of a whole fit
    first.fit_batches(lambda: batches, max_passes=3)
    second.load_state_dict(first.state_dict())
    second.run_passes(lambda: batches, max_passes=100)
    assert torch.equal(second.weight, whole.weight)


# -- hard data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_end_finite_with_a_warning(method, classes):
    x = torch.arange(6.0, dtype=torch.float64).unsqueeze(1)
    y = torch.arange(6) * classes // 6
    with pytest.warns(UserWarning, match="linearly separable"):
        model = fit(x, y, method=method, tol=0.0, max_iter=60)
    assert int(model.minimizer.passes) <= 60
    assert torch.isfinite(model.weight).all()
    assert torch.equal(model.predict(x), y)


def test_too_few_passes_are_said():
    x, y = data(load_breast_cancer)
    with pytest.warns(UserWarning, match="has not converged in 3 iterations"):
        fit(x, y, l2=1e-3, max_iter=3)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_constant_collinear_and_badly_scaled_features_change_no_probability(method):
    x, y = data(load_breast_cancer)
    x = x[:, :4]
    spoiled = torch.cat([x, torch.full_like(x[:, :1], 7.0), torch.zeros_like(x[:, :1]), x[:, :1]], 1)
    probability = fit(x, y, method=method, max_iter=2000)(x)
    tolerance = 1e-8 if method == "newton" else 1e-3
    close(fit(spoiled, y, method=method, max_iter=2000)(spoiled), probability, tolerance, tolerance)
    if method == "newton":
        scaled = x * torch.tensor([1e-5, 1.0, 1e5, 1e3], dtype=torch.float64)
        close(fit(scaled, y)(scaled), probability, 1e-7, 1e-7)


def two_bell_curves(dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    x = torch.randn(120, 3, generator=generator, dtype=torch.float64) + y.unsqueeze(1) * torch.tensor([1.0, -1, 0])
    return x.to(dtype), y


@pytest.mark.parametrize("shift", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"l2": 1e-2}, {"l1": 1e-2}, {"l2": 1e-2, "method": "lbfgs", "tol": 1e-15}])
@pytest.mark.parametrize("classes", [2, 3])
def test_features_far_from_zero_lose_no_digit(shift, dtype, options, classes):
    x, y = two_bell_curves()
    y = y if classes == 2 else torch.arange(120) % 3
    far = (64 * x + shift * torch.tensor([1.0, -1, 2])).to(dtype)
    near = far.double() - shift * torch.tensor([1.0, -1, 2], dtype=torch.float64)  # the same numbers, to the last bit
    far = far.double()
    model, plain = fit(far, y, **options), fit(near, y, **options)
    close(model.weight, plain.weight, 1e-7, 1e-11)
    z, expected = (m(x) - m(x).mean(1, keepdim=True) * (classes > 2) for m, x in ((model, far), (plain, near)))
    close(z, expected, 1e-6, 1e-12 * shift + 1e-9)
    assert bool((plain.weight != 0).any())
    close(fit(far, y, batch_size=1 if shift == 1e8 else 17, **options).weight, plain.weight, 1e-6, 1e-10)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize("scale", [1e-170, 1e-20, 1e20, 1e160])
def test_features_of_any_scale_are_solved(method, scale):
    x, y = two_bell_curves()
    plain = fit(x, y, method=method)
    close(fit(x * scale, y, method=method).weight * scale, plain.weight, 1e-6, 1e-9)
    mixed = x * torch.tensor([scale, 1.0, 1.0], dtype=torch.float64)
    close(fit(mixed, y, method=method)(mixed), plain(x), 1e-6, 1e-9)
    for options in ({"l1": 1e-2}, {"l2": 1e-2}):  # which is another problem, and one with an answer
        model = fit(mixed, y, method=method, max_iter=1000, **options)
        assert torch.isfinite(model.weight).all()
        assert float((model.predict(mixed) == y).double().mean()) > 0.7


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3, 1e160])
@pytest.mark.parametrize("options", [{}, {"l1": 1e-2}, {"method": "lbfgs"}])
def test_a_constant_column_gets_no_weight(value, options):
    x, y = two_bell_curves()
    model = fit(torch.cat([x, torch.full_like(x[:, :1], value)], 1), y, **options)
    assert model.weight[0, 3] == 0
    close(model.weight[:, :3], fit(x, y, **options).weight, 1e-9, 1e-10)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize("options", [{"l2": 1e-2}, {"l1": 1e-2}])
def test_without_an_intercept(method, options):
    x, y = two_bell_curves()
    x = x + 1
    model = fit(x, y, fit_intercept=False, method=method, max_iter=2000, tol=1e-15, **options)
    penalty = {"solver": "liblinear", "l1_ratio": 1.0 if "l1" in options else 0.0}
    total = options.get("l1", 0) + 2 * options.get("l2", 0)
    oracle = peer(x, y, 1 / (total * len(x)), fit_intercept=False, **penalty)
    close(model.weight, oracle.coef_, 1e-5, 1e-6)
    assert model.bias.tolist() == [0.0]
    three = torch.arange(120) % 3
    oracle = peer(x, three, 1 / (2e-2 * len(x)), fit_intercept=False)
    close(fit(x, three, l2=1e-2, fit_intercept=False).weight, oracle.coef_, 1e-6, 1e-7)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
@pytest.mark.parametrize("l1", [0.0, 1e-2])
@pytest.mark.parametrize("classes", [2, 3])
def test_weights_that_may_not_be_negative_are_scipys(method, l1, classes):
    x, y = two_bell_curves()
    y = y if classes == 2 else torch.arange(120) % 3
    model = fit(x, y, l1=l1, l2=1e-2, positive=True, method=method, max_iter=3000, tol=1e-15)
    rows = len(model.weight)

    def objective(flat):
        w = torch.tensor(flat.reshape(rows, 4), requires_grad=True)
        z = x @ w[:, :3].T + w[:, 3]
        z = torch.cat([torch.zeros_like(z), z], 1) if rows == 1 else z
        value = torch.nn.functional.cross_entropy(z, y) + l1 * w[:, :3].sum() + 1e-2 * w[:, :3].square().sum()
        value.backward()
        return value.item(), w.grad.numpy().ravel()

    bounds = [(0, None), (0, None), (0, None), (None, None)] * rows
    oracle = minimize(
        objective, np.zeros(4 * rows), jac=True, bounds=bounds, options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000}
    )
    expected = oracle.x.reshape(rows, 4)
    close(model.weight, expected[:, :3], 1e-5, 1e-6)
    np.testing.assert_array_equal(model.weight.numpy() == 0, expected[:, :3] == 0)
    assert 0 < int((model.weight == 0).sum()) < model.weight.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_inputs(dtype):
    x, y = two_bell_curves(dtype)
    plain = fit(x, y, l2=1e-2).weight
    wide = torch.zeros(240, 7, dtype=dtype)
    wide[::2, 1::2] = x
    for view in (wide[::2, 1::2], x.T.contiguous().T):
        close(fit(view, y.repeat_interleave(2)[::2], l2=1e-2).weight, plain, 1e-12, 1e-13)
    close(fit(x[:, :1].expand(-1, 3), y, l2=1e-2).weight, fit(x[:, [0] * 3], y, l2=1e-2).weight, 1e-12, 1e-13)


def test_rows_without_weight_count_for_nothing():
    x, y = two_bell_curves()
    weight = (torch.arange(120) % 3).double()
    odd = torch.where(weight.unsqueeze(1) > 0, x, 1e30)
    kept = weight > 0
    close(fit(odd, y, weight, l2=1e-2, batch_size=1).weight, fit(x[kept], y[kept], weight[kept], l2=1e-2).weight, 1e-9)


def test_one_row_and_duplicate_rows():
    x, y = data(load_iris)
    pair = [0, 80]
    close(fit(x[pair], y[pair], l2=0.1).weight, fit(x[pair * 5], y[pair * 5], l2=0.1).weight, 1e-9, 1e-10)
    lonely = build(x, y, Recipe(l2=0.1))
    lonely.fit_batches(lambda: [Batch(x[:1], y[:1])])
    assert torch.isfinite(lonely.weight).all()
    assert lonely.predict(x[:1]).tolist() == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_in_one_line(value):
    x, y = data(load_iris)
    x = x.clone()
    x[3, 1] = value
    with pytest.raises(ZooError, match="NaN or infinite"):
        fit(x, y, l2=0.1)


def test_rows_without_weight_are_refused_in_one_line():
    x, y = data(load_iris)
    with pytest.raises(ZooError, match="no row with a positive weight"):
        fit(x, y, torch.zeros(len(x), dtype=torch.float64))


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"class_weight": [1.0, 0.0]}, "must all be positive"),
        ({"tol": -1.0}, "model.tol must be at least 0"),
        ({"max_iter": 0}, "model.max_iter must be at least 1"),
    ],
)
def test_mistakes_are_one_line(hyperparameters, message):
    with pytest.raises(ZooError, match=message):
        LogisticRegression(**hyperparameters)


def test_a_class_weight_is_needed_for_each_class():
    x, y = data(load_iris)
    with pytest.raises(ZooError, match="2 weights for 3 classes"):
        build(x, y, class_weight=[1.0, 2.0])


# -- prediction and the gradient solver --------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
def test_columns_hold_classes_and_their_probabilities(load):
    x, y = data(load)
    columns = fit(x, y, l2=1e-2).predict_columns(x)
    close(columns["probability"].sum(1), torch.ones(len(x), dtype=torch.float64), 1e-12, 0)
    assert torch.equal(columns["probability"].argmax(1), columns["prediction"])
    assert float((columns["prediction"] == y).double().mean()) > 0.9


def test_images_are_flattened():
    x, y = data(load_digits, 200)
    images, flat = fit(x.view(-1, 1, 8, 8), y, l2=0.1), fit(x, y, l2=0.1)
    assert torch.equal(images.predict(x.view(-1, 1, 8, 8)), flat.predict(x))


@pytest.mark.parametrize("class_weight", [None, [0.5, 3.0], "balanced"])
def test_gradient_solver_descends_to_the_exact_solution(class_weight):
    x, y = data(load_breast_cancer)
    exact = fit(x, y, l2=0.05, class_weight=class_weight)
    model = build(x, y, Recipe(l2=0.05), solver="gradient", class_weight=class_weight).double()
    batch, optimizer = Batch(x, y), torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_change=1e-16)
    model.objective.count(model._count(y, None))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.objective.loss(model(x), batch) + model.recipe.penalty(model)
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    close(model.weight.detach(), exact.weight, 1e-5, 1e-6)
    close(model.bias.detach(), exact.bias, 1e-5, 1e-6)


def test_balanced_weights_of_the_gradient_solver_are_those_of_all_batches_seen():
    x, y = data(load_breast_cancer)
    model = build(x, y, solver="gradient", class_weight="balanced")
    for part in y.split(50):
        model.objective.count(model._count(part, None))
    close(model.objective.class_weight, len(y) / (2 * torch.bincount(y).double()), 1e-12, 0)


# -- rows that are a sparse matrix ---------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"l1": 0.01, "class_weight": "balanced"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_give_the_weights_of_dense_ones(num_classes: int, options: dict, weighted: bool) -> None:
    """Also of a feature that is always there, of one that never is, of empty rows, and batch by batch."""
    make = torch.Generator().manual_seed(num_classes)
    x = torch.randn(60, 12, generator=make, dtype=torch.float64).round() * 10.0 ** torch.arange(-3, 9)
    x[:, 3], x[:, 4], x[::7] = 7.0, 0.0, 0.0
    y = torch.randint(num_classes, (60,), generator=make)
    weight = torch.randint(3, (60,), generator=make).double() if weighted else None
    dense = fit(x, y, weight, l2=0.01, method="lbfgs", **options)
    options = dict(options)
    recipe = Recipe(l1=options.pop("l1", 0.0), l2=0.01)
    for size in (60, 13):
        model = LogisticRegression(solver="exact", method="lbfgs", **options)
        model.recipe = recipe
        spec = DataSpec("tabular", (12,), target="class", num_classes=num_classes, sparse=True)
        model.build(spec)
        assert model.takes_sparse
        weights = [None] * 60 if weight is None else weight.split(size)
        parts = [part.to_sparse_csr() for part in x.split(size)], y.split(size), weights
        model.fit_batches(lambda parts=parts: [Batch(*part) for part in zip(*parts, strict=False)])
        scale = x.std(0)
        close(model.weight * scale, dense.weight * scale, 1e-6, 1e-7)
        close(model.bias, dense.bias, 1e-6, 1e-7)
        close(model(x.to_sparse_csr()), dense(x), 1e-6, 1e-6)
