"""TSNE under scikit-learn's name."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import sklearn.manifold
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import _VALID_METRICS
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, check_non_negative

from zoo.models.tsne.tsne import TSNE as Model
from zoo.models.tsne.tsne import start_of_map
from zoo.numerics.distances import ALIASES, METRICS
from zoo.optimizers import Recipe
from zoo.sklearn.base import ZooEstimator, constraints
from zoo.sklearn.rows import tensor_of, validate_data

__all__ = ["TSNE"]

_EARLY_STEPS = 250


class TSNE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ZooEstimator):
    """t-distributed stochastic neighbour embedding; unlike scikit-learn's, it can place new rows too.

    Args:
        n_components: dimensions of the map.
        perplexity: effective number of neighbours of a row, below the number of rows.
        early_exaggeration: factor of the affinities during the first 250 steps.
        learning_rate: a number, or `auto`: N / (4 · exaggeration), at least 50, the exaggeration being 1 after the
            first 250 steps (where scikit-learn goes on with the small one).
        max_iter: steps at most.
        n_iter_without_progress: steps for which the divergence may stay above its least, after the first 250.
        min_grad_norm: a gradient of a smaller norm is the last.
        metric: `euclidean`, `manhattan`, `cosine`, ..., `precomputed`, or a function of two rows.
        metric_params: options of the metric.
        init: `pca`, `random`, or the first map (N, n_components).
        verbose: print the divergence every 50 steps.
        random_state: seed of a random start.
        method: `barnes_hut` (or `auto`: all pairs of points up to 10,000 rows, then forces by FFT), `exact` or `fft`.
        angle: changes nothing: there is no tree whose cells it would judge.
        n_jobs: changes nothing: threads are torch's.
        device: `cpu`, `cuda` or `auto`.

    Sparse rows are made dense.

    Example:
        >>> rows = [[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]
        >>> TSNE(perplexity=2, max_iter=300).fit_transform(rows).shape
        (6, 2)
    """

    _parameter_constraints = constraints(
        sklearn.manifold.TSNE,
        max_iter=[Interval(Integral, 1, None, closed="left")],
        method=[StrOptions({"auto", "barnes_hut", "exact", "fft"})],
        metric=[StrOptions({*_VALID_METRICS, *METRICS, *ALIASES, "precomputed"}), callable],
    )

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexity: float = 30.0,
        early_exaggeration: float = 12.0,
        learning_rate: float | str = "auto",
        max_iter: int = 1000,
        n_iter_without_progress: int = 300,
        min_grad_norm: float = 1e-7,
        metric: Any = "euclidean",
        metric_params: dict[str, Any] | None = None,
        init: Any = "pca",
        verbose: int = 0,
        random_state: Any = None,
        method: str = "barnes_hut",
        angle: float = 0.5,
        n_jobs: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_components, self.perplexity, self.early_exaggeration = n_components, perplexity, early_exaggeration
        self.learning_rate, self.max_iter, self.n_iter_without_progress = (
            learning_rate,
            max_iter,
            n_iter_without_progress,
        )
        self.min_grad_norm, self.metric, self.metric_params = min_grad_norm, metric, metric_params
        self.init, self.verbose, self.random_state, self.method = init, verbose, random_state, method
        self.angle, self.n_jobs, self.device = angle, n_jobs, device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.input_tags.sparse = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def fit(self, X: Any, y: Any = None) -> TSNE:
        """Fit a map to rows X (N, F), dense or sparse, or to their distances (N, N); `y` is ignored."""
        self._check_parameters()
        X = self._dense(X, reset=True, ensure_min_samples=2)
        self._check_options(X)
        foreign = self._foreign_metric()
        self._compared_with = X if foreign else None
        rows = self._foreign_distances(X) if foreign else X
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        model = Model(
            num_components=int(self.n_components),
            perplexity=float(self.perplexity),
            early_exaggeration=float(self.early_exaggeration),
            early_steps=_EARLY_STEPS,
            num_steps=int(self.max_iter),
            metric="precomputed" if foreign else self.metric,
            init="random" if foreign or not isinstance(self.init, str) else self.init,  # type: ignore[arg-type]
            method={"barnes_hut": "auto"}.get(self.method, self.method),  # type: ignore[arg-type]
            min_gradient_norm=float(self.min_grad_norm),
            patience=int(self.n_iter_without_progress),
            seed=seed,
        )
        self._build(model, rows)
        self.learning_rate_ = max(len(X) / self.early_exaggeration / 4, 50)
        if self.learning_rate != "auto":
            self.learning_rate_ = float(self.learning_rate)
            model.recipe = Recipe("tsne", {"lr": self.learning_rate_})
        if not isinstance(self.init, str):
            model.start_from(tensor_of(self._given_start(X)))
        elif foreign and self.init == "pca":
            model.start_from(start_of_map(tensor_of(X), int(self.n_components), "pca", seed))
        if self.verbose:
            model.report = _report
        batch = self._batch(model, rows)
        values = model.fit_batches(lambda: [batch])
        model.report = None
        self.model_ = model.eval()
        self.embedding_ = model.embedding.cpu().numpy().astype(X.dtype)
        self.kl_divergence_, self.n_iter_ = float(values["kl_divergence"]), int(model.step)
        return self

    def _dense(self, X: Any, *, reset: bool, **options: Any) -> np.ndarray:
        if sparse.issparse(X) and self.metric == "precomputed":
            raise TypeError(
                "TSNE takes precomputed distances as a dense matrix: it looks at all pairs, and what a sparse one "
                "leaves out is no distance."
            )
        types = [np.float64, np.float32]
        X = validate_data(self, X, reset=reset, dtype=types, order="C", accept_sparse="csr", **options)
        return X.toarray() if sparse.issparse(X) else X

    def _check_options(self, X: np.ndarray) -> None:
        if self.metric == "precomputed":
            if isinstance(self.init, str) and self.init == "pca":
                raise ValueError('The parameter init="pca" cannot be used with metric="precomputed".')
            if X.shape[0] != X.shape[1]:
                raise ValueError("X should be a square distance matrix")
            check_non_negative(X, "TSNE.fit(). With metric='precomputed', X should contain positive distances.")
        if self.perplexity >= len(X):
            raise ValueError(f"perplexity ({self.perplexity}) must be less than n_samples ({len(X)}).")

    def _foreign_metric(self) -> bool:
        """Whether the distances are scikit-learn's."""
        own = isinstance(self.metric, str) and self.metric in {*METRICS, *ALIASES, "precomputed"}
        return not own or bool(self.metric_params)

    def _foreign_distances(self, X: np.ndarray, Y: np.ndarray | None = None) -> np.ndarray:
        found = pairwise_distances(X, Y, metric=self.metric, n_jobs=self.n_jobs, **(self.metric_params or {}))
        if (found < 0).any():
            raise ValueError("All distances should be positive, the metric given is not correct")
        return np.ascontiguousarray(found)

    def _given_start(self, X: np.ndarray) -> np.ndarray:
        start = np.asarray(self.init, dtype=np.float64)
        if start.shape != (len(X), self.n_components):
            raise ValueError(f"init has shape {start.shape}, but a map of X has {(len(X), self.n_components)}.")
        return start

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return the places of the rows in the map, (N, n_components)."""
        return self.fit(X).embedding_

    def transform(self, X: Any) -> np.ndarray:
        """Return places in the map for new rows X (N, F), or for their distances to the fitted ones."""
        check_is_fitted(self)
        X = self._dense(X, reset=False)
        if self._compared_with is not None:
            X = self._foreign_distances(X, self._compared_with)
        columns = self.model_.predict_columns(tensor_of(X), len(X))
        return columns["prediction"].cpu().numpy().astype(self.embedding_.dtype, copy=False)


def _report(step: int, divergence: float, norm: float) -> None:
    print(f"[t-SNE] Iteration {step}: error = {divergence:.7f}, gradient norm = {norm:.7f}")
