r"""Principal component analysis: the orthogonal directions in which rows vary most.

```math
C = \frac{1}{n - 1} \sum_i (x_i - \mu)(x_i - \mu)^\top = \sum_j \lambda_j v_j v_j^\top,\quad
\lambda_1 \ge \lambda_2 \ge \dots,\qquad
t = V_K (x - \mu),\qquad \hat x = \mu + V_K^\top t,\qquad
\sigma^2 = \frac{1}{D' - K} \sum_{j > K} \lambda_j
```

Whitening divides $t_j$ by $\sqrt{\lambda_j}$. Three solvers, by what a pass over the data adds up
(`zoo.numerics.moments`):

- `covariance`: the scatter matrix $M = (n - 1) C$, one pass, $D^2$ numbers;
- `svd`: its triangular factor $R$, one pass, for small variances beside large ones: $C$ squares their
ratio, $R$ does not;
- `randomized`: $M Q_b$ for a block $Q_b$ of $L = K$ + `oversampling` vectors, random at first, $D L$ numbers a pass,
  for rows too wide for $M$. What of the product is new to the basis $Q = [Q_1 \dots Q_b]$ is the next block (block
  Lanczos), and the eigenvectors of $Q^\top M Q$ give those of $M$ (Rayleigh-Ritz).

Legend: $n$ rows, $D$ features, $D' = \min(n, D)$, $K$ components $v_j$, the rows of $V_K$ $(K, D)$;
$\lambda_j$ their variances, $\sigma^2$ the noise variance, the mean of the variances left out.

Sources: H. Hotelling, "Analysis of a complex of statistical variables into principal components", 1933; M.
Tipping and C. Bishop, "Probabilistic principal component analysis", 1999 (noise variance, likelihood); T. Minka,
"Automatic choice of dimensionality for PCA", 2000 (`mle`); N. Halko, P.-G. Martinsson, Y. Shkolnisky and M. Tygert, "An
algorithm for the principal component analysis of large data sets", 2011, and C. Musco and C. Musco, "Randomized block
Krylov methods for stronger and faster approximate singular value decomposition", 2015 (randomized).

Deviations: signs are fixed so that a component's entry of largest magnitude is positive, the first of those
that rounding alone tells apart. The Krylov basis keeps all its blocks, orthonormal to rounding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError
from zoo.models.base import StreamingModel
from zoo.numerics.hashing import epoch_generator
from zoo.numerics.moments import centred_blocks, gram, mean_shift, scatter_blocks
from zoo.numerics.spectra import (
    components_for_share,
    fix_signs,
    greatest_eigenvalues,
    krylov_block,
    likeliest_components,
    probabilistic_log_density,
)
from zoo.numerics.triangular import qr_update
from zoo.registry import register_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PCA", "Principal", "principal_components"]

_UNSETTLED = 0.2  # residual of an eigenvector, as a share of its eigenvalue, that is worth a warning

# Letters: B rows, D features, K components, L vectors of a block, W of the basis.


class Principal(NamedTuple):
    """The components that are kept.

    Attributes:
        components: (K, D).
        variance: along each, (K,).
        share: of the whole variance, (K,).
        noise_variance: the mean of the variances left out, ().
    """

    components: Tensor
    variance: Tensor
    share: Tensor
    noise_variance: Tensor


def principal_components(
    spectrum: Tensor, vectors: Tensor, total: Tensor, count: Tensor, wanted: int | float | str | None
) -> Principal:
    """Return the principal components of rows whose scatter matrix is known by its eigenvalues.

    Args:
        spectrum: eigenvalues, descending, (W,).
        vectors: eigenvectors, one a row, (W, D).
        total: sum of all eigenvalues, ().
        count: number of rows, ().
        wanted: number of components, share of the variance, `mle`, or None for all.

    Raises:
        ZooError: for more components than rows or features.
    """
    rows, features = math.ceil(count), vectors.shape[1]
    available = min(rows, features)
    freedom = float(count) - 1
    variance = (spectrum / freedom).clamp_min(0)[:available]
    kept = count_components(variance, wanted, rows, features)
    first = variance[:kept].clone()
    explained = float(first.sum())
    whole = max(float(total) / freedom, explained)  # which rounding may have made the greater one
    noise = (whole - explained) / (available - kept) if kept < available else 0.0
    return Principal(fix_signs(vectors[:kept]), first, first / (whole or 1.0), first.new_tensor(noise))


def count_components(variance: Tensor, wanted: int | float | str | None, num_rows: int, num_features: int) -> int:
    """How many components to keep of those with these variances, descending, (D',)."""
    available = min(num_rows, num_features)
    if wanted is None:
        return available
    if wanted == "mle":
        if num_rows < num_features:
            raise ZooError("model.num_components=mle needs at least as many rows as features.")
        return likeliest_components(variance, num_rows)
    if isinstance(wanted, float):
        return components_for_share(variance, wanted)
    if int(wanted) > available:
        raise ZooError(
            f"model.num_components is {wanted}, but {num_rows} rows of {num_features} features have at most "
            f"{available} components."
        )
    return int(wanted)


@register_model(
    "pca",
    family="dimensionality_reduction",
    task="dimensionality_reduction",
    accepts={"tabular": None, "image": None},
    source="Hotelling 1933",
)
class PCA(StreamingModel):
    """Principal component analysis in one pass over the data, or a few for rows too wide for a covariance matrix.

    Args:
        num_components: how many, or the share of the variance to explain (a number between 0 and 1), or `mle` for the
            number that is most likely (at least as many rows as features), or all if null.
        solver: `covariance`, `svd` (small variances beside large ones) or `randomized` (wide rows).
        whiten: whether projections are scaled to unit variance; a component without variance gives 0.
        precision: `double` multiplies rows in float64; `single` in float32, twice as fast, to about six digits.
        oversampling: vectors of a block beyond the number of components, for the randomized solver.
        num_passes: passes of the randomized solver, of which each adds a block to its basis.
        tolerance: the residual of the components, ‖M v − λ v‖ as a share of the greatest λ, at which the randomized
            solver ends before; null takes all passes.
        seed: seed of its first block.

    Raises:
        ZooError: for an argument out of range, fewer than two rows, or more components than rows or features.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> model = zoo.fit(zoo.create_model("pca", num_components=1), x)
        >>> model.explained_variance_ratio.item(), model.components.round(decimals=4).tolist()
        (1.0, [[0.4472, 0.8944]])
    """

    needs = {key: {"solver": ("randomized",)} for key in ("oversampling", "num_passes", "tolerance", "seed")}

    def __init__(
        self,
        *,
        num_components: int | float | Literal["mle"] | None = None,
        solver: Literal["covariance", "svd", "randomized"] = "covariance",
        whiten: bool = False,
        precision: Literal["double", "single"] = "double",
        oversampling: int = 10,
        num_passes: int = 5,
        tolerance: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_components != "mle":
            check_range("num_components", num_components, 0, open_low=True)
        check_range("oversampling", oversampling, 0)
        check_range("num_passes", num_passes, 1)
        check_range("tolerance", tolerance, 0)
        if isinstance(num_components, float) and num_components >= 1:
            raise ZooError(
                f"model.num_components is {num_components}: pass an integer, or a share of the variance below 1."
            )
        if solver == "randomized" and not isinstance(num_components, int):
            raise ZooError("model.solver=randomized needs model.num_components as an integer.")
        self.save_hyperparameters()

    @property
    def rows_dtype(self) -> torch.dtype:
        """The floating type in which rows are multiplied."""
        return torch.float32 if self.hparams.precision == "single" else torch.float64

    def _cast(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        return tensor.to(self.device)  # rows are converted a block at a time, where they lie in the cache

    def initialize(self, spec: DataSpec) -> None:
        width = torch.Size(spec.shape).numel()
        self.register_accumulator("count", torch.zeros((), dtype=torch.float64))
        self.register_accumulator("mean", torch.zeros(width, dtype=torch.float64))
        if self.hparams.solver == "covariance":
            self.register_accumulator("scatter", torch.zeros(width, width, dtype=torch.float64))
        elif self.hparams.solver == "svd":
            self.register_accumulator("factor", torch.zeros(0, width, dtype=torch.float64))
        else:
            length = min(self.hparams.num_components + self.hparams.oversampling, width)
            random = torch.randn(width, length, generator=epoch_generator(self.hparams.seed), dtype=torch.float64)
            self.register_buffer("basis", torch.linalg.qr(random).Q)  # the last L columns are the pass's block
            self.register_buffer("projected", torch.zeros(0, 0, dtype=torch.float64))  # Qᵀ M Q of the passes done
            self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
            self.register_accumulator("sketch", torch.zeros(width, length, dtype=torch.float64))
            self.register_accumulator("trace", torch.zeros((), dtype=torch.float64))
        nothing = torch.zeros(0, dtype=torch.float64)
        self.register_buffer("center", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("components", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("explained_variance", nothing)
        self.register_buffer("explained_variance_ratio", nothing.clone())
        self.register_buffer("noise_variance", torch.zeros((), dtype=torch.float64))

    # -- the pass ------------------------------------------------------------------------------------------------

    def accumulate(self, batch: Batch) -> None:
        rows = self.count, self.mean, batch.x.flatten(1), batch.weight, self.rows_dtype
        if self.hparams.solver == "covariance":
            for self.count, self.mean, added in scatter_blocks(*rows):
                self.scatter += added
            return
        for self.count, self.mean, z in centred_blocks(*rows):
            for name, value in self.grown(self._state(), z).items():
                setattr(self, name, value)

    def grown(self, state: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
        """What is kept of the scatter, with the Gram matrix of rows (B, D) added."""
        if self.hparams.solver == "covariance":
            return {"scatter": state["scatter"] + gram(z)}
        if self.hparams.solver == "svd":
            return {"factor": qr_update(state["factor"], z.double())}
        block = self.basis[:, len(self.projected) :]
        product = torch.nn.functional.pad(z.T @ (z @ block.to(z.dtype)), (0, state["sketch"].shape[1] - block.shape[1]))
        return {"sketch": state["sketch"] + product, "trace": state["trace"] + z.double().square().sum()}

    def merge(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Combine the passes of several processes by the row that joins their scatters."""
        result, *others = states
        for state in others:
            count, mean, row = mean_shift(result["count"], result["mean"], state["count"], state["mean"])
            row = row.unsqueeze(0)
            if self.hparams.solver == "svd":
                second = self.grown(result, torch.cat([state["factor"], row]))
            else:
                second = self.grown({name: result[name] + state[name] for name in result}, row)
            result = {"count": count, "mean": mean, **second}
        return result

    @property
    def done(self) -> bool:
        return self.hparams.solver != "randomized" or int(self.passes) >= self.hparams.num_passes

    @property
    def passes_needed(self) -> int:
        return self.hparams.num_passes if self.hparams.solver == "randomized" else 1

    def solve(self) -> dict[str, float | Tensor]:
        rows = math.ceil(self.count)
        if rows < 2:
            raise ZooError(f"pca needs at least 2 rows to speak of variance, and was given {rows}.")
        if not bool(torch.isfinite(self.mean).all()):
            raise ZooError("pca was given NaN or infinite values: drop those rows or fill them in first.")
        if not bool(torch.isfinite(self.spread())):
            raise ZooError("pca was given values so large that their squares are no numbers: scale the data first.")
        if self.hparams.solver == "randomized":
            self.grow_basis()
            if not self.done:
                return {}
        spectrum, vectors, total = self.spectrum()
        if total < 1e-290 and 0 < self.mean.abs().max() < 1e-145:
            raise ZooError("pca was given values so small that their squares are no numbers: scale the data first.")
        found = principal_components(spectrum, vectors, total, self.count, self.hparams.num_components)
        kept, self.center = len(found.components), self.mean.clone()
        self.components, self.explained_variance, self.explained_variance_ratio, self.noise_variance = found
        return {
            "explained_variance_ratio": self.explained_variance_ratio.sum(),
            "noise_variance": self.noise_variance,
            "num_components": kept,
        }

    def spread(self) -> Tensor:
        """The sum of all squared distances from the mean, which is infinite or NaN where one of them overflows."""
        if self.hparams.solver == "covariance":
            return self.scatter.trace()
        return self.factor.square().sum() if self.hparams.solver == "svd" else self.trace

    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues of the scatter matrix, descending, its eigenvectors as rows, and the sum of all eigenvalues."""
        if self.hparams.solver == "covariance":
            wanted = self.hparams.num_components
            few = wanted if isinstance(wanted, int) else None
            return *greatest_eigenvalues(self.scatter, few), self.scatter.trace()
        if self.hparams.solver == "svd":
            _, s, vectors = torch.linalg.svd(self.factor, full_matrices=False)
            return s.square(), vectors, s.square().sum()
        values, vectors = torch.linalg.eigh(self.projected)
        return values.flip(0), (self.basis[:, : len(values)] @ vectors).T.flip(0), self.trace

    def grow_basis(self) -> None:
        """Take over the product with the last block; add the next one, unless this was the last pass."""
        if self.done:
            return
        width, old = self.basis.shape[1], len(self.projected)
        column, block = krylov_block(self.basis, self.sketch[:, : width - old], self.hparams.seed + int(self.passes))
        grown = self.projected.new_zeros(width, width)
        grown[:old, :old], grown[:, old:], grown[old:] = self.projected, column, column.T
        grown[old:, old:] = (column[old:] + column[old:].T) / 2
        self.projected = grown
        self.passes = self.passes + 1
        rest = self.sketch[:, : width - old] - self.basis @ column
        if width == len(self.basis):  # a basis of the whole space
            self.passes = torch.full_like(self.passes, self.hparams.num_passes)
        tolerance, wanted = self.hparams.tolerance, slice(-self.hparams.num_components, None)
        if not self.done and tolerance is None:
            self.basis = torch.cat([self.basis, block], 1)
            return
        values, vectors = torch.linalg.eigh(grown)
        residual = torch.linalg.vector_norm(rest @ vectors[old:], dim=0)  # ‖M v − λ v‖ of each, (W,)
        if tolerance is not None and bool((residual <= tolerance * values[-1])[wanted].all()):
            self.passes = torch.full_like(self.passes, self.hparams.num_passes)
        if not self.done:
            self.basis = torch.cat([self.basis, block], 1)
            return
        moving = residual > _UNSETTLED * values + 1e-9 * values[-1]
        if bool(moving[wanted].any()):
            warnings.warn(
                f"pca has not converged: the components still move after {int(self.passes)} passes; raise "
                "model.num_passes.",
                NotConverged,
                stacklevel=2,
            )

    # -- the fitted model ----------------------------------------------------------------------------------------

    def scale(self) -> Tensor:
        """Standard deviations of the components, (K,); infinite for one without variance."""
        variance = self.explained_variance
        none = variance <= variance.max() * len(self.center) * torch.finfo(variance.dtype).eps
        return torch.where(none, torch.inf, variance.sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Project rows (B, *shape) on the components, (B, K)."""
        projected = (x.flatten(1).double() - self.center) @ self.components.T
        return projected / self.scale() if self.hparams.whiten else projected

    def inverse_transform(self, projected: Any) -> Tensor:
        """The rows (B, *shape) that lie nearest to the given projections (B, K), an array or a tensor.

        Raises:
            ZooError: for projections on another number of components.
        """
        from zoo.data.arrays import to_tensor

        self.check_fitted()
        assert self.spec is not None
        projected = to_tensor(projected, "the projections").to(self.center.device)
        if projected.dim() != 2 or projected.shape[1] != len(self.components):
            shape = f"(N, {len(self.components)})"
            raise ZooError(f"Expected projections of shape {shape}, got {tuple(projected.shape)}.")
        return self._restore(projected.double()).unflatten(1, self.spec.shape)

    def _restore(self, projected: Tensor) -> Tensor:
        """Rows (B, D) of projections (B, K)."""
        if self.hparams.whiten:
            projected = projected * self.scale().nan_to_num(posinf=0.0)
        return projected @ self.components + self.center

    def covariance(self) -> Tensor:
        r"""The probabilistic model's $\sum_j (\lambda_j - \sigma^2) v_j v_j^\top + \sigma^2 I$, (D, D)."""
        excess = self.explained_variance - self.noise_variance
        identity = torch.eye(len(self.center), dtype=torch.float64, device=self.center.device)
        return self.components.T @ (excess.unsqueeze(1) * self.components) + self.noise_variance * identity

    def log_likelihood(self, x: Any) -> Tensor:
        """Log density of rows (B, *shape), an array or a tensor, under the probabilistic model, (B,)."""
        from zoo.data.arrays import inputs_from

        self.check_fitted()
        assert self.spec is not None
        x = inputs_from(x, self.spec).x.to(self.center.device)
        centred = x.flatten(1).double() - self.center
        return probabilistic_log_density(centred, self.components, self.explained_variance, self.noise_variance)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        projected = self(batch.x)
        error = (self._restore(projected) - batch.x.flatten(1)).square().sum(1)
        return {"prediction": projected, "squared_error": error}

    def embeddings(self, batch: Batch, columns: dict[str, Tensor]) -> tuple[Tensor, list[str]] | None:
        labels = ["row"] * batch.size if batch.y is None else [str(label) for label in batch.y.tolist()]
        return columns["prediction"], labels

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"squared_error": self.predict_batch(batch)["squared_error"]} if len(self.components) else {}

    def pictures(self, batch: Batch, columns: dict[str, Tensor]) -> Iterator[tuple[str, Figure]]:
        from zoo import visual

        assert self.spec is not None
        yield "scree", visual.scree(self.explained_variance_ratio)
        if self.spec.num_features > 2 and len(self.components) > 1 and "prediction" in columns:
            from zoo.visual.maps import point_map

            labels = batch.y if self.spec.target == "class" else None
            title = visual.titled("first two principal components")
            yield "map", point_map(columns["prediction"][:, :2], labels, spec=self.spec, title=title)
        if self.spec.kind == "image":
            shape = self.spec.shape
            shown = torch.cat([self.center.unsqueeze(0), self.components[:23]]).unflatten(1, shape)
            captions = ["mean", *(f"{100 * float(share):.1f} %" for share in self.explained_variance_ratio[:23])]
            yield "components", visual.images(shown, captions, title="mean and principal components")
