"""Machines with a kernel of rows in memory: what the rows ask of each, and the solution of all of them.

Legend: N rows, F features, C classes, P pairs of classes (1 of values), S support vectors, M = max(1, C − 1) numbers a
support vector has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.svm.dual import Dual, classification
from zoo.models.svm.kernels import WITH_GAMMA, Kernel, check_squares, gamma_of
from zoo.models.svm.one_vs_one import pairs_of
from zoo.models.svm.platt import fit_curve
from zoo.models.svm.smo import Solution, smo
from zoo.numerics.collected import Collected

__all__ = ["KernelMachines", "Search", "check_symmetric", "kernel_of", "one_machine", "pair_machines"]

_FOLDS = 5


class Search(NamedTuple):
    """How a dual is searched.

    Attributes:
        tol: the largest violation of the optimality conditions that is left.
        max_iter: pairs of coefficients that are moved at most; None for ten million, or 100 a row where that is more.
        shrinking: whether rows at their bounds are left out for a while.
        cache_size: megabytes of the kernel that are kept.
    """

    tol: float = 1e-3
    max_iter: int | None = None
    shrinking: bool = True
    cache_size: float = 200.0

    def __call__(self, x: Tensor, dual: Dual, kernel: Kernel) -> Solution:
        """Solve a dual of rows (N, F), or of a matrix (N, N) in their place."""
        most = max(_MOST_STEPS, 100 * len(x)) if self.max_iter is None else self.max_iter
        return smo(
            x, dual, kernel, tol=self.tol, max_iter=most, shrinking=self.shrinking, cache_size=self.cache_size
        )  # fmt: skip


_MOST_STEPS = 10_000_000  # where nobody sets a limit, and rounding keeps a search from its tolerance


class KernelMachines(NamedTuple):
    """The solution of all machines.

    Attributes:
        support_vectors: (S, F), those of a class together; (0, 0) of a kernel that is given.
        support: where they stand among the rows as they came, (S,).
        num_support: how many each class has, (C,), or all have, (1,).
        dual_coef: β, (M, S).
        intercept: b, (P,).
        solutions: of the searches; none for a pair of which a class has no row.
        curves: slope and offset of the probabilities, (P, 2), where they were asked for.
    """

    support_vectors: Tensor
    support: Tensor
    num_support: Tensor
    dual_coef: Tensor
    intercept: Tensor
    solutions: list[Solution]
    curves: Tensor | None = None

    @property
    def objectives(self) -> Tensor:
        """Of each search, (P,), float64."""
        return torch.tensor([solution.objective for solution in self.solutions], dtype=torch.float64)

    @property
    def steps(self) -> Tensor:
        """Of each search, (P,)."""
        return torch.tensor([solution.num_iter for solution in self.solutions])


def kernel_of(
    model: str, name: str | Callable[[Any, Any], Any], gamma: float | str, degree: int, coef0: float, x: Tensor
) -> Kernel:
    """Return a kernel with γ as a number.

    Args:
        model: its name, for messages.
        name: of the kernel, or a function.
        gamma: a number, `scale` or `auto`.
        degree: of `poly`.
        coef0: of `poly` and `sigmoid`.
        x: the rows of training, (N, F), or their kernel.

    Raises:
        ZooError: where the rows are too large for it.
    """
    by_matrix = callable(name) or name == "precomputed"
    if not by_matrix:
        check_squares(model, x)
    kernel = Kernel(name, gamma_of(gamma, x, used=not callable(name) and name in WITH_GAMMA), degree, coef0)
    if not by_matrix and name != "rbf" and not bool(kernel.diagonal(x).isfinite().all()):
        raise ZooError(f"The kernel of the rows overflows: scale the features of {model} first.")
    return kernel


def check_symmetric(matrix: Tensor) -> None:
    """Raise one line unless a kernel that is given, (N, N), is symmetric."""
    if not torch.allclose(matrix, matrix.T, rtol=1e-5, atol=1e-8, equal_nan=True):
        raise ZooError(
            "The precomputed kernel is not symmetric: its rows must come in the order of its columns "
            "(data.shuffle=false)."
        )


def one_machine(rows: Collected, dual: Dual, kernel: Kernel, search: Search) -> KernelMachines:
    """Return the machine of values, or of novelty."""
    x, of_search = _posed(rows, kernel)
    found = search(x, dual, of_search)
    kept = found.beta.nonzero().flatten()
    return KernelMachines(
        _vectors(rows, kernel, kept), rows.place[kept], torch.tensor([len(kept)], device=kept.device),
        found.beta[None, kept], found.beta.new_tensor([found.offset]), [found],
    )  # fmt: skip


def pair_machines(
    model: str, rows: Collected, num_classes: int, cost: float, class_weight: str | Sequence[float] | None,
    kernel: Kernel, search: Search, *, probability: bool = False,
) -> KernelMachines:  # fmt: skip
    """Return a machine for each pair of classes.

    Args:
        model: its name, for messages.
        rows: with classes 0 … C − 1 as targets.
        num_classes: C.
        cost: of a violated margin.
        class_weight: a factor of it for each class, `balanced` for n / (C n_k), or None.
        kernel: which one.
        search: how.
        probability: whether to fit the curves of probabilities, by a cross-validation.

    Raises:
        ZooError: where all rows are of one class.
    """
    rows = rows.take(rows.y.argsort(stable=True))
    x, of_search = _posed(rows, kernel)
    labels = rows.y.long()
    number = labels.bincount(minlength=num_classes)
    counts: list[int] = number.tolist()
    if sum(count > 0 for count in counts) < 2:
        raise ZooError(
            f"{model} needs rows of at least two classes: all {len(labels):,} are of class {int(labels[0])}. "
            "one_class_svm learns from one class."
        )
    costs = cost * rows.weight
    if class_weight is not None:
        costs *= _class_weights(class_weight, number)[labels]
    ends, pairs = [0, *accumulate(counts)], pairs_of(num_classes)
    coefficients, solutions = x.new_zeros(num_classes - 1, len(labels)), []
    intercept, curves = [0.0] * len(pairs), [(0.0, 0.0)] * len(pairs)
    for pair, (a, b) in enumerate(pairs):
        if not (counts[a] and counts[b]):  # what was never seen loses
            intercept[pair] = 1.0 if counts[b] else -1.0
            continue
        index = _index(ends, a, b, x.device)
        of_pair = x[index] if not of_search.given else x[index][:, index]
        sign = x.new_ones(counts[a] + counts[b])
        sign[: counts[a]] = -1.0
        dual = classification(sign, costs[index])
        found = search(of_pair, dual, of_search)
        coefficients[b - 1, ends[a] : ends[a + 1]] = found.beta[: counts[a]]
        coefficients[a, ends[b] : ends[b + 1]] = found.beta[counts[a] :]
        intercept[pair] = found.offset
        solutions.append(found)
        if probability:
            held_out = _held_out(of_pair, sign, costs[index], rows.rank[index], of_search, search)
            curves[pair] = fit_curve(held_out, sign > 0)
    kept = (coefficients != 0).any(0).nonzero().flatten()
    return KernelMachines(
        _vectors(rows, kernel, kept), rows.place[kept], labels[kept].bincount(minlength=num_classes),
        coefficients[:, kept], x.new_tensor(intercept), solutions, x.new_tensor(curves) if probability else None,
    )  # fmt: skip


def _posed(rows: Collected, kernel: Kernel) -> tuple[Tensor, Kernel]:
    """What a search looks at: the rows, or their matrix where the kernel is one, or a function."""
    if kernel.given:
        return rows.x[:, rows.place], kernel
    return (kernel(rows.x, rows.x), Kernel("precomputed")) if callable(kernel.name) else (rows.x, kernel)


def _vectors(rows: Collected, kernel: Kernel, kept: Tensor) -> Tensor:
    return rows.x.new_zeros(0, 0) if kernel.given else rows.x[kept]


def _index(ends: list[int], a: int, b: int, device: torch.device) -> slice | Tensor:
    """Where the rows of two classes stand, of which class k ends where k + 1 begins."""
    if ends[a + 1] == ends[b]:
        return slice(ends[a], ends[b + 1])
    return torch.cat([torch.arange(ends[k], ends[k + 1], device=device) for k in (a, b)])


def _class_weights(given: str | Sequence[float], counts: Tensor) -> Tensor:
    """c of each class, (C,), from their numbers of rows."""
    if given != "balanced":
        return torch.tensor(given, dtype=torch.float64, device=counts.device)
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.double()), 1.0)


def _held_out(x: Tensor, sign: Tensor, cost: Tensor, rank: Tensor, kernel: Kernel, search: Search) -> Tensor:
    """Decisions of each row by a machine that has not seen it, (N,): rows are dealt to the folds by `rank`."""
    decisions = torch.zeros_like(sign)
    fold = rank.argsort().argsort() % _FOLDS
    for held in range(_FOLDS):
        inside, outside = (fold != held).nonzero().flatten(), (fold == held).nonzero().flatten()
        if not len(outside):
            continue
        signs = sign[inside].unique()
        if len(signs) < 2:
            decisions[outside] = signs[0] if len(signs) else 0.0
            continue
        dual = classification(sign[inside], cost[inside])
        solution = search(x[inside][:, inside] if kernel.given else x[inside], dual, kernel)
        between = x[outside][:, inside] if kernel.given else kernel(x[outside], x[inside])
        decisions[outside] = between @ solution.beta + solution.offset
    return decisions
