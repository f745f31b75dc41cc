"""RNN, LSTM and GRU against torch.nn: results, gradients, parameters, errors, all combinations of options."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import zoo.layers

KINDS = ("RNN", "LSTM", "GRU")


def relative_error(ours: Tensor, oracle: Tensor) -> float:
    """‖ours - oracle‖ / ‖oracle‖, and 0 for two zeros."""
    assert ours.shape == oracle.shape
    assert ours.dtype == oracle.dtype
    difference = (ours - oracle).norm().item()
    return difference / max(oracle.norm().item(), 1e-300) if difference else 0.0


def both(kind: str, *args: object, seed: int = 0, **kwargs: object) -> tuple[nn.Module, nn.Module]:
    """Our layer and torch's, each drawn from the same seed."""
    modules = []
    for home in (zoo.layers, nn):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            modules.append(getattr(home, kind)(*args, **kwargs))
    return modules[0], modules[1]


def flat(result: tuple) -> list[Tensor]:
    """Output and states in a row."""
    output, states = result
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(states if isinstance(states, tuple) else (states,))]


def gradients(results: list[Tensor], inputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Gradients of a random linear function of all results."""
    generator = torch.Generator().manual_seed(seed)
    loss = sum((r * torch.randn(r.shape, generator=generator, dtype=r.dtype).to(r.device)).sum() for r in results)
    return list(torch.autograd.grad(loss, inputs, retain_graph=True))


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """Options of a layer and the shape of what goes in."""
    kind = draw(st.sampled_from(KINDS))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.5])),
    }
    hidden = draw(st.integers(1, 6))
    if kind == "LSTM" and hidden > 1:
        options["proj_size"] = draw(st.integers(0, hidden - 1))
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    shape = draw(st.sampled_from(["dense", "unbatched", "packed", "packed sorted"]))
    rows = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 6), min_size=rows, max_size=rows))
    return {
        "kind": kind,
        "options": options,
        "sizes": (draw(st.integers(1, 5)), hidden),
        "shape": shape,
        "lengths": sorted(lengths, reverse=True) if shape == "packed sorted" else lengths,
        "initial": draw(st.booleans()),
        "training": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
    }


def inputs_of(case: dict, device: torch.device) -> tuple[Tensor, Tensor | PackedSequence, object, list[Tensor]]:
    """A leaf tensor, what the layer is fed, its initial states, and the leaves among them."""
    torch.manual_seed(case["seed"])
    options, (features, hidden), lengths = case["options"], case["sizes"], case["lengths"]
    rows, steps = len(lengths), max(lengths)
    batch_first = options["batch_first"]
    shape = (rows, steps, features) if batch_first else (steps, rows, features)
    shape = (steps, features) if case["shape"] == "unbatched" else shape
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    fed = x
    if case["shape"].startswith("packed"):
        fed = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted="sorted" in case["shape"])
    if not case["initial"]:
        return x, fed, None, []
    layers = options["num_layers"] * (2 if options["bidirectional"] else 1)
    head = (layers,) if case["shape"] == "unbatched" else (layers, rows)
    outputs = options.get("proj_size") or hidden
    states = [torch.randn(*head, n, dtype=torch.float64, device=device) for n in (outputs, hidden)]
    leaves = [s.requires_grad_() for s in (states if case["kind"] == "LSTM" else states[:1])]
    return x, fed, tuple(leaves) if case["kind"] == "LSTM" else leaves[0], leaves


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_results_and_gradients_equal_torchs(device: torch.device, case: dict) -> None:
    ours, theirs = both(case["kind"], *case["sizes"], dtype=torch.float64, device=device, **case["options"])
    x, fed, initial, leaves = inputs_of(case, device)
    results = []
    for module in (ours, theirs):
        module.train(case["training"])
        torch.manual_seed(case["seed"] + 1)  # dropout between layers draws the same masks
        values = flat(module(fed, initial))
        results.append([*values, *gradients(values, [x, *leaves, *module.parameters()])])
        with torch.no_grad():
            torch.manual_seed(case["seed"] + 1)
            results[-1] += flat(module(fed, initial))
    for mine, oracle in zip(*results, strict=True):
        assert relative_error(mine, oracle) <= 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_readable_and_fast_way_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula itself against torch, since the fast way hides it in the other tests."""
    ours, theirs = both(kind, 3, 4, 2, bidirectional=True, dtype=torch.float64)
    monkeypatch.setattr(zoo.layers.recurrent.base, "_usable", lambda *_: False)
    x = torch.randn(5, 3, 3, dtype=torch.float64, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor([2, 5, 3]), enforce_sorted=False)
    for fed in (x, packed):
        values = [flat(module(fed)) for module in (ours, theirs)]
        grads = [gradients(v, [x, *m.parameters()]) for v, m in zip(values, (ours, theirs), strict=True)]
        for mine, oracle in zip(values[0] + grads[0], values[1] + grads[1], strict=True):
            assert relative_error(mine, oracle) <= 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(32, 4, 8, 16), (17, 3, 5, 19), (6, 1, 3, 40), (5, 70, 3, 33)])
