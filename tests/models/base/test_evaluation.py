"""Metrics beside scikit-learn's: scales, weights, batches, one row, one class, targets that do not vary."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score, mean_squared_error, r2_score
from torch import Tensor

from zoo.data.spec import DataSpec
from zoo.models.base.bleu import Bleu, counts_of
from zoo.models.base.evaluation import R2, ClassF1, MacroF1, Mean, Pooling
from zoo.models.base.objectives import f1_of
from zoo.text.bleu import bleu


def pooled(metric: Pooling, values: Tensor, y: Tensor | None, weight: Tensor, batch_size: int = 7) -> float:
    for start in range(0, len(values), batch_size):
        rows = slice(start, start + batch_size)
        metric.update(values[rows], None if y is None else y[rows], weight[rows])
    return metric.compute().item()


SCALES = [10.0**power for power in range(-12, 13, 4)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("good", [False, True])
def test_r2_at_any_scale(scale: float, shift: float, weighted: bool, good: bool) -> None:
    y = scale * (torch.randn(50, 2, dtype=torch.float64) + shift)
    values = y + scale * torch.randn_like(y) * 0.1 if good else torch.zeros_like(y)
    weight = torch.rand(50, dtype=torch.float64) if weighted else torch.ones(50, dtype=torch.float64)
    theirs = r2_score(y.numpy(), values.numpy(), sample_weight=weight.numpy())
    assert pooled(R2(2), values, y, weight) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_mean_at_any_scale(scale: float) -> None:
    y = scale * torch.randn(50, dtype=torch.float64)
    weight = torch.rand(50, dtype=torch.float64)
    theirs = mean_squared_error(y.numpy(), torch.zeros(50).numpy(), sample_weight=weight.numpy())
    assert pooled(Mean(), y.square(), None, weight) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("power", [-40, 0, 40])
def test_r2_of_targets_that_do_not_vary(power: int) -> None:
    weight = torch.ones(20)
    y = torch.full((20,), 3.5 * 2.0**power, dtype=torch.float64)  # sums are exact, as scikit-learn needs them here
    assert pooled(R2(1), y.clone(), y, weight) == r2_score(y, y) == 1
    assert pooled(R2(1), y * 1.5, y, weight) == r2_score(y, y * 1.5) == 0
    rounded = y * 3.7  # whose mean is rounded: scikit-learn takes that for spread, and answers -5e30
    assert pooled(R2(1), rounded * 1.5, rounded, weight) == 0


def test_r2_of_a_single_row_is_not_a_number() -> None:
    assert torch.tensor(pooled(R2(1), torch.ones(1), torch.zeros(1), torch.ones(1))).isnan()


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_macro_f1(num_classes: int, weighted: bool) -> None:
    y, values = torch.randint(num_classes, (2, 60))
    weight = torch.rand(60, dtype=torch.float64) if weighted else torch.ones(60, dtype=torch.float64)
    theirs = f1_score(y, values, average="macro", sample_weight=weight.numpy())
    assert pooled(MacroF1(num_classes), values, y, weight) == pytest.approx(theirs, rel=1e-12)


def test_macro_f1_of_one_row_and_of_one_class() -> None:
    one = torch.ones(1, dtype=torch.int64)
    assert pooled(MacroF1(3), one, one, torch.ones(1)) == 1
    y, values = torch.zeros(10, dtype=torch.int64), torch.arange(10) % 2
    assert pooled(MacroF1(3), values, y, torch.ones(10)) == pytest.approx(f1_score(y, values, average="macro"))


@pytest.mark.parametrize("weighted", [False, True])
def test_f1_of_the_positive_class(weighted: bool) -> None:
    y, values = torch.randint(2, (2, 60))
    weight = torch.rand(60, dtype=torch.float64) if weighted else torch.ones(60, dtype=torch.float64)
    theirs = f1_score(y, values, sample_weight=weight.numpy())
    assert pooled(ClassF1(2, of=1), values, y, weight) == pytest.approx(theirs, rel=1e-12)
    nowhere = torch.zeros(10, dtype=torch.int64)
    assert pooled(ClassF1(2, of=1), nowhere, nowhere, torch.ones(10)) == 0


@pytest.mark.parametrize(
    ("names", "metric"),
    [(("<=50K", ">50K"), "f1_50K"), (("no", "?"), "f1_1"), (None, "f1_1"), (("a", "é é"), "f1_é_é")],
)
def test_f1_names_the_positive_class(names: tuple[str, str] | None, metric: str) -> None:
    assert list(f1_of(DataSpec("tabular", (2,), "class", num_classes=2, class_names=names))) == ["f1", metric]
    assert list(f1_of(DataSpec("tabular", (2,), "class", num_classes=3))) == ["f1"]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_bleu_counts_each_source_once(batch_size: int) -> None:
    said = ["a b c d e", "f g h i", "a b c d e", "j k l m"]
    right = ["a b c d x", "f g h i", "nothing of it", "j k l n"]
    values = counts_of(["one", "two", "one", "three"], said, right)
    kept = [0, 1, 3]
    expected = bleu([said[i] for i in kept], [right[i] for i in kept])
    assert pooled(Bleu(), values, None, torch.ones(4), batch_size) == pytest.approx(expected, rel=1e-12)
    metric = Bleu()
    for _ in range(2):  # a second pass begins anew
        metric.update(values[:2], None, torch.ones(2))
        assert metric.compute().item() == pytest.approx(bleu(said[:2], right[:2]), rel=1e-12)
        metric.reset()
