"""Sparse matrices beside dense ones."""

from __future__ import annotations

import pytest
import torch

from zoo.numerics.hashing import content_hash
from zoo.numerics.sparse import column_squares, dense_rows, linear, stored_rows, take_rows


def matrix(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    make = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=make, dtype=dtype) * (torch.rand(rows, columns, generator=make) > 0.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (1, 1), (9, 4), (40, 200)])
def test_rows_products_and_hashes_are_those_of_the_dense_matrix(rows, columns, dtype) -> None:
    x = matrix(rows, columns, dtype)
    sparse, make = x.to_sparse_csr(), torch.Generator().manual_seed(1)
    index = torch.randint(rows, (3 * rows,), generator=make) if rows else torch.zeros(0, dtype=torch.long)
    for some in (index, index[:0], torch.arange(rows) % 3 == 1, slice(None), slice(2, 7), slice(5, 2), slice(0, -1)):
        assert torch.equal(dense_rows(take_rows(sparse, some)), x[some])
    assert torch.equal(stored_rows(sparse), x.nonzero()[:, 0])
    weight = torch.randn(5, columns, generator=make, dtype=dtype)
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    for bias in (None, weight[:, 0]):
        expected = torch.nn.functional.linear(x, weight, bias)
        torch.testing.assert_close(linear(sparse, weight, bias), expected, rtol=bound, atol=bound)
    assert torch.equal(content_hash(sparse), content_hash(x))
    torch.testing.assert_close(column_squares(sparse), column_squares(x), rtol=bound, atol=bound)
