"""AgglomerativeClustering under scikit-learn's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.cluster
from sklearn.base import ClusterMixin
from sklearn.utils._param_validation import StrOptions

from zoo.models.agglomerative.linkage import LINKAGES
from zoo.numerics.distances import ALIASES, METRICS
from zoo.sklearn.base import ZooEstimator, constraints, create

__all__ = ["AgglomerativeClustering"]


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
