"""Which of the data that a user holds in Python are texts."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from zoo.data.arrays import column_names
from zoo.data.preprocessing import as_table

__all__ = ["VIEWS", "as_texts", "column_of_texts"]

log = logging.getLogger(__name__)

VIEWS = ("tokens", "counts", "binary", "tfidf")  # what a text may become


def as_texts(x: Any) -> list[str] | None:
    """Return a list, a tuple, an array or a column of texts as a list; None for anything else.

    >>> as_texts(("to be", "or not")), as_texts([[1, 2]])
    (['to be', 'or not'], None)
    """
    if isinstance(x, str | Tensor) or column_names(x) is not None or getattr(x, "ndim", 1) != 1:
        return None
    if hasattr(x, "tolist"):
        x = x.tolist()
    elif not isinstance(x, list | tuple) and not hasattr(x, "to_list"):
        return None
    texts = list(x)
    return texts if texts and all(issubclass(kind, str) for kind in set(map(type, texts))) else None


def column_of_texts(x: Any, text: str) -> tuple[str, list[str]] | None:
    """Return the name of a table's only column and its texts, where these are to be read; else None.

    Args:
        x: a table, or anything else.
        text: what texts become; `auto` reads those of more different values than are coded unasked.
    """
    names = column_names(x)
    if names is None or len(names) != 1 or text not in ("auto", *VIEWS):
        return None
    import pyarrow as pa  # here, since arrays have no need of it
    import pyarrow.compute as pc

    from zoo.data.columns import FEW_VALUES

    column = as_table(x).column(names[0])
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return None
    if text == "auto":
        if pc.count_distinct(column).as_py() <= FEW_VALUES:
            return None
        log.info("Column '%s' holds texts, which are read: pass text='codes' to number them.", names[0])
    return names[0], [value or "" for value in column.to_pylist()]
