"""The one exception of the zoo for what a user can get wrong, and the words of errors and warnings that many share."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any

__all__ = ["FAINT", "NotConverged", "ZooError", "nearest", "unknown_name", "warn_of_faint"]

FAINT = 2.0**-52  # share that is lost where it is added up in float64


class ZooError(ValueError):
    """A mistake that one line explains: the command line prints the message alone, without a traceback."""


class NotConverged(UserWarning):
    """A fit was stopped by a limit before it had found what it was looking for; the message says which one to raise."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `" Did you mean a, b?"` for the choices that resemble `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(matches)}?" if matches else ""


def unknown_name(what: str, name: str, choices: Iterable[str]) -> ZooError:
    """Return the error for a name that is none of `choices`: the nearest ones first, then all of them."""
    choices = sorted(choices)
    return ZooError(f"Unknown {what} '{name}'.{nearest(name, choices)} Available: {', '.join(choices)}.")


def warn_of_faint(name: str, reach: Any) -> None:
    """Warn in one line of features whose values are so small that no answer of a model can heed them.

    Args:
        name: of the model.
        reach: by how much each feature can move an answer, as a share of what else does, a tensor (F,); 0 for one that
            does not vary.
    """
    faint = ((reach > 0) & (reach < FAINT)).nonzero().flatten().tolist()
    if faint:
        which = ", ".join(map(str, faint[:5])) + (", …" if len(faint) > 5 else "")
        warnings.warn(
            f"{name} takes no notice of {len(faint)} of {len(reach)} features (by place: {which}): their values are "
            "too small beside the others, or beside 1. Scale them, as standardize=true does.",
            stacklevel=3,
        )
