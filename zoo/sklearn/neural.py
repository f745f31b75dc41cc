"""MLPClassifier and MLPRegressor under scikit-learn's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sklearn.neural_network
import torch
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from zoo.data.spec import Batch, DataSpec
from zoo.optimizers import Recipe
from zoo.sklearn.base import ZooEstimator, constraints, create

__all__ = ["MLPClassifier", "MLPRegressor"]

_ACTIVATIONS = {"logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
_OURS = {"solver": [StrOptions({"adam", "sgd"})], "activation": [StrOptions(set(_ACTIVATIONS))]}


class _MLP(ZooEstimator):
    """The zoo's `mlp`, trained in a plain loop: small data would wait longer for a trainer's start-up."""

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate_init: float = 1e-3,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        momentum: float = 0.9,
        n_iter_no_change: int = 10,
        device: str = "cpu",
    ) -> None:
        self.hidden_layer_sizes, self.activation, self.solver, self.alpha = (
            hidden_layer_sizes,
            activation,
            solver,
            alpha,
        )
        self.batch_size, self.learning_rate_init, self.max_iter = batch_size, learning_rate_init, max_iter
        self.shuffle, self.random_state, self.tol, self.momentum = shuffle, random_state, tol, momentum
        self.n_iter_no_change, self.device = n_iter_no_change, device

    def _start(self, X: np.ndarray, spec: DataSpec) -> None:
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = create("mlp", widths=[int(s) for s in sizes], activation=_ACTIVATIONS[self.activation])
            model.build(spec)
            for layer in model.modules():  # Glorot & Bengio 2010, as scikit-learn starts
                if isinstance(layer, nn.Linear):
                    bound = (6 / sum(layer.weight.shape)) ** 0.5
                    nn.init.uniform_(layer.weight, -bound, bound)
                    nn.init.uniform_(layer.bias, -bound, bound)
        self.model_ = model.to(self._device(), torch.from_numpy(X).dtype)
        options = {"lr": self.learning_rate_init}
        if self.solver == "sgd":
            options |= {"momentum": self.momentum, "nesterov": self.momentum > 0}
        self.model_.recipe = Recipe(self.solver, options)
        self._optimizer = self.model_.recipe.build_optimizer(self.model_)
        self._generator = torch.Generator().manual_seed(seed)
        self.loss_curve_: list[float] = []
        self.n_iter_ = 0

    def _pass(self, batch: Batch) -> float:
        """Take one pass of steps; return the mean loss with its penalty."""
        rows = len(batch.x)
        size = min(200, rows) if self.batch_size == "auto" else max(1, min(int(self.batch_size), rows))
        order = torch.randperm(rows, generator=self._generator) if self.shuffle else torch.arange(rows)
        total = 0.0
        self.model_.train()
        weights = [p for p in self.model_.parameters() if p.ndim > 1]
        for index in order.to(batch.x.device).split(size):
            part = Batch(*(None if t is None else t[index] for t in batch))  # type: ignore[arg-type]
            loss = self.model_.objective.loss(self.model_(part.x), part)
            if self.alpha:
                loss = loss + self.alpha / (2 * len(index)) * torch.stack([w.square().sum() for w in weights]).sum()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += float(loss.detach()) * len(index)
        self.model_.eval()
        return total / rows

    def _train(self, batch: Batch) -> None:
        best, waited = np.inf, 0
        for _ in range(self.max_iter):
            loss = self._pass(batch)
            self.loss_curve_.append(loss)
            self.n_iter_ += 1
            waited = waited + 1 if loss > best - self.tol else 0
            best = min(best, loss)
            if not np.isfinite(loss):
                raise ValueError(f"The loss is {loss} after {self.n_iter_} passes: lower learning_rate_init.")
            if waited >= self.n_iter_no_change:
                break
        self._show()

    def _show(self) -> None:
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else np.nan
        layers = [m for m in self.model_.modules() if isinstance(m, nn.Linear)]
        self.coefs_ = [layer.weight.detach().cpu().numpy().T for layer in layers]
        self.intercepts_ = [layer.bias.detach().cpu().numpy() for layer in layers]
        self.n_layers_ = len(layers) + 1


class MLPClassifier(ClassifierMixin, _MLP):
    """Multilayer perceptron for classes; parameters as in scikit-learn, plus `device`.

    Example:
        >>> model = MLPClassifier((16,), random_state=0, learning_rate_init=0.05)
        >>> model = model.fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> model.predict([[0.0], [3.0]]).tolist()
        [0, 1]
    """

    _parameter_constraints = constraints(sklearn.neural_network.MLPClassifier, **_OURS)

    def _encode(self, X: np.ndarray, y: Any) -> Batch:
        codes = np.searchsorted(self.classes_, y)
        unknown = ~np.isin(y, self.classes_)
        if unknown.any():
            raise ValueError(f"y has classes that were not there before: {np.unique(np.asarray(y)[unknown])}.")
        return self.model_.as_batch(Batch(torch.from_numpy(X), torch.from_numpy(codes)))

    def _begin(self, X: np.ndarray, classes: np.ndarray) -> None:
        self.classes_ = classes
        # One class alone is a network of two outputs of which one is never right.
        spec = DataSpec("tabular", (X.shape[1],), "class", num_classes=max(2, len(classes)), dtype=str(X.dtype))
        self._start(X, spec)

    def fit(self, X: Any, y: Any) -> MLPClassifier:
        """Fit to rows X (N, F) and classes y (N,)."""
        self._check_parameters()
        X, y = self._rows_and_targets(X, y, reset=True)
        check_classification_targets(y)
        self._begin(X, LabelEncoder().fit(y).classes_)
        self._train(self._encode(X, y))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> MLPClassifier:
        """Take one pass of steps over rows; `classes` must be given at the first call."""
        self._check_parameters()
        first = not hasattr(self, "model_")
        X, y = self._rows_and_targets(X, y, reset=first)
        check_classification_targets(y)
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._begin(X, np.unique(classes))
        self.loss_curve_.append(self._pass(self._encode(X, y)))
        self.n_iter_ += 1
        self._show()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, (N, C)."""
        return self._predict_columns(X)["probability"][:, : len(self.classes_)]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]


