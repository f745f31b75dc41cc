"""Compiled moments and densities of classes against the torch form: shapes, strides, weights, threads, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.kernels.gaussian import available, class_densities, class_moments
from zoo.models.naive_bayes import gaussian
from zoo.models.naive_bayes.gaussian import Gaussian, gaussian_log_density

VIEWS = {
    "plain": torch.clone,
    "strided": lambda x: torch.stack([x, -x], x.ndim)[..., 0],
    "transposed": lambda x: x.T.contiguous().T,
    "expanded": lambda x: x[:1].expand_as(x),
}
SIZES = [(1, 1, 1), (2, 3, 2), (31, 16, 5), (300, 7, 3), (257, 40, 2), (67, 1030, 9), (4001, 5, 700)]


def close(found: Tensor, expected: Tensor, scale: float, share: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=share, atol=share * scale)


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_and_densities_are_those_in_torch(
    compiled: str, dtype: torch.dtype, sizes: tuple[int, int, int], view: str
) -> None:
    rows, features, classes = sizes
    for far, weighted in ((0.0, False), (1e6, True)):
        x = VIEWS[view]((torch.randn(rows, features, dtype=torch.float64) + far).to(dtype))
        y = torch.randint(0, classes, (rows,))
        weight = torch.rand(rows, dtype=torch.float64) * (torch.arange(rows) % 3 > 0) if weighted else None
        count, mean, rest, scatter = class_moments(x, y, weight, classes)
        expected = gaussian.class_moments(x.double(), y, classes, weight)
        close(count, expected[0], 1.0)
        close(mean + rest, expected[1] + expected[2], 1 + far, 1e-15)
        close(scatter, expected[3], 1e-12 * far**2 + 1, 1e-12)
        variance = scatter / count.clamp_min(1).unsqueeze(1) + 1.0
        variance[0] = torch.inf  # a class without rows
        found = Gaussian().scores(x, {"mean": mean, "variance": variance})
        expected = gaussian_log_density(x.double(), mean, variance)
        assert found.shape == (rows, classes)
        assert bool(found[:, 0].isneginf().all())
        close(found[:, 1:], expected[:, 1:], 1.0)


def test_the_number_of_threads_changes_no_bit(compiled: str) -> None:
    x, y = torch.randn(60_001, 70) + 5, torch.arange(60_001) % 7
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            moments = class_moments(x, y, None, 7)
            found.append((*moments, class_densities(x, moments[1], moments[3].reciprocal(), moments[0])))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_rows_of_extreme_size(compiled: str) -> None:
    y = torch.arange(40) % 2
    for scale in (1e-150, 1e150):
        x = scale * torch.randn(40, 3, dtype=torch.float64)
        close(class_moments(x, y, None, 2)[3], gaussian.class_moments(x, y, 2)[3], 0.0)
    x = torch.ones(4, 2)
    x[1, 0] = torch.nan
    assert class_moments(x, torch.tensor([0, 1, 0, 1]), None, 2)[3].isnan().tolist() == [[False] * 2, [True, False]]
    none = class_moments(x[:0], y[:0], None, 2), class_moments(x[:, :0], torch.tensor([0, 1, 1, 1]), None, 2)
    assert not any(part.any() for part in none[0])
    assert none[1][0].tolist() == [1.0, 3.0]
    assert class_densities(x[:0], *[torch.ones(3, 2).double()] * 2, torch.ones(3).double()).shape == (0, 3)
    assert (
        class_densities(x[:, :0], *[torch.ones(3, 0).double()] * 2, torch.ones(3).double()).tolist() == [[-0.5] * 3] * 4
    )


def test_the_operators_are_what_torch_expects(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), torch.rand(5).double()
    mean, precision, constant = torch.randn(2, 3).double(), torch.rand(2, 3).double(), torch.rand(2).double()
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.class_moments.default, (x, y, weight, 2), test_utils=utilities)
    torch.library.opcheck(torch.ops.zoo.class_densities.default, (x, mean, precision, constant), test_utils=utilities)
    for wrong in ((x.half(), y, weight, 2), (x, y.int(), weight, 2), (x, y[1:], weight, 2), (x, y, weight[1:], 2)):
        with pytest.raises(RuntimeError, match="zoo::class_moments: inputs"):
            class_moments(*wrong)
    for strange in (y - 1, y + 1):
        with pytest.raises(RuntimeError, match=r"\d rows are of no class from 0 to 1"):
            class_moments(x, strange, weight, 2)
    for wrong in ((x, mean.float(), precision, constant), (x[:, 1:], mean, precision, constant)):
        with pytest.raises(RuntimeError, match="zoo::class_densities: inputs"):
            class_densities(*wrong)
    assert not available(x.requires_grad_())
    x = x.detach()
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert not available(x)
    with pytest.raises(RuntimeError, match="needs the compiled kernels"):
        class_moments(x, y, weight, 2)


def test_nothing_is_read_or_written_out_of_bounds(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_gaussian import SIZES, VIEWS
from zoo.kernels.gaussian import class_densities, class_moments
for rows, features, classes in (*SIZES, (70_000, 65, 3), (0, 3, 2), (3, 0, 2)):
    for dtype in (torch.float32, torch.float64):
        for view in VIEWS.values() if rows and features else (torch.clone,):
            x, y = view(torch.randn(rows, features).to(dtype)), torch.randint(0, classes, (rows,))
            for weight in (None, torch.rand(rows).double()):
                count, mean, _, scatter = class_moments(x, y, weight, classes)
            class_densities(x, mean, scatter, count)
"""
    sanitized(script)
