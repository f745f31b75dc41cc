"""Rows as they come to the estimators, dense or sparse: checked, and as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import validation
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

__all__ = ["classes_of", "column_of", "dense_blocks", "tensor_of", "validate_data"]

BLOCK = 2**22  # numbers of a sparse matrix that are made dense at a time
MANY = 2**20  # numbers, from which on a product is worth its threads: it takes half as long as a sum

# What may be asked of rows of which `_is_plain` and `_is_plain_target` know that they have it.
_KNOWN = {
    "dtype", "order", "accept_sparse", "accept_large_sparse", "ensure_all_finite", "ensure_min_samples", "multi_output",
    "y_numeric",
}  # fmt: skip


def validate_data(estimator: Any, X: Any, y: Any = "no_validation", *, reset: bool = True, **checks: Any) -> Any:
    """Return checked rows, and targets if given, as scikit-learn's function of that name does.

    Arrays that it would return as they are, or in a wider type, do not go through it: what it asks of them takes as
    long as a small fit.
    """
    X, y = (_as_array(part) if isinstance(part, Tensor) else part for part in (X, y))
    alone = isinstance(y, str) and y == "no_validation"
    plain = _KNOWN.issuperset(checks) and _is_plain(X, **checks) and (alone or _is_plain_target(y, len(X)))
    if not plain or hasattr(estimator, "feature_names_in_"):
        return validation.validate_data(estimator, X, y, reset=reset, **checks)
    if reset:
        estimator.n_features_in_ = X.shape[1]
    elif getattr(estimator, "n_features_in_", None) != X.shape[1]:
        return validation.validate_data(estimator, X, y, reset=reset, **checks)
    if isinstance(wanted := checks.get("dtype"), type):
        X = X.astype(wanted, copy=False)
    return X if alone else (X, y)


def _as_array(tensor: Tensor) -> np.ndarray:
    """A tensor, with gradients and on a GPU too, as NumPy has it, which has no bfloat16."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _is_plain(
    X: Any, *, dtype: Any = "numeric", order: str | None = None, ensure_min_samples: int = 1, **_: Any
) -> bool:
    """Whether an array has the type (or one within it), layout and size asked for, and only finite numbers."""
    if type(X) is not np.ndarray or X.ndim != 2 or len(X) < ensure_min_samples or not X.shape[1]:
        return False
    typed = X.dtype in dtype if isinstance(dtype, (list, tuple)) else dtype == "numeric" or np.can_cast(X.dtype, dtype)
    return typed and X.dtype.kind == "f" and (order is None or X.flags.c_contiguous) and _is_finite(X)


def _is_plain_target(y: Any, number: int) -> bool:
    """Whether targets are an array of as many finite numbers."""
    if type(y) is not np.ndarray or y.shape != (number,) or not y.flags.c_contiguous:
        return False
    return y.dtype.kind in "biu" or (y.dtype.kind == "f" and _is_finite(y))


def _is_finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite numbers the sum is none, as that of their squares
        if array.size >= MANY and array.flags.forc:
            flat = array.ravel("K")
            return bool(np.isfinite(np.dot(flat, flat)))
        return bool(np.isfinite(array.sum()))  # that of finite ones may overflow: they are looked at one by one then


def classes_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes among targets (N,), ascending, and which of them each one is, (N,); values are refused."""
    whole = y.dtype.kind in "biu"  # of which scikit-learn has no more to say than that there are many
    if not whole:
        check_classification_targets(y)
    classes, codes = _counted(y) if whole and len(y) else np.unique(y, return_inverse=True)
    if whole and 2 * len(classes) > len(y):
        check_classification_targets(y)
    return classes, codes


def _counted(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `np.unique` says of whole numbers (N,), which are counted where they lie close together, and not sorted."""
    low, high = int(y.min()), int(y.max())
    if high - low > len(y) or y.dtype.kind == "b" or high >= 2**63:
        return np.unique(y, return_inverse=True)
    places = y.astype(np.int64) - low
    there = np.bincount(places) > 0
    if there.all():
        return (np.arange(len(there)) + low).astype(y.dtype), places
    return (there.nonzero()[0] + low).astype(y.dtype), (there.cumsum() - 1)[places]


def column_of(y: Any) -> np.ndarray:
    """Targets as one column (N,), as scikit-learn's `column_or_1d` gives them, which takes its time to return them."""
    plain = type(y) is np.ndarray and y.ndim == 1 and y.flags.c_contiguous
    return y if plain else validation.column_or_1d(y, warn=True)


def tensor_of(array: np.ndarray) -> Tensor:
    """The array as a tensor; torch has no read-only ones and no negative strides."""
    array = np.require(array, requirements=["C", "W"])
    # an axis of one number is contiguous in NumPy whatever its stride is
    return torch.from_numpy(array.copy() if any(stride < 0 for stride in array.strides) else array)


def dense_blocks(X: Any) -> Iterator[tuple[slice, Tensor]]:
    """Dense rows of a matrix, all at once or some of a sparse one at a time, and which they are."""
    if not sparse.issparse(X):
        yield slice(0, len(X)), tensor_of(X)
        return
    step = max(1, BLOCK // X.shape[1])
    for start in range(0, X.shape[0], step):
        rows = slice(start, min(start + step, X.shape[0]))
        yield rows, torch.from_numpy(X[rows].toarray())
