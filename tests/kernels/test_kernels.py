"""The mechanism of the kernels: what is in use, why not, and what leaves them out."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import zoo.kernels
import zoo.layers
from zoo.errors import ZooError
from zoo.kernels.recurrent import Task

CHECKOUT = Path(__file__).resolve().parents[2]
COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))


@pytest.fixture
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is loaded before the test, and nothing that it loaded stays."""
    monkeypatch.delenv("ZOO_KERNELS", raising=False)
    caches = (zoo.kernels._load, zoo.kernels._find)
    for cache in caches:
        cache.cache_clear()
    yield
    zoo.kernels._outdated.clear()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.skipif(not COMPILER, reason="no C compiler")
@pytest.mark.usefixtures("_afresh")
def test_an_installation_with_a_compiler_has_them() -> None:
    """So that the tests of kernels do not all skip in silence: `make` installs the checkout, which builds them."""
    assert zoo.kernels.status().variant == zoo.kernels.runnable()[0], zoo.kernels.status()
    assert zoo.kernels.status().reason == ""


@pytest.mark.usefixtures("_afresh")
def test_what_leaves_them_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert str(zoo.kernels.status()) == "kernels: none — left out by ZOO_KERNELS=0"
    assert zoo.kernels.function("lstm_forward", Task) is None
    zoo.kernels.use(True)
    assert zoo.kernels.status().variant is None
    monkeypatch.delenv("ZOO_KERNELS")
    zoo.kernels.use(False)
    try:
        assert "zoo.kernels.use(False)" in zoo.kernels.status().reason
        assert zoo.kernels.function("lstm_forward", Task) is None
    finally:
        zoo.kernels.use(True)


@pytest.mark.usefixtures("_afresh")
def test_a_variant_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "sse9")
    with pytest.raises(ZooError, match=r"ZOO_KERNELS=sse9: this machine runs .*serial"):
        zoo.kernels.status()


@pytest.mark.usefixtures("_afresh")
def test_without_libraries_torch_operations_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.kernels, "_FOLDER", tmp_path)
    assert zoo.kernels.status().variant is None
    assert "install the package where there is a C compiler" in zoo.kernels.status().reason
    assert zoo.layers.LSTM(3, 4)(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)


@pytest.mark.usefixtures("_afresh")
def test_a_broken_library_is_named_and_the_next_one_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (next(zoo.kernels._FOLDER.glob(f"{name}.*.so"), None) for name in zoo.kernels.runnable())
    if first is None or not any(others):
        pytest.skip("the kernels are not built")
    for path in filter(None, others):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / first.name).write_bytes(b"half a file")
    monkeypatch.setattr(zoo.kernels, "_FOLDER", tmp_path)
    assert zoo.kernels.status().variant == zoo.kernels.runnable()[1]
    assert first.name in zoo.kernels.status().reason


@pytest.mark.usefixtures("_afresh")
def test_a_library_of_other_sources_is_not_called() -> None:
    """A struct of another size, or a function that is not there: built before the sources changed."""
    if zoo.kernels.status().variant is None:
        pytest.skip("the kernels are not built")

    class Other(ctypes.Structure):
        _fields_ = [*Task._fields_, ("more", ctypes.c_int64)]

    assert zoo.kernels.function("lstm_forward", Other) is None
    assert zoo.kernels.function("no_such_kernel", Task) is None
    assert "lstm_forward, no_such_kernel left out, built from other sources" in zoo.kernels.status().reason


def run(code: str, **environment: str) -> str:
    child = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=child, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def bits_of_lstm() -> str:
    """What a layer and its gradients come to."""
    torch.manual_seed(0)
    module = zoo.layers.LSTM(8, 24, 2)
    output, _ = module(torch.randn(9, 4, 8))
    output.square().sum().backward()
    found = (output, *(p.grad for p in module.parameters()))
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in found)).hexdigest()


def test_a_fresh_home_gives_the_same_bits_and_stays_empty(tmp_path: Path) -> None:
    """Nothing is compiled, written or looked for outside of the package."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc")
    libraries = "print({line.split()[-1] for line in open('/proc/self/maps') if 'kernels/built' in line})"
    code = f"import hashlib, torch, zoo.layers\n{inspect.getsource(bits_of_lstm)}\nprint(bits_of_lstm())\n{libraries}"
    digest, loaded = run(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache")).splitlines()
    assert digest == bits_of_lstm()  # in this process, whose home is used
    assert str(CHECKOUT / "zoo" / "kernels" / "built") in loaded or zoo.kernels.status().variant is None
    assert not list(tmp_path.rglob("*.so"))
    assert not (tmp_path / "cache").exists()
