"""Lightning without what it imports for others, so that a process starts in a fraction of the time.

`import lightning` takes three seconds, nearly all of them for what neither it nor the zoo uses: all of torchmetrics for
two classes (and with it SciPy, matplotlib, torchvision and transformers, where they are installed), and torch's
compiler for an `isinstance`. Once zoo is imported, other modules stand in for these while Lightning is imported.
Nothing is taken away: afterwards each of them is imported as ever, as soon as somebody asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]

# What Lightning asks for by name without having a use for it: values that stand for it until they are used.
LATER = {
    "torch._dynamo": ("OptimizedModule",),
    "torch.utils.flop_counter": ("FlopCounterMode",),
    "torchmetrics.utilities.plot": ("_AX_TYPE", "_PLOT_OUT_TYPE", "plot_single_or_multi_val"),
}


class Later(type):
    """A class that stands for `home.name` until it is used: a call, and `isinstance`, are those of the real one.

    >>> Fraction = Later("fractions", "Fraction")
    >>> Fraction(1, 2), isinstance(Fraction(1, 2), Fraction), isinstance(1, Fraction)
    (Fraction(1, 2), True, False)
    """

    home: str

    def __new__(mcs, home: str, name: str) -> Later:
        return super().__new__(mcs, name, (), {"home": home})

    def __init__(cls, home: str, name: str) -> None:
        super().__init__(name, (), {})

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(cls.home), cls.__name__)(*args, **options)

    def __instancecheck__(cls, instance: Any) -> bool:
        module = sys.modules.get(cls.home)  # of a class that nobody has imported there are no instances
        return module is not None and isinstance(instance, getattr(module, cls.__name__))


def disable(fn: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """Keep a function from being compiled, as `torch._dynamo.disable` does, which is called once it is there."""
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def called(*args: Any, **more: Any) -> Any:
        if not disabled and "torch._dynamo" in sys.modules:
            disabled.append(sys.modules["torch._dynamo"].disable(fn, recursive, **options))
        return (disabled[0] if disabled else fn)(*args, **more)

    return called


class Unopened(ModuleType):
    """A package whose parts can be imported before its `__init__` has run: that is done when it is asked for more."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__path__", "__all__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec: Any = self.__spec__
        self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Let other modules stand in for those that are not there yet, within the block."""
    placed = {}
    for home, names in LATER.items():
        if home not in sys.modules:
            placed[home] = sys.modules[home] = ModuleType(home)
            vars(placed[home]).update({name: Later(home, name) for name in names})
    if "torch._dynamo" in placed:
        vars(placed["torch._dynamo"])["disable"] = disable
    metrics = None if "torchmetrics" in sys.modules else _metrics()
    try:
        yield
    finally:
        for home, module in placed.items():
            if sys.modules.get(home) is module:
                del sys.modules[home]
        if type(metrics) is Unopened:
            del metrics.__path__  # so that it opens when any more of its parts is imported


def _metrics() -> ModuleType | None:
    """Torchmetrics, of which nothing has been imported but the two classes that Lightning knows."""
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or spec.submodule_search_locations is None:
        return None
    package = Unopened(spec.name)
    package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
    package.__package__, package.__path__ = spec.name, spec.submodule_search_locations
    vars(package)["_logger"] = logging.getLogger(spec.name)  # which its parts take from it
    sys.modules[spec.name] = package
    importlib.import_module("torchmetrics.utilities")  # the part that the others begin with
    for home, name in (("__about__", "__version__"), ("metric", "Metric"), ("collections", "MetricCollection")):
        vars(package)[name] = getattr(importlib.import_module(f"torchmetrics.{home}"), name)
    return package


class LeanLoader:
    """Imports Lightning while others stand in; plainly, where a version of it asks for more than they have."""

    real: Any = None  # Lightning's own loader

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "lightning":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None:
            self.real, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.real
        before = set(sys.modules)
        try:
            with standing_in():
                self.real.exec_module(module)
        except Exception:
            for name in set(sys.modules) - before:
                if name.partition(".")[0] in ("lightning", "torchmetrics"):
                    del sys.modules[name]
            self.real.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]


def install() -> None:
    """Have Lightning imported in this way, unless it has been already."""
    if "lightning" not in sys.modules and not any(isinstance(finder, LeanLoader) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeanLoader())  # type: ignore[arg-type]  # of the two protocols what is needed
