"""Modules of the user's own that register models or data."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from zoo.errors import ZooError

__all__ = ["confirm_plugins", "import_plugins"]


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules that register models or data of the user's own."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0] and error.name != module:
                raise  # the plugin is there, and misses something itself
            raise ZooError(
                f"plugins: there is no module '{module}' on Python's path: pass one that can be imported."
            ) from error


def confirm_plugins(named: object, given: Iterable[str], run: str | Path) -> None:
    """Raise one line unless each plugin that a run folder names was given on the command line too.

    To import a module is to execute it, and the folder may come from elsewhere.
    """
    given = list(given)
    names = [str(name) for name in named] if isinstance(named, list | tuple) else [str(named)] if named else []
    missing = [name for name in names if name not in given]
    if missing:
        raise ZooError(
            f"{run} names plugins, which would be executed: if you trust {', '.join(missing)}, "
            f"add 'plugins=[{','.join([*given, *missing])}]'. Nothing was imported."
        )
