"""Columns by their names: which of those that a model reads are there."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from zoo.errors import ZooError, nearest

__all__ = ["check_columns", "listed", "other_delimiter"]

log = logging.getLogger(__name__)


def check_columns(
    there: list[str], needed: Iterable[str], known: Iterable[str], where: str, source: str = "the training table"
) -> None:
    """Raise one line for a column that is not there or there twice; note the ones that nobody knows.

    Args:
        there: the names of a table's columns.
        needed: those that the model reads.
        known: further ones that the training data had.
        where: what messages call the table.
        source: what they call the one that was learnt from.
    """
    needed = list(needed)
    for name in needed:
        if there.count(name) != 1:
            if name in there:
                raise ZooError(f"{where} has several columns named '{name}': rename them.")
            remedy = other_delimiter(there) or nearest(name, there)
            raise ZooError(f"{where} has no column '{name}', which {source} has.{remedy}")
    extra = [name for name in there if name not in {*needed, *known}]
    if extra:
        listed = ", ".join(f"'{name}'" for name in extra[:10]) + (" and more" if len(extra) > 10 else "")
        log.info("%s: %s ignored, as %s has no such column.", where, listed, source)


def listed(names: list[str]) -> str:
    """Return names in a row, of many the first ones."""
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def other_delimiter(there: list[str]) -> str:
    """Return what to do about a header line that is a single name because another sign stands between the names.

    >>> other_delimiter(["a;b;y"])
    " Its only column is 'a;b;y': pass data.delimiter=';'."
    """
    found = [sign for sign in (";", "\t", "|", ",") if len(there) == 1 and sign in there[0]]
    shown = "'\\t'" if found == ["\t"] else f"'{found[0]}'" if found else ""
    return f" Its only column is {there[0]!r}: pass data.delimiter={shown}." if found else ""
