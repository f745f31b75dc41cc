"""PCA and IncrementalPCA under scikit-learn's names."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.decomposition
import torch
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from zoo.data.spec import Batch
from zoo.models.pca import PCA as PCAModel
from zoo.models.pca import Principal, principal_components
from zoo.numerics.moments import average, centred_blocks, scatter_blocks, scatter_of
from zoo.numerics.spectra import greatest_eigenvalues, leading_spectrum, probabilistic_log_density
from zoo.numerics.threads import of_few_threads
from zoo.numerics.triangular import qr_update
from zoo.sklearn.base import ZooEstimator, constraints
from zoo.sklearn.rows import dense_blocks, tensor_of, validate_data

__all__ = ["PCA", "IncrementalPCA"]

_ROUNDING = 1e-12  # residual of eigenvectors that counts as met
_MANY_PASSES = 10_000
_SMALLEST, _GREATEST = 1e-20, 1e30  # mean squares between which float32 holds all that counts


class _Projection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ZooEstimator):
    """What the two estimators share: answers from `components_`, `mean_` and the variances as they stand."""

    n_components: Any
    whiten: bool
    components_: np.ndarray
    mean_: np.ndarray
    explained_variance_: np.ndarray
    noise_variance_: float

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_rows(self, X: Any, *, reset: bool, **options: Any) -> Any:
        """Return checked rows, dense or sparse."""
        types = [np.float64, np.float32]
        return validate_data(self, X, reset=reset, dtype=types, accept_sparse="csr", **options)

    def _keep(self, found: Principal, mean: Tensor, num_rows: int, dtype: Any, kept: int | None = None) -> None:
        """Show the components, `kept` of them or all, in the type of the rows."""
        components, values, shares, noise = (part.cpu().numpy() for part in found)
        self.components_ = components[:kept].astype(dtype)
        self.explained_variance_ = values[:kept].astype(dtype)
        self.explained_variance_ratio_ = shares[:kept].astype(dtype)
        self.singular_values_ = np.sqrt(values[:kept] * max(num_rows - 1, 0)).astype(dtype)
        self.mean_ = mean.cpu().numpy().astype(dtype)
        self.noise_variance_ = float(values.mean() if kept == 0 else noise)
        self.n_components_ = len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _scale(self) -> np.ndarray:
        """Standard deviations of the components, (K,); infinite for one without variance."""
        deviation = np.sqrt(self.explained_variance_)
        least = self.explained_variance_.max(initial=0.0) * len(self.mean_) * np.finfo(np.float64).eps
        return np.where(self.explained_variance_ > least, deviation, np.inf).astype(deviation.dtype)

    @of_few_threads
    def transform(self, X: Any) -> np.ndarray:
        """Return the projections of rows X (N, F), dense or sparse, (N, K)."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        axes = np.asarray(self.components_).T
        if sparse.issparse(X):
            projected = X @ axes - self.mean_ @ axes
        else:
            projected = (X - self.mean_) @ axes
        projected = np.asarray(projected).astype(X.dtype, copy=False)
        return projected / self._scale().astype(X.dtype) if self.whiten else projected

    @of_few_threads
    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the rows nearest to projections X (N, K), (N, F)."""
        check_is_fitted(self)
        X = check_array(X, dtype=[np.float64, np.float32], input_name="X")
        if X.shape[1] != len(self.components_):
            name = type(self).__name__
            raise ValueError(f"X has {X.shape[1]} columns, but this {name} has n_components_={len(self.components_)}.")
        if self.whiten:
            scale = self._scale()
            X = X * np.where(np.isfinite(scale), scale, 0.0)
        return X @ self.components_ + self.mean_

    def get_covariance(self) -> np.ndarray:
        """Return the covariance that the components and the noise stand for, (F, F)."""
        check_is_fitted(self)
        excess = np.maximum(self.explained_variance_ - self.noise_variance_, 0)
        covariance = (self.components_.T * excess) @ self.components_
        covariance.flat[:: len(covariance) + 1] += self.noise_variance_
        return covariance

    def get_precision(self) -> np.ndarray:
        """Return the inverse of that covariance, (F, F)."""
        check_is_fitted(self)
        if self.noise_variance_ == 0:
            return np.linalg.inv(self.get_covariance())
        # The components are orthonormal: along each of them 1 / λ stands in the place of 1 / σ².
        variance = np.maximum(self.explained_variance_, self.noise_variance_)
        precision = (self.components_.T * (1 / variance - 1 / self.noise_variance_)) @ self.components_
        precision.flat[:: len(precision) + 1] += 1 / self.noise_variance_
        return precision

    @of_few_threads
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        parts = (X - self.mean_, self.components_, self.explained_variance_, np.asarray(self.noise_variance_))
        density = probabilistic_log_density(*(torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in parts))
        return density.numpy().astype(X.dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of rows X (N, F)."""
        return float(self.score_samples(X).mean())


