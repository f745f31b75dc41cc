"""The compiled counts of features in rows beside a plain count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import zoo.kernels
from zoo.kernels.row_counts import row_counts

COMPILED = zoo.kernels.runnable()


def some_tokens(seed: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Tokens, lengths, the feature of each token and F, on both sides of the kernel's blocks of 64 and 4,096."""
    generator = torch.Generator().manual_seed(seed)
    num_features = (1, 2, 63, 64, 65, 127, 4095, 4096, 4097, 70_001)[seed % 10]
    lengths = torch.randint(0, (3, 40, 900)[seed % 3], ((0, 1, 7, 33)[seed % 4],), generator=generator)
    features = torch.randint(-num_features // 3 - 1, num_features, (1 + seed * 13,), generator=generator)
    features[-1] = num_features - 1
    tokens = torch.randint(0, len(features), (int(lengths.sum()),), generator=generator)
    return tokens.int(), lengths, features.int(), num_features


def test_counts_are_those_of_a_plain_count(kernels: str) -> None:
    for seed in range(40):
        tokens, lengths, features, num_features = some_tokens(seed)
        if kernels == "0":
            with pytest.raises(RuntimeError, match="needs the compiled kernels"):
                row_counts(tokens, lengths, features, num_features)
            return
        wide = torch.stack([tokens, -tokens], 1)[:, 0]
        for given in (tokens, wide):
            crow, columns, counts = row_counts(given, lengths, features, num_features)
            assert crow.tolist()[0] == 0
            assert int(crow[-1]) == len(columns) == len(counts)
            for row, part in enumerate(tokens.split(lengths.tolist())):
                found = features[part.long()]
                expected = found[found >= 0].long().unique(return_counts=True)
                mine = slice(int(crow[row]), int(crow[row + 1]))
                assert torch.equal(columns[mine], expected[0])
                assert torch.equal(counts[mine], expected[1].float())


def test_what_does_not_fit_is_named() -> None:
    if zoo.kernels.status().variant is None:
        pytest.skip("no kernel")
    good = torch.tensor([0, 1, 1]).int(), torch.tensor([2, 1]), torch.tensor([-1, 3]).int(), 4
    row_counts(*good)
    for place, wrong, message in (
        (0, good[0].long(), "int32"), (0, good[0] + 1, "out of range"), (0, good[0] - 1, "out of range"),
        (1, good[1] + 1, "add up"), (1, torch.tensor([4, -1]), "add up"), (1, good[1].int(), "int64"),
        (2, good[2].float(), "int32"), (2, good[2] + 1, "out of range"), (3, 3, "out of range"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"zoo::row_counts: .*{message}"):
            row_counts(*[wrong if i == place else value for i, value in enumerate(good)])
    torch.library.opcheck(torch.ops.zoo.row_counts, good, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_row_counts import row_counts, some_tokens
for seed in range(200):
    row_counts(*some_tokens(seed))
"""
    sanitized(script)
