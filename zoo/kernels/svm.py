"""The dual of support vector machines solved by pairs and by coordinates: operators of `torch.library` over `svm.c`.

`zoo::smo` does what `zoo.models.svm.smo` does in torch operations, and `zoo::dual_descent` what
`zoo.models.svm.coordinate_descent` does; where there is no kernel (`available()`), those forms are taken.

Letters: N rows, F features.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.kernels import function
from zoo.kernels.operators import operator

__all__ = ["KERNELS", "available", "dual_descent", "smo"]

KERNELS = ("linear", "poly", "rbf", "sigmoid", "precomputed")
_INTEGERS, _REALS, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Smo(ctypes.Structure):
    """`Smo` of svm.c."""

    _fields_ = [
        *(
            (name, _INTEGERS)
            for name in ("num_rows", "num_features", "kernel", "degree", "shrinking", "max_iter", "cache_rows")
        ),
        *((name, _REALS) for name in ("gamma", "coef0", "tol", "epsilon")),
        *((name, _POINTER) for name in ("x", "target", "low", "high", "beta", "slope", "found")),
    ]


class _Descent(ctypes.Structure):
    """`Descent` of svm.c."""

    _fields_ = [
        *((name, _INTEGERS) for name in ("num_rows", "num_features", "max_iter", "relative")),
        *((name, _REALS) for name in ("tol", "epsilon")),
        *((name, _POINTER) for name in ("x", "starts", "columns")),
        ("constant", _REALS),
        *((name, _POINTER) for name in ("target", "low", "high", "diagonal", "order")),
        ("seed", _INTEGERS),
        *((name, _POINTER) for name in ("beta", "weight", "found")),
    ]


def available(device: torch.device) -> bool:
    """Return whether duals on this device are solved by the kernels."""
    return device.type == "cpu" and all(
        function(name, task) is not None for name, task in (("smo", _Smo), ("descend", _Descent))
    )


def _fake_smo(x, target, low, high, beta, kernel, gamma, degree, coef0, epsilon, tol, shrinking, max_iter, cache_rows):  # type: ignore[no-untyped-def]
    return torch.empty_like(beta), torch.empty_like(beta), beta.new_empty(4)


@operator(_fake_smo)
def smo(
    x: Tensor, target: Tensor, low: Tensor, high: Tensor, beta: Tensor, kernel: int, gamma: float, degree: int,
    coef0: float, epsilon: float, tol: float, shrinking: bool, max_iter: int, cache_rows: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Solve the dual by sequential minimal optimization, as `zoo.models.svm.smo.solve_pairs` does.

    Args:
        x: rows (N, F), or of `precomputed` the kernel itself (N, N), float64.
        target: t, (N,), as all that follow float64.
        low: smallest coefficients, (N,).
        high: largest coefficients, (N,).
        beta: coefficients to start from, within the bounds, (N,).
        kernel: place in `KERNELS`.
        gamma: γ of the kernel.
        degree: of `poly`, 0 or more.
        coef0: of `poly` and `sigmoid`.
        epsilon: ε, 0 or more.
        tol: the largest violation that is left.
        shrinking: whether rows at their bounds are left out for a while.
        max_iter: steps at most; −1 for no limit.
        cache_rows: rows of the kernel that are kept, of 4 N bytes each.

    Returns:
        Coefficients (N,), f = t − Kβ (N,), and offset, objective, number of steps and the violation that was left.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("smo", _Smo)
    _check(run is not None and x.device.type == "cpu", "smo", "there is no kernel for this device")
    _check_rows("smo", x, {"target": target, "low": low, "high": high, "beta": beta})
    _check(0 <= kernel < len(KERNELS) and degree >= 0, "smo", "kernel or degree out of range")
    _check(KERNELS[kernel] != "precomputed" or x.shape[0] == x.shape[1], "smo", "the kernel must be square")
    x, target, low, high = x.contiguous(), target.contiguous(), low.contiguous(), high.contiguous()
    beta, slope = beta.clone(memory_format=torch.contiguous_format), torch.empty(len(x), dtype=torch.float64)
    found = torch.zeros(4, dtype=torch.float64)
    if len(x):
        run(
            _Smo(
                num_rows=len(x), num_features=x.shape[1], kernel=kernel, degree=degree, shrinking=int(shrinking),
                max_iter=max_iter, cache_rows=cache_rows, gamma=gamma, coef0=coef0, tol=tol, epsilon=epsilon,
                x=x.data_ptr(), target=target.data_ptr(), low=low.data_ptr(), high=high.data_ptr(),
                beta=beta.data_ptr(), slope=slope.data_ptr(), found=found.data_ptr(),
            )
        )  # fmt: skip
    return beta, slope, found


def _fake_descent(  # type: ignore[no-untyped-def]
    x, starts, columns, num_features, target, low, high, diagonal, beta, order, constant, epsilon, tol, relative,
    max_iter, seed,
):  # fmt: skip
    return torch.empty_like(beta), x.new_empty(num_features + 1), beta.new_empty(3)


@operator(_fake_descent)
def dual_descent(
    x: Tensor, starts: Tensor | None, columns: Tensor | None, num_features: int, target: Tensor, low: Tensor,
    high: Tensor, diagonal: Tensor, beta: Tensor, order: Tensor, constant: float, epsilon: float, tol: float,
    relative: bool, max_iter: int, seed: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Solve the dual of the linear kernel by coordinates, as `zoo.models.svm.coordinate_descent` does.

    Args:
        x: rows (N, F), float64; of sparse rows the M numbers that are stored, (M,).
        starts: where those of each row begin, and the last ones end, (N + 1,), int64; None for dense rows.
        columns: the feature of each, (M,), int64; None for dense rows.
        num_features: F.
        target: t, (N,), as all vectors but `order` float64.
        low: smallest coefficients, (N,).
        high: largest coefficients, (N,).
        diagonal: d, (N,).
        beta: coefficients to start from, within the bounds, (N,).
        order: of the rows before they are shuffled, a permutation (N,), int64.
        constant: value of a last feature whose weight is the intercept; 0 for none.
        epsilon: ε, 0 or more.
        tol: where to stop.
        relative: whether `tol` is a share of the sum of the first round's slopes, rather than their spread.
        max_iter: rounds at most.
        seed: of the order of rows.

    Returns:
        Coefficients (N,), weights with that of the constant last (F + 1,), and the number of rounds, the violation that
        was left, and 1 where it is small enough.

    Raises:
        RuntimeError: for tensors of other types or shapes, or where there is no kernel.
        MemoryError: where a buffer could not be allocated.
    """
    run = function("descend", _Descent)
    _check(run is not None and x.device.type == "cpu", "dual_descent", "there is no kernel for this device")
    vectors = {"target": target, "low": low, "high": high, "diagonal": diagonal, "beta": beta}
    if starts is None or columns is None:
        _check_rows("dual_descent", x, vectors)
        _check(x.shape[1] == num_features, "dual_descent", "x must have num_features columns")
    else:
        starts, columns = starts.contiguous(), columns.contiguous()
        _check(_is_sparse(x, starts, columns, num_features), "dual_descent", "these are no sparse rows")
        _check_vectors("dual_descent", len(starts) - 1, vectors)
    num_rows = len(target)
    _check(_permutes(order, num_rows), "dual_descent", "order must be a permutation of the rows, int64")
    x, target, low, high, diagonal = (t.contiguous() for t in (x, target, low, high, diagonal))
    beta, order = (t.clone(memory_format=torch.contiguous_format) for t in (beta, order))
    weight, found = torch.zeros(num_features + 1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    run(
        _Descent(
            num_rows=num_rows, num_features=num_features, max_iter=max_iter, relative=int(relative), tol=tol,
            epsilon=epsilon, x=x.data_ptr(), starts=None if starts is None else starts.data_ptr(),
            columns=None if columns is None else columns.data_ptr(), constant=constant,
            target=target.data_ptr(), low=low.data_ptr(),
            high=high.data_ptr(), diagonal=diagonal.data_ptr(), order=order.data_ptr(), seed=seed,
            beta=beta.data_ptr(), weight=weight.data_ptr(), found=found.data_ptr(),
        )
    )  # fmt: skip
    return beta, weight, found


def _check(fits: bool, operator: str, wanted: str) -> None:
    if not fits:
        raise RuntimeError(f"zoo::{operator}: {wanted}.")


def _check_rows(operator: str, x: Tensor, vectors: dict[str, Tensor]) -> None:
    _check(x.dtype == torch.float64 and x.ndim == 2, operator, "x must be (N, F), float64")
    _check_vectors(operator, len(x), vectors)


def _check_vectors(operator: str, num_rows: int, vectors: dict[str, Tensor]) -> None:
    for name, vector in vectors.items():
        fits = vector.dtype == torch.float64 and vector.shape == (num_rows,) and vector.device.type == "cpu"
        _check(fits, operator, f"{name} must be ({num_rows},), float64")


def _is_sparse(values: Tensor, starts: Tensor, columns: Tensor, num_features: int) -> bool:
    """Whether these are what the rows of a sparse matrix store, where they begin, and their columns."""
    if values.dtype != torch.float64 or not starts.dtype == columns.dtype == torch.int64:
        return False
    if values.ndim != 1 or columns.shape != values.shape or starts.ndim != 1 or not len(starts):
        return False
    rising = not len(starts) > 1 or int(starts.diff().min()) >= 0
    within = not len(columns) or (int(columns.min()) >= 0 and int(columns.max()) < num_features)
    return rising and within and int(starts[0]) == 0 and int(starts[-1]) == len(values)


def _permutes(order: Tensor, num_rows: int) -> bool:
    """Whether the integers are 0 … N − 1 in some order."""
    if order.dtype != torch.int64 or order.shape != (num_rows,) or (num_rows and int(order.min()) < 0):
        return False
    return not num_rows or (int(order.max()) < num_rows and bool((order.bincount(minlength=num_rows) == 1).all()))
