"""DecisionTree*, RandomForest* and ExtraTrees* under scikit-learn's names."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn.ensemble
import sklearn.tree
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from zoo.data.spec import DataSpec
from zoo.models.trees.growth import Growth, Learned, check_targets, counted, criterion_for
from zoo.models.trees.trees import Trees, find_leaves, importances, in_order
from zoo.sklearn.base import ZooEstimator, constraints, create
from zoo.sklearn.rows import classes_of, column_of, tensor_of, validate_data
from zoo.sklearn.tree_view import Tree, preorder

__all__ = [
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "RandomForestClassifier",
    "RandomForestRegressor",
]

_DENSE = 1 << 28  # numbers that sparse rows may become
_LEAVES = 1 << 22  # looked up at once, which bounds the memory of predictions
_HISTOGRAM_MB = 256  # that passes in torch operations count in, at most
_EXACT_ROWS = 1000  # absolute errors count each pair of a feature's and the target's values
_OF_CLASSES = {"criterion": [StrOptions({"gini", "entropy", "log_loss"})]}
_OF_VALUES = {"criterion": [StrOptions({"squared_error", "absolute_error", "poisson"})]}


class _Trees(ZooEstimator):
    """What all of them share: rows, targets and weights, the model's options, and what is read off fitted trees."""

    criterion: str
    max_depth: int | None
    min_samples_split: int | float
    min_samples_leaf: int | float
    min_weight_fraction_leaf: float
    max_features: Any
    max_leaf_nodes: int | None
    min_impurity_decrease: float
    ccp_alpha: float
    monotonic_cst: Any
    random_state: Any
    class_weight: Any = None
    n_features_in_: int
    classes_: np.ndarray
    _trees: Trees

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags

    # -- rows and targets ----------------------------------------------------------------------------------------

    def _check_rows(self, X: Any, y: Any = None, *, reset: bool) -> Any:
        """Return checked rows (N, F), float64 and dense, and targets as they came."""
        options: dict[str, Any] = {
            "accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": "C", "ensure_all_finite": "allow-nan",
        }  # fmt: skip
        if not reset:
            return _dense(validate_data(self, X, reset=False, **options), type(self).__name__)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        several = isinstance(self, MultiOutputMixin)
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=several, **options)
        if not several or (y.ndim == 2 and y.shape[1] == 1):
            y = column_of(y)
        return _dense(X, type(self).__name__), y

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Return class indices or values, and note the classes."""
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        if not isinstance(self, ClassifierMixin):
            if self.criterion == "poisson" and ((y < 0).any() or not y.sum() > 0):
                raise ValueError("criterion='poisson' needs values of y of 0 or more, not all of them 0.")
            return y.astype(np.float64)
        self.classes_, codes = classes_of(y)
        self.n_classes_ = len(self.classes_)
        return codes

    def _row_weight(self, sample_weight: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray | None:
        weight = self._weight(sample_weight, X)
        if self.class_weight is None:
            return weight
        by_class = compute_sample_weight(self.class_weight, y)
        return by_class if weight is None else weight * by_class

    # -- the model -----------------------------------------------------------------------------------------------

    def _options(self, num_rows: int) -> dict[str, Any]:
        """Return the model's options that trees and forests share."""
        leaf, split = self.min_samples_leaf, self.min_samples_split
        leaf = leaf if isinstance(leaf, int | np.integer) else math.ceil(leaf * num_rows)
        split = split if isinstance(split, int | np.integer) else max(2, math.ceil(split * num_rows))
        features = self.max_features
        if isinstance(features, int | np.integer) and features > self.n_features_in_:
            features = None
        return {
            "criterion": "entropy" if self.criterion == "log_loss" else self.criterion,
            "max_depth": _whole(self.max_depth),
            "min_samples_split": int(split),
            "min_samples_leaf": int(leaf),
            "min_weight_fraction_leaf": float(self.min_weight_fraction_leaf),
            "min_gain": float(self.min_impurity_decrease),
            "max_leaf_nodes": _whole(self.max_leaf_nodes),
            "max_features": _whole(features),
            "ccp_alpha": float(self.ccp_alpha),
            "monotone": self._directions(),
        }

    def _directions(self) -> list[int] | None:
        if self.monotonic_cst is None:
            return None
        given = np.asarray(self.monotonic_cst)
        if given.shape != (self.n_features_in_,):
            raise ValueError(
                f"monotonic_cst has shape {given.shape[0] if given.ndim else 1} but the input data X has "
                f"{self.n_features_in_} features."
            )
        if not np.isin(given, (-1, 0, 1)).all():
            raise ValueError(f"monotonic_cst must be None or an array-like of -1, 0 or 1, but got {np.unique(given)}")
        if getattr(self, "n_classes_", 2) > 2:
            raise ValueError("Monotonicity constraints are not supported with multiclass classification")
        if self.n_outputs_ > 1:
            raise ValueError("Monotonicity constraints are not supported with multiple outputs.")
        return given.astype(int).tolist()

    def _seed(self) -> int:
        state = self.random_state
        return _first_draw(int(state)) if isinstance(state, int | np.integer) else _draw(state)

    # -- prediction ----------------------------------------------------------------------------------------------

    def _parts(self, X: np.ndarray) -> Iterator[torch.Tensor]:
        """Some rows at a time, on the device of the trees."""
        root = self._trees.root
        return iter(tensor_of(X).to(root.device).split(max(1, _LEAVES // len(root))))

    def _values(self, X: np.ndarray) -> np.ndarray:
        """Return class shares (N, C) or values (N, K)."""
        trees = self._trees
        value = torch.cat([trees.value[find_leaves(trees, part)].mean(0) for part in self._parts(X)]).cpu().numpy()
        return value[:, : self.n_classes_] if isinstance(self, ClassifierMixin) else value

    def _leaves(self, X: np.ndarray) -> np.ndarray:
        """Return the leaf of each row in each tree, (N, T), by its place in the tree."""
        trees = self._trees
        leaves = torch.cat([find_leaves(trees, part) for part in self._parts(X)], dim=1).T.cpu()
        return preorder(trees)[leaves].numpy()

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each feature in the gains, the mean over trees, (F,)."""
        check_is_fitted(self)
        return importances(self._trees, self.n_features_in_).cpu().numpy()


class _Classifies(ClassifierMixin):
    """What the classifiers predict."""

    def predict_proba(self: Any, X: Any) -> np.ndarray:
        """Return class shares of the rows' leaves, the mean over trees, (N, C)."""
        check_is_fitted(self)
        return self._values(self._check_rows(X, reset=False))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the class shares, (N, C)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self: Any, X: Any) -> np.ndarray:
        """Return the class of the largest share, (N,)."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(1)]


class _Regresses(MultiOutputMixin, RegressorMixin):
    """What the regressors predict."""

    def predict(self: Any, X: Any) -> np.ndarray:
        """Return values, (N,) or (N, K)."""
        check_is_fitted(self)
        value = self._values(self._check_rows(X, reset=False))
        return value[:, 0] if self.n_outputs_ == 1 else value


def _draw(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


@functools.lru_cache(maxsize=64)
def _first_draw(seed: int) -> int:
    """The same of a seed, whose generator takes as long to make as a tenth of a small tree."""
    return _draw(seed)


def _dense(X: Any, name: str) -> np.ndarray:
    if not sparse.issparse(X):
        return X
    if math.prod(X.shape) > _DENSE:
        size = f"{X.shape[0]:,} × {X.shape[1]:,}"
        raise ValueError(f"{name} makes sparse rows dense, and {size} are more than {_DENSE:,} numbers.")
    return X.toarray()


def _whole(value: Any) -> Any:
    """An integer of any library as Python's."""
    return int(value) if isinstance(value, np.integer) else value


def _tree_of(trees: Trees, number: int) -> Trees:
    """One tree of many."""
    return in_order(trees._replace(root=trees.root[number : number + 1]))


# -- one tree ----------------------------------------------------------------------------------------------------------


class _DecisionTree(_Trees):
    """A single tree, of all thresholds."""

    splitter: str

    _growth: Growth
    _learned: Learned

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        self._check_parameters()
        X, y = self._check_rows(X, y, reset=True)
        weight, codes = self._row_weight(sample_weight, X, y), self._targets(y)
        options, is_class = self._options(len(X)), isinstance(self, ClassifierMixin)
        many = options["criterion"] == "absolute_error" and len(X) > _EXACT_ROWS
        draws: dict[str, Any] = {"random_thresholds": self.splitter == "random", "seed": self._seed()}
        growth = Growth(
            "decision_tree",
            {**options, "num_bins": 255 if many else None, "histogram_mb": _HISTOGRAM_MB, **draws},
            criterion_for(options["criterion"], "class" if is_class else "value", self.n_outputs_),
            self.n_features_in_,
            max(2, self.n_classes_) if is_class else None,
            1 if is_class else self.n_outputs_,
            least_classes=1,
            **draws,
        )
        device = self._device()
        x, target = (tensor_of(array).to(device) for array in (X, codes))
        weights = None if weight is None else tensor_of(weight).to(device)
        check_targets(target, weights, growth.criterion, growth.name)
        self._growth, self._dtype = growth, str(X.dtype)
        self._learned = growth.learn(*counted(x.double() + 0.0, target, weights))
        self._trees = self._learned.trees
        self.max_features_ = growth.max_features or self.n_features_in_
        for name in ("model_", "tree_"):
            self.__dict__.pop(name, None)
        return self

    @functools.cached_property
    def model_(self) -> Any:
        """The zoo's `decision_tree` with the grown tree, made when it is asked for."""
        check_is_fitted(self, "_learned")
        growth = self._growth
        spec = DataSpec(
            "tabular", (growth.num_features,), "class" if growth.num_classes else "value",
            num_classes=growth.num_classes, num_targets=growth.num_targets, dtype=self._dtype,
        )  # fmt: skip
        model: Any = create("decision_tree", **growth.options)
        model.least_classes = growth.least_classes
        model.build(spec).to(self._device()).adopt(self._learned)
        return model.eval()

    @functools.cached_property
    def tree_(self) -> Tree:
        """The grown tree as scikit-learn shows one, laid out when it is asked for."""
        check_is_fitted(self)
        criterion = self._growth.criterion if isinstance(self, ClassifierMixin) else None
        trees = Trees(*(column.cpu() for column in self._trees))
        if criterion is not None:
            trees = trees._replace(value=trees.value[:, : self.n_classes_])
        return Tree(trees, self.n_features_in_, criterion)

    def get_depth(self) -> int:
        """Return the depth of the deepest leaf."""
        check_is_fitted(self)
        return self.tree_.max_depth

    def get_n_leaves(self) -> int:
        """Return the number of leaves."""
        check_is_fitted(self)
        return self.tree_.n_leaves

    def apply(self, X: Any, check_input: bool = True) -> np.ndarray:
        """Return the leaf that each row comes to, (N,)."""
        check_is_fitted(self)
        return self._leaves(self._check_rows(X, reset=False))[:, 0]

    def decision_path(self, X: Any, check_input: bool = True) -> sparse.csr_matrix:
        """Return which nodes each row comes through, (N, nodes)."""
        check_is_fitted(self)
        return self.tree_.decision_path(self._check_rows(X, reset=False))


class DecisionTreeClassifier(_Classifies, _DecisionTree):
    """A decision tree for one target of classes; parameters as in scikit-learn, plus `device`.

    Of splits that gain the same the last feature and the smallest threshold win, where scikit-learn draws one.

    Args:
        criterion: `gini`, `entropy` or `log_loss`, which is entropy.
        splitter: `best`, or `random` thresholds.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        random_state: of the draws.
        max_leaf_nodes: leaves at most; the tree then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        ccp_alpha: α of cost-complexity pruning.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> tree.predict([[1.4], [1.6]]).tolist(), tree.tree_.threshold[0].item()
        (['a', 'b'], 1.5)
    """

    _parameter_constraints = constraints(sklearn.tree.DecisionTreeClassifier, **_OF_CLASSES)

    def __init__(
        self,
        *,
        criterion: str = "gini",
        splitter: str = "best",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = None,
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.criterion, self.splitter, self.max_depth = criterion, splitter, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.random_state, self.max_leaf_nodes = random_state, max_leaf_nodes
        self.min_impurity_decrease, self.class_weight = min_impurity_decrease, class_weight
        self.ccp_alpha, self.monotonic_cst, self.device = ccp_alpha, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> DecisionTreeClassifier:
        """Fit to rows X (N, F) and classes y (N,), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class DecisionTreeRegressor(_Regresses, _DecisionTree):
    """A decision tree for values; parameters as in scikit-learn, plus `device`.

    Absolute errors of more than 1,000 rows are counted in 255 bins of each feature and of the target.

    Args:
        criterion: `squared_error`, `absolute_error` or `poisson`.
        splitter: `best`, or `random` thresholds.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        random_state: of the draws.
        max_leaf_nodes: leaves at most; the tree then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        ccp_alpha: α of cost-complexity pruning.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> tree = DecisionTreeRegressor(max_depth=1).fit([[0.0], [1.0], [2.0]], [1.0, 1.0, 4.0])
        >>> tree.predict([[0.0], [9.0]]).tolist()
        [1.0, 4.0]
    """

    _parameter_constraints = constraints(sklearn.tree.DecisionTreeRegressor, **_OF_VALUES)

    def __init__(
        self,
        *,
        criterion: str = "squared_error",
        splitter: str = "best",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = None,
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.criterion, self.splitter, self.max_depth = criterion, splitter, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.random_state, self.max_leaf_nodes = random_state, max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.ccp_alpha, self.monotonic_cst, self.device = ccp_alpha, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> DecisionTreeRegressor:
        """Fit to rows X (N, F) and values y (N,) or (N, K), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class ExtraTreeClassifier(_Classifies, _DecisionTree):
    """An extremely randomized tree for one target of classes: of random thresholds of random features the best.

    Args:
        criterion: `gini`, `entropy` or `log_loss`, which is entropy.
        splitter: `random` thresholds, or `best`.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        random_state: of the draws.
        max_leaf_nodes: leaves at most; the tree then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        ccp_alpha: α of cost-complexity pruning.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> tree = ExtraTreeClassifier(random_state=0).fit([[0.0], [1.0], [8.0], [9.0]], ["a", "a", "b", "b"])
        >>> tree.predict([[0.0], [9.0]]).tolist()
        ['a', 'b']
    """

    _parameter_constraints = constraints(sklearn.tree.ExtraTreeClassifier, **_OF_CLASSES)

    def __init__(
        self,
        *,
        criterion: str = "gini",
        splitter: str = "random",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = "sqrt",
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.criterion, self.splitter, self.max_depth = criterion, splitter, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.random_state, self.max_leaf_nodes = random_state, max_leaf_nodes
        self.min_impurity_decrease, self.class_weight = min_impurity_decrease, class_weight
        self.ccp_alpha, self.monotonic_cst, self.device = ccp_alpha, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> ExtraTreeClassifier:
        """Fit to rows X (N, F) and classes y (N,), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class ExtraTreeRegressor(_Regresses, _DecisionTree):
    """An extremely randomized tree for values: of random thresholds of random features the best.

    Args:
        criterion: `squared_error`, `absolute_error` or `poisson`.
        splitter: `random` thresholds, or `best`.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        random_state: of the draws.
        max_leaf_nodes: leaves at most; the tree then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        ccp_alpha: α of cost-complexity pruning.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> ExtraTreeRegressor(random_state=0).fit([[0.0], [1.0]], [2.0, 4.0]).predict([[0.0], [1.0]]).tolist()
        [2.0, 4.0]
    """

    _parameter_constraints = constraints(sklearn.tree.ExtraTreeRegressor, **_OF_VALUES)

    def __init__(
        self,
        *,
        criterion: str = "squared_error",
        splitter: str = "random",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = 1.0,
        random_state: Any = None,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        ccp_alpha: float = 0.0,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.criterion, self.splitter, self.max_depth = criterion, splitter, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.random_state, self.max_leaf_nodes = random_state, max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.ccp_alpha, self.monotonic_cst, self.device = ccp_alpha, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> ExtraTreeRegressor:
        """Fit to rows X (N, F) and values y (N,) or (N, K), with weights (N,)."""
        return self._fit(X, y, sample_weight)


# -- many trees --------------------------------------------------------------------------------------------------------


class _Forest(_Trees):
    """Many trees, in bins, beside which a warm start grows more."""

    n_estimators: int
    bootstrap: bool
    oob_score: Any
    warm_start: bool
    max_samples: Any
    _random_thresholds = False
    _single: type[_DecisionTree]

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        self._check_parameters()
        if self.oob_score and not self.bootstrap:
            raise ValueError("Out of bag estimation only available if bootstrap=True")
        if not self.bootstrap and self.max_samples is not None:
            raise ValueError(
                "`max_sample` cannot be set if `bootstrap=False`. Either switch to `bootstrap=True` or set "
                "`max_sample=None`."
            )
        X, y = self._check_rows(X, y, reset=True)
        weight, codes = self._row_weight(sample_weight, X, y), self._targets(y)
        if self.warm_start and hasattr(self, "model_"):
            self._add_trees(X, codes, weight)
        else:
            model: Any = create(
                "random_forest", **self._options(len(X)), num_trees=int(self.n_estimators),
                random_thresholds=self._random_thresholds, bootstrap=bool(self.bootstrap),
                max_samples=self._rate(len(X)), oob_score=False, num_bins=255, seed=self._seed(),
            )  # fmt: skip
            model.least_classes = 1
            num_classes = max(2, self.n_classes_) if isinstance(self, ClassifierMixin) else None
            self._fit_streaming(model, X, codes, weight, num_classes=num_classes)
        self.estimator_ = self._single()
        if self.oob_score:
            self._score_unseen(X, codes, weight)
        return self

    @property
    def _trees(self) -> Trees:  # type: ignore[override]
        return self.model_.trees

    def _rate(self, num_rows: int) -> float:
        if self.max_samples is None:
            return 1.0
        whole = isinstance(self.max_samples, int | np.integer)
        rate = self.max_samples / num_rows if whole else float(self.max_samples)
        if whole and rate > 1:
            raise ValueError(f"`max_samples` must be <= n_samples={num_rows} but got value {self.max_samples}")
        if rate > 4:
            raise ValueError(
                f"max_samples={self.max_samples} is not supported: rows are drawn 4 times as often at most."
            )
        return rate

    def _add_trees(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        number = self.n_estimators - len(self.model_.trees.root)
        if number < 0:
            raise ValueError(
                f"n_estimators={self.n_estimators} must be larger or equal to len(estimators_)="
                f"{len(self.model_.trees.root)} when warm_start==True"
            )
        if not number:
            warnings.warn("Warm-start fitting without increasing n_estimators does not fit new trees.", stacklevel=4)
            return
        batch = self._batch(self.model_, X, y, weight)
        self.model_.add_trees(number, lambda: [batch])

    def _score_unseen(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Predict each row by the trees that did not see it."""
        batch = self._batch(self.model_, X, y, np.ones(len(X)) if weight is None else weight)
        assert batch.y is not None
        assert batch.weight is not None
        values, numbers = [], []
        for part in batch.split(max(1, _LEAVES // len(self.model_.trees.root))):
            value, number = self.model_.unseen_values(part.x + 0.0, part.y, part.weight)
            values.append(value)
            numbers.append(number)
        value, number = torch.cat(values).cpu().numpy(), torch.cat(numbers).cpu().numpy()
        if not number.all():
            warnings.warn(
                "Some inputs do not have OOB scores. This probably means too few trees were used to compute any "
                "reliable OOB estimates.",
                stacklevel=4,
            )
        self._show_unseen(value, y)

    def _show_unseen(self, value: np.ndarray, y: np.ndarray) -> None:
        raise NotImplementedError

    @property
    def estimators_(self) -> list[Any]:
        """The trees, each as an estimator of its own."""
        check_is_fitted(self)
        return [self._estimator(number) for number in range(len(self.model_.trees.root))]

    def _estimator(self, number: int) -> Any:
        single: Any = self._single()
        for name in ("classes_", "n_classes_", "n_outputs_", "n_features_in_"):
            if hasattr(self, name):
                setattr(single, name, getattr(self, name))
        if isinstance(self, ClassifierMixin):
            single.classes_ = np.arange(self.n_classes_, dtype=np.float64)  # as scikit-learn's
        model: Any = create("decision_tree", criterion=self.model_.criterion_name, seed=0)
        model.build(self.model_.spec).to(self.model_.device)
        model._keep("tree", _tree_of(self.model_.trees, number))
        model.register_buffer("importances", importances(model.trees, self.n_features_in_))
        single.max_features_ = self.n_features_in_
        single.model_, single._growth, single._trees = model.eval(), model.growth, model.trees
        return single

    def apply(self, X: Any) -> np.ndarray:
        """Return the leaf that each row comes to in each tree, (N, T)."""
        check_is_fitted(self)
        return self._leaves(self._check_rows(X, reset=False))

    def decision_path(self, X: Any) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Return which nodes each row comes through, (N, nodes), and where each tree's nodes begin, (T + 1,)."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        paths = [tree.tree_.decision_path(X) for tree in self.estimators_]
        starts = np.cumsum([0, *(path.shape[1] for path in paths)])
        return sparse.hstack(paths).tocsr(), starts

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.model_.trees.root)

    def __getitem__(self, index: int) -> Any:
        """Return one of the trees."""
        return self._estimator(range(len(self))[index])


class _ForestClassifier(_Classifies, _Forest):
    _single = DecisionTreeClassifier

    def _show_unseen(self, value: np.ndarray, y: np.ndarray) -> None:
        self.oob_decision_function_ = value[:, : self.n_classes_]
        score = self.oob_score if callable(self.oob_score) else accuracy_score
        self.oob_score_ = float(score(y, self.oob_decision_function_.argmax(1)))


class _ForestRegressor(_Regresses, _Forest):
    _single = DecisionTreeRegressor

    def _show_unseen(self, value: np.ndarray, y: np.ndarray) -> None:
        self.oob_prediction_ = value[:, 0] if self.n_outputs_ == 1 else value
        score = self.oob_score if callable(self.oob_score) else r2_score
        self.oob_score_ = float(score(y, self.oob_prediction_))


class RandomForestClassifier(_ForestClassifier):
    """A random forest for one target of classes; parameters as in scikit-learn, plus `device`.

    Thresholds are looked for in 255 bins a feature. Rows are drawn by Poisson weights.

    Args:
        n_estimators: number of trees.
        criterion: `gini`, `entropy` or `log_loss`, which is entropy.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        max_leaf_nodes: leaves of a tree at most; it then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        bootstrap: whether each tree draws its rows.
        oob_score: whether rows are predicted by the trees that did not see them; or a function (y, prediction).
        n_jobs: changes nothing: threads are torch's.
        random_state: of the draws.
        verbose: changes nothing: trees grow side by side.
        warm_start: whether another `fit` adds trees to those that there are.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        ccp_alpha: α of cost-complexity pruning.
        max_samples: rows that a tree draws: a number, or a share, at most 4.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"]
        >>> RandomForestClassifier(10, random_state=0).fit(x, y).predict([[-1.0], [4.0]]).tolist()
        ['a', 'b']
    """

    _parameter_constraints = constraints(sklearn.ensemble.RandomForestClassifier, **_OF_CLASSES)

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = "sqrt",
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = True,
        oob_score: Any = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        max_samples: Any = None,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_estimators, self.criterion, self.max_depth = n_estimators, criterion, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.max_leaf_nodes, self.min_impurity_decrease = max_leaf_nodes, min_impurity_decrease
        self.bootstrap, self.oob_score, self.n_jobs, self.random_state = bootstrap, oob_score, n_jobs, random_state
        self.verbose, self.warm_start, self.class_weight, self.ccp_alpha = verbose, warm_start, class_weight, ccp_alpha
        self.max_samples, self.monotonic_cst, self.device = max_samples, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RandomForestClassifier:
        """Fit to rows X (N, F) and classes y (N,), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class RandomForestRegressor(_ForestRegressor):
    """A random forest for values; parameters as in scikit-learn, plus `device`.

    Thresholds are looked for in 255 bins a feature. Rows are drawn by Poisson weights.

    Args:
        n_estimators: number of trees.
        criterion: `squared_error`, `absolute_error` or `poisson`.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        max_leaf_nodes: leaves of a tree at most; it then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        bootstrap: whether each tree draws its rows.
        oob_score: whether rows are predicted by the trees that did not see them; or a function (y, prediction).
        n_jobs: changes nothing: threads are torch's.
        random_state: of the draws.
        verbose: changes nothing: trees grow side by side.
        warm_start: whether another `fit` adds trees to those that there are.
        ccp_alpha: α of cost-complexity pruning.
        max_samples: rows that a tree draws: a number, or a share, at most 4.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 0.0, 1.0, 1.0]
        >>> low, high = RandomForestRegressor(10, random_state=0).fit(x, y).predict([[-1.0], [4.0]])
        >>> bool(low < 0.5 < high)
        True
    """

    _parameter_constraints = constraints(sklearn.ensemble.RandomForestRegressor, **_OF_VALUES)

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = 1.0,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = True,
        oob_score: Any = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        ccp_alpha: float = 0.0,
        max_samples: Any = None,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_estimators, self.criterion, self.max_depth = n_estimators, criterion, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.max_leaf_nodes, self.min_impurity_decrease = max_leaf_nodes, min_impurity_decrease
        self.bootstrap, self.oob_score, self.n_jobs, self.random_state = bootstrap, oob_score, n_jobs, random_state
        self.verbose, self.warm_start, self.ccp_alpha = verbose, warm_start, ccp_alpha
        self.max_samples, self.monotonic_cst, self.device = max_samples, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RandomForestRegressor:
        """Fit to rows X (N, F) and values y (N,) or (N, K), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class ExtraTreesClassifier(_ForestClassifier):
    """Extremely randomized trees for one target of classes; parameters as in scikit-learn, plus `device`.

    Thresholds are looked for in 255 bins a feature. Each node draws one threshold a feature.

    Args:
        n_estimators: number of trees.
        criterion: `gini`, `entropy` or `log_loss`, which is entropy.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        max_leaf_nodes: leaves of a tree at most; it then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        bootstrap: whether each tree draws its rows.
        oob_score: whether rows are predicted by the trees that did not see them; or a function (y, prediction).
        n_jobs: changes nothing: threads are torch's.
        random_state: of the draws.
        verbose: changes nothing: trees grow side by side.
        warm_start: whether another `fit` adds trees to those that there are.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        ccp_alpha: α of cost-complexity pruning.
        max_samples: rows that a tree draws: a number, or a share, at most 4.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"]
        >>> ExtraTreesClassifier(10, random_state=0).fit(x, y).predict([[-1.0], [4.0]]).tolist()
        ['a', 'b']
    """

    _parameter_constraints = constraints(sklearn.ensemble.ExtraTreesClassifier, **_OF_CLASSES)
    _random_thresholds = True

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = "sqrt",
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = False,
        oob_score: Any = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        class_weight: Any = None,
        ccp_alpha: float = 0.0,
        max_samples: Any = None,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_estimators, self.criterion, self.max_depth = n_estimators, criterion, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.max_leaf_nodes, self.min_impurity_decrease = max_leaf_nodes, min_impurity_decrease
        self.bootstrap, self.oob_score, self.n_jobs, self.random_state = bootstrap, oob_score, n_jobs, random_state
        self.verbose, self.warm_start, self.class_weight, self.ccp_alpha = verbose, warm_start, class_weight, ccp_alpha
        self.max_samples, self.monotonic_cst, self.device = max_samples, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ExtraTreesClassifier:
        """Fit to rows X (N, F) and classes y (N,), with weights (N,)."""
        return self._fit(X, y, sample_weight)


class ExtraTreesRegressor(_ForestRegressor):
    """Extremely randomized trees for values; parameters as in scikit-learn, plus `device`.

    Thresholds are looked for in 255 bins a feature. Each node draws one threshold a feature.

    Args:
        n_estimators: number of trees.
        criterion: `squared_error`, `absolute_error` or `poisson`.
        max_depth: of the deepest leaf.
        min_samples_split: rows of a node that may be split, at least: a number or a share.
        min_samples_leaf: rows of a leaf, at least: a number or a share.
        min_weight_fraction_leaf: share of the total weight in a leaf, at least.
        max_features: looked at in a node: a number, a share, `sqrt`, `log2` or None for all.
        max_leaf_nodes: leaves of a tree at most; it then grows where the gain is greatest.
        min_impurity_decrease: least weighted fall of the impurity by a split.
        bootstrap: whether each tree draws its rows.
        oob_score: whether rows are predicted by the trees that did not see them; or a function (y, prediction).
        n_jobs: changes nothing: threads are torch's.
        random_state: of the draws.
        verbose: changes nothing: trees grow side by side.
        warm_start: whether another `fit` adds trees to those that there are.
        ccp_alpha: α of cost-complexity pruning.
        max_samples: rows that a tree draws: a number, or a share, at most 4.
        monotonic_cst: for each feature 1, −1 or 0.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 0.0, 1.0, 1.0]
        >>> low, high = ExtraTreesRegressor(10, random_state=0).fit(x, y).predict([[-1.0], [4.0]])
        >>> bool(low < 0.5 < high)
        True
    """

    _parameter_constraints = constraints(sklearn.ensemble.ExtraTreesRegressor, **_OF_VALUES)
    _random_thresholds = True

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int | float = 2,
        min_samples_leaf: int | float = 1,
        min_weight_fraction_leaf: float = 0.0,
        max_features: Any = 1.0,
        max_leaf_nodes: int | None = None,
        min_impurity_decrease: float = 0.0,
        bootstrap: bool = False,
        oob_score: Any = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        ccp_alpha: float = 0.0,
        max_samples: Any = None,
        monotonic_cst: Any = None,
        device: str = "cpu",
    ) -> None:
        self.n_estimators, self.criterion, self.max_depth = n_estimators, criterion, max_depth
        self.min_samples_split, self.min_samples_leaf = min_samples_split, min_samples_leaf
        self.min_weight_fraction_leaf, self.max_features = min_weight_fraction_leaf, max_features
        self.max_leaf_nodes, self.min_impurity_decrease = max_leaf_nodes, min_impurity_decrease
        self.bootstrap, self.oob_score, self.n_jobs, self.random_state = bootstrap, oob_score, n_jobs, random_state
        self.verbose, self.warm_start, self.ccp_alpha = verbose, warm_start, ccp_alpha
        self.max_samples, self.monotonic_cst, self.device = max_samples, monotonic_cst, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ExtraTreesRegressor:
        """Fit to rows X (N, F) and values y (N,) or (N, K), with weights (N,)."""
        return self._fit(X, y, sample_weight)
