r"""Kernel machines: the boundary with the widest margin in a space of features that only a kernel knows.

```math
f(x) = \sum_{i ∈ S} β_i\, k(x_i, x) + b, \qquad
\min_{w, b}\ \tfrac12 \lVert w \rVert^2 + \sum_i C_i \max(0, 1 - y_i f(x_i))
```

for classes y = ±1, and for values the ε-insensitive loss max(0, |y − f(x)| − ε) in place of the hinge. C_i = C s_i
c_{y_i} with sample weights s and class weights c. The dual (`dual.py`) is solved exactly by sequential minimal
optimization (`smo.py`), and only rows with β ≠ 0, the support vectors, are kept. More than two classes: a machine for
each pair (`one_vs_one.py`). Probabilities: Platt's curves (`platt.py`).

All pairs of rows count, so the one pass collects the rows, of which no more than `cache_size` megabytes of the kernel
are kept at a time.

Legend: N rows, F features, C classes, S support vectors, B batch, P pairs of classes.

Source: Boser, Guyon & Vapnik 1992; Cortes & Vapnik 1995; Drucker et al., "Support vector regression machines", 1997.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import StreamingModel
from zoo.models.base.evaluation import Pooling
from zoo.models.base.objectives import Regression, f1_names, f1_of
from zoo.models.svm.dual import regression
from zoo.models.svm.kernel_machines import KernelMachines, one_machine, pair_machines
from zoo.models.svm.machine import KernelMachine
from zoo.models.svm.one_vs_one import against_the_rest, pair_decisions, pairs_of, votes
from zoo.models.svm.platt import couple, curve
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KernelSVM"]


@register_model(
    "kernel_svm",
    family="svm",
    accepts={"tabular": ("class", "value"), "image": ("class", "value")},
    source="Boser, Guyon & Vapnik 1992",
)
class KernelSVM(KernelMachine, StreamingModel):
    """A support vector machine with a kernel, for classes or values, exact by sequential minimal optimization.

    After fitting, `support_vectors` (S, F) are the rows that decide, in the order of their classes, `num_support` (C,)
    how many each class has, `dual_coef` their coefficients (C − 1, S) or (1, S), and `intercept` (P,) or (1,).

    Args:
        kernel: `rbf`, `poly`, `sigmoid`, `linear`, `precomputed`, where rows are those of the kernel's square matrix,
            or in Python a function of rows (A, F) and (B, F) that returns (A, B); such a model cannot be saved.
        C: the cost of a violated margin, above 0.
        gamma: γ of the kernel: a number, `scale` for 1 / (F · Var(X)) or `auto` for 1 / F.
        degree: of `poly`.
        coef0: of `poly` and `sigmoid`.
        epsilon: half the width of the tube in which an error costs nothing, for values.
        class_weight: a weight for each class, or `balanced` for n / (C n_k).
        decision: what is shown beside a prediction of more than two classes: `ovr`, a number for each class, or `ovo`,
            one for each pair.
        break_ties: whether, of classes with equal votes, the one with the largest number for it wins, not the first.
        probability: whether to fit probabilities, by a 5-fold cross-validation.
        tol: the largest violation of the optimality conditions that is left.
        max_iter: pairs of coefficients that are moved at most; None for ten million, or 100 a row where that is more.
        shrinking: whether rows at their bounds are left out for a while; the answer is the same.
        cache_size: megabytes of the kernel's matrix that are kept.

    Raises:
        ZooError: for an argument out of range, an unknown kernel, or rows of one class only.

    Example:
        >>> import torch, zoo
        >>> x, y = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1, 1])
        >>> model = zoo.fit(zoo.create_model("kernel_svm", C=10.0, gamma=1.0), x, y)
        >>> model.predict(x).tolist(), len(model.support_vectors)
        ([0, 0, 1, 1], 4)
    """

    num_support: Tensor
    sizes: list[int] | None = None  # the same as plain numbers, where the machine is to be traced
    probability_slope: Tensor
    probability_offset: Tensor

    needs = {
        **KernelMachine.needs,
        "epsilon": {"target": ("value",)},
        **{key: {"target": ("class",)} for key in ("class_weight", "decision", "break_ties", "probability")},
    }

    def __init__(
        self,
        *,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        C: float = 1.0,
        gamma: float | Literal["scale", "auto"] = "scale",
        degree: int = 3,
        coef0: float = 0.0,
        epsilon: float = 0.1,
        class_weight: Literal["balanced"] | Sequence[float] | None = None,
        decision: Literal["ovr", "ovo"] = "ovr",
        break_ties: bool = False,
        probability: bool = False,
        tol: float = 1e-3,
        max_iter: int | None = None,
        shrinking: bool = True,
        cache_size: float = 200.0,
    ) -> None:
        super().__init__()
        check_range("C", C, 0, open_low=True)
        check_range("epsilon", epsilon, 0)
        self.check_search(kernel, gamma, degree, coef0, tol, max_iter, cache_size)
        if class_weight is not None and class_weight != "balanced":
            class_weight = list(class_weight)
            if any(not 0 <= weight < float("inf") for weight in class_weight):
                raise ZooError(f"model.class_weight must all be 0 or more, not {class_weight}.")
        self.save_hyperparameters()

    def initialize(self, spec: DataSpec) -> None:
        self.num_classes = int(spec.num_classes or 0) if spec.target == "class" else 0
        given = self.hparams.class_weight
        if self.num_classes and given not in (None, "balanced") and len(given) != self.num_classes:
            raise ZooError(
                f"model.class_weight has {len(given)} weights for {self.num_classes} classes: give one a class."
            )
        if not self.num_classes and spec.num_targets != 1:
            raise ZooError(
                f"kernel_svm predicts one value, and the data have {spec.num_targets}: fit a model for each."
            )
        if self.hparams.probability and not self.num_classes:
            raise ZooError("model.probability=true needs classes: leave it false for values.")
        num_pairs = max(1, len(pairs_of(self.num_classes)))
        self.initialize_machine(spec.num_features, max(1, self.num_classes - 1), num_pairs)
        self.register_buffer("num_support", torch.zeros(max(1, self.num_classes), dtype=torch.int64))
        if self.hparams.probability:
            self.register_buffer("probability_slope", torch.zeros(num_pairs, dtype=torch.float64))
            self.register_buffer("probability_offset", torch.zeros(num_pairs, dtype=torch.float64))
        self.tube = None if self.num_classes else Regression(spec)
        self.f1_names = f1_names(spec) if self.num_classes else ()

    # -- the solution --------------------------------------------------------------------------------------------

    def solve(self) -> dict[str, float | Tensor]:
        hp = self.hparams
        rows, kernel = self.take_rows()
        if not self.num_classes:
            return self.adopt(
                one_machine(rows, regression(rows.y, hp.C * rows.weight, hp.epsilon), kernel, self.search)
            )
        return self.adopt(
            pair_machines(
                self.entry.name, rows, self.num_classes, hp.C, hp.class_weight, kernel, self.search,
                probability=hp.probability,
            )
        )  # fmt: skip

    def adopt(self, found: KernelMachines) -> dict[str, float | Tensor]:
        self.num_support = found.num_support
        if found.curves is not None:
            self.probability_slope, self.probability_offset = found.curves.unbind(1)
        return super().adopt(found)

    # -- the fitted model ----------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Decisions of rows (B, *shape): of the pairs, (B, P), above 0 for the second; or values (B, 1)."""
        kernel = self.kernel_with_support(x.flatten(1))
        if not self.num_classes:
            return kernel @ self.dual_coef.T + self.intercept
        return pair_decisions(kernel, self.dual_coef, self.sizes or self.num_support.tolist(), self.intercept)

    def before_trace(self) -> None:
        super().before_trace()
        self.sizes = self.num_support.tolist()

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        decisions = self(batch.x)
        if not self.num_classes:
            return {"prediction": decisions.squeeze(1)}
        scores = against_the_rest(decisions, self.num_classes)
        counted = scores if self.hparams.break_ties else votes(decisions, self.num_classes)
        columns = {"prediction": counted.argmax(1)}
        if self.hparams.probability:
            pairwise = curve(decisions, self.probability_slope, self.probability_offset)
            columns["probability"] = couple(pairwise, self.num_classes)
        if self.num_classes == 2:
            columns["decision"] = decisions.squeeze(1)
        else:
            columns["decision"] = scores if self.hparams.decision == "ovr" else decisions
        return columns

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        if self.tube is not None:
            return self.tube.evaluate(self(batch.x), batch)
        assert batch.y is not None
        predicted = self.predict_batch(batch)["prediction"]
        return {"accuracy": (predicted == batch.y).double(), **dict.fromkeys(self.f1_names, predicted)}

    def pooling(self) -> dict[str, Pooling]:
        assert self.spec is not None
        return self.tube.pooling() if self.tube is not None else f1_of(self.spec)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        planar = self.spec.kind == "tabular" and self.spec.num_features == 2
        if self.num_classes and planar and self.hparams.kernel != "precomputed":
            prepared = functools.partial(self.predict_columns, raw=False)
            found = visual.decision_boundary(prepared, batch.x, batch.y, self.spec, support=self.support_vectors)
            yield "decision_boundary", found
