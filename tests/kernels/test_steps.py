"""RMSprop's and Adafactor's steps, compiled, beside the same in torch operations and beside their formulas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.kernels import adafactor, rmsprop
from zoo.kernels.adafactor import adafactor_step
from zoo.kernels.rmsprop import rmsprop_step
from zoo.optimizers import Adafactor, Recipe, RMSprop

SHAPES = [
    (), (1,), (7,), (513,), (0,), (3, 0), (1, 1), (5, 1), (40, 2), (19, 3), (70, 4), (9, 5), (17, 6), (33, 7), (8, 8),
    (3, 17), (1, 600), (2, 1100), (6, 4, 3, 3), (2, 3, 30, 20), (300, 31),
]  # fmt: skip
RMSPROP: list[dict[str, Any]] = [
    {},
    {"alpha": 0.3, "centered": True, "weight_decay": 0.01},
    {"momentum": 0.9, "maximize": True, "eps": 1e-3},
    {"momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": True, "lr": torch.tensor(0.01)},
]
ADAFACTOR: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-5, 1e-2), "d": 1.5, "weight_decay": 0.1, "maximize": True},
]
CASES = [(RMSprop, options) for options in RMSPROP] + [(Adafactor, options) for options in ADAFACTOR]
DTYPES = [torch.float32, torch.float64]


def laid(tensor: Tensor, layout: int) -> Tensor:
    """The tensor as it is, with its axes the other way round in memory, or with gaps between its numbers."""
    if layout == 1:
        backwards = list(reversed(range(tensor.ndim)))
        return tensor.permute(backwards).contiguous().permute(backwards)
    return tensor.repeat_interleave(2, -1)[..., ::2] if layout == 2 and tensor.ndim else tensor


def train(make: Callable[..., Any], seed: int, dtype: torch.dtype, options: dict[str, Any]) -> tuple[list[Tensor], Any]:
    """Parameters of all shapes after some steps, and the optimizer; gradients come and go, and lie as they may."""
    generator = torch.Generator().manual_seed(seed)
    scale = [1.0, 1e-6, 1e6][seed % 3]

    def draw(shape: tuple[int, ...], place: int) -> Tensor:
        drawn = scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return laid(drawn, (seed + place) % 3)

    params = [nn.Parameter(draw(shape, place)) for place, shape in enumerate(SHAPES)]
    optimizer = make(params, **options)
    for step in range(6):
        for place, parameter in enumerate(params):
            gradient = draw(tuple(parameter.shape), place // 3)
            parameter.grad = None if (place + step) % 7 == 0 else gradient
        optimizer.step()
    return params, optimizer


def differ(one: Tensor, other: Tensor) -> float:
    """The greatest difference in units of the greatest number."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-300)) if one.numel() else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("case", range(len(CASES)))
def test_any_shape_layout_and_scale_beside_torch(kernels: str, case: int, seed: int, dtype: torch.dtype) -> None:
    cls, options = CASES[case]
    held, ours = train(cls, seed, dtype, {**options, "fused": True})
    expected, theirs = train(cls, seed, dtype, options)
    alone = options.get("centered") and kernels in ("baseline", "serial")  # without FMA, which torch has
    lost = 256 if alone else 1  # of the digits of v − ḡ², which may be few
    bound = 64 * lost * torch.finfo(dtype).eps
    for one, other in zip(held, expected, strict=True):
        assert one.stride() == other.stride()
        assert differ(one.detach(), other.detach()) <= bound
        mine, its = ours.state[one], theirs.state[other]
        assert mine.keys() == its.keys()
        for name in mine:
            if one.numel():
                assert mine[name].stride() == its[name].stride()
                assert differ(mine[name], its[name]) <= bound, name
        assert mine["step"] == its["step"]


