"""KMeans, MiniBatchKMeans and BisectingKMeans under scikit-learn's names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.cluster
import torch
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from zoo.models.kmeans.bisecting_kmeans import BisectingKMeans as BisectingModel
from zoo.models.kmeans.kmeans import DONE
from zoo.models.kmeans.kmeans import KMeans as KMeansModel
from zoo.models.kmeans.lloyd import assign
from zoo.models.kmeans.mini_batch import Smoothed, light_clusters, mini_batch_step
from zoo.models.kmeans.seeding import kmeans_plusplus
from zoo.models.kmeans.sparse import SparseRows, sparse_assign
from zoo.numerics.distances import squared_distances
from zoo.sklearn.base import ZooEstimator, constraints, convergence_warnings
from zoo.sklearn.rows import dense_blocks, tensor_of, validate_data

__all__ = ["BisectingKMeans", "KMeans", "MiniBatchKMeans"]

_INIT = StrOptions({"k-means++", "k-means||", "random"})


class _Centroids(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, ZooEstimator):
    """What the three share: first centroids of any kind, and answers from `cluster_centers_` as they stand."""

    n_clusters: int
    init: Any
    n_init: int | str
    max_iter: int
    tol: float
    verbose: int
    random_state: Any
    cluster_centers_: Any
    _restarts = 10  # of random first centroids

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_rows(self, X: Any, *, reset: bool) -> Any:
        """Return checked rows, dense or sparse."""
        types = [np.float64, np.float32]
        return validate_data(
            self, X, reset=reset, dtype=types, accept_sparse="csr", order="C", accept_large_sparse=False
        )

    def _check_weights(self, sample_weight: Any, X: Any) -> np.ndarray | None:
        return self._weight(sample_weight, X, ensure_non_negative=True)

    def _check_number(self, X: Any) -> None:
        if X.shape[0] < self.n_clusters:
            raise ValueError(f"n_samples={X.shape[0]} should be >= n_clusters={self.n_clusters}.")

    @property
    def _given(self) -> bool:
        """Whether `init` is an array."""
        return not isinstance(self.init, str) and not callable(self.init)

    def _num_init(self) -> int:
        """How many starts are made."""
        often = callable(self.init) or (isinstance(self.init, str) and self.init == "random")
        number = (self._restarts if often else 1) if self.n_init == "auto" else int(self.n_init)
        if self._given and number != 1:
            warnings.warn(
                f"Explicit initial center position passed: performing only one init in {type(self).__name__} instead "
                f"of n_init={number}.",
                RuntimeWarning,
                stacklevel=3,
            )
            number = 1
        return number

    def _check_centers(self, centers: Any, X: Any, number: int) -> np.ndarray:
        centers = check_array(centers, dtype=X.dtype, copy=True, order="C")
        if centers.shape[0] != number:
            raise ValueError(
                f"The shape of the initial centers {centers.shape} does not match the number of clusters {number}."
            )
        if centers.shape[1] != X.shape[1]:
            raise ValueError(
                f"The shape of the initial centers {centers.shape} does not match the number of features of the data "
                f"{X.shape[1]}."
            )
        return centers

    def _first_centers(self, X: Any, number: int, random: Any, times: int) -> Tensor | None:
        """First centroids (R, K, D) where they are given, or made by a function; None where they are drawn."""
        if isinstance(self.init, str):
            return None
        if callable(self.init):
            starts = [self._check_centers(self.init(X, number, random_state=random), X, number) for _ in range(times)]
        else:
            starts = [self._check_centers(self.init, X, number)]
        return torch.from_numpy(np.stack(starts).astype(np.float64))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _warn_of_few(self, labels: np.ndarray) -> None:
        found = len(np.unique(labels))
        if found < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({found}) found smaller than n_clusters ({self.n_clusters}). Possibly "
                "due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=3,
            )

    # -- answers -------------------------------------------------------------------------------------------------

    def _centers(self) -> Tensor:
        """The centroids (K, D), float64: `cluster_centers_`, or what these were rounded from, as `labels_` are."""
        centers, model = np.asarray(self.cluster_centers_), vars(self).get("model_")
        if model is not None and np.array_equal(model.centroids.cpu().numpy().astype(centers.dtype), centers):
            return model.centroids.to(self._device())
        return tensor_of(centers.astype(np.float64)).to(self._device())

    def _assign(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of the centroids of each row, and the squared distance to it."""
        centers = self._centers().unsqueeze(0)
        if sparse.issparse(X):
            parts = [sparse_assign(_sparse_rows(X, self._device()), centers)]
        else:
            parts = [assign(tensor_of(X).to(self._device()), centers)]
        label, distance = parts[0]
        return label[0].cpu().numpy().astype(np.int32), distance[0].cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the nearest cluster of each row, (N,)."""
        check_is_fitted(self)
        return self._assign(self._check_rows(X, reset=False))[0]

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit and return the clusters of the rows, (N,)."""
        return self.fit(X, sample_weight=sample_weight).labels_  # type: ignore[attr-defined]

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit and return the distances of the rows to the centroids, (N, K)."""
        return self.fit(X, sample_weight=sample_weight).transform(X)  # type: ignore[attr-defined]

    def transform(self, X: Any) -> np.ndarray:
        """Return the distance of each row to each centroid, (N, K)."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        centers = self._centers()
        parts = [
            squared_distances(x.to(self._device()).double(), centers).sqrt_().cpu().numpy() for _, x in dense_blocks(X)
        ]
        return np.concatenate(parts).astype(X.dtype, copy=False)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the negative (weighted) sum of squared distances to the nearest centroids."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        weight = self._check_weights(sample_weight, X)
        squared = self._assign(X)[1]
        return -float(squared.sum() if weight is None else squared @ weight)