class PCA(_Projection):
    """Principal component analysis of all rows.

    Args:
        n_components: how many, a share of the variance in (0, 1), `mle` for the likeliest number, or None for all.
        copy: changes nothing: rows are never written to.
        whiten: scale the projections to unit variance; a component without variance gives 0.
        svd_solver: `covariance_eigh`, `full` (orthogonal factors), `randomized` (a block Krylov method), `arpack` (the
            same until the components are met), or `auto`, which chooses as scikit-learn does. Sparse rows go with
            `auto`, `arpack` and `covariance_eigh`.
        tol: with `arpack`, the residual of a component at which it is met, as a share of the greatest; 0 is rounding.
        iterated_power: passes of `randomized` that refine its first subspace; `auto` is 7 for few components, else 4.
        n_oversamples: vectors of `randomized` beyond `n_components`.
        power_iteration_normalizer: changes nothing: the Krylov basis is orthonormal to rounding.
        random_state: seed of `randomized` and `arpack`.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> PCA(1).fit([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]).explained_variance_ratio_.round(6).tolist()
        [1.0]
    """

    _parameter_constraints = constraints(sklearn.decomposition.PCA)

    def __init__(
        self,
        n_components: int | float | str | None = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: int | str = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.copy, self.whiten, self.svd_solver = n_components, copy, whiten, svd_solver
        self.tol, self.iterated_power, self.n_oversamples = tol, iterated_power, n_oversamples
        self.power_iteration_normalizer, self.random_state = power_iteration_normalizer, random_state
        self.device = device

    @of_few_threads
    def fit(self, X: Any, y: Any = None) -> PCA:
        """Fit to rows X (N, F), dense or sparse; `y` is ignored."""
        self._check_parameters()
        if sparse.issparse(X) and self.svd_solver not in ("auto", "arpack", "covariance_eigh"):
            raise TypeError(
                "PCA takes sparse rows with svd_solver='arpack' and 'covariance_eigh', while "
                f"{self.svd_solver!r} was passed."
            )
        X = self._check_rows(X, reset=True, ensure_min_samples=2)
        wanted, solver = self._choose(X)
        self._fitted: Any = None
        if solver in ("full", "covariance_eigh"):
            found, mean = self._decompose(X, wanted, solver)
        else:
            found, mean = self._lead(X, wanted, solver) or self._iterate(X, wanted, solver)
        self.n_samples_, self._fit_svd_solver = X.shape[0], solver
        self._keep(found, mean, X.shape[0], X.dtype, 0 if wanted == 0 else None)
        return self

    def _decompose(self, X: Any, wanted: Any, solver: str) -> tuple[Principal, Tensor]:
        """The components by all eigenvalues: small data would wait longer for a model to be made."""
        number = None if wanted == 0 else int(wanted) if isinstance(wanted, int | np.integer) else wanted
        if solver == "full":
            count, mean, factor = self._scatter(X, torch.float64, factor=True)
            _, values, vectors = torch.linalg.svd(factor, full_matrices=False)
            values = values.square()
            return principal_components(values, vectors, values.sum(), count, number), mean
        count, mean, scatter = self._scatter(X, torch.float32 if X.dtype == np.float32 else torch.float64)
        if X.dtype == np.float32 and not _SMALLEST < float(scatter.trace() / count) < _GREATEST:
            count, mean, scatter = self._scatter(X, torch.float64)
        found = greatest_eigenvalues(scatter, number if isinstance(number, int) else None)
        return principal_components(*found, scatter.trace(), count, number), mean

    def _scatter(self, X: Any, dtype: torch.dtype, *, factor: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Count and mean of the rows, and their scatter matrix by products of a type, or its triangular factor."""
        device = self._device()
        if not factor and not sparse.issparse(X):
            return scatter_of(tensor_of(X).to(device), None, dtype)
        count, mean = torch.zeros((), dtype=torch.float64), torch.zeros(X.shape[1], dtype=torch.float64)
        state = mean.new_zeros(0 if factor else X.shape[1], X.shape[1])
        count, mean, state = (part.to(device) for part in (count, mean, state))
        blocks = centred_blocks if factor else scatter_blocks
        for _, x in dense_blocks(X):
            for so_far in blocks(count, mean, x.to(device), None, dtype):
                count, mean, added = so_far
                state = qr_update(state, added) if factor else state.add_(added)
        return count, mean, state

    def _lead(self, X: Any, wanted: int, solver: str) -> tuple[Principal, Tensor] | None:
        """The first components of rows in memory, where `auto` chose them; None where rounding hides the last one."""
        if self.svd_solver != "auto" or solver != "randomized" or self._device() != "cpu":
            return None
        middle = average(x := tensor_of(X), None)
        rows = x - middle
        mean = middle.double() + average(rows, None).double()  # the rest is what float32 rounds off
        total = torch.linalg.vector_norm(rows).double().square()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        found = leading_spectrum(rows, int(wanted), seed) if bool(total.isfinite()) else None
        if found is None:
            return None
        return principal_components(*found, total, mean.new_tensor(len(x)), int(wanted)), mean

    def _iterate(self, X: Any, wanted: Any, solver: str) -> tuple[Principal, Tensor]:
        """The first components by passes over the rows."""
        model = PCAModel(**self._options(wanted, solver, X.shape))
        self._build(model, X)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model.fit_batches(lambda: (Batch(x) for _, x in dense_blocks(X)))
        if said:  # in the words of this face
            warnings.warn("PCA: the components still move: raise iterated_power.", ConvergenceWarning, stacklevel=3)
        self._fitted = model.eval()
        shares, noise = model.explained_variance_ratio, model.noise_variance
        return Principal(model.components, model.explained_variance, shares, noise), model.center

    @property
    def model_(self) -> Any:
        """The zoo's `pca` with `components_` and all else as they are."""
        check_is_fitted(self)
        if self._fitted is not None:
            model: Any = self._fitted
        else:
            model = PCAModel(num_components=len(self.components_) or None, whiten=self.whiten)
            self._build(model, np.asarray(self.components_))
        shown = {
            "center": self.mean_,
            "components": self.components_,
            "explained_variance": self.explained_variance_,
            "explained_variance_ratio": self.explained_variance_ratio_,
            "noise_variance": self.noise_variance_,
        }
        for name, value in shown.items():
            setattr(model, name, torch.as_tensor(np.array(value, dtype=np.float64)).to(self._device()))
        return model.eval()

    def _choose(self, X: Any) -> tuple[Any, str]:
        """Return how many components and the solver, `auto` resolved."""
        (rows, features), few = X.shape, min(X.shape)
        solver, wanted = self.svd_solver, self.n_components
        if solver == "auto" and sparse.issparse(X):
            solver = "arpack"
        if wanted is None:
            wanted = few - (solver == "arpack")
        if solver == "auto":
            whole = isinstance(wanted, int | np.integer)
            if features <= 1000 and rows >= 10 * features:
                solver = "covariance_eigh"
            elif max(X.shape) > 500 and whole and 1 <= wanted < 0.8 * few:
                solver = "randomized"
            else:
                solver = "full"
        self._check_number(wanted, solver, rows, features)
        return wanted, solver

    @staticmethod
    def _check_number(wanted: Any, solver: str, rows: int, features: int) -> None:
        few, truncated = min(rows, features), solver in ("arpack", "randomized")
        if wanted == "mle":
            if truncated:
                raise ValueError(f"n_components='mle' cannot be a string with svd_solver={solver!r}.")
            if rows < features:
                raise ValueError("n_components='mle' is only supported if n_samples >= n_features.")
        elif not int(truncated) <= wanted <= few:
            raise ValueError(
                f"n_components={wanted} must be between {int(truncated)} and min(n_samples, n_features)={few} "
                f"with svd_solver={solver!r}."
            )
        elif solver == "arpack" and wanted == few:
            raise ValueError(
                f"n_components={wanted} must be strictly less than min(n_samples, n_features)={few} "
                "with svd_solver='arpack'."
            )

    def _options(self, wanted: Any, solver: str, shape: tuple[int, int]) -> dict[str, Any]:
        """The hyperparameters of the model that makes passes."""
        options = {
            "num_components": int(wanted),
            "whiten": self.whiten,
            "solver": "randomized",
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
        }
        if solver == "arpack":
            return options | {"num_passes": _MANY_PASSES, "tolerance": max(float(self.tol), _ROUNDING)}
        power = (7 if wanted < 0.1 * min(shape) else 4) if self.iterated_power == "auto" else int(self.iterated_power)
        # The span of two passes more holds that of the power iteration, rows and columns in turn.
        return options | {"num_passes": power + 2, "oversampling": int(self.n_oversamples)}


class IncrementalPCA(_Projection):
    """Principal component analysis of batches as they come: the same components as of all rows at once.

    Args:
        n_components: how many, or None for as many as the first batch has rows or features.
        whiten: scale the projections to unit variance.
        copy: changes nothing: rows are never written to.
        batch_size: rows that `fit` takes at a time; None takes five times the number of features.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = IncrementalPCA(1)
        >>> model = model.partial_fit([[0.0, 0.0], [1.0, 1.0]]).partial_fit([[2.0, 2.0]])
        >>> int(model.n_samples_seen_), model.explained_variance_.round(6).tolist()
        (3, [2.0])
    """

    _parameter_constraints = constraints(sklearn.decomposition.IncrementalPCA)

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        copy: bool = True,
        batch_size: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.whiten, self.copy = n_components, whiten, copy
        self.batch_size, self.device = batch_size, device

    @of_few_threads
    def fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Fit to rows X (N, F), dense or sparse, in batches; `y` is ignored."""
        self._check_parameters()
        X = self._check_rows(X, reset=True, ensure_min_samples=2)
        self.batch_size_ = self.batch_size or 5 * X.shape[1]
        size = min(self.batch_size_, X.shape[0])
        self._begin((size, X.shape[1]), X)
        for part in gen_batches(X.shape[0], size, min_batch_size=self.n_components or 0):
            rows = X[part]
            self._add(rows.toarray() if sparse.issparse(rows) else rows)
        return self._solve(X.dtype)

    def partial_fit(self, X: Any, y: Any = None, check_input: bool = True) -> IncrementalPCA:
        """Add a batch of rows X (N, F); `check_input=False` leaves out the check of the rows."""
        self._check_parameters()
        first = not hasattr(self, "model_")
        if check_input:
            if sparse.issparse(X):
                raise TypeError(
                    "IncrementalPCA.partial_fit does not support sparse input. Either convert data to dense or use "
                    "IncrementalPCA.fit to do so in batches."
                )
            X = self._check_rows(X, reset=first)
        if first:
            self._begin(X.shape, X)
        self._add(X)
        return self._solve(X.dtype) if self.n_samples_seen_ > 1 else self  # one row has no variance

    def _begin(self, shape: tuple[int, int], X: Any) -> None:
        rows, features = shape
        wanted = min(rows, features) if self.n_components is None else int(self.n_components)
        if wanted > features:
            raise ValueError(
                f"n_components={wanted} invalid for n_features={features}, need more rows than columns for "
                "IncrementalPCA processing."
            )
        if wanted > rows:
            raise ValueError(
                f"n_components={wanted} must be less or equal to the batch number of samples {rows} for the first "
                "partial_fit call."
            )
        self.n_samples_seen_ = 0
        self.model_ = self._build(PCAModel(num_components=wanted, whiten=self.whiten), X).eval()

    @torch.no_grad()
    def _add(self, X: np.ndarray) -> None:
        self.model_.accumulate(self._batch(self.model_, X))
        self.n_samples_seen_ += len(X)

    @torch.no_grad()
    def _solve(self, dtype: Any) -> IncrementalPCA:
        self.model_.solve()
        self.var_ = (self.model_.scatter.diagonal() / self.n_samples_seen_).cpu().numpy()
        model = self.model_
        shares, noise = model.explained_variance_ratio, model.noise_variance
        found = Principal(model.components, model.explained_variance, shares, noise)
        self._keep(found, model.center, self.n_samples_seen_, dtype)
        return self
