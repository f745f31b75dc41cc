"""Type and range checks that answer in one line what to pass instead."""

from __future__ import annotations

import numbers
import types
import typing
from typing import Any, Literal

from zoo.errors import ZooError, nearest

__all__ = ["check_range", "check_type", "plain"]


def check_range(
    name: str, value: float | None, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise one line unless low ≤ value ≤ high (low < value where `open_low`); None passes.

    >>> check_range("num_clusters", 0, 1)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: model.num_clusters must be at least 1, not 0.
    """
    if value is None or ((low < value if open_low else low <= value) and value <= high):
        return
    bound = f"{'above' if open_low else 'at least'} {low:g}" + (f" and at most {high:g}" if high < float("inf") else "")
    raise ZooError(f"model.{name} must be {bound}, not {value!r}.")


def check_type(key: str, value: Any, annotation: Any) -> Any:
    """Return `value` if it fits `annotation` (an int passes for a float), or raise one line that says what to pass.

    >>> check_type("model.depth", "abc", int)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: model.depth must be an integer, not 'abc'.
    """
    value = plain(value)
    if _fits(value, annotation):
        return float(value) if annotation is float else value
    raise ZooError(f"{key} must be {_describe(annotation)}, not {value!r}.{_nearest_choice(value, annotation)}")


def plain(value: Any) -> Any:
    """Return numbers of NumPy as Python's, also inside lists: a checkpoint holds nothing else."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, bool | int | float) and type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _fits(value: Any, annotation: Any) -> bool:
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin in (list, tuple) or (origin is not None and issubclass(origin, typing.Sequence)):  # type: ignore[arg-type]
        element = args[0] if args else Any
        return isinstance(value, list | tuple) and all(_fits(item, element) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation) if isinstance(annotation, type) else True


def _describe(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    if origin is not None:
        return f"a list, each item {_describe(args[0])}" if args else "a list"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _nearest_choice(value: Any, annotation: Any) -> str:
    return (
        nearest(str(value), map(str, typing.get_args(annotation))) if typing.get_origin(annotation) is Literal else ""
    )