@pytest.mark.parametrize("cls", [RMSprop, Adafactor])
def test_the_bits_depend_on_no_thread(compiled: str, cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are shared among threads whole, and such that are shared by their parts."""

    def end(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        params = [
            nn.Parameter(torch.randn(s, generator=generator)) for s in ((700, 301), (60_001, 3), (31,), (9, 40, 403))
        ]
        optimizer = cls(params, fused=True)
        for _ in range(2):
            for parameter in params:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        return [tensor for p in params for tensor in (p.detach(), *optimizer.state[p].values())]

    monkeypatch.setattr(rmsprop, "PARALLEL", 1000)
    monkeypatch.setattr(adafactor, "PARALLEL", 1000)
    before = torch.get_num_threads()
    try:
        ends = [end(threads) for threads in (1, 2, 3)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for others in ends[1:] for one, other in zip(ends[0], others, strict=True))


@pytest.mark.parametrize("cls", [RMSprop, Adafactor])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-42, 3e38])
def test_what_is_no_ordinary_number_goes_where_torch_has_it_go(compiled: str, cls: Any, value: float) -> None:
    ends = []
    for fused in (True, None):
        params = [nn.Parameter(torch.linspace(-1, 1, n * 5).reshape(shape)) for n, shape in ((3, (5, 3)), (1, (5,)))]
        optimizer = cls(params, fused=fused)
        for parameter in params:
            parameter.grad = torch.ones_like(parameter)
            parameter.grad.view(-1)[4] = value
        optimizer.step()
        ends.append(params)
    for one, other in zip(*ends, strict=True):
        if cls is RMSprop or abs(value) < 1e30 or one.ndim < 2 or value != value:
            torch.testing.assert_close(one, other, equal_nan=True, rtol=1e-5, atol=1e-6)
        elif value == float("inf"):
            assert torch.equal(one.isnan(), other.isnan())
        else:  # squares of it are no float32, but sums of the kernel are float64
            assert bool(one.isfinite().all() or not other.isfinite().all())


@pytest.mark.parametrize("cls", [RMSprop, Adafactor])
def test_autograd_knows_that_parameters_have_changed(compiled: str, cls: Any) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = cls([weight], fused=True)
    loss = weight.square().sum()
    weight.grad = torch.ones(3, 2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("cls", [RMSprop, Adafactor])
def test_other_tensors_take_the_torch_form(compiled: str, cls: Any) -> None:
    """Half precision, and a subclass of tensors, whose numbers may lie elsewhere."""

    class Share(Tensor):
        pass

    for make in (lambda: torch.ones(4, 3, dtype=torch.bfloat16), lambda: torch.ones(4, 3).as_subclass(Share)):
        ends = []
        for fused in (True, None):
            weight = make().requires_grad_()
            optimizer = cls([weight], fused=fused)
            weight.grad = torch.full_like(weight, 0.5)
            optimizer.step()
            ends.append(weight.detach())
        assert torch.equal(*ends)


@pytest.mark.parametrize("cls", [RMSprop, Adafactor])
def test_what_changes_between_steps_is_seen(compiled: str, cls: Any) -> None:
    """Memory that is another's, another type or place, a count that is set, options, and a state that was saved."""

    def trained(fused: bool | None) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(4)]
        optimizer = cls([{"params": params[:2]}, {"params": params[2:], "lr": 0.02}], lr=0.01, fused=fused)

        def step() -> None:
            optimizer.zero_grad()
            for parameter in params:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            optimizer.step()

        step()
        params[0].data = params[0].data.clone() * 2
        step()
        params[1].data = params[1].data.T.contiguous().T
        step()
        saved = copy.deepcopy(optimizer.state_dict())
        step()
        optimizer.load_state_dict(saved)
        step()
        for kept in optimizer.state[params[2]].values():
            kept.set_(kept.clone())
        optimizer.state[params[3]]["step"].fill_(7)
        optimizer.param_groups[0]["maximize"] = True
        step()
        params[3].data = params[3].data.double()
        optimizer.state[params[3]] = {}
        step()
        optimizer.state.clear()
        step()
        return params

    for one, other in zip(trained(True), trained(None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rmsprop", "adafactor"])
@pytest.mark.parametrize("there", [True, False], ids=["from torch", "to torch"])
def test_a_recipe_takes_the_fused_form_and_its_state_goes_on_with_torch(compiled: str, name: str, there: bool) -> None:
    ends = []
    for sources in (("torch", "zoo") if there else ("zoo", "torch"), ("torch", "torch")):
        torch.manual_seed(0)
        module, state = nn.Linear(5, 4, dtype=torch.float64), None
        for source in sources:
            optimizer = Recipe(name, {"lr": 0.01, "source": source}).build_optimizer(module)
            if state is not None:
                optimizer.load_state_dict(state)
            assert source == "torch" or optimizer.param_groups[0]["fused"]
            for _ in range(4):
                optimizer.zero_grad()
                module(torch.randn(6, 5, dtype=torch.float64)).square().sum().backward()
                optimizer.step()
            state = optimizer.state_dict()
        ends.append([parameter.detach() for parameter in module.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def of_rmsprop() -> tuple[Any, ...]:
    tensors = [[torch.ones(4, 3), torch.ones(5)] for _ in range(5)]
    steps = [torch.zeros(()) for _ in range(2)]
    return (*tensors, steps, 0.01, 0.9, 1e-8, 0.1, 0.5, False)


def of_adafactor() -> tuple[Any, ...]:
    of_rows, of_columns = [torch.ones(4, 1), torch.ones(2, 1)], [torch.ones(1, 3), torch.ones(1, 3)]
    tensors = [[torch.ones(4, 3), torch.ones(2, 3)] for _ in range(2)]
    steps = [torch.zeros(()) for _ in range(2)]
    return (*tensors, of_rows, of_columns, steps, 0.01, -0.8, 1e-7, 1e-3, 1.0, 0.1, False)


@pytest.mark.parametrize(("operator", "inputs"), [(rmsprop_step, of_rmsprop), (adafactor_step, of_adafactor)])
def test_what_does_not_fit_is_refused(compiled: str, operator: Any, inputs: Any) -> None:
    kinds = sum(isinstance(value, list) for value in inputs())
    for kind in range(kinds):
        for wrong in (torch.ones(7), torch.ones(4, 3).half()):
            given = inputs()
            given[kind][0] = wrong
            with pytest.raises(RuntimeError, match=operator.__name__):
                operator(*given)
        given = list(inputs())
        given[kind] = given[kind][:1]
        with pytest.raises(RuntimeError, match=operator.__name__):
            operator(*given)


@pytest.mark.parametrize(("name", "inputs"), [("rmsprop_step", of_rmsprop), ("adafactor_step", of_adafactor)])
def test_the_operator_is_traced(compiled: str, name: str, inputs: Any) -> None:
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.zoo, name).default, inputs(), test_utils=tests)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_steps import CASES, DTYPES, train
from zoo.kernels import adafactor, rmsprop
adafactor.PARALLEL = rmsprop.PARALLEL = 1000
for seed in range(12):
    torch.set_num_threads(1 + seed % 3)
    for cls, options in CASES:
        for dtype in DTYPES:
            train(cls, seed, dtype, {**options, "fused": True})
large = [torch.nn.Parameter(torch.randn(shape)) for shape in ((700, 301), (60_001, 3), (200_001,), (9, 40, 403))]
for parameter in large:
    parameter.grad = torch.randn_like(parameter)
for cls, options in CASES:
    cls(large, **options, fused=True).step()
"""
    sanitized(script)
