"""Naive Bayes: every likelihood against scikit-learn and exact arithmetic, from batches, and from odd data."""

from __future__ import annotations

import csv
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import sklearn.naive_bayes as peers
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import cross_val_score, train_test_split
from torch import Tensor

import zoo
import zoo.sklearn as zs
from zoo import Batch, DataSpec, ZooError, visual
from zoo.models.naive_bayes.categorical import Categorical, widened
from zoo.models.naive_bayes.gaussian import class_moments, gaussian_log_density
from zoo.models.naive_bayes.likelihood import class_sums, row_blocks
from zoo.numerics.sparse import sparse_rows
from zoo.visual.likelihoods import class_separation

# Our options, and scikit-learn's class with the same.
LIKELIHOODS: dict[str, tuple[dict[str, Any], Any]] = {
    "gaussian": ({}, peers.GaussianNB()),
    "multinomial": ({"alpha": 0.5}, peers.MultinomialNB(alpha=0.5)),
    "complement": ({}, peers.ComplementNB()),
    "complement, normed": ({"norm": True}, peers.ComplementNB(norm=True)),
    "bernoulli": ({"threshold": 7.0}, peers.BernoulliNB(binarize=7)),
    "categorical": ({}, peers.CategoricalNB()),
}
NAMES = list(LIKELIHOODS)


def create(name: str, **options: Any) -> Any:
    return zoo.create_model("naive_bayes", likelihood=name.split(",")[0], **{**LIKELIHOODS[name][0], **options})


def fitted(x: Tensor, y: Tensor, name: str = "gaussian", batch_size: int | None = None, weight: Any = None, **options):
    """A model that took the rows in batches."""
    model = create(name, **options)
    spec = DataSpec("tabular", (x.shape[1],), "class", num_classes=max(2, int(y.max()) + 1))
    size = batch_size or max(1, len(x))
    parts = [
        Batch(x[i : i + size], y[i : i + size], None if weight is None else weight[i : i + size])
        for i in range(0, len(x), size)
    ]
    model.build(spec).fit_batches(lambda: parts)
    return model.eval()


def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x), torch.from_numpy(y)


def relative(ours: Tensor, theirs: Any) -> float:
    """The largest error beside the largest number."""
    theirs = torch.as_tensor(theirs)
    return float((ours - theirs).abs().max() / theirs.abs().max())


