"""How many threads torch's loops are worth: idle ones spin, and on a busy machine they wait for each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

__all__ = ["few_threads", "of_few_threads"]

LITTLE = 2**27  # multiplications, up to which one thread takes some tens of milliseconds

Method = TypeVar("Method", bound=Callable[..., Any])


@contextmanager
def few_threads(work: float) -> Iterator[None]:
    """Keep torch's loops to one thread where they have little to do.

    Two threads that have a core each save a few milliseconds there. Where other processes want the cores, each loop
    ends when the last thread has had its turn: a ridge regression on 442 rows took 100 ms there, with one thread 1.5.

    Args:
        work: multiplications, about.

    Example:
        >>> with few_threads(100):
        ...     torch.get_num_threads()
        1
    """
    outer = torch.get_num_threads()
    if outer == 1 or work > LITTLE:
        yield
        return
    torch.set_num_threads(1)  # of the thread that calls
    try:
        yield
    finally:
        torch.set_num_threads(outer)


def of_few_threads(method: Method) -> Method:
    """Have a method of rows X (N, F) take one thread where N F² multiplications, as for a Gram matrix, are few."""

    @functools.wraps(method)
    def limited(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        shape = tuple(getattr(X, "shape", ()))
        with few_threads(shape[0] * shape[1] ** 2 if len(shape) == 2 else 0):
            return method(self, X, *args, **kwargs)

    return limited  # type: ignore[return-value]
