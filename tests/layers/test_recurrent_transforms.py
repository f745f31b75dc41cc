"""Recurrent layers under gradient checks, torch.compile, torch.export, torch.func and several processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import zoo.layers

KINDS = ("RNN", "LSTM", "GRU")
DOUBLE = torch.float64


def layer(kind: str, *sizes: int, seed: int = 0, **options: object) -> nn.Module:
    """One of our layers, drawn from a seed."""
    torch.manual_seed(seed)
    return getattr(zoo.layers, kind)(*sizes, dtype=DOUBLE, **options)


def functional(module: nn.Module, sizes: list[int] | None = None) -> Callable[..., tuple[Tensor, ...]]:
    """The layer as a function of input, states and parameters."""
    names = [name for name, _ in module.named_parameters()]

    def call(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states = rest[: module.states]
        parameters = dict(zip(names, rest[module.states :], strict=True))
        hx = states if module.states == 2 else states[0]
        fed = x if sizes is None else PackedSequence(x, torch.tensor(sizes))
        output, final = torch.func.functional_call(module, parameters, (fed, hx))
        return (output if sizes is None else output.data, *(final if isinstance(final, tuple) else (final,)))

    return call


def arguments(module: nn.Module, rows: int, *shape: int) -> list[Tensor]:
    """Input of a shape, initial states and parameters, all asking for gradients."""
    torch.manual_seed(1)
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: module.states]
    layers = module.num_layers * module.num_directions
    tensors = [torch.randn(*shape, module.input_size), *(torch.randn(layers, rows, n) for n in sizes)]
    tensors += [p.detach() for p in module.parameters()]
    return [t.to(DOUBLE).requires_grad_() for t in tensors]


OPTIONS = [
    ("RNN", {}), ("RNN", {"nonlinearity": "relu", "bias": False}), ("LSTM", {}), ("LSTM", {"proj_size": 1}),
    ("LSTM", {"peepholes": True, "layer_norm": True}), ("GRU", {}), ("GRU", {"bias": False, "layer_norm": True}),
    ("GRU", {"reset_after": False, "update_gate": "new"}),
]  # fmt: skip


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_and_their_gradients(kind: str, options: dict, packed: bool, fast: bool) -> None:
    """Of a drawn direction, in which every wrong entry shows; and entry by entry."""
    module = layer(kind, 2, 2, bidirectional=True, **options)
    call = functional(module, [2, 1] if packed else None)
    inputs = arguments(module, 2, *([3] if packed else [2, 2]))
    assert torch.autograd.gradcheck(call, inputs, fast_mode=fast)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=fast)


@pytest.mark.parametrize("kind", KINDS)
def test_hand_derived_gradients_equal_autograds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = layer(kind, 3, 5, num_layers=2, bidirectional=True)
    x = torch.randn(7, 4, 3, dtype=DOUBLE, requires_grad=True)
    leaves = [x, *module.parameters()]
    by_hand = torch.autograd.grad(module(x)[0].square().sum(), leaves)
    monkeypatch.setattr(zoo.layers.recurrent.base, "_usable", lambda *_: False)
    by_autograd = torch.autograd.grad(module(x)[0].square().sum(), leaves)
    for hand, auto in zip(by_hand, by_autograd, strict=True):
        assert (hand - auto).norm() <= 1e-12 * auto.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parts_get_no_gradient(kind: str) -> None:
    module = layer(kind, 3, 4)
    module.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    output, state = module(x)
    output.sum().backward()
    assert module.weight_hh_l0.grad is None
    assert module.weight_ih_l0.grad is not None
    assert (state[0] if isinstance(state, tuple) else state).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_final_state_alone(kind: str) -> None:
    """Nobody asks for the outputs, so that their gradient never arrives."""
    module, oracle = layer(kind, 3, 4), getattr(nn, kind)(3, 4, dtype=DOUBLE)
    oracle.load_state_dict(module.state_dict())
    x = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)
    found = []
    for m in (module, oracle):
        state = m(x)[1]
        found.append(torch.autograd.grad((state[-1] if kind == "LSTM" else state).sum(), x)[0])
    assert (found[0] - found[1]).norm() <= 1e-12 * found[1].norm()


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_may_be_changed_in_place(kind: str) -> None:
    module, oracle = layer(kind, 3, 4, num_layers=2), getattr(nn, kind)(3, 4, 2, dtype=DOUBLE)
    oracle.load_state_dict(module.state_dict())
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    for m in (module, oracle):
        output, state = m(x)
        output.mul_(2)[1:].tanh_()
        (state[1] if kind == "LSTM" else state).exp_()
        (output.sum() + (state[1] if kind == "LSTM" else state).sum()).backward()
    for p, q in zip(module.parameters(), oracle.parameters(), strict=True):
        assert (p.grad - q.grad).norm() <= 1e-12 * q.grad.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(kind: str, reentrant: bool) -> None:
    module = layer(kind, 3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)
    leaves = [x, *module.parameters()]
    plain = torch.autograd.grad(module(x)[0].square().sum(), leaves)
    torch.utils.checkpoint.checkpoint(lambda v: module(v)[0], x, use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(leaf.grad, expected) for leaf, expected in zip(leaves, plain, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_batched_gradients_and_vectorized_jacobians(kind: str, dtype: torch.dtype) -> None:
    module = layer(kind, 2, 3, bidirectional=True).to(dtype)
    x = torch.randn(4, 2, 2, dtype=dtype, requires_grad=True)
    output, _ = module(x)
    directions = torch.randn(5, *output.shape, dtype=dtype)
    leaves = [x, *module.parameters()]
    together = torch.autograd.grad(output, leaves, directions, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(output, leaves, d, retain_graph=True) for d in directions]
    for found, expected in zip(together, zip(*each, strict=True), strict=True):
        assert torch.allclose(found, torch.stack(expected), rtol=1e-5 if dtype == torch.float32 else 1e-12)
    jacobian = torch.autograd.functional.jacobian
    call = lambda v: module(v)[0]  # noqa: E731
    assert torch.allclose(jacobian(call, x, vectorize=True), jacobian(call, x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bidirectional": True}])
def test_the_meta_device_knows_the_shapes(kind: str, options: dict) -> None:
    module = layer(kind, 3, 4, num_layers=2, **options)
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    output, state = module(x)
    shapes, states = module.to("meta")(x.to("meta").requires_grad_())
    assert shapes.device.type == "meta"
    assert shapes.shape == output.shape
    assert [s.shape for s in states] == [s.shape for s in state]
    shapes.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_sequences_and_over_models(kind: str) -> None:
    module = layer(kind, 3, 4)
    xs = torch.randn(6, 5, 3, dtype=DOUBLE)  # six unbatched sequences
    mapped = torch.func.vmap(lambda x: module(x)[0])(xs)
    assert torch.allclose(mapped, torch.stack([module(x)[0] for x in xs]), rtol=1e-12)
    models = [layer(kind, 3, 4, seed=s) for s in range(3)]
    stacked, _ = torch.func.stack_module_state(models)
    together = torch.func.vmap(lambda p: torch.func.functional_call(module, p, (xs[0],))[0])(stacked)
    assert torch.allclose(together, torch.stack([m(xs[0])[0] for m in models]), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians(kind: str) -> None:
    """Both modes of torch.func give the Jacobian that repeated backward passes give."""
    module = layer(kind, 2, 3)
    x = torch.randn(4, 2, dtype=DOUBLE)
    expected = torch.autograd.functional.jacobian(lambda v: module(v)[0], x)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(lambda v: module(v)[0])(x), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_per_sample_gradients(kind: str) -> None:
    module = layer(kind, 3, 4)
    parameters = dict(module.named_parameters())
    xs = torch.randn(4, 5, 3, dtype=DOUBLE)

    def loss(p: dict, x: Tensor) -> Tensor:
        return torch.func.functional_call(module, p, (x,))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, xs)
    whole = torch.func.grad(lambda p: sum(loss(p, x) for x in xs))(parameters)
    assert all(torch.allclose(each[name].sum(0), whole[name], rtol=1e-10) for name in parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_compile_traces_whole(kind: str) -> None:
    """One graph, the same results and gradients; the backend is the one that needs no compiler."""
    module = layer(kind, 3, 4, num_layers=2, bidirectional=True)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)
    results = []
    for call in (module, compiled):
        output, _ = call(x)
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *module.parameters()])])
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_compile_sees_one_node_for_all_lengths(kind: str) -> None:
    """One operator for each layer and direction, and no graph for each length."""
    module = layer(kind, 3, 4, num_layers=2, bidirectional=True).float()
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    for steps in (4, 5, 6, 9, 30):
        x = torch.randn(steps, 2, 3)
        assert torch.equal(compiled(x)[0], module(x)[0])
    assert len(graphs) <= 2  # the first length, and any
    for graph in graphs:
        names = [str(node.target) for node in graph.graph.nodes]
        assert sum(name.startswith("zoo.") for name in names) == 4
        assert len(names) < 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_the_operators_are_what_torch_expects(kind: str, dtype: torch.dtype) -> None:
    """torch's own checks: schema, autograd registration, fake tensors, and AOTAutograd with dynamic shapes."""
    module = layer(kind, 3, 5).to(dtype)
    w = module.weights(0)
    for sizes, head in ((None, (4, 3)), (torch.tensor([3, 2, 2, 1]), (8,))):
        state = [torch.randn(3, 5, dtype=dtype, requires_grad=True) for _ in range(module.states)]
        x = torch.randn(*head, 3, dtype=dtype, requires_grad=True)
        arguments = (x, state[0], state[1] if len(state) > 1 else None, w.ih, w.hh, w.bias_ih, w.bias_hh, None, sizes)
        utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
        if sizes is None:
            utilities = (*utilities, "test_aot_dispatch_dynamic")
        torch.library.opcheck(module.passes().operator, (*arguments, True, True), test_utils=utilities)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}])
