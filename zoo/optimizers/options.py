"""The options of optimizers, schedules and averages: names, types, ranges and defaults, as factories declare them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from torch import Tensor

from zoo.checks import Range, check_type
from zoo.errors import ZooError, nearest

__all__ = ["check_options", "option_types"]

_GIVEN = {"params", "optimizer", "total_steps", "self"}  # by the recipe itself
_SHARE = Annotated[float, Range(0, 1, open_high=True)]
_NOT_NEGATIVE = Annotated[float, Range(0)]
_COUNT = Annotated[int, Range(1)]

# Under torch's names, which mean the same wherever they occur; signatures say little of types, and nothing of ranges.
_TYPES: dict[str, Any] = {
    "lr": Annotated[float, Range(0, open_low=True)],
    "lr_decay": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "eps": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "momentum": _SHARE,
    "dampening": Annotated[float, Range(0, 1)],
    "betas": tuple[_SHARE, _SHARE],
    "alpha": _SHARE,
    "max_iter": _COUNT,
    "max_eval": _COUNT | None,
    "history_size": _COUNT,
    "tolerance_grad": _NOT_NEGATIVE,
    "tolerance_change": _NOT_NEGATIVE,
    "line_search_fn": Literal["strong_wolfe"] | None,
    "min_gain": Annotated[float, Range(0, open_low=True)],
    "max_step": Annotated[float, Range(0, open_low=True)] | None,
    "warmup_steps": Annotated[int, Range(0)],
    "min_factor": Annotated[float, Range(0, 1)],
    "step_size": _COUNT,
    "gamma": Annotated[float, Range(0, 1, open_low=True)],
    "max_lr": Annotated[float, Range(0, open_low=True)],
    "pct_start": Annotated[float, Range(0, 1, open_low=True, open_high=True)],
    "factor": Annotated[float, Range(0, 1, open_low=True, open_high=True)],
    "patience": Annotated[int, Range(0)],
    "min_lr": _NOT_NEGATIVE,
    "beta2_decay": Annotated[float, Range(high=0)],
    "d": Annotated[float, Range(1)],
    "ns_coefficients": tuple[float, float, float],
    "ns_steps": Annotated[int, Range(0, 99)],
    "adjust_lr_fn": Literal["original", "match_rms_adamw", "spectral_unclamped"] | None,
    "adamw_lr": Annotated[float, Range(0, open_low=True)] | None,
    "adamw_betas": tuple[_SHARE, _SHARE],
    "adamw_eps": _NOT_NEGATIVE,
    "decay": _SHARE,
    "start": _SHARE,
    "every": _COUNT,
    "swa_lr": Annotated[float, Range(0, open_low=True)],
}
_PAIR_OF_EPS = tuple[_NOT_NEGATIVE | None, _NOT_NEGATIVE]  # Adafactor's
SOURCES = Literal["zoo", "torch"]


@functools.cache
def option_types(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of an optimizer or a schedule with what each may be.

    >>> import torch
    >>> option_types(torch.optim.SGD)["nesterov"]
    <class 'bool'>
    """
    parameters = inspect.signature(factory).parameters.values()
    types = {p.name: _type_of(p) for p in parameters if p.name not in _GIVEN}
    return types | ({"source": SOURCES} if getattr(factory, "built_in", None) else {})


def _type_of(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if isinstance(default, bool):
        return bool
    if parameter.name == "eps" and isinstance(default, tuple):
        return _PAIR_OF_EPS
    known = _TYPES.get(parameter.name, float if isinstance(default, int | float) else Any)
    return known | None if default is None and known is not Any else known


def check_options(what: str, name: str, factory: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raise one line for an option that the factory does not have, or that has the wrong type or size."""
    types = option_types(factory)
    for key, value in options.items():
        if key not in types:
            raise ZooError(f"{what} '{name}' has no option '{key}'.{nearest(key, types)} Valid: {', '.join(types)}.")
        if not isinstance(value, Tensor):
            check_type(f"{what}.{key}", value, types[key])
