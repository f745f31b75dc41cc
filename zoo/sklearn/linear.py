"""LinearRegression, Ridge, Lasso, ElasticNet and LogisticRegression under scikit-learn's names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import sklearn.linear_model
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.extmath import safe_sparse_dot, softmax
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.kernels import log_loss as compiled
from zoo.models import linear as models
from zoo.models.linear.descent import fit_rows
from zoo.models.linear.least_squares import elastic_net_path, solve_least_squares
from zoo.models.linear.products import ElasticNetOfProducts, Products, RidgeOfProducts, Solve, solve_double
from zoo.models.linear.single_precision import solve_single
from zoo.models.linear.statistics import Statistics
from zoo.numerics.threads import of_few_threads
from zoo.optimizers import Recipe
from zoo.sklearn.base import ZooEstimator, built, constraints, warn_unless
from zoo.sklearn.rows import classes_of, validate_data
from zoo.sklearn.rows import dense_blocks as _blocks
from zoo.sklearn.rows import tensor_of as _tensor

__all__ = ["ElasticNet", "Lasso", "LinearRegression", "LogisticRegression", "Ridge"]

_ROUNDING = 64 * np.finfo(float).eps  # share of the objective, below which a promise is none
_FEW_WEIGHTS = 100  # weights up to which Newton's method is the cheaper one, of rows that are streamed


class _Linear(ZooEstimator):
    """What the linear estimators share: rows dense or sparse, and answers from `coef_` and `intercept_` alone."""

    coef_: Any
    intercept_: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_rows(self, X: Any, y: Any = None, **options: Any) -> Any:
        """Return checked rows, and targets while fitting, of float64 or float32."""
        types: dict[str, Any] = {"dtype": [np.float64, np.float32], "accept_sparse": "csr"}
        if not options:
            return validate_data(self, X, reset=False, **types)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        return validate_data(self, X, y, **types, **options)

    def _check_weight(self, sample_weight: Any, X: Any) -> Tensor | None:
        if sample_weight is None:
            return None
        return _tensor(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))

    def _linear_scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = self._check_rows(X)
        weights = self.coef_ if sparse.issparse(self.coef_) else np.asarray(self.coef_)
        return safe_sparse_dot(X, weights.T, dense_output=True) + self.intercept_


# -- values --------------------------------------------------------------------------------------------------------


class _LeastSquares(MultiOutputMixin, RegressorMixin, _Linear):
    """Least squares from the streamed triangular factor of the rows."""

    fit_intercept: bool
    positive: bool

    def _read(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Tensor, Tensor | None]:
        """Check the rows; return them with targets (N, K) and weights."""
        self._check_parameters()
        X, y = self._check_rows(X, y, multi_output=True, y_numeric=True)
        self._dtype, self._squeeze = X.dtype, y.ndim == 1
        targets = _tensor(np.asarray(y.reshape(len(y), -1), dtype=np.float64))
        return X, targets, self._check_weight(sample_weight, X)

    def _add_up(self, X: Any, targets: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """A and B of the rows."""
        device, statistics = self._device(), Statistics.of_none(X.shape[1], targets.shape[1])
        statistics = Statistics(*(t.to(device) for t in statistics)) if device != "cpu" else statistics
        for rows, x in _blocks(X):
            part = None if weight is None else weight[rows].to(device)
            statistics = statistics.add(x.to(device), targets[rows].to(device), part)
        self._sums: Statistics | Products = statistics
        return statistics.problem(X.shape[1], self.fit_intercept)

    def _solve_by_products(
        self, X: Any, targets: Tensor, weight: Tensor | None, solve: Solve, *, single: bool = True
    ) -> Tensor | None:
        """Coefficients (F, K) by products of the rows, of float32 too where `single`, if they keep the digits."""
        if sparse.issparse(X) or weight is not None or not self.fit_intercept or self._device() != "cpu":
            return None
        x = _tensor(X)
        found = solve_double(x, targets, solve)
        if found is None and single and X.dtype == np.float32:
            found = solve_single(x, targets, solve)
        if found is None:
            return None
        w, self._sums = found
        return w

    @property
    def _statistics(self) -> Statistics:
        return self._sums.statistics() if isinstance(self._sums, Products) else self._sums

    def _keep(self, w: Tensor, *, flat: bool) -> None:
        """Show coefficients (F, K) and intercepts in the type of the rows, without the axis of targets if `flat`."""
        coefficients = w.T.cpu().numpy().astype(self._dtype)
        self.coef_ = coefficients[0] if flat else coefficients
        if self.fit_intercept:
            intercepts = self._sums.intercepts(w).cpu().numpy().astype(self._dtype)
            self.intercept_ = intercepts[0] if self._squeeze else intercepts
        else:
            self.intercept_ = 0.0

    @of_few_threads
    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,) or (N, K)."""
        return self._linear_scores(X)

    @property
    def model_(self) -> Any:
        """The fitted model of the zoo, with `coef_` and `intercept_` as they are, and the statistics of the rows."""
        check_is_fitted(self)
        weight = np.atleast_2d(np.asarray(self.coef_, dtype=np.float64))
        spec = DataSpec("tabular", weight.shape[1:], "value", num_targets=len(weight), dtype=str(self._dtype))
        model: Any = models.LinearRegression(fit_intercept=self.fit_intercept, positive=self.positive)
        built(model, spec)
        for name, value in self._statistics._asdict().items():
            setattr(model, name, value)
        model.linear.weight.copy_(torch.from_numpy(weight))
        if self.fit_intercept:
            model.linear.bias.copy_(torch.as_tensor(np.atleast_1d(self.intercept_)))
        return model.to(self._device()).eval()


