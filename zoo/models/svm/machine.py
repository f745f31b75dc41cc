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
from zoo.models.svm.dual import Dual
from zoo.models.svm.kernels import KERNELS, WITH_GAMMA, Kernel, check_squares, gamma_of
from zoo.models.svm.smo import Solution, smo

__all__ = ["KernelMachine"]

MOST_STEPS = 10_000_000  # where nobody sets a limit, and rounding keeps a search from its tolerance


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
    def by_matrix(self) -> bool:
        """Whether the search looks at the kernel's matrix, rather than at rows."""
        return callable(self.hparams.kernel) or self.hparams.kernel == "precomputed"

    def take_rows(self) -> Collected:
        """Return the rows of the pass, and set γ by them."""
        given, rows = self.hparams.kernel == "precomputed", len(self._state()["rows"])
        if given and self.rows.shape[1] != rows:
            raise ZooError(
                f"A precomputed kernel is a square matrix of all rows: this one is {rows} × {self.rows.shape[1]}."
            )
        if given and not torch.allclose(self.rows, self.rows.T, rtol=1e-5, atol=1e-8, equal_nan=True):
            raise ZooError(
                "The precomputed kernel is not symmetric: its rows must come in the order of its columns "
                "(data.shuffle=false)."
            )
        found = self.take(sort=not given)
        if not self.by_matrix:
            check_squares(self.entry.name, found.x)
        self.gamma.fill_(gamma_of(self.hparams.gamma, found.x, used=self.hparams.kernel in WITH_GAMMA))
        if not self.by_matrix and not bool(self.kernel_now.diagonal(found.x).isfinite().all()):
            raise ZooError(f"The kernel of the rows overflows: scale the features of {self.entry.name} first.")
        if not self.by_matrix and found.x.numel():
            gamma = float(self.gamma) if self.hparams.kernel in WITH_GAMMA else 1.0
            warn_of_faint(self.entry.name, gamma * (found.x.amax(0) - found.x.amin(0)).square())
        return found

    def matrix(self, rows: Collected) -> Tensor | None:
        """The kernel of the rows with each other, where it is given or a function; else None."""
        if not self.by_matrix:
            return None
        return rows.x[:, rows.place] if self.kernel_now.given else self.kernel_now(rows.x, rows.x)

    def search(self, x: Tensor, dual: Dual) -> Solution:
        """Solve a dual of rows (N, F), or of a matrix (N, N)."""
        hp = self.hparams
        kernel = Kernel("precomputed") if self.by_matrix else self.kernel_now
        most = max(MOST_STEPS, 100 * len(x)) if hp.max_iter is None else hp.max_iter
        return smo(
            x, dual, kernel, tol=hp.tol, max_iter=most, shrinking=hp.shrinking, cache_size=hp.cache_size
        )  # fmt: skip

    def keep(self, rows: Collected, coefficients: Tensor) -> Tensor:
        """Keep the rows with a coefficient (M, N) that is not zero, and return which they are, (N,)."""
        kept = (coefficients != 0).any(0)
        self.dual_coef, self.support = coefficients[:, kept].contiguous(), rows.place[kept]
        if not self.kernel_now.given:
            self.support_vectors = rows.x[kept]
        return kept

    def report(self, found: list[Solution]) -> dict[str, float | Tensor]:
        """What is logged of the searches, and a warning where one did not converge."""
        self.objective_values = torch.tensor([s.objective for s in found], dtype=torch.float64)
        self.num_iter = torch.tensor([s.num_iter for s in found])
        if not all(s.violation <= self.hparams.tol for s in found):
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