def _sparse_rows(X: Any, device: str) -> SparseRows:
    crow, columns, values = (torch.from_numpy(part).to(device) for part in (X.indptr, X.indices, X.data))
    return SparseRows(crow, columns, values, X.shape[1])


def _seed(random: Any) -> int:
    return int(random.randint(2**31 - 1))


class KMeans(_Centroids):
    """k-means by Lloyd's iterations.

    Args:
        n_clusters: K.
        init: `k-means++`, `k-means||`, `random`, the centroids (K, F), or a function of rows, K and `random_state` that
            returns them.
        n_init: starts, the best of which is kept; `auto` is 10 for `random` and functions, else 1.
        max_iter: iterations at most.
        tol: the least movement of the centroids, as a share of the features' mean variance.
        verbose: print the inertia of each iteration.
        random_state: seed of the draws.
        copy_x: changes nothing: rows are never written to.
        algorithm: changes nothing: Elkan's comes to the same centroids.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = KMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(model.cluster_centers_.ravel().tolist())
        [0.5, 10.5]
    """

    _parameter_constraints = constraints(sklearn.cluster.KMeans, init=[_INIT, callable, "array-like"])

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.n_init, self.max_iter = n_clusters, init, n_init, max_iter
        self.tol, self.verbose, self.random_state, self.copy_x = tol, verbose, random_state, copy_x
        self.algorithm, self.device = algorithm, device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Fit to rows X (N, F), dense or sparse, with weights (N,) if given; `y` is ignored."""
        self._check_parameters()
        X = self._check_rows(X, reset=True)
        self._check_number(X)
        weight, random, times = self._check_weights(sample_weight, X), check_random_state(self.random_state), 1
        times = self._num_init()
        starts = self._first_centers(X, int(self.n_clusters), random, times)
        model = KMeansModel(
            num_clusters=int(self.n_clusters),
            init=self.init if starts is None else "random",
            num_init=times,
            max_iter=int(self.max_iter),
            tolerance=float(self.tol),
            seed=_seed(random),
        )
        self._build(model, X)
        if starts is not None:
            model.start_from(starts.to(self._device()))
        with convergence_warnings(type(self).__name__, others=False):  # which are said below
            self._iterate(model, X, weight)
        self.model_ = model.eval()
        self.cluster_centers_ = model.centroids.cpu().numpy().astype(X.dtype)
        self.inertia_, self.n_iter_ = float(model.inertia), int(model.own_iter[model.best])
        known, model.row_labels = model.row_labels, None
        self.labels_ = self._assign(X)[0] if known is None else known[0].cpu().numpy().astype(np.int32)
        self._warn_of_few(self.labels_)
        return self

    def _iterate(self, model: Any, X: Any, weight: np.ndarray | None) -> None:
        if sparse.issparse(X):
            mass = None if weight is None else tensor_of(weight).to(self._device())
            model.fit_sparse(_sparse_rows(X, self._device()), mass, _report if self.verbose else None)
            return
        batch = self._batch(model, X, weight=weight)
        if not self.verbose:
            model.fit_batches(lambda: [batch])
            return
        values = model.fit_batches(lambda: [batch], max_passes=1)
        while not model.done:
            if values and int(model.num_iter):
                _report(int(model.num_iter) - 1, model.all_inertia)
            values = model.run_passes(lambda: [batch], max_passes=1)
        print(f"Converged after {int(model.num_iter)} iterations, inertia {float(model.inertia)}.")


def _report(step: int, inertia: Tensor) -> None:
    print(f"Iteration {step}, inertia {', '.join(str(value) for value in inertia.tolist())}.")


class MiniBatchKMeans(_Centroids):
    """k-means whose centroids move after every batch of rows (Sculley 2010); `partial_fit` takes batches as they come.

    Args:
        n_clusters: K.
        init: as of `KMeans`.
        max_iter: passes over the rows at most.
        batch_size: rows drawn for each step.
        verbose: print the inertia of each step.
        compute_labels: whether `labels_` and `inertia_` are those of all rows at the end.
        random_state: seed of the draws.
        tol: the least movement of the centroids in a step, as a share of the features' mean variance.
        max_no_improvement: steps without a smaller (smoothed) inertia after which it stops; None never does.
        init_size: rows drawn for the first centroids; None is three batches.
        n_init: starts that are tried; `auto` is 3 for `random` and functions, else 1.
        reassignment_ratio: clusters of less than this share of the greatest one's rows are drawn anew.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = MiniBatchKMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> model.predict([[0.4], [10.4]]) == model.labels_[[0, 3]]
        array([ True,  True])
    """

    _parameter_constraints = constraints(sklearn.cluster.MiniBatchKMeans, init=[_INIT, callable, "array-like"])
    _restarts = 3

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        max_iter: int = 100,
        batch_size: int = 1024,
        verbose: int = 0,
        compute_labels: bool = True,
        random_state: Any = None,
        tol: float = 0.0,
        max_no_improvement: int | None = 10,
        init_size: int | None = None,
        n_init: int | str = "auto",
        reassignment_ratio: float = 0.01,
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.max_iter, self.batch_size = n_clusters, init, max_iter, batch_size
        self.verbose, self.compute_labels, self.random_state, self.tol = verbose, compute_labels, random_state, tol
        self.max_no_improvement, self.init_size, self.n_init = max_no_improvement, init_size, n_init
        self.reassignment_ratio, self.device = reassignment_ratio, device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Fit to rows X (N, F), dense or sparse, with weights (N,) if given, in batches drawn by the weights."""
        self._check_parameters()
        X = self._check_rows(X, reset=True)
        self._check_number(X)
        weight, random = self._check_weights(sample_weight, X), check_random_state(self.random_state)
        rows, size = X.shape[0], min(self.batch_size, X.shape[0])
        self._begin(self._best_start(X, weight, random))
        share = np.full(rows, 1 / rows) if weight is None else weight / weight.sum()
        share = share.cumsum()
        share /= share[-1]
        steps, limit = (self.max_iter * rows) // size, self._limit(X)
        smoothed = Smoothed(2 * size / (rows + 1))
        for step in range(1, steps + 1):
            chosen = share.searchsorted(random.random_sample(size), side="right")
            before = self._centroids
            inertia = self._step(X[chosen], None, random) / size
            if step > 1 and self._stops(smoothed, inertia, before, limit, f"{step}/{steps}"):
                break
        self.n_steps_, self.n_iter_ = step, int(np.ceil(step * size / rows))
        self._show(X, weight)
        if not self.compute_labels:
            total = rows if weight is None else weight.sum()
            self.inertia_ = float((inertia if smoothed.value is None else smoothed.value) * total)
        return self

    def _limit(self, X: Any) -> float:
        """The movement of the centroids below which it stops."""
        if not self.tol:
            return 0.0
        if not sparse.issparse(X):
            return float(X.var(0).mean() * self.tol)
        return float((X.multiply(X).mean(0) - np.square(X.mean(0))).mean() * self.tol)

    def _stops(self, smoothed: Smoothed, inertia: float, before: Tensor, limit: float, step: str) -> bool:
        waited = smoothed.add(inertia)
        if self.verbose:
            print(f"Minibatch step {step}: mean batch inertia: {inertia}, ewa inertia: {smoothed.value}")
        reason = None
        if limit > 0 and float((self._centroids - before).square().sum()) <= limit:
            reason = "small centers change"
        elif self.max_no_improvement is not None and waited >= self.max_no_improvement:
            reason = "lack of improvement in inertia"
        if reason and self.verbose:
            print(f"Converged ({reason}) at step {step}")
        return reason is not None

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Move the centroids once by a batch of rows X (N, F) of any number; the first batch also draws them."""
        self._check_parameters()
        first = not hasattr(self, "cluster_centers_")
        X = self._check_rows(X, reset=first)
        weight = self._check_weights(sample_weight, X)
        if first:
            self._check_number(X)
            self._random_state = check_random_state(self.random_state)
            self._begin(self._start(X, weight, self._random_state))
            self.n_steps_ = 0
        else:
            if not hasattr(self, "_random_state"):
                self._random_state = check_random_state(self.random_state)
            self._centroids = torch.from_numpy(np.array(self.cluster_centers_, dtype=np.float64)).to(self._device())
        self._step(X, weight, self._random_state)
        self.n_steps_ += 1
        self._show(X, weight)
        return self

    def _begin(self, centroids: Tensor) -> None:
        self._centroids = centroids.to(self._device())
        self._mass = self._centroids.new_zeros(len(centroids))
        self._since_reassigned = 0

    def _start(self, X: Any, weight: np.ndarray | None, random: Any) -> Tensor:
        """First centroids (K, D), drawn from some of the rows."""
        size = 3 * self.batch_size if self.init_size is None else int(self.init_size)
        if size < self.n_clusters:
            if self.init_size is not None:
                warnings.warn(
                    f"init_size={size} should be larger than n_clusters={self.n_clusters}. Setting it to "
                    "min(3*n_clusters, n_samples)",
                    RuntimeWarning,
                    stacklevel=4,
                )
            size = 3 * self.n_clusters
        if size < X.shape[0]:
            chosen = random.randint(0, X.shape[0], size)
            X, weight = X[chosen], None if weight is None else weight[chosen]
        given = self._first_centers(X, int(self.n_clusters), random, 1)
        if given is not None:
            return given[0]
        if self.init == "random":
            share = None if weight is None else weight / weight.sum()
            if share is None:
                share = np.full(X.shape[0], 1 / X.shape[0])
            rows = X[random.choice(X.shape[0], size=self.n_clusters, replace=False, p=share)]
            return torch.from_numpy((rows.toarray() if sparse.issparse(rows) else rows).astype(np.float64))
        x: Any = _sparse_rows(X, self._device()) if sparse.issparse(X) else tensor_of(X).to(self._device())
        mass = None if weight is None else tensor_of(weight).to(self._device())
        return kmeans_plusplus(x, mass, int(self.n_clusters), 1, _seed(random))[0]

    def _best_start(self, X: Any, weight: np.ndarray | None, random: Any) -> Tensor:
        """The first centroids of the least inertia over some of the rows."""
        size = 3 * self.batch_size if self.init_size is None else int(self.init_size)
        size = min(3 * self.n_clusters if size < self.n_clusters else size, X.shape[0])
        held = random.randint(0, X.shape[0], size)
        best, least = None, np.inf
        times = self._num_init()
        for attempt in range(times):
            self.cluster_centers_ = self._start(X, weight, random).cpu().numpy()
            if times == 1 and not self.verbose:
                return torch.from_numpy(self.cluster_centers_)
            distance = self._assign(X[held])[1]
            inertia = float(distance.sum() if weight is None else distance @ weight[held])
            if self.verbose:
                print(f"Inertia for init {attempt + 1}/{times}: {inertia}")
            if best is None or inertia < least:
                best, least = self.cluster_centers_, inertia
        assert best is not None
        return torch.from_numpy(best)

    def _step(self, X: Any, weight: np.ndarray | None, random: Any) -> float:
        """Move the centroids by a batch; return its inertia before."""
        x = torch.from_numpy(X.toarray() if sparse.issparse(X) else X.copy()).to(self._device())
        mass = None if weight is None else tensor_of(weight).to(self._device())
        self._since_reassigned += min(len(x), self.batch_size)
        renew = bool((self._mass == 0).any()) or self._since_reassigned >= 10 * self.n_clusters
        self._centroids, self._mass, inertia = mini_batch_step(x, mass, self._centroids, self._mass)
        if renew:
            self._since_reassigned = 0
            if self.reassignment_ratio > 0:
                self._reassign(x, random)
        return float(inertia)

    def _reassign(self, x: Tensor, random: Any) -> None:
        """Put clusters of few rows on rows drawn from the batch."""
        light = light_clusters(self._mass, self.reassignment_ratio, len(x) // 2)
        number = int(light.sum())
        if not number:
            return
        if self.verbose:
            print(f"[MiniBatchKMeans] Reassigning {number} cluster centers.")
        chosen = torch.from_numpy(random.choice(len(x), replace=False, size=number)).to(x.device)
        self._centroids[light] = x[chosen].double()
        self._mass[light] = self._mass[~light].min()

    def _show(self, X: Any, weight: np.ndarray | None) -> None:
        self.cluster_centers_ = self._centroids.cpu().numpy().astype(X.dtype)
        if self.compute_labels:
            self.labels_, distance = self._assign(X)
            self.inertia_ = float(distance.sum() if weight is None else distance @ weight)

    @property
    def model_(self) -> Any:
        """The zoo's `kmeans` with `cluster_centers_` as they are."""
        check_is_fitted(self)
        centers = np.asarray(self.cluster_centers_)
        model = self._build(KMeansModel(num_clusters=len(centers), mini_batch=True, seed=0), centers)
        model.start_from(tensor_of(centers).double().to(self._device()))
        model.phase.fill_(DONE)
        return model.eval()


