"""GaussianNB, MultinomialNB, ComplementNB, BernoulliNB and CategoricalNB under scikit-learn's names."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.naive_bayes
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted, check_non_negative
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.models.naive_bayes.naive_bayes import log_posterior
from zoo.numerics.sparse import sparse_rows
from zoo.numerics.threads import of_few_threads
from zoo.sklearn.base import ZooEstimator, constraints, create
from zoo.sklearn.rows import classes_of, tensor_of, validate_data

__all__ = ["BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB", "MultinomialNB"]

SMALLEST_ALPHA = 1e-10  # what scikit-learn raises alpha to unless told not to


class _NaiveBayes(ClassifierMixin, ZooEstimator):
    """What the five share: a subclass says which model it is, and shows what of the fitted model its attributes are."""

    _checks: dict[str, Any] = {}  # how rows are validated
    _positive_only = False  # whether they may hold nothing below 0
    classes_: np.ndarray

    def _create(self, num_classes: int) -> Any:
        """Return the unfitted model, its options checked against the data."""
        raise NotImplementedError

    def _show(self) -> None:
        """Set the fitted attributes from the model."""
        raise NotImplementedError

    def _log_likelihood(self, x: Tensor) -> Tensor:
        """Return log p(x | c), from the fitted attributes, (N, C)."""
        raise NotImplementedError

    def _log_prior(self) -> np.ndarray:
        return self.class_log_prior_  # type: ignore[attr-defined]

    # -- fitting -------------------------------------------------------------------------------------------------

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit to rows X (N, F) and classes y (N,), with weights (N,)."""
        self._check_parameters()
        X, y = self._check_rows(X, y, reset=True)
        classes, codes = classes_of(y)
        self.classes_ = np.asarray(classes.tolist()) if classes.dtype.kind in "OSU" else classes  # as short as they are
        self._start(X)
        return self._add(X, codes, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Go on with more rows; the first call names all `classes` that will ever come."""
        self._check_parameters()
        first = not hasattr(self, "classes_")
        _check_partial_fit_first_call(self, classes)
        X, y = self._check_rows(X, y, reset=first)
        if first:
            self._start(X)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"The target label(s) {unknown} in y do not exist in the initial classes {self.classes_}")
        return self._add(X, np.searchsorted(self.classes_, y), sample_weight)

    def _check_rows(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, np.ndarray]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        X, y = validate_data(self, X, y, reset=reset, **self._checks)
        if self._positive_only:
            check_non_negative(X, f"{type(self).__name__} (input X)")
        return X, y

    def _start(self, X: Any) -> None:
        model = self._create(len(self.classes_))
        spec = DataSpec("tabular", (X.shape[1],), "class", num_classes=len(self.classes_))
        self.model_, device = model.build(spec).eval(), self._device()
        if device != "cpu":
            self.model_.to(device)

    @torch.no_grad()
    def _add(self, X: Any, codes: np.ndarray, sample_weight: Any) -> Any:
        weight = self._weight(sample_weight, X)
        device = self.model_.device
        columns = (as_tensor(X), tensor_of(codes).long(), None if weight is None else tensor_of(weight))
        self.model_.accumulate(Batch(*(None if c is None else c.to(device) for c in columns)))  # type: ignore[arg-type]
        self.model_.estimate()
        self._show()
        return self

    # -- prediction ----------------------------------------------------------------------------------------------

    @of_few_threads
    def predict_joint_log_proba(self, X: Any) -> np.ndarray:
        """Return log p(c) + log p(x | c), (N, C)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **self._checks)
        scores = self._log_likelihood(as_tensor(X).to(self.model_.device)).cpu().numpy()
        if self.model_.density.uses_prior or len(self.classes_) == 1:
            scores += self._log_prior()
        return scores.astype(self._result_dtype(X), copy=False)

    def _result_dtype(self, X: Any) -> Any:
        return np.float64

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (N,)."""
        joint = self.predict_joint_log_proba(X)
        return self.classes_[joint.argmax(1)]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the class probabilities, (N, C)."""
        joint = torch.from_numpy(self.predict_joint_log_proba(X))
        return log_posterior(joint, torch.from_numpy(np.asarray(self._log_prior()))).numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        return np.exp(self.predict_log_proba(X))