class LinearRegression(_LeastSquares):
    """Ordinary least squares, by QR of the streamed rows.

    Args:
        fit_intercept: whether there is an intercept.
        copy_X: changes nothing: rows are never written to.
        tol: changes nothing: the solution is exact.
        n_jobs: changes nothing: threads are torch's.
        positive: whether coefficients must be 0 or more.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> import numpy as np
        >>> model = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> np.round(model.coef_, 6).tolist(), round(float(model.intercept_), 6)
        ([2.0], 1.0)
    """

    _parameter_constraints = constraints(sklearn.linear_model.LinearRegression)

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        tol: float = 1e-6,
        n_jobs: int | None = None,
        positive: bool = False,
        device: str = "cpu",
    ) -> None:
        self.fit_intercept, self.copy_X, self.tol, self.n_jobs = fit_intercept, copy_X, tol, n_jobs
        self.positive, self.device = positive, device

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearRegression:
        """Fit to rows X (N, F) and values y (N,) or (N, K)."""
        X, targets, weight = self._read(X, y, sample_weight)
        w = None
        if not self.positive:  # products of float32 would not know the rank
            solve, self._rank = RidgeOfProducts(torch.zeros(targets.shape[1])), X.shape[1]
            w = self._solve_by_products(X, targets, weight, solve, single=False)
        if w is None:
            a, b = self._add_up(X, targets, weight)
            if self.positive:
                w, *_ = next(elastic_net_path(a, b, [(0.0, 0.0)], positive=True))
            else:
                w, self._rank = solve_least_squares(a, b)
        self._keep(w, flat=self._squeeze)
        return self

    @property
    def rank_(self) -> int:
        """Rank of the (centred) rows."""
        check_is_fitted(self)
        if self.positive:
            raise AttributeError("rank_ is not there with positive=True.")
        return self._rank

    @property
    def singular_(self) -> np.ndarray:
        """Singular values of the (centred) rows, (min(N, F),)."""
        check_is_fitted(self)
        if self.positive:
            raise AttributeError("singular_ is not there with positive=True.")
        a, _ = self._statistics.problem(self.n_features_in_, self.fit_intercept)
        values = torch.linalg.svdvals(a).cpu().numpy()
        count = min(int(self._statistics.num_rows), self.n_features_in_)
        return np.pad(values, (0, max(0, count - len(values))))[:count].astype(self._dtype)


