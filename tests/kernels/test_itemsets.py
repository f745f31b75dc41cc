"""The compiled counts and joins of itemsets beside those of plain Python and of torch operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import zoo.kernels
from zoo.kernels.itemsets import count_sets, join_sets
from zoo.models.apriori.itemsets import count_packed, join_itemsets


def some_sets(seed: int) -> tuple[Tensor, Tensor]:
    """Strings of bits and sets of their rows, in order or not, on both sides of the kernel's blocks and parts."""
    generator = torch.Generator().manual_seed(seed)
    items, words = (1, 3, 20)[seed % 3], (0, 1, 7, 511, 512, 513, 1100)[seed % 7]
    number, size = (0, 1, 63, 64, 65, 400)[seed % 6], (1, 2, 3, 5)[seed % 4]
    bits = torch.randint(-(2**63), 2**63 - 1, (items, words), generator=generator)
    bits |= torch.randint(-(2**63), 2**63 - 1, (items, words), generator=generator)
    sets = torch.randint(0, items, (number, size), generator=generator)
    return bits, sets if seed % 5 == 0 else torch.unique(sets, dim=0)


def plain_count(bits: Tensor, sets: Tensor) -> list[int]:
    strings = [[word & (2**64 - 1) for word in row] for row in bits.tolist()]
    counts = []
    for chosen in sets.tolist():
        both = strings[chosen[0]]
        for item in chosen[1:]:
            both = [a & b for a, b in zip(both, strings[item], strict=True)]
        counts.append(sum(word.bit_count() for word in both))
    return counts


def test_counts_are_those_of_a_plain_count(kernels: str) -> None:
    for seed in range(42):
        bits, sets = some_sets(seed)
        expected = plain_count(bits, sets) if len(sets) < 100 else count_packed(bits, sets).tolist()
        assert count_packed(bits, sets).tolist() == expected
        if kernels == "0":
            with pytest.raises(RuntimeError, match="needs the compiled kernels"):
                count_sets(bits, sets)
            continue
        assert count_sets(bits, sets).tolist() == expected
        wide = torch.stack([bits, ~bits], 2)[:, :, 0]
        assert count_sets(wide, sets.T.contiguous().T).tolist() == expected


def some_family(seed: int) -> Tensor:
    """Sets of two to five items in lexicographic order, more or fewer of all that there are."""
    generator = torch.Generator().manual_seed(seed)
    size, items = 2 + seed % 4, (6, 9, 12)[seed % 3]
    numbers = torch.randint(0, 2**40, (items,), generator=generator).unique()
    sets = torch.tensor(list(itertools.combinations(numbers.tolist(), size)), dtype=torch.int64).view(-1, size)
    return sets[torch.rand(len(sets), generator=generator) < (0.0, 0.3, 0.8, 1.0, 0.95)[seed % 5]]


def test_joins_are_all_sets_whose_subsets_are_there(kernels: str) -> None:
    for seed in range(60):
        sets = some_family(seed)
        known, size = {tuple(row) for row in sets.tolist()}, sets.shape[1]
        items = sorted({item for row in known for item in row})
        expected = [
            joined
            for joined in itertools.combinations(items, size + 1)
            if all(part in known for part in itertools.combinations(joined, size))
        ]
        assert join_itemsets(sets).tolist() == [list(row) for row in expected]
        pairs = sum(a[:-1] == b[:-1] for a, b in itertools.combinations(sorted(known), 2))
        if kernels != "0" and pairs:
            none, counted = join_sets(sets.T.contiguous().T, pairs - 1)
            assert int(counted) == pairs
            assert not len(none)
            assert join_sets(sets, pairs)[0].tolist() == [list(row) for row in expected]


def test_what_does_not_fit_is_named() -> None:
    if zoo.kernels.status().variant is None:
        pytest.skip("no kernel")
    bits, sets = torch.ones(2, 3, dtype=torch.int64), torch.tensor([[0, 1]])
    for wrong, message in (
        ((bits.int(), sets), "int64"), ((bits, sets.int()), "int64"), ((bits[0], sets), "M, W"),
        ((bits, sets[:, :0]), "some items"), ((bits, sets + 1), "no string"), ((bits, sets - 1), "no string"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"zoo::count_sets: .*{message}"):
            count_sets(*wrong)
    for wrong in (sets.int(), sets[:, :1], sets[0]):
        with pytest.raises(RuntimeError, match=r"zoo::join_sets: .*int64"):
            join_sets(wrong, 1)
    for operator, given in ((torch.ops.zoo.count_sets, (bits, sets)), (torch.ops.zoo.join_sets, (sets, 9))):
        torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
from test_itemsets import count_sets, join_sets, some_family, some_sets
for seed in range(200):
    count_sets(*some_sets(seed))
    join_sets(some_family(seed), 1 << 20)
"""
    sanitized(script)
