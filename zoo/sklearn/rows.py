"""Rows as they come to the estimators, dense or sparse, as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

__all__ = ["dense_blocks", "tensor_of"]

BLOCK = 2**22  # numbers of a sparse matrix that are made dense at a time


def tensor_of(array: np.ndarray) -> Tensor:
    """The array as a tensor; torch has no read-only ones and no negative strides."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def dense_blocks(X: Any) -> Iterator[tuple[slice, Tensor]]:
    """Dense rows of a matrix, all at once or some of a sparse one at a time, and which they are."""
    if not sparse.issparse(X):
        yield slice(0, len(X)), tensor_of(X)
        return
    step = max(1, BLOCK // X.shape[1])
    for start in range(0, X.shape[0], step):
        rows = slice(start, min(start + step, X.shape[0]))
        yield rows, torch.from_numpy(X[rows].toarray())
