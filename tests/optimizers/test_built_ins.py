"""Our optimizers beside those of `torch.optim`: every option, steps, states, types of tensors."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.optimizers import LBFGS, OPTIMIZERS, SGD, Adafactor, Adagrad, Adam, AdamW, Muon, RMSprop
from zoo.optimizers.base import RawOptimizer

CASES: list[tuple[type[RawOptimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True}),
    (SGD, {"lr": 0.1, "weight_decay": 0.01, "maximize": True}),
    (SGD, {"lr": torch.tensor(0.1), "momentum": 0.5}),
    (Adam, {}),
    (Adam, {"lr": 0.05, "betas": (0.8, 0.99), "eps": 1e-4}),
    (Adam, {"weight_decay": 0.01, "amsgrad": True}),
    (Adam, {"weight_decay": 0.01, "maximize": True}),
    (Adam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    (Adam, {"lr": torch.tensor(0.01)}),
    (AdamW, {}),
    (AdamW, {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True, "maximize": True}),
    (RMSprop, {}),
    (RMSprop, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.01}),
    (RMSprop, {"centered": True, "maximize": True, "weight_decay": 0.01}),
    (RMSprop, {"momentum": 0.9}),
    (RMSprop, {"momentum": 0.9, "centered": True, "lr": 0.001}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-5}),
    (Adagrad, {"weight_decay": 0.01, "maximize": True}),
    (Adafactor, {}),
    (Adafactor, {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-5, 1e-2), "d": 1.5, "weight_decay": 0.1, "maximize": True}),
]  # fmt: skip
FUSED: list[tuple[type[RawOptimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (SGD, {"lr": 0.1}),
    (Adam, {"weight_decay": 0.01, "amsgrad": True}),
    (AdamW, {"maximize": True}),
    (Adagrad, {"lr_decay": 0.01, "weight_decay": 0.01}),
]
DTYPES = [torch.float32, torch.float64]


def named(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return getattr(value, "__name__", str(value))


def parameters(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    """Tensors of several shapes: a matrix, a vector, a scalar, a strided one, an empty one, one far from 1."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = [draw(7, 5), draw(6), draw(), draw(4, 3, 2).transpose(0, 2), 1e4 * draw(3, 9), draw(2, 3, 2, 2)]
    return [nn.Parameter(tensor) for tensor in tensors]


def gradients(step: int, like: list[nn.Parameter]) -> list[Tensor | None]:
    """Gradients of widely different sizes; the second parameter has none in every third step, another is 0 for long."""
    generator = torch.Generator().manual_seed(step)
    found: list[Tensor | None] = []
    for index, parameter in enumerate(like):
        scale = 10.0 ** (index - 2)
        gradient = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        found.append(gradient.to(parameter.dtype) + 0.1 * parameter.detach())
    found[1] = None if step % 3 == 2 else found[1]
    found[-1] = torch.zeros_like(like[-1]) if step < 20 else found[-1]
    return found


def run(
    make: Callable[..., Any], options: dict[str, Any], dtype: torch.dtype, *, aligned: bool = False, steps: int = 50
) -> tuple[Any, Any]:
    """The parameters after some steps, and the optimizer; `aligned` gradients lie in memory as their parameters do."""
    held = parameters(dtype)
    optimizer = make(held, **options)
    for step in range(steps):
        for parameter, gradient in zip(held, gradients(step, held), strict=True):
            if aligned and gradient is not None:
                gradient = torch.empty_like(parameter).copy_(gradient).detach()
            parameter.grad = gradient
        optimizer.step()
    return held, optimizer


