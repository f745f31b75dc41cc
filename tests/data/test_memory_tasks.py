"""Copy, repeat copy, associative recall, n-grams and priority sort: rows against what a plain loop makes of them."""

from __future__ import annotations

import math
import pickle
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.memory_tasks import IGNORED, bayes_bits
from zoo.data.sampler import BatchSampler
from zoo.data.spec import Batch

TASKS = ("associative_recall", "copy", "ngram", "priority_sort", "repeat_copy")


def rows(name: str, count: int = 40, split: str = "train", **options: Any) -> Batch:
    return zoo.create_data(name, **options).rows(split)[torch.arange(count)]


def examples(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Each row without its padding."""
    assert batch.y is not None
    assert batch.mask is not None
    return [(x[mask], y[mask]) for x, y, mask in zip(batch.x, batch.y, batch.mask, strict=True)]


def asked(y: Tensor) -> Tensor:
    return (y != IGNORED).all(1)


@pytest.mark.parametrize("name", TASKS)
def test_a_row_is_a_function_of_its_number(name: str) -> None:
    data = zoo.create_data(name)
    train = data.rows("train")
    together = examples(train[torch.arange(20)])
    for number in (0, 7, 19):
        (alone,) = examples(train[torch.tensor([number])])
        assert all(map(torch.equal, alone, together[number]))
    again = pickle.loads(pickle.dumps(train))[torch.arange(20)]
    assert all(map(torch.equal, again.x, train[torch.arange(20)].x))
    others = [zoo.create_data(name, seed=1).rows("train"), data.rows("val")]
    assert not any(torch.equal(alone[0], examples(other[torch.tensor([19])])[0][0]) for other in others)


@pytest.mark.parametrize("name", TASKS)
def test_padding_is_asked_of_nothing_and_lengths_are_those_of_the_split(name: str) -> None:
    options = {"min_length": 7, "max_length": 9, "val_length": 11, "test_length": 13}
    data = zoo.create_data(name, **options)
    for split, lengths in (("train", {7, 8, 9}), ("val", {11}), ("test", {13})):
        part = data.rows(split)
        batch = part[torch.arange(40)]
        assert set(part.lengths(torch.arange(40)).tolist()) == lengths  # type: ignore[attr-defined]
        assert bool((batch.y[~batch.mask] == IGNORED).all())  # type: ignore[index, operator]
        assert all(bool(asked(y).any()) for _, y in examples(batch))
        assert set(batch.y.unique().tolist()) == {IGNORED, 0.0, 1.0}  # type: ignore[union-attr]
    assert len(data.spec.feature_names or ()) == data.spec.shape[1] == batch.x.shape[2]
    assert len(data.spec.target_names or ()) == data.spec.num_targets == batch.y.shape[2]  # type: ignore[union-attr]


def test_a_curriculum_lengthens_the_rows_of_training() -> None:
    """Each length is the largest for an equal share of the growth; later rows and other splits know none."""
    options = {"min_length": 2, "max_length": 6, "val_length": 6, "num_rows": 1000, "shuffle": False}
    data = zoo.create_data("associative_recall", curriculum=0.5, **options)
    plain = zoo.create_data("associative_recall", **options).rows("train")
    train: Any = data.rows("train")
    lengths = train.lengths(torch.arange(1000))
    for number, part in enumerate(lengths[:500].split(100)):
        assert set(part.tolist()) == set(range(2, 3 + number))
    assert torch.equal(lengths[400:], plain.lengths(torch.arange(400, 1000)))  # type: ignore[attr-defined]
    (batch,) = [next(iter(data.train_dataloader()))]
    assert batch.x.shape[1] == 16  # of the first rows all are short
    assert set(data.rows("val").lengths(torch.arange(9)).tolist()) == {6}  # type: ignore[attr-defined]


def test_a_curriculum_of_repeat_copy_adds_copies() -> None:
    """Each number of copies is the largest for an equal share of the growth, of items of all lengths."""
    options = {"max_length": 3, "max_repeats": 4, "num_rows": 1000, "shuffle": False}
    train: Any = zoo.create_data("repeat_copy", curriculum=0.8, **options).rows("train")
    plain: Any = zoo.create_data("repeat_copy", **options).rows("train")
    index = torch.arange(1000)
    lengths, repeats = train.sizes(index)
    assert torch.equal(lengths, plain.lengths(index))
    for number, part in enumerate(repeats[:800].split(200), 1):
        assert set(part.tolist()) == set(range(1, 1 + number))
    batch = train[index]
    assert torch.equal(batch.mask.sum(1), lengths * (1 + repeats) + 2)
    assert torch.equal(train[index[700:]].y, plain[index[700:]].y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curriculum": 0.5}, "pass data.shuffle=false"),
        ({"curriculum": 0.5, "shuffle": False, "min_length": 20}, "lower data.min_length"),
        ({"curriculum": 1.5, "shuffle": False}, "data.curriculum must be"),
    ],
)
def test_a_curriculum_of_no_use_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_data("copy", **options)


def test_a_curriculum_of_one_copy_is_refused() -> None:
    with pytest.raises(zoo.ZooError, match="are 1: raise data"):
        zoo.create_data("repeat_copy", curriculum=0.5, shuffle=False, max_repeats=1)


def test_copy() -> None:
    for x, y in examples(rows("copy", num_bits=3, max_length=6)):
        length = len(x) // 2
        assert torch.equal(x[:, 3].nonzero().flatten(), torch.tensor([length]))
        assert torch.equal(y[length + 1 :], x[:length, :3])
        assert torch.equal(asked(y), torch.arange(len(x)) > length)
        assert not x[length + 1 :].any()


def test_repeat_copy() -> None:
    counts, logarithms = set(), [math.log(number) for number in range(1, 6)]
    for x, y in examples(rows("repeat_copy", 200, num_bits=3, max_length=4, max_repeats=5)):
        length = int(x[:, 3].nonzero())
        told = float(x[length, 4]) * statistics.pstdev(logarithms) + statistics.fmean(logarithms)
        count = round(math.exp(told))
        assert math.exp(told) == pytest.approx(count, rel=1e-5)
        counts.add(count)
        end = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
        copies = torch.cat([x[:length, :3].repeat(count, 1), torch.zeros(count * length, 1)], dim=1)
        assert torch.equal(y[length + 1 :], torch.cat([copies, end]))
        assert int(asked(y).sum()) == count * length + 1
    assert counts == {1, 2, 3, 4, 5}
    x, y = examples(rows("repeat_copy", 1, split="test"))[0]
    assert len(x) == 10 + 1 + 20 * 10 + 1


def test_associative_recall() -> None:
    queried = set()
    for x, y in examples(rows("associative_recall", 100)):
        marks, queries = x[:, 6].nonzero().flatten(), x[:, 7].nonzero().flatten()
        items = [x[mark + 1 : mark + 4, :6] for mark in marks]
        query = x[queries[0] + 1 : queries[1], :6]
        (place,) = (i for i, item in enumerate(items) if torch.equal(item, query))
        queried.add((len(items), place))
        assert torch.equal(y[asked(y)], items[place + 1])
        assert torch.equal(asked(y), torch.arange(len(x)) > queries[1])
        assert len(x) == 4 * (len(items) + 2)
    assert {place for _, place in queried} == {0, 1, 2, 3, 4}


def test_priority_sort() -> None:
    for x, y in examples(rows("priority_sort", num_bits=5, min_length=2, max_length=9)):
        length = int(x[:, 6].nonzero())
        priority = x[:length, 5].tolist()
        assert all(-1 <= value <= 1 for value in priority)
        order = sorted(range(length), key=lambda i: -priority[i])[: math.ceil(0.8 * length)]
        assert torch.equal(y[length + 1 :], x[order, :5])
        assert int(asked(y).sum()) == len(order)


def test_ngram_follows_its_table_and_its_estimator_is_bayes() -> None:
    batch = rows("ngram", 300, order=3, min_length=20, max_length=120)
    found = bayes_bits(batch, order=3)
    for (x, y), ours in list(zip(examples(batch), found, strict=True))[:20]:
        bits = [int(x[0]), *map(int, torch.cat([x[1:, 0], y[-1:, 0]]))]
        assert y[2:, 0].tolist() == bits[3:]
        seen: dict[tuple[int, int], list[int]] = {}
        total = 0.0
        for place in range(2, len(bits)):
            zeros_ones = seen.setdefault((bits[place - 2], bits[place - 1]), [0, 0])
            chance = (zeros_ones[bits[place]] + 0.5) / (sum(zeros_ones) + 1)
            total -= math.log2(chance)
            zeros_ones[bits[place]] += 1
        assert float(ours) == pytest.approx(total, rel=1e-9)
    assert float(found.mean()) < 0.85 * float((batch.y != IGNORED).sum()) / 300  # type: ignore[union-attr, operator]


def test_the_chances_of_ngram_are_beta() -> None:
    """Of Beta(½, ½) the variance is 1/8: so far from ½ are the frequencies of ones in long rows."""
    batch = rows("ngram", 1500, order=1, min_length=400, max_length=400)
    frequency = batch.x[:, :, 0].mean(1)
    assert float(frequency.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(frequency.var()) == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("name", ["copy", "ngram"])
def test_batches_are_of_similar_length(name: str) -> None:
    data = zoo.create_data(name, num_rows=400, batch_size=8, min_length=6, max_length=50)
    sampler = data.loader("train", shuffle=True).sampler
    assert isinstance(sampler, BatchSampler)
    spread = [float(data.rows("train").lengths(index).float().std()) for index in sampler]  # type: ignore[attr-defined]
    assert sum(spread) / len(spread) < 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("copy", {"min_length": 0}, r"data\.min_length must be at least 1"),
        ("copy", {"min_length": 5, "max_length": 4}, r"data\.max_length must be at least 5"),
        ("copy", {"num_rows": 0}, r"data\.num_rows must be at least 1"),
        ("copy", {"num_bits": 33}, r"data\.num_bits must be 1 to 32"),
        ("associative_recall", {"min_length": 1}, r"data\.min_length must be at least 2"),
        ("repeat_copy", {"test_repeats": 0}, r"data\.test_repeats must be at least 1"),
        ("ngram", {"order": 20}, r"data\.order must be 1 to 12"),
        ("ngram", {"min_length": 5}, r"data\.order=6 needs sequences of at least as many bits"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_data(name, **options)
