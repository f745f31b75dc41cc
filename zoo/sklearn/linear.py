"""LinearRegression, Ridge and LogisticRegression under scikit-learn's names."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from zoo.optimizers import Recipe
from zoo.sklearn.base import ZooEstimator, create

__all__ = ["LinearRegression", "LogisticRegression", "Ridge"]


class _LeastSquares(MultiOutputMixin, RegressorMixin, ZooEstimator):
    """Least squares by streamed QR, with a ridge of `_alpha()` on the sum of squared errors."""

    def _alpha(self) -> float:
        return 0.0

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> _LeastSquares:
        """Fit to rows X (N, F) and values y (N,) or (N, K)."""
        X, y = self._rows_and_targets(X, y, reset=True, multi_output=True, y_numeric=True)
        weight = self._weight(sample_weight, X)
        y = np.asarray(y, dtype=np.float64)
        total = len(X) if weight is None else float(weight.sum())
        outputs = 1 if y.ndim == 1 else y.shape[1]
        # The zoo's penalty stands beside the mean loss (over targets too), scikit-learn's beside the sum.
        recipe = Recipe(l2=self._alpha() / (total * outputs)) if self._alpha() else None
        self._fit_streaming(create("linear_regression"), X, y, weight, recipe=recipe)
        weights, bias = self.model_.weight.cpu().numpy(), self.model_.bias.cpu().numpy()
        self.coef_ = weights[0] if y.ndim == 1 else weights
        self.intercept_ = float(bias[0]) if y.ndim == 1 else bias
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,) or (N, K)."""
        check_is_fitted(self)
        return self._rows(X, reset=False) @ np.asarray(self.coef_).T + self.intercept_


class LinearRegression(_LeastSquares):
    """Ordinary least squares, by QR of the streamed rows.

    Args:
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> import numpy as np
        >>> model = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> np.round(model.coef_, 6).tolist(), round(model.intercept_, 6)
        ([2.0], 1.0)
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = device


class Ridge(_LeastSquares):
    """Least squares with the penalty α ‖w‖² beside the sum of squared errors.

    Args:
        alpha: α, 0 or more.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> round(float(Ridge(alpha=1.0).fit([[-1.0], [1.0]], [-3.0, 3.0]).coef_[0]), 6)
        2.0
    """

    def __init__(self, alpha: float = 1.0, *, device: str = "cpu") -> None:
        self.alpha, self.device = alpha, device

    def _alpha(self) -> float:
        if self.alpha < 0:
            raise ValueError(f"alpha must be 0 or more, not {self.alpha}.")
        return self.alpha


class LogisticRegression(ClassifierMixin, ZooEstimator):
    """Logistic regression with the penalty (1/C) · (½ (1 − ρ) ‖w‖² + ρ ‖w‖₁) beside the sum of log losses.

    Args:
        C: inverse strength of the penalty, above 0; infinity leaves it out.
        l1_ratio: ρ, the share of the L1 penalty, in [0, 1].
        tol: the solver stops when a step promises less than this share of the objective.
        max_iter: passes at most.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict([[0.5], [2.5]]).tolist()
        ['a', 'b']
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        tol: float = 1e-8,
        max_iter: int = 100,
        class_weight: Any = None,
        device: str = "cpu",
    ) -> None:
        self.C, self.l1_ratio, self.tol, self.max_iter = C, l1_ratio, tol, max_iter
        self.class_weight, self.device = class_weight, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:
        """Fit to rows X (N, F) and classes y (N,)."""
        if self.C <= 0 or not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"C must be above 0 and l1_ratio in [0, 1], not {self.C} and {self.l1_ratio}.")
        X, y = self._rows_and_targets(X, y, reset=True)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"LogisticRegression needs at least two classes; y has one class, {self.classes_[0]!r}.")
        codes = encoder.transform(y)
        weight = self._weight(sample_weight, X)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weight)
            weight = by_class[codes] * (1.0 if weight is None else weight)
        total = len(X) if weight is None else float(weight.sum())
        recipe = Recipe(l1=self.l1_ratio / (self.C * total), l2=(1 - self.l1_ratio) / (2 * self.C * total))
        model = create("logistic_regression", solver="exact", tol=self.tol, max_iter=self.max_iter)
        self._fit_streaming(model, X, codes, weight, num_classes=len(self.classes_), recipe=recipe)
        self.n_iter_ = np.array([int(getattr(self.model_, "passes", self.max_iter))], dtype=np.int32)
        if not self.model_.done:
            warnings.warn(
                "The solver did not converge: raise max_iter, or scale the data.", ConvergenceWarning, stacklevel=2
            )
        self.coef_ = self.model_.weight.detach().cpu().numpy()
        self.intercept_ = self.model_.bias.detach().cpu().numpy()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, (N,) for two classes and (N, C) for more."""
        check_is_fitted(self)
        scores = self._rows(X, reset=False) @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (N,)."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        return self._predict_columns(X)["probability"]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the class probabilities, (N, C)."""
        return np.log(self.predict_proba(X))