class Ridge(_LeastSquares):
    """Least squares with the penalty α ‖w‖² beside the sum of squared errors.

    Args:
        alpha: α, 0 or more, or one for each target.
        fit_intercept: whether there is an intercept, which is not penalized.
        copy_X: changes nothing: rows are never written to.
        max_iter: rounds of coordinate descent at most, with `positive`; None is 1000.
        tol: changes nothing: the solution is exact.
        solver: changes nothing: the minimum is the same; `lbfgs` goes with `positive` alone, as in scikit-learn.
        positive: whether coefficients must be 0 or more.
        random_state: changes nothing: nothing is drawn.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> round(float(Ridge(alpha=1.0).fit([[-1.0], [1.0]], [-3.0, 3.0]).coef_[0]), 6)
        2.0
    """

    _parameter_constraints = constraints(sklearn.linear_model.Ridge)

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.alpha, self.fit_intercept, self.copy_X, self.max_iter = alpha, fit_intercept, copy_X, max_iter
        self.tol, self.solver, self.positive = tol, solver, positive
        self.random_state, self.device = random_state, device

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Ridge:
        """Fit to rows X (N, F) and values y (N,) or (N, K)."""
        X, values, weight = self._read(X, y, sample_weight)
        targets, alphas = values.shape[1], np.asarray(self.alpha, dtype=float).ravel()
        if (self.solver == "lbfgs") > self.positive or (self.positive and self.solver not in ("auto", "lbfgs")):
            raise ValueError("solver='lbfgs' goes with positive=True, and positive=True with 'lbfgs' or 'auto' alone.")
        if len(alphas) not in (1, targets):
            raise ValueError(f"Number of targets and number of penalties do not correspond: {len(alphas)} != {targets}")
        if (alphas < 0).any():
            raise ValueError(f"alpha must be 0 or more, not {self.alpha!r}.")
        alphas, self.n_iter_ = np.full(targets, alphas), np.ones(targets, dtype=np.int32)
        w = None
        if not self.positive:
            w = self._solve_by_products(X, values, weight, RidgeOfProducts(torch.from_numpy(alphas)))
        if w is None:
            w = self._solve_double(*self._add_up(X, values, weight), alphas)
        self._keep(w, flat=targets == 1)
        self.solver_ = "lbfgs" if self.positive else "svd" if self.solver == "auto" else self.solver
        return self

    def _solve_double(self, a: Tensor, b: Tensor, alphas: np.ndarray) -> Tensor:
        """Coefficients (F, K) by the factor of the rows."""
        w = b.new_zeros(a.shape[1], b.shape[1])
        for alpha in np.unique(alphas).tolist():
            chosen = torch.from_numpy(alphas == alpha).to(b.device)
            if self.positive:
                limit = 1000 if self.max_iter is None else self.max_iter
                found = elastic_net_path(a, b[:, chosen], [(0.0, alpha)], positive=True, max_rounds=limit)
                w[:, chosen], rounds, converged = next(found)
                self.n_iter_[alphas == alpha] = rounds
                warn_unless(converged, "Ridge")
            else:
                w[:, chosen], _ = solve_least_squares(a, b[:, chosen], alpha)
        return w


