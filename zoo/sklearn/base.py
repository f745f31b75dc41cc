"""What the estimators share: a model of the zoo, fitted without a trainer's start-up where it streams."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged
from zoo.models.base import StreamingModel, ZooModel
from zoo.numerics.devices import has_gpu
from zoo.optimizers import Recipe
from zoo.registry import make_model
from zoo.sklearn.differences import check_refused
from zoo.sklearn.rows import tensor_of, validate_data

__all__ = ["ZooEstimator", "constraints", "convergence_warnings", "warn_unless"]


def constraints(peer: type[BaseEstimator], **own: list[Any]) -> dict[str, list[Any]]:
    """Return what scikit-learn demands of the parameters of its class, for `_parameter_constraints`.

    Args:
        peer: scikit-learn's class.
        **own: constraints of parameters that it lacks, or that take more here.

    Example:
        >>> from sklearn.linear_model import LinearRegression
        >>> sorted(constraints(LinearRegression))
        ['copy_X', 'device', 'fit_intercept', 'n_jobs', 'positive', 'tol']
    """
    return {**peer._parameter_constraints, "device": [StrOptions({"cpu", "cuda", "auto"})], **own}  # type: ignore[attr-defined]


@contextlib.contextmanager
def convergence_warnings(name: str, *, others: bool = True) -> Iterator[None]:
    """Say in scikit-learn's words, and once, that a fit within the block has not converged.

    Args:
        name: of the estimator.
        others: whether what else the model warns of is passed on.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if others and not issubclass(warning.category, NotConverged):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any(issubclass(warning.category, NotConverged) for warning in caught):
        warn_unless(False, name, stacklevel=5)


def warn_unless(converged: bool, name: str, stacklevel: int = 3) -> None:
    """Warn as scikit-learn does that an estimator has not converged."""
    if not converged:
        message = f"{name} did not converge within max_iter: raise it, or scale the data."
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)


class ZooEstimator(BaseEstimator):
    """Base of the estimators: a subclass says which model it is, and what of the fitted model it shows.

    Args of all subclasses, beside scikit-learn's own:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
    """

    model_: Any
    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_parameter_constraints" in vars(cls):  # of scikit-learn's parameters those that there are
            known = inspect.signature(cls).parameters
            cls._parameter_constraints = {k: v for k, v in cls._parameter_constraints.items() if k in known}

    def _check_parameters(self) -> None:
        """Raise scikit-learn's own error for a parameter of a wrong type or value, or say why one is refused."""
        if sklearn.get_config()["skip_parameter_validation"]:
            return
        name, defaults = type(self).__name__, _defaults(type(self))  # type: ignore[arg-type]
        given = {key: value for key, default in defaults.items() if (value := getattr(self, key)) is not default}
        validate_parameter_constraints(self._parameter_constraints, given, caller_name=name)
        check_refused(name, given, defaults)

    def _rows(self, X: Any, *, reset: bool, **options: Any) -> np.ndarray:
        """Return checked rows as an array; `reset` while fitting."""
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], order="C", **options)

    def _rows_and_targets(self, X: Any, y: Any, *, reset: bool, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return checked rows and targets; missing targets raise as scikit-learn words it."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        return validate_data(self, X, y, reset=reset, dtype=[np.float64, np.float32], order="C", **options)

    def _weight(self, sample_weight: Any, X: Any, **checks: Any) -> np.ndarray | None:
        return None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64, **checks)

    def _device(self) -> str:
        device = getattr(self, "device", "cpu")
        if device == "auto":
            return "cuda" if has_gpu() else "cpu"
        return device

    def _fit_streaming(
        self,
        model: ZooModel,
        X: np.ndarray,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        *,
        num_classes: int | None = None,
        recipe: Recipe | None = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """Fit a streaming model in batches (or one of all rows), keep it as `model_`, return its last values."""
        assert isinstance(model, StreamingModel)
        if recipe is not None:
            model.recipe = recipe
        self._build(model, X, y, num_classes)
        whole = self._batch(model, X, y, weight)
        starts = range(0, len(X), batch_size or len(X))
        parts = [Batch(*(None if t is None else t[i : i + starts.step] for t in whole)) for i in starts]  # type: ignore[arg-type]
        with convergence_warnings(type(self).__name__):
            values = model.fit_batches(lambda: parts)
        self.model_ = model.eval()
        return values

    def _build(
        self, model: ZooModel, X: np.ndarray, y: np.ndarray | None = None, num_classes: int | None = None
    ) -> Any:
        """Create the model's parameters for such rows and targets, on the device."""
        target: Any = None if y is None else "class" if num_classes else "value"
        num_targets = 1 if y is None or y.ndim == 1 else y.shape[1]
        spec = DataSpec(
            "tabular", (X.shape[1],), target, num_classes=num_classes, num_targets=num_targets, dtype=str(X.dtype)
        )
        device = self._device()
        return built(model, spec) if device == "cpu" else built(model, spec).to(device)

    @staticmethod
    def _batch(model: ZooModel, X: np.ndarray, y: np.ndarray | None = None, weight: np.ndarray | None = None) -> Batch:
        """Return rows, targets and weights as one batch of the model's type and device."""
        tensors = [None if a is None else tensor_of(a) for a in (X, y, weight)]
        return model.as_batch(Batch(*tensors))  # type: ignore[arg-type]

    def _predict_columns(self, X: Any) -> dict[str, np.ndarray]:
        """Return what the fitted model predicts for rows, as arrays."""
        check_is_fitted(self)
        X = self._rows(X, reset=False)
        columns = self.model_.predict_columns(X, batch_size=max(1, len(X)))
        return {name: values.cpu().numpy() for name, values in columns.items()}


@functools.cache
def _defaults(estimator: Any) -> dict[str, Any]:
    """The parameters of an estimator, in the order of their names, with their defaults, which need no check."""
    return {name: p.default for name, p in sorted(inspect.signature(estimator).parameters.items())}


def create(name: str, **hparams: Any) -> ZooModel:
    """Create a model of the zoo, with all that scikit-learn's estimator has, of use or not."""
    return make_model(name, **hparams)


def built(model: Any, spec: DataSpec) -> Any:
    """Create the model's parameters for such rows; that they start at random moves no generator of the user's."""
    with torch.random.fork_rng(devices=[]):
        return model.build(spec)
