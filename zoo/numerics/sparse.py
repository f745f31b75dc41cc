"""Sparse matrices as tensors."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["sparse_rows"]


def sparse_rows(crow: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a sparse matrix (CSR) from the starts of its rows, and the columns and values of what is stored.

    >>> sparse_rows(torch.tensor([0, 1, 1]), torch.tensor([2]), torch.tensor([5.0]), (2, 3)).to_dense()
    tensor([[0., 0., 5.],
            [0., 0., 0.]])
    """
    with warnings.catch_warnings():  # torch says of the layout that it is in beta; products are tested
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(crow, columns, values, shape, check_invariants=False)
