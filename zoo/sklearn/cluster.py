"""KMeans, MiniBatchKMeans, BisectingKMeans and AgglomerativeClustering under scikit-learn's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.cluster
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from zoo.models.agglomerative.linkage import LINKAGES
from zoo.models.kmeans.kmeans import UPDATE
from zoo.numerics.distances import ALIASES, METRICS
from zoo.sklearn.base import ZooEstimator, constraints, create

_INIT = StrOptions({"k-means++", "k-means||", "random"})

__all__ = ["AgglomerativeClustering", "BisectingKMeans", "KMeans", "MiniBatchKMeans"]


class _Centroids(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, ZooEstimator):
    """What the estimators with centroids share."""

    def _model(self, X: np.ndarray) -> Any:
        raise NotImplementedError

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))  # type: ignore[attr-defined]

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> _Centroids:
        """Fit to rows X (N, F), with weights (N,) if given; `y` is ignored."""
        self._check_parameters()
        X = self._rows(X, reset=True)
        if len(X) < self.n_clusters:  # type: ignore[attr-defined]
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}.")  # type: ignore[attr-defined]
        self._fit_streaming(self._model(X), X, weight=self._weight(sample_weight, X))
        self._show()
        self.labels_, _ = self._assign(X)
        return self

    def _show(self) -> None:
        self.cluster_centers_ = self.model_.centroids.cpu().numpy().astype(np.dtype(self.model_.spec.dtype))
        self.inertia_ = float(self.model_.inertia)
        self.n_iter_ = int(getattr(self.model_, "num_iter", 1))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _assign(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = self.model_.predict_columns(X, batch_size=max(1, len(X)))
        return columns["prediction"].cpu().numpy().astype(np.int32), columns["squared_distance"].cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the nearest cluster of each row, (N,)."""
        check_is_fitted(self)
        return self._assign(self._rows(X, reset=False))[0]

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit and return the clusters of the rows, (N,)."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def transform(self, X: Any) -> np.ndarray:
        """Return the distance of each row to each centroid, (N, K)."""
        check_is_fitted(self)
        X = self._rows(X, reset=False)
        with torch.inference_mode():
            return self.model_.transform(X, batch_size=max(1, len(X))).cpu().numpy()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the negative (weighted) sum of squared distances to the nearest centroids."""
        check_is_fitted(self)
        X = self._rows(X, reset=False)
        weight = self._weight(sample_weight, X)
        squared = self._assign(X)[1]
        return -float(squared.sum() if weight is None else squared @ weight)


class KMeans(_Centroids):
    """k-means by Lloyd's iterations.

    Args:
        n_clusters: K.
        init: `k-means++`, `k-means||`, `random`, or the centroids (K, F).
        n_init: restarts; `auto` is 1, and 10 for `random`.
        max_iter: iterations at most.
        tol: the least movement of the centroids, as a share of the features' mean variance.
        random_state: seed of the draws.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = KMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(model.cluster_centers_.ravel().tolist())
        [0.5, 10.5]
    """

    _parameter_constraints = constraints(sklearn.cluster.KMeans, init=[_INIT, "array-like"])

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.n_init, self.max_iter = n_clusters, init, n_init, max_iter
        self.tol, self.random_state, self.device = tol, random_state, device

    def _model(self, X: np.ndarray) -> Any:
        given = not isinstance(self.init, str)
        restarts = (
            self.n_init if self.n_init != "auto" else 10 if isinstance(self.init, str) and self.init == "random" else 1
        )
        return create(
            "kmeans",
            num_clusters=int(self.n_clusters),
            init=np.asarray(self.init, dtype=float).tolist() if given else self.init,
            num_init=1 if given else int(restarts),
            max_iter=int(self.max_iter),
            tolerance=float(self.tol),
            seed=self._seed(),
        )


class MiniBatchKMeans(_Centroids):
    """k-means whose centroids move after every batch (Sculley 2010); `partial_fit` takes batches as they come.

    Args:
        n_clusters: K.
        init: `k-means++`, `k-means||` or `random`.
        max_iter: passes over the rows at most.
        batch_size: rows between two moves.
        tol: the least movement of the centroids over a pass, as a share of the features' mean variance.
        random_state: seed of the draws and of the order of rows.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = MiniBatchKMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(model.cluster_centers_.ravel().tolist())
        [0.5, 10.5]
    """

    _parameter_constraints = constraints(sklearn.cluster.MiniBatchKMeans, init=[_INIT])

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "k-means++",
        max_iter: int = 100,
        batch_size: int = 1024,
        tol: float = 0.0,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.max_iter, self.batch_size = n_clusters, init, max_iter, batch_size
        self.tol, self.random_state, self.device = tol, random_state, device

    def _model(self, X: np.ndarray) -> Any:
        return create(
            "kmeans",
            num_clusters=int(self.n_clusters),
            init=self.init,
            max_iter=int(self.max_iter),
            tolerance=float(self.tol),
            mini_batch=True,
            seed=self._seed(),
        )

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Fit to rows X (N, F), with weights (N,) if given, in batches of randomly ordered rows."""
        self._check_parameters()
        X = self._rows(X, reset=True)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}.")
        order = check_random_state(self.random_state).permutation(len(X))
        weight = self._weight(sample_weight, X)
        weight = None if weight is None else weight[order]
        self._fit_streaming(self._model(X), X[order], weight=weight, batch_size=int(self.batch_size))
        self._show()
        self.labels_, _ = self._assign(X)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Move the centroids once by a batch of rows X (N, F); the first batch also draws them."""
        self._check_parameters()
        first = not hasattr(self, "model_")
        X = self._rows(X, reset=first)
        if first:
            if len(X) < self.n_clusters:
                raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}.")
            self.model_ = self._build(self._model(X), X)
        model, moves = self.model_, int(self.model_.num_iter)
        model.at_rest.fill_(False)
        if not first:
            model.phase.fill_(UPDATE)
        batch = self._batch(model, X, weight=self._weight(sample_weight, X))
        with torch.no_grad():
            while int(model.num_iter) == moves:  # the passes that draw the first centroids come before the move
                model.reset_accumulators()
                model.accumulate(batch)
                model.solve()
        self._show()
        self.labels_, _ = self._assign(X)
        return self


class BisectingKMeans(_Centroids):
    """k-means that splits one cluster in two until there are K (Steinbach, Karypis & Kumar 2000).

    Args:
        n_clusters: K.
        init: `k-means++`, `k-means||` or `random`.
        n_init: restarts of each split.
        random_state: seed of the draws.
        max_iter: iterations of each split at most.
        tol: the least movement of the centroids, as a share of the features' mean variance.
        bisecting_strategy: split the cluster of the `biggest_inertia` or the `largest_cluster`.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = BisectingKMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(model.cluster_centers_.ravel().tolist())
        [0.5, 10.5]
    """

    _parameter_constraints = constraints(sklearn.cluster.BisectingKMeans, init=[_INIT])

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "k-means++",
        n_init: int = 1,
        random_state: Any = None,
        max_iter: int = 300,
        tol: float = 1e-4,
        bisecting_strategy: str = "biggest_inertia",
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.n_init, self.random_state = n_clusters, init, n_init, random_state
        self.max_iter, self.tol, self.bisecting_strategy, self.device = max_iter, tol, bisecting_strategy, device

    def _model(self, X: np.ndarray) -> Any:
        strategies = {"biggest_inertia": "inertia", "largest_cluster": "weight"}
        return create(
            "bisecting_kmeans",
            num_clusters=int(self.n_clusters),
            split_by=strategies[self.bisecting_strategy],
            init=self.init,
            num_init=int(self.n_init),
            max_iter=int(self.max_iter),
            tolerance=float(self.tol),
            seed=self._seed(),
        )


class AgglomerativeClustering(ClusterMixin, ZooEstimator):
    """Hierarchical clustering by merging the two nearest clusters.

    Args:
        n_clusters: how many clusters to leave; None with `distance_threshold`.
        metric: distance of two rows, such as `euclidean`, `manhattan`, `cosine` or `precomputed`.
        linkage: `ward`, `average`, `complete` or `single`, and the zoo's `weighted`, `centroid` and `median`.
        distance_threshold: merge all that are no farther apart.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> AgglomerativeClustering(2).fit_predict([[0.0], [1.0], [10.0], [11.0], [12.0]]).tolist()
        [1, 1, 0, 0, 0]
    """

    _parameter_constraints = constraints(
        sklearn.cluster.AgglomerativeClustering,
        metric=[StrOptions({*METRICS, *ALIASES, "precomputed"}), callable],
        linkage=[StrOptions(set(LINKAGES))],
    )

    def __init__(
        self,
        n_clusters: int | None = 2,
        *,
        metric: str = "euclidean",
        linkage: str = "ward",
        distance_threshold: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.metric, self.linkage = n_clusters, metric, linkage
        self.distance_threshold, self.device = distance_threshold, device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    def fit(self, X: Any, y: Any = None) -> AgglomerativeClustering:
        """Fit to rows X (N, F), or to their distances (N, N) where they are precomputed; `y` is ignored."""
        self._check_parameters()
        X = self._rows(X, reset=True, ensure_min_samples=2)
        if (self.n_clusters is None) == (self.distance_threshold is None):
            raise ValueError("Give exactly one of n_clusters and distance_threshold, and None for the other.")
        model = create(
            "agglomerative_clustering",
            num_clusters=self.n_clusters,
            distance_threshold=self.distance_threshold,
            linkage=self.linkage,
            metric=self.metric,
        )
        self._fit_streaming(model, X)
        self.labels_ = self.model_.labels.cpu().numpy()
        self.n_clusters_ = int(self.labels_.max()) + 1
        self.n_leaves_ = len(X)
        hierarchy = self.model_.hierarchy.cpu().numpy()
        self.children_, self.distances_ = hierarchy[:, :2].astype(np.intp), hierarchy[:, 2]
        return self
