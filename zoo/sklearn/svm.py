"""LinearSVC, LinearSVR, SVC, SVR and OneClassSVM under scikit-learn's names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn.svm
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, OutlierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
)
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import Batch, DataSpec
from zoo.kernels.svm import available
from zoo.models.svm.dual import novelty, regression
from zoo.models.svm.kernel_machines import (
    KernelMachines,
    Search,
    check_symmetric,
    kernel_of,
    one_machine,
    pair_machines,
)
from zoo.models.svm.kernels import Kernel
from zoo.models.svm.machine import KernelMachine
from zoo.models.svm.machines import Machines, by_dual, by_newton, class_costs, signs
from zoo.models.svm.one_vs_one import against_the_rest, pair_decisions, votes
from zoo.models.svm.platt import couple, curve
from zoo.numerics.collected import Collected, in_order
from zoo.numerics.hashing import content_order
from zoo.numerics.threads import of_few_threads
from zoo.sklearn.base import ZooEstimator, built, constraints, convergence_warnings, create, warn_unless
from zoo.sklearn.linear import _Linear
from zoo.sklearn.rows import classes_of, column_of, validate_data
from zoo.sklearn.rows import dense_blocks as _blocks
from zoo.sklearn.rows import tensor_of as _tensor

__all__ = ["SVC", "SVR", "LinearSVC", "LinearSVR", "OneClassSVM"]

BLOCK = 1 << 23  # values of the kernel that are worked on at once
LARGEST_COST = 1e100  # in place of infinity, which scikit-learn allows
NEWTON_SIZE = 1000  # features up to which squared losses are met by Newton steps


# -- linear machines -------------------------------------------------------------------------------------------------


class _LinearMachine(ZooEstimator):
    """What the linear machines share: `svm` fitted to rows dense or sparse."""

    C: float
    tol: float
    loss: str
    fit_intercept: bool
    intercept_scaling: float
    max_iter: int
    verbose: int
    dual: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_training_rows(self, X: Any, y: Any, **options: Any) -> tuple[Any, np.ndarray]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        return validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, order="C", **options)

    def _check_combination(self, penalty: str) -> None:
        """Raise where liblinear has no such problem either."""
        squared = self.loss.startswith("squared")
        if self.fit_intercept and not self.intercept_scaling > 0:
            raise ValueError(
                f"Intercept scaling is {self.intercept_scaling!r} but needs to be greater than 0. To disable fitting "
                "an intercept, set fit_intercept=False."
            )
        if not squared and self.dual is False:
            raise ValueError(
                f"Unsupported set of arguments: The combination of penalty='{penalty}' and loss='{self.loss}' are not "
                f"supported when dual=False, Parameters: penalty={penalty!r}, loss={self.loss!r}, dual=False"
            )

    def _minimize(self, X: Any, y: np.ndarray, sample_weight: Any, spec: DataSpec, tol: float, **options: Any) -> Any:
        """Fit, and return coefficients (K, F) and intercepts (K,) as arrays."""
        weight = None
        if sample_weight is not None:
            weight = _tensor(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
        self._spec, self._options = spec, options
        found = self._at_once(X, y, weight, tol)
        if found is None:
            return self._in_passes(X, y, weight, tol)
        warn_unless(bool(found.converged.all()), type(self).__name__)
        self.n_iter_ = int(found.iterations.max())
        weights = found.weight.numpy()
        return np.ascontiguousarray(weights[:, :-1]), self._constant * weights[:, -1] if self.fit_intercept else 0.0

    @property
    def _by_newton(self) -> bool:
        return self.loss.startswith("squared") and self._spec.num_features <= NEWTON_SIZE

    @property
    def _constant(self) -> float:
        return float(self.intercept_scaling) if self.fit_intercept else 0.0

    def _at_once(self, X: Any, y: np.ndarray, weight: Tensor | None, tol: float) -> Machines | None:
        """Solve for dense rows in memory by the compiled solvers; None where these, or the weights, are others."""
        if sparse.issparse(X) or self._device() != "cpu" or not available(torch.device("cpu")):
            return None
        if self.verbose or (weight is not None and not bool((weight > 0).all())):
            return None
        x, targets, classes = _tensor(X), _tensor(y), self._spec.num_classes
        weight = x.new_ones(len(x)) if weight is None else weight
        cost, epsilon = (weight * min(float(self.C), LARGEST_COST))[:, None], self._options.get("epsilon")
        if classes is None:
            target = targets[:, None]
        else:
            target, by_class = signs(targets, classes), self._options["class_weight"]
            more = 1.0 if by_class is None else class_costs(targets, cost.new_tensor(by_class))
            cost = (cost * more).expand_as(target)
        options: dict[str, Any] = {"constant": self._constant, "tol": tol, "max_iter": max(1, int(self.max_iter))}
        if self._by_newton:
            return by_newton(x, target, cost, epsilon, penalized=True, **options)
        order = content_order(x, targets[:, None].double(), weight)
        return by_dual(x, target, cost, epsilon, squared=self.loss.startswith("squared"), order=order, **options)

    def _new_model(self, tol: float) -> Any:
        """Return the model of the zoo that does the same."""
        model = create(
            "svm",
            method="newton" if self._by_newton else "dual",
            loss=self.loss,
            C=min(float(self.C), LARGEST_COST),
            fit_intercept=bool(self.fit_intercept),
            intercept_scaling=float(self.intercept_scaling) if self.fit_intercept else 1.0,
            tol=tol,
            max_iter=max(1, int(self.max_iter)),
            **self._options,
        )
        return built(model, self._spec).to(self._device())

    def _in_passes(self, X: Any, y: np.ndarray, weight: Tensor | None, tol: float) -> tuple[np.ndarray, Any]:
        """Fit the model of the zoo, to a block of sparse rows at a time."""
        model, targets = self._new_model(tol), _tensor(y)

        def batches() -> Iterator[Batch]:
            for rows, x in _blocks(X):
                yield model.as_batch(Batch(x, targets[rows], None if weight is None else weight[rows]))

        kept = list(batches()) if not sparse.issparse(X) else None
        with convergence_warnings(type(self).__name__):
            values = model.fit_batches(batches if kept is None else lambda: kept)
        self.n_iter_ = int(model.search.passes if model.by_newton else model.rounds.max())
        if self.verbose:
            print(f"{type(self).__name__}: objective {float(values['objective']):.10g} after {self.n_iter_} iterations")
        return model.weight.cpu().numpy(), model.bias.cpu().numpy() if self.fit_intercept else 0.0

    @property
    def model_(self) -> Any:
        """The fitted model of the zoo, with `coef_` and `intercept_` as they are."""
        check_is_fitted(self)
        model = self._new_model(float(self.tol))
        model.linear.weight.copy_(torch.from_numpy(np.atleast_2d(self.coef_)))
        if self.fit_intercept:
            model.linear.bias.copy_(torch.as_tensor(np.atleast_1d(self.intercept_)))
        return model.eval()


class LinearSVC(LinearClassifierMixin, SparseCoefMixin, _LinearMachine):
    """Linear support vector machine for classes, one against the rest, with liblinear's objective.

    Args:
        penalty: `l2`; `l1` is refused.
        loss: `squared_hinge` or `hinge`.
        dual: changes nothing: both problems have the same minimum.
        tol: where the search stops.
        C: the cost of a violated margin, above 0.
        multi_class: `ovr`; `crammer_singer` is refused.
        fit_intercept: whether there is an intercept.
        intercept_scaling: the constant feature whose weight is the intercept, which is penalized.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        verbose: print the objective that was reached.
        random_state: changes nothing: rows are shuffled by what stands in them.
        max_iter: iterations at most.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = LinearSVC().fit([[-2.0], [-1.0], [1.0], [2.0]], ["a", "a", "b", "b"])
        >>> model.predict([[-0.5], [0.5]]).tolist()
        ['a', 'b']
    """

    _parameter_constraints = constraints(sklearn.svm.LinearSVC)

    def __init__(
        self,
        penalty: str = "l2",
        loss: str = "squared_hinge",
        *,
        dual: Any = "auto",
        tol: float = 1e-4,
        C: float = 1.0,
        multi_class: str = "ovr",
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.penalty, self.loss, self.dual, self.tol, self.C = penalty, loss, dual, tol, C
        self.multi_class, self.fit_intercept, self.intercept_scaling = multi_class, fit_intercept, intercept_scaling
        self.class_weight, self.verbose, self.random_state = class_weight, verbose, random_state
        self.max_iter, self.device = max_iter, device

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearSVC:
        """Fit to rows X (N, F) and classes y (N,)."""
        self._check_parameters()
        self._check_combination(self.penalty)
        X, y = self._check_training_rows(X, y)
        self.classes_, codes = classes_of(y)
        if len(self.classes_) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        given = None
        if self.class_weight is not None:
            counted = None if sample_weight is None else _check_sample_weight(sample_weight, X)
            given = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=counted).tolist()
        spec = DataSpec("tabular", (X.shape[1],), "class", num_classes=len(self.classes_), dtype="float64")
        counts = np.bincount(codes)
        # liblinear's own rule: a share of the first gradient, and the smaller of the rarer class.
        rarest = min(counts.min(), len(codes) - counts.max()) if len(counts) > 2 else counts.min()
        tol = float(self.tol) * max(int(rarest), 1) / len(codes)
        tol = tol if self.loss == "squared_hinge" and X.shape[1] <= NEWTON_SIZE else float(self.tol)
        self.coef_, self.intercept_ = self._minimize(X, codes, sample_weight, spec, tol, class_weight=given)
        return self


class LinearSVR(RegressorMixin, _LinearMachine, _Linear):
    """Linear support vector machine for values, with liblinear's objective.

    Args:
        epsilon: ε, the error that costs nothing.
        tol: where the search stops.
        C: the cost of an error, above 0.
        loss: `epsilon_insensitive` or `squared_epsilon_insensitive`.
        fit_intercept: whether there is an intercept.
        intercept_scaling: the constant feature whose weight is the intercept, which is penalized.
        dual: changes nothing: both problems have the same minimum.
        verbose: print the objective that was reached.
        random_state: changes nothing: rows are shuffled by what stands in them.
        max_iter: iterations at most.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = LinearSVR(C=100.0).fit([[-2.0], [-1.0], [1.0], [2.0]], [-2.0, -1.0, 1.0, 2.0])
        >>> model.predict([[0.5]]).round(2).tolist()
        [0.5]
    """

    _parameter_constraints = constraints(sklearn.svm.LinearSVR)

    def __init__(
        self,
        *,
        epsilon: float = 0.0,
        tol: float = 1e-4,
        C: float = 1.0,
        loss: str = "epsilon_insensitive",
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        dual: Any = "auto",
        verbose: int = 0,
        random_state: Any = None,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.epsilon, self.tol, self.C, self.loss, self.fit_intercept = epsilon, tol, C, loss, fit_intercept
        self.intercept_scaling, self.dual, self.verbose = intercept_scaling, dual, verbose
        self.random_state, self.max_iter, self.device = random_state, max_iter, device

    @of_few_threads
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearSVR:
        """Fit to rows X (N, F) and values y (N,)."""
        self._check_parameters()
        self._check_combination("l2")
        X, y = self._check_training_rows(X, y, y_numeric=True)
        spec = DataSpec("tabular", (X.shape[1],), "value", dtype="float64")
        y = np.asarray(y, dtype=np.float64)
        coefficients, self.intercept_ = self._minimize(
            X, y, sample_weight, spec, float(self.tol), epsilon=max(0.0, float(self.epsilon))
        )
        self.coef_ = coefficients[0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,)."""
        return self._linear_scores(X)


