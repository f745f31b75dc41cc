"""MLPClassifier and MLPRegressor under scikit-learn's names.

Start, order of rows and steps are scikit-learn's, so that the same `random_state` ends in the same weights, to
rounding; `model_` is the zoo's `mlp` with these weights.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import sklearn.neural_network
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor, nn

from zoo.data.spec import DataSpec
from zoo.sklearn.base import ZooEstimator, built, constraints, create
from zoo.sklearn.descent import Adam, Momentum
from zoo.sklearn.perceptron import activate, loss_and_gradients, scores
from zoo.sklearn.rows import dense_blocks, tensor_of, validate_data

__all__ = ["MLPClassifier", "MLPRegressor"]

_ACTIVATIONS = {"logistic": "sigmoid", "tanh": "tanh", "relu": "relu", "identity": "identity"}
_SMALLEST_RATE = 1e-6  # of an adaptive learning rate

# Letters: N rows, B of a batch, F features, K outputs.


def _stochastic(estimator: Any) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class _MLP(ZooEstimator):
    """What both share: the network, its training, and its outputs from `coefs_` and `intercepts_` as they stand."""

    loss: str = "log_loss"
    hidden_layer_sizes: Any
    activation: str
    solver: str
    alpha: float
    batch_size: int | str
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    n_outputs_: int
    n_features_in_: int
    out_activation_: str
    best_loss_: Any
    best_validation_score_: Any

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Set the parameters of the constructor."""
        for name, value in parameters.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- what the two estimators say -----------------------------------------------------------------------------

    def _targets(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, np.ndarray]:
        """Return checked rows and targets (N, K)."""
        raise NotImplementedError

    def _predicted(self, output: np.ndarray) -> np.ndarray:
        """Return the predictions for outputs (N, K), activated."""
        raise NotImplementedError

    def _link(self) -> str:
        """Return what becomes of the last layer's scores."""
        raise NotImplementedError

    def _spec(self) -> tuple[DataSpec, dict[str, Any]]:
        """Return what the zoo's model would be given, and its options."""
        raise NotImplementedError

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit to rows X (N, F), dense or sparse, and targets y, with weights (N,) if given."""
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Any:
        self._check_parameters()
        widths = [int(width) for width in np.atleast_1d(self.hidden_layer_sizes)]
        if any(width <= 0 for width in widths):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {widths}.")
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, targets = self._targets(X, y, incremental=incremental, reset=first)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        self.n_outputs_ = targets.shape[1]
        self._random_state = check_random_state(self.random_state)
        if first:
            self._start(X, widths)
        if self.solver == "lbfgs":
            self._minimize(X, targets, weight)
        else:
            self._descend(X, targets, weight, incremental)
        if not all(np.isfinite(part).all() for part in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        return self

    def _start(self, X: Any, widths: list[int]) -> None:
        """Draw the weights as Glorot and Bengio (2010) advise."""
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(widths) + 2
        self.out_activation_ = self._link()
        factor = 2.0 if self.activation == "logistic" else 6.0
        self.coefs_, self.intercepts_ = [], []
        for shape in itertools.pairwise([X.shape[1], *widths, self.n_outputs_]):
            bound = np.sqrt(factor / sum(shape))
            self.coefs_.append(self._random_state.uniform(-bound, bound, shape).astype(X.dtype, copy=False))
            self.intercepts_.append(self._random_state.uniform(-bound, bound, shape[1]).astype(X.dtype, copy=False))
        self._optimizer: Any = None
        if self.solver == "lbfgs":
            return
        stopping = self.early_stopping
        self.loss_curve_: list[float] = []
        self._waited = 0
        self.validation_scores_: list[float] | None = [] if stopping else None
        self.best_validation_score_ = -np.inf if stopping else None
        self.best_loss_ = None if stopping else np.inf

    def _take_weights(self, dtype: Any) -> list[tuple[Tensor, Tensor]]:
        """The weights that are shown, which the user may have set, as tensors to train."""
        both = zip(self.coefs_, self.intercepts_, strict=True)
        return [tuple(_tensor(np.array(part, order="C"), dtype, self._device()) for part in layer) for layer in both]  # type: ignore[misc]

    def _show(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        self.coefs_, self.intercepts_ = ([part.cpu().numpy() for part in parts] for parts in zip(*layers, strict=True))

    @property
    def model_(self) -> Any:
        """The zoo's `mlp` with `coefs_` and `intercepts_` as they are; of several labels it says the log-odds."""
        check_is_fitted(self)
        spec, options = self._spec()
        widths = [len(intercept) for intercept in self.intercepts_[:-1]]
        model = built(create("mlp", widths=widths, activation=_ACTIVATIONS[self.activation], **options), spec)
        model = model.to(torch.from_numpy(np.asarray(self.coefs_[0])).dtype)
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            for layer, coefficients, intercepts in zip(layers, self.coefs_, self.intercepts_, strict=True):
                layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(np.asarray(coefficients).T)))
                layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(intercepts)))
        return model.to(self._device()).eval()

    def _gradients(
        self, batch: _Part, layers: list[tuple[Tensor, Tensor]], total: float, penalty: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of rows, as it is reported, and its gradients, with the penalty's."""
        x, y, weight = batch
        loss, gradients = loss_and_gradients(
            x, y, layers, self.activation, self.out_activation_, weight, total, penalty
        )
        if self.out_activation_ == "identity" and self.n_outputs_ > 1:  # squared errors are reported as a mean
            loss /= self.n_outputs_
        for matrix, _ in layers if penalty else ():
            numbers = matrix.reshape(-1)
            loss.add_(numbers.dot(numbers), alpha=penalty / 2)
        return loss, gradients

    # -- steps on batches ----------------------------------------------------------------------------------------

    def _descend(self, X: Any, y: np.ndarray, weight: np.ndarray | None, incremental: bool) -> None:
        layers = self._take_weights(X.dtype)
        parameters = list(itertools.chain.from_iterable(layers))
        if self._optimizer is None or not incremental:
            self._optimizer = self._new_optimizer(parameters)
        self._optimizer.parameters = parameters
        stopping = self.early_stopping
        if stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        held_out = None
        if stopping:
            X, y, weight, held_out = self._split(X, y, weight)
        rows = X.shape[0]
        size = min(200, rows) if self.batch_size == "auto" else int(self.batch_size)
        if size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
            )
            size = rows
        batches = _Batches(X, y, weight, self._device())
        order = np.arange(rows)
        best = None
        self.n_iter_ = 0
        try:
            while self.n_iter_ < self.max_iter:
                if self.shuffle:
                    order = order[self._random_state.permutation(rows)]
                self.loss_ = self._pass(batches, layers, order, size)
                self.n_iter_ += 1
                self.t_ += rows
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                if held_out is None:
                    self._compare_loss()
                elif self._compare_score(layers, *held_out) or best is None:
                    best = [(matrix.clone(), bias.clone()) for matrix, bias in layers]
                if self.learning_rate == "invscaling" and self.solver == "sgd":
                    self._optimizer.lr = self.learning_rate_init / (self.t_ + 1) ** self.power_t
                if self._waited > self.n_iter_no_change and self._stop():
                    break
                if incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization "
                        "hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        self._show(best or layers)
        self._optimizer.parameters = []  # they are shown

    def _new_optimizer(self, parameters: list[Tensor]) -> Adam | Momentum:
        rate = float(self.learning_rate_init)
        if self.solver == "sgd":
            return Momentum(parameters, rate, float(self.momentum), bool(self.nesterovs_momentum))
        return Adam(parameters, rate, (float(self.beta_1), float(self.beta_2)), float(self.epsilon))

    def _pass(self, batches: _Batches, layers: list[tuple[Tensor, Tensor]], order: np.ndarray, size: int) -> float:
        """Take a step on each batch of rows in this order; return the mean loss with its penalty."""
        losses, counts = [], []
        for start in range(0, len(order), size):
            part = slice(start, min(start + size, len(order)))
            batch = batches.take(order[part] if self.shuffle else part)
            total = float(len(batch.y) if batch.weight is None else batch.weight.sum())
            if not total:
                continue  # rows without weight
            loss, gradients = self._gradients(batch, layers, total, self.alpha / total)
            self._optimizer.step(gradients)
            losses.append(loss)
            counts.append(part.stop - part.start)
        return float(torch.stack(losses) @ losses[0].new_tensor(counts)) / len(order) if losses else 0.0

    def _split(self, X: Any, y: np.ndarray, weight: np.ndarray | None) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
        """Hold out a share of the rows; return the others, and those."""
        parts = train_test_split(
            *(X, y) if weight is None else (X, y, weight),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        train, held = list(parts[::2]), list(parts[1::2])
        if held[0].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if weight is None:
            train.append(None)
            held.append(None)
        held[1] = self._predicted(held[1].astype(X.dtype))
        return *train, tuple(held)  # type: ignore[return-value]

    def _compare_loss(self) -> None:
        self._waited = self._waited + 1 if self.loss_ > self.best_loss_ - self.tol else 0
        self.best_loss_ = min(self.best_loss_, self.loss_)

    def _compare_score(
        self, layers: list[tuple[Tensor, Tensor]], X: Any, y: np.ndarray, weight: np.ndarray | None
    ) -> bool:
        """Score the rows held out; return whether that is the best score so far."""
        predicted, measure = (
            self._predicted(self._output(X, layers)),
            accuracy_score if is_classifier(self) else r2_score,
        )
        finite = predicted.dtype.kind != "f" or np.isfinite(predicted).all()
        score = float(measure(y, predicted, sample_weight=weight)) if finite else np.nan
        assert self.validation_scores_ is not None
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        best = self.best_validation_score_
        self._waited = self._waited + 1 if score < best + self.tol else 0
        self.best_validation_score_ = max(best, score)
        return score > best

    def _stop(self) -> bool:
        """Say why it does not go on; an adaptive learning rate goes on with a smaller one instead."""
        what = "Validation score" if self.early_stopping else "Training loss"
        text = f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        stops = not adaptive or self._optimizer.lr <= _SMALLEST_RATE
        if not stops:
            self._optimizer.lr /= 5
            self._waited = 0
            text += f" Setting learning rate to {self._optimizer.lr:f}"
        else:
            text += " Learning rate too small. Stopping." if adaptive else " Stopping."
        if self.verbose:
            print(text)
        return stops

    # -- all rows at once ----------------------------------------------------------------------------------------

    def _minimize(self, X: Any, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Minimize by SciPy's L-BFGS."""
        layers = self._take_weights(X.dtype)
        parameters = list(itertools.chain.from_iterable(layers))
        total = float(X.shape[0] if weight is None else weight.sum())
        batches = _Batches(X, y, weight, self._device())
        kept = None if sparse.issparse(X) else list(batches.blocks())

        def value_and_slope(point: np.ndarray) -> tuple[float, np.ndarray]:
            _unpack(point, parameters)
            value, slope = 0.0, None
            for batch in kept or batches.blocks():
                penalty = self.alpha / total if slope is None else 0.0
                loss, gradients = self._gradients(batch, layers, total, penalty)
                value += float(loss)
                slope = gradients if slope is None else list(torch._foreach_add(slope, gradients))
            assert slope is not None
            return value, _pack(slope)

        found = scipy.optimize.minimize(
            value_and_slope,
            _pack(parameters),
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        _unpack(found.x, parameters)
        self.loss_, self.n_iter_ = float(found.fun), min(int(found.nit), self.max_iter)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if found.status != 0:
            warnings.warn(
                f"lbfgs failed to converge after {found.nit} iteration(s) (status={found.status}): {found.message}. "
                "Increase max_iter or max_fun, or scale the data.",
                ConvergenceWarning,
                stacklevel=4,
            )
        self._show(layers)

    # -- outputs -------------------------------------------------------------------------------------------------

    def _output(self, X: Any, layers: list[tuple[Tensor, Tensor]]) -> np.ndarray:
        """The activated outputs of rows, (N, K)."""
        matrix, parts = layers[0][0], []
        for _, x in dense_blocks(X):
            z = scores(x.to(matrix.device, matrix.dtype), layers, self.activation)[-1]
            parts.append(activate(z, self.out_activation_).cpu().numpy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse="csr")
        return self._output(X, self._take_weights(np.asarray(self.coefs_[0]).dtype))

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions for rows X (N, F), dense or sparse."""
        return self._predicted(self._outputs(X))


def _tensor(array: np.ndarray, dtype: Any, device: str) -> Tensor:
    return tensor_of(np.asarray(array, dtype=dtype)).to(device)


def _pack(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat([t.reshape(-1) for t in tensors]).cpu().double().numpy()


def _unpack(point: np.ndarray, parameters: list[Tensor]) -> None:
    sizes = [p.numel() for p in parameters]
    for parameter, part in zip(parameters, torch.from_numpy(point.copy()).split(sizes), strict=True):
        parameter.copy_(part.view_as(parameter))


class _Part(NamedTuple):
    """Rows (B, F), targets (B, K) and weights (B,)."""

    x: Tensor
    y: Tensor
    weight: Tensor | None


class _Batches:
    """Rows, targets and weights, of which some are taken at a time: dense ones as tensors on the device."""

    def __init__(self, X: Any, y: np.ndarray, weight: np.ndarray | None, device: str) -> None:
        self.rows, self.dtype, self.device = X, X.dtype, device
        self.x = None if sparse.issparse(X) else _tensor(X, X.dtype, device)
        self.y = _tensor(y, X.dtype, device)
        self.weight = None if weight is None else _tensor(weight, X.dtype, device)

    def take(self, index: Any) -> _Part:
        """Return the rows of an index or a slice."""
        chosen = index if isinstance(index, slice) else torch.from_numpy(index).to(self.device)
        x = _tensor(self.rows[index].toarray(), self.dtype, self.device) if self.x is None else self.x[chosen]
        return _Part(x, self.y[chosen], None if self.weight is None else self.weight[chosen])

    def blocks(self) -> Iterator[_Part]:
        """Yield all rows, those of a sparse matrix some at a time."""
        for rows, x in dense_blocks(self.rows):
            weight = None if self.weight is None else self.weight[rows]
            yield _Part(x.to(self.device), self.y[rows], weight)


class MLPClassifier(ClassifierMixin, _MLP):
    """Multilayer perceptron for classes, or for several labels at once (y an indicator matrix).

    Args:
        hidden_layer_sizes: units of each hidden layer.
        activation: `identity`, `logistic`, `tanh` or `relu`.
        solver: `adam`, `sgd` or `lbfgs`.
        alpha: of the penalty ½ α Σ w², beside the sum of losses.
        batch_size: rows a step; `auto` is 200, or all of fewer.
        learning_rate: of `sgd`: `constant`, `invscaling` or `adaptive` (a fifth whenever the loss no longer falls).
        learning_rate_init: the first learning rate.
        power_t: exponent of `invscaling`.
        max_iter: passes over the rows at most, or iterations of `lbfgs`.
        shuffle: whether each pass has another order.
        random_state: of the start, the order of rows and those held out.
        tol: the least improvement; `lbfgs` ends where no slope is above it.
        verbose: print the loss after each pass.
        warm_start: whether `fit` goes on from the last weights.
        momentum: of `sgd`.
        nesterovs_momentum: whether it looks ahead.
        early_stopping: hold out rows, and stop when their score no longer rises.
        validation_fraction: the share of rows held out.
        beta_1: of `adam`.
        beta_2: of `adam`.
        epsilon: of `adam`.
        n_iter_no_change: passes without improvement before it stops.
        max_fun: evaluations of the loss at most, by `lbfgs`.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> model = MLPClassifier((16,), random_state=0, solver="lbfgs")
        >>> model = model.fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> model.predict([[0.0], [3.0]]).tolist()
        [0, 1]
    """

    _parameter_constraints = constraints(sklearn.neural_network.MLPClassifier)

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        device: str = "cpu",
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _targets(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, np.ndarray]:
        types = (np.float64, np.float32)
        X, y = validate_data(self, X, y, accept_sparse="csr", multi_output=True, dtype=types, reset=reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        return X, np.asarray(self._binarizer.transform(y), dtype=X.dtype)

    def _link(self) -> str:
        return "softmax" if self._binarizer.y_type_ == "multiclass" else "logistic"

    def _spec(self) -> tuple[DataSpec, dict[str, Any]]:
        shape = (self.n_features_in_,)
        if self._binarizer.y_type_.startswith("multilabel"):
            return DataSpec("tabular", shape, "value", num_targets=self.n_outputs_), {}
        return DataSpec("tabular", shape, "class", num_classes=max(2, self.n_outputs_)), {"binary_logit": True}

    def _predicted(self, output: np.ndarray) -> np.ndarray:
        return self._binarizer.inverse_transform(output[:, 0] if self.n_outputs_ == 1 else output)

    @available_if(_stochastic)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Take one pass of steps over rows; the first call names all `classes` that will ever come."""
        self._check_parameters()
        if _check_partial_fit_first_call(self, classes):
            labels = y if type_of_target(y).startswith("multilabel") else classes
            self._binarizer = LabelBinarizer().fit(labels)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes (or labels), (N, C)."""
        output = self._outputs(X)
        if self.n_outputs_ == 1:
            output = np.concatenate([1 - output, output], 1)
        return output[:, : len(self.classes_)]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of these probabilities, (N, C)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


class MLPRegressor(MultiOutputMixin, RegressorMixin, _MLP):
    """Multilayer perceptron for values, one or several a row.

    Args:
        loss: `squared_error`, or `poisson` for counts and rates of 0 or more.
        hidden_layer_sizes: units of each hidden layer; this and all others as of `MLPClassifier`.
        activation: see there.
        solver: see there.
        alpha: see there.
        batch_size: see there.
        learning_rate: see there.
        learning_rate_init: see there.
        power_t: see there.
        max_iter: see there.
        shuffle: see there.
        random_state: see there.
        tol: see there.
        verbose: see there.
        warm_start: see there.
        momentum: see there.
        nesterovs_momentum: see there.
        early_stopping: see there.
        validation_fraction: see there.
        beta_1: see there.
        beta_2: see there.
        epsilon: see there.
        n_iter_no_change: see there.
        max_fun: see there.
        device: see there.

    Example:
        >>> model = MLPRegressor(hidden_layer_sizes=(16,), random_state=0, solver="lbfgs")
        >>> model = model.fit([[0.0], [1.0]], [1.0, 3.0])
        >>> abs(model.predict([[1.0]]) - 3.0).item() < 0.2
        True
    """

    _parameter_constraints = constraints(sklearn.neural_network.MLPRegressor)

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        device: str = "cpu",
    ) -> None:
        self._keep(locals())

    def _targets(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, np.ndarray]:
        types = (np.float64, np.float32)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", multi_output=True, y_numeric=True, dtype=types, reset=reset
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError("loss='poisson' takes values y of 0 or more.")
        return X, np.asarray(y, dtype=X.dtype).reshape(len(y), -1)

    def _link(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _spec(self) -> tuple[DataSpec, dict[str, Any]]:
        return DataSpec("tabular", (self.n_features_in_,), "value", num_targets=self.n_outputs_), {"loss": self.loss}

    def _predicted(self, output: np.ndarray) -> np.ndarray:
        return output[:, 0] if output.shape[1] == 1 else output

    @available_if(_stochastic)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Take one pass of steps over rows."""
        return self._fit(X, y, sample_weight, incremental=True)
