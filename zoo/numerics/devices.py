"""What this machine computes on."""

from __future__ import annotations

import functools

import torch

__all__ = ["has_gpu"]


@functools.cache
def has_gpu() -> bool:
    """Return whether torch finds a GPU; it is asked once.

    Beside Lightning it looks for the driver's library each time, which takes half a millisecond.

    >>> isinstance(has_gpu(), bool)
    True
    """
    return torch.cuda.is_available()
