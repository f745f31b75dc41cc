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

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.checks import check_range
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.base import NonFiniteLossError
from zoo.models.tsne.map_model import MapModel
from zoo.models.tsne.objective import MapObjective, start_of_map
from zoo.numerics.distances import metric_name
from zoo.optimizers import Recipe
from zoo.registry import register_model

__all__ = ["TSNE"]

_MIN_RATE = 50.0

# Letters: B rows of a batch, N rows collected, D features, E dimensions of the map.


@register_model(
    "tsne",
    family="dimensionality_reduction",
    task="dimensionality_reduction",
    accepts={"tabular": None, "image": None},
    source="van der Maaten & Hinton 2008",
)
class TSNE(MapModel):
    """t-SNE: a map of points in which rows that are near each other lie near each other.

    Args:
        num_components: dimensions of the map, E.
        perplexity: effective number of neighbours of a row; below the number of rows.
        metric: one of `zoo.numerics.distances.METRICS`, or `precomputed` for rows of distances.
        method: `exact` looks at all pairs of points, `fft` interpolates (two dimensions only); `auto` takes `fft` above
            5,000 rows.
        num_neighbors: of a row, which enter P; null for all up to 5,000 rows (and for exact), else 3 · perplexity.
        early_exaggeration: factor of P during the early steps.
        early_steps: number of these.
        early_momentum: the optimizer's momentum during them.
        num_steps: steps in all.
        steps_per_epoch: steps after each pass over the data, of which only the first one is needed.
        init: `pca`, or `random` for seeded noise.
        precision: `single` or `double`, of the map.
        placement_perplexity: of new rows, when they are placed in the map.
        placement_steps: steps that place new rows.
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
        metric_name(metric)
        if method == "fft" and num_components != 2:
            raise ZooError(
                "model.method=fft makes maps of two dimensions: pass model.num_components=2 or method=exact."
            )
        if metric == "precomputed" and init == "pca":
            raise ZooError("model.metric=precomputed gives no rows to start from: pass model.init=random.")
        self.save_hyperparameters()
        self.recipe = Recipe("tsne", {})

    def initialize(self, spec: DataSpec) -> None:
        super().initialize(spec)
        self._forget()

    def _forget(self) -> None:
        """Drop what can be computed again from the rows."""
        self._objective: MapObjective | None = None
        self._own_optimizer: Optimizer | None = None

    # -- the passes ----------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return int(self.step) >= self.hparams.num_steps

    def solve(self) -> dict[str, float | Tensor]:
        if not len(self.fitted_rows):
            self._take_rows(**self._state())
            self.reset_accumulators()
        optimizer, first = self._optimizer(), int(self.step)
        last = min(first + self.hparams.steps_per_epoch, self.hparams.num_steps)
        with self.objective.side_by_side():
            for step in range(first, last):
                exaggeration = self._set_phase(optimizer, step)
                self.points.grad = self.objective.gradient(self.points.data, exaggeration)
                optimizer.step()
                self.points.sub_(self.points.mean(0))
        self.points.grad = None
        self.step.fill_(last)
        self.divergence = self.objective.divergence(self.points.data).double()
        if not bool(torch.isfinite(self.divergence)):
            raise NonFiniteLossError(f"The map is not finite any more after {last} steps: lower optimizer.lr.")
        if self.done:
            self._forget()
        return {"kl_divergence": self.divergence}

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

    def configure_optimizers(self) -> Optimizer:
        if self.recipe.l1 or self.recipe.l2 or self.recipe.scheduler != "none":
            raise ZooError("tsne has no weights to penalize and a schedule of its own: leave both out.")
        return self.recipe.build_optimizer(self)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._forget()  # it belonged to other rows
        super()._load_from_state_dict(state_dict, prefix, *args)
