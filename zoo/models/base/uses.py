"""Which hyperparameters are of use when: one that is given and does nothing is refused, rather than taken in silence.

A model declares in `needs`, for each hyperparameter that is not always of use, what it asks of the others, of the
`target` and of the `kind` of the data:

    needs = {"degree": {"kernel": ("poly",)}, "epsilon": {"target": ("value",)}, "fraction": {"patience": GIVEN}}

A value that stands at its default asks for nothing, so that a config may list all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.data.spec import DataSpec
    from zoo.models.base.module import ZooModel

__all__ = ["GIVEN", "Needs", "check_use"]

GIVEN: Final = "a value"  # what another hyperparameter needs that is null by default

Needs = Mapping[str, Mapping[str, tuple[Any, ...] | str]]


def check_use(model: ZooModel, spec: DataSpec | None = None) -> None:
    """Raise one line for a hyperparameter that was given and is of no use beside the others, or on such data.

    Args:
        model: says in `given` which hyperparameters were given, and in `needs` what they need.
        spec: the data, if they are known.

    Example:
        >>> import zoo
        >>> zoo.create_model("kernel_svm", degree=2)
        Traceback (most recent call last):
        ...
        zoo.errors.ZooError: model.degree=2 does nothing with model.kernel=rbf: it needs model.kernel=poly.
    """
    for name in model.given:
        value = model.hparams[name]
        for key, wanted in model.needs.get(name, {}).items() if value is not None else ():
            of_data = key in ("target", "kind")
            if of_data and spec is None:
                continue
            found = getattr(spec, key) if of_data else model.hparams[key]
            if (found is not None) if wanted is GIVEN else _is_any(found, wanted):
                continue
            choices = wanted if wanted is GIVEN else " or ".join(map(shown, wanted))
            what = {"target": " targets", "kind": " data"}.get(key, "")
            there, needed = (
                (f"for {found}{what}", f"{choices}{what}")
                if of_data
                else (f"with model.{key}={shown(found)}", f"model.{key}={choices}")
            )
            raise ZooError(f"model.{name}={shown(value)} does nothing {there}: it needs {needed}.")


def _is_any(value: Any, wanted: tuple[Any, ...] | str) -> bool:
    return any(value is choice or (type(value) is type(choice) and value == choice) for choice in wanted)


def shown(value: Any) -> str:
    """A value as the command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return getattr(value, "__name__", None) or str(value)
