"""The one exception of the zoo for what a user can get wrong, and the words that go with a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["NotConverged", "ZooError", "nearest", "unknown_name"]


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
