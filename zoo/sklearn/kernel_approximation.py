"""Nystroem and RBFSampler under scikit-learn's names."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.kernel_approximation
import torch
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics.pairwise import KERNEL_PARAMS, pairwise_kernels
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from zoo.models.svm.approximation import fourier_features, normalization
from zoo.models.svm.kernels import KERNELS, Kernel, gamma_of
from zoo.sklearn.base import ZooEstimator, constraints
from zoo.sklearn.linear import _blocks, _tensor
from zoo.sklearn.rows import validate_data

__all__ = ["Nystroem", "RBFSampler"]


class _FeatureMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ZooEstimator):
    """What both share: rows dense or sparse, features in their floating type, block by block."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_rows(self, X: Any, *, reset: bool) -> Any:
        return validate_data(self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32], order="C")


class RBFSampler(_FeatureMap):
    """Random Fourier features: waves whose inner products come near the RBF kernel.

    Args:
        gamma: γ of the kernel, or `scale` for 1 / (F · Var(X)).
        n_components: M, how many features.
        random_state: of the draws, which are scikit-learn's own.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> RBFSampler(n_components=3, random_state=0).fit_transform([[0.0, 1.0], [1.0, 0.0]]).shape
        (2, 3)
    """

    _parameter_constraints = constraints(sklearn.kernel_approximation.RBFSampler)

    def __init__(
        self, *, gamma: Any = 1.0, n_components: int = 100, random_state: Any = None, device: str = "cpu"
    ) -> None:
        self.gamma, self.n_components, self.random_state, self.device = gamma, n_components, random_state, device

    def fit(self, X: Any, y: Any = None) -> RBFSampler:
        """Draw frequencies and phases for rows X (N, F)."""
        self._check_parameters()
        X, draw = self._check_rows(X, reset=True), check_random_state(self.random_state)
        if isinstance(self.gamma, str) and sparse.issparse(X):
            variance = X.multiply(X).mean() - X.mean() ** 2
            gamma = 1 / (X.shape[1] * variance) if variance else 1.0
        else:
            gamma = gamma_of(self.gamma, _tensor(X) if not sparse.issparse(X) else torch.empty(0))
        frequencies = (2.0 * gamma) ** 0.5 * draw.normal(size=(X.shape[1], self.n_components))
        phases = draw.uniform(0, 2 * np.pi, size=self.n_components)
        self.random_weights_, self.random_offset_ = (a.astype(X.dtype, copy=False) for a in (frequencies, phases))
        self._n_features_out = self.n_components
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return features, (N, M)."""
        check_is_fitted(self)
        X, device = self._check_rows(X, reset=False), self._device()
        weights, offset = (_tensor(a).to(device) for a in (self.random_weights_, self.random_offset_))
        parts = [fourier_features(x.to(device, weights.dtype), weights, offset) for _, x in _blocks(X)]
        return torch.cat(parts).cpu().numpy()


class Nystroem(_FeatureMap):
    """Features of a kernel by some of the rows, which stand for all.

    Args:
        kernel: a name of scikit-learn's pairwise kernels, `precomputed`, or a function of two rows.
        gamma: γ of the kernel; None is its own default.
        coef0: of `poly` and `sigmoid`.
        degree: of `poly`.
        kernel_params: arguments of a function.
        n_components: M, how many rows.
        random_state: of the draw, which is scikit-learn's own.
        n_jobs: changes nothing: threads are torch's.
        device: `cpu`, `cuda` or `auto`.

    Example:
        >>> Nystroem(n_components=2, random_state=0).fit_transform([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).shape
        (3, 2)
    """

    _parameter_constraints = constraints(sklearn.kernel_approximation.Nystroem)

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        n_components: int = 100,
        random_state: Any = None,
        n_jobs: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.kernel, self.gamma, self.coef0, self.degree = kernel, gamma, coef0, degree
        self.kernel_params, self.n_components, self.random_state = kernel_params, n_components, random_state
        self.n_jobs, self.device = n_jobs, device

    def fit(self, X: Any, y: Any = None) -> Nystroem:
        """Draw rows of X (N, F) and take the square root of their kernel."""
        self._check_parameters()
        X, draw = self._check_rows(X, reset=True), check_random_state(self.random_state)
        size = min(X.shape[0], self.n_components)
        if size < self.n_components:
            warnings.warn(
                f"n_components={self.n_components} is above the number of rows: all {size} stand for themselves, "
                "and the whole kernel is computed.",
                stacklevel=2,
            )
        chosen = draw.permutation(X.shape[0])[:size]
        basis = X[chosen]
        kernel = basis[:, chosen] if self.kernel == "precomputed" else self._kernel(basis, basis)
        root = normalization(torch.from_numpy(np.array(kernel, dtype=X.dtype)).to(self._device()))
        self.normalization_ = root.cpu().numpy()
        self.components_, self.component_indices_ = basis, chosen
        self._n_features_out = size
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return features, (N, M)."""
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        kernel = X[:, self.component_indices_] if self.kernel == "precomputed" else self._kernel(X, self.components_)
        root = _tensor(self.normalization_).to(self._device())
        values = torch.from_numpy(np.array(kernel, dtype=self.normalization_.dtype)).to(root.device)
        return (values @ root.T).cpu().numpy()

    def _kernel(self, a: Any, b: Any) -> np.ndarray:
        """The kernel of rows with the chosen ones: the zoo's own, or scikit-learn's for others and functions."""
        options = dict(self.kernel_params or {})
        if callable(self.kernel):
            if any(getattr(self, name) is not None for name in ("gamma", "coef0", "degree")):
                raise ValueError(
                    "Don't pass gamma, coef0 or degree to Nystroem if using a callable or precomputed kernel"
                )
            return pairwise_kernels(a, b, metric=self.kernel, filter_params=True, **options)
        own = {name: getattr(self, name) for name in KERNEL_PARAMS[self.kernel] if getattr(self, name) is not None}
        if self.kernel not in KERNELS or options:
            return pairwise_kernels(a, b, metric=self.kernel, filter_params=True, **{**options, **own})
        kernel = Kernel(
            self.kernel,
            1 / a.shape[1] if self.gamma is None else self.gamma,
            3 if self.degree is None else self.degree,
            1.0 if self.coef0 is None else self.coef0,
        )
        device = self._device()
        basis = _tensor(b.toarray() if sparse.issparse(b) else np.ascontiguousarray(b)).to(device)
        return torch.cat([kernel(x.to(device, basis.dtype), basis) for _, x in _blocks(a)]).cpu().numpy()