class GaussianNB(_NaiveBayes):
    """Naive Bayes with normal features.

    Args:
        priors: probability of each class; None for the shares of the (weighted) rows.
        var_smoothing: share of the largest variance of a feature that is added to all variances: of all (weighted) rows
            so far, where scikit-learn takes the unweighted rows of the last `partial_fit` alone.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = GaussianNB().fit([[1.0], [2.0], [8.0], [9.0]], ["low", "low", "high", "high"])
        >>> model.predict([[3.0]]).tolist(), model.theta_.ravel().tolist()
        (['low'], [8.5, 1.5])
    """

    _parameter_constraints = constraints(sklearn.naive_bayes.GaussianNB)
    _checks = {"dtype": "numeric"}

    def __init__(self, *, priors: Any = None, var_smoothing: float = 1e-9, device: str = "cpu") -> None:
        self.priors, self.var_smoothing, self.device = priors, var_smoothing, device

    def _create(self, num_classes: int) -> Any:
        priors = None if self.priors is None else np.asarray(self.priors, dtype=np.float64)
        if priors is not None:
            if len(priors) != num_classes:
                raise ValueError("Number of priors must match number of classes.")
            if not np.isclose(priors.sum(), 1.0):
                raise ValueError("The sum of the priors should be 1.")
            if (priors < 0).any():
                raise ValueError("Priors must be non-negative.")
            priors = (priors / priors.sum()).tolist()
        return create("naive_bayes", priors=priors, var_smoothing=self.var_smoothing)

    def _start(self, X: Any) -> None:
        super()._start(X)
        self._dtype = X.dtype if X.dtype in (np.float32, np.float16) else np.dtype(np.float64)

    def _show(self) -> None:
        shown = {
            "theta_": self.model_.mean,
            "var_": self.model_.variance,
            "class_count_": self.model_.class_count,
            "class_prior_": self.model_.log_prior.exp() if self.priors is None else torch.tensor(self.priors),
            "epsilon_": self.model_.epsilon,
        }
        for name, value in shown.items():
            setattr(self, name, value.cpu().numpy().astype(self._dtype))
        self.epsilon_ = self._dtype.type(self.epsilon_)

    def _log_prior(self) -> np.ndarray:
        with np.errstate(divide="ignore"):  # a class that has not come yet
            return np.log(self.class_prior_)

    def _log_likelihood(self, x: Tensor) -> Tensor:
        parameters = {"mean": self.theta_, "variance": self.var_}
        tensors = {name: torch.from_numpy(value).to(x.device).double() for name, value in parameters.items()}
        return self.model_.density.scores(x, tensors)

    def _result_dtype(self, X: Any) -> Any:
        return np.result_type(X.dtype if X.dtype.kind == "f" else np.float64, self.theta_.dtype)