def assert_same_state(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same keys, and the same bits, at every depth."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same_state(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same_state(one, other)
    elif isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize(("ours", "options"), CASES, ids=named)
def test_fifty_steps_end_in_the_bits_of_torch(ours: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    held, optimizer = run(ours, options, dtype)
    expected, theirs = run(ours.built_in, options, dtype)
    assert all(torch.equal(one, other) for one, other in zip(held, expected, strict=True))
    assert_same_state(optimizer.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize(("ours", "options"), FUSED, ids=named)
def test_the_fused_form_is_that_of_torch(ours: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    held, optimizer = run(ours, {**options, "fused": True}, dtype, aligned=True)
    expected, theirs = run(ours.built_in, {**options, "fused": True}, dtype, aligned=True)
    assert all(torch.equal(one, other) for one, other in zip(held, expected, strict=True))
    assert_same_state(optimizer.state_dict(), theirs.state_dict())


@pytest.mark.parametrize(("ours", "options"), FUSED, ids=named)
def test_the_fused_form_takes_gradients_of_any_strides(ours: Any, options: dict[str, Any]) -> None:
    """torch's own on a CPU reads them as if they lay as their parameters do."""
    fused, _ = run(ours, {**options, "fused": True}, torch.float64)
    expected, _ = run(ours, options, torch.float64)
    for one, other in zip(fused, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("ours", "options"), CASES, ids=named)
def test_the_foreach_form_of_torch_is_as_near_as_rounding(ours: Any, options: dict[str, Any]) -> None:
    """What torch takes on a GPU: where it rounds in another order, 1e-12 of the parameter's size."""
    if isinstance(options.get("lr"), Tensor) and ours is not SGD:
        pytest.skip("torch's foreach form takes no tensor for a learning rate")
    held, _ = run(ours, {**options, "foreach": True}, torch.float64)
    expected, _ = run(ours.built_in, {**options, "foreach": True}, torch.float64)
    for one, other in zip(held, expected, strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


@pytest.mark.parametrize(
    ("ours", "options"),
    [(SGD, {"lr": 0.1, "momentum": 0.9}), (Adam, {}), (AdamW, {}), (RMSprop, {"momentum": 0.5}), (Adagrad, {})],
    ids=named,
)  # fmt: skip
def test_complex_parameters_are_pairs_of_real_ones(ours: Any, options: dict[str, Any]) -> None:
    ends = []
    for make in (ours, ours.built_in):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        optimizer = make([weight], **options)
        for _ in range(5):
            weight.grad = torch.randn(4, dtype=torch.complex64)
            optimizer.step()
        ends.append((weight.detach(), optimizer.state_dict()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert_same_state(ends[0][1], ends[1][1])


@pytest.mark.parametrize(("ours", "options"), [*CASES[::2], (LBFGS, {"lr": 0.5, "max_iter": 3})], ids=named)
@pytest.mark.parametrize("there", [True, False], ids=["from torch", "to torch"])
def test_a_state_goes_on_with_the_other(ours: Any, options: dict[str, Any], there: bool) -> None:
    first, second = (ours.built_in, ours) if there else (ours, ours.built_in)

    def train(makes: list[Any]) -> list[nn.Parameter]:
        held, state = [p for p in parameters(torch.float32) if p.is_contiguous()], None
        for part, make in enumerate(makes):
            optimizer = make(held, **options)
            if state is not None:
                optimizer.load_state_dict(state)
            for step in range(6 * part, 6 * part + 6):

                def closure(step: int = step) -> Tensor:
                    for parameter, gradient in zip(held, gradients(step, held), strict=True):
                        parameter.grad = gradient
                    return sum((p.detach() ** 2).sum() for p in held)  # type: ignore[return-value]

                optimizer.step(closure)
            buffer = io.BytesIO()  # through a file, as checkpoints go
            torch.save(optimizer.state_dict(), buffer)
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
        return held

    mixed, whole = train([first, second]), train([ours.built_in, ours.built_in])
    assert all(torch.equal(one, other) for one, other in zip(mixed, whole, strict=True))


LBFGS_OPTIONS: list[dict[str, Any]] = [
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "history_size": 3, "max_iter": 8, "lr": 0.3},
    {"line_search_fn": "strong_wolfe", "max_eval": 5},
    {"line_search_fn": "strong_wolfe", "lr": 30.0},
    {"line_search_fn": "strong_wolfe", "tolerance_change": 1e-2, "tolerance_grad": 1e-3},
    {"lr": 0.01, "max_iter": 5},
    {"lr": 0.001, "history_size": 2},
]


@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize("options", LBFGS_OPTIONS, ids=named)
@pytest.mark.parametrize("problem", ["rosenbrock", "logistic", "maximum"])
def test_lbfgs_goes_torchs_way(problem: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """On a valley, a convex loss over two tensors, and a maximum, step by step."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = (x[:, 0] + x[:, 1] > 0).to(dtype)

    def path(make: Any) -> tuple[list[Tensor], dict[str, Any]]:
        if problem == "logistic":
            held = [nn.Parameter(torch.zeros(6, dtype=dtype)), nn.Parameter(torch.zeros((), dtype=dtype))]
        else:
            held = [nn.Parameter(torch.tensor([-1.2, 1.0, -1.2, 1.0, 0.5], dtype=dtype))]
        more = {"maximize": True} if problem == "maximum" else {}
        optimizer = make(held, **options, **more)

        def closure() -> Tensor:
            optimizer.zero_grad()
            if problem == "logistic":
                loss = nn.functional.binary_cross_entropy_with_logits(x @ held[0] + held[1], y) + held[0].square().sum()
            else:
                p = held[0]
                loss = ((1 - p[:-1]) ** 2 + 100 * (p[1:] - p[:-1] ** 2) ** 2).sum()
                loss = -loss if problem == "maximum" else loss
            loss.backward()
            return loss

        points = []
        for _ in range(8):
            points += [optimizer.step(closure).detach(), *(p.detach().clone() for p in held)]
        return points, optimizer.state_dict()

    (ours, our_state), (theirs, their_state) = path(LBFGS), path(torch.optim.LBFGS)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert_same_state(our_state, their_state)


@pytest.mark.parametrize("rule", [None, "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_takes_torchs_steps_of_matrices(rule: str | None, nesterov: bool) -> None:
    ends = []
    for make in (Muon, torch.optim.Muon):
        torch.manual_seed(0)
        held: list[Any] = [nn.Parameter(torch.randn(*shape)) for shape in ((6, 4), (4, 6), (5, 5))]
        optimizer = make(held, lr=0.02, nesterov=nesterov, adjust_lr_fn=rule, weight_decay=0.1)
        for _ in range(20):
            for parameter in held:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        ends.append((held, optimizer.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(ends[0][0], ends[1][0], strict=True))
    assert_same_state(ends[0][1]["state"], ends[1][1]["state"])


@pytest.mark.parametrize("ours", [SGD, Adagrad], ids=named)
@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_sparse_gradients_touch_their_rows_alone(ours: Any) -> None:
    ends = []
    for make in (ours, ours.built_in):
        torch.manual_seed(0)
        table = nn.Embedding(10, 3, sparse=True, dtype=torch.float64)
        optimizer = make(table.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            table(torch.tensor([1, 4, 4, 7])).square().sum().backward()
            optimizer.step()
        ends.append(table.weight.detach())
    assert torch.allclose(ends[0], ends[1], rtol=1e-13, atol=0)
    assert torch.equal(ends[0][0], ends[1][0])


def test_the_gradients_stay_as_they_are() -> None:
    """Who looks at them after the step sees what backward left."""
    for ours, options in CASES:
        held = parameters(torch.float32)
        before = gradients(0, held)
        for parameter, gradient in zip(held, before, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        ours(held, **options).step()
        for parameter, gradient in zip(held, before, strict=True):
            assert gradient is None or torch.equal(parameter.grad, gradient), (ours, options)  # type: ignore[arg-type]


def test_groups_have_options_of_their_own_and_types_may_be_mixed() -> None:
    def train(make: Any) -> list[Tensor]:
        torch.manual_seed(0)
        a, b = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4, dtype=torch.float64))
        c = nn.Parameter(torch.randn(2))
        optimizer = make([{"params": [a, b]}, {"params": [c], "lr": 0.5, "weight_decay": 0.1}], lr=0.01)
        for _ in range(4):
            for parameter in (a, b, c):
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        return [a, b, c]

    for ours in (SGD, Adam, AdamW, RMSprop, Adagrad, Adafactor):
        assert all(torch.equal(one, other) for one, other in zip(train(ours), train(ours.built_in), strict=True))


def test_a_closure_is_evaluated_with_gradients() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD([weight], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert weight.item() == 0.0


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (SGD, {"lr": -1.0}, "lr must be a number of at least 0"),
        (SGD, {"nesterov": True}, "nesterov=True needs a momentum"),
        (SGD, {"differentiable": True}, "torch.optim.SGD"),
        (SGD, {"lr": torch.ones(2)}, "one element"),
        (Adam, {"betas": (0.9, 1.0)}, "below 1"),
        (Adam, {"eps": float("nan")}, "eps must be"),
        (Adam, {"foreach": True, "fused": True}, "pass one of the two"),
        (RMSprop, {"capturable": True}, "capturable=True is torch's alone"),
        (Adafactor, {"d": 0.5}, "d must be at least 1"),
        (Adafactor, {"beta2_decay": 0.5}, "at most 0"),
        (LBFGS, {"line_search_fn": "armijo"}, "strong_wolfe"),
        (Muon, {"adjust_lr_fn": "none"}, "match_rms_adamw"),
        (Muon, {"ns_steps": 100}, "0 to 99"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_in_a_line(make: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        make([nn.Parameter(torch.ones(2, 2))], **options)


def test_lbfgs_asks_for_a_closure_and_one_group() -> None:
    with pytest.raises(ZooError, match="closure"):
        LBFGS([nn.Parameter(torch.ones(2))]).step()
    with pytest.raises(ZooError, match="one group"):
        LBFGS([{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(2))]}])
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ZooError, match="sparse"):
        Adam(table.parameters()).step()


def test_the_optimizers_of_the_zoo_are_those_tested() -> None:
    builtin = {cls for cls in OPTIMIZERS.values() if getattr(cls, "built_in", None)}
    assert builtin == {SGD, Adam, AdamW, RMSprop, Adagrad, LBFGS, Adafactor}
    optimizer = Adam([nn.Parameter(torch.ones(2))])
    assert_same_state(copy.deepcopy(optimizer).state_dict(), optimizer.state_dict())


def test_the_fused_form_begins_the_momentum_of_each_parameter_with_its_own_first_gradient() -> None:
    """One that gets its first gradient later than another, as a layer does that few rows go through."""

    def run(fused: bool) -> Tensor:
        parameters = [nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(2)]
        optimizer = SGD(parameters, lr=0.1, momentum=0.9, dampening=0.3, fused=fused)
        for step in range(4):
            parameters[0].grad = torch.full((2,), step + 1.0, dtype=torch.float64)
            parameters[1].grad = torch.full((2,), 0.5 - step, dtype=torch.float64) if step >= 2 else None
            optimizer.step()
        return torch.cat([parameter.detach() for parameter in parameters])

    assert torch.allclose(run(True), run(False), rtol=1e-12, atol=0)


@pytest.mark.parametrize("ours", [SGD, Adam, Adagrad, Adafactor])
def test_what_changes_between_steps_is_seen(ours: Any) -> None:
    """A step gathers as that before only while all that it gathered is the same."""

    def trained(cls: Any) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(4)]
        optimizer = cls([{"params": params[:3]}, {"params": params[3:], "lr": 0.02}], lr=0.01)

        def step(absent: int = -1) -> None:
            for i, parameter in enumerate(params):
                gradient = torch.randn(4, 3, generator=generator)
                parameter.grad = None if i == absent else gradient.to(parameter.dtype)
            optimizer.step()

        for absent in (-1, -1, 1, 1, -1, 0):
            step(absent)
        params.append(nn.Parameter(torch.randn(4, 3, generator=generator)))
        optimizer.add_param_group({"params": params[4:]})
        step()
        if "momentum" in optimizer.defaults:
            for group in optimizer.param_groups:
                group["momentum"] = 0.9
            step()
        saved = copy.deepcopy(optimizer.state_dict())
        step()
        optimizer.load_state_dict(saved)
        step()
        optimizer.state[params[0]] = copy.deepcopy(optimizer.state[params[2]])
        step()
        params[1].data = params[1].data.double()
        optimizer.state[params[1]] = {}
        step()
        step()
        optimizer.param_groups[0]["params"][0] = params[0] = nn.Parameter(torch.ones(4, 3))
        step()
        optimizer.state.clear()
        step()
        return params

    for one, other in zip(trained(ours), trained(ours.built_in), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (SGD, {}),
        (SGD, {"momentum": 0.9}),
        (Adam, {"amsgrad": True}),
        (AdamW, {}),
        (Adagrad, {}),
        (RMSprop, {"momentum": 0.9}),
    ],
)
def test_fused_steps_of_views_leave_what_lies_between(cls: Any, options: dict[str, Any]) -> None:
    """Torch's fused forms take each tensor for a block of memory: ours look, in each step anew."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    before, view, alone = whole.clone(), nn.Parameter(whole[:, ::2]), nn.Parameter(whole[:, ::2].clone())
    ours, theirs = cls([view], lr=0.1, fused=True, **options), cls.built_in([alone], lr=0.1, **options)
    for number in range(5):
        if number == 3:
            view.data = view.data.T.contiguous().T  # what is kept of it lies otherwise
        view.grad = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        alone.grad = view.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(view, alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(whole[:, 1::2], before[:, 1::2])


def test_fused_steps_may_be_compiled() -> None:
    ends = []
    for compiled in (False, True):
        parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizers = [cls([parameter], lr=0.1, fused=True) for cls in (SGD, Adam, Adagrad)]

        def step(optimizers: list[Any] = optimizers) -> None:
            for optimizer in optimizers:
                optimizer.step()

        parameter.grad = torch.tensor([3.0, 4.0])
        step()
        for _ in range(2):
            (torch.compile(step, backend="aot_eager") if compiled else step)()
        ends.append(parameter.detach())
    torch.testing.assert_close(*ends)
