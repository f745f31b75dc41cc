"""Itemsets and rules against exhaustive counting, mlxtend and efficient-apriori; every count is exact."""

from __future__ import annotations

import gzip
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.data.spec import Batch
from zoo.data.transactions import BasketData, encode_baskets
from zoo.models.apriori.apriori import Apriori, recommend
from zoo.models.apriori.itemsets import count_itemsets, find_rows, frequent_itemsets, join_itemsets, support_mask
from zoo.models.apriori.rules import METRICS, association_rules

Baskets = list[list[int]]


def flat(baskets: Baskets) -> tuple[torch.Tensor, torch.Tensor]:
    items = torch.tensor([item for basket in baskets for item in basket], dtype=torch.int64)
    return items, torch.tensor([len(basket) for basket in baskets], dtype=torch.int64)


def some_baskets(count: int = 300, num_items: int = 9, seed: int = 0) -> Baskets:
    """Baskets of all lengths from none on, with repeats, in no order."""
    draw = random.Random(seed)
    return [[int(num_items * draw.random() ** 2) for _ in range(draw.randrange(8))] for _ in range(count)]


def exhaustive(baskets: Baskets, least: int) -> dict[tuple[int, ...], int]:
    """Every itemset with its count, by looking at every subset of every basket."""
    counts: Counter[tuple[int, ...]] = Counter()
    for basket in baskets:
        distinct = sorted(set(basket))
        for size in range(1, len(distinct) + 1):
            counts.update(itertools.combinations(distinct, size))
    return {items: count for items, count in counts.items() if count >= least}


def found(levels: Any) -> dict[tuple[int, ...], int]:
    return {
        tuple(s): c for level in levels for s, c in zip(level.itemsets.tolist(), level.counts.tolist(), strict=True)
    }


def fitted(baskets: Baskets, batch_size: int = 0, **hparams: Any) -> Apriori:
    data = BasketData(baskets)
    rows = data.rows("train")
    model = zoo.create_model("apriori", spec=data.spec, **hparams)
    parts = torch.arange(len(rows)).split(batch_size or len(rows))
    model.fit_batches(lambda: [rows[part] for part in parts])
    return model


def states(model: Apriori) -> list[Any]:
    return [model.itemsets.tolist(), model.supports.tolist(), int(model.num_baskets), model.rules.table()]


# -- itemsets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [1, 5, 40])
def test_itemsets_are_those_of_exhaustive_counting(least: int) -> None:
    baskets = some_baskets()
    levels, count = frequent_itemsets([flat(baskets[:100]), flat(baskets[100:])], least)
    assert count == len(baskets)
    assert found(levels) == exhaustive(baskets, least)
    for level in levels:
        assert level.itemsets.tolist() == sorted(level.itemsets.tolist())


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1023, 1024, 1025, 3000])
def test_counts_are_exact_at_the_ends_of_words_and_blocks(count: int) -> None:
    items, lengths = torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.int64)
    assert count_itemsets(items, lengths, torch.tensor([[0], [1]])).tolist() == [count, 0]
    both = torch.tensor([0, 1]).repeat(count)
    assert count_itemsets(both, 2 * lengths, torch.tensor([[0, 1], [0, 2]])).tolist() == [count, 0]