class _CoordinateDescent(_LeastSquares):
    """Least squares with the penalty α (ρ ‖w‖₁ + ½ (1 − ρ) ‖w‖²) beside half the mean squared error."""

    alpha: float
    max_iter: int | None
    warm_start: bool
    precompute: Any

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True) -> Any:
        """Fit to rows X (N, F) and values y (N,) or (N, K); `check_input` changes nothing."""
        X, targets, weight = self._read(X, y, None if np.isscalar(sample_weight) else sample_weight)
        features = self.n_features_in_
        if not isinstance(self.precompute, bool | np.bool_) and np.shape(self.precompute) != (features, features):
            raise ValueError(f"precompute has shape {np.shape(self.precompute)}: a Gram matrix has ({features},) * 2.")
        total, ratio = float(len(targets) if weight is None else weight.sum()), self._l1_ratio()
        l1, l2 = total * self.alpha * ratio, total * self.alpha * (1 - ratio)
        if l1 or self.positive:
            w, rounds = self._descend(X, targets, weight, l1, l2)
        else:
            w, _ = solve_least_squares(*self._add_up(X, targets, weight), l2)
            rounds = [1] * len(w.T)
        self._keep(w, flat=len(w.T) == 1)
        self._solved = w, l1, l2, total
        self.n_iter_: Any = rounds if len(rounds) > 1 else rounds[0]
        return self

    def _descend(
        self, X: Any, targets: Tensor, weight: Tensor | None, l1: float, l2: float
    ) -> tuple[Tensor, list[int]]:
        """Coefficients (F, K), and the rounds that each target took."""
        limit, start = 1000 if self.max_iter is None else self.max_iter, self._start(targets)
        options: dict[str, Any] = {"positive": self.positive, "max_rounds": limit}
        by_products = ElasticNetOfProducts(l1, l2, **options)
        w = self._solve_by_products(X, targets, weight, by_products) if start is None else None
        if w is not None:
            rounds, converged = by_products.rounds, by_products.converged
        else:
            path = elastic_net_path(*self._add_up(X, targets, weight), [(l1, l2)], start=start, **options)
            w, rounds, converged = next(path)
        warn_unless(converged, type(self).__name__)
        return w, rounds

    @property
    def dual_gap_(self) -> Any:
        """By how much the objective may be above its minimum, of one target or each, (K,)."""
        check_is_fitted(self)
        w, l1, l2, total = self._solved
        problem = self._statistics.problem(len(w), self.fit_intercept)
        gaps = _dual_gaps(*problem, w, l1, l2, self.positive).cpu().numpy() / total
        return gaps if len(gaps) > 1 else gaps[0]

    def _l1_ratio(self) -> float:
        return 1.0

    def _start(self, targets: Tensor) -> Tensor | None:
        """The last coefficients (F, K) where they are to be gone on from."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        last = np.atleast_2d(np.asarray(self.coef_, dtype=np.float64)).T
        fits = last.shape == (self.n_features_in_, targets.shape[1])
        return torch.from_numpy(last.copy()).to(self._device()) if fits else None

    @property
    def sparse_coef_(self) -> Any:
        """Coefficients as a sparse matrix, (K, F)."""
        check_is_fitted(self)
        return sparse.csr_array(np.atleast_2d(self.coef_))


def _dual_gaps(a: Tensor, b: Tensor, w: Tensor, l1: float, l2: float, positive: bool) -> Tensor:
    """By how much each target's objective may be above its minimum, (K,): the dual point is the scaled residual."""
    residual = b - a @ w
    slope = a.T @ residual - l2 * w  # (F, K)
    steepest = (slope if positive else slope.abs()).amax(0)
    share = torch.where(steepest > l1, l1 / torch.where(steepest > 0, steepest, 1.0), 1.0)
    squares = residual.square().sum(0)
    gap = 0.5 * squares * (1 + share.square()) - share * (residual * b).sum(0)
    return gap + l1 * w.abs().sum(0) + 0.5 * l2 * (1 + share.square()) * w.square().sum(0)


class Lasso(_CoordinateDescent):
    """Least squares with the penalty α ‖w‖₁ beside half the mean squared error, by coordinate descent.

    Args:
        alpha: α, 0 or more.
        fit_intercept: whether there is an intercept, which is not penalized.
        precompute: changes nothing: the Gram matrix is always made of the rows.
        copy_X: changes nothing: rows are never written to.
        max_iter: rounds of coordinate descent at most; None is 1000.
        tol: changes nothing: the optimality conditions are met to rounding.
        warm_start: whether to start from the last `coef_`.
        positive: whether coefficients must be 0 or more.
        random_state: changes nothing: nothing is drawn.
        selection: changes nothing: the order of coordinates does not change the minimum.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> Lasso(0.5).fit([[-1.0], [1.0]], [-3.0, 3.0]).coef_.round(6).tolist()
        [2.5]
    """

    _parameter_constraints = constraints(sklearn.linear_model.Lasso)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        precompute: Any = False,
        copy_X: bool = True,
        max_iter: int | None = 1000,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
        device: str = "cpu",
    ) -> None:
        self.alpha, self.fit_intercept, self.precompute, self.copy_X = alpha, fit_intercept, precompute, copy_X
        self.max_iter, self.tol, self.warm_start, self.positive = max_iter, tol, warm_start, positive
        self.random_state, self.selection, self.device = random_state, selection, device


