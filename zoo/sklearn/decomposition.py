"""PCA, IncrementalPCA and TSNE under scikit-learn's names."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import sklearn.decomposition
import sklearn.manifold
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from zoo.numerics.distances import ALIASES, METRICS
from zoo.sklearn.base import ZooEstimator, constraints, create

__all__ = ["PCA", "TSNE", "IncrementalPCA"]


class _Projection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ZooEstimator):
    """What the two estimators with principal components share."""

    def _show(self, num_rows: int) -> None:
        model = self.model_
        self.components_ = model.components.cpu().numpy()
        self.explained_variance_ = model.explained_variance.cpu().numpy()
        self.explained_variance_ratio_ = model.explained_variance_ratio.cpu().numpy()
        self.singular_values_ = np.sqrt(self.explained_variance_ * max(num_rows - 1, 0))
        self.mean_ = model.center.cpu().numpy()
        self.noise_variance_ = float(model.noise_variance)
        self.n_components_ = len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _check_components(self, num_rows: int, num_features: int) -> None:
        wanted = self.n_components  # type: ignore[attr-defined]
        available = min(num_rows, num_features)
        if isinstance(wanted, int | np.integer) and not 1 <= wanted <= available:
            raise ValueError(f"n_components={wanted} must be between 1 and min(n_samples, n_features)={available}.")

    def transform(self, X: Any) -> np.ndarray:
        """Return the projections of rows X (N, F), (N, K)."""
        return self._predict_columns(X)["prediction"].astype(np.dtype(self.model_.spec.dtype), copy=False)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the rows nearest to projections X (N, K), (N, F)."""
        check_is_fitted(self)
        X = check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_components_:
            name = type(self).__name__
            raise ValueError(f"X has {X.shape[1]} columns, but this {name} has n_components_={self.n_components_}.")
        return self.model_.inverse_transform(X).cpu().numpy()

    def get_covariance(self) -> np.ndarray:
        """Return the covariance that the components and the noise stand for, (F, F)."""
        check_is_fitted(self)
        return self.model_.covariance().cpu().numpy()

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row, (N,)."""
        check_is_fitted(self)
        return self.model_.log_likelihood(torch.from_numpy(self._rows(X, reset=False))).cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of rows X (N, F)."""
        return float(self.score_samples(X).mean())