class MLPRegressor(MultiOutputMixin, RegressorMixin, _MLP):
    """Multilayer perceptron for values; parameters as in scikit-learn, plus `device`.

    Example:
        >>> model = MLPRegressor((16,), random_state=0, learning_rate_init=0.05, max_iter=300)
        >>> model = model.fit([[0.0], [1.0]], [1.0, 3.0])
        >>> abs(model.predict([[1.0]]) - 3.0).item() < 0.2
        True
    """

    _parameter_constraints = constraints(sklearn.neural_network.MLPRegressor, **_OURS)

    def _values(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = self._rows_and_targets(X, y, reset=reset, multi_output=True, y_numeric=True)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _targets(self, X: np.ndarray, y: Any) -> Batch:
        y = np.ascontiguousarray(y, dtype=X.dtype)
        return self.model_.as_batch(Batch(torch.from_numpy(X), torch.from_numpy(y)))

    def _begin(self, X: np.ndarray, y: np.ndarray) -> None:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        self._start(X, DataSpec("tabular", (X.shape[1],), "value", num_targets=outputs, dtype=str(X.dtype)))

    def fit(self, X: Any, y: Any) -> MLPRegressor:
        """Fit to rows X (N, F) and values y (N,) or (N, K)."""
        self._check_parameters()
        X, y = self._values(X, y, reset=True)
        self._begin(X, y)
        self._train(self._targets(X, y))
        return self

    def partial_fit(self, X: Any, y: Any) -> MLPRegressor:
        """Take one pass of steps over rows."""
        self._check_parameters()
        first = not hasattr(self, "model_")
        X, y = self._values(X, y, reset=first)
        if first:
            self._begin(X, y)
        self.loss_curve_.append(self._pass(self._targets(X, y)))
        self.n_iter_ += 1
        self._show()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,) or (N, K)."""
        return self._predict_columns(X)["prediction"]
