"""The DataModules by name, with what each provides, so that a message can name data that would fit."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.checks import check_type
from zoo.errors import ZooError, nearest, unknown_name

if TYPE_CHECKING:
    from zoo.data.base import ZooDataModule

__all__ = ["DataEntry", "create_data", "data_entry", "data_options", "list_data", "register_data"]

DataClass = TypeVar("DataClass", bound=type)

_REGISTRY: dict[str, DataEntry] = {}

_MODULES: tuple[str, ...] = (  # the quickest to import first: a name is looked for in one after the other
    "zoo.data.bundled",
    "zoo.data.synthetic",
    "zoo.data.files",
    "zoo.data.mapped",
    "zoo.data.image_folder",
    "zoo.data.images",
    "zoo.data.cluttered",
    "zoo.data.text",
    "zoo.data.parallel_text",
    "zoo.data.dates",
    "zoo.data.sequences",
    "zoo.data.memory_tasks",
    "zoo.data.series",
    "zoo.data.transactions",
)


@dataclass(frozen=True)
class DataEntry:
    """A DataModule, the kind of data that it provides and the targets that come with it.

    `target` is None where the data have none, and `any` where the user's file decides.
    """

    name: str
    cls: type
    kind: str
    target: str | None
    summary: str


def register_data(name: str, *, kind: str, target: str | None) -> Callable[[DataClass], DataClass]:
    """Register the decorated DataModule under `name`, for `create_data` and `data=NAME`."""

    def register(cls: DataClass) -> DataClass:
        if name in _REGISTRY and _REGISTRY[name].cls.__qualname__ != cls.__qualname__:
            raise ZooError(f"Data named '{name}' are registered already: choose another name.")
        _REGISTRY[name] = DataEntry(name, cls, kind, target, (inspect.getdoc(cls) or "").split("\n", 1)[0])
        return cls

    return register


def data_entries() -> dict[str, DataEntry]:
    """Return every registered DataModule by name."""
    for module in _MODULES:
        importlib.import_module(module)
    return _REGISTRY


def data_entry(name: str) -> DataEntry | None:
    """Return the registered DataModule of a name, or None; what comes after it is not imported."""
    for module in _MODULES:
        if name in _REGISTRY:
            break
        importlib.import_module(module)
    return _REGISTRY.get(name)


def list_data(kind: str | None = None, target: str | None = None) -> list[str]:
    """Return the sorted names of the data of a kind and with a target.

    Example:
        >>> "digits" in list_data(kind="image")
        True
    """
    return sorted(
        name
        for name, entry in data_entries().items()
        if (kind is None or entry.kind == kind) and (target is None or entry.target in (target, "any"))
    )


def data_options(name: str) -> dict[str, Any]:
    """Return the options of data by name, with their types.

    >>> "val_fraction" in data_options("iris")
    True
    """
    return _options(_known(name).cls)


def _known(name: str) -> DataEntry:
    entry = data_entry(name)
    if entry is None:
        raise unknown_name("data", str(name), _REGISTRY)
    return entry


def create_data(name: str, **options: Any) -> ZooDataModule:
    """Create a DataModule by name; an unknown option raises with the valid ones.

    Example:
        >>> create_data("iris").spec.num_classes
        3
    """
    valid = data_options(name)
    for key, value in options.items():
        if key not in valid:
            raise ZooError(f"data '{name}' has no option '{key}'.{nearest(key, valid)} Valid: {', '.join(valid)}.")
        options[key] = check_type(f"data.{key}", value, valid[key])
    module = _known(name).cls(**options)
    module.name = name
    return module


def _options(cls: type) -> dict[str, Any]:
    """The constructor's arguments and those that it hands on to its bases, with their types."""
    options: dict[str, Any] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:  # inherited as it is
            continue
        if base.__module__.startswith("lightning"):
            break
        hints = typing.get_type_hints(init)
        parameters = inspect.signature(init).parameters.values()
        options |= {
            p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in options
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return options