# -- against scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_log_probabilities_are_scikit_learns(name: str, dtype: torch.dtype) -> None:
    x, y = digits()
    theirs = LIKELIHOODS[name][1].fit(x.numpy(), y.numpy())
    model = fitted(x.to(dtype), y, name)  # whole numbers: the same in both types
    assert relative(model.log_joint(x.to(dtype)), theirs.predict_joint_log_proba(x.numpy())) <= 1e-10
    assert relative(model.log_probability(x), theirs.predict_log_proba(x.numpy())) <= 1e-10
    columns = model.predict_columns(x)
    assert torch.equal(columns["prediction"], torch.from_numpy(theirs.predict(x.numpy())))
    torch.testing.assert_close(columns["probability"].sum(1), torch.ones(len(x), dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_weighted_log_probabilities_are_scikit_learns(name: str) -> None:
    x, y = digits()
    weight = torch.rand(len(x), dtype=torch.float64)
    options = {}
    if name == "gaussian":  # ε of the weighted rows is ours alone, and the figure must not hang on it
        x, options = x + torch.randn(x.shape, dtype=torch.float64), {"var_smoothing": 0.0}
    theirs = LIKELIHOODS[name][1].__class__(**{**LIKELIHOODS[name][1].get_params(), **options})
    theirs.fit(x.numpy(), y.numpy(), sample_weight=weight.numpy())
    model = fitted(x, y, name, weight=weight, **options)
    assert relative(model.log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-10


@pytest.mark.parametrize(
    ("estimator", "load", "accuracy"),
    [
        (zs.GaussianNB(), load_iris, 0.9533),
        (zs.GaussianNB(), load_digits, 0.8114),
        (zs.MultinomialNB(), load_digits, 0.8798),
        (zs.BernoulliNB(binarize=7), load_digits, 0.8664),
    ],
)
def test_ten_fold_accuracy(estimator, load, accuracy: float) -> None:
    """cross_val_score's own folds: stratified, not shuffled."""
    x, y = load(return_X_y=True)
    assert round(cross_val_score(estimator, x, y, cv=10).mean(), 4) == accuracy


@pytest.mark.parametrize("kind", ["MultinomialNB", "ComplementNB", "BernoulliNB"])
def test_spam_is_found_as_by_scikit_learn(kind: str, shared_data) -> None:
    with open(shared_data / "textclf" / "sms_spam" / "sms_spam.csv", newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    texts, labels = [row["text"] for row in rows], [row["type"] for row in rows]
    train, test, y, y_test = train_test_split(texts, labels, test_size=0.2, random_state=0, stratify=labels)
    words = CountVectorizer().fit(train)
    x, x_test = words.transform(train), words.transform(test)
    ours, theirs = (getattr(module, kind)().fit(x, y) for module in (zs, peers))
    np.testing.assert_allclose(ours.predict_log_proba(x_test), theirs.predict_log_proba(x_test), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(ours.predict(x_test), theirs.predict(x_test))
    assert ours.score(x_test, y_test) > 0.97
    dense = getattr(zs, kind)().fit(x.toarray(), y)  # the same from rows that are not sparse
    np.testing.assert_allclose(dense.feature_log_prob_, ours.feature_log_prob_, rtol=1e-12)
    np.testing.assert_allclose(dense.predict_proba(x_test[:9].toarray()), ours.predict_proba(x_test[:9]), atol=1e-10)


# -- batches, order, weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_and_the_order_of_rows_change_nothing(name: str, batch_size: int) -> None:
    x, y = digits()
    x, y = x[:400], y[:400]
    whole, order = fitted(x, y, name), torch.randperm(400)
    parts = fitted(x[order], y[order], name, batch_size)
    assert relative(parts.log_joint(x), whole.log_joint(x)) <= 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parts", [(0, 300), (1, 299), (200, 100)])
def test_two_processes_find_what_one_finds(name: str, parts: tuple[int, int]) -> None:
    x, y = digits()
    x, y = x[:300], y[:300]
    whole = fitted(x, y, name)
    states = []
    for rows, labels in zip(x.split(parts), y.split(parts), strict=True):
        model = create(name).build(whole.spec)
        model.reset_accumulators()
        model.accumulate(Batch(rows, labels))
        states.append(model._state())
    for key, value in whole.merge(states).items():
        torch.testing.assert_close(value, getattr(whole, key), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_weight_counts_as_repeats_and_zero_as_absence(name: str) -> None:
    x, y = digits()
    x, y = x[:200], y[:200]
    weight = torch.arange(200).remainder(4).double()
    repeated = fitted(x.repeat_interleave(weight.long(), 0), y.repeat_interleave(weight.long()), name)
    weighted = fitted(x, y, name, 7, weight)
    assert relative(weighted.log_joint(x), repeated.log_joint(x)) <= 1e-10


def test_several_blocks_of_rows_are_one_batch() -> None:
    x, y = torch.randn(30_000, 20, dtype=torch.float64), torch.randint(0, 3, (30_000,))
    assert len(list(row_blocks(x, 20))) > 4
    assert len(list(row_blocks(x[:0], 20))) == 0
    model, theirs = fitted(x, y), peers.GaussianNB().fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(model.mean, theirs.theta_, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(model.variance, theirs.var_, rtol=1e-12)
    assert relative(model.log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_a_second_fit_forgets_the_first(name: str) -> None:
    x, y = digits()
    model = fitted(x[:300], y[:300], name)
    model.fit_batches(lambda: [Batch(x[300:600], y[300:600])])
    fresh = fitted(x[300:600], y[300:600], name)
    assert torch.equal(model.log_joint(x[:9]), fresh.log_joint(x[:9]))


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_first_appears_in_a_late_batch(name: str) -> None:
    x, y = digits()
    order = y[:300].argsort(stable=True)  # class 9 comes last
    sorted_rows, shuffled = fitted(x[order], y[order], name, 16), fitted(x[:300], y[:300], name)
    assert relative(sorted_rows.log_joint(x), shuffled.log_joint(x)) <= 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("priors", [None, "uniform"])
def test_a_class_without_rows(name: str, priors: Any) -> None:
    x, y = digits()
    x, y = x[y != 3], y[y != 3]
    model = fitted(x, y, name, priors=priors)
    probability = model.log_probability(x).exp()
    assert bool(torch.isfinite(probability).all())
    if priors is None or name == "gaussian":
        assert not probability[:, 3].any() or name.startswith("complement")


# -- the Gaussian ----------------------------------------------------------------------------------------------------


def exact_moments(x: Tensor) -> tuple[list[float], list[float]]:
    """Mean and variance of each column in rational arithmetic."""
    means, variances = [], []
    for column in x.double().T.tolist():
        numbers = [Fraction(value) for value in column]
        mean = sum(numbers) / len(numbers)
        means.append(float(mean))
        variances.append(float(sum((value - mean) ** 2 for value in numbers) / len(numbers)))
    return means, variances


PLACES = [(0.0, 1.0), (1e8, 1.0), (-1e8, 1.0), (1e8, 1e-2), (0.0, 1e-120), (0.0, 1e120)]  # shift, scale


@pytest.mark.parametrize("batch_size", [1, 7, 200])
@pytest.mark.parametrize(("shift", "scale"), PLACES)
def test_moments_of_shifted_tiny_and_huge_rows_are_exact(batch_size: int, shift: float, scale: float) -> None:
    x, y = scale * torch.randn(200, 3, dtype=torch.float64) + shift, torch.arange(200) % 2
    model = fitted(x, y, batch_size=batch_size, var_smoothing=0.0)
    for label in (0, 1):
        mean, variance = exact_moments(x[y == label])
        np.testing.assert_allclose(model.mean[label], mean, rtol=1e-15, atol=1e-14 * scale)
        np.testing.assert_allclose(model.variance[label], variance, rtol=1e-12)
    theirs = scipy.stats.norm.logpdf(x[:, None], model.mean, model.variance.sqrt()).sum(-1)
    np.testing.assert_allclose(gaussian_log_density(x, model.mean, model.variance), theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1e4, 1.0), (0.0, 1e-30), (0.0, 1e30)])
def test_float32_rows_lose_nothing(batch_size: int, shift: float, scale: float) -> None:
    x, y = (scale * torch.randn(200, 3) + shift), torch.arange(200) % 2
    model = fitted(x, y, batch_size=batch_size, var_smoothing=0.0)
    for label in (0, 1):
        mean, variance = exact_moments(x[y == label])
        np.testing.assert_allclose(model.mean[label], mean, rtol=1e-14, atol=1e-14 * scale)
        np.testing.assert_allclose(model.variance[label], variance, rtol=1e-12)


def test_classes_far_apart_do_not_cost_each_other_digits() -> None:
    y = torch.arange(400) % 2
    x = torch.randn(400, 2, dtype=torch.float64) + 1e8 * y.unsqueeze(1)
    model = fitted(x, y, var_smoothing=0.0)
    for label in (0, 1):
        np.testing.assert_allclose(model.variance[label], exact_moments(x[y == label])[1], rtol=1e-12)


def test_moments_of_each_class() -> None:
    x, y, weight = torch.randn(50, 3, dtype=torch.float64), torch.randint(0, 4, (50,)), torch.rand(50).double()
    count, mean, rest, scatter = class_moments(x, y, 5, weight)
    for label in range(4):
        rows, w = x[y == label], weight[y == label]
        np.testing.assert_allclose(mean[label] + rest[label], np.average(rows, axis=0, weights=w), rtol=1e-12)
        np.testing.assert_allclose(scatter[label], w @ (rows - mean[label]).square(), rtol=1e-12)
        assert count[label] == pytest.approx(float(w.sum()))
    assert not torch.cat([count[4:], mean[4], scatter[4]]).any()


def test_constant_features_and_equal_rows_give_no_nan() -> None:
    x, y = torch.randn(60, 3, dtype=torch.float64), torch.arange(60) % 3
    x[:, 1] = 5.0
    model = fitted(x, y)
    theirs = peers.GaussianNB().fit(x.numpy(), y.numpy())
    assert relative(model.log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-10
    equal = fitted(torch.full((60, 3), 1e8, dtype=torch.float64), y)
    other = torch.tensor([[1e8, 1e8, 1e8], [0.0, 1.0, 2.0], [1e300, 0.0, -1e300]], dtype=torch.float64)
    torch.testing.assert_close(equal.log_probability(other).exp(), torch.full((3, 3), 1 / 3, dtype=torch.float64))


def test_without_smoothing_a_spike_is_certain() -> None:
    x, y = torch.tensor([[1.0], [1.0], [2.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    model = fitted(x, y, var_smoothing=0.0)
    assert model.log_probability(torch.tensor([[1.0], [2.0]])).exp().tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("name", NAMES)
def test_one_row_of_each_class(name: str) -> None:
    x, y = torch.tensor([[0.0, 8.0], [9.0, 1.0]]), torch.tensor([0, 1])
    model = fitted(x, y, name)
    assert model.predict(x).tolist() == [0, 1]
    assert bool(torch.isfinite(model.log_probability(x).exp()).all())
    assert model.predict(x[:0].reshape(0, 2)).shape == (0,)


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2, 3]])  # class 1 without rows
def test_far_rows_have_probabilities(classes: list[int]) -> None:
    x, y = torch.randn(60, 2, dtype=torch.float64), torch.tensor(classes).repeat(20)
    model = fitted(x, y)
    probability = model.log_probability(torch.tensor([[1e200, 0.0], [1e100, 1e100]], dtype=torch.float64)).exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(2, dtype=torch.float64))


# -- counts and categories -------------------------------------------------------------------------------------------


def test_bernoulli_is_the_formula() -> None:
    x, y = (torch.rand(40, 5) < 0.4).double(), torch.arange(40) % 2
    model = fitted(x, y, "bernoulli", threshold=None, alpha=[0.1, 0.2, 0.3, 0.4, 0.5])
    for label in (0, 1):
        rows = x[y == label]
        alpha = torch.arange(1, 6).double() / 10
        p = (rows.sum(0) + alpha) / (len(rows) + 2 * alpha)
        expected = torch.where(x.bool(), p, 1 - p).log().sum(1) + np.log(0.5)
        torch.testing.assert_close(model.log_joint(x)[:, label], expected, rtol=1e-12, atol=1e-12)


def test_an_alpha_for_each_feature() -> None:
    x, y = digits()
    alpha = [0.1 * (i + 1) for i in range(64)]
    theirs = peers.MultinomialNB(alpha=alpha).fit(x.numpy(), y.numpy())
    ours = fitted(x, y, "multinomial", alpha=alpha)
    assert relative(ours.log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-10


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gaussian"])
def test_without_smoothing_nothing_is_nan(name: str) -> None:
    x, y = digits()
    model = fitted(x[:30], y[:30], name, alpha=0.0)
    assert bool(torch.isfinite(model.log_probability(x).exp()).all())
    assert (model.predict(x[:30]) == y[:30]).double().mean() > 0.8


def test_a_category_that_was_never_seen_says_nothing() -> None:
    x, y = torch.tensor([[0, 1], [1, 0], [2, 1], [0, 0]]), torch.tensor([0, 0, 1, 1])
    both, first = fitted(x, y, "categorical"), fitted(x[:, :1], y, "categorical")
    unseen = torch.tensor([[0, 2], [1, 99], [2, 7]])
    torch.testing.assert_close(both.log_joint(unseen), first.log_joint(unseen[:, :1]))


def test_a_category_that_comes_late_widens_the_table() -> None:
    x, y = torch.randint(0, 3, (40, 3)), torch.arange(40) % 2
    x[-1] = torch.tensor([7, 0, 4])
    theirs = peers.CategoricalNB().fit(x.numpy(), y.numpy())
    parts = fitted(x, y, "categorical", 5)
    assert parts.categories.tolist() == theirs.n_categories_.tolist()
    assert relative(parts.log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-12
    wide = fitted(x, y, "categorical", 5, min_categories=[9, 1, 6])
    assert wide.categories.tolist() == [9, 3, 6]
    counts = widened(torch.ones(2, 3), torch.tensor([1, 0, 2]), torch.tensor([2, 1, 3]))
    assert counts.tolist() == [[1, 0, 0, 1, 1, 0]] * 2


def test_sums_of_sparse_rows_are_those_of_dense_ones() -> None:
    dense = scipy.sparse.random(50, 30, 0.1, format="csr", random_state=0)
    y = torch.randint(0, 4, (50,))
    parts = [torch.from_numpy(part) for part in (dense.indptr, dense.indices, dense.data)]
    x = sparse_rows(*parts, dense.shape)
    torch.testing.assert_close(class_sums(x, y, 5), class_sums(torch.from_numpy(dense.toarray()), y, 5))


# -- strides and types -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["transposed", "strided", "expanded", "float32", "int64", "uint8"])
def test_rows_may_lie_anyhow_in_memory(name: str, kind: str) -> None:
    x, y = digits()
    x, y = x[:200], y[:200]
    if kind == "expanded":
        odd = x[:, 3:4].contiguous().expand(200, 5)
        x = odd.contiguous()
    elif kind == "transposed":
        odd = x.T.contiguous().T
    elif kind == "strided":
        odd = torch.stack([x, x + 1], 2).flatten(1)[:, ::2]
    else:
        odd = x.to(getattr(torch, kind))
    plain, model = fitted(x, y, name), fitted(odd, y, name, 50)
    assert relative(model.log_joint(odd), plain.log_joint(x)) <= 1e-10


def test_images_are_flattened() -> None:
    x, y = digits()
    model = zoo.fit(zoo.create_model("naive_bayes"), x.view(-1, 1, 8, 8), y)
    assert torch.equal(model.predict(x.view(-1, 1, 8, 8)), fitted(x, y).predict(x))


@pytest.mark.parametrize("name", NAMES)
def test_on_the_device(name: str, device: torch.device) -> None:
    x, y = digits()
    here, there = fitted(x, y, name), create(name)
    there.build(here.spec).to(device).fit_batches(lambda: [Batch(x, y)])
    assert relative(there.log_joint(x).cpu(), here.log_joint(x)) <= 1e-10


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priors": [0.5, 0.6]}, "must sum to 1"),
        ({"priors": [1.5, -0.5]}, "at least 0"),
        ({"alpha": -1.0}, "at least 0"),
        ({"var_smoothing": -1e-9}, "at least 0"),
        ({"likelihood": "categorical", "alpha": [1.0, 2.0]}, "one number"),
        ({"likelihood": "multinomal"}, "multinomial"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.create_model("naive_bayes", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priors": [0.2, 0.3, 0.5]}, "3 numbers for 2 classes"),
        ({"likelihood": "multinomial", "alpha": [1.0, 2.0, 3.0]}, "3 numbers for 2 features"),
        ({"likelihood": "categorical", "min_categories": [1, 2, 3]}, "3 numbers for 2 features"),
    ],
)
def test_options_of_another_length_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.create_model("naive_bayes", spec=DataSpec("tabular", (2,), "class", num_classes=2), **options)


@pytest.mark.parametrize("name", ["multinomial", "complement"])
def test_negative_counts_are_one_line(name: str) -> None:
    with pytest.raises(
        ZooError, match=r"Counts cannot be negative, and the features hold -1: .*standardize=false"
    ) as caught:
        fitted(torch.tensor([[1.0, 2.0], [-1.0, 3.0]]), torch.tensor([0, 1]), name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "whole numbers"), (-1.0, "numbered from 0"), (1e9, "one after the other")]
)
def test_what_is_no_category_is_one_line(value: float, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        fitted(torch.tensor([[0.0], [value]]), torch.tensor([0, 1]), "categorical")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_one_line(name: str, value: float) -> None:
    if name == "bernoulli" and value == float("inf"):
        pytest.skip("infinity lies above any threshold")
    with pytest.raises(ZooError, match=r"NaN|whole numbers|numbered from 0"):
        fitted(torch.tensor([[0.0, 1.0], [value, 2.0]]), torch.tensor([0, 1]), name)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 1.0, 0.0]), torch.zeros(3)])
def test_fewer_than_two_classes_are_one_line(weight: Any) -> None:
    y = torch.zeros(3, dtype=torch.long) if weight is None else torch.tensor([0, 0, 1])
    with pytest.raises(ZooError, match=r"naive_bayes was given rows of [01] class(es)? .*at least two"):
        fitted(torch.randn(3, 2), y, weight=weight)


# -- priors, pictures ------------------------------------------------------------------------------------------------


def test_given_priors() -> None:
    x, y = digits()
    priors = [0.19, 0.01] + [0.1] * 8
    theirs = peers.GaussianNB(priors=priors).fit(x.numpy(), y.numpy())
    assert relative(fitted(x, y, priors=priors).log_joint(x), theirs.predict_joint_log_proba(x.numpy())) <= 1e-10
    uniform = peers.MultinomialNB(alpha=0.5, fit_prior=False).fit(x.numpy(), y.numpy())
    ours = fitted(x, y, "multinomial", priors="uniform")
    assert relative(ours.log_joint(x), uniform.predict_joint_log_proba(x.numpy())) <= 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tabular", "image"])
def test_pictures_can_be_drawn(name: str, kind: str, tmp_path) -> None:
    x, y = (rows[digits()[1] < 3] for rows in digits())
    x = x.view(-1, 1, 8, 8) if kind == "image" else x[:, 18:24]
    model = zoo.fit(create(name), x, y)
    batch = Batch(x[:200], y[:200])
    drawn = dict(model.pictures(batch, model.predict_batch(batch)))
    wanted = {"tabular": {"densities" if name == "gaussian" else "telling_features"}, "image": {"class_means"}}[kind]
    assert wanted <= set(drawn) or name == "categorical"
    for key in wanted & set(drawn):  # the others are drawn for every model
        figure = drawn[key]
        visual.save(figure, tmp_path / f"{key}.png")
        assert (tmp_path / f"{key}.png").stat().st_size > 1000


def test_the_features_that_are_drawn_are_those_that_tell_classes_apart() -> None:
    x, y = load_iris(return_X_y=True)
    model = zoo.fit(zoo.create_model("naive_bayes"), x, y)
    ratio = class_separation(model.mean, model.variance, model.log_prior.exp())
    from sklearn.feature_selection import f_classif

    assert ratio.argsort().tolist() == f_classif(x, y)[0].argsort().tolist()  # Fisher's F orders them alike
    counts = torch.tensor([[9.0, 1.0, 5.0], [1.0, 9.0, 5.0]])
    words = zoo.fit(zoo.create_model("naive_bayes", likelihood="multinomial"), counts, torch.tensor([0, 1]))
    assert words.log_odds()[:, 0].sign().tolist() == [1.0, -1.0]
    assert words.log_odds()[:, 2].abs().max() < 1e-9


def test_labels_of_categories() -> None:
    model = fitted(torch.tensor([[0, 1], [2, 0]]), torch.tensor([0, 1]), "categorical")
    assert model.feature_labels() == [
        "feature 0 = 0",
        "feature 0 = 1",
        "feature 0 = 2",
        "feature 1 = 0",
        "feature 1 = 1",
    ]
    assert Categorical().summarize(torch.zeros(0, 2), torch.zeros(0).long(), None, 2)["category_count"].shape == (2, 0)
