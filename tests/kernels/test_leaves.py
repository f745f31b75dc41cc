"""The leaves that rows come to, compiled and in torch operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo import kernels
from zoo.kernels import leaves as compiled
from zoo.models.trees.trees import Trees, find_leaves

COMPILED = list(kernels.runnable())
BEST_OR_SLOW = [COMPILED[0], *(pytest.param(variant, marks=pytest.mark.slow) for variant in COMPILED[1:])]


def a_forest(seed: int) -> tuple[Trees, Tensor]:
    """Trees of any shape, and rows, some of whose values are thresholds, zeros, missing or infinite."""
    make = torch.Generator().manual_seed(seed)
    number, features = int(torch.randint(1, 6, (), generator=make)), int(torch.randint(1, 9, (), generator=make))
    left, root = [], []
    for _ in range(number):
        root.append(len(left))
        left.append(-1)
        for node in range(root[-1], root[-1] + int(torch.randint(0, 40, (), generator=make))):
            if node < len(left) and torch.rand((), generator=make) < 0.8:
                left[node] = len(left)
                left += [-1, -1]
    size = len(left)
    inner = torch.tensor(left) >= 0
    threshold = torch.randn(size, generator=make, dtype=torch.float64).round(decimals=1)
    none = torch.zeros(size)
    trees = Trees(
        torch.tensor(root), torch.where(inner, torch.randint(features, (size,), generator=make), -1), threshold,
        torch.rand(size, generator=make) < 0.5, torch.tensor(left), none.unsqueeze(1), none, none, none.long(),
        none.long(), torch.zeros(size, 0, dtype=torch.bool), torch.zeros(features, 0, dtype=torch.float64),
    )  # fmt: skip
    x = torch.randn(1 + seed % 70, features, generator=make, dtype=torch.float64).round(decimals=1)
    for value in (0.0, 0.0, torch.nan, torch.inf, -torch.inf):
        x[torch.rand(x.shape, generator=make) < 0.2] = value
    return trees, x


def both(trees: Trees, x: Tensor, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", variant)
    ours = find_leaves(trees, x)
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert not compiled.available(x)
    assert torch.equal(ours, find_leaves(trees, x))


@pytest.mark.parametrize("variant", BEST_OR_SLOW)
def test_the_kernel_finds_the_leaves_of_the_torch_form(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both precisions, of strided, repeated, single, missing and sparse rows."""
    for seed in range(25):
        trees, x = a_forest(seed)
        wide = torch.full((2 * x.shape[1], len(x)), torch.nan, dtype=torch.float64).T
        wide[:, ::2] = x
        for rows in (x, x.float(), wide[:, ::2], x[:1].expand(5, -1), x[:0], x[:0].float()):
            both(trees, rows, variant, monkeypatch)
        for rows in (x, x[:0], x * 0, x * (torch.arange(len(x)) % 3 == 0).unsqueeze(1)):
            both(trees, rows.to_sparse_csr(), variant, monkeypatch)
    empty = trees._replace(left=trees.left * 0 - 1, feature=trees.feature * 0 - 1)
    both(empty, x[:, :0], variant, monkeypatch)


def test_what_does_not_fit_is_named() -> None:
    trees, x = a_forest(3)
    if not compiled.available(x):
        pytest.skip("no kernel")
    good = [x, None, None, x.shape[1], trees.root, trees.feature, trees.threshold, trees.missing_left, trees.left]
    compiled.find_leaves(*good)
    starts, columns = torch.tensor([0, 1, 1]), torch.zeros(1, dtype=torch.int64)
    sparse = [x[0, :1], starts, columns, *good[3:]]
    compiled.find_leaves(*sparse)
    for call, place, wrong, message in (
        (good, 0, x.int(), "x must be float64"), (good, 3, x.shape[1] + 1, "x must be"),
        (good, 4, trees.root - 1, "roots out of range"), (good, 5, trees.feature + 9, "features out of range"),
        (good, 6, trees.threshold.float(), "threshold must be"), (good, 8, trees.left * 0, "nodes or features"),
        (good, 8, torch.where(trees.left >= 0, len(trees.left) - 1, -1), "nodes or features"),
        (sparse, 1, starts + 1, "sparse rows"), (sparse, 1, starts.flip(0), "sparse rows"),
        (sparse, 2, columns + 9, "sparse rows"), (sparse, 2, columns - 1, "sparse rows"),
        (sparse, 0, x[0, :1].float(), "x must be float64"), (sparse, 2, None, "x must be"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"zoo::find_leaves: .*{message}"):
            compiled.find_leaves(*[wrong if i == place else value for i, value in enumerate(call)])


def test_the_operator_is_traced() -> None:
    trees, x = a_forest(3)
    if not compiled.available(x):
        pytest.skip("no kernel")
    arguments = (x, None, None, x.shape[1], trees.root, trees.feature, trees.threshold, trees.missing_left, trees.left)
    torch.library.opcheck(torch.ops.zoo.find_leaves, arguments, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_leaves import a_forest, find_leaves
for threads in (1, 3):
    torch.set_num_threads(threads)
    for seed in range(200):
        trees, x = a_forest(seed)
        sparse = x.nan_to_num(0).to_sparse_csr()
        for rows in (x, x.float(), x.repeat(3000 if seed == 5 else 1, 1), sparse, (x[:0] * 0).to_sparse_csr(), x[:0]):
            find_leaves(trees, rows)
"""
    sanitized(script)
