"""The compiled hashes of rows beside the form in torch operations: the same bits, whatever the rows are."""

from __future__ import annotations

import pytest
import torch

from zoo import kernels as all_kernels
from zoo.kernels.hashing import hash_rows
from zoo.numerics.hashing import content_hash


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 0), (7, 17), (100, 2), (33, 64)], ids=str)
def test_the_kernel_is_the_torch_form(
    kernels: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    x = torch.randn(shape, dtype=dtype)
    x[::3] = x[::3].round()
    for value in (0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40, 3e38):
        x.view(-1)[len(x) // 2 :: 5] = value
        views = x, torch.stack([x, -x], 2)[..., 0], x.T.contiguous().T, x[:1].expand(shape[0] and 4, -1)
        for view in views:
            found = content_hash(view), content_hash(view, view.double())
            monkeypatch.setenv("ZOO_KERNELS", "0")
            expected = content_hash(view), content_hash(view, view.double())
            monkeypatch.setenv("ZOO_KERNELS", kernels)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_operator_is_what_torch_expects(kernels: str) -> None:
    x, factors = torch.randn(4, 3), torch.arange(3)
    if all_kernels.status().variant is None:
        with pytest.raises(RuntimeError, match="needs the compiled kernels"):
            hash_rows(x, factors, True)
        return
    torch.library.opcheck(torch.ops.zoo.hash_rows, (x, factors, True), test_utils=("test_schema", "test_faketensor"))
    for wrong in ((x[0], factors), (x.half(), factors), (x, factors[1:]), (x, factors.float())):
        with pytest.raises(RuntimeError, match="zoo::hash_rows"):
            hash_rows(*wrong, True)
