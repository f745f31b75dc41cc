"""Normal features of classes: two operators of `torch.library` over `gaussian.c`, on a CPU.

`zoo::class_moments` and `zoo::class_densities` are what `zoo.models.naive_bayes.gaussian` says in torch operations, of
float32 rows as well as of float64 ones, which are read as they are; their sums are of double.

Letters: B rows, D features, C classes.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "class_densities", "class_moments"]

_PARALLEL = 1 << 22  # numbers, times classes for densities, from which on another thread is worth its start


class _ClassMoments(ctypes.Structure):
    """`ClassMoments` of gaussian.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "classes", "single", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "weight", "count", "mean", "rest", "scatter", "strangers")),
    ]


class _ClassDensities(ctypes.Structure):
    """`ClassDensities` of gaussian.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "features", "classes", "single", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "mean", "precision", "normalization", "density")),
    ]


def available(x: Tensor) -> bool:
    """Return whether the kernels take such rows; of answers that have a gradient they know nothing."""
    return (
        x.dtype in (torch.float64, torch.float32)
        and x.device.type == "cpu"
        and not x.requires_grad
        and function("class_moments", _ClassMoments) is not None
    )


def class_moments(
    x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the (weighted) number of rows of each class (C,), their mean, its rest and their squares, (C, D) each.

    Args:
        x: rows, (B, D), float32 or float64.
        y: their classes, (B,), int64.
        weight: of each row, (B,), float64; one each by default.
        num_classes: C.

    Raises:
        RuntimeError: for tensors of other types or shapes, or classes out of range.
    """
    return torch.ops.zoo.class_moments(x, y, weight, num_classes)


def _class_moments(
    x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    fits = _are_rows(x) and y.dtype == torch.int64 and y.shape == x.shape[:1] and y.device.type == "cpu"
    if weight is not None:
        fits = fits and weight.dtype == torch.float64 and weight.shape == y.shape and weight.device.type == "cpu"
    if not fits or num_classes < 1:
        found = [None if t is None else (*t.shape, t.dtype, t.device) for t in (x, y, weight)]
        raise RuntimeError(f"zoo::class_moments: inputs do not fit together: {found}, {num_classes} classes")
    run = _found("class_moments", _ClassMoments)
    moments, strangers = _fake_moments(x, y, weight, num_classes), ctypes.c_int64()
    whole = [None if t is None else t.contiguous() for t in (x, y, weight)]
    pointers = [None if t is None else t.data_ptr() for t in (*whole, *moments)]
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL else 1
    run(_ClassMoments(*x.shape, num_classes, x.dtype == torch.float32, threads, *pointers, ctypes.addressof(strangers)))
    if strangers.value:
        raise RuntimeError(f"zoo::class_moments: {strangers.value} rows are of no class from 0 to {num_classes - 1}")
    return moments


def class_densities(x: Tensor, mean: Tensor, precision: Tensor, normalization: Tensor) -> Tensor:
    """Return −½ (Σ_d (x_d − mean_d)² precision_d + normalization) of each row and class, (B, C) float64; no gradient.

    Args:
        x: rows, (B, D), float32 or float64.
        mean: of each class, (C, D), float64.
        precision: one over the variance, (C, D), float64.
        normalization: Σ_d log 2πσ², (C,), float64; a class of which it is infinite has density 0 everywhere.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.class_densities(x, mean, precision, normalization)


def _class_densities(x: Tensor, mean: Tensor, precision: Tensor, normalization: Tensor) -> Tensor:
    parameters = (mean, precision, normalization)
    fits = _are_rows(x) and all(t.dtype == torch.float64 and t.device.type == "cpu" for t in parameters)
    fits = fits and mean.ndim == 2 and mean.shape[1] == x.shape[1] and precision.shape == mean.shape
    if not fits or normalization.shape != mean.shape[:1]:
        found = [(*t.shape, t.dtype, t.device) for t in (x, *parameters)]
        raise RuntimeError(f"zoo::class_densities: inputs do not fit together: {found}")
    run, density = _found("class_densities", _ClassDensities), _fake_densities(x, *parameters)
    whole = [t.contiguous() for t in (x, *parameters)]
    pointers = [t.data_ptr() for t in (*whole, density)]
    threads = torch.get_num_threads() if x.numel() * len(mean) >= _PARALLEL else 1
    run(_ClassDensities(*x.shape, len(mean), x.dtype == torch.float32, threads, *pointers))
    return density


def _are_rows(x: Tensor) -> bool:
    return x.ndim == 2 and x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"


def _found(name: str, task: type[ctypes.Structure]):  # type: ignore[no-untyped-def]
    run = function(name, task)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    return run


def _fake_moments(
    x: Tensor, y: Tensor, weight: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, mean, rest, scatter = (
        x.new_zeros(shape, dtype=torch.float64) for shape in ((num_classes,), *[(num_classes, x.shape[1])] * 3)
    )
    return count, mean, rest, scatter


def _fake_densities(x: Tensor, mean: Tensor, precision: Tensor, normalization: Tensor) -> Tensor:
    return mean.new_empty(len(x), len(mean))


_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define(
    "class_moments(Tensor x, Tensor y, Tensor? weight, int num_classes) -> (Tensor count, Tensor mean, Tensor rest, "
    "Tensor scatter)"
)
_LIBRARY.define("class_densities(Tensor x, Tensor mean, Tensor precision, Tensor normalization) -> Tensor")
_LIBRARY.impl("class_moments", _class_moments, "CPU")
_LIBRARY.impl("class_densities", _class_densities, "CPU")
torch.library.register_fake("zoo::class_moments", _fake_moments, lib=_LIBRARY)
torch.library.register_fake("zoo::class_densities", _fake_densities, lib=_LIBRARY)
