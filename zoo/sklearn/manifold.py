"""TSNE under scikit-learn's name."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import sklearn.manifold
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from zoo.numerics.distances import ALIASES, METRICS
from zoo.sklearn.base import ZooEstimator, constraints, create

__all__ = ["TSNE"]


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
