"""The steps of networks with a memory against plain loops over single numbers, whose gradients are complex steps.

The derivative of a loop in NumPy at x is Im f(x + i h) / h, exact to rounding for a tiny h: no difference is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo.kernels
from zoo.layers import memory as steps
from zoo.layers.memory import DNC, NTM
from zoo.layers.memory.heads import Heads, formula, move
from zoo.layers.memory.walk import stepwise, walk, walkable

EPSILON = 1e-6
B, H, N, W = 2, 3, 5, 4


# -- loops -----------------------------------------------------------------------------------------------------------


def softmax(values: Any) -> Any:
    powers = [np.exp(v - max(np.real(values))) for v in values]
    return np.array([p / sum(powers) for p in powers])


def similarity(memory: Any, keys: Any) -> Any:
    found = np.zeros((B, keys.shape[1], N), complex)
    for b, h, n in np.ndindex(*found.shape):
        dot = sum(keys[b, h, w] * memory[b, n, w] for w in range(W))
        sizes = [np.sqrt(sum(v * v for v in vector)) for vector in (keys[b, h], memory[b, n])]
        found[b, h, n] = dot / (sizes[0] * sizes[1] + EPSILON)
    return found


def content_weights(memory: Any, keys: Any, strength: Any) -> Any:
    alike = similarity(memory, keys)
    return np.array([[softmax(strength[b, h] * alike[b, h]) for h in range(alike.shape[1])] for b in range(B)])


def interpolate(content: Any, previous: Any, gate: Any) -> Any:
    return np.array([
        [gate[b, h] * content[b, h] + (1 - gate[b, h]) * previous[b, h] for h in range(H)] for b in range(B)
    ])  # fmt: skip


def shift(weights: Any, shifts: Any) -> Any:
    found = np.zeros(weights.shape, complex)
    count, slots = shifts.shape[-1], weights.shape[-1]
    for b, h, n in np.ndindex(*weights.shape):
        for j in range(count):
            found[b, h, (n + j - count // 2) % slots] += weights[b, h, n] * shifts[b, h, j]
    return found


def sharpen(weights: Any, sharpness: Any) -> Any:
    powers = np.array([[weights[b, h] ** sharpness[b, h] for h in range(H)] for b in range(B)])
    return powers / powers.sum(2, keepdims=True)


def write(memory: Any, weights: Any, erase: Any, add: Any) -> Any:
    found = np.array(memory, complex)
    for h, b, n, w in np.ndindex(H, B, N, W):
        found[b, n, w] *= 1 - weights[b, h, n] * erase[b, h, w]
    for h, b, n, w in np.ndindex(H, B, N, W):
        found[b, n, w] += weights[b, h, n] * add[b, h, w]
    return found


def use(usage: Any, written: Any, read: Any, free: Any) -> Any:
    found = usage + written - usage * written
    for b, h, n in np.ndindex(B, H, N):
        found[b, n] *= 1 - free[b, h] * read[b, h, n]
    return found


def allocation(usage: Any) -> Any:
    found, usage = np.zeros((B, N), complex), EPSILON + (1 - EPSILON) * usage
    for b in range(B):
        before = 1.0
        for n in sorted(range(N), key=lambda n: usage[b, n].real):
            found[b, n] = (1 - usage[b, n]) * before
            before = before * usage[b, n]
    return found


def precede(precedence: Any, written: Any) -> Any:
    return np.array([(1 - sum(written[b])) * precedence[b] + written[b] for b in range(B)])


def link(links: Any, precedence: Any, written: Any) -> Any:
    found = np.zeros((B, N, N), complex)
    for b, i, j in np.ndindex(B, N, N):
        if i != j:
            kept = 1 - written[b, i] - written[b, j]
            found[b, i, j] = kept * links[b, i, j] + written[b, i] * precedence[b, j]
    return found


LOOPS = {
    f.__name__: f for f in (similarity, content_weights, interpolate, sharpen, write, use, allocation, precede, link)
}


def distribution(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64).softmax(-1)


def arguments(name: str) -> list[Tensor]:
    """Arguments in float64."""
    normal = functools.partial(torch.randn, dtype=torch.float64)
    share = functools.partial(torch.rand, dtype=torch.float64)
    weights, rows = distribution(B, H, N), distribution(B, N)
    return {
        "similarity": [normal(B, N, W), normal(B, H, W)],
        "content_weights": [normal(B, N, W), normal(B, H, W), 5 * share(B, H)],
        "interpolate": [weights, distribution(B, H, N), share(B, H)],
        "sharpen": [weights, 1 + 9 * share(B, H)],
        "write": [normal(B, N, W), weights, share(B, H, W), normal(B, H, W)],
        "use": [share(B, N), rows, weights, share(B, H)],
        "allocation": [share(B, N)],
        "precede": [rows, share(1) * distribution(B, N)],
        "link": [share(B, N, N) / N, rows, share(1) * distribution(B, N)],
    }[name]


def hold_against(function: Callable[..., Tensor], loop: Callable[..., Any], inputs: list[Tensor]) -> None:
    """Compare the values, and the gradient of a random sum of them, entry by entry."""
    inputs = [value.clone().requires_grad_() for value in inputs]
    values = [value.detach().numpy() for value in inputs]
    found, expected = function(*inputs), loop(*(value.astype(complex) for value in values)).real
    assert np.abs(found.detach().numpy() - expected).max() <= 1e-10
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, direction)
    for number, gradient in enumerate(gradients):
        for place in np.ndindex(*gradient.shape):
            moved = [value.astype(complex) for value in values]
            moved[number][place] += 1e-30j
            exact = (loop(*moved).imag * direction.numpy()).sum() / 1e-30
            assert abs(float(gradient[place]) - exact) <= 1e-10 * max(1.0, abs(exact)), (number, place)


@pytest.mark.parametrize("name", LOOPS)
def test_a_step_is_its_loop_and_so_is_its_gradient(name: str) -> None:
    torch.manual_seed(0)
    hold_against(getattr(steps, name), LOOPS[name], arguments(name))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 11, 13])
def test_shifts_of_any_range(count: int) -> None:
    """Up to N = 5 by a sum; from there on, round the ring more than once, by a transform."""
    torch.manual_seed(count)
    hold_against(steps.shift, shift, [distribution(B, H, N), distribution(B, H, count)])


@pytest.mark.parametrize("count", [9, 11, 127, 129])
def test_both_ways_of_a_shift_are_one(count: int) -> None:
    torch.manual_seed(0)
    weights, shifts = distribution(2, 3, 128), distribution(2, 3, count)
    expected = sum(shifts[..., j : j + 1] * weights.roll(j - count // 2, -1) for j in range(count))
    torch.testing.assert_close(steps.shift(weights, shifts), expected, rtol=0, atol=1e-14)
    narrow = steps.shift(weights.float().mT.contiguous().mT, shifts.float())
    torch.testing.assert_close(narrow.double(), expected, rtol=0, atol=1e-6)


# -- no NaN at any gate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("machine", ["ntm", "dnc"])
def test_no_gate_gives_nan(machine: str, scale: float, dtype: torch.dtype) -> None:
    """Whatever the controller says, values and gradients of some steps are finite."""
    torch.manual_seed(0)
    kind: Any = {"ntm": NTM, "dnc": DNC}[machine]
    net = kind(3, 6, num_slots=5, slot_size=4, num_read_heads=2).to(dtype)
    with torch.no_grad():
        net.interface.weight.mul_(scale)
        net.interface.bias.mul_(scale)
    x = (torch.randn(4, 7, 3, dtype=dtype) * min(scale, 1e4)).requires_grad_()
    output, state = net(x)
    output.square().sum().backward()
    values = [output, state.memory, state.weights, x.grad, *(p.grad for p in net.parameters())]
    assert all(bool(value.isfinite().all()) for value in values)
    assert float(state.weights.detach().sum(-1).max()) <= 1 + 1e-5


def test_sharpening_does_not_underflow() -> None:
    weights = torch.tensor([[[1e-30, 2e-30, 1.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]], requires_grad=True)
    found = steps.sharpen(weights, torch.tensor([[50.0, 1e6, 1.0]]))
    expected = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    torch.testing.assert_close(found, expected)
    found[..., 0].sum().backward()
    assert bool(weights.grad.isfinite().all())  # type: ignore[union-attr]


def test_an_empty_slot_is_like_nothing() -> None:
    memory = torch.zeros(1, 2, 3, requires_grad=True)
    found = steps.similarity(memory, torch.ones(1, 1, 3))
    found.sum().backward()
    assert found.tolist() == [[[0.0, 0.0]]]
    assert bool(memory.grad.isfinite().all())  # type: ignore[union-attr]


# -- machines --------------------------------------------------------------------------------------------------------

MACHINES = [
    functools.partial(NTM, num_read_heads=2, num_write_heads=2, shift_range=2, controller="lstm"),
    functools.partial(NTM, controller="feedforward", initial_memory="learned"),
    functools.partial(DNC, num_read_heads=2),
    functools.partial(DNC, controller="feedforward"),
]


@pytest.mark.parametrize("make", MACHINES)
def test_gradients_of_whole_steps(make: Any) -> None:
    """Two steps, since the first begins with an empty memory: input and all parameters by finite differences."""
    torch.manual_seed(0)
    net = make(2, 3, num_slots=4, slot_size=2).double()
    names, values = zip(*net.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,))[0]

    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize("make", MACHINES)
def test_a_sequence_goes_on_from_a_state_and_begins_anew_without_one(make: Any) -> None:
    torch.manual_seed(0)
    net = make(3, 6, num_slots=5, slot_size=4).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    whole, last = net(x)
    first, state = net(x[:, :4])
    second, end = net(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end.memory, last.memory)
    assert torch.equal(net(x)[0], whole)  # nothing is left of the sequence before
    alone = torch.cat([net(row[None])[0] for row in x])
    torch.testing.assert_close(alone, whole)
    assert net(x[:, :0])[0].shape == (2, 0, net.output_size)


@pytest.mark.parametrize("initial", ["constant", "learned", "random"])
def test_initial_memory(initial: str) -> None:
    net = NTM(2, 4, num_slots=3, slot_size=2, initial_memory=initial)
    memory = net.begin(2).memory
    assert torch.equal(memory[0], memory[1])
    assert (len(memory[0].unique()) == 1) == (initial == "constant")
    assert ("initial" in dict(net.named_parameters())) == (initial == "learned")
    assert "initial" in net.state_dict()


def test_a_step_is_the_steps_of_its_heads() -> None:
    """A machine whose interface says one thing at every step: where its heads go is worked out by loops."""
    torch.manual_seed(0)
    net = NTM(1, 2, N, W, num_read_heads=1, num_write_heads=2, initial_memory="random").double()
    torch.nn.init.zeros_(net.interface.weight)
    state = net.begin(B)
    keys, positive, gates, add, shifts = net.interface.bias.detach().expand(B, -1).split(net.heads.sizes, 1)
    memory, weights = state.memory.detach().numpy(), state.weights.detach().numpy()
    strength, sharpness = torch.nn.functional.softplus(positive).numpy().reshape(B, 2, H).swapaxes(0, 1)
    gates = gates.sigmoid().numpy()
    for _ in range(3):
        state = net.step(torch.zeros(B, 8, dtype=torch.float64), state)
        content = content_weights(memory, keys.numpy().reshape(B, H, W), strength)
        moved = shift(interpolate(content, weights, gates[:, :H]), shifts.view(B, H, 3).softmax(-1).numpy())
        weights = sharpen(moved, 1 + sharpness)
        places = np.concatenate([weights[:, 1:], np.zeros((B, 1, N))], axis=1)  # the third writes nothing
        erase, added = gates[:, H:].reshape(B, 2, W), add.tanh().numpy().reshape(B, 2, W)
        padded = [np.concatenate([part, np.zeros((B, 1, W))], axis=1) for part in (erase, added)]
        memory = write(memory, places, *padded)
        assert np.abs(state.weights.detach().numpy() - weights).max() <= 1e-10
        assert np.abs(state.memory.detach().numpy() - memory).max() <= 1e-10
        reads = (weights[:, :1] @ memory).reshape(B, W)
        assert np.abs(state.reads.detach().numpy() - reads).max() <= 1e-10


@pytest.mark.parametrize(
    ("options", "message"),
    [({"controller": "gru"}, "controller must be"), ({"num_slots": 0}, "num_slots must be at least 1"),
     ({"initial_memory": "none"}, "initial_memory must be"), ({"shift_range": -1}, "shift_range at least 0")],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NTM(2, **options)


# -- the way back by hand --------------------------------------------------------------------------------------------


def step_inputs(heads: Heads, dtype: torch.dtype, empty: bool) -> list[Tensor]:
    """Memory, weights and what the heads are told; with an empty slot, a key of zeros and a weight of exactly 0."""
    memory, weights = torch.randn(2, 7, heads.slot_size).to(dtype), torch.rand(2, heads.total, 7).softmax(-1).to(dtype)
    told = torch.randn(2, sum(heads.sizes)).to(dtype)
    if empty:
        memory[0, 2], told[1, : heads.slot_size] = 0.0, 0.0
        weights[0, 0] = torch.eye(7)[3]
        told[0, sum(heads.sizes[:2])] = -200.0  # a gate that is shut
    return [x.requires_grad_() for x in (memory, weights, told)]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads", [Heads(1, 1, 4, 3), Heads(2, 3, 5, 1), Heads(3, 1, 2, 5), Heads(1, 2, 3, 9)])
def test_the_way_back_by_hand_is_that_of_the_formula(heads: Heads, dtype: torch.dtype, empty: bool) -> None:
    torch.manual_seed(0)
    inputs = step_inputs(heads, dtype, empty)
    ours, theirs = move(*inputs, heads), formula(*inputs, heads)
    directions = [torch.randn_like(value) for value in theirs]
    bound = 1e-12 if dtype == torch.float64 else 3e-5
    gradients = [torch.autograd.grad(values, inputs, directions) for values in (ours, theirs)]
    for found, expected in (*zip(ours, theirs, strict=True), *zip(*gradients, strict=True)):
        assert bool(found.isfinite().all())
        torch.testing.assert_close(found, expected, rtol=bound, atol=bound * float(expected.detach().abs().max()))


def test_second_derivatives_and_transforms_go_through_the_formula() -> None:
    torch.manual_seed(0)
    heads = Heads(1, 1, 2, 3)
    inputs = step_inputs(heads, torch.float64, False)
    assert torch.autograd.gradgradcheck(lambda *x: move(*x, heads), inputs, fast_mode=True)
    jacobian = torch.func.jacrev(lambda told: move(inputs[0], inputs[1], told, heads)[2])(inputs[2])
    direction = torch.randn(2, 2, dtype=torch.float64)
    (expected,) = torch.autograd.grad(move(*inputs, heads)[2], inputs[2], direction)
    torch.testing.assert_close(torch.einsum("ij,ijkl->kl", direction, jacobian), expected)


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("cls", [NTM, DNC])
def test_no_row_and_mixed_precision(cls: Any, controller: str) -> None:
    """No row gives no row; under autocast the places are found in float32, to the same bits."""
    torch.manual_seed(0)
    machine, x = cls(3, 8, num_slots=6, slot_size=4, controller=controller), torch.randn(4, 5, 3)
    nothing = machine(x[:0])[0]
    nothing.sum().backward()
    assert nothing.shape == (0, 5, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = machine(x)[0]
    mixed.sum().backward()
    assert torch.equal(mixed, machine(x)[0])
    assert all(torch.isfinite(parameter.grad).all() for parameter in machine.parameters())


@pytest.mark.parametrize("controller", ["feedforward", "lstm"])
def test_heads_begin_as_the_biases_of_gates_and_strengths_say(controller: str) -> None:
    """And only these are told so, of however many heads."""
    sizes = {"num_slots": 7, "slot_size": 5, "num_read_heads": 2, "num_write_heads": 3}
    net = NTM(3, 16, controller=controller, gate_bias=-3.0, strength_bias=4.0, shift_bias=6.0, **sizes)  # type: ignore[arg-type]
    keys, positive, gates, add, shifts = net.interface.bias.detach().split(net.heads.sizes)
    bound = 1 / 16**0.5
    assert ((gates[:5] + 3).abs() <= bound).all()
    assert ((positive[:5] - 4).abs() <= bound).all()
    assert ((shifts.view(5, 3)[:, 2] - 6).abs() <= bound).all()  # the last is the one to the next slot
    for others in (keys, positive[5:], gates[5:], add, shifts.view(5, 3)[:, :2]):
        assert (others.abs() <= bound).all()


def test_tied_keys_are_what_the_first_write_head_adds() -> None:
    sizes = {"num_slots": 7, "slot_size": 5, "num_read_heads": 2, "num_write_heads": 3}
    torch.manual_seed(0)
    tied, parts = NTM(3, 16, tied_keys=True, **sizes).interface, {}  # type: ignore[arg-type]
    torch.manual_seed(0)
    free = NTM(3, 16, **sizes)  # type: ignore[arg-type]
    for name, parameter in tied.named_parameters():
        keys, *others = parameter.detach().split(free.heads.sizes)
        parts[name] = others
        assert torch.equal(keys.view(5, 5, -1), others[2][:5].view(1, 5, -1).expand(5, 5, -1))
    for name, parameter in free.interface.named_parameters():
        assert all(map(torch.equal, parts[name], parameter.detach().split(free.heads.sizes)[1:]))


def test_units_of_an_lstm_begin_with_spans_even_in_their_logarithm() -> None:
    torch.manual_seed(0)
    sizes = {"num_slots": 7, "slot_size": 5}
    spread = NTM(3, 9, span=40.0, **sizes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    plain = NTM(3, 9, **sizes)  # type: ignore[arg-type]
    lets_in, lets_out, forgets, _ = spread.bias.detach().view(4, 9).sigmoid()
    steps = 1 / (1 - forgets)  # 1 + f + f² + …: for so many a unit keeps what it holds
    assert torch.allclose(steps[[0, 4, 8]], torch.tensor([1.025, 2.0, 41.0]), rtol=1e-4)
    assert torch.allclose((steps - 1).log().diff(), (steps - 1).log().diff()[0], rtol=1e-3)
    assert torch.allclose(lets_in, 1 - forgets, atol=1e-6)
    assert (lets_out > 0.84).all()
    assert torch.equal(spread.bias[27:], plain.bias[27:])
    assert torch.equal(spread.interface.weight, plain.interface.weight)


@pytest.mark.parametrize(("span", "controller"), [(40.0, "feedforward"), (0.5, "lstm"), (-1.0, "lstm")])
def test_a_span_of_nothing_is_refused(span: float, controller: str) -> None:
    with pytest.raises(ValueError, match="span must be 0, or at least 1"):
        NTM(3, 8, span=span, controller=controller)


# -- all steps as one function ---------------------------------------------------------------------------------------


def walk_inputs(lstm: bool, heads: Heads, steps: int = 6) -> list[Tensor]:
    """As `walk` takes them, of 3 rows, 7 slots and 5 units; the memory is one for all rows."""
    size, reads = 5, heads.reading * heads.slot_size
    shapes = [
        (3, steps, 4 * size if lstm else size), (4 * size, reads + size) if lstm else (size, reads),
        (sum(heads.sizes), size), (sum(heads.sizes),), (1, 7, heads.slot_size), (3, heads.total, 7),
        (3, size + reads), (3, size if lstm else 0),
    ]  # fmt: skip
    inputs = [torch.randn(shape) for shape in shapes]
    inputs[0], inputs[4] = inputs[0].mT.contiguous().mT, inputs[4].expand(3, -1, -1)
    inputs[5] = inputs[5].mul(3).softmax(-1)
    return [x.requires_grad_() for x in inputs]


def by(function: Callable[..., Any], inputs: list[Tensor], heads: Heads) -> Any:
    return function(inputs[0], tuple(inputs[1:4]), *inputs[4:], heads)


@pytest.mark.parametrize("lstm", [False, True])
@pytest.mark.parametrize("heads", [Heads(1, 1, 4, 3), Heads(2, 3, 5, 1)])
def test_the_way_back_through_time_is_that_of_the_steps(heads: Heads, lstm: bool) -> None:
    """Of all outputs, the last state among them, by all inputs; in float64 by autograd."""
    torch.manual_seed(0)
    inputs = walk_inputs(lstm, heads)
    if not walkable(inputs[0], inputs[4]):
        pytest.skip(str(zoo.kernels.status()))
    exact = [x.detach().double().requires_grad_() for x in inputs]
    ours, theirs = by(walk, inputs, heads), by(stepwise, exact, heads)
    directions = [torch.randn(x.shape) for x in ours]
    found = torch.autograd.grad(ours, inputs, directions)
    expected = torch.autograd.grad(theirs, exact, [d.double() for d in directions])
    for one, other in (*zip(ours, theirs, strict=True), *zip(found, expected, strict=True)):
        bound = 2e-5 * float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=bound)


@pytest.mark.parametrize("lstm", [False, True])
def test_second_derivatives_through_time_go_through_the_steps(lstm: bool) -> None:
    torch.manual_seed(0)
    heads = Heads(1, 1, 3, 3)
    inputs, found = walk_inputs(lstm, heads, steps=3), []
    directions = [torch.randn(x.shape) for x in by(stepwise, inputs, heads)]
    for function in (walk, stepwise):
        gradients = torch.autograd.grad(by(function, inputs, heads), inputs, directions, create_graph=True)
        total = torch.stack([g.square().sum() for g in gradients]).sum()
        found.append(torch.autograd.grad(total, inputs, materialize_grads=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()) if other.numel() else 0)


def test_a_machine_takes_all_steps_at_once_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels it gives what it gives without them, state and gradients too."""
    torch.manual_seed(0)
    net, x = NTM(3, 8, num_slots=6, slot_size=4, num_read_heads=2, initial_memory="learned"), torch.randn(4, 5, 3)
    found = []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setenv("ZOO_KERNELS", "0")
        output, state = net(x)
        total = output.square().sum() + state.memory.square().sum() + state.reads.sum() + state.weights.square().sum()
        found.append((output, *state[:3], *torch.autograd.grad(total, net.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
