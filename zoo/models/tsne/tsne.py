r"""t-SNE: a map of points in which rows that are near each other lie near each other.

```math
\min_Y \mathrm{KL}(P \| Q) = \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
q_{ij} = \frac{(1 + |y_i - y_j|^2)^{-1}}{\sum_{k \ne l} (1 + |y_k - y_l|^2)^{-1}}, \qquad
p_{ij} = \frac{p_{j|i} + p_{i|j}}{2N}, \quad p_{j|i} \propto \exp(-\beta_i \delta_{ij}^2)
```

Legend: N rows of D features at distances δ; Y (N, E) the map; each β_i is such that p_{·|i} has the wanted perplexity.

The first pass over the data collects the rows. Each pass, the first included, then takes `steps_per_epoch` steps of the
optimizer on all of them: `tsne`, momentum with gains, or any other by its name. P is multiplied by
`early_exaggeration` during the first `early_steps`.

Sources: L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", 2008; L. van der Maaten, "Accelerating t-SNE
using tree-based algorithms", 2014 (sparse P); G. Linderman et al., "Fast interpolation-based t-SNE", 2019; A. Belkina
et al., "Automated optimized parameters for t-distributed stochastic neighbor embedding", 2019 (learning rate); D. Kobak
and P. Berens, "The art of using t-SNE for single-cell transcriptomics", 2019 (start).

Deviations: rows are taken in lexicographic order, so that neither their own order nor batches nor processes change a
bit of the result (`precomputed` distances in their own order). The learning rate is N / (4 · exaggeration), at least
50, the gradient having the factor 4: N / 48 at first and N / 4 later.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.layers.loop import traced_loop
from zoo.models.base import NonFiniteLossError, StreamingModel
from zoo.models.tsne.interpolation import Field
from zoo.models.tsne.objective import MapObjective, unit_scale
from zoo.models.tsne.placement import ExactField, fixed_field, place
from zoo.numerics.distances import metric_name
from zoo.numerics.hashing import epoch_generator
from zoo.numerics.neighbors import nearest_neighbors, traceable_neighbors
from zoo.numerics.spectra import fix_signs
from zoo.optimizers import Recipe
from zoo.optimizers.delta_bar_delta import delta_bar_delta_
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TSNE", "start_of_map"]

_MIN_RATE = 50.0
_START_DEVIATION = 1e-4

# Letters: B rows of a batch, N rows collected, D features, E dimensions of the map.


def start_of_map(rows: Tensor, num_components: int, init: str = "pca", seed: int = 0) -> Tensor:
    """Return where the optimization starts: principal components (or noise) of standard deviation 1e-4.

    Noise of a hundredth of that parts rows that are equal, and fills in for components that the rows do not have.

    Args:
        rows: (N, D).
        num_components: E.
        init: `pca` or `random`.
        seed: of the noise.

    Returns:
        (N, E), float64.
    """
    noise = torch.randn(len(rows), num_components, generator=epoch_generator(seed), dtype=torch.float64)
    noise = noise.to(rows.device) * _START_DEVIATION
    if init == "random":
        return noise
    centred = unit_scale(rows.double())
    centred = centred - centred.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = fix_signs(vectors.T.flip(0)[:num_components])
    start = centred @ axes.T
    deviation = start[:, 0].std(correction=0)
    noise[:, : len(axes)] *= 0.01
    if deviation > 0:
        noise[:, : len(axes)] += start * (_START_DEVIATION / deviation)
    return noise


@register_model(
    "tsne",
    family="dimensionality_reduction",
    task="dimensionality_reduction",
    accepts={"tabular": None, "image": None},
    source="van der Maaten & Hinton 2008",
)
class TSNE(StreamingModel):
    """t-SNE: a map of points in which rows that are near each other lie near each other.

    Args:
        num_components: dimensions of the map, E.
        perplexity: effective number of neighbours of a row; below the number of rows.
        metric: one of `zoo.numerics.distances.METRICS`, or `precomputed` for rows of distances.
        method: `exact` looks at all pairs of points, `fft` interpolates (two dimensions only); `auto` interpolates
            above 10,000 rows (2,000 where there is no compiled kernel).
        num_neighbors: of a row, which enter P; null for all up to 1,000 rows (and for exact), else 3 · perplexity.
        early_exaggeration: factor of P during the early steps.
        early_steps: number of these.
        early_momentum: the optimizer's momentum during them.
        num_steps: steps in all.
        steps_per_epoch: steps after each pass over the data, of which only the first one is needed.
        init: `pca`, or `random` for seeded noise.
        precision: `single` or `double`, of the map.
        placement_perplexity: of new rows, when they are placed in the map.
        placement_steps: steps that place new rows.
        min_gradient_norm: after the early steps, a gradient of no greater norm at the end of a pass is the last.
        patience: after the early steps, for how many steps the divergence may stay above its least before it ends
            there; null for all.
        seed: of the noise at the start.

    Raises:
        ZooError: for an argument out of range, a perplexity that is not below the number of rows, or a single row.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> model = zoo.fit(zoo.create_model("tsne", perplexity=2, num_steps=300), x)
        >>> near, far = (model.embedding[0] - model.embedding[[1, 4]]).norm(dim=1)
        >>> bool(near < far)
        True

    Attributes:
        fitted_rows: the rows (N, D), in the order in which the map is made.
        fitted_labels: their classes (N,), empty where the data have none.
        points: the map (N, E), in the same order.
        order: which collected row each of them is, (N,).
        step: number of steps taken.
        divergence: KL(P ‖ Q) of the map, in nats.
    """

    def __init__(
        self,
        *,
        num_components: int = 2,
        perplexity: float = 30.0,
        metric: str = "euclidean",
        method: Literal["auto", "exact", "fft"] = "auto",
        num_neighbors: int | None = None,
        early_exaggeration: float = 12.0,
        early_steps: int = 250,
        early_momentum: float = 0.8,
        num_steps: int = 1000,
        steps_per_epoch: int = 50,
        init: Literal["pca", "random"] = "pca",
        precision: Literal["single", "double"] = "single",
        placement_perplexity: float = 5.0,
        placement_steps: int = 250,
        min_gradient_norm: float = 0.0,
        patience: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("perplexity", perplexity, 0, open_low=True)
        check_range("placement_perplexity", placement_perplexity, 0, open_low=True)
        for name, value in (("num_components", num_components), ("num_neighbors", num_neighbors)):
            check_range(name, value, 1)
        check_range("early_exaggeration", early_exaggeration, 1)
        check_range("early_momentum", early_momentum, 0, 0.999)
        for name, value in (("early_steps", early_steps), ("placement_steps", placement_steps)):
            check_range(name, value, 0)
        for name, value in (("num_steps", num_steps), ("steps_per_epoch", steps_per_epoch)):
            check_range(name, value, 1)
        check_range("min_gradient_norm", min_gradient_norm, 0)
        metric_name(metric)
        if method == "fft" and num_components != 2:
            raise ZooError(
                "model.method=fft makes maps of two dimensions: pass model.num_components=2 or method=exact."
            )
        if metric == "precomputed" and init == "pca":
            raise ZooError("model.metric=precomputed gives no rows to start from: pass model.init=random.")
        self.save_hyperparameters()
        self.recipe = Recipe("tsne", {})
        self._start: Tensor | None = None
        # Told of the steps so far, the divergence and the norm of the gradient, after each pass.
        self.report: Callable[[int, float, float], None] | None = None

    @property
    def input_dtype(self) -> torch.dtype:
        """The rows' own floating type."""
        return torch.promote_types(self.spec.torch_dtype, torch.float32) if self.spec else torch.get_default_dtype()

    def initialize(self, spec: DataSpec) -> None:
        dtype = torch.promote_types(spec.torch_dtype, torch.float32)
        width = torch.Size(spec.shape).numel()
        self.register_accumulator("rows", torch.zeros(0, width, dtype=dtype))
        self.register_accumulator("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("fitted_rows", torch.zeros(0, width, dtype=dtype))
        self.register_buffer("fitted_labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("order", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("divergence", torch.full((), math.nan, dtype=torch.float64))
        self.register_buffer("stopped", torch.tensor(False))
        self.register_buffer("least", torch.full((), math.inf, dtype=torch.float64))  # divergence after the early steps
        self.register_buffer("least_step", torch.zeros((), dtype=torch.int64))  # when it was reached
        self._chunks: list[tuple[Tensor, Tensor]] = []
        precision = torch.float64 if self.hparams.precision == "double" else torch.float32
        self.points = nn.Parameter(torch.zeros(0, self.hparams.num_components, dtype=precision))
        self._forget()

    def _forget(self) -> None:
        """Drop what can be computed again from the rows."""
        self._objective: MapObjective | None = None
        self._own_optimizer: Optimizer | None = None

    # -- the passes ----------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        if len(self.fitted_rows):
            return  # only the first pass is looked at
        if batch.weight is not None:
            raise ZooError("tsne gives all rows the same weight: leave the sample weights out.")
        assert self.spec is not None
        labels = batch.y if batch.y is not None and self.spec.target == "class" else batch.x.new_zeros(0).long()
        self._chunks.append((batch.x.flatten(1), labels))

    def _state(self) -> dict[str, Tensor]:
        if self._chunks:
            rows, labels = zip(*self._chunks, strict=True)
            self.rows, self.labels = torch.cat([self.rows, *rows]), torch.cat([self.labels, *labels])
            self._chunks = []
        return super()._state()

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    @property
    def done(self) -> bool:
        return bool(self.stopped) or int(self.step) >= self.hparams.num_steps

    def start_from(self, points: Tensor) -> None:
        """Begin the next fit with this map (N, E), by the numbers of the rows as they come; the model is built."""
        self._start = points

    @property
    def passes_needed(self) -> int:
        return -(-self.hparams.num_steps // self.hparams.steps_per_epoch)

    def solve(self) -> dict[str, float | Tensor]:
        if not len(self.fitted_rows):
            self._take_rows(**self._state())
            self.reset_accumulators()
        optimizer, first, norm = self._optimizer(), int(self.step), math.inf
        last = min(first + self.hparams.steps_per_epoch, self.hparams.num_steps)
        with self.objective.side_by_side(self.points.data):
            for step in range(first, last):
                exaggeration = self._set_phase(optimizer, step)
                self.points.grad = self.objective.gradient(self.points.data, exaggeration)
                optimizer.step()
                self.points.sub_(self.points.mean(0))
        if self.points.grad is not None:
            norm = float(torch.linalg.vector_norm(self.points.grad))
        self.points.grad = None
        self.step.fill_(last)
        self.divergence = self.objective.divergence(self.points.data).double()
        if not bool(torch.isfinite(self.divergence)):
            raise NonFiniteLossError(f"The map is not finite any more after {last} steps: lower optimizer.lr.")
        self._judge(last, norm)
        if self.report is not None:
            self.report(last, float(self.divergence), norm)
        if self.done:
            self._forget()
        return {"kl_divergence": self.divergence}

    def _judge(self, step: int, norm: float) -> None:
        """Stop where the map no longer gets better."""
        if step <= self.hparams.early_steps:
            return
        if self.divergence < self.least:
            self.least, self.least_step = self.divergence.clone(), torch.full_like(self.step, step)
        patience = self.hparams.patience
        waited = patience is not None and step - int(self.least_step) > patience
        self.stopped.fill_(waited or norm <= self.hparams.min_gradient_norm)

    def _take_rows(self, rows: Tensor, labels: Tensor) -> None:
        """Go from collecting to optimizing: put the rows in order, and the map at its start."""
        if not bool(torch.isfinite(rows).all()):
            raise ZooError("tsne was given NaN or infinite values: drop those rows or fill them in first.")
        if self.hparams.metric == "precomputed":
            if len(rows) != rows.shape[1] or bool((rows < 0).any()):
                raise ZooError(f"model.metric=precomputed needs N × N distances of 0 or more, got {tuple(rows.shape)}.")
            self.order = torch.arange(len(rows), device=rows.device)
        else:
            self.order = rows.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
        self.fitted_rows, self.fitted_labels = rows[self.order], labels[self.order] if len(labels) else labels
        assert self.objective  # what is wrong with the rows shows before the map is begun
        if self._start is not None:
            start, self._start = self._start.to(self.order.device)[self.order], None
        else:
            start = start_of_map(self.fitted_rows, self.hparams.num_components, self.hparams.init, self.hparams.seed)
        self.points.data = start.to(self.points.dtype)

    @property
    def objective(self) -> MapObjective:
        """What the map minimizes; computed from the collected rows where a checkpoint brought only these."""
        if self._objective is None:
            options = self.hparams
            self._objective = MapObjective(
                self.fitted_rows,
                options.num_components,
                options.perplexity,
                options.metric,
                options.method,
                options.num_neighbors,
            ).to(self.points.data)
        return self._objective

    # -- the optimizer -------------------------------------------------------------------------------------------

    def _set_phase(self, optimizer: Optimizer, step: int) -> float:
        """Set the momentum and, unless the user chose one, the learning rate of a step; return its exaggeration."""
        early, chosen = step < self.hparams.early_steps, self.recipe.optimizer_options
        exaggeration = self.hparams.early_exaggeration if early else 1.0
        for group in optimizer.param_groups:
            if self.recipe.optimizer == "tsne":
                if chosen.get("lr") is None:
                    group["lr"] = max(len(self.points) / (4 * exaggeration), _MIN_RATE)
                usual = chosen.get("momentum", optimizer.defaults["momentum"])
                group["momentum"] = self.hparams.early_momentum if early else usual
        return exaggeration

    def _optimizer(self) -> Optimizer:
        """The trainer's optimizer, whose state its checkpoints keep, or one of our own without a trainer."""
        if self._trainer is not None and self.trainer.optimizers:
            return self.trainer.optimizers[0]
        if self._own_optimizer is None:
            self._own_optimizer = self.configure_optimizers()
        return self._own_optimizer

    @property
    def heeds(self) -> frozenset[str]:
        return super().heeds | {"optimizer"}

    def configure_optimizers(self) -> Optimizer:
        if self.recipe.l1 or self.recipe.l2 or self.recipe.scheduler != "none":
            raise ZooError("tsne has no weights to penalize and a schedule of its own: leave both out.")
        return self.recipe.build_optimizer(self)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._forget()  # it belonged to other rows
        saved = state_dict.get(prefix + "points")
        if saved is not None:
            self.points.data = torch.empty_like(saved, device=self.points.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- the fitted map ------------------------------------------------------------------------------------------

    @property
    def embedding(self) -> Tensor:
        """The map (N, E), in the order in which the rows were collected: that of X for `zoo.fit(model, X)`."""
        self.check_fitted()
        points = self.points.data
        return torch.empty_like(points).index_copy_(0, self.order, points)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Place rows (B, *shape) in the map; one that is equal to a fitted row takes its place."""
        options, rows = self.hparams, batch.x.flatten(1)
        k = min(len(self.fitted_rows), math.ceil(3 * options.placement_perplexity))
        descend = functools.partial(delta_bar_delta_, lr=0.1, max_step=0.25)
        settings = options.placement_perplexity, options.placement_steps
        if torch.compiler.is_exporting():
            found = traceable_neighbors(self.fitted_rows, k, rows, options.metric)
            known: dict[str, Any] = {"field": self._traced_field(), "loop": traced_loop}
        else:
            fitted, rows = (unit_scale(part, self.fitted_rows) for part in (self.fitted_rows, rows))
            found, known = nearest_neighbors(fitted, k, rows, options.metric), {}
        position, divergence = place(*found, self.points.detach(), descend, *settings, **known)
        return {"prediction": position, "kl_divergence": divergence}

    def before_trace(self) -> None:
        super().before_trace()
        if unit_scale(self.fitted_rows) is not self.fitted_rows:
            raise ZooError(
                "tsne of rows as large or small as these is not exported: scale them, or use zoo.save_model."
            )
        field = fixed_field(self.points.data)  # made of transforms that a graph has no need of
        if isinstance(field, Field):
            self._spacing = field.spacing
            self.register_buffer("field_values", field.values)
            self.register_buffer("field_origin", field.origin)

    def _traced_field(self) -> Field | ExactField:
        two = self.hparams.num_components == 2
        return Field(self.field_values, self.field_origin, self._spacing) if two else ExactField(self.points)

    def check_fitted(self) -> None:
        super().check_fitted()
        if not len(self.points):
            raise ZooError(f"This {type(self).__name__} has no map yet: call zoo.fit(model, X) first.")

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        if not self.done and self._trainer is not None and self.trainer.state.fn == "fit":
            return {}  # to place rows in a map that still moves would cost more than to move it
        return {"kl_divergence": self.predict_batch(batch)["kl_divergence"]}

    # -- pictures ------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_figure") and self.hparams.num_components == 2:
            writer.add_figure("growing_map", self._picture(), global_step=self.current_epoch)

    def _picture(self, placed: Tensor | None = None) -> Figure:
        from zoo.visual.maps import point_map

        title = f"{len(self.points):,} rows after {int(self.step):,} steps, KL {float(self.divergence):.3f}"
        return point_map(self.points.data, self.fitted_labels, placed, self.spec, title)

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        if self.hparams.num_components == 2:
            yield "map", self._picture(columns["prediction"])

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        labels = self.fitted_labels.tolist()
        return self.points.data, [str(label) for label in labels] if labels else ["row"] * len(self.points)