# -- machines with a kernel ------------------------------------------------------------------------------------------


class _KernelMachine(ZooEstimator):
    """What the machines with a kernel share: rows dense, sparse (made dense) or the kernel itself."""

    _model: str
    kernel: Any
    degree: int
    gamma: Any
    coef0: float
    tol: float
    shrinking: bool
    cache_size: float
    verbose: bool
    max_iter: int
    support_: np.ndarray
    support_vectors_: Any
    dual_coef_: Any
    intercept_: np.ndarray

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        tags.input_tags.sparse = self.kernel != "precomputed"
        return tags

    # -- fitting -------------------------------------------------------------------------------------------------

    def _check_training_rows(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return the rows (of a function of a kernel as they are) and the targets, checked."""
        if y is None and not isinstance(self, OutlierMixin):
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        if sparse.issparse(X) and self.kernel == "precomputed":
            raise TypeError("Sparse precomputed kernels are not supported.")
        if callable(self.kernel):
            check_consistent_length(X, y)
            return X, y
        options: dict[str, Any] = {"dtype": np.float64, "order": "C", "accept_sparse": "csr"}
        if isinstance(self, OutlierMixin):
            X = validate_data(self, X, **options)
        else:
            X, y = validate_data(self, X, y, **options)
        if self.kernel == "precomputed" and X.shape[0] != X.shape[1]:
            shape = f"{X.shape[0]}x{X.shape[1]}"
            raise ValueError(f"Precomputed matrix must be a square matrix. Input is a {shape} matrix.")
        return X, y

    def _solve(
        self,
        X: Any,
        y: np.ndarray | None,
        sample_weight: Any,
        solved: Callable[[Collected, Kernel, Search], KernelMachines],
    ) -> KernelMachines:
        """Fit to checked rows, by what solves their machines; keep what all faces share, and return the machines."""
        name, gamma, degree, coef0, tol, shrinking, cache_size, max_iter = self._options().values()
        KernelMachine.check_search(name, gamma, degree, coef0, tol, max_iter, cache_size)
        self._sparse = sparse.issparse(X) and not callable(self.kernel)
        self._x_fit = X if callable(self.kernel) else None
        rows = self._matrix(X) if callable(self.kernel) else X.toarray() if self._sparse else X
        if callable(self.kernel) and rows.shape[0] != rows.shape[1]:
            raise ValueError("X.shape[0] should be equal to X.shape[1]")
        device, given = self._device(), name == "precomputed"
        x = _tensor(rows).to(device)
        targets = x.new_zeros(len(rows)) if y is None else _tensor(y).to(device, torch.float64)
        weight = None if sample_weight is None else _tensor(self._row_weights(sample_weight, rows, y)).to(device)
        if given:
            check_symmetric(x)
        collected = in_order(self._model, x, targets[:, None], weight, sort=not given)
        kernel = kernel_of(self._model, name, gamma, degree, coef0, collected.x)
        found = solved(collected, kernel, Search(tol, max_iter, shrinking, cache_size))
        self.shape_fit_ = X.shape if hasattr(X, "shape") else (_num_samples(X),)
        self._show(found, rows, kernel.gamma)
        self.fit_status_ = int(self.max_iter != -1 and bool((self._steps >= self.max_iter).any()))
        if self.fit_status_:
            warnings.warn(
                f"Solver terminated early (max_iter={self.max_iter}). Consider pre-processing your data with "
                "StandardScaler or MinMaxScaler.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if self.verbose:
            print(f"{type(self).__name__}: dual objective {self._objectives.sum():.10g}")
        return found

    def _options(self) -> dict[str, Any]:
        """The hyperparameters that the models share."""
        return {
            "kernel": "precomputed" if callable(self.kernel) else self.kernel,
            "gamma": self.gamma if isinstance(self.gamma, str) else float(self.gamma),
            "degree": int(self.degree),
            "coef0": float(self.coef0),
            "tol": float(self.tol),
            "shrinking": bool(self.shrinking),
            "cache_size": float(self.cache_size),
            "max_iter": None if self.max_iter == -1 else max(1, int(self.max_iter)),
        }

    def _row_weights(self, sample_weight: Any, rows: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        """Weights (N,), 0 for those below, which libsvm leaves out, too."""
        weight = np.asarray(sample_weight, dtype=np.float64)
        if weight.shape != (len(rows),):
            raise ValueError(f"sample_weight and X have incompatible shapes: {weight.shape} vs {rows.shape}")
        weight = _check_sample_weight(weight, rows, dtype=np.float64).clip(0)
        self._check_weights(weight, y if isinstance(self, ClassifierMixin) else None)
        return weight

    def _check_weights(self, weight: np.ndarray, codes: np.ndarray | None) -> None:
        if not (weight > 0).any():
            raise ValueError("Invalid input - all samples have zero or negative weights.")
        if codes is not None and len(np.unique(codes[weight > 0])) < 2:
            raise ValueError("Invalid input - all samples with positive weights are of one class.")

    def _show(self, found: KernelMachines, rows: np.ndarray, gamma: float) -> None:
        """Support vectors and coefficients, those of a class together in the order of the rows."""
        self._gamma, self._objectives = gamma, found.objectives.numpy()
        self._n_support = found.num_support.cpu().numpy().astype(np.int32)
        support = found.support.cpu().numpy()
        order = np.lexsort((support, np.repeat(np.arange(len(self._n_support)), self._n_support)))
        self.support_ = support[order].astype(np.int32)
        coefficients, intercept = found.dual_coef.cpu().numpy()[:, order], found.intercept.cpu().numpy()
        self.dual_coef_, self.intercept_ = self._flip() * coefficients, self._flip() * intercept
        given = callable(self.kernel) or self.kernel == "precomputed"
        self.support_vectors_ = np.empty((0, 0)) if given else rows[self.support_]
        if self._sparse:
            self.dual_coef_, self.support_vectors_ = (
                sparse.csr_matrix(a) for a in (self.dual_coef_, self.support_vectors_)
            )
        self._steps = found.steps.numpy().astype(np.int32)
        self.n_iter_: Any = self._steps if isinstance(self, ClassifierMixin) else int(self._steps[0])

    def _flip(self) -> float:
        """The sign of coefficients: libsvm's decision of a pair of more than two classes is above 0 for the first."""
        return -1.0 if self._n_support.size > 2 else 1.0

    # -- prediction ----------------------------------------------------------------------------------------------

    def _matrix(self, X: Any) -> np.ndarray:
        """The kernel of rows with the training rows, by the user's function."""
        values = self.kernel(X, self._x_fit)
        return np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float64, order="C")

    def _prediction_rows(self, X: Any) -> Any:
        check_is_fitted(self)
        if callable(self.kernel):
            X = self._matrix(X)
        else:
            X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=np.float64, order="C")
            if sparse.issparse(X) and not self._sparse:
                raise ValueError(f"cannot use sparse input in {type(self).__name__!r} trained on dense data")
        if (callable(self.kernel) or self.kernel == "precomputed") and X.shape[1] != self.shape_fit_[0]:
            raise ValueError(
                f"X.shape[1] = {X.shape[1]} should be equal to {self.shape_fit_[0]}, the number of samples at training "
                "time"
            )
        size = self.support_vectors_.shape[0]
        if not self._sparse and self.support_vectors_.size and self.n_support_.sum() != size:
            raise ValueError(f"The internal representation of {type(self).__name__} was altered")
        return X

    def _kernels(self, X: Any) -> Iterator[Tensor]:
        """The kernel of rows with the support vectors, some rows at a time."""
        device = self._device()
        given = callable(self.kernel) or self.kernel == "precomputed"
        kernel = Kernel("precomputed" if given else self.kernel, self._gamma, self.degree, self.coef0)
        vectors = self.support_vectors_.toarray() if self._sparse else self.support_vectors_
        support = _tensor(np.ascontiguousarray(vectors)).to(device)
        step = max(1, BLOCK // max(1, len(self.support_)))
        for start in range(0, X.shape[0], step):
            part = X[start : start + step]
            part = part[:, self.support_] if given else part.toarray() if sparse.issparse(part) else part
            yield kernel(_tensor(np.ascontiguousarray(part, dtype=np.float64)).to(device), support)

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        dense = self.dual_coef_.toarray() if sparse.issparse(self.dual_coef_) else self.dual_coef_
        return tuple(_tensor(np.asarray(a, dtype=np.float64)).to(self._device()) for a in (dense, self.intercept_))  # type: ignore[return-value]

    def _values(self, X: Any) -> np.ndarray:
        """Σ β k(x_i, x) + b of rows, (N,)."""
        rows = self._prediction_rows(X)
        coefficients, intercept = self._coefficients()
        parts = [k @ coefficients[0] + intercept[0] for k in self._kernels(rows)]
        return torch.cat(parts).cpu().numpy() if parts else np.empty(0)

    # -- attributes ----------------------------------------------------------------------------------------------

    @property
    def model_(self) -> Any:
        """The fitted model of the zoo, with the machines as they are."""
        check_is_fitted(self)
        model: Any = create(self._model, **self._model_options())
        vectors = self.support_vectors_.toarray() if self._sparse else self.support_vectors_
        classes = isinstance(self, ClassifierMixin)
        model.build(
            DataSpec(
                "tabular", (vectors.shape[1] or self.shape_fit_[0],),
                None if isinstance(self, OutlierMixin) else "class" if classes else "value",
                num_classes=len(self._n_support) if classes else None, dtype="float64",
            )
        ).to(self._device())  # fmt: skip
        coefficients, intercept = (self._flip() * part for part in self._coefficients())
        vectors, support, sizes = (
            _tensor(np.ascontiguousarray(part)).to(model.device)
            for part in (vectors, self.support_.astype(np.int64), self._n_support.astype(np.int64))
        )
        curves = self._curves if classes else None
        model.adopt(KernelMachines(vectors, support, sizes, coefficients, intercept, [], curves))
        model.gamma.fill_(self._gamma)
        model.objective_values, model.num_iter = (
            torch.from_numpy(part) for part in (self._objectives, self._steps.astype(np.int64))
        )
        return model.eval()

    @property
    def n_support_(self) -> np.ndarray:
        """Support vectors of each class, or of all in one."""
        if not hasattr(self, "_n_support"):
            raise AttributeError(f"This {type(self).__name__} is not fitted yet.")
        return self._n_support

    @property
    def coef_(self) -> Any:
        """Weights of the features, with `kernel="linear"`."""
        if self.kernel != "linear":
            raise AttributeError("coef_ is only available when using a linear kernel")
        coefficients = self._linear_coefficients()
        (coefficients.data if sparse.issparse(coefficients) else coefficients).flags.writeable = False
        return coefficients

    def _linear_coefficients(self) -> Any:
        check_is_fitted(self)
        return self.dual_coef_ @ self.support_vectors_


def _has_probability(estimator: Any) -> bool:
    if estimator.probability in ("deprecated", False):
        raise AttributeError("predict_proba is not available when probability=False")
    return True


class SVC(ClassifierMixin, _KernelMachine):
    """Support vector machine with a kernel for classes, one against one, as libsvm has it.

    Args:
        C: the cost of a violated margin, above 0.
        kernel: `linear`, `poly`, `rbf`, `sigmoid`, `precomputed`, or a function of two sets of rows.
        degree: of `poly`.
        gamma: a number, `scale` or `auto`.
        coef0: of `poly` and `sigmoid`.
        shrinking: whether rows at their bounds are left out for a while.
        probability: whether to fit probabilities; deprecated in scikit-learn.
        tol: the largest violation of the optimality conditions that is left.
        cache_size: megabytes of the kernel that are kept.
        class_weight: None, `balanced`, or a mapping of classes to weights.
        verbose: print the objective that was reached.
        max_iter: pairs of coefficients that are moved at most; −1 for no limit.
        decision_function_shape: `ovr`, a number a class, or `ovo`, one a pair of classes.
        break_ties: whether, of classes with equal votes, the one with the largest number wins.
        random_state: changes nothing: rows are dealt to the folds of `probability` by what stands in them.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = SVC(gamma=1.0, C=10.0).fit([[0, 0], [1, 1], [0, 1], [1, 0]], ["same", "same", "other", "other"])
        >>> model.predict([[0.1, 0.0]]).tolist(), model.n_support_.tolist()
        (['same'], [2, 2])
    """

    _model = "kernel_svm"
    _parameter_constraints = constraints(sklearn.svm.SVC)

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: Any = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        shrinking: bool = True,
        probability: Any = "deprecated",
        tol: float = 1e-3,
        cache_size: float = 200,
        class_weight: Any = None,
        verbose: bool = False,
        max_iter: int = -1,
        decision_function_shape: str = "ovr",
        break_ties: bool = False,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.C, self.kernel, self.degree, self.gamma, self.coef0 = C, kernel, degree, gamma, coef0
        self.shrinking, self.probability, self.tol, self.cache_size = shrinking, probability, tol, cache_size
        self.class_weight, self.verbose, self.max_iter = class_weight, verbose, max_iter
        self.decision_function_shape, self.break_ties = decision_function_shape, break_ties
        self.random_state, self.device = random_state, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SVC:
        """Fit to rows X (N, F), or their kernel (N, N), and classes y (N,)."""
        self._check_parameters()
        X, y = self._check_training_rows(X, y)
        y = column_of(y)
        self.classes_, codes = classes_of(y)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class.")
        if self.probability != "deprecated":
            warnings.warn(
                "`probability` is deprecated, as in scikit-learn, which takes it away in 1.11: "
                "CalibratedClassifierCV(SVC(), ensemble=False) gives probabilities, too.",
                FutureWarning,
                stacklevel=2,
            )
        self.class_weight_ = np.ones(len(self.classes_))
        if self.class_weight is not None:
            self.class_weight_ = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        self._curves: Any = self._solve(X, codes, sample_weight, self._pair_machines).curves
        return self

    def _pair_machines(self, rows: Collected, kernel: Kernel, search: Search) -> KernelMachines:
        cost, weight = (
            min(float(self.C), LARGEST_COST),
            None if self.class_weight is None else self.class_weight_.tolist(),
        )
        return pair_machines(
            self._model, rows, len(self.classes_), cost, weight, kernel, search, probability=self._asks_probability()
        )

    def _asks_probability(self) -> bool:
        return self.probability is not False and self.probability != "deprecated"

    def _model_options(self) -> dict[str, Any]:
        own = {"class_weight": self.class_weight_.tolist(), "probability": self._curves is not None}
        return {**self._options(), **own, "C": min(float(self.C), LARGEST_COST)}

    # -- prediction ----------------------------------------------------------------------------------------------

    def _pairs(self, X: Any) -> Tensor:
        """Decisions of the pairs, above 0 for the second class, (N, P)."""
        rows = self._prediction_rows(X)
        coefficients, intercepts = self._coefficients()
        flip = 1.0 if len(self.classes_) == 2 else -1.0
        sizes = np.asarray(self.n_support_).tolist()
        parts = [pair_decisions(k, flip * coefficients, sizes, flip * intercepts) for k in self._kernels(rows)]
        return torch.cat(parts) if parts else intercepts.new_zeros(0, len(intercepts))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return (N,) for two classes, else (N, C), or with `ovo` (N, P), above 0 for the first of a pair."""
        decisions = self._pairs(X)
        if len(self.classes_) == 2:
            return decisions[:, 0].cpu().numpy()
        if self.decision_function_shape == "ovr":
            return against_the_rest(decisions, len(self.classes_)).cpu().numpy()
        return -decisions.cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row, (N,)."""
        check_is_fitted(self)
        if self.break_ties and self.decision_function_shape == "ovo":
            raise ValueError("break_ties must be False when decision_function_shape is 'ovo'")
        decisions, number = self._pairs(X), len(self.classes_)
        count = against_the_rest(decisions, number) if self.break_ties else votes(decisions, number)
        return self.classes_[count.argmax(1).cpu().numpy()]

    @available_if(_has_probability)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        check_is_fitted(self)
        if self._curves is None:
            raise NotFittedError("predict_proba is not available when fitted with probability=False")
        decisions = self._pairs(X)
        slope, offset = self._curves.to(decisions.device).unbind(1)
        return couple(curve(decisions, slope, offset), len(self.classes_)).cpu().numpy()

    @available_if(_has_probability)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the class probabilities, (N, C)."""
        return np.log(self.predict_proba(X))

    # -- attributes ----------------------------------------------------------------------------------------------

    @property
    def probA_(self) -> np.ndarray:
        """Slopes of the curves of `probability`, (P,), as libsvm signs them."""
        return np.empty(0) if self._curves is None else self._curves[:, 0].cpu().numpy()

    @property
    def probB_(self) -> np.ndarray:
        """Offsets of the curves of `probability`, (P,), as libsvm signs them."""
        return np.empty(0) if self._curves is None else -self._curves[:, 1].cpu().numpy()

    def _linear_coefficients(self) -> Any:
        check_is_fitted(self)
        number = len(self.classes_)
        if number == 2:
            return super()._linear_coefficients()
        dense = self.dual_coef_.toarray() if self._sparse else self.dual_coef_
        vectors = self.support_vectors_.toarray() if self._sparse else self.support_vectors_
        parts = [slice(end - n, end) for n, end in zip(self.n_support_, self.n_support_.cumsum(), strict=True)]
        rows = [
            dense[b - 1, parts[a]] @ vectors[parts[a]] + dense[a, parts[b]] @ vectors[parts[b]]
            for a in range(number)
            for b in range(a + 1, number)
        ]
        return sparse.csr_matrix(np.stack(rows)) if self._sparse else np.stack(rows)


class SVR(RegressorMixin, _KernelMachine):
    """Support vector machine with a kernel for values, with the ε-insensitive loss.

    Args:
        kernel: `linear`, `poly`, `rbf`, `sigmoid`, `precomputed`, or a function of two sets of rows.
        degree: of `poly`.
        gamma: a number, `scale` or `auto`.
        coef0: of `poly` and `sigmoid`.
        tol: the largest violation of the optimality conditions that is left.
        C: the cost of an error, above 0.
        epsilon: ε, the error that costs nothing.
        shrinking: whether rows at their bounds are left out for a while.
        cache_size: megabytes of the kernel that are kept.
        verbose: print the objective that was reached.
        max_iter: pairs of coefficients that are moved at most; −1 for no limit.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = SVR(kernel="linear", C=100.0, epsilon=0.1).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
        >>> model.predict([[1.0]]).round(3).tolist()
        [1.0]
    """

    _model = "kernel_svm"
    _parameter_constraints = constraints(sklearn.svm.SVR)

    def __init__(
        self,
        *,
        kernel: Any = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        C: float = 1.0,
        epsilon: float = 0.1,
        shrinking: bool = True,
        cache_size: float = 200,
        verbose: bool = False,
        max_iter: int = -1,
        device: str = "cpu",
    ) -> None:
        self.kernel, self.degree, self.gamma, self.coef0, self.tol = kernel, degree, gamma, coef0, tol
        self.C, self.epsilon, self.shrinking, self.cache_size = C, epsilon, shrinking, cache_size
        self.verbose, self.max_iter, self.device = verbose, max_iter, device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SVR:
        """Fit to rows X (N, F), or their kernel (N, N), and values y (N,)."""
        self._check_parameters()
        X, y = self._check_training_rows(X, y)
        check_range("epsilon", self.epsilon, 0)
        self._solve(X, column_of(y).astype(np.float64, copy=False), sample_weight, self._machine)
        return self

    def _machine(self, rows: Collected, kernel: Kernel, search: Search) -> KernelMachines:
        dual = regression(rows.y, min(float(self.C), LARGEST_COST) * rows.weight, float(self.epsilon))
        return one_machine(rows, dual, kernel, search)

    def _model_options(self) -> dict[str, Any]:
        return {**self._options(), "C": min(float(self.C), LARGEST_COST), "epsilon": float(self.epsilon)}

    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,)."""
        return self._values(X)


class OneClassSVM(OutlierMixin, _KernelMachine):
    """A region that holds most rows, with a kernel; rows outside of it are outliers.

    Args:
        kernel: `linear`, `poly`, `rbf`, `sigmoid`, `precomputed`, or a function of two sets of rows.
        degree: of `poly`.
        gamma: a number, `scale` or `auto`.
        coef0: of `poly` and `sigmoid`.
        tol: the largest violation of the optimality conditions that is left.
        nu: the largest share of training rows outside, and the least of support vectors.
        shrinking: whether rows at their bounds are left out for a while.
        cache_size: megabytes of the kernel that are kept.
        verbose: print the objective that was reached.
        max_iter: pairs of coefficients that are moved at most; −1 for no limit.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = OneClassSVM(nu=0.3, gamma=1.0).fit([[0.0], [0.1], [0.2], [0.3], [5.0]])
        >>> model.predict([[0.15], [9.0]]).tolist()
        [1, -1]
    """

    _model = "one_class_svm"
    _parameter_constraints = constraints(sklearn.svm.OneClassSVM)

    def __init__(
        self,
        *,
        kernel: Any = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        tol: float = 1e-3,
        nu: float = 0.5,
        shrinking: bool = True,
        cache_size: float = 200,
        verbose: bool = False,
        max_iter: int = -1,
        device: str = "cpu",
    ) -> None:
        self.kernel, self.degree, self.gamma, self.coef0, self.tol, self.nu = kernel, degree, gamma, coef0, tol, nu
        self.shrinking, self.cache_size, self.verbose = shrinking, cache_size, verbose
        self.max_iter, self.device = max_iter, device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> OneClassSVM:
        """Fit to rows X (N, F), or their kernel (N, N); `y` is not looked at."""
        self._check_parameters()
        X, _ = self._check_training_rows(X, None)
        self._solve(X, None, sample_weight, self._machine)
        self.offset_ = -self.intercept_
        return self

    def _machine(self, rows: Collected, kernel: Kernel, search: Search) -> KernelMachines:
        return one_machine(rows, novelty(rows.weight, float(self.nu)), kernel, search)

    def _model_options(self) -> dict[str, Any]:
        return {**self._options(), "nu": float(self.nu)}

    def decision_function(self, X: Any) -> np.ndarray:
        """Return how far inside each row is, (N,); outliers are below 0."""
        return self._values(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the sum of kernels of each row, (N,)."""
        return self.decision_function(X) + self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return 1 for a row inside and −1 for an outlier, (N,)."""
        return np.where(self.decision_function(X) > 0, 1, -1).astype(np.intp)
