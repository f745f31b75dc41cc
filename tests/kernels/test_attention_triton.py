"""The kernels of attention in Triton: by its interpreter on a CPU, and with `--device cuda` on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_cases import BOUNDS, CASES, EMPTY, UNUSABLE, Case, check, inputs_of
from support import CHECKOUT
from torch import Tensor

import zoo.kernels
import zoo.kernels.attention as blocks
from zoo.kernels.attention import Inputs, fits_gpu
from zoo.layers import MultiheadAttention, scaled_dot_product_attention
from zoo.layers.attention import _BLOCKWISE

DOUBLE = torch.float64
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def run(what: str, number: int, **settings: str) -> None:
    """Interpret the cases and so many drawn ones, or compile for such a GPU, in a process of its own."""
    pytest.importorskip("triton")
    command = [sys.executable, str(CHECKOUT / "tests" / "attention_cases.py"), what, str(number)]
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CUDA_VISIBLE_DEVICES": "", **settings}
    for name in ("ZOO_KERNELS", "TRITON_INTERPRET"):
        variables.pop(name, None)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=3000)
    if done.returncode == UNUSABLE:
        pytest.skip(f"Triton's interpreter does not run here: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr[-4000:]


def test_interpreted_kernels_give_what_the_formula_gives() -> None:
    run("interpret", 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_interpreted_case_gives_what_the_formula_gives(seed: int) -> None:
    run("interpret", 100, SEED=str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90, 100])
def test_they_compile_for_gpus_that_are_not_here(capability: int, tmp_path: Path) -> None:
    run("compile", capability, TRITON_CACHE_DIR=str(tmp_path))


# -- which of them runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has Triton and a new GPU, as far as torch says."""
    monkeypatch.delenv("ZOO_KERNELS", raising=False)
    monkeypatch.setattr(zoo.kernels, "_refused", {})
    monkeypatch.setattr(zoo.kernels, "_triton", lambda: "3.6.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "a GPU")
    return monkeypatch


def test_a_machine_without_triton_says_so(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(zoo.kernels, "_triton", lambda: None)
    assert not zoo.kernels.on_gpu(0)
    assert str(zoo.kernels.status()).endswith("; on a GPU: none — triton is not installed")


def test_a_gpu_that_is_too_old_says_so(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda _=None: (7, 5))
    assert not zoo.kernels.on_gpu(0)
    assert "capability 8.0, a GPU has less" in zoo.kernels.status().gpu


def test_a_machine_on_which_triton_does_not_start_says_so(gpu: pytest.MonkeyPatch) -> None:
    gpu.setitem(sys.modules, "triton.runtime", None)  # importing it fails
    assert not zoo.kernels.on_gpu(0)
    assert zoo.kernels.status().gpu.startswith("none — triton does not start (")


def test_what_leaves_kernels_out_leaves_out_those_of_a_gpu(gpu: pytest.MonkeyPatch) -> None:
    gpu.setitem(zoo.kernels._refused, 0, "")
    assert zoo.kernels.on_gpu(0)
    assert zoo.kernels.status().gpu == "triton 3.6.0"
    try:
        zoo.kernels.use(False)
        assert not zoo.kernels.on_gpu(0)
    finally:
        zoo.kernels.use(True)
    gpu.setenv("ZOO_KERNELS", "0")
    assert not zoo.kernels.on_gpu(0)


def test_what_the_kernels_take(gpu: pytest.MonkeyPatch) -> None:
    gpu.setitem(zoo.kernels._refused, 1, "")
    cuda = torch.device("cuda", 1)
    assert all(fits_gpu(cuda, dtype, 256, 3) for dtype in TYPES)
    assert not fits_gpu(cuda, DOUBLE, 64)
    assert not fits_gpu(cuda, torch.float16, 64, 257)
    assert not fits_gpu(torch.device("cpu"), torch.float32, 64)


@pytest.mark.parametrize("refused", ["", "because"])
def test_a_compiler_knows_which_runs(gpu: pytest.MonkeyPatch, refused: str) -> None:
    gpu.setitem(zoo.kernels._refused, 0, refused)
    torch._dynamo.reset()
    x, cuda = torch.zeros(()), torch.device("cuda", 0)

    def run(y: Tensor) -> Tensor:
        return y + 1 if fits_gpu(cuda, torch.float16, 64) else y - 1

    assert torch.compile(run, backend="eager", fullgraph=True)(x) == (-1 if refused else 1)


# -- what the operator's torch operations take for them ----------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, *EMPTY], ids=repr)
def test_torch_operations_take_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that share keys, half precision, and nothing at all."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    check(case, torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"k": torch.zeros(1, 2, 4, 5)}, {"v": torch.zeros(1, 1, 5, 3)}, {"k": torch.zeros(1, 1, 4, 5).half()},
        {"mask": torch.zeros(1, 1, 3, 1)}, {"mask": torch.zeros(3, 4)}, {"mask": torch.zeros(1, 1, 2, 4)},
        {"slopes": torch.zeros(2)}, {"q": torch.zeros(3, 3, 5)},
    ],
    ids=lambda change: str({k: tuple(v.shape) for k, v in change.items()}),
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict) -> None:
    x = Inputs(torch.zeros(1, 3, 3, 5), torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 3))
    with pytest.raises(RuntimeError, match="zoo::attention: the inputs do not fit together: q "):
        _BLOCKWISE(x._replace(**change))


