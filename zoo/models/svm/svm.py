r"""The linear support vector machine: the hyperplane with the widest margin.

```math
\min_{w, b}\ \tfrac12 \bigl(\lVert w \rVert^2 + (b / a)^2\bigr) + \sum_i C_i\, \ell(y_i, w \cdot x_i + b)
```

| loss | ℓ(y, z) |
|---|---|
| hinge, squared_hinge | max(0, 1 − y z), its square, for y = ±1 |
| epsilon_insensitive, squared_epsilon_insensitive | max(0, \|y − z\| − ε), its square, for values |

C_i = C s_i c_{y_i} with sample weights s and class weights c. Of more than two classes each has a machine against the
rest, in which the rest has no class weight, and the one with the highest score wins. The intercept is the weight of a
constant feature a (`intercept_scaling`) and is penalized with the others, as in liblinear; with a = null it is not
penalized.

Two solvers. `gradient` takes steps of any optimizer on the mean loss beside λ₂ Σ w² (`regularization.l2`; the same
minimum where λ₂ = 1 / (2 C N)); with `sgd` and `scheduler=inverse` it is Pegasos. `exact` meets the minimum by one
of two methods. `newton` takes one streaming pass an iteration, for squared losses: it adds up gradient and Hessian, and
no row is kept (`primal.py`); rows that lie in memory are one compiled call (`machines.py`). `dual` collects the rows in
one pass and descends along the coordinates of the dual (`coordinate_descent.py`).

Legend: N rows, F features, P = F + 1, C classes, K machines (1 for two classes or values, else C), B batch.

Source: Cortes & Vapnik 1995; Fan, Chang, Hsieh, Wang & Lin, "LIBLINEAR", 2008; Shalev-Shwartz, Singer & Srebro,
"Pegasos", 2007.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError, warn_of_faint
from zoo.models.base import CollectsRows, GradientModel, StreamingModel
from zoo.models.base.objectives import Classification, Regression
from zoo.models.svm.features import Look, RBFFeatures
from zoo.models.svm.kernels import too_large
from zoo.models.svm.machines import by_dual, by_newton, class_costs, objective, signs
from zoo.models.svm.primal import HeldRows, NewtonSearch, Sums, shortfall, squared_sums
from zoo.numerics.sparse import as_rows, linear, stored
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SVM"]

_LOOK = ("look_moments", "look_rows", "look_keys")
NEWTON_SIZE = 1000  # features above which `method: auto` leaves the Hessian
LOSSES = {
    "class": ("squared_hinge", "hinge"),
    "value": ("squared_epsilon_insensitive", "epsilon_insensitive"),
}


class Hinge(Classification):
    """A score for each class (one score for two), and the (squared) hinge of each against the rest.

    Args:
        spec: what the data hold.
        squared: whether the hinge is squared.
        class_weight: a weight a class, (C,).
    """

    class_weight: Tensor

    def __init__(self, spec: DataSpec, squared: bool, class_weight: Tensor) -> None:
        super().__init__(spec, binary_logit=True)
        self.squared = squared
        self.register_buffer("class_weight", class_weight)

    def signs(self, y: Tensor) -> Tensor:
        """Return ±1 for each machine, (B, K)."""
        return signs(y, self.num_classes)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        short = shortfall(output, self.signs(batch.y).to(output.dtype), None).abs()
        return ((short.square() if self.squared else short) * self.weights(batch.y).to(output.dtype)).sum(1)

    def weights(self, y: Tensor) -> Tensor:
        """Return c of each row in each machine, (B, K): of more than two classes the rest has none."""
        return class_costs(y, self.class_weight)


class Tube(Regression):
    """Values with the (squared) ε-insensitive loss.

    Args:
        spec: what the data hold.
        squared: whether the loss is squared.
        epsilon: ε.
    """

    def __init__(self, spec: DataSpec, squared: bool, epsilon: float) -> None:
        super().__init__(spec)
        self.squared, self.epsilon = squared, epsilon

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        assert batch.y is not None
        y, epsilon = batch.y.view(len(batch.y), -1), torch.as_tensor(self.epsilon)  # (B, K)
        if self.target_mean is not None and self.target_std is not None:  # gradient steps see scaled targets
            y, epsilon = (y - self.target_mean) / self.target_std, epsilon / self.target_std
        short = ((output - y.to(output.dtype)).abs() - epsilon).clamp_min(0).to(output.dtype)
        return (short.square() if self.squared else short).mean(1)

    def evaluate(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {**super().evaluate(output, batch), "loss": self.losses(output, batch)}


@register_model(
    "svm",
    family="svm",
    accepts={"tabular": ("class", "value"), "image": ("class", "value")},
    source="Cortes & Vapnik 1995",
)
class SVM(CollectsRows, StreamingModel, GradientModel):
    """A linear support vector machine, exact by Newton steps or by its dual, or by gradient steps.

    Args:
        solver: `exact` or `gradient`.
        method: of the exact solver: `newton` streams, for squared losses; `dual` collects the rows, for all losses;
            `auto` takes Newton for squared losses up to 1000 features.
        loss: `squared_hinge` or `hinge` for classes, `squared_epsilon_insensitive` or `epsilon_insensitive` for values;
            `auto` takes the squared one.
        C: the cost of a violated margin, above 0; for the exact solver.
        epsilon: ε, the error that costs nothing, for values.
        class_weight: a weight for each class, or `balanced` for n / (C n_k), by numbers of rows.
        fit_intercept: whether there is an intercept.
        intercept_scaling: a, the constant feature whose weight is the intercept; null for an intercept that is not
            penalized, with `newton`.
        features: `nystroem` or `rff` for the RBF kernel's boundary on any number of rows: the machine sees features
            whose inner products come near the kernel's (`features.py`), which one more pass learns; by Newton steps.
        num_components: how many features, M.
        gamma: γ of the kernel: a number, `scale` for 1 / (F · Var(X)) or `auto` for 1 / F.
        seed: of the waves of `rff`.
        tol: where the exact solver stops: the gradient's norm as a share of the first one's, or the spread of the
            dual's slopes.
        max_iter: passes, or rounds over the rows, at most.

    Raises:
        ZooError: for an argument out of range, a loss that does not fit the targets, or rows of one class only.

    Example:
        >>> import torch, zoo
        >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> model = zoo.fit(zoo.create_model("svm", loss="hinge"), x, y)
        >>> model.weight.round(decimals=4).tolist(), model.predict(x).tolist()
        ([[1.0]], [0, 0, 1, 1])
    """

    objective: Hinge | Tube  # type: ignore[assignment]
    _held: HeldRows | None
    search: NewtonSearch
    class_counts: Tensor
    looked: Tensor
    look_rows: Tensor
    feature_map: RBFFeatures
    loss_sum: Tensor
    gradient_sum: Tensor
    hessian_sum: Tensor
    row_counts: Tensor

    convex = True

    needs = {
        "method": {"solver": ("exact",)},
        "C": {"solver": ("exact",)},
        "epsilon": {"target": ("value",)},
        "class_weight": {"target": ("class",)},
        "intercept_scaling": {"solver": ("exact",), "fit_intercept": (True,)},
        "num_components": {"features": ("nystroem", "rff")},
        "gamma": {"features": ("nystroem", "rff")},
        "seed": {"features": ("rff",)},
        "tol": {"solver": ("exact",)},
        "max_iter": {"solver": ("exact",)},
    }

    def __init__(
        self,
        *,
        solver: Literal["exact", "gradient"] = "exact",
        method: Literal["auto", "newton", "dual"] = "auto",
        loss: Literal["auto", "squared_hinge", "hinge", "squared_epsilon_insensitive", "epsilon_insensitive"] = "auto",
        C: float = 1.0,
        epsilon: float = 0.1,
        class_weight: Literal["balanced"] | Sequence[float] | None = None,
        fit_intercept: bool = True,
        intercept_scaling: float | None = 1.0,
        features: Literal["none", "nystroem", "rff"] = "none",
        num_components: int = 300,
        gamma: float | Literal["scale", "auto"] = "scale",
        seed: int = 0,
        tol: float = 1e-4,
        max_iter: int = 1000,
    ) -> None:
        super().__init__()
        check_range("C", C, 0, open_low=True)
        check_range("epsilon", epsilon, 0)
        check_range("intercept_scaling", intercept_scaling, 0, 1e150, open_low=True)  # its square is a number
        check_range("num_components", num_components, 1)
        if not isinstance(gamma, str):
            check_range("gamma", gamma, 0)
        check_range("tol", tol, 0, open_low=True)
        check_range("max_iter", max_iter, 1)
        if class_weight is not None and class_weight != "balanced":
            class_weight = list(class_weight)
            if any(not 0 <= weight < float("inf") for weight in class_weight):
                raise ZooError(f"model.class_weight must all be 0 or more, not {class_weight}.")
        if class_weight == "balanced" and solver == "gradient":
            raise ZooError(
                "model.class_weight=balanced needs model.solver=exact: give gradient steps a list of weights."
            )
        if method == "newton" and "squared" not in loss and loss != "auto":
            raise ZooError(f"model.method=newton needs a squared loss, and model.loss is {loss}: take method=dual.")
        if method == "dual" and fit_intercept and intercept_scaling is None:
            raise ZooError(
                "model.method=dual penalizes the intercept: set model.intercept_scaling, or take method=newton."
            )
        plain = loss in ("hinge", "epsilon_insensitive")
        if features != "none" and (solver == "gradient" or method == "dual" or plain):
            raise ZooError(f"model.features={features} is fitted by Newton passes: solver=exact, and a squared loss.")
        self.save_hyperparameters()
        self.streaming = solver == "exact"
        self._in_memory, self._held = False, None
        self.has_weights = not self.streaming  # that regularization=l2 means; the exact solver's is C

    def initialize(self, spec: DataSpec) -> None:
        hp, target = self.hparams, str(spec.target)
        loss = LOSSES[target][0] if hp.loss == "auto" else hp.loss
        if loss not in LOSSES[target]:
            raise ZooError(f"model.loss={loss} does not fit the targets: take one of {', '.join(LOSSES[target])}.")
        squared = loss.startswith("squared")
        if target == "class":
            self.objective = Hinge(spec, squared, self._given_weights(int(spec.num_classes or 0)))
        else:
            self.objective = Tube(spec, squared, hp.epsilon)
        rows, features = self.objective.num_outputs, spec.num_features
        if hp.features != "none":
            self.feature_map = RBFFeatures(hp.features, features, hp.num_components, hp.gamma, hp.seed)
            for name, value in zip(_LOOK, Look.of_none(features), strict=True):
                self.register_accumulator(name, value)
            features = hp.num_components
        dtype = torch.float64 if self.streaming else None
        self.linear = nn.Linear(features, rows, bias=hp.fit_intercept, dtype=dtype)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)  # the loss is convex: every start leads to the same place
        if not self.streaming:
            return
        self.linear.requires_grad_(False)
        self.monitor = None  # the last pass is the best
        wide = features > NEWTON_SIZE and hp.intercept_scaling is not None and hp.features == "none"
        self.by_newton = hp.method == "newton" or (hp.method == "auto" and squared and not wide)
        self.takes_sparse = hp.features == "none"  # which are made of rows with their zeros
        if self.by_newton:
            self._prepare_newton(rows, features + 1)
        else:
            self.collect(features, 1 if target == "class" else spec.num_targets, sparse=spec.sparse)

    def _given_weights(self, num_classes: int) -> Tensor:
        given = self.hparams.class_weight
        if given in (None, "balanced"):
            return torch.ones(num_classes, dtype=torch.float64)
        if len(given) != num_classes:
            raise ZooError(f"model.class_weight has {len(given)} weights for {num_classes} classes: give one a class.")
        return torch.tensor(given, dtype=torch.float64)

    def _prepare_newton(self, rows: int, size: int) -> None:
        self.search = NewtonSearch(rows, size, self.hparams.tol, self.hparams.max_iter)
        # Balanced weights, and features, need a pass of their own that looks at the rows.
        known = self.hparams.class_weight != "balanced" and self.hparams.features == "none"
        self.register_buffer("looked", torch.tensor(known))
        classes = self.objective.num_classes if isinstance(self.objective, Hinge) else 1
        shapes: dict[str, tuple[int, ...]] = {"loss_sum": (rows,), "gradient_sum": (rows, size)}
        # The Hessian has its size where a pass begins: rows in memory may need none.
        shapes |= {"hessian_sum": (rows, 0, 0), "row_counts": (classes,)}
        for name, shape in shapes.items():
            self.register_accumulator(name, torch.zeros(shape, dtype=torch.float64))

    @property
    def weight(self) -> Tensor:
        """Weights without intercepts, (K, F)."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor:
        """Intercepts, (K,)."""
        return self.linear.weight.new_zeros(len(self.linear.weight)) if self.linear.bias is None else self.linear.bias

    @property
    def constant(self) -> float:
        """The constant feature a, 0 where there is no intercept."""
        hp = self.hparams
        return 0.0 if not hp.fit_intercept else 1.0 if hp.intercept_scaling is None else float(hp.intercept_scaling)

    @property
    def penalized(self) -> bool:
        """Whether the constant feature's weight is penalized."""
        return self.hparams.intercept_scaling is not None or not self.hparams.fit_intercept

    def forward(self, x: Tensor) -> Tensor:
        return linear(self._mapped(x), self.linear.weight, self.linear.bias)  # (B, K)

    def _mapped(self, x: Tensor) -> Tensor:
        """Rows (B, *shape) as the machine sees them, (B, F) or (B, M)."""
        return as_rows(x) if self.hparams.features == "none" else self.feature_map(x.flatten(1))

    # -- the passes ----------------------------------------------------------------------------------------------

    def reset_accumulators(self) -> None:
        super().reset_accumulators()
        if self.by_newton:
            rows, size = self.gradient_sum.shape
            self.hessian_sum = self.gradient_sum.new_zeros(rows, size, size)

    def accumulate(self, batch: Batch) -> None:
        assert batch.y is not None
        if not self.by_newton:
            super().accumulate(batch)
            return
        weight = stored(batch.x).new_ones(batch.size) if batch.weight is None else batch.weight
        if bool((weight < 0).any()):
            raise ZooError("svm was given a sample weight below 0: weights must be 0 or more.")
        if isinstance(self.objective, Hinge):
            self.row_counts += torch.bincount(batch.y[weight > 0], minlength=len(self.row_counts))
        else:
            self.row_counts += (weight > 0).sum()
        if not self.looked:
            if self.hparams.features != "none":
                most = self.hparams.num_components
                self._set_look(self._look().merge(Look.at(batch.x.flatten(1), most), most))
        else:
            target, cost, epsilon = self._asked(batch.y, weight)
            x = self._mapped(batch.x)
            if self._in_memory:
                self._held = self._held or HeldRows(x, target, cost, self.constant, epsilon)
                found = self._held.sums(self.search.trial)
            else:
                found = squared_sums(x, target, cost, self.search.trial, self.constant, epsilon)
            self.loss_sum += found.value
            self.gradient_sum += found.gradient
            self.hessian_sum += found.hessian

    def _asked(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, float | None]:
        """What each machine is to answer to rows and what a miss costs, (B, K), and ε for values."""
        cost = self.hparams.C * weight
        if isinstance(self.objective, Hinge):
            y = y.long()
            target = self.objective.signs(y)
            return target, cost[:, None] * self.objective.weights(y), None
        target = y.reshape(len(y), -1)
        return target, cost[:, None].expand_as(target), self.objective.epsilon

    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Take passes; of rows in memory all are one call of a kernel, or those count anew that crossed a margin."""
        rows: Any = batches() if self.by_newton and self.hparams.features == "none" else ()
        in_memory = isinstance(rows, list) and len(rows) == 1
        if in_memory and max_passes is None and (found := self._solve_at_once(self.as_batch(rows[0]))):
            return found
        self._held, self._in_memory = None, in_memory
        try:
            if not in_memory or max_passes is not None or self.hparams.class_weight == "balanced":
                return super().run_passes((lambda: rows) if in_memory else batches, max_passes)
            values = super().run_passes(lambda: rows, 1)  # in which the rows are checked
            return values if self.search.finished else self._search(self._held)
        finally:
            self._held, self._in_memory = None, False

    def _solve_at_once(self, batch: Batch) -> dict[str, float | Tensor] | None:
        """Solve by the compiled kernel, where the rows are such that it can; passes say what is amiss with others."""
        assert batch.y is not None
        weight = stored(batch.x).new_ones(batch.size) if batch.weight is None else batch.weight
        if not bool((weight > 0).all()):
            return None
        if isinstance(self.objective, Hinge):
            counts = torch.bincount(batch.y, minlength=self.objective.num_classes)
            if int((counts > 0).sum()) < 2:
                return None
            self._balance(counts)
        found = by_newton(
            self._mapped(batch.x), *self._asked(batch.y, weight), constant=self.constant, penalized=self.penalized,
            tol=self.hparams.tol, max_iter=self.hparams.max_iter,
        )  # fmt: skip
        if found is None:
            return None
        assert found.value is not None
        assert found.norm is not None
        self.looked.fill_(True)
        self.search.settle(found.weight, found.value, found.converged, int(found.iterations.max()))
        return self._stand(found.norm.norm())

    def _search(self, held: HeldRows | None) -> dict[str, float | Tensor]:
        """Go on from the first pass over rows in memory to the minimum."""
        assert held is not None
        while not self.search.finished:
            found = held.sums(self.search.trial)
            if not all(bool(part.isfinite().all()) for part in (found.value, found.gradient)):
                raise too_large("svm")
            sums = self._step(found)
        self.loss_sum, self.gradient_sum, self.hessian_sum = found
        return self._stand(sums.gradient.norm())

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        if not self.by_newton:
            return super().merge(states)
        sums = StreamingModel.merge(self, [{k: v for k, v in s.items() if k not in _LOOK} for s in states])
        if self.hparams.features == "none":
            return sums
        looks = (Look(*(state[name] for name in _LOOK)) for state in states)
        joint = functools.reduce(lambda a, b: a.merge(b, self.hparams.num_components), looks)
        return {**sums, **dict(zip(_LOOK, joint, strict=True))}

    def _look(self) -> Look:
        return Look(*(getattr(self, name) for name in _LOOK))

    def _set_look(self, look: Look) -> None:
        for name, value in zip(_LOOK, look, strict=True):
            setattr(self, name, value)

    # -- the solution --------------------------------------------------------------------------------------------

    def solve(self) -> dict[str, float | Tensor]:
        return self._newton_step() if self.by_newton else self._descend()

    def _newton_step(self) -> dict[str, float | Tensor]:
        total = self.row_counts.sum()
        if not self.looked:
            self._check_classes(self.row_counts)
            self._balance(self.row_counts)
            if self.hparams.features != "none":
                self.feature_map.learn(self._look())
                self._set_look(Look.of_none(self.look_rows.shape[1]))
            self.looked.fill_(True)
            return {"rows": total}
        self._check_classes(self.row_counts)
        if not all(bool(found.isfinite().all()) for found in (self.loss_sum, self.gradient_sum, self.hessian_sum)):
            raise too_large("svm")
        if not self.search.passes and self.hparams.features == "none":
            warn_of_faint("svm", self.hessian_sum.diagonal(dim1=1, dim2=2).amax(0)[:-1])
        sums = self._step(Sums(self.loss_sum, self.gradient_sum, self.hessian_sum))
        return self._stand(sums.gradient.norm())

    def _step(self, found: Sums) -> Sums:
        """Take the search's step by sums over all rows; return these with the penalty."""
        trial = self.search.trial
        penalty = torch.ones_like(trial[0])
        if not self.penalized:
            penalty[-1] = 0
        penalized = penalty * trial
        sums = Sums(
            found.value + 0.5 * (penalized * trial).sum(1), found.gradient + penalized, found.hessian + penalty.diag()
        )
        self.search.update(*sums)
        return sums

    def _stand(self, gradient_norm: Tensor) -> dict[str, float | Tensor]:
        """Take over where the search stands, of which the last gradient had that norm."""
        self._set(self.search.best)
        if self.search.finished and not self.search.converged:
            self._warn("passes")
        return {"objective": self.search.value.sum(), "gradient_norm": gradient_norm}

    def _descend(self) -> dict[str, float | Tensor]:
        rows = self.take(sort=False)
        if isinstance(self.objective, Hinge):
            counts = rows.y.long().bincount(minlength=self.objective.num_classes)
            self._check_classes(counts)
            self._balance(counts)
        asked, squared = self._asked(rows.y, rows.weight), self.objective.squared
        found = by_dual(
            rows.x, *asked, squared=squared, constant=self.constant, tol=self.hparams.tol,
            max_iter=self.hparams.max_iter, order=rows.rank.argsort(),
        )  # fmt: skip
        self._set(found.weight)
        self.dual_coef, self.rounds = found.beta, found.iterations
        if not bool(found.converged.all()):
            self._warn("rounds")
        value = objective(rows.x, *asked, found.weight, squared=squared, constant=self.constant).sum()
        return {"objective": value, "rounds": float(self.rounds.max())}

    def _check_classes(self, counts: Tensor) -> None:
        if not counts.sum() > 0:
            raise ZooError("There is no row with a positive weight to fit svm to.")
        if isinstance(self.objective, Hinge) and int((counts > 0).sum()) < 2:
            raise ZooError(
                f"svm needs rows of at least two classes: all {int(counts.sum()):,} are of class "
                f"{int(counts.argmax())}."
            )

    def _balance(self, counts: Tensor) -> None:
        if self.hparams.class_weight == "balanced" and isinstance(self.objective, Hinge):
            counts = counts.double()  # quotients of integers are float32
            even = counts.sum() / (counts > 0).sum()
            self.objective.class_weight = torch.where(counts > 0, even / counts, 1.0)

    def _set(self, point: Tensor) -> None:
        """Copy weights with that of the constant last, (K, P), to the layer."""
        self.linear.weight.copy_(point[:, :-1])
        if self.linear.bias is not None:
            self.linear.bias.copy_(self.constant * point[:, -1])

    def _warn(self, what: str) -> None:
        warnings.warn(
            f"svm has not converged in {self.hparams.max_iter} {what}: raise model.max_iter, or scale the data.",
            NotConverged,
            stacklevel=4,
        )

    @property
    def done(self) -> bool:
        return not self.by_newton or self.search.finished

    # -- the fitted model ----------------------------------------------------------------------------------------

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Classes with the scores that decide, (B,) for two classes and (B, C) for more; or values."""
        output = self.output(batch)
        columns = {"prediction": self.objective.predict(output)}
        if isinstance(self.objective, Hinge):
            columns["decision"] = output.squeeze(1) if self.objective.binary_logit else output
        return columns

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        yield from super().pictures(batch, columns)
        if self.hparams.features == "none" and self.spec is not None and self.spec.kind == "tabular":
            from zoo import visual

            standardized = self.preprocessing is not None and self.preprocessing.scaling is not None
            names = visual.output_names(self.spec, len(self.weight))
            yield "coefficients", visual.coefficients(self.weight, self.spec, names, standardized)

    def pictures_of_answers(self, y: Tensor, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        yield from super().pictures_of_answers(y, columns)
        if isinstance(self.objective, Hinge) and self.objective.binary_logit:
            from zoo import visual

            assert self.spec is not None
            yield "margins", visual.margins(columns["decision"], y, self.spec)
