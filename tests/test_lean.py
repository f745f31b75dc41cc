"""Lightning without what it imports for others: what stands in for that, and that nothing is taken away by it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from support import CHECKOUT

from zoo import lean


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module of some name, which is forgotten after the test, as is all that it imports."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path.joinpath(*name.split("."))
        path = path / "__init__.py" if "." not in name else path.with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write  # type: ignore[misc]
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_package_is_opened_when_it_is_asked_for_more(package: Callable[[str, str], None]) -> None:
    package("closed", "from closed.part import value\nopened = value + 1\n")
    package("closed.part", "value = 41\n")
    spec = importlib.util.find_spec("closed")
    assert spec is not None
    closed = lean.Unopened("closed")
    closed.__spec__, closed.__path__ = spec, spec.submodule_search_locations  # type: ignore[assignment]
    sys.modules["closed"] = closed
    assert importlib.import_module("closed.part").value == 41
    del closed.__path__
    assert not hasattr(closed, "__wrapped__")
    assert type(closed) is lean.Unopened
    assert closed.opened == 42
    assert type(closed) is ModuleType
    assert sys.modules["closed"] is closed


def test_what_is_disabled_is_called_until_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = ModuleType("torch._dynamo")
    compiler.disable = lambda fn, recursive: lambda x: -fn(x)  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    called = lean.disable(lambda x: x + 1)
    assert called(1) == 2
    monkeypatch.setitem(sys.modules, "torch._dynamo", compiler)
    assert called(1) == -2


@pytest.mark.parametrize("asks_for_more", [False, True])
def test_others_stand_in_unless_more_is_asked_of_them(
    package: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, asks_for_more: bool
) -> None:
    package("far", "")
    package("far.away", "class Thing: pass\nmore = 1\n")
    package("lightning", f"import sys\nfrom far.away import Thing{', more' * asks_for_more}\n")
    monkeypatch.setattr(lean, "LATER", {"far.away": ("Thing",)})
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    loader = lean.LeanLoader()
    monkeypatch.setattr(sys, "meta_path", [loader, *sys.meta_path])
    found = importlib.import_module("lightning")
    assert loader not in sys.meta_path
    assert ("far.away" in sys.modules) == asks_for_more
    thing = found.Thing()
    assert type(thing).__module__ == "far.away"
    assert isinstance(thing, found.Thing)
    assert not isinstance(1, found.Thing)
    assert found.__spec__.loader is found.__loader__ is not loader


@pytest.mark.slow
def test_all_can_be_imported_as_ever() -> None:
    """Torchmetrics and the compiler after Lightning; the same classes as those that Lightning knows."""
    code = (
        "import zoo, lightning.pytorch as pl, torch\n"
        "from torchmetrics.classification import BinaryF1Score\nimport torchmetrics\n"
        "assert issubclass(BinaryF1Score, torchmetrics.Metric) and torchmetrics.Metric is pl.core.module.Metric\n"
        "assert torchmetrics.metric.Metric is torchmetrics.Metric and torchmetrics.functional.accuracy\n"
        "from lightning.fabric.wrappers import OptimizedModule\n"
        "assert isinstance(torch.compile(torch.nn.Linear(1, 1)), OptimizedModule)\n"
        "assert not isinstance(torch.nn.Linear(1, 1), OptimizedModule)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
