r"""One-class support vector machine: a region that holds most rows, for telling what is new.

```math
\min_{w, ρ}\ \tfrac12 \lVert w \rVert^2 - ρ + \frac1{ν n} \sum_i s_i \max(0, ρ - w^\top φ(x_i)), \qquad
f(x) = \sum_{i ∈ S} β_i\, k(x_i, x) - ρ
```

A row is taken for one of the kind where f(x) ≥ 0. ν bounds the share of training rows that lie outside from above, and
that of support vectors from below. In the dual 0 ≤ β_i ≤ s_i and Σ β = ν n, n = Σ s, as libsvm scales it.

Legend: N rows, F features, S support vectors, s sample weights.

Source: Schölkopf, Platt, Shawe-Taylor, Smola & Williamson 2001.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.models.base import StreamingModel
from zoo.models.svm.dual import novelty
from zoo.models.svm.kernel_machines import one_machine
from zoo.models.svm.machine import KernelMachine
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OneClassSVM"]


@register_model(
    "one_class_svm",
    family="svm",
    task="novelty_detection",
    accepts={"tabular": None, "image": None},
    source="Schölkopf, Platt, Shawe-Taylor, Smola & Williamson 2001",
    docs="kernel_svm",
)
class OneClassSVM(KernelMachine, StreamingModel):
    """A region that holds most of the rows, with a kernel; rows outside of it are new.

    After fitting, `support_vectors` (S, F) with `dual_coef` (1, S) and `intercept` (1,), −ρ.

    Args:
        kernel: `rbf`, `poly`, `sigmoid`, `linear`, `precomputed`, or in Python a function, as in `kernel_svm`.
        nu: ν, the largest share of training rows outside, and the least of support vectors; above 0, at most 1.
        gamma: γ of the kernel: a number, `scale` for 1 / (F · Var(X)) or `auto` for 1 / F.
        degree: of `poly`.
        coef0: of `poly` and `sigmoid`.
        tol: the largest violation of the optimality conditions that is left.
        max_iter: pairs of coefficients that are moved at most; None for ten million, or 100 a row where that is more.
        shrinking: whether rows at their bounds are left out for a while; the answer is the same.
        cache_size: megabytes of the kernel's matrix that are kept.

    Raises:
        ZooError: for an argument out of range, or an unknown kernel.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0], [0.1], [0.2], [0.3], [5.0]])
        >>> model = zoo.fit(zoo.create_model("one_class_svm", nu=0.3, gamma=1.0), x)
        >>> model.predict(torch.tensor([[0.15], [9.0]])).tolist()
        [1, 0]
    """

    def __init__(
        self,
        *,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        nu: float = 0.5,
        gamma: float | Literal["scale", "auto"] = "scale",
        degree: int = 3,
        coef0: float = 0.0,
        tol: float = 1e-3,
        max_iter: int | None = None,
        shrinking: bool = True,
        cache_size: float = 200.0,
    ) -> None:
        super().__init__()
        check_range("nu", nu, 0, 1, open_low=True)
        self.check_search(kernel, gamma, degree, coef0, tol, max_iter, cache_size)
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.initialize_machine(spec.num_features, 1, 1)

    def solve(self) -> dict[str, float | Tensor]:
        rows, kernel = self.take_rows()
        return self.adopt(one_machine(rows, novelty(rows.weight, self.hparams.nu), kernel, self.search))

    def forward(self, x: Tensor) -> Tensor:
        """f of rows (B, *shape), (B,)."""
        return self.kernel_with_support(x.flatten(1)) @ self.dual_coef[0] + self.intercept

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """1 for a row of the kind and 0 for one that is new, and the decision f."""
        decision = self(batch.x)
        return {"prediction": (decision >= 0).long(), "decision": decision}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        decision = self(batch.x)
        return {"decision": decision, "share_outside": (decision < 0).double()}

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        if self.spec.kind == "tabular" and self.spec.num_features == 2 and not self.by_matrix:
            prepared = functools.partial(self.predict_columns, raw=False)
            yield "region", visual.region(prepared, batch.x, self.spec, support=self.support_vectors)
