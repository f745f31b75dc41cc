"""Modules of the user's own that register models or data."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from zoo.errors import ZooError

__all__ = ["import_plugins"]


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules that register models or data of the user's own."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0] and error.name != module:
                raise  # the plugin is there, and misses something itself
            raise ZooError(f"plugins: there is no module '{module}' on Python's path.") from error