# -- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    if device.type != "cuda":
        pytest.skip("the kernels run on a GPU: pass --device cuda")
    if not zoo.kernels.on_gpu(torch.cuda.current_device()):
        pytest.skip(str(zoo.kernels.status()))
    return torch.device("cuda", torch.cuda.current_device())


LARGE = [
    Case(300, 300, causal=True, widths=(64, 64), scale=0.125),
    Case(257, 391, groups=1, causal=True, offset=134, widths=(64, 64), mask="hidden", scale=0.125, layout="heads"),
    Case(513, 200, heads=4, rows=2, widths=(128, 128), mask="padding", scale=0.1, layout="sliced"),
    Case(200, 513, widths=(80, 40), window=100, alibi=True, scale=0.1, layout="expanded"),
    Case(384, 384, widths=(256, 256), causal=True, window=70, dropout=0.2, scale=0.05),
    Case(130, 1000, widths=(33, 200), offset=800, causal=True, mask="weights", dropout=0.1, scale=0.1),
    Case(1, 700, widths=(32, 32), causal=True, offset=699),
]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *EMPTY, *LARGE], ids=repr)
def test_kernels_give_what_the_formula_gives(cuda: torch.device, case: Case, dtype: torch.dtype) -> None:
    check(replace(case, dtype=dtype), cuda)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [48, 64, 128])
def test_a_long_sequence(cuda: torch.device, dtype: torch.dtype, causal: bool, width: int) -> None:
    """The function beside torch's in double precision, and beside the blocks in torch operations."""
    q, k, v, up = (torch.randn(2, 4, 1500, width, device=cuda, dtype=dtype) for _ in range(4))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    mine = scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert "zoo" in str(mine.grad_fn)
    found = [mine, *torch.autograd.grad(mine, leaves, up)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    oracle = F.scaled_dot_product_attention(*exact, is_causal=causal)
    expected = [oracle, *torch.autograd.grad(oracle, exact, up.double())]
    x = Inputs(*exact, scale=width**-0.5, causal=causal)
    out, norm = blocks._forward(*x)  # double precision goes by torch operations
    other = [out, *blocks._backward(*x, out, norm, up.double())]
    for a, b, c in zip(found, expected, other, strict=True):
        assert (a - b).norm() <= BOUNDS[dtype] * b.norm()
        assert (a - c).norm() <= BOUNDS[dtype] * c.norm()
        assert (b - c).norm() <= 1e-12 * b.norm()


def test_the_same_bits_each_time(cuda: torch.device) -> None:
    x = inputs_of(replace(LARGE[0], rows=4, groups=1, dropout=0.1), cuda)
    found = []
    for _ in range(2):
        out = _BLOCKWISE(x)
        found.append([out, *torch.autograd.grad(out, x[:3], torch.ones_like(out))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2}, {"window": 50, "positions": "alibi"}], ids=str)
@pytest.mark.parametrize("cast", [False, True])
def test_a_layer_takes_the_kernels_and_gives_the_same(cuda: torch.device, options: dict, cast: bool) -> None:
    layer = MultiheadAttention(64, 4, batch_first=True, causal=True, device=cuda, **options)
    x, padding = torch.randn(2, 150, 64, device=cuda), torch.zeros(2, 150, dtype=torch.bool, device=cuda)
    padding[1, :20] = True
    found = []
    for weights in (False, True):
        with torch.autocast("cuda", torch.bfloat16, enabled=cast):
            out = layer(x, x, x, padding, need_weights=weights)[0]
        found.append([out, *torch.autograd.grad(out.float().square().sum(), list(layer.parameters()))])
    assert not torch.equal(found[0][0], found[1][0])  # two ways
    for mine, formula in zip(*found, strict=True):
        assert (mine - formula).norm() <= (3e-2 if cast else 1e-5) * max(1.0, formula.norm().item())


def test_compiled_layers_take_the_kernels(cuda: torch.device) -> None:
    torch._dynamo.reset()
    layer = MultiheadAttention(64, 4, dropout=0.2, batch_first=True, causal=True, device=cuda, dtype=torch.bfloat16)
    x = torch.randn(2, 150, 64, device=cuda, dtype=torch.bfloat16)

    def run(y: Tensor) -> Tensor:
        return layer(y, y, y, need_weights=False)[0]

    compiled = torch.compile(run, fullgraph=True)
    for training in (True, False):
        layer.train(training)
        torch.autograd.grad(compiled(x).sum(), list(layer.parameters()))
    assert (compiled(x) - run(x)).norm() <= 2e-2 * run(x).norm()


def test_memory_on_a_gpu_is_linear_in_the_length(cuda: torch.device) -> None:
    used = []
    for length in (4096, 8192):
        q, k, v = (
            torch.randn(1, 2, length, 64, device=cuda, dtype=torch.float16, requires_grad=True) for _ in range(3)
        )
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        used.append(torch.cuda.max_memory_allocated() - before)
        del q, k, v
    assert used[1] <= 2.2 * used[0]