def test_a_script_runs_torchs_layer(kind: str, options: dict) -> None:
    module = nn.Sequential(layer(kind, 3, 4, **options))
    scripted = torch.jit.script(module)
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    assert torch.allclose(scripted(x)[0], module(x)[0], rtol=1e-12)
    assert scripted.state_dict().keys() == module.state_dict().keys()
    cell = layer(f"{kind}Cell", 3, 4)
    found, expected = torch.jit.script(cell)(x[0]), cell(x[0])
    assert torch.allclose(found[0], expected[0], rtol=1e-12)


def test_what_torch_has_not_is_refused_by_name() -> None:
    for module in (layer("GRU", 3, 4, reset_after=False), layer("LSTM", 3, [4, 5]), layer("RNN", 3, 4, zoneout=0.1)):
        with pytest.raises(ValueError, match="can be neither scripted nor quantized: "):
            torch.jit.script(module)
    with pytest.raises(ValueError, match="cannot be scripted: GRUCell"):
        torch.jit.script(layer("GRUCell", 3, 4, update_gate="new"))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_quantization_takes_torchs_layer(kind: str) -> None:
    module = nn.Sequential(layer(kind, 3, 4).float())
    quantize = torch.ao.quantization.quantize_dynamic
    with pytest.raises(RuntimeError, match="put its to_torch"):
        quantize(module, {type(module[0])})
    kept = quantize(module)  # where nobody names it, it stays as it is
    x = torch.randn(5, 2, 3)
    assert torch.equal(kept(x)[0], module(x)[0])
    if "fbgemm" in torch.backends.quantized.supported_engines:
        quantized = quantize(nn.Sequential(module[0].to_torch()), {getattr(nn, kind)})
        assert (quantized(x)[0] - module(x)[0]).abs().max() < 0.05


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compile_generates_code() -> None:
    module = layer("GRU", 3, 4)
    x = torch.randn(3, 2, 3, dtype=DOUBLE)
    with torch.no_grad():
        assert torch.allclose(torch.compile(module)(x)[0], module(x)[0], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_export(kind: str) -> None:
    module = layer(kind, 3, 4, batch_first=True).eval()
    rows = torch.export.Dim("rows", min=2, max=64)
    exported = torch.export.export(module, (torch.randn(3, 5, 3, dtype=DOUBLE),), dynamic_shapes=({0: rows},))
    x = torch.randn(7, 5, 3, dtype=DOUBLE)
    assert torch.allclose(exported.module()(x)[0], module(x)[0], rtol=1e-12)


def _train_in_process(rank: int, folder: str) -> None:
    """One of two processes, with half of the rows; the first writes its gradients."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module = layer("LSTM", 3, 4, num_layers=2)
    parallel = nn.parallel.DistributedDataParallel(module)
    torch.manual_seed(5)
    x = torch.randn(5, 8, 3, dtype=DOUBLE)[:, rank * 4 : rank * 4 + 4]
    parallel(x)[0].square().mean().backward()
    if rank == 0:
        torch.save([p.grad for p in module.parameters()], f"{folder}/gradients.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # an orderly exit now and then aborts in gloo's threads, after all is done


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_give_the_gradient_of_all_rows(tmp_path: Path) -> None:
    # Forks: to import torch takes a fresh process longer than its work.
    torch.multiprocessing.start_processes(_train_in_process, (str(tmp_path),), nprocs=2, start_method="fork")
    module = layer("LSTM", 3, 4, num_layers=2)
    torch.manual_seed(5)
    module(torch.randn(5, 8, 3, dtype=DOUBLE))[0].square().mean().backward()
    shared = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for found, parameter in zip(shared, module.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, rtol=1e-10, atol=1e-15)
