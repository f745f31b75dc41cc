"""The forces of a t-SNE map: operators of `torch.library` over `tsne.c`, for float32 and E up to 3 on a CPU.

`zoo::tsne_sweep` adds up all pairs of points, `zoo::tsne_pull` the near ones, as `zoo.models.tsne.objective` does in
torch operations; where there is no kernel (`available(points)`), that form is taken. Both give the same to rounding.

Letters: N points, E dimensions of the map, M near pairs.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function

__all__ = ["available", "tsne_pull", "tsne_sweep"]

PARALLEL = 1 << 24  # pairs from which points are shared among threads: milliseconds of one


class _Sweep(ctypes.Structure):
    """`Sweep` of tsne.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("points", "dimensions", "threads")),
        *((name, ctypes.c_void_p) for name in ("y", "matrix", "pull", "push", "weight")),
    ]


class _Pull(ctypes.Structure):
    """`Pull` of tsne.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("points", "dimensions", "threads")),
        *((name, ctypes.c_void_p) for name in ("y", "pointer", "column", "near", "pull")),
    ]


def available(points: Tensor) -> bool:
    """Return whether the kernels take such a map."""
    fits = points.dtype == torch.float32 and points.device.type == "cpu" and points.ndim == 2 and len(points) > 0
    return fits and 1 <= points.shape[1] <= 3 and function("tsne_sweep", _Sweep) is not None


def tsne_sweep(points: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return $\sum_j p_{ij} w_{ij} (y_i - y_j)$ and $\sum_j w_{ij}^2 (y_i - y_j)$, (N, E) each, and Z, ().

    Args:
        points: the map, (N, E), float32.
        matrix: P, (N, N), float32; None for no attraction, which is zero then.

    Raises:
        RuntimeError: for tensors of other types or shapes.
    """
    return torch.ops.zoo.tsne_sweep(points, matrix)


def _sweep(points: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    _check(points)
    size = len(points)
    if matrix is not None and (matrix.shape != (size, size) or matrix.dtype != torch.float32):
        raise RuntimeError(f"zoo::tsne_sweep: P must be ({size}, {size}), float32, not {tuple(matrix.shape)}")
    pull, push = torch.zeros(points.shape), torch.empty(points.shape)
    weight = torch.empty(size)
    threads = torch.get_num_threads() if size * size >= PARALLEL else 1
    whole = {"y": points.T.contiguous(), "pull": pull, "push": push, "weight": weight}  # alive until it has run
    if matrix is not None:
        whole["matrix"] = matrix.contiguous()
    _run("tsne_sweep", _Sweep, points, threads, whole)
    return pull, push, weight.double().sum().float()


def _fake_sweep(points: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return points.new_empty(points.shape), points.new_empty(points.shape), points.new_empty(())


def tsne_pull(points: Tensor, pointer: Tensor, column: Tensor, near: Tensor) -> Tensor:
    r"""Return $\sum_j p_{ij} w_{ij} (y_i - y_j)$ over the near pairs, (N, E).

    Args:
        points: the map, (N, E), float32.
        pointer: where the entries of each row begin, (N + 1,), int32.
        column: of each entry, (2 M,), int32.
        near: p_ij of each entry, (2 M,), float32.

    Raises:
        RuntimeError: for tensors of other types or shapes, or a column that there is not.
    """
    return torch.ops.zoo.tsne_pull(points, pointer, column, near)


def _pull(points: Tensor, pointer: Tensor, column: Tensor, near: Tensor) -> Tensor:
    _check(points)
    size, types = len(points), (pointer.dtype, column.dtype, near.dtype)
    fits = types == (torch.int32, torch.int32, torch.float32) and pointer.shape == (size + 1,)
    fits = fits and column.ndim == 1 and column.shape == near.shape
    if not fits:
        raise RuntimeError(f"zoo::tsne_pull: pointer (N + 1,), column and near (2 M,) do not fit together: {types}")
    if int(pointer[0]) != 0 or int(pointer[-1]) != len(column) or bool((pointer[1:] < pointer[:-1]).any()):
        raise RuntimeError("zoo::tsne_pull: pointer must rise from 0 to the number of entries")
    low, high = column.aminmax() if len(column) else (0, 0)
    if not (int(low) >= 0 and int(high) < size):
        raise RuntimeError(f"zoo::tsne_pull: columns must be those of {size} points")
    pull = torch.empty(points.shape)
    threads = torch.get_num_threads() if 8 * len(column) >= PARALLEL else 1
    whole = {
        "y": points.contiguous(),
        "pointer": pointer.contiguous(),
        "column": column.contiguous(),
        "near": near.contiguous(),
        "pull": pull,
    }
    _run("tsne_pull", _Pull, points, threads, whole)
    return pull


def _fake_pull(points: Tensor, pointer: Tensor, column: Tensor, near: Tensor) -> Tensor:
    return points.new_empty(points.shape)


def _check(points: Tensor) -> None:
    """Refuse what does not fit, since the kernel would read whatever lies there."""
    fits = points.ndim == 2 and len(points) > 0 and 1 <= points.shape[1] <= 3
    if not fits or points.dtype != torch.float32 or points.device.type != "cpu":
        raise RuntimeError(f"zoo::tsne: a map is (N, 1 to 3), float32, on the CPU, not {tuple(points.shape)}")


def _run(name: str, struct: type[ctypes.Structure], points: Tensor, threads: int, tensors: dict[str, Tensor]) -> None:
    run = function(name, struct)
    if run is None:
        raise RuntimeError(f"zoo::{name} needs the compiled kernels: zoo.kernels.status() says why there are none")
    run(struct(*points.shape, threads, **{key: tensor.data_ptr() for key, tensor in tensors.items()}))


# Defined without `custom_op`, whose wrappers take as long as the work on few points.
_LIBRARY = torch.library.Library("zoo", "FRAGMENT")
_LIBRARY.define("tsne_sweep(Tensor points, Tensor? matrix) -> (Tensor pull, Tensor push, Tensor total)")
_LIBRARY.define("tsne_pull(Tensor points, Tensor pointer, Tensor column, Tensor near) -> Tensor")
for _name, _form, _shapes in (("tsne_sweep", _sweep, _fake_sweep), ("tsne_pull", _pull, _fake_pull)):
    _LIBRARY.impl(_name, _form, "CPU")
    torch.library.register_fake(f"zoo::{_name}", _shapes, lib=_LIBRARY)
