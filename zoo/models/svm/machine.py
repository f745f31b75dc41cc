"""What the machines with a kernel share: its constants, the search, and the support vectors that are kept."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.errors import NotConverged, ZooError, unknown_name, warn_of_faint
from zoo.models.base import Collected, CollectsRows
from zoo.models.base.uses import Needs
from zoo.models.svm.kernel_machines import KernelMachines, Search, check_symmetric, kernel_of
from zoo.models.svm.kernels import KERNELS, WITH_GAMMA, Kernel

__all__ = ["KernelMachine"]


class KernelMachine(CollectsRows):
    """A mixin for streaming models that are a sum of kernels with support vectors; a subclass says which dual rows
    pose.

    After fitting: `support_vectors` (S, F), `dual_coef` (M, S), `intercept` (P,), `gamma` as a number, and of the
    search `objective_values`, `num_iter`, and `support`, where the support vectors stand among the rows as they came
    (S,).
    """

    support_vectors: Tensor
    dual_coef: Tensor
    intercept: Tensor
    gamma: Tensor
    support: Tensor
    frozen_kernel: Kernel | None = None  # where the machine is to be traced
    needs: ClassVar[Needs] = {
        "gamma": {"kernel": WITH_GAMMA},
        "degree": {"kernel": ("poly",)},
        "coef0": {"kernel": ("poly", "sigmoid")},
    }

    @staticmethod
    def check_search(
        kernel: Any, gamma: Any, degree: int, coef0: float, tol: float, max_iter: int | None, cache_size: float
    ) -> None:
        """Raise one line for an argument out of range."""
        if not callable(kernel) and kernel not in KERNELS:
            raise unknown_name("kernel", str(kernel), KERNELS)
        if not isinstance(gamma, str):
            check_range("gamma", gamma, 0)
        elif gamma not in ("scale", "auto"):
            raise ZooError(f"model.gamma must be a number, scale or auto, not {gamma!r}.")
        check_range("degree", degree, 0)
        check_range("coef0", coef0, -math.inf)
        check_range("tol", tol, 0, open_low=True)
        check_range("max_iter", max_iter, 1)
        check_range("cache_size", cache_size, 0, open_low=True)

    def initialize_machine(self, num_features: int, num_rows: int, num_machines: int) -> None:
        """Register what a fitted machine holds: coefficients in `num_rows` rows, and an intercept a machine."""
        self.collect(num_features)
        for name, shape in {
            "support_vectors": (0, 0 if self.hparams.kernel == "precomputed" else num_features),
            "dual_coef": (num_rows, 0),
            "intercept": (num_machines,),
        }.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        gamma = self.hparams.gamma
        self.register_buffer("gamma", torch.tensor(1.0 if isinstance(gamma, str) else gamma, dtype=torch.float64))
        # Of a kernel that is given, the columns that predictions are made of.
        persistent = self.hparams.kernel == "precomputed"
        self.register_buffer("support", torch.zeros(0, dtype=torch.int64), persistent=persistent)

    def before_trace(self) -> None:
        super().before_trace()
        self.frozen_kernel = self.kernel_now

    # -- the search ----------------------------------------------------------------------------------------------

    @property
    def kernel_now(self) -> Kernel:
        """The kernel with γ as a number."""
        if self.frozen_kernel is not None:
            return self.frozen_kernel
        hp = self.hparams
        return Kernel(hp.kernel, float(self.gamma), hp.degree, hp.coef0)

    @property
    def search(self) -> Search:
        """How a dual is searched."""
        hp = self.hparams
        return Search(hp.tol, hp.max_iter, hp.shrinking, hp.cache_size)

    @property
    def by_matrix(self) -> bool:
        """Whether the search looks at the kernel's matrix, rather than at rows."""
        return callable(self.hparams.kernel) or self.hparams.kernel == "precomputed"

    def take_rows(self) -> tuple[Collected, Kernel]:
        """Return the rows of the pass, and the kernel with γ set by them."""
        hp, name = self.hparams, self.entry.name
        given, rows = hp.kernel == "precomputed", len(self._state()["rows"])
        if given and self.rows.shape[1] != rows:
            raise ZooError(
                f"A precomputed kernel is a square matrix of all rows: this one is {rows} × {self.rows.shape[1]}."
            )
        if given:
            check_symmetric(self.rows)
        found = self.take(sort=not given)
        kernel = kernel_of(name, hp.kernel, hp.gamma, hp.degree, hp.coef0, found.x)
        self.gamma.fill_(kernel.gamma)
        if not self.by_matrix and found.x.numel():
            gamma = kernel.gamma if hp.kernel in WITH_GAMMA else 1.0
            warn_of_faint(name, gamma * (found.x.amax(0) - found.x.amin(0)).square())
        return found, kernel

    def adopt(self, found: KernelMachines) -> dict[str, float | Tensor]:
        """Become the machines that were found; return what is logged of the searches, and warn of one cut short."""
        self.dual_coef, self.support, self.intercept = found.dual_coef.contiguous(), found.support, found.intercept
        if self.hparams.kernel != "precomputed":
            self.support_vectors = found.support_vectors
        self.objective_values, self.num_iter = found.objectives, found.steps
        if not all(solution.violation <= self.hparams.tol for solution in found.solutions):
            most = int(self.num_iter.max())
            warnings.warn(
                f"{self.entry.name} has not converged in {most} steps: raise model.max_iter or model.tol, or scale the "
                "data.",
                NotConverged,
                stacklevel=3,
            )
        return {
            "dual_objective": self.objective_values.sum(),
            "support_vectors": float(self.dual_coef.shape[1]),
            "steps": float(self.num_iter.sum()),
        }

    # -- the fitted machine --------------------------------------------------------------------------------------

    def kernel_with_support(self, x: Tensor) -> Tensor:
        """The kernel of rows (B, F) with the support vectors, (B, S)."""
        x = x.to(self.dual_coef.dtype)
        return x[:, self.support] if self.kernel_now.given else self.kernel_now(x, self.support_vectors)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if callable(self.hparams.kernel):
            raise ZooError(
                "A kernel that is a function cannot be saved: pass the matrix of its values with kernel='precomputed', "
                "or fit with zoo.fit(model, X, y), which saves nothing."
            )
        super().on_save_checkpoint(checkpoint)
