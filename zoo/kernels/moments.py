"""Mean and scatter of narrow rows in one pass: an operator of `torch.library` over `moments.c`, on a CPU.

`zoo::moments` is what `zoo.numerics.moments` adds up in torch operations, block by block; its sums are of double,
whatever the rows are. Matrix products are quicker where rows are wide: `available(x, width)` says which those are.

Letters: B rows, F features, K targets, D = F + K.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "moments"]

NARROW = 64  # columns up to which a block of rows and all of its products stay in the nearest cache
PARALLEL = 2**24  # products from which rows are shared among threads


class _Moments(ctypes.Structure):
    """The struct of moments.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "targets", "single", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "weight", "at", "count", "mean", "scatter", "squares")),
    ]


def available(x: Tensor, width: int = 0) -> bool:
    """Return whether the kernel takes such rows, and is the quickest for a scatter matrix of so many columns."""
    return (
        width <= NARROW
        and x.dtype in (torch.float64, torch.float32)
        and x.device.type == "cpu"
        and function("moments", _Moments) is not None
    )


def moments(
    x: Tensor, y: Tensor | None = None, weight: Tensor | None = None, at: Tensor | None = None, *, squares: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weight of all rows (), their mean beside a point (D,), and their scatter about it (D, D).

    Args:
        x: rows, (B, F), float32 or float64.
        y: more columns, (B, K), float64.
        weight: of each row, (B,), float64; one each by default. What weighs nothing may hold anything.
        at: the point, (D,), float64; zero by default.
        squares: whether only the diagonal of the scatter matrix is wanted, (D,).

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.moments(x, y, weight, at, squares)


def _moments(
    x: Tensor, y: Tensor | None, weight: Tensor | None, at: Tensor | None, squares: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, y, weight, at)
    run = function("moments", _Moments)
    if run is None:
        raise RuntimeError("zoo::moments needs the compiled kernels: zoo.kernels.status() says why there are none")
    found = _fake(x, y, weight, at, squares)
    rows, features = x.shape
    targets = 0 if y is None else y.shape[1]
    width = features + targets
    work = rows * width * (1 if squares else width)
    at = found[1].new_zeros(width) if at is None else at
    whole = [None if t is None else t.contiguous() for t in (x, y, weight, at)]
    count, mean, scatter = (t.data_ptr() for t in found)
    pointers = [*(None if t is None else t.data_ptr() for t in whole), count, mean]
    pointers += [None, scatter] if squares else [scatter, None]
    threads = min(torch.get_num_threads(), 1 + work // PARALLEL)
    run(_Moments(rows, features, targets, x.dtype == torch.float32, threads, *pointers))
    return found


def _check(x: Tensor, y: Tensor | None, weight: Tensor | None, at: Tensor | None) -> None:
    """Refuse what does not fit together, since the kernel would read whatever lies there."""
    others = [t for t in (y, weight, at) if t is not None]
    fits = x.ndim == 2 and x.dtype in (torch.float32, torch.float64) and all(t.dtype == torch.float64 for t in others)
    fits = fits and all(t.device.type == "cpu" for t in (x, *others))
    fits = (
        fits and (y is None or (y.ndim == 2 and len(y) == len(x))) and (weight is None or weight.shape == x.shape[:1])
    )
    if not fits or (at is not None and at.shape != (x.shape[1] + (0 if y is None else y.shape[1]),)):
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, y, weight, at)]
        raise RuntimeError(f"zoo::moments: inputs do not fit together: {found}")


def _fake(
    x: Tensor, y: Tensor | None, weight: Tensor | None, at: Tensor | None, squares: bool
) -> tuple[Tensor, Tensor, Tensor]:
    width = x.shape[1] + (0 if y is None else y.shape[1])
    shapes = (), (width,), (width,) if squares else (width, width)
    count, mean, scatter = (x.new_zeros(shape, dtype=torch.float64) for shape in shapes)
    return count, mean, scatter


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define(
    "moments(Tensor x, Tensor? y, Tensor? weight, Tensor? at, bool squares) -> (Tensor count, Tensor mean, "
    "Tensor scatter)"
)
_LIBRARY.impl("moments", _moments, "CPU")
torch.library.register_fake("zoo::moments", _fake, lib=_LIBRARY)