class BisectingKMeans(_Centroids):
    """k-means that splits one cluster in two until there are K (Steinbach, Karypis & Kumar 2000).

    Args:
        n_clusters: K.
        init: how the two centroids of a split start: `k-means++`, `k-means||`, `random`, or a function of rows, 2 and
            `random_state`.
        n_init: starts of each split.
        random_state: seed of the draws.
        max_iter: iterations of each split at most.
        verbose: print the inertia of each split.
        tol: the least movement of the centroids, as a share of the features' mean variance.
        copy_x: changes nothing: rows are never written to.
        algorithm: changes nothing: Elkan's comes to the same centroids.
        bisecting_strategy: split the cluster of the `biggest_inertia` or the `largest_cluster`.
        device: `cpu`, `cuda` or `auto`.

    Sparse rows are made dense.

    Example:
        >>> model = BisectingKMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> sorted(model.cluster_centers_.ravel().tolist())
        [0.5, 10.5]
    """

    _parameter_constraints = constraints(sklearn.cluster.BisectingKMeans, init=[_INIT, callable])

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "random",
        n_init: int = 1,
        random_state: Any = None,
        max_iter: int = 300,
        verbose: int = 0,
        tol: float = 1e-4,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        bisecting_strategy: str = "biggest_inertia",
        device: str = "cpu",
    ) -> None:
        self.n_clusters, self.init, self.n_init, self.random_state = n_clusters, init, n_init, random_state
        self.max_iter, self.verbose, self.tol, self.copy_x = max_iter, verbose, tol, copy_x
        self.algorithm, self.bisecting_strategy, self.device = algorithm, bisecting_strategy, device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BisectingKMeans:
        """Fit to rows X (N, F), dense or sparse, with weights (N,) if given; `y` is ignored."""
        self._check_parameters()
        X = self._check_rows(X, reset=True)
        self._check_number(X)
        weight, random = self._check_weights(sample_weight, X), check_random_state(self.random_state)
        times = self._num_init()
        strategies = {"biggest_inertia": "inertia", "largest_cluster": "weight"}
        model = BisectingModel(
            num_clusters=int(self.n_clusters),
            split_by=strategies[self.bisecting_strategy],  # type: ignore[arg-type]
            init="random" if callable(self.init) else self.init,
            num_init=times,
            max_iter=int(self.max_iter),
            tolerance=float(self.tol),
            seed=_seed(random),
        )
        rows = X.toarray() if sparse.issparse(X) else X
        self._build(model, rows)
        if callable(self.init):
            model.first_centroids = self._chooser(random, times)
        if self.verbose:
            model.report = _report_split
        with convergence_warnings(type(self).__name__, others=False):  # which are said below
            batch = self._batch(model, rows, weight=weight)
            model.fit_batches(lambda: [batch])
        model.first_centroids = model.report = None
        self.model_ = model.eval()
        self.cluster_centers_ = model.centroids.cpu().numpy().astype(X.dtype)
        known, model.row_labels = model.row_labels, None
        self.inertia_ = float(model.inertia)
        self.labels_ = self._descend(rows) if known is None else known.cpu().numpy().astype(np.int32)
        self._warn_of_few(self.labels_)
        return self

    def _chooser(self, random: Any, times: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        def choose(x: Tensor, weight: Tensor | None) -> Tensor:
            starts = self._first_centers(x.cpu().numpy(), min(2, int(self.n_clusters)), random, times)
            assert starts is not None
            return starts.to(x.device)

        return choose

    def _descend(self, X: np.ndarray) -> np.ndarray:
        columns = self.model_.predict_columns(X, batch_size=max(1, len(X)))
        return columns["prediction"].cpu().numpy().astype(np.int32)

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each row, (N,), found down the tree of splits."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        parts = [self._descend(x.numpy()) for _, x in dense_blocks(X)]
        return np.concatenate(parts)


def _report_split(number: int, inertia: Tensor) -> None:
    print(f"New centroids from bisection {number}, inertia {float(inertia)}.")
