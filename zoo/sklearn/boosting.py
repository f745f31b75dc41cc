"""HistGradientBoostingClassifier and HistGradientBoostingRegressor under scikit-learn's names."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn.ensemble
import torch
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_monotonic_cst,
    _check_n_features,
    check_is_fitted,
)

from zoo.data.spec import DataSpec
from zoo.models.trees.boosting import Rounds
from zoo.models.trees.gradient_boosting import ROUNDS_AHEAD
from zoo.sklearn.base import ZooEstimator, constraints, create
from zoo.sklearn.rows import tensor_of, validate_data

__all__ = ["HistGradientBoostingClassifier", "HistGradientBoostingRegressor"]

_FEW_NUMBERS = 1 << 18  # of rows, of which several rounds are grown before it is asked whether to stop
_MANY_ROWS = 10_000  # from which on `auto` stops early, and of which scores are taken
_ROWS: dict[str, Any] = {"dtype": [np.float64], "order": "C", "ensure_all_finite": False}


class _Boosting(ZooEstimator):
    """What both share: rows and categories, early stopping, warm starts, and the sums of trees."""

    loss: str
    learning_rate: float
    max_iter: int
    max_leaf_nodes: int | None
    max_depth: int | None
    min_samples_leaf: int
    l2_regularization: float
    max_features: float
    max_bins: int
    categorical_features: Any
    monotonic_cst: Any
    interaction_cst: Any
    warm_start: bool
    early_stopping: Any
    scoring: Any
    validation_fraction: Any
    n_iter_no_change: int
    tol: float
    verbose: int
    random_state: Any
    class_weight: Any = None
    n_features_in_: int
    classes_: np.ndarray
    _stage: np.ndarray | None = None  # outputs of a round that is being scored

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # -- rows and categories -------------------------------------------------------------------------------------

    def _numbers(self, X: Any) -> np.ndarray:
        """Return rows as numbers (N, F), categories by their place among those that `fit` saw."""
        if self._encoder is None:
            X = validate_data(self, X, reset=False, **{**_ROWS, "dtype": [np.float64, np.float32]})
        else:
            _check_feature_names(self, X, reset=False)
            _check_n_features(self, X, reset=False)
            X = self._encoded(X)
        if self.is_categorical_ is not None:  # a negative number is no category
            X = np.where(self.is_categorical_ & (X < 0), np.nan, X)
        return X

    def _learn_columns(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return checked rows and targets; note which columns are categories, and what these are."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        self._encoder: OrdinalEncoder | None = None
        if _has_columns(X) or (isinstance(X, np.ndarray) and X.dtype.kind == "O"):
            _check_feature_names(self, X, reset=True)
            _check_n_features(self, X, reset=True)
            self.is_categorical_ = self._categories(X)
            if self.is_categorical_ is not None:
                chosen = self.is_categorical_.nonzero()[0]
                self._encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
                self._encoder.fit(_columns(X, chosen))
                rows = self._encoded(X)
                y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
                check_consistent_length(rows, y)
                return rows, column_or_1d(y, warn=True)
        X, y = validate_data(self, X, y, **_ROWS)
        self.is_categorical_ = self._categories(X)
        if self.is_categorical_ is not None:
            X = np.where(self.is_categorical_ & (X < 0), np.nan, X)
        return X, column_or_1d(y, warn=True)

    def _encoded(self, X: Any) -> np.ndarray:
        assert self._encoder is not None
        assert self.is_categorical_ is not None
        chosen, others = self.is_categorical_.nonzero()[0], (~self.is_categorical_).nonzero()[0]
        found = np.empty((len(X), len(self.is_categorical_)))
        found[:, chosen] = self._encoder.transform(_columns(X, chosen))
        if len(others):
            found[:, others] = check_array(_columns(X, others), **_ROWS)
        return found

    def _categories(self, X: Any) -> np.ndarray | None:
        """Return which columns are categories, (F,), or None."""
        given = self.categorical_features
        if isinstance(given, str):  # from_dtype
            dtypes = [str(dtype).split("(")[0].lower() for dtype in X.dtypes] if _has_columns(X) else []
            mask = np.array([name in ("category", "categorical", "enum") for name in dtypes], dtype=bool)
        else:
            given = np.asarray([] if given is None else given)
            if given.size and given.dtype.kind not in "iubUO":
                raise ValueError(
                    f"categorical_features must be an array-like of bool, int or str, got: {given.dtype.name}."
                )
            mask = np.zeros(self.n_features_in_, dtype=bool)
            if given.size and given.dtype.kind == "b":
                if given.shape != mask.shape:
                    raise ValueError(
                        f"categorical_features set as a boolean mask must have shape (n_features,), got: {given.shape}"
                    )
                mask = given
            elif given.size and given.dtype.kind in "UO":
                names = getattr(self, "feature_names_in_", None)
                if names is None:
                    raise ValueError(
                        "categorical_features should be passed as an array of integers or as a boolean "
                        "mask when the model is fitted on data without feature names."
                    )
                unknown = set(given.tolist()) - set(names)
                if unknown:
                    raise ValueError(
                        f"categorical_features has a item value '{unknown.pop()}' which is not a valid "
                        f"feature name of the training data. Observed feature names: {names.tolist()}"
                    )
                mask = np.isin(names, given)
            elif given.size:
                if given.max() >= len(mask) or given.min() < 0:
                    raise ValueError("categorical_features set as integer indices must be in [0, n_features - 1]")
                mask[given] = True
        return mask if mask.any() else None

    def _check_categories(self, X: np.ndarray) -> None:
        assert self.is_categorical_ is not None
        for feature in self.is_categorical_.nonzero()[0]:
            column = X[:, feature]
            number = len(np.unique(column[~np.isnan(column)]))
            if number > self.max_bins:
                names = getattr(self, "feature_names_in_", None)
                which = f"'{names[feature]}'" if names is not None else f"at index {feature}"
                raise ValueError(
                    f"Categorical feature {which} is expected to have a cardinality <= {self.max_bins} "
                    f"but actually has a cardinality of {number}."
                )

    # -- fitting -------------------------------------------------------------------------------------------------

    def _encode_targets(self, y: np.ndarray) -> np.ndarray:
        """Return targets as numbers, checked."""
        raise NotImplementedError

    def _weights(self, sample_weight: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        weight = self._weight(sample_weight, X, ensure_non_negative=True)
        weight = np.ones(len(X)) if weight is None else weight
        return weight if self.class_weight is None else weight * compute_sample_weight(self.class_weight, y)

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:  # fmt: skip
        """Fit to rows X (N, F) and targets y (N,), with weights (N,); rows to watch for early stopping may be given."""
        self._check_parameters()
        goes_on = self.warm_start and hasattr(self, "model_")
        if not goes_on:
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        X, y = self._learn_columns(X, y)
        weight = self._weights(sample_weight, X, y)
        targets = self._encode_targets(y)
        if self.is_categorical_ is not None:
            self._check_categories(X)
        self.do_early_stopping_ = len(X) > _MANY_ROWS if self.early_stopping == "auto" else bool(self.early_stopping)
        held_out = np.zeros(len(X), dtype=bool)
        if X_val is not None:
            rows = self._numbers(X_val)
            labels = column_or_1d(y_val)
            weight = np.r_[weight, self._weights(sample_weight_val, rows, labels)]
            held_out = np.r_[held_out, np.ones(len(rows), dtype=bool)]
            X, targets, y = np.r_[X, rows], np.r_[targets, self._encode_more(labels)], np.r_[y, labels]
        elif self.do_early_stopping_ and self.validation_fraction is not None:
            _, watched = train_test_split(
                np.arange(len(X)), test_size=self.validation_fraction, random_state=self._seed,
                stratify=y if isinstance(self, ClassifierMixin) else None,
            )  # fmt: skip
            held_out[watched] = True
        there = weight > 0
        self._boost(X[there], y[there], targets[there], weight[there], held_out[there], goes_on)
        return self

    def _boost(
        self, X: np.ndarray, y: np.ndarray, targets: np.ndarray, weight: np.ndarray, held_out: np.ndarray, goes_on: bool
    ) -> None:
        if not goes_on:
            self.model_ = self._new_model()
            self.train_score_, self.validation_score_ = np.array([]), np.array([])
        model = self.model_
        if goes_on and self.max_iter < self.n_iter_:
            raise ValueError(
                f"max_iter={self.max_iter} must be larger than or equal to n_iter_={self.n_iter_} when warm_start==True"
            )
        model.hparams["num_trees"] = int(self.max_iter)
        scores = _Scores(self, X, y, targets, weight, held_out)
        if self.do_early_stopping_ and not goes_on:
            scores.before_the_first(model)

        has_watched = bool(held_out.any())

        def stop(found: Rounds) -> int | None:
            for number, (loss, val_loss) in enumerate(zip(found.train_losses, found.val_losses, strict=True), start=1):
                scores.add(found.output, loss, val_loss)
                if self.verbose:
                    said = f", validation loss {val_loss:.6g}" if has_watched else ""
                    print(f"[{len(scores.train)}/{self.max_iter}] loss {loss:.6g}{said}")
                if self.do_early_stopping_ and self._should_stop(scores.train, scores.val, has_watched):
                    return number
            return None

        columns = map(tensor_of, (X, targets.astype(np.float64), weight))
        x, t, w = (column.to(model.device) for column in columns)
        watched = stop if self.do_early_stopping_ or self.verbose else None
        # The losses are those of each round, the outputs those after the last; of many rows a round too much is dear.
        every = ROUNDS_AHEAD if scores.scorer is None and X.size <= _FEW_NUMBERS else 1
        held = torch.from_numpy(held_out).to(model.device)
        model.boost(x + 0.0, t, w, held_out=held, go_on=goes_on, stop=watched, every=every)
        if self.do_early_stopping_:
            self.train_score_ = np.array(scores.train)
            self.validation_score_ = np.array(scores.val)

    def _should_stop(self, train: list[float], val: list[float], has_watched: bool) -> bool:
        """Whether none of the last rounds is better, by more than `tol`, than the one before them."""
        scores = val if has_watched else train
        if len(scores) <= self.n_iter_no_change:
            return False
        reference = scores[-self.n_iter_no_change - 1] + self.tol
        return not any(score > reference for score in scores[-self.n_iter_no_change :])

    def _new_model(self) -> Any:
        is_class = isinstance(self, ClassifierMixin)
        num_classes = max(2, len(self.classes_)) if is_class else None
        directions = _check_monotonic_cst(self, self.monotonic_cst)
        if directions.any() and (num_classes or 2) > 2:
            raise ValueError("monotonic constraints are not supported for multiclass classification.")
        model: Any = create(
            "gradient_boosting", loss=self.loss, quantile=self._quantile(), num_trees=int(self.max_iter),
            learning_rate=float(self.learning_rate),
            num_leaves=None if self.max_leaf_nodes is None else int(self.max_leaf_nodes),
            max_depth=None if self.max_depth is None else int(self.max_depth),
            min_samples_leaf=int(self.min_samples_leaf), l2=float(self.l2_regularization),
            max_features=float(self.max_features), num_bins=int(self.max_bins), seed=self._seed,
            categorical_features=(
                None if self.is_categorical_ is None else self.is_categorical_.nonzero()[0].tolist()
            ),
            monotone=directions.astype(int).tolist() if directions.any() else None,
        )  # fmt: skip
        model.least_classes = 1
        target: Any = "class" if is_class else "value"
        spec = DataSpec("tabular", (self.n_features_in_,), target, num_classes=num_classes, dtype="float64")
        return model.build(spec).to(self._device()).eval()

    def _quantile(self) -> float:
        return 0.5

    # -- what the trees add up to --------------------------------------------------------------------------------

    @property
    def n_iter_(self) -> int:
        """Number of rounds."""
        check_is_fitted(self, "model_")
        return len(self.model_.trees.root) // self.model_.num_outputs

    @property
    def n_trees_per_iteration_(self) -> int:
        """Trees of a round: 1, or one a class."""
        check_is_fitted(self, "model_")
        return self.model_.num_outputs

    def _raw(self, X: Any) -> np.ndarray:
        """Return the sums of the trees, (N, K)."""
        check_is_fitted(self, "model_")
        if self._stage is not None:
            return self._stage
        rows = tensor_of(self._numbers(X)).to(self.model_.device)
        step = max(1, (1 << 22) // max(1, len(self.model_.trees.root)))
        return torch.cat([self.model_.raw_output(part) for part in rows.split(step)]).cpu().numpy()

    def _staged_raw(self, X: Any) -> Iterator[np.ndarray]:
        check_is_fitted(self, "model_")
        rows = tensor_of(self._numbers(X)).to(self.model_.device)
        for output in self.model_.staged_output(rows):
            yield output.cpu().numpy()


class _Scores:
    """The scores of each round, higher is better: of the loss, or of what `scoring` names on at most 10,000 rows."""

    def __init__(
        self, estimator: _Boosting, X: np.ndarray, y: np.ndarray, targets: np.ndarray, weight: np.ndarray,
        held_out: np.ndarray,
    ) -> None:  # fmt: skip
        self.estimator, self.X, self.y, self.weight = estimator, X, y, weight
        self.targets, self.held_out, self.has_watched = targets, held_out, bool(held_out.any())
        self.train = estimator.train_score_.tolist()
        self.val = estimator.validation_score_.tolist()
        self.scorer = None
        if estimator.scoring != "loss" and estimator.do_early_stopping_:
            self.scorer = check_scoring(estimator, estimator.scoring)
        # scikit-learn's loss of values is half the squared error
        self.factor = 0.5 if estimator.loss == "squared_error" else 1.0
        chosen = np.random.RandomState(estimator._seed).permutation((~held_out).nonzero()[0])
        self.parts = (np.sort(chosen[:_MANY_ROWS]), held_out.nonzero()[0])

    def before_the_first(self, model: Any) -> None:
        """Score the constant that the first tree starts from."""
        weight = torch.from_numpy(self.weight).masked_fill(torch.from_numpy(self.held_out), 0.0)
        targets = torch.from_numpy(self.targets.astype(np.float64))
        output = model.loss.constant(targets, weight).expand(len(targets), -1)
        each = model.loss.of_rows(output, targets).numpy() * self.weight
        losses = [
            float(each[there].sum() / self.weight[there].sum()) if there.any() else np.nan
            for there in (~self.held_out, self.held_out)
        ]
        self.add(output, *losses)

    def add(self, output: torch.Tensor, train_loss: float, val_loss: float) -> None:
        """Score a round by its losses, or by its outputs (N, K)."""
        if self.scorer is None:
            self.train.append(-self.factor * train_loss)
            if self.has_watched:
                self.val.append(-self.factor * val_loss)
            return
        for scores, rows in zip((self.train, self.val), self.parts, strict=True):
            if len(rows):
                stage = copy.copy(self.estimator)
                stage._stage = output.cpu().numpy()[rows]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    scores.append(self.scorer(stage, self.X[rows], self.y[rows], sample_weight=self.weight[rows]))


def _has_columns(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _columns(X: Any, which: np.ndarray) -> Any:
    """Return some columns of a table or an array."""
    if not _has_columns(X):
        return np.asarray(X, dtype=object)[:, which]
    return X.iloc[:, which] if hasattr(X, "iloc") else X[:, which.tolist()]


class HistGradientBoostingClassifier(ClassifierMixin, _Boosting):
    """Gradient boosting for classes; parameters as in scikit-learn, plus `device`.

    Args:
        loss: `log_loss`.
        learning_rate: what a tree's step is multiplied by.
        max_iter: rounds, at most.
        max_leaf_nodes: leaves of a tree, at most; None for no limit.
        max_depth: of a tree's deepest leaf.
        min_samples_leaf: rows of a leaf, at least.
        l2_regularization: λ beside the sum of second derivatives.
        max_features: share of the features that each node looks at.
        max_bins: bins of a feature.
        categorical_features: `from_dtype`, a mask, numbers or names of columns, or None.
        monotonic_cst: for each feature 1, −1 or 0; or a mapping of names to these.
        interaction_cst: None alone.
        warm_start: whether another `fit` adds rounds to those that there are.
        early_stopping: whether to stop where the score no longer rises; `auto` for more than 10,000 rows.
        scoring: `loss`, the name of a score, a function, or None for the estimator's `score`.
        validation_fraction: share or number of the rows that are watched; None watches those that train.
        n_iter_no_change: rounds without a better score after which to stop.
        tol: by how much it must be better.
        verbose: print each round.
        random_state: of the draws.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[i] for i in range(100)], ["low"] * 50 + ["high"] * 50
        >>> HistGradientBoostingClassifier(max_iter=20).fit(x, y).predict([[3], [80]]).tolist()
        ['low', 'high']
    """

    _parameter_constraints = constraints(
        sklearn.ensemble.HistGradientBoostingClassifier, loss=[StrOptions({"log_loss"})]
    )

    def __init__(
        self,
        loss: str = "log_loss",
        *,
        learning_rate: float = 0.1,
        max_iter: int = 100,
        max_leaf_nodes: int | None = 31,
        max_depth: int | None = None,
        min_samples_leaf: int = 20,
        l2_regularization: float = 0.0,
        max_features: float = 1.0,
        max_bins: int = 255,
        categorical_features: Any = "from_dtype",
        monotonic_cst: Any = None,
        interaction_cst: Any = None,
        warm_start: bool = False,
        early_stopping: Any = "auto",
        scoring: Any = "loss",
        validation_fraction: Any = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-7,
        verbose: int = 0,
        random_state: Any = None,
        class_weight: Any = None,
        device: str = "cpu",
    ) -> None:
        self.loss, self.learning_rate, self.max_iter = loss, learning_rate, max_iter
        self.max_leaf_nodes, self.max_depth, self.min_samples_leaf = max_leaf_nodes, max_depth, min_samples_leaf
        self.l2_regularization, self.max_features, self.max_bins = l2_regularization, max_features, max_bins
        self.categorical_features, self.monotonic_cst = categorical_features, monotonic_cst
        self.interaction_cst, self.warm_start, self.early_stopping = interaction_cst, warm_start, early_stopping
        self.scoring, self.validation_fraction = scoring, validation_fraction
        self.n_iter_no_change, self.tol, self.verbose = n_iter_no_change, tol, verbose
        self.random_state, self.class_weight, self.device = random_state, class_weight, device

    def _encode_targets(self, y: np.ndarray) -> np.ndarray:
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return codes

    def _encode_more(self, y: np.ndarray) -> np.ndarray:
        unknown = ~np.isin(y, self.classes_)
        if unknown.any():
            raise ValueError(f"y_val has classes that y lacks: {np.unique(y[unknown])}.")
        return np.searchsorted(self.classes_, y)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, (N,) for two classes and (N, C) for more."""
        return _flat(self._raw(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        return self._probabilities(self._raw(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (N,)."""
        return self._most_probable(self._raw(X))

    def staged_decision_function(self, X: Any) -> Iterator[np.ndarray]:
        """Yield the logits after each round."""
        return map(_flat, self._staged_raw(X))

    def staged_predict_proba(self, X: Any) -> Iterator[np.ndarray]:
        """Yield class probabilities after each round."""
        return map(self._probabilities, self._staged_raw(X))

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """Yield the most probable classes after each round."""
        return map(self._most_probable, self._staged_raw(X))

    def _probabilities(self, raw: np.ndarray) -> np.ndarray:
        shares = softmax(raw, axis=1) if raw.shape[1] > 1 else np.c_[expit(-raw), expit(raw)]
        return shares[:, : len(self.classes_)]

    def _most_probable(self, raw: np.ndarray) -> np.ndarray:
        return self.classes_[raw.argmax(1) if raw.shape[1] > 1 else (raw[:, 0] >= 0).astype(int)]


class HistGradientBoostingRegressor(RegressorMixin, _Boosting):
    """Gradient boosting for values; parameters as in scikit-learn, plus `device`.

    Args:
        loss: `squared_error`, `absolute_error`, `gamma`, `poisson` or `quantile`.
        quantile: of the loss of that name.
        learning_rate: what a tree's step is multiplied by.
        max_iter: rounds, at most.
        max_leaf_nodes: leaves of a tree, at most; None for no limit.
        max_depth: of a tree's deepest leaf.
        min_samples_leaf: rows of a leaf, at least.
        l2_regularization: λ beside the sum of second derivatives.
        max_features: share of the features that each node looks at.
        max_bins: bins of a feature.
        categorical_features: `from_dtype`, a mask, numbers or names of columns, or None.
        monotonic_cst: for each feature 1, −1 or 0; or a mapping of names to these.
        interaction_cst: None alone.
        warm_start: whether another `fit` adds rounds to those that there are.
        early_stopping: whether to stop where the score no longer rises; `auto` for more than 10,000 rows.
        scoring: `loss`, the name of a score, a function, or None for the estimator's `score`.
        validation_fraction: share or number of the rows that are watched; None watches those that train.
        n_iter_no_change: rounds without a better score after which to stop.
        tol: by how much it must be better.
        verbose: print each round.
        random_state: of the draws.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> x, y = [[i] for i in range(100)], [float(i >= 50) for i in range(100)]
        >>> HistGradientBoostingRegressor(max_iter=50).fit(x, y).predict([[3], [80]]).round(1).tolist()
        [0.0, 1.0]
    """

    _parameter_constraints = constraints(
        sklearn.ensemble.HistGradientBoostingRegressor,
        loss=[StrOptions({"squared_error", "absolute_error", "gamma", "poisson", "quantile"})],
    )

    def __init__(
        self,
        loss: str = "squared_error",
        *,
        quantile: float | None = None,
        learning_rate: float = 0.1,
        max_iter: int = 100,
        max_leaf_nodes: int | None = 31,
        max_depth: int | None = None,
        min_samples_leaf: int = 20,
        l2_regularization: float = 0.0,
        max_features: float = 1.0,
        max_bins: int = 255,
        categorical_features: Any = "from_dtype",
        monotonic_cst: Any = None,
        interaction_cst: Any = None,
        warm_start: bool = False,
        early_stopping: Any = "auto",
        scoring: Any = "loss",
        validation_fraction: Any = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-7,
        verbose: int = 0,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.loss, self.quantile, self.learning_rate, self.max_iter = loss, quantile, learning_rate, max_iter
        self.max_leaf_nodes, self.max_depth, self.min_samples_leaf = max_leaf_nodes, max_depth, min_samples_leaf
        self.l2_regularization, self.max_features, self.max_bins = l2_regularization, max_features, max_bins
        self.categorical_features, self.monotonic_cst = categorical_features, monotonic_cst
        self.interaction_cst, self.warm_start, self.early_stopping = interaction_cst, warm_start, early_stopping
        self.scoring, self.validation_fraction = scoring, validation_fraction
        self.n_iter_no_change, self.tol, self.verbose = n_iter_no_change, tol, verbose
        self.random_state, self.device = random_state, device

    def _encode_targets(self, y: np.ndarray) -> np.ndarray:
        y = y.astype(np.float64)
        if self.loss == "poisson" and ((y < 0).any() or not y.sum() > 0):
            raise ValueError("loss='poisson' needs values of y of 0 or more, not all of them 0.")
        if self.loss == "gamma" and (y <= 0).any():
            raise ValueError("loss='gamma' needs values of y above 0.")
        return y

    _encode_more = _encode_targets

    def _quantile(self) -> float:
        if self.loss == "quantile" and self.quantile is None:
            raise ValueError("loss='quantile' needs a quantile: pass quantile=0.5, or another share.")
        return 0.5 if self.quantile is None else float(self.quantile)

    def predict(self, X: Any) -> np.ndarray:
        """Return values, (N,)."""
        return self._expected(self._raw(X))

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """Yield values after each round."""
        return map(self._expected, self._staged_raw(X))

    def _expected(self, raw: np.ndarray) -> np.ndarray:
        return np.exp(raw[:, 0]) if self.loss in ("poisson", "gamma") else raw[:, 0]


def _flat(raw: np.ndarray) -> np.ndarray:
    return raw[:, 0] if raw.shape[1] == 1 else raw
