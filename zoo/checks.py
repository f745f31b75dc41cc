"""Type and range checks that answer in one line what to pass instead."""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from zoo.errors import ZooError, nearest

__all__ = ["PLAIN", "Range", "check_range", "check_type", "describe_type", "is_too_large", "plain"]

LONGEST = 2**63  # an integer of 64 bits is less
PLAIN = frozenset((bool, int, float, str, type(None)))  # types of values that nobody can change


class Range(NamedTuple):
    """The bounds of a number, as in `Annotated[float, Range(0, 1)]`; what is not finite is in no range.

    >>> 1.0 in Range(0, 1), 1.0 in Range(0, 1, open_high=True), float("nan") in Range(0)
    (True, False, False)
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        return _lies_within(value, *self)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:.10g}" if self.low > -math.inf else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high:.10g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high))) or "finite"


def _lies_within(value: Any, low: float, high: float, open_low: bool, open_high: bool = False) -> bool:
    return (
        -math.inf < value < math.inf
        and (low < value if open_low else low <= value)
        and (value < high if open_high else value <= high)
    )


def check_range(
    name: str, value: float | None, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise one line unless low ≤ value ≤ high (low < value where `open_low`); None passes.

    >>> check_range("num_clusters", 0, 1)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: model.num_clusters must be at least 1, not 0.
    """
    if value is not None and not _lies_within(value, low, high, open_low):
        raise ZooError(f"model.{name} must be {Range(low, high, open_low)}, not {value!r}.")


def check_type(key: str, value: Any, annotation: Any) -> Any:
    """Return `value` if it fits `annotation` (an int passes for a float), or raise one line that says what to pass.

    A number may be `Annotated` with a `Range`. NaN is no number.

    >>> check_type("model.depth", "abc", int)
    Traceback (most recent call last):
    ...
    zoo.errors.ZooError: model.depth must be an integer, not 'abc'.
    """
    value = plain(value)
    if _fits(value, annotation):
        if annotation is float:
            return float(value)
        # A whole number of more than 64 bits can only be meant as a float.
        return float(value) if type(value) is int and not _is_integer(value) else value
    bounded = "at most" in describe_type(annotation)
    if isinstance(value, int) and not -LONGEST <= value < LONGEST and not bounded:
        raise ZooError(f"{key} must be below 2^63 in size, as all integers here, not {_short(value)}.")
    shown = "null" if value is None else repr(value)
    raise ZooError(f"{key} must be {describe_type(annotation)}, not {shown}.{_nearest_choice(value, annotation)}")


# What torch's allocators, CUDA and cuBLAS say, each in its own words.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Storage size calculation overflow",
    "multiplication overflow",
)


def is_too_large(error: BaseException) -> bool:
    """Whether memory was asked for that is not there.

    >>> is_too_large(RuntimeError("DefaultCPUAllocator: can't allocate memory")), is_too_large(ValueError())
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | TypeError) and any(
        words in str(error) for words in (*_OUT_OF_MEMORY, "Overflow when unpacking long")
    )


def plain(value: Any) -> Any:
    """Return numbers of NumPy as Python's, also inside lists: a checkpoint holds nothing else."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _fits(value: Any, annotation: Any) -> bool:
    return _test_of(annotation)(value)


def _test_of(annotation: Any) -> Callable[[Any], bool]:
    """What tells whether a value fits an annotation."""
    try:
        return _kept_test(annotation)
    except TypeError:  # of metadata that cannot be hashed, such as a list
        return _read(annotation)


def _read(annotation: Any) -> Callable[[Any], bool]:
    """Make the test of an annotation."""
    if annotation is Any:
        return lambda value: True
    if annotation is None or annotation is type(None):
        return lambda value: value is None
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        fits, bounds = _test_of(args[0]), args[1:]
        return lambda value: fits(value) and all(value in bound for bound in bounds)
    if origin in (typing.Union, types.UnionType):
        tests = [_test_of(arg) for arg in args]
        return lambda value: any(test(value) for test in tests)
    if origin is Literal:
        return lambda value: any(value == arg and type(value) is type(arg) for arg in args)
    if origin is tuple and Ellipsis not in args:
        tests = [_test_of(arg) for arg in args]
        return lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == len(tests)
            and all(test(item) for test, item in zip(tests, value, strict=True))
        )
    if origin in (list, tuple) or (origin is not None and issubclass(origin, typing.Sequence)):  # type: ignore[arg-type]
        of_item = _test_of(args[0] if args else Any)
        return lambda value: isinstance(value, (list, tuple)) and all(map(of_item, value))
    if origin is dict:
        return lambda value: isinstance(value, dict)
    if annotation in (int, float):
        return _is_integer if annotation is int else _is_number
    return lambda value: not isinstance(annotation, type) or isinstance(value, annotation)


_kept_test = functools.cache(_read)  # each annotation is read once: models are made by the thousand


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -LONGEST <= value < LONGEST


def _is_number(value: Any) -> bool:
    if type(value) is float:
        return value == value
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and _is_float(value)


def _short(value: int) -> str:
    digits = str(abs(value))
    return f"{'-' * (value < 0)}{digits[0]}.{digits[1:4]}e{len(digits) - 1}"


def _is_float(value: float) -> bool:
    """Whether float64 has a number near it."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


_WORDS = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    type(None): "null",
    None: "null",
}


def describe_type(annotation: Any) -> str:
    """Return what fits an annotation, in words.

    >>> describe_type(Annotated[int, Range(1)] | None)
    'an integer of at least 1 or null'
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        bounds = [str(bound) for bound in args[1:]]
        joined = " and ".join(("of " if bound.startswith("at") else "") + bound for bound in bounds)
        return f"{describe_type(args[0])} {joined}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(arg) for arg in args)
    if origin is Literal:
        choices = ", ".join(str(arg).lower() if isinstance(arg, bool) else str(arg) for arg in args)
        return f"one of {choices}" if len(args) > 1 else choices
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)}, each {describe_type(args[0])}"
    if origin is Callable:
        return "a function"
    if origin is not None:
        return f"a list, each item {describe_type(args[0])}" if args else "a list"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _nearest_choice(value: Any, annotation: Any) -> str:
    """The nearest of the names that would have fitted."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return nearest(str(value), map(str, args))
    if origin is list and isinstance(value, str) and _fits(value, args[0]):
        return f" Write [{value}]."
    return next(filter(None, (_nearest_choice(value, arg) for arg in args)), "") if args else ""
