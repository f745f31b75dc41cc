"""Steps of Word2Vec by the compiled kernel beside the torch form, and what its operator promises."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.spec import DataSpec
from zoo.kernels.word2vec import word2vec_steps
from zoo.models.word_vectors.windows import Windows, draw_windows

WORDS = 23


class Case:
    """Tables, a text and settings of every kind; some texts are of frequent words alone, or of none."""

    def __init__(self, seed: int) -> None:
        draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
        size, radius = draw.choice([1, 7, 16, 17, 64, 100, 131]), draw.choice([1, 2, 5, 9])
        rows = draw.choice([1, 3, 9])
        tokens = torch.randint(draw.choice([1, 3, WORDS]), (rows, draw.choice([1, 15, 60, 60])), generator=make)
        keep = torch.full(tokens.shape, draw.choice([0.0, 0.6, 1.0, 1.0]))
        self.windows = draw_windows(tokens, keep, radius, make)
        shape = (len(self.windows.reach), draw.choice([1, 6, 32]))
        self.drawn = torch.randint(WORDS, shape, generator=make)
        scale = draw.choice([1e-3, 0.3, 0.3, 8.0])
        self.tables = [torch.randn(WORDS, size, generator=make) * scale for _ in range(2)]
        self.strided = [draw.choice([as_is, across, wide])(table) for table in self.tables]
        self.options: dict[str, Any] = {
            "negatives": draw.choice([1, 5]), "step_bound": draw.choice([0.5, 2.0, 1e9]),
            "blocks_per_step": draw.choice([1, 3, 64]), "architecture": draw.choice(["skip_gram", "cbow"]),
        }  # fmt: skip

    def compiled(self, rate: float = 0.05) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of the operator: both tables, and loss and number of words."""
        options, (embedding, context) = self.options, (table.clone() for table in self.strided)
        found = word2vec_steps(
            embedding, context, *self.windows, self.drawn, float(options["negatives"]),
            options["architecture"] == "cbow", rate, options["step_bound"], options["blocks_per_step"],
        )  # fmt: skip
        return embedding, context, found

    def in_torch(self, dtype: torch.dtype = torch.float64, rate: float = 0.05) -> tuple[Tensor, Tensor, Tensor]:
        """The same in torch operations."""
        spec = DataSpec("tokens", (30,), vocab_size=WORDS)
        model: Any = zoo.create_model("word2vec", spec=spec, embedding_size=self.tables[0].shape[1], **self.options)
        model = model.to(dtype)
        with torch.no_grad():
            model.embedding.copy_(self.tables[0])
            model.context.copy_(self.tables[1])
            loss, predicted = model._descend(self.windows.blocks(dtype), self.drawn, rate)
        return model.embedding.data, model.context.data, torch.stack([loss, predicted])


def as_is(table: Tensor) -> Tensor:
    return table


def across(table: Tensor) -> Tensor:
    return table.T.contiguous().T


def wide(table: Tensor) -> Tensor:
    return torch.cat([table, -table], 1)[:, : table.shape[1]]


def needs_kernel(kernels: str) -> None:
    if kernels == "0":
        pytest.skip("there is no operator without a kernel")


def test_the_kernel_takes_the_steps_of_the_torch_form(kernels: str) -> None:
    needs_kernel(kernels)
    moved = 0
    for seed in range(40):
        case = Case(seed)
        mine, theirs = case.compiled(), case.in_torch()
        scale = max(float(table.abs().max()) for table in theirs[:2])
        for own, other, before in zip(mine[:2], theirs[:2], case.tables, strict=True):
            torch.testing.assert_close(own.double(), other, rtol=0, atol=2e-5 * scale)
            moved += not torch.equal(own, before)
        torch.testing.assert_close(mine[2], theirs[2], rtol=2e-5, atol=1e-5)
    assert moved > 40


def test_any_number_of_threads_gives_the_same_bits(kernels: str) -> None:
    needs_kernel(kernels)
    threads = torch.get_num_threads()
    make = torch.Generator().manual_seed(0)
    for seed in (0, 1):
        case = Case(seed)
        tokens = torch.randint(WORDS, (3, 1500), generator=make)
        case.windows = draw_windows(tokens, torch.ones(tokens.shape), 4, make)
        case.drawn = torch.randint(WORDS, (len(case.windows.reach), 8), generator=make)
        case.options |= {"architecture": ["skip_gram", "cbow"][seed], "blocks_per_step": 10}
        found = []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                found.append(case.compiled(0.01))
        finally:
            torch.set_num_threads(threads)
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_a_step_whose_loss_is_not_finite_is_not_taken(kernels: str, value: float) -> None:
    """It is the second of two: the first one is taken, and the loss says it."""
    needs_kernel(kernels)
    for architecture in ("skip_gram", "cbow"):
        case = Case(0)
        text = (torch.arange(32 + 4) >= 20).long()  # word 1 is in the second block alone
        windows = Windows(text, torch.ones(36).bool(), torch.full((2, 16), 2))
        case.windows, case.drawn = windows, torch.tensor([[2], [3]])
        case.options |= {"architecture": architecture, "blocks_per_step": 1, "step_bound": 1e9}
        for table in case.strided:
            table.fill_(0.1)
            table[1] = value
        embedding, context, found = case.compiled(1e-3)
        assert not found[0].isfinite()
        assert not torch.equal(embedding[0], case.strided[0][0])  # of the first step
        for table, before in zip((embedding, context), case.strided, strict=True):
            torch.testing.assert_close(table[[1, 3]], before[[1, 3]], rtol=0, atol=0, equal_nan=True)


def test_what_does_not_fit_is_refused(kernels: str) -> None:
    needs_kernel(kernels)
    case = Case(11)
    embedding, context = case.tables
    text, there, window = case.windows
    assert len(window)
    good = [embedding, context, text, there, window, case.drawn, 5.0, False, 0.1, 2.0, 4]
    word2vec_steps(*[x.clone() if isinstance(x, Tensor) else x for x in good])
    for place, bad in (
        (0, embedding.double()), (1, context[:, 1:]), (1, context[:-1]), (2, text + WORDS), (2, text - 1 - text.max()),
        (2, text[1:]), (2, text.int()), (3, there[1:]), (3, there.long()), (4, window[1:]), (4, window + 100),
        (4, window - 100), (5, case.drawn[1:]), (5, case.drawn[:, :0]), (5, case.drawn + WORDS), (10, 0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="zoo::word2vec_steps"):
            word2vec_steps(*good[:place], bad, *good[place + 1 :])  # type: ignore[arg-type]


def test_the_operator_is_traced(kernels: str) -> None:
    needs_kernel(kernels)
    case = Case(11)
    arguments = (*case.tables, *case.windows, case.drawn, 5.0, True, 0.1, 2.0, 4)
    torch.library.opcheck(torch.ops.zoo.word2vec_steps, arguments, test_utils=("test_schema", "test_faketensor"))


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_word2vec import Case
for seed in range(250):
    torch.set_num_threads(1 + seed % 3)
    Case(seed).compiled()
"""
    sanitized(script)
