"""Rounds of boosting by one call beside the form in torch operations: the same trees and outputs, to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo import kernels as all_kernels
from zoo.kernels.rounds import boost_rounds
from zoo.models.trees.bins import code_rows
from zoo.models.trees.boosting import Rounds, Rows, Settings, boost
from zoo.models.trees.losses import Loss
from zoo.models.trees.nodes import Limits
from zoo.models.trees.sparse_codes import code_sparse_rows
from zoo.models.trees.trees import joined
from zoo.numerics.hashing import content_hash

ROUNDS = 5


def a_case(seed: int) -> tuple[Rows, Loss, Settings, Tensor]:
    """Rows, a loss that the kernel knows, and settings, drawn."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 30, 211, 1500]), draw.choice([1, 3, 8])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64).round(decimals=draw.choice([0, 1, 9]))
    x[torch.rand(x.shape, generator=make) < draw.choice([0.0, 0.1])] = torch.nan
    kind = draw.choice(["dense", "wide", "categories", "sparse"])
    categorical = tuple(range(0, features, 2)) if kind == "categories" else ()
    x[:, list(categorical)] = x[:, list(categorical)].round() % 7
    num_bins = draw.choice([255, 7]) if kind == "categories" else None if kind == "wide" else draw.choice([255, 16])
    codes: Any
    if kind == "sparse":
        bins, codes = code_sparse_rows(x.nan_to_num().to_sparse_csr(), num_bins)
    else:
        bins, codes = code_rows(x, num_bins, categorical)
    name, outputs = draw.choice([("log_loss", 1), ("log_loss", 3), ("squared_error", 1)])
    noise = torch.randn(rows, generator=make, dtype=torch.float64)
    y = (x.nan_to_num()[:, 0] + noise) * 10.0 ** draw.choice([-200, 0, 5])
    if name == "log_loss":
        y = (y.sign() + 1 if outputs == 3 else y > 0).double()
    weight = torch.rand(rows, generator=make, dtype=torch.float64) * 10.0 ** draw.choice([-3, 0, 9])
    held_out = torch.rand(rows, generator=make) < draw.choice([0.0, 0.3])
    held_out[0] = False
    limits = Limits(
        max_depth=draw.choice([None, 2]), max_leaf_nodes=draw.choice([None, 2, 31]),
        max_features=draw.choice([features, max(1, features // 2)]),
    )  # fmt: skip
    settings = Settings(
        draw.choice([1.0, 0.1]), limits, draw.choice([1, 5]), draw.choice([0.0, 0.2]), draw.choice([0.0, 1.0]),
        draw.choice([1.0, 1.0, 0.5]), categorical, seed=seed,
    )  # fmt: skip
    output = torch.randn(rows, outputs, generator=make, dtype=torch.float64)
    return Rows(codes, bins, y, weight, content_hash(x, y[:, None]), held_out), Loss(name, outputs), settings, output


def grown(case: tuple[Rows, Loss, Settings, Tensor], together: int) -> tuple[Any, Tensor, Tensor]:
    """The trees, the outputs and the losses of some rounds."""
    found: list[Rounds] = list(boost(*case, range(2, 2 + ROUNDS), together))
    losses = torch.tensor([[loss for part in found for loss in part[k]] for k in (2, 3)], dtype=torch.float64)
    return joined([part.trees for part in found]), found[-1].output, losses


def test_rounds_together_are_those_of_the_torch_form(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(60):
        case = a_case(seed)
        monkeypatch.setenv("ZOO_KERNELS", "0")
        trees, output, losses = grown(case, 1)
        monkeypatch.setenv("ZOO_KERNELS", kernels)
        for together in (1, 3, ROUNDS):
            ours, after, mine = grown(case, together)
            assert bool(after.isfinite().all()), seed
            assert bool(ours.value.isfinite().all()), seed
            for a, b in zip((*ours, after), (*trees, output), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=f"{seed}")
            torch.testing.assert_close(mine, losses, rtol=1e-12, atol=1e-300, equal_nan=True)


def arguments() -> list[Any]:
    codes, rows = torch.zeros(2, 6, dtype=torch.uint8), torch.zeros(6, 2, dtype=torch.uint8)
    ends, one = torch.zeros(2, 1, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    start, path = torch.zeros(6, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    return [
        codes, rows, [], ends, ends, None, 0, start, one, one, one, None, path, 0.1, 0.0, -1, 31, 2, 1, 0.0, 0.0,
    ]  # fmt: skip


def test_the_operator_is_what_torch_expects(kernels: str) -> None:
    given = arguments()
    if all_kernels.status().variant is None:
        with pytest.raises(RuntimeError, match="there is no kernel"):
            boost_rounds(*given)
        return
    torch.library.opcheck(torch.ops.zoo.boost_rounds, tuple(given), test_utils=("test_schema", "test_faketensor"))
    three = torch.zeros(6, 3, dtype=torch.float64)
    for place, wrong in (
        (0, given[0] + 2), (1, given[0]), (6, 2), (6, -1), (7, three), (7, three[:0, :1]), (8, given[8].float()),
        (9, given[9][1:]), (11, given[8]), (12, given[12][:0]), (17, 3),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="zoo::boost_rounds"):
            boost_rounds(*given[:place], wrong, *given[place + 1 :])
    of_classes = [*given[:7], three, given[8] + 2, *given[9:12], torch.zeros(3, dtype=torch.int64), *given[13:]]
    with pytest.raises(RuntimeError, match="classes out of range"):
        boost_rounds(*of_classes)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_rounds import a_case, grown
for threads in (1, 3):
    torch.set_num_threads(threads)
    for seed in range(300):
        grown(a_case(seed), 3)
"""
    sanitized(script)
