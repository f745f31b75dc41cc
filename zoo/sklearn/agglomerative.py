"""AgglomerativeClustering under scikit-learn's name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.cluster
import torch
from scipy import sparse
from sklearn.base import ClusterMixin
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import _VALID_METRICS
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_memory

from zoo.models.agglomerative.agglomerative_clustering import AgglomerativeClustering as Model
from zoo.models.agglomerative.connected import complete_graph, connected_linkage
from zoo.models.agglomerative.linkage import LINKAGES, linkage
from zoo.numerics.distances import ALIASES, METRICS
from zoo.sklearn.base import ZooEstimator, constraints

__all__ = ["AgglomerativeClustering"]


def build_tree(
    rows: np.ndarray, edges: np.ndarray | None, method: str, metric: str, device: str
) -> tuple[np.ndarray, int]:
    """The hierarchy of rows (N, F), along edges (E, 2) if given, and the number of the graph's components."""
    x = torch.from_numpy(rows).to(device)
    if edges is None:
        return linkage(x, method, metric).cpu().numpy(), 1
    completed, components = complete_graph(x, torch.from_numpy(edges).to(device), metric)
    return connected_linkage(x, completed, method, metric).cpu().numpy(), components


class AgglomerativeClustering(ClusterMixin, ZooEstimator):
    """Hierarchical clustering by merging the two nearest clusters.

    Args:
        n_clusters: how many clusters to leave; None with `distance_threshold`.
        metric: distance of two rows, such as `euclidean`, `manhattan`, `cosine` or `precomputed`, or a function of all
            rows that returns the distances (N, N).
        memory: a folder, or joblib's `Memory`, that keeps trees for the next fit to the same rows.
        connectivity: a matrix (N, N), dense or sparse, whose entries say which rows are neighbours, or a function that
            returns it for rows; clusters merge only where there are neighbours.
        compute_full_tree: whether `children_` go on when `n_clusters` are left; `auto` leaves merges out where there
            are neighbours and many clusters.
        linkage: `ward`, `average`, `complete` or `single`, and the zoo's `weighted`, `centroid` and `median`.
        distance_threshold: merge all that are nearer to each other than this.
        compute_distances: whether `distances_` are shown without `distance_threshold`.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> AgglomerativeClustering(2).fit_predict([[0.0], [1.0], [10.0], [11.0], [12.0]]).tolist()
        [1, 1, 0, 0, 0]
    """

    _parameter_constraints = constraints(
        sklearn.cluster.AgglomerativeClustering,
        metric=[StrOptions({*_VALID_METRICS, *METRICS, *ALIASES, "precomputed"}), callable],
        linkage=[StrOptions(set(LINKAGES))],
    )

    def __init__(
        self,
        n_clusters: int | None = 2,
        *,
        metric: Any = "euclidean",
        memory: Any = None,
        connectivity: Any = None,
        compute_full_tree: bool | str = "auto",
        linkage: str = "ward",
        distance_threshold: float | None = None,
        compute_distances: bool = False,
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.metric, self.memory, self.connectivity = n_clusters, metric, memory, connectivity
        self.compute_full_tree, self.linkage, self.distance_threshold = compute_full_tree, linkage, distance_threshold
        self.compute_distances, self.device = compute_distances, device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    def fit(self, X: Any, y: Any = None) -> AgglomerativeClustering:
        """Fit to rows X (N, F), or to their distances (N, N) where they are precomputed; `y` is ignored."""
        self._check_parameters()
        X = self._rows(X, reset=True, ensure_min_samples=2)
        self._check_options(len(X))
        edges = self._edges(X)
        rows, metric = self._distances(X)
        tree, self.n_connected_components_ = check_memory(self.memory).cache(build_tree)(
            rows, edges, self.linkage, metric, self._device()
        )
        heights = tree[:, 2]
        threshold = self.distance_threshold
        self.n_clusters_ = int(self.n_clusters) if threshold is None else int((heights >= threshold).sum()) + 1  # type: ignore[arg-type]
        model = Model(num_clusters=self.n_clusters_, linkage=self.linkage, metric=metric)  # type: ignore[arg-type]
        self._build(model, rows)
        model.adopt(*(torch.from_numpy(part).to(self._device()) for part in (rows, tree)))
        self.model_, self.labels_, self.n_leaves_ = model.eval(), model.labels.cpu().numpy(), len(X)
        shown = len(tree) if self._whole(len(X), edges) else len(X) - self.n_clusters_
        self.children_ = tree[:shown, :2].astype(np.intp)
        if threshold is not None or self.compute_distances:
            self.distances_ = heights[:shown].copy()
        return self

    def _check_options(self, num_rows: int) -> None:
        if (self.n_clusters is None) == (self.distance_threshold is None):
            raise ValueError(
                "Exactly one of n_clusters and distance_threshold has to be set, and the other needs to be None."
            )
        if self.distance_threshold is not None and not self.compute_full_tree:
            raise ValueError("compute_full_tree must be True if distance_threshold is set.")
        if self.linkage == "ward" and self.metric not in ("euclidean", "l2"):
            raise ValueError(
                f"{self.metric} was provided as metric. Ward can only work with euclidean distances (i.e. 'euclidean' "
                "and 'l2')."
            )
        if self.n_clusters is not None and self.n_clusters > num_rows:
            raise ValueError(
                f"Cannot extract more clusters than samples: {self.n_clusters} clusters were given for a tree with "
                f"{num_rows} leaves."
            )

    def _edges(self, X: np.ndarray) -> np.ndarray | None:
        """The pairs of rows (E, 2) that are neighbours."""
        if self.connectivity is None:
            return None
        graph = self.connectivity(X) if callable(self.connectivity) else self.connectivity
        graph = check_array(graph, accept_sparse=["csr", "coo", "lil"])
        if graph.shape != (len(X), len(X)):
            raise ValueError(f"Wrong shape for connectivity matrix: {graph.shape} when X is {X.shape}")
        found = sparse.coo_array(graph)
        found.eliminate_zeros()
        edges = np.stack([found.row, found.col], 1).astype(np.int64)
        components = sparse.csgraph.connected_components(found, directed=False)[0]
        if components > 1:
            warnings.warn(
                f"the number of connected components of the connectivity matrix is {components} > 1. Completing it to "
                "avoid stopping the tree early.",
                stacklevel=3,
            )
        return edges

    def _distances(self, X: np.ndarray) -> tuple[np.ndarray, str]:
        """Rows or distances in float64, and the metric that the zoo takes them by."""
        if callable(self.metric):
            return np.array(self.metric(X), dtype=np.float64, order="C"), "precomputed"
        if self.metric not in {*METRICS, *ALIASES, "precomputed"}:
            return np.array(pairwise_distances(X, metric=self.metric), dtype=np.float64, order="C"), "precomputed"
        return X.astype(np.float64), self.metric

    def _whole(self, num_rows: int, edges: np.ndarray | None) -> bool:
        """Whether all merges are shown."""
        if edges is None or self.distance_threshold is not None:
            return True
        if self.compute_full_tree == "auto":
            return int(self.n_clusters) < max(100, 0.02 * num_rows)  # type: ignore[arg-type]
        return bool(self.compute_full_tree)