class _DiscreteNB(_NaiveBayes):
    """What the estimators of counts share."""

    _checks = {"accept_sparse": "csr"}
    _positive_only = True
    _name = ""
    alpha: Any
    force_alpha: bool
    fit_prior: bool
    class_prior: Any
    n_features_in_: int

    def _options(self) -> dict[str, Any]:
        """Return the model's options beside the priors."""
        return {"alpha": self._alpha()}

    def _alpha(self) -> float | list[float]:
        alpha = np.asarray(self.alpha, dtype=np.float64)
        if alpha.ndim and len(alpha) != self.n_features_in_:
            raise ValueError(
                "When alpha is an array, it should contains `n_features`. "
                f"Got {len(alpha)} elements instead of {self.n_features_in_}."
            )
        if (alpha < 0).any():
            raise ValueError("All values in alpha must be greater than 0.")
        if (alpha < SMALLEST_ALPHA).any() and not self.force_alpha:
            warnings.warn(
                f"alpha too small will result in numeric errors, setting alpha = {SMALLEST_ALPHA:.1e}. Use "
                "`force_alpha=True` to keep alpha unchanged.",
                stacklevel=4,
            )
            alpha = np.maximum(alpha, SMALLEST_ALPHA)
        return alpha.tolist()

    def _create(self, num_classes: int) -> Any:
        priors: Any = None if self.fit_prior else "uniform"
        if self.class_prior is not None:
            given = np.asarray(self.class_prior, dtype=np.float64)
            if len(given) != num_classes:
                raise ValueError("Number of priors must match number of classes.")
            if (given < 0).any() or not given.sum() > 0:
                raise ValueError("Priors must be non-negative.")
            priors = (given / given.sum()).tolist()
        return create("naive_bayes", likelihood=self._name, priors=priors, **self._options())

    def _show(self) -> None:
        model = self.model_
        self.class_count_ = model.class_count.cpu().numpy()
        self.class_log_prior_ = model.log_prior.cpu().numpy()
        if self.class_prior is not None:  # which need not sum to 1
            with np.errstate(divide="ignore"):
                self.class_log_prior_ = np.log(np.asarray(self.class_prior, dtype=np.float64))
        self._show_counts()

    def _show_counts(self) -> None:
        self.feature_count_ = self.model_.feature_count.cpu().numpy()
        self.feature_log_prob_ = self.model_.feature_log_prob.cpu().numpy()

    def _log_likelihood(self, x: Tensor) -> Tensor:
        logs = torch.from_numpy(np.asarray(self.feature_log_prob_)).to(x.device)
        return self.model_.density.scores(x, {"feature_log_prob": logs})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self._positive_only
        tags.classifier_tags.poor_score = True
        return tags


class MultinomialNB(_DiscreteNB):
    """Naive Bayes of counts, such as words in texts.

    Args:
        alpha: added to every count, one number or one a feature.
        force_alpha: whether an alpha below 1e-10 is kept.
        fit_prior: whether priors are learned; uniform otherwise.
        class_prior: probability of each class.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> MultinomialNB().fit([[2, 0], [0, 3]], ["ham", "spam"]).predict([[0, 1]]).tolist()
        ['spam']
    """

    _parameter_constraints = constraints(sklearn.naive_bayes.MultinomialNB)
    _name = "multinomial"

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: Any = None,
        device: str = "cpu",
    ) -> None:
        self.alpha, self.force_alpha, self.fit_prior, self.class_prior = alpha, force_alpha, fit_prior, class_prior
        self.device = device


class ComplementNB(_DiscreteNB):
    """Naive Bayes of counts that judges a class by the rows of all others.

    Args:
        alpha: added to every count, one number or one a feature.
        force_alpha: whether an alpha below 1e-10 is kept.
        fit_prior: of no consequence, as in scikit-learn, unless there is a single class.
        class_prior: likewise.
        norm: whether the weights of each class are divided by their sum.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> ComplementNB().fit([[2, 0], [0, 3]], ["ham", "spam"]).predict([[0, 1]]).tolist()
        ['spam']
    """

    _parameter_constraints = constraints(sklearn.naive_bayes.ComplementNB)
    _name = "complement"

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: Any = None,
        norm: bool = False,
        device: str = "cpu",
    ) -> None:
        self.alpha, self.force_alpha, self.fit_prior, self.class_prior = alpha, force_alpha, fit_prior, class_prior
        self.norm, self.device = norm, device

    def _options(self) -> dict[str, Any]:
        return {"alpha": self._alpha(), "norm": self.norm}

    def _show_counts(self) -> None:
        super()._show_counts()
        self.feature_all_ = self.feature_count_.sum(0)


