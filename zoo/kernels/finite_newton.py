"""Newton's method for linear machines with squared losses: an operator of `torch.library` over `finite_newton.c`.

`zoo::finite_newton` takes the steps of `zoo.models.svm.primal.NewtonSearch` over rows in memory, all machines in one
call, in the space of the weights or in that of the rows, whichever is smaller. Larger ones are left to torch's matrix
products: `available(x, …)` says which those are.

Letters: N rows, F features, P = F + 1 with the constant last, K machines.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["available", "finite_newton"]

LARGEST = 1001  # weights of a machine, or rows, up to which its equations are solved here
MOST = 2**28  # products of all rows, from which on torch's threads are worth their start, where there are any


class _Newton(ctypes.Structure):
    """`Newton` of finite_newton.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("num_rows", "num_features", "num_machines", "max_iter", "by_rows", "bare")
        ),
        *((name, ctypes.c_double) for name in ("constant", "epsilon", "tol")),
        *((name, ctypes.c_void_p) for name in ("x", "target", "cost", "weight", "reach", "found")),
    ]


def available(x: Tensor, machines: int = 1, *, penalized: bool = True) -> bool:
    """Return whether the kernel takes such rows (N, F), and is the quickest.

    Args:
        x: dense or sparse rows.
        machines: K.
        penalized: whether the weight of the constant is.
    """
    if x.dtype != torch.float64 or x.device.type != "cpu" or x.layout != torch.strided:
        return False
    rows, size = x.shape[0], x.shape[1] + 1
    unknowns = rows if _by_rows(rows, size, penalized) else size
    few = torch.get_num_threads() == 1 or machines * rows * size * unknowns < MOST
    return unknowns <= LARGEST and few and function("finite_newton", _Newton) is not None


def _by_rows(rows: int, size: int, penalized: bool) -> bool:
    return penalized and rows < size


def _fake(x, target, cost, constant, penalized, epsilon, tol, max_iter):  # type: ignore[no-untyped-def]
    return x.new_empty(len(target), x.shape[1] + 1), x.new_empty(x.shape[1]), x.new_empty(len(target), 4)


@operator(_fake)
def finite_newton(
    x: Tensor, target: Tensor, cost: Tensor, constant: float, penalized: bool, epsilon: float | None, tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Minimize ½‖w‖² + Σ c e² of each machine.

    Args:
        x: rows, (N, F), float64, as all tensors.
        target: ±1 or values, (K, N).
        cost: c, 0 or more, (K, N).
        constant: value of a last feature whose weight is the intercept; 0 for none.
        penalized: whether that weight is part of ‖w‖.
        epsilon: ε, 0 or more, of values; None for classes.
        tol: share of the first gradient's norm where to stop.
        max_iter: passes over the rows at most.

    Returns:
        Weights with that of the constant last (K, P); how much each feature can tell a machine, where that is most:
        2 Σ c x² of the rows that a score of 0 falls short of (F,); and of each machine J, the norm of its gradient, the
        passes, and 1 where that norm is small enough, 0 where it is not, −1 where numbers left their range or the
        equations have no one solution, so that the weights are none (K, 4).

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("finite_newton", _Newton)
    if run is None:
        raise RuntimeError(
            "zoo::finite_newton needs the compiled kernels: zoo.kernels.status() says why there are none"
        )
    _check(x, target, cost)
    (rows, features), machines = x.shape, len(target)
    weight, reach, found = _fake(x, target, cost, constant, penalized, epsilon, tol, max_iter)
    found.fill_(-1.0)  # of machines after one that has no solution
    x, target, cost = x.contiguous(), target.contiguous(), cost.contiguous()
    run(
        _Newton(
            rows, features, machines, max_iter, _by_rows(rows, features + 1, penalized), not penalized, constant,
            -1.0 if epsilon is None else epsilon, tol, x.data_ptr(), target.data_ptr(), cost.data_ptr(),
            weight.data_ptr(), reach.data_ptr(), found.data_ptr(),
        )
    )  # fmt: skip
    return weight, reach, found


def _check(x: Tensor, target: Tensor, cost: Tensor) -> None:
    tensors = {"x": x, "target": target, "cost": cost}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float64 or tensor.device.type != "cpu" or tensor.ndim != 2:
            raise RuntimeError(f"zoo::finite_newton: {name} must have two dimensions, float64, on a CPU.")
    if target.shape != cost.shape or target.shape[1] != len(x):
        raise RuntimeError("zoo::finite_newton: target and cost must be (K, N) for x (N, F).")