def test_single_precision(kind: str, sizes: tuple[int, int, int, int], device: torch.device) -> None:
    """float32, which has kernels of its own, at sizes that are no multiples of a vector."""
    steps, rows, features, hidden = sizes
    ours, theirs = both(kind, features, hidden, bidirectional=True, device=device)
    x = torch.randn(steps, rows, features, device=device, requires_grad=True)
    values = [flat(module(x)) for module in (ours, theirs)]
    grads = [gradients(v, [x, *m.parameters()]) for v, m in zip(values, (ours, theirs), strict=True)]
    with torch.no_grad():
        inferred = [flat(module(x)) for module in (ours, theirs)]
    pairs = zip(values[0] + grads[0] + inferred[0], values[1] + grads[1] + inferred[1], strict=True)
    assert max(relative_error(mine, oracle) for mine, oracle in pairs) <= 1e-5


def views(features: int) -> dict[str, Tensor]:
    """Inputs as they come from other layers: views whose rows do not lie side by side."""
    return {
        "columns of a table": torch.randn(6, 4, 2 * features)[..., :features],
        "the output of a convolution": nn.Conv1d(2, features, 3)(torch.randn(1, 2, 9)).detach().transpose(1, 2),
        "unbatched features.T": torch.randn(features, 6).T,
        "one sequence for all rows": torch.randn(6, 1, features).expand(6, 4, features),
        "every other step": torch.randn(12, 4, features)[::2],
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", views(1))
def test_views_are_read_as_they_are(kind: str, name: str, device: torch.device) -> None:
    ours, theirs = both(kind, 5, 7, bidirectional=True, device=device)
    x = views(5)[name].to(device)
    assert not x.is_contiguous()
    for mine, oracle in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        assert relative_error(mine, oracle) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_may_be_a_column(kind: str) -> None:
    ours, theirs = both(kind, 5, 7)
    ours.bias_ih_l0.data = ours.bias_ih_l0.data.unsqueeze(1).repeat(1, 3)[:, 0]
    assert not ours.bias_ih_l0.is_contiguous()
    x = torch.randn(6, 4, 5)
    for mine, oracle in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        assert relative_error(mine, oracle) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_same_parameters_from_a_seed(kind: str) -> None:
    extra = {"proj_size": 2} if kind == "LSTM" else {}
    for module, peer in (both(kind, 3, 5, 2, bidirectional=True, **extra), both(f"{kind}Cell", 3, 5)):
        ours, theirs = module.state_dict(), peer.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        peer.load_state_dict(ours)
        assert repr(module) == repr(peer)
    layer, peer = both(kind, 3, 5, 2, bidirectional=True, **extra)
    assert [[w.shape for w in ws] for ws in layer.all_weights] == [[w.shape for w in ws] for ws in peer.all_weights]
    layer.flatten_parameters()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_cells(kind: str, batched: bool, options: dict, device: torch.device) -> None:
    ours, theirs = both(f"{kind}Cell", 3, 5, dtype=torch.float64, device=device, **options)
    rows = (4,) if batched else ()
    x = torch.randn(*rows, 3, dtype=torch.float64, device=device, requires_grad=True)
    h = torch.randn(*rows, 5, dtype=torch.float64, device=device, requires_grad=True)
    hx = (h, torch.randn_like(h)) if kind == "LSTM" else h
    for state in (None, hx):
        rows_of = []
        for module in (ours, theirs):
            new = module(x, state)
            new = list(new) if kind == "LSTM" else [new]
            leaves = [x, *module.parameters()] + ([] if state is None else [h])
            rows_of.append(new + gradients(new, leaves))
        assert max(relative_error(a, b) for a, b in zip(*rows_of, strict=True)) <= 1e-10


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_cell_nonlinearity(nonlinearity: str) -> None:
    ours, theirs = both("RNNCell", 3, 5, nonlinearity=nonlinearity, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    assert relative_error(ours(x), theirs(x)) <= 1e-10
    assert repr(ours) == repr(theirs)


BAD_OPTIONS = [
    {"hidden_size": 0}, {"hidden_size": 2.5}, {"input_size": 0}, {"input_size": 2.5}, {"num_layers": 0},
    {"dropout": 2}, {"dropout": -0.1}, {"dropout": True}, {"bias": 1}, {"batch_first": 1}, {"proj_size": 9},
    {"proj_size": -1},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_refuses_what_torch_refuses(kind: str, options: dict) -> None:
    arguments = {"input_size": 3, "hidden_size": 4} | options
    errors = []
    for home in (zoo.layers, nn):
        with pytest.raises((TypeError, ValueError)) as raised:
            getattr(home, kind)(**arguments)
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_refuses_an_unknown_nonlinearity_and_warns_of_idle_dropout() -> None:
    for home in (zoo.layers, nn):
        with pytest.raises(ValueError, match="Unknown nonlinearity 'gelu'"):
            home.RNN(3, 4, nonlinearity="gelu")
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
            home.GRU(3, 4, dropout=0.5)


def bad_inputs(kind: str) -> list[tuple]:
    """Inputs and states that do not fit a layer of 3 inputs and 4 hidden units."""
    x, zeros = torch.zeros(5, 2, 3), torch.zeros
    wrap = (lambda h: (h, h)) if kind == "LSTM" else (lambda h: h)
    bad = [(zeros(5, 2, 4),), (zeros(5, 2, 3, dtype=torch.float64),), (zeros(5, 2, 3, 1),), (zeros(3),)]
    bad += [(zeros(0, 2, 3),), (zeros(0, 3),), (x, wrap(zeros(1, 3, 4))), (x, wrap(zeros(1, 2, 5)))]
    bad += [(x, wrap(zeros(2, 2, 4))), (x, wrap(zeros(2, 4))), (x[:, 0], wrap(zeros(1, 2, 4)))]
    if kind == "LSTM":
        bad.append((x, (zeros(1, 2, 4), zeros(1, 2, 5))))
    packed = pack_padded_sequence(x, torch.tensor([5, 2]))
    return [*bad, (packed, wrap(zeros(1, 3, 4)))]


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_the_shapes_that_torch_refuses(kind: str) -> None:
    for arguments in bad_inputs(kind):
        errors = []
        for module in both(kind, 3, 4):
            with pytest.raises((RuntimeError, ValueError)) as raised:
                module(*arguments)
            errors.append((raised.type, str(raised.value)))
        assert errors[0][0] is errors[1][0]
        if isinstance(arguments[0], Tensor):  # torch's LSTM checks a packed batch late, in other words
            assert errors[0] == errors[1]


@pytest.mark.parametrize("kind", [f"{kind}Cell" for kind in KINDS])
def test_cells_refuse_what_torch_refuses(kind: str) -> None:
    wrap = (lambda h: (h, h)) if kind == "LSTMCell" else (lambda h: h)
    x, zeros = torch.zeros(2, 3), torch.zeros
    for arguments in [(zeros(2, 4),), (zeros(2, 3, 1),), (x, wrap(zeros(3, 4))), (x, wrap(zeros(2, 5)))]:
        errors = []
        for module in both(kind, 3, 4):
            with pytest.raises((RuntimeError, ValueError)) as raised:
                module(*arguments)
            errors.append((raised.type, str(raised.value)))
        assert errors[0] == errors[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_rows(kind: str) -> None:
    ours, theirs = both(kind, 3, 4, 2, bidirectional=True)
    x = torch.zeros(5, 0, 3)
    assert [r.shape for r in flat(ours(x))] == [r.shape for r in flat(theirs(x))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    """Results as far as the type carries; torch itself rounds in another order."""
    x = torch.randn(6, 3, 4, device=device)
    ours, theirs = both(kind, 4, 5, device=device)
    exact = flat(theirs(x))
    for values in (flat(copy.deepcopy(ours).to(dtype)(x.to(dtype))),):
        assert all(v.dtype == dtype for v in values)
        assert max(relative_error(v.float(), e) for v, e in zip(values, exact, strict=True)) <= 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str, device: torch.device) -> None:
    ours, theirs = both(kind, 4, 5, device=device)
    x = torch.randn(6, 3, 4, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mine, oracle = flat(ours(x)), flat(theirs(x))
    for a, b in zip(mine, oracle, strict=True):
        assert a.dtype == b.dtype
        assert relative_error(a.float(), b.float()) <= 0.03  # bfloat16 has 8 bits
    sum(m.float().sum() for m in mine).backward()
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_survives_pickling_copying_and_conversion(kind: str) -> None:
    ours, _ = both(kind, 3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    expected = flat(ours(x))
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert all(torch.equal(a, b) for a, b in zip(flat(twin(x)), expected, strict=True))
    assert ours.double()(x.double())[0].dtype == torch.float64
