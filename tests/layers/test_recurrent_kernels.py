"""The compiled passes against torch.nn, and the layers where they cannot be had."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import zoo.layers
from zoo.layers import recurrent_kernels
from zoo.layers.recurrent_kernels import build_kernels, compiled_passes

KINDS = ("RNN", "LSTM", "GRU")
COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the tests' own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kernels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels, compiled into that folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("ZOO_KERNELS", raising=False)
    recurrent_kernels._library.cache_clear()
    if not build_kernels():
        pytest.skip("no C compiler, or one that cannot build the kernels here")
    yield
    recurrent_kernels._library.cache_clear()


@pytest.mark.skipif(not COMPILER, reason="no C compiler")
def test_this_machine_can_build_them(kernels: None) -> None:
    """With a compiler at hand they are built, so that the tests below do not all skip in silence."""
    module = zoo.layers.LSTM(3, 4)
    assert compiled_passes("LSTM", torch.zeros(1, 3), module.weights(0)) is not None


SIZES = [(6, 3, 5, 7), (5, 17, 3, 70), (1, 1, 1, 1), (4, 8, 6, 64), (3, 13, 6, 65), (130, 2, 4, 16), (2, 150, 3, 16)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS), *((kind, {"bias": False}) for kind in KINDS), ("RNN", {"nonlinearity": "relu"})],
)
def test_equal_torchs(kernels: None, kind: str, options: dict, sizes: tuple, threads: int) -> None:
    """Results and gradients, dense and packed, both directions, to the rounding of float32."""
    torch.set_num_threads(threads)
    steps, rows, inputs, hidden = sizes
    ours = getattr(zoo.layers, kind)(inputs, hidden, bidirectional=True, **options)
    theirs = getattr(nn, kind)(inputs, hidden, bidirectional=True, **options).double()
    theirs.load_state_dict(ours.state_dict())
    lengths = torch.randint(1, steps + 1, (rows,))
    x = torch.randn(steps, rows, inputs, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    for pack in (False, True):
        results = []
        for module, value in ((ours, x), (theirs, wide)):
            fed = pack_padded_sequence(value, lengths, enforce_sorted=False) if pack else value
            output, state = module(fed)
            output = output.data if pack else output
            states = state if isinstance(state, tuple) else (state,)
            loss = output.square().sum() + sum(s.sin().sum() for s in states)
            results.append([output, *states, *torch.autograd.grad(loss, [value, *module.parameters()])])
            with torch.no_grad():
                silent = module(fed)[0]
                results[-1].append(silent.data if pack else silent)
        for a, b in zip(*results, strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_in_its_row(kernels: None, kind: str) -> None:
    module = getattr(zoo.layers, kind)(3, 20)
    x = torch.randn(4, 5, 3)
    x[1, 2, 0] = float("nan")
    output, _ = module(x)
    assert output[1:, 2].isnan().all()
    assert output[0].isfinite().all()
    assert output[:, [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0, 1e4, 1e30])
def test_small_and_huge_values(kernels: None, kind: str, scale: float) -> None:
    """Saturated gates are 0 and 1, and small values keep their relative accuracy."""
    module = getattr(zoo.layers, kind)(3, 20, bias=False)
    oracle = getattr(nn, kind)(3, 20, bias=False).double()
    oracle.load_state_dict(module.state_dict())
    x = scale * torch.randn(4, 5, 3)
    with torch.no_grad():
        ours, expected = module(x)[0].double(), oracle(x.double())[0]
    assert (ours - expected).norm() <= 2e-4 * expected.norm()  # at 1e4 rounding of the sums decides which gates open


def test_without_a_compiler_layers_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(recurrent_kernels.shutil, "which", lambda _: None)
    recurrent_kernels._library.cache_clear()
    try:
        assert build_kernels() is False
        assert zoo.layers.LSTM(3, 4)(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    finally:
        recurrent_kernels._library.cache_clear()


@pytest.mark.skipif(not COMPILER, reason="no C compiler")
def test_a_source_that_does_not_compile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("this is not C")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(recurrent_kernels, "SOURCE", broken)
    recurrent_kernels._library.cache_clear()
    try:
        assert build_kernels() is False
        assert not list(tmp_path.rglob("*.so"))
    finally:
        recurrent_kernels._library.cache_clear()


def test_the_environment_leaves_them_out(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")
    recurrent_kernels._library.cache_clear()
    module = zoo.layers.LSTM(3, 4)
    assert compiled_passes("LSTM", torch.zeros(1, 3), module.weights(0)) is None
    assert build_kernels() is False