class BernoulliNB(_DiscreteNB):
    """Naive Bayes of yes or no, such as whether a word occurs in a text.

    Args:
        alpha: added to every count, one number or one a feature.
        force_alpha: whether an alpha below 1e-10 is kept.
        binarize: yes is what lies above; None where X is 0 and 1 already.
        fit_prior: whether priors are learned; uniform otherwise.
        class_prior: probability of each class.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> BernoulliNB().fit([[2, 0], [0, 3]], ["ham", "spam"]).predict([[0, 1]]).tolist()
        ['spam']
    """

    _parameter_constraints = constraints(sklearn.naive_bayes.BernoulliNB)
    _name, _positive_only = "bernoulli", False

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        binarize: float | None = 0.0,
        fit_prior: bool = True,
        class_prior: Any = None,
        device: str = "cpu",
    ) -> None:
        self.alpha, self.force_alpha, self.fit_prior, self.class_prior = alpha, force_alpha, fit_prior, class_prior
        self.binarize, self.device = binarize, device

    def _options(self) -> dict[str, Any]:
        return {"alpha": self._alpha(), "threshold": self.binarize}


class CategoricalNB(_DiscreteNB):
    """Naive Bayes of features that take one of a few values, numbered from 0.

    A category that `fit` never saw says nothing of the class, where scikit-learn's raises an IndexError.

    Args:
        alpha: added to every count.
        force_alpha: whether an alpha below 1e-10 is kept.
        fit_prior: whether priors are learned; uniform otherwise.
        class_prior: probability of each class.
        min_categories: categories of each feature at least, one number or one a feature.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> CategoricalNB().fit([[0, 1], [2, 0]], ["no", "yes"]).predict([[2, 7]]).tolist()
        ['yes']
    """

    _parameter_constraints = constraints(sklearn.naive_bayes.CategoricalNB)
    _name = "categorical"
    _checks = {"dtype": "int"}

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: Any = None,
        min_categories: Any = None,
        device: str = "cpu",
    ) -> None:
        self.alpha, self.force_alpha, self.fit_prior, self.class_prior = alpha, force_alpha, fit_prior, class_prior
        self.min_categories, self.device = min_categories, device

    def _options(self) -> dict[str, Any]:
        least = np.asarray(0 if self.min_categories is None else self.min_categories)
        if not np.issubdtype(least.dtype, np.signedinteger):
            raise ValueError(f"'min_categories' should have integral type. Got {least.dtype} instead.")
        if least.ndim and least.shape != (self.n_features_in_,):
            raise ValueError(
                f"'min_categories' should have shape ({self.n_features_in_},) when an array-like is provided. "
                f"Got {least.shape} instead."
            )
        return {"alpha": self._alpha(), "min_categories": least.tolist()}

    def _show_counts(self) -> None:
        self.n_categories_ = self.model_.categories.cpu().numpy()
        ends = self.n_categories_.cumsum()[:-1]
        self.category_count_ = np.split(self.model_.category_count.cpu().numpy(), ends, axis=1)
        self.feature_log_prob_ = np.split(self.model_.feature_log_prob.cpu().numpy(), ends, axis=1)

    def _log_likelihood(self, x: Tensor) -> Tensor:
        parameters = {
            "feature_log_prob": np.concatenate(self.feature_log_prob_, axis=1),
            "categories": self.n_categories_,
        }
        tensors = {name: torch.from_numpy(value).to(x.device) for name, value in parameters.items()}
        return self.model_.density.scores(x, tensors)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.categorical = True
        return tags


def as_tensor(X: Any) -> Tensor:
    """Return an array, or a sparse matrix in CSR form, as a tensor that shares its memory where it can."""
    with warnings.catch_warnings():  # a read-only array will do: nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        if hasattr(X, "indptr"):
            crow, columns, values = map(tensor_of, (X.indptr, X.indices, X.data))
            return sparse_rows(crow, columns, values, X.shape)
        if any(stride < 0 for stride in X.strides) or X.dtype == np.longdouble:
            X = np.ascontiguousarray(X, dtype=np.float64)
        return tensor_of(X)