class PCA(_Projection):
    """Principal component analysis of all rows in one pass.

    Args:
        n_components: how many, a share of the variance in (0, 1), or None for all.
        whiten: scale the projections to unit variance.
        svd_solver: `auto` and `covariance_eigh` (covariance), `full` (orthogonal factors), or `randomized`.
        random_state: seed of the randomized solver.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> PCA(1).fit([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]).explained_variance_ratio_.round(6).tolist()
        [1.0]
    """

    _parameter_constraints = constraints(
        sklearn.decomposition.PCA,
        n_components=[Interval(Integral, 0, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither"), None],
        svd_solver=[StrOptions({"auto", "full", "covariance_eigh", "randomized"})],
    )

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        whiten: bool = False,
        svd_solver: str = "auto",
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.whiten, self.svd_solver = n_components, whiten, svd_solver
        self.random_state, self.device = random_state, device

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Fit to rows X (N, F); `y` is ignored."""
        self._check_parameters()
        solvers = {"auto": "covariance", "covariance_eigh": "covariance", "full": "svd", "randomized": "randomized"}
        X = self._rows(X, reset=True, ensure_min_samples=2)
        self._check_components(*X.shape)
        wanted = self.n_components
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) if self.svd_solver == "randomized" else 0
        model = create(
            "pca",
            num_components=int(wanted) if isinstance(wanted, int | np.integer) else wanted,
            solver=solvers[self.svd_solver],
            whiten=self.whiten,
            seed=seed,
        )
        self._fit_streaming(model, X)
        self.n_samples_ = len(X)
        self._show(len(X))
        return self


class IncrementalPCA(_Projection):
    """Principal component analysis of batches as they come: the same components as of all rows at once.

    Args:
        n_components: how many, or None for all.
        whiten: scale the projections to unit variance.
        batch_size: rows that `fit` takes at a time; None takes five times the number of features.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = IncrementalPCA(1)
        >>> model = model.partial_fit([[0.0, 0.0], [1.0, 1.0]]).partial_fit([[2.0, 2.0]])
        >>> model.n_samples_seen_, model.explained_variance_.round(6).tolist()
        (3, [2.0])
    """

    _parameter_constraints = constraints(sklearn.decomposition.IncrementalPCA)

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        batch_size: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.whiten, self.batch_size, self.device = n_components, whiten, batch_size, device

    def fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Fit to rows X (N, F) in batches; `y` is ignored."""
        self._check_parameters()
        X = self._rows(X, reset=True, ensure_min_samples=2)
        self._check_components(*X.shape)
        self.n_samples_seen_ = 0
        self.batch_size_ = self.batch_size or 5 * X.shape[1]
        self._begin(X)
        for part in gen_batches(len(X), self.batch_size_):
            self._add(X[part])
        return self._solve()

    def partial_fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Add a batch of rows X (N, F)."""
        self._check_parameters()
        first = not hasattr(self, "model_")
        X = self._rows(X, reset=first)
        if first:
            self._check_components(*X.shape)
            self.n_samples_seen_ = 0
            self._begin(X)
        self._add(X)
        return self._solve() if self.n_samples_seen_ > 1 else self  # one row has no variance

    def _begin(self, X: np.ndarray) -> None:
        self.model_ = self._build(create("pca", num_components=self.n_components, whiten=self.whiten), X)
        self.model_.reset_accumulators()

    def _add(self, X: np.ndarray) -> None:
        with torch.no_grad():
            self.model_.accumulate(self._batch(self.model_, X))
        self.n_samples_seen_ += len(X)

    def _solve(self) -> IncrementalPCA:
        with torch.no_grad():
            self.model_.solve()
        self.var_ = np.diag(self.model_.covariance().cpu().numpy()).copy()
        self._show(self.n_samples_seen_)
        return self


class TSNE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ZooEstimator):
    """t-distributed stochastic neighbour embedding; unlike scikit-learn's, it can place new rows too.

    Args:
        n_components: dimensions of the map.
        perplexity: effective number of neighbours of a row, below the number of rows.
        early_exaggeration: factor of the affinities during the first 250 steps.
        max_iter: steps in all.
        metric: `euclidean`, `manhattan`, `cosine`, ... or `precomputed`.
        init: `pca` or `random`.
        method: `auto`, `exact` or `fft`.
        random_state: seed of a random start.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> rows = [[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]
        >>> TSNE(perplexity=2, max_iter=300).fit_transform(rows).shape
        (6, 2)
    """

    _parameter_constraints = constraints(
        sklearn.manifold.TSNE,
        max_iter=[Interval(Integral, 1, None, closed="left")],
        init=[StrOptions({"pca", "random"})],
        method=[StrOptions({"auto", "exact", "fft"})],
        metric=[StrOptions({*METRICS, *ALIASES, "precomputed"})],
    )

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexity: float = 30.0,
        early_exaggeration: float = 12.0,
        max_iter: int = 1000,
        metric: str = "euclidean",
        init: str = "pca",
        method: str = "auto",
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.perplexity, self.early_exaggeration = n_components, perplexity, early_exaggeration
        self.max_iter, self.metric, self.init, self.method = max_iter, metric, init, method
        self.random_state, self.device = random_state, device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def fit(self, X: Any, y: Any = None) -> TSNE:
        """Fit a map to rows X (N, F); `y` is ignored."""
        self._check_parameters()
        X = self._rows(X, reset=True, ensure_min_samples=2)
        if self.perplexity >= len(X):
            raise ValueError(f"perplexity ({self.perplexity}) must be less than n_samples ({len(X)}).")
        model = create(
            "tsne",
            num_components=int(self.n_components),
            perplexity=float(self.perplexity),
            early_exaggeration=float(self.early_exaggeration),
            num_steps=int(self.max_iter),
            metric=self.metric,
            init=self.init,
            method=self.method,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        values = self._fit_streaming(model, X)
        self.embedding_ = self.model_.embedding.detach().cpu().numpy().astype(X.dtype)
        self.kl_divergence_ = float(values.get("divergence", values.get("kl_divergence", np.nan)))
        self.n_iter_ = int(self.max_iter)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return the places of the rows in the map, (N, n_components)."""
        return self.fit(X).embedding_

    def transform(self, X: Any) -> np.ndarray:
        """Return places in the map for new rows X (N, F)."""
        return self._predict_columns(X)["prediction"].astype(self.embedding_.dtype, copy=False)