class ElasticNet(_CoordinateDescent):
    """Least squares with the penalty α (ρ ‖w‖₁ + ½ (1 − ρ) ‖w‖²) beside half the mean squared error.

    Args:
        alpha: α, 0 or more.
        l1_ratio: ρ, the share of the L1 penalty, in [0, 1].
        fit_intercept: whether there is an intercept, which is not penalized.
        precompute: changes nothing: the Gram matrix is always made of the rows.
        max_iter: rounds of coordinate descent at most; None is 1000.
        copy_X: changes nothing: rows are never written to.
        tol: changes nothing: the optimality conditions are met to rounding.
        warm_start: whether to start from the last `coef_`.
        positive: whether coefficients must be 0 or more.
        random_state: changes nothing: nothing is drawn.
        selection: changes nothing: the order of coordinates does not change the minimum.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> ElasticNet(1.0).fit([[-1.0], [1.0]], [-3.0, 3.0]).coef_.round(6).tolist()
        [1.666667]
    """

    _parameter_constraints = constraints(sklearn.linear_model.ElasticNet)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        precompute: Any = False,
        max_iter: int | None = 1000,
        copy_X: bool = True,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
        device: str = "cpu",
    ) -> None:
        self.alpha, self.l1_ratio, self.fit_intercept, self.precompute = alpha, l1_ratio, fit_intercept, precompute
        self.max_iter, self.copy_X, self.tol, self.warm_start = max_iter, copy_X, tol, warm_start
        self.positive, self.random_state, self.selection, self.device = positive, random_state, selection, device

    def _l1_ratio(self) -> float:
        return float(self.l1_ratio)


# -- classes -------------------------------------------------------------------------------------------------------


