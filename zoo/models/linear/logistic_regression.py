r"""Logistic regression: class probabilities from an affine map.

Two classes (one weight vector, with `binary_logit`), and C classes:

```math
z_i = w \cdot x_i + b, \qquad \hat p_i = \frac1{1 + e^{-z_i}}, \qquad
L = \sum_i \log(1 + e^{z_i}) - y_i z_i, \qquad \nabla_w L = \sum_i (\hat p_i - y_i)\, x_i
```
```math
\hat p_{ik} = \frac{e^{z_{ik}}}{\sum_l e^{z_{il}}}, \qquad L = \sum_i \log \sum_k e^{z_{ik}} - z_{i y_i}
```

The objective is J = 1/S Σ s_i c_{y_i} loss_i + λ₁ Σ|w| + λ₂ Σ w², S = Σ s_i, with sample weights s and class
weights c; intercepts are not penalized. `solver: gradient` takes steps of any optimizer. `solver: exact` takes
one streaming pass an iteration: it adds up value, gradient and (for Newton) Hessian of the mean loss in
float64, and `zoo.models.linear.minimizers` makes the next weights of them. A pass before them takes mean m and
deviation of each feature (and counts the classes), so that the iterations see (x − m) / σ and neither units nor a far
origin cost a digit: w = w̃ / σ, b = b̃ − w·m, with penalties λ₁ / σ and λ₂ / σ² on w̃, and 8 λ₂ added to the variance σ².
Rows that are a sparse matrix stay as they are: without a Hessian the weights and the gradient are standardized instead.

```math
\nabla^2_w L = \sum_i \hat p_i (1 - \hat p_i)\, x_i x_i^\top, \qquad
\nabla^2_{w_k w_l} L = \sum_i \hat p_{ik} (δ_{kl} - \hat p_{il})\, x_i x_i^\top
```

Legend: B batch, F features, P = F + 1 (the intercept comes last; P = F without), C classes, K rows of weights (1 or C),
D = KP.

Source: Cox 1958; Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed. 2009, §4.4.
Deviations: the seeds' log-likelihood y log p̂ + (1 − y) log(1 − p̂) lacks the minus sign that makes it a loss,
and their gradient the sum over examples; both are put in. log(1 + eᶻ) is computed in a form that cannot overflow.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError
from zoo.kernels import log_loss as compiled
from zoo.models.base import GradientModel, StreamingModel
from zoo.models.base.objectives import Classification
from zoo.models.linear.descent import (
    Rows,
    in_users_units,
    inverse_scales,
    location,
    minimize,
    ridge_of,
    units_of,
)
from zoo.models.linear.log_loss import cost, cost_gradient, derivatives, link, residuals
from zoo.models.linear.minimizers import LBFGS, Minimizer, Newton, pseudo_gradient
from zoo.numerics.moments import mean_shift
from zoo.numerics.sparse import as_rows, is_sparse, linear
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LogisticRegression", "cost", "cost_gradient", "derivatives", "link"]

NEWTON_SIZE = 1000  # dimensions above which `method: auto` leaves the Hessian
CHUNK = 2**17  # rows × numbers each that are worked on at once: they stay in the cache
IN_MEMORY = 2**22  # rows × numbers each up to which rows that come as one batch are kept standardized


class WeightedClassification(Classification):
    """Classification in which the loss of each example counts c_y times.

    Args:
        spec: what the data hold.
        binary_logit: one logit for two classes.
        class_weight: a weight a class, or `balanced`: n / (C n_k), from the rows counted so far.
    """

    class_weight: Tensor
    class_counts: Tensor

    def __init__(self, spec: DataSpec, binary_logit: bool, class_weight: str | Sequence[float] | None) -> None:
        super().__init__(spec, binary_logit)
        self.balanced = class_weight == "balanced"
        given = None if self.balanced or class_weight is None else class_weight
        if given is not None and len(given) != self.num_classes:
            raise ZooError(
                f"model.class_weight has {len(given)} weights for {self.num_classes} classes: give one a class."
            )
        weights = torch.ones(self.num_classes) if given is None else torch.tensor(given)
        self.register_buffer("class_weight", weights.double())
        self.register_buffer("class_counts", torch.zeros(self.num_classes, dtype=torch.float64))

    def count(self, counts: Tensor) -> None:
        """Add (weighted) numbers of rows of each class, (C,), and balance by all that were added."""
        if self.balanced:
            self.class_counts += counts
            seen = self.class_counts > 0
            even = self.class_counts.sum() / seen.sum()
            self.class_weight = torch.where(seen, even / self.class_counts, 1.0)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return super().losses(output, batch) * self.class_weight[batch.y].to(output.dtype)


@register_model(
    "logistic_regression",
    family="linear",
    accepts={"tabular": "class", "image": "class"},
    source="Cox 1958",
)
class LogisticRegression(StreamingModel, GradientModel):
    """Logistic regression by gradient steps, or exactly with one streaming pass an iteration.

    Args:
        solver: `gradient` or `exact`.
        method: of the exact solver; `auto` takes `newton` up to 1000 weights and `lbfgs` above.
        class_weight: a weight for each class, or `balanced` for n / (C n_k), which the exact solver counts in a
            pass of its own and the gradient solver over the batches seen so far.
        binary_logit: for two classes one weight vector instead of two.
        fit_intercept: whether there is an intercept; it is not penalized.
        positive: whether all weights but the intercepts must be 0 or more, for the exact solver.
        tol: the exact solver stops when a step promises less than this share of the objective.
        gradient_tol: it stops, too, where no derivative of the objective by a weight or an intercept is greater than
            this; null asks for `tol` alone.
        max_iter: iterations of the exact solver at most.
        warm_start: whether a second fit of the exact solver starts from the weights of the first one, instead of zero.

    Raises:
        ZooError: if a class weight is not positive, a tolerance or `max_iter` is out of range, or signs are constrained
            with `gradient`.

    Example:
        >>> import torch, zoo
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0, 1])
        >>> model = zoo.fit(zoo.create_model("logistic_regression"), x, y)
        >>> model.weight.round(decimals=4).item()
        0.9082
    """

    objective: WeightedClassification
    minimizer: Minimizer
    looked: Tensor
    shift: Tensor
    inverse_scale: Tensor
    l1: Tensor
    l2: Tensor
    row_counts: Tensor
    mean: Tensor
    spread: Tensor
    loss_sum: Tensor
    gradient_sum: Tensor
    hessian_sum: Tensor
    num_wrong: Tensor

    convex = True
    takes_single = True

    needs = {key: {"solver": ("exact",)} for key in ("method", "tol", "gradient_tol", "max_iter", "warm_start")}

    def __init__(
        self,
        *,
        solver: Literal["gradient", "exact"] = "exact",
        method: Literal["auto", "newton", "lbfgs"] = "auto",
        class_weight: Literal["balanced"] | Sequence[float] | None = None,
        binary_logit: bool = True,
        fit_intercept: bool = True,
        positive: bool = False,
        tol: float = 1e-12,
        gradient_tol: float | None = None,
        max_iter: int = 100,
        warm_start: bool = False,
    ) -> None:
        super().__init__()
        if class_weight is not None and class_weight != "balanced":
            class_weight = list(class_weight)
            if any(not 0 < weight < float("inf") for weight in class_weight):
                raise ZooError(f"model.class_weight must all be positive, not {class_weight}.")
        check_range("tol", tol, 0)
        check_range("gradient_tol", gradient_tol, 0)
        check_range("max_iter", max_iter, 1)
        if positive and solver == "gradient":
            raise ZooError("model.positive=true needs model.solver=exact: gradient steps keep no sign.")
        self.save_hyperparameters()
        self.streaming, self.binary_logit = solver == "exact", binary_logit

    def initialize(self, spec: DataSpec) -> None:
        self.objective = WeightedClassification(spec, self.binary_logit, self.hparams.class_weight)
        rows, features = self.objective.num_outputs, spec.num_features
        dtype = torch.float64 if self.streaming else None
        self.linear = nn.Linear(features, rows, bias=self.hparams.fit_intercept, dtype=dtype)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)  # the loss is convex: every start leads to the same place
        if self.streaming:
            self.linear.requires_grad_(False)
            self.monitor = None  # the last pass is the best
            self._prepare_exact(rows, features)
            self.takes_sparse = spec.sparse and isinstance(self.minimizer, LBFGS)

    def _prepare_exact(self, rows: int, features: int) -> None:
        columns = features + int(self.hparams.fit_intercept)
        size = rows * columns
        newton = self.hparams.method == "newton" or (self.hparams.method == "auto" and size <= NEWTON_SIZE)
        positive = (torch.arange(columns) < features).repeat(rows) if self.hparams.positive else None
        self.minimizer = (Newton if newton else LBFGS)(size, self.hparams.tol, self.hparams.max_iter, positive)
        self.register_buffer("looked", torch.zeros((), dtype=torch.bool))
        sizes = {"shift": features, "inverse_scale": features, "l1": size, "l2": size}
        for name, length in sizes.items():
            self.register_buffer(name, torch.zeros(length, dtype=torch.float64))
        shapes: dict[str, tuple[int, ...]] = {"loss_sum": (), "gradient_sum": (size,), "num_wrong": ()}
        shapes |= {"row_counts": (self.objective.num_classes,), "mean": (features,), "spread": (features,)}
        for name, shape in {**shapes, **({"hessian_sum": (size, size)} if newton else {})}.items():
            self.register_accumulator(name, torch.zeros(shape, dtype=torch.float64))

    @property
    def weight(self) -> Tensor:
        """Weights without intercepts, (K, F)."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor:
        """Intercepts, (K,)."""
        return self.linear.weight.new_zeros(len(self.linear.weight)) if self.linear.bias is None else self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if is_sparse(x):
            return linear(x, self.linear.weight, self.linear.bias)
        return self.linear(x.flatten(1).to(self.linear.weight.dtype))  # (B, K)

    # -- gradient solver -----------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        if not self.streaming:
            assert batch.y is not None
            self.objective.count(self._count(batch.y, batch.weight))
        return super().training_step(batch, batch_idx)

    def _count(self, y: Tensor, weight: Tensor | None) -> Tensor:
        weight = None if weight is None else weight.double()
        return torch.bincount(y, weight, minlength=self.objective.num_classes).double()

    # -- exact solver: the passes ----------------------------------------------------------------------------

    def begin(self) -> None:
        before = [p.clone() for p in self.linear.parameters()] if self.hparams.warm_start and self.spec else []
        super().begin()
        for parameter, value in zip(self.linear.parameters() if before else (), before, strict=True):
            parameter.data.copy_(value)

    def accumulate(self, batch: Batch) -> None:
        assert batch.y is not None
        x = as_rows(batch.x)
        whole = is_sparse(x) or compiled.available(x)
        rows = max(1, batch.size if whole else CHUNK // self._width)
        xs = [x] if whole else x.split(rows)
        weights = itertools.repeat(None) if batch.weight is None else batch.weight.double().split(rows)
        for part, y, s in zip(xs, batch.y.split(rows), weights, strict=False):
            if self.looked:
                loss, wrong, gradient, hessian = self._evaluate(part, y, s)
                self.loss_sum += loss
                self.num_wrong += wrong
                self.gradient_sum += gradient
                if hessian is not None:
                    self.hessian_sum += hessian
            else:
                self._look(part, s)
            self.row_counts += self._count(y, s)

    @property
    def _width(self) -> int:
        """How many numbers a row takes while it is worked on."""
        columns, size = len(self.shift) + int(self.hparams.fit_intercept), self.minimizer.size
        return size if "hessian_sum" in self._accumulators else columns + size // columns

    def _look(self, x: Tensor, s: Tensor | None) -> None:
        """Add rows (B, F) to mean and spread, √Σ s (x − m)²; both about zero where there is no intercept."""
        total, middle, spread = location(x, s, centred=self.hparams.fit_intercept)
        _, self.mean, joint = mean_shift(self.row_counts.sum(), self.mean, total, middle)
        self.spread = torch.hypot(torch.hypot(self.spread, spread), joint)

    def _design(self, x: Tensor) -> Tensor:
        """Standardized rows (B, F), with a column of ones for an intercept, (B, P)."""
        design = self.shift.new_ones(len(x), len(self.shift) + int(self.hparams.fit_intercept))
        torch.sub(x, self.shift, out=design[:, : x.shape[1]]).mul_(self.inverse_scale)
        return design

    def _evaluate(
        self, x: Tensor, y: Tensor, s: Tensor | None, design: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Sums of losses and of the weights of rows in a wrong class at the minimizer's point, gradient and Hessian.

        Args:
            x: rows, (B, F).
            y: classes, (B,).
            s: weights, (B,); one each by default.
            design: the rows standardized, (B, P), where that has been done.
        """
        point, newton = self.minimizer.point.view(self.objective.num_outputs, -1), "hessian_sum" in self._accumulators
        by_class = None if self.hparams.class_weight is None else self.objective.class_weight
        if is_sparse(x):
            return self._evaluate_sparse(x, y, s, point, by_class)
        if compiled.available(x):
            found = compiled.log_loss(x, self.shift, self.inverse_scale, y.long(), s, by_class, point, newton)
            (loss, wrong), gradient, hessian = found
            return loss, wrong, gradient.view(-1), hessian if newton else None
        design = self._design(x) if design is None else design
        z = (point @ design.T).T  # of this layout are the losses
        wrong = self._wrong(z, y, s)
        if by_class is not None:
            s = by_class[y] * (1.0 if s is None else s)
        loss, gradient, bend = derivatives(z, design, y, s, hessian=newton)
        return loss, wrong, gradient.flatten(), bend

    def _evaluate_sparse(
        self, x: Tensor, y: Tensor, s: Tensor | None, point: Tensor, by_class: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """The same of a sparse matrix, at weights that are standardized instead of its rows."""
        weight = point[:, : len(self.shift)] * self.inverse_scale
        z = linear(x, weight, point[:, len(self.shift) :].sum(1) - weight @ self.shift)
        wrong = self._wrong(z, y, s)
        if by_class is not None:
            s = by_class[y] * (1.0 if s is None else s)
        loss, residual, _ = residuals(z, y, s)
        total = residual.sum(0).unsqueeze(1)  # (K, 1): the derivatives by the intercepts
        gradient = (residual.T @ x - total * self.shift) * self.inverse_scale
        if self.hparams.fit_intercept:
            gradient = torch.cat([gradient, total], 1)
        return loss, wrong, gradient.flatten(), None

    def _wrong(self, z: Tensor, y: Tensor, s: Tensor | None) -> Tensor:
        """How many rows, by weight, the logits put into another class than theirs, ()."""
        wrong = self.objective.predict(z) != y
        return wrong.sum() if s is None else s @ wrong.to(s.dtype)

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes: sums add up, means and spreads merge."""
        merged = super().merge(states)
        count, mean, spread = states[0]["row_counts"].sum(), states[0]["mean"], states[0]["spread"]
        for state in states[1:]:
            count, mean, joint = mean_shift(count, mean, state["row_counts"].sum(), state["mean"])
            spread = torch.hypot(torch.hypot(spread, state["spread"]), joint)
        return {**merged, "mean": mean, "spread": spread}

    # -- exact solver: the next point ----------------------------------------------------------------------

    def solve(self) -> dict[str, float | Tensor]:
        total = self.row_counts.sum()
        if not total > 0:
            raise ZooError("There is no row with a positive weight to fit logistic_regression to.")
        if not self.looked:
            self._begin_iterations(total)
            return {"rows": total}
        hessian = self.hessian_sum if "hessian_sum" in self._accumulators else None
        point = self.minimizer.point
        value, gradient = self._advance(total, self.loss_sum, self.gradient_sum, hessian, self._units())
        self._show(self.num_wrong)
        return self._logged(point, value, gradient, self.num_wrong / total)

    def _advance(
        self, total: Tensor, loss: Tensor, gradient: Tensor, hessian: Tensor | None, units: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Take the sums of a pass to the minimizer; return the smooth part of the objective and its gradient."""
        point = self.minimizer.point
        value = loss / total + self.l2 @ point.square()
        gradient = (gradient / total).addcmul_(self.l2, point, value=2)
        l1 = self.l1 if self.recipe.l1 else None
        limit = self.hparams.gradient_tol
        settled = limit is not None and self._steepest(gradient, l1, units) <= limit
        bend = None if hessian is None or settled else self._hessian(hessian, total)
        self.minimizer.update(value, gradient, l1, bend, settled=settled)
        return value, gradient

    def _units(self) -> tuple[Tensor, Tensor]:
        return units_of(self.shift, self.inverse_scale)

    def _steepest(self, gradient: Tensor, l1: Tensor | None, units: tuple[Tensor, Tensor]) -> float:
        """The greatest derivative of the objective by a weight or an intercept as the user knows them."""
        scale, shift = units
        slope = gradient.view(self.objective.num_outputs, -1).clone()
        by_weight = slope[:, : len(scale)].mul_(scale)
        if self.hparams.fit_intercept:  # which a weight moves, too, where rows are centred
            by_weight.addcmul_(slope[:, -1:], shift)
        if l1 is not None:
            l1 = torch.where(l1 > 0, self.recipe.l1, 0.0)
        return float(pseudo_gradient(slope.flatten(), self.minimizer.point, l1, self.minimizer.positive).abs().max())

    def _logged(self, point: Tensor, value: Tensor, gradient: Tensor, wrong: Tensor) -> dict[str, float | Tensor]:
        slope = pseudo_gradient(gradient, point, self.l1, self.minimizer.positive)
        objective = value + self.l1 @ point.abs()
        return {"objective": objective, "gradient_norm": slope.abs().max(), "accuracy": 1 - wrong}

    def run_passes(self, batches: Callable[[], Iterable[Any]], max_passes: int | None = None) -> dict[str, Any]:
        """Take passes; few rows that lie in memory are standardized once."""
        rows: Any = batches() if self.streaming else None
        in_memory = isinstance(rows, list) and len(rows) == 1 and not is_sparse(rows[0].x)
        fits = in_memory and (rows[0].size * self._width <= IN_MEMORY or compiled.available(rows[0].x))
        if not fits or self.takes_sparse:
            return super().run_passes(batches, max_passes)
        values = {} if self.looked else super().run_passes(lambda: rows, 1)
        left = self.hparams.max_iter if max_passes is None else max_passes - 1
        if self.done or left < 1:
            return values
        with torch.no_grad():
            x, y, s = (batch := self.as_batch(rows[0])).x.flatten(1).contiguous(), batch.y, batch.weight
            assert y is not None
            s = None if s is None else s.double()
            design = None if compiled.available(x) else self._design(x)
            total, units = self._count(y, s).sum(), self._units()
            if compiled.available(x) and max_passes is None and (found := self._minimize(x, y, s, total)):
                return found
            while left and not self.done:
                point, left = self.minimizer.point, left - 1
                loss, wrong, gradient, hessian = self._evaluate(x, y, s, design)
                value, gradient = self._advance(total, loss, gradient, hessian, units)
            self._show(wrong)
            return self._logged(point, value, gradient, wrong / total)

    def _minimize(self, x: Tensor, y: Tensor, s: Tensor | None, total: Tensor) -> dict[str, Any] | None:
        """Make all passes over rows in memory in compiled code; None where that leaves it to the minimizer."""
        minimizer = self.minimizer
        if self.recipe.l1 or minimizer.positive is not None or minimizer.passes:
            return None
        by_class = None if self.hparams.class_weight is None else self.objective.class_weight
        outputs = self.objective.num_outputs
        rows = Rows(x, y.long(), s, by_class, self.shift, self.inverse_scale)
        point, gradient, (_, wrong), found = minimize(
            rows, minimizer.point.view(outputs, -1), self.l2.view(outputs, -1), total=float(total),
            tolerance=minimizer.tolerance, limit=self.hparams.gradient_tol, max_passes=minimizer.max_passes,
            method=self.hparams.method,
        )  # fmt: skip
        if not minimizer.end(point.view(-1), *found.tolist()):
            return None
        self._show(wrong)
        return self._logged(minimizer.point, found[2], gradient.view(-1), wrong / total)

    def _begin_iterations(self, total: Tensor) -> None:
        """Take shift and scale from the pass that was made, and the weights as they are for the first point."""
        if not torch.isfinite(self.mean + self.spread).all():
            raise ZooError("The features hold NaN or infinite values (or overflow): fill in or scale them first.")
        self.objective.count(self.row_counts)
        deviation = self.spread / total.sqrt()
        self.shift, self.inverse_scale = self.mean.clone(), inverse_scales(self.mean, deviation, self.recipe.l2)
        point = self.minimizer.point.view(self.objective.num_outputs, -1)
        point[:, : len(self.shift)] = self.weight * self._units()[0]
        if self.hparams.fit_intercept:
            point[:, -1] = self.bias + self.weight @ self.shift
        self._take_penalties()
        self.looked.fill_(True)

    def _take_penalties(self) -> None:
        """Set λ₁ and λ₂ of each coordinate, (D,): zero for the intercepts."""
        features, rows = len(self.shift), self.objective.num_outputs
        self.l1.view(rows, -1)[:, :features] = self.recipe.l1 * self.inverse_scale
        self.l2.view(rows, -1)[:, :features] = ridge_of(self.recipe.l2, self.inverse_scale)

    def _free_columns(self) -> slice:
        """Columns of the weights to which softmax lets one number be added for all classes at no cost."""
        return slice(len(self.shift) if self.recipe.l1 or self.hparams.positive else 0, None)

    def _hessian(self, total_hessian: Tensor, total: Tensor) -> Tensor:
        hessian = total_hessian / total
        hessian.diagonal().add_(self.l2, alpha=2)
        rows = self.objective.num_outputs
        if rows > 1:  # curvature in the directions that cost nothing, so that the system has one solution
            blocks = hessian.view(rows, -1, rows, hessian.shape[1] // rows).diagonal(dim1=1, dim2=3)  # (K, K, P)
            blocks[..., self._free_columns()] += blocks.diagonal().mean(-1)[self._free_columns()] / rows
        return hessian

    def _show(self, wrong: Tensor) -> None:
        """Copy the minimizer's point to the weights: of all that softmax cannot tell apart, that of sum 0."""
        point = self.minimizer.point.view(self.objective.num_outputs, -1)
        weight, bias = in_users_units(point, self.shift, self.inverse_scale, self._free_columns())
        self.linear.weight.copy_(weight)
        if self.linear.bias is not None:
            self.linear.bias.copy_(bias)
        if self.minimizer.finished:
            self._warn(wrong)

    def _warn(self, wrong: Tensor) -> None:
        if not (wrong or self.recipe.l1 or self.recipe.l2):
            warnings.warn(
                "The classes are linearly separable: without a penalty the loss has no minimum and the weights "
                "grow with every pass. Set regularization=l2, or l2= of zoo.fit.",
                stacklevel=3,
            )
        elif not self.minimizer.converged:
            warnings.warn(
                f"logistic_regression has not converged in {self.hparams.max_iter} iterations: raise model.max_iter, "
                "take model.method=newton, or set regularization=l2.",
                NotConverged,
                stacklevel=3,
            )

    @property
    def done(self) -> bool:
        return self.minimizer.finished

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        yield from super().pictures(batch, columns)
        assert self.spec is not None
        names = self.spec.class_names or [f"class {k}" for k in range(self.spec.num_classes or 0)]
        if self.spec.kind == "image":
            weight = self.weight.view(len(self.weight), *self.spec.shape)
            yield "coefficients", visual.filters(weight, title=f"coefficients of {', '.join(names[-len(weight) :])}")
            return
        outputs = visual.output_names(self.spec, len(self.weight))
        standardized = self.preprocessing is not None and self.preprocessing.scaling is not None
        yield "coefficients", visual.coefficients(self.weight, self.spec, outputs, standardized)