def test_the_join_gives_every_set_whose_subsets_are_all_frequent() -> None:
    draw = random.Random(3)
    for size in (1, 2, 3):
        every = list(itertools.combinations(range(8), size))
        frequent = sorted(draw.sample(every, len(every) * 3 // 4))
        wanted = [
            list(items)
            for items in itertools.combinations(range(8), size + 1)
            if all(subset in set(frequent) for subset in itertools.combinations(items, size))
        ]
        assert join_itemsets(torch.tensor(frequent)).tolist() == wanted


def test_rows_are_found_or_not() -> None:
    table = torch.tensor([[0, 2, 5], [0, 3, 1], [7, 0, 0]])
    rows = torch.tensor([[7, 0, 0], [0, 2, 4], [0, 3, 1], [9, 9, 9], [7, 0, 1]])
    assert find_rows(table, rows).tolist() == [2, -1, 1, -1, -1]
    assert find_rows(table[:0], rows).tolist() == [-1] * 5


def test_groceries_have_the_published_numbers(shared_data: Path) -> None:
    lines = (shared_data / "baskets" / "groceries.csv").read_text().splitlines()
    items, lengths, names = encode_baskets(line.split(",") for line in lines)
    levels, count = frequent_itemsets([(items.long(), lengths)], 0.006)
    assert (count, len(names)) == (9835, 169)
    assert [len(level.counts) for level in levels] == [109, 478, 156, 4]
    assert len(association_rules(levels, count, 0.25, max_consequents=1)) == 463


def test_mushroom_itemsets_equal_an_independent_librarys(shared_data: Path) -> None:
    efficient_apriori = pytest.importorskip("efficient_apriori")
    with gzip.open(shared_data / "baskets" / "mushroom.dat.gz", "rt") as file:
        baskets = [[int(item) for item in line.split()] for line in file]
    levels, count = frequent_itemsets([flat(baskets)], 2438)
    theirs, _ = efficient_apriori.itemsets_from_transactions(
        [tuple(basket) for basket in baskets], min_support=2438 / count, max_length=20
    )
    assert len(found(levels)) == 2735
    assert found(levels) == {key: value for level in theirs.values() for key, value in level.items()}


@pytest.mark.parametrize(("share", "kept"), [(0.3, True), (0.30000001, False)])
def test_a_share_is_reached_exactly(share: float, kept: bool) -> None:
    assert support_mask(torch.tensor([3]), 10, share).item() is kept


# -- rules -----------------------------------------------------------------------------------------------------------


def test_rules_and_metrics_equal_mlxtends() -> None:
    frequent_patterns = pytest.importorskip("mlxtend.frequent_patterns")
    pandas = pytest.importorskip("pandas")
    baskets = some_baskets(400)
    table = pandas.DataFrame([[item in basket for item in range(9)] for basket in baskets])
    itemsets = frequent_patterns.apriori(table, min_support=0.011)
    theirs = frequent_patterns.association_rules(itemsets, metric="confidence", min_threshold=0.333)
    levels, count = frequent_itemsets([flat(baskets)], 0.011)
    rules = association_rules(levels, count, 0.333)
    columns = zip(rules.antecedents.tolist(), rules.consequents.tolist(), *map(rules.metric, METRICS), strict=True)
    ours = {(frozenset(a) - {-1}, frozenset(c) - {-1}): torch.stack(values).tolist() for a, c, *values in columns}
    names = ["zhangs_metric" if name == "zhang" else name for name in METRICS]
    assert len(ours) == len(theirs) > 100
    for _, row in theirs.iterrows():
        # mlxtend subtracts products of shares, so its leverage and Zhang's metric lose digits where they are small.
        assert ours[row.antecedents, row.consequents] == pytest.approx(row[names].tolist(), rel=1e-9, abs=1e-14)


def test_rules_of_any_number_of_consequents_equal_exhaustive_splitting() -> None:
    baskets, confidence = some_baskets(200, num_items=6), 0.4
    levels, count = frequent_itemsets([flat(baskets)], 4)
    counts = found(levels)
    for most in (1, 2, None):
        wanted = {
            (left, tuple(sorted(set(items) - set(left))))
            for items in counts
            for size in range(1, len(items))
            for left in itertools.combinations(items, size)
            if counts[items] / counts[left] >= confidence and (most is None or len(items) - size <= most)
        }
        rules = association_rules(levels, count, confidence, most)
        ours = [
            (tuple(i for i in a if i >= 0), tuple(i for i in c if i >= 0))
            for a, c in zip(rules.antecedents.tolist(), rules.consequents.tolist(), strict=True)
        ]
        assert len(ours) == len(set(ours))
        assert set(ours) == wanted


def test_metrics_at_their_limits() -> None:
    levels, count = frequent_itemsets([flat([[0, 1], [0, 1], [0]])], 1)
    (row,) = [row for row in association_rules(levels, count, 0.9).table(["a", "b"]) if row["antecedent"] == "b"]
    assert row["confidence"] == 1.0
    assert row["conviction"] == float("inf")  # never fails
    assert row["lift"] == 1.0  # a is in every basket
    assert row["leverage"] == row["zhang"] == 0.0


def test_rules_are_filtered_and_sorted() -> None:
    model = fitted(some_baskets(), min_support=3, min_confidence=0.2, min_lift=1.1, sort_by="leverage")
    leverage = model.rules.leverage
    assert len(leverage) > 10
    assert bool((leverage[:-1] >= leverage[1:]).all())
    assert float(model.rules.lift.min()) >= 1.1
    with pytest.raises(zoo.ZooError, match=r"Unknown rule metric 'lif'\. Did you mean lift"):
        model.rules.sorted("lif")


# -- the model -------------------------------------------------------------------------------------------------------


def test_the_model_finds_what_the_functions_find() -> None:
    baskets = some_baskets()
    model = fitted(baskets, min_support=0.02)
    assert found(model.levels) == exhaustive(baskets, 6)
    assert model.done


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_the_order_of_rows_change_nothing(batch_size: int) -> None:
    baskets = some_baskets()
    shuffled = random.Random(1).sample(baskets, len(baskets))
    options = {"min_support": 0.02, "min_confidence": 0.3}
    assert states(fitted(shuffled, batch_size, **options)) == states(fitted(baskets, **options))


def test_two_processes_find_what_one_finds() -> None:
    data = BasketData(some_baskets())
    rows = data.rows("train")
    whole, first, second = (zoo.create_model("apriori", spec=data.spec, min_support=4) for _ in range(3))
    whole.fit_batches(lambda: [rows[slice(None)]])
    while not first.done:
        for model, part in ((first, slice(0, 90)), (second, slice(90, None))):
            model.reset_accumulators()
            model.accumulate(rows[part])
        merged = first.merge([first._state(), second._state()])
        for model in (first, second):
            for name, value in merged.items():
                setattr(model, name, value.clone())
            model.solve()
    assert states(first) == states(second) == states(whole)


def test_a_half_done_pass_goes_on_from_its_state() -> None:
    data = BasketData(some_baskets())
    rows = data.rows("train")
    whole, broken, resumed = (zoo.create_model("apriori", spec=data.spec, min_support=4) for _ in range(3))
    whole.fit_batches(lambda: [rows[slice(None)]])
    broken.fit_batches(lambda: [rows[slice(None)]], max_passes=1)
    broken.reset_accumulators()
    broken.accumulate(rows[slice(0, 90)])
    resumed.load_state_dict(broken.state_dict())
    resumed.accumulate(rows[slice(90, None)])
    resumed.solve()
    while not resumed.done:
        resumed.run_passes(lambda: [rows[slice(None)]], max_passes=1)
    assert states(resumed) == states(whole)


def test_a_matrix_counts_as_the_baskets_it_shows() -> None:
    baskets = some_baskets()
    model = fitted(baskets, min_support=4)
    matrix = torch.tensor([[float(item in basket) for item in range(9)] for basket in baskets])
    again = zoo.create_model("apriori", spec=model.spec, min_support=4)
    again.fit_batches(lambda: [Batch(matrix)])
    assert states(again) == states(model)


def test_a_second_fit_starts_again() -> None:
    baskets = some_baskets()
    model = fitted(baskets, min_support=4)
    before = states(model)
    rows = BasketData(baskets).rows("train")
    model.fit_batches(lambda: [rows[slice(None)]])
    assert states(model) == before


def test_the_maximum_length_ends_the_passes() -> None:
    model = fitted(some_baskets(), min_support=1, max_length=2)
    assert [level.itemsets.shape[1] for level in model.levels] == [1, 2]
    assert found(model.levels) == {k: v for k, v in exhaustive(some_baskets(), 1).items() if len(k) <= 2}


def test_the_most_confident_rule_advises() -> None:
    model = fitted([["a", "b"]] * 3 + [["a", "c"]] * 2 + [["d"]] * 2, min_support=1, min_confidence=0.1)  # type: ignore[list-item]
    item, confidence = recommend(torch.eye(4), model.rules)
    assert item.tolist() == [1, 0, 0, -1]
    assert confidence.tolist() == pytest.approx([0.6, 1.0, 1.0, 0.0], rel=1e-12)
    assert model.predict(torch.eye(4)).tolist() == ["b", "a", "a", None]  # in the words of the baskets


@pytest.mark.parametrize("baskets", [[[0]], [[], [0, 0], []], [[0, 1, 2]]])
def test_few_or_empty_baskets_have_a_defined_result(baskets: Baskets) -> None:
    model = fitted(baskets, min_support=1)
    assert found(model.levels) == exhaustive(baskets, 1)
    assert int(model.num_baskets) == len(baskets)
    assert all(torch.isfinite(model.rules.confidence))


def test_nothing_frequent_gives_no_rules() -> None:
    model = fitted([[0], [1], [2]], min_support=2)
    assert (len(model.levels), len(model.rules)) == (0, 0)
    assert model.predict(torch.eye(3)).tolist() == [None, None, None]
    assert dict(model.texts()) == {"rules": "none", "itemsets": "none"}


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"min_support": 0}, r"model.min_support is 0: pass a share .* above 0 .* or a number .* from 1"),
        ({"min_support": 0.0}, r"model\.min_support is 0\.0"),
        ({"min_support": 1.5}, r"model\.min_support is 1\.5"),
        ({"max_length": 0}, "model.max_length must be at least 1"),
        ({"min_confidence": 1.1}, "model.min_confidence must be at least 0 and at most 1"),
        ({"sort_by": "lifts"}, "model.sort_by must be one of .* Did you mean lift"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message) as caught:
        zoo.create_model("apriori", **hparams)
    assert "\n" not in str(caught.value)


def test_more_candidates_than_memory_holds_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"10,000 frequent .* make 49,995,000 candidates.* raise min_support"):
        join_itemsets(torch.arange(10_000).unsqueeze(1))


def test_items_beyond_the_spec_and_weights_are_refused() -> None:
    model = zoo.create_model("apriori", spec=BasketData([[0, 1]]).spec)
    with pytest.raises(zoo.ZooError, match="numbered from 0 to 1"):
        model.accumulate(Batch(items=torch.tensor([2]), lengths=torch.tensor([1])))
    with pytest.raises(zoo.ZooError, match="takes no weights"):
        model.accumulate(Batch(items=torch.tensor([0]), weight=torch.ones(1), lengths=torch.tensor([1])))


def test_pictures_and_tables_of_a_fitted_model() -> None:
    model = fitted(some_baskets(), min_support=4, min_confidence=0.2)
    names = [name for name, _ in model.pictures(Batch(torch.eye(9)), {})]
    assert names == ["rule_graph", "rule_metrics"]
    tables = dict(model.tables())
    assert len(tables["rules"]) == len(model.rules)
    assert sum(row["count"] for row in tables["itemsets"]) == int(model.supports.sum())
    assert dict(model.texts())["rules"].startswith("|antecedent|consequent|support|")