class LogisticRegression(ClassifierMixin, _Linear):
    """Logistic regression with the penalty (1/C) · (½ (1 − ρ) ‖w‖² + ρ ‖w‖₁) beside the sum of log losses.

    Args:
        penalty: `l1`, `l2`, `elasticnet` or None, which scikit-learn replaces by `C` and `l1_ratio`.
        C: inverse strength of the penalty, above 0; infinity leaves it out.
        l1_ratio: ρ, the share of the L1 penalty, in [0, 1].
        dual: changes nothing: the primal problem has the same minimum.
        tol: the solver stops where no derivative of the objective, as a mean over the rows, is greater than this, or
            where rounding hides what a step gains: scikit-learn's `lbfgs` stops there, too.
        fit_intercept: whether there is an intercept; it is not penalized but by `solver="liblinear"`.
        intercept_scaling: the constant feature whose weight stands for the intercept with `liblinear`.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        random_state: changes nothing: nothing is drawn.
        solver: `newton-cg` and `newton-cholesky` are Newton's method, the others L-BFGS where there are many weights;
            `liblinear` penalizes the intercept.
        max_iter: iterations at most.
        verbose: print the objective after each iteration.
        warm_start: whether to start from the last `coef_` and `intercept_`.
        n_jobs: changes nothing: threads are torch's.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict([[0.5], [2.5]]).tolist()
        ['a', 'b']
    """

    _parameter_constraints = constraints(sklearn.linear_model.LogisticRegression)

    def __init__(
        self,
        penalty: str | None = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float | None = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.penalty, self.C, self.l1_ratio, self.dual, self.tol = penalty, C, l1_ratio, dual, tol
        self.fit_intercept, self.intercept_scaling, self.class_weight = fit_intercept, intercept_scaling, class_weight
        self.random_state, self.solver, self.max_iter, self.verbose = random_state, solver, max_iter, verbose
        self.warm_start, self.n_jobs, self.device = warm_start, n_jobs, device

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:
        """Fit to rows X (N, F) and classes y (N,)."""
        self._check_parameters()
        strength, ratio = self._penalty()
        X, y = self._check_rows(X, y, multi_output=False)
        self.classes_, codes = classes_of(y)
        if len(self.classes_) < 2:
            raise ValueError(f"LogisticRegression needs at least two classes; y has one class, {self.classes_[0]!r}.")
        weight = self._check_weight(sample_weight, X)
        if self.class_weight is not None:
            given = None if weight is None else weight.numpy()
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=given)
            weight = torch.from_numpy(by_class[codes] * (1.0 if given is None else given))
        total = X.shape[0] if weight is None else float(weight.sum())
        recipe = Recipe(l1=ratio * strength / total, l2=(1 - ratio) * strength / (2 * total))
        self._minimize(X, torch.from_numpy(codes), weight, recipe)
        return self

    def _penalty(self) -> tuple[float, float]:
        """1 / C and ρ, as `penalty` or `C` and `l1_ratio` say."""
        if self.penalty == "deprecated":
            return 1 / self.C, float(self.l1_ratio or 0.0)
        warnings.warn(
            "'penalty' is deprecated, as in scikit-learn: l1_ratio=0 is penalty='l2', l1_ratio=1 is 'l1', a share "
            "between them 'elasticnet', and C=np.inf is None.",
            FutureWarning,
            stacklevel=3,
        )
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
        ratio = {"l1": 1.0, "l2": 0.0}.get(str(self.penalty), self.l1_ratio or 0.0)
        return (0.0 if self.penalty is None else 1 / self.C), float(ratio)

    def _minimize(self, X: Any, codes: Tensor, weight: Tensor | None, recipe: Recipe) -> None:
        """Fit the zoo's model, and show its weights in the type of the rows."""
        if self._minimize_in_memory(X, codes, weight, recipe):
            return
        penalized = self.solver == "liblinear" and self.fit_intercept  # liblinear's intercept is a feature's weight
        features = X.shape[1] + int(penalized)
        model: Any = models.LogisticRegression(
            solver="exact",
            fit_intercept=self.fit_intercept and not penalized,
            method="newton" if self.solver.startswith("newton") else self._method(features),
            tol=_ROUNDING,
            gradient_tol=float(self.tol),
            max_iter=int(self.max_iter) + 1,  # passes: the first one looks at the start
        )
        model.train_by(recipe)
        spec = DataSpec("tabular", (features,), "class", num_classes=len(self.classes_), dtype=str(X.dtype))
        built(model, spec)
        if self._device() != "cpu":
            model.to(self._device())
        if self.warm_start and hasattr(self, "coef_"):
            self._set_weights(model, penalized)

        def batches() -> Iterator[Batch]:
            if self.verbose and model.minimizer.passes > 0:
                print(f"iteration {int(model.minimizer.passes)}: objective {float(model.minimizer.value):.10g}")
            for rows, x in _blocks(X):
                if penalized:
                    x = torch.cat([x, torch.full_like(x[:, :1], self.intercept_scaling)], 1)
                yield Batch(x, codes[rows], None if weight is None else weight[rows])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said below in the words of this face
            kept = None if sparse.issparse(X) else [model.as_batch(batch) for batch in batches()]
            model.fit_batches(batches if kept is None or self.verbose else lambda: kept)
        self._fitted, self._penalized_intercept = model.eval(), penalized
        coefficients = model.weight.cpu().numpy().astype(X.dtype)
        self.coef_ = coefficients[:, : X.shape[1]]
        self.intercept_ = model.bias.cpu().numpy().astype(X.dtype)
        if penalized:
            self.intercept_ = coefficients[:, -1] * X.dtype.type(self.intercept_scaling)
        self._count(model.minimizer.passes, bool(model.minimizer.converged))

    def _minimize_in_memory(self, X: Any, codes: Tensor, weight: Tensor | None, recipe: Recipe) -> bool:
        """Fit to rows that lie in memory, without a model, which small data would wait longer for than for the fit."""
        if sparse.issparse(X) or self._device() != "cpu" or not compiled.available(x := _tensor(X)):
            return False
        if recipe.l1 or self.verbose or (self.solver == "liblinear" and self.fit_intercept):
            return False
        outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        found = fit_rows(
            x, codes, weight, outputs=outputs, l2=recipe.l2, start=self._last_weights(X, outputs),
            fit_intercept=self.fit_intercept, tolerance=_ROUNDING, limit=float(self.tol),
            max_passes=int(self.max_iter) + 1, method="newton" if self.solver.startswith("newton") else "auto",
        )  # fmt: skip
        if found is None:
            return False
        coefficients, intercepts, end = found
        self._fitted, self._penalized_intercept = None, False
        self.coef_, self.intercept_ = (part.numpy().astype(X.dtype) for part in (coefficients, intercepts))
        passes, converged, *_ = end.tolist()
        self._count(passes, bool(converged))
        return True

    def _last_weights(self, X: Any, outputs: int) -> tuple[Tensor, Tensor | None] | None:
        """The last weights and intercepts, where a warm start goes on from them."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        coefficients, intercepts = (np.array(a, dtype=np.float64) for a in (self.coef_, self.intercept_))
        if coefficients.shape != (outputs, X.shape[1]):
            return None
        return torch.from_numpy(coefficients), torch.from_numpy(intercepts) if self.fit_intercept else None

    def _count(self, passes: float, converged: bool) -> None:
        """Keep the number of iterations, at least one where any is allowed; the first pass looks at the start."""
        self.n_iter_ = np.array([max(int(passes) - 1, min(1, int(self.max_iter)))], dtype=np.int32)
        warn_unless(converged, "LogisticRegression")

    @property
    def model_(self) -> Any:
        """The fitted model of the zoo."""
        check_is_fitted(self)
        if self._fitted is not None:
            return self._fitted
        weight = np.atleast_2d(np.asarray(self.coef_, dtype=np.float64))
        classes = len(self.classes_)
        spec = DataSpec("tabular", weight.shape[1:], "class", num_classes=classes, dtype=str(self.coef_.dtype))
        model: Any = models.LogisticRegression(solver="exact", fit_intercept=self.fit_intercept)
        built(model, spec)
        model.linear.weight.copy_(torch.from_numpy(weight))
        if self.fit_intercept:
            model.linear.bias.copy_(torch.as_tensor(np.atleast_1d(self.intercept_)))
        return model.eval()

    def _method(self, features: int) -> Literal["newton", "lbfgs"]:
        """Newton's where its system costs no more than the many passes of L-BFGS."""
        outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        return "newton" if (features + 1) * outputs <= _FEW_WEIGHTS else "lbfgs"

    def _set_weights(self, model: Any, penalized: bool) -> None:
        """Start from the last weights, where they are of the same shape."""
        coefficients, intercepts = (np.asarray(a, dtype=np.float64) for a in (self.coef_, self.intercept_))
        if penalized:
            coefficients = np.c_[coefficients, intercepts / self.intercept_scaling]
        if coefficients.shape == tuple(model.weight.shape):
            model.linear.weight.copy_(torch.from_numpy(coefficients))
            if model.linear.bias is not None:
                model.linear.bias.copy_(torch.from_numpy(intercepts))

    @of_few_threads
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, (N,) for two classes and (N, C) for more."""
        scores = self._linear_scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (N,)."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        scores = self.decision_function(X)
        if scores.ndim > 1:
            return softmax(scores, copy=False)
        small = np.exp(-np.abs(scores))
        certain, other = 1 / (1 + small), small / (1 + small)
        return np.where((scores > 0)[:, None], np.stack([other, certain], 1), np.stack([certain, other], 1))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the class probabilities, (N, C)."""
        scores = self.decision_function(X)
        logits = np.stack([np.zeros_like(scores), scores], 1) if scores.ndim == 1 else scores
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def sparsify(self) -> LogisticRegression:
        """Turn `coef_` into a sparse matrix, which saves memory where an L1 penalty left few weights."""
        check_is_fitted(self)
        self.coef_ = sparse.csr_matrix(self.coef_)
        return self

    def densify(self) -> LogisticRegression:
        """Turn `coef_` back into an array."""
        check_is_fitted(self)
        if sparse.issparse(self.coef_):
            self.coef_ = self.coef_.toarray()
        return self
