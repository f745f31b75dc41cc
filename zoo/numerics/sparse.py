"""Matrices most of whose numbers are 0, as torch's tensors of compressed sparse rows (CSR), beside dense ones.

Letters: N rows, F features, K columns of a result, M stored numbers.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = [
    "as_rows",
    "column_spread",
    "column_squares",
    "dense_rows",
    "is_sparse",
    "linear",
    "sparse_rows",
    "stored",
    "stored_rows",
    "take_rows",
    "transposed",
]


def sparse_rows(crow: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a sparse matrix (CSR) from the starts of its rows, and the columns and values of what is stored.

    >>> sparse_rows(torch.tensor([0, 1, 1]), torch.tensor([2]), torch.tensor([5.0]), (2, 3)).to_dense()
    tensor([[0., 0., 5.],
            [0., 0., 0.]])
    """
    with warnings.catch_warnings():  # torch says of the layout that it is in beta; products are tested
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(crow, columns, values, shape, check_invariants=False)


def is_sparse(x: Tensor) -> bool:
    """Whether a tensor is a sparse matrix (CSR)."""
    return x.layout == torch.sparse_csr


def as_rows(x: Tensor) -> Tensor:
    """Return inputs (N, *shape) as rows (N, F); a sparse matrix is one already."""
    return x if is_sparse(x) else x.flatten(1)


def dense_rows(x: Tensor) -> Tensor:
    """Return a matrix with its zeros."""
    return x.to_dense() if is_sparse(x) else x


def stored(x: Tensor) -> Tensor:
    """Return the numbers of a matrix, of a sparse one those that are stored, (M,)."""
    return x.values() if is_sparse(x) else x


def stored_rows(x: Tensor) -> Tensor:
    """Return the row of each number that a sparse matrix stores, (M,).

    >>> stored_rows(sparse_rows(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), torch.ones(3), (2, 3)))
    tensor([0, 1, 1])
    """
    return torch.arange(len(x), device=x.device).repeat_interleave(x.crow_indices().diff())


def column_squares(x: Tensor) -> Tensor:
    """Return the sum of the squares of each column of a matrix, dense or sparse, (F,).

    >>> column_squares(torch.tensor([[1.0, 0.0], [2.0, 3.0]]).to_sparse_csr()).tolist()
    [5.0, 9.0]
    """
    if not is_sparse(x):
        return torch.linalg.vector_norm(x, dim=0).square()
    squares = x.values().square()
    return squares.new_zeros(x.shape[1]).index_add_(0, x.col_indices(), squares)


def column_spread(x: Tensor, middle: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return √Σ s (x − m)² of each column of a sparse matrix, (F,), from what it stores and how much it does not.

    Args:
        x: (N, F).
        middle: m, (F,).
        weight: s of each row, (N,); one each by default.

    Example:
        >>> column_spread(torch.tensor([[1.0], [0.0]]).to_sparse_csr(), torch.tensor([4.0]))  # √((1 − 4)² + (0 − 4)²)
        tensor([5.])
    """
    columns, values = x.col_indices(), x.values()
    share = torch.ones_like(values) if weight is None else weight[stored_rows(x)]
    total = len(x) if weight is None else weight.sum()
    there = torch.zeros_like(middle).index_add_(0, columns, share)
    squares = torch.where(share > 0, share * (values - middle[columns]).square(), 0.0)
    return ((total - there).clamp_min_(0) * middle.square()).index_add_(0, columns, squares).sqrt_()


def take_rows(x: Tensor, index: Tensor | slice) -> Tensor:
    """Return some rows of a matrix: by their numbers, by which of them (bool), or a range.

    >>> x = sparse_rows(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), torch.tensor([5.0, 6.0, 7.0]), (2, 3))
    >>> take_rows(x, torch.tensor([1, 0, 1])).to_dense()
    tensor([[6., 7., 0.],
            [0., 0., 5.],
            [6., 7., 0.]])
    """
    if not is_sparse(x):
        return x[index]
    crow = x.crow_indices()
    lengths, starts = crow.diff()[index], crow[:-1][index]
    ends = lengths.cumsum(0)
    places = torch.arange(int(ends[-1]) if len(ends) else 0, device=x.device)
    places += (starts - ends + lengths).repeat_interleave(lengths)
    crow = torch.cat([ends.new_zeros(1), ends])
    return sparse_rows(crow, x.col_indices()[places], x.values()[places], (len(lengths), x.shape[1]))


def transposed(x: Tensor) -> Tensor:
    """Return the transpose of a sparse matrix (N, F) as sparse rows, (F, N).

    >>> transposed(torch.tensor([[1.0, 0.0], [2.0, 3.0]]).to_sparse_csr()).to_dense()
    tensor([[1., 2.],
            [0., 3.]])
    """
    columns = x.col_indices()
    order = columns.argsort(stable=True)
    counts = torch.bincount(columns, minlength=x.shape[1])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return sparse_rows(crow, stored_rows(x)[order], x.values()[order], (x.shape[1], x.shape[0]))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b of rows (N, F), dense or sparse, with weights (K, F), (N, K)."""
    if not is_sparse(x):
        return torch.nn.functional.linear(x, weight, bias)
    product = x @ weight.T
    return product if bias is None else product + bias
