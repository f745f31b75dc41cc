"""Decision trees: scikit-learn's splits, every way in which rows may come, and what users read off them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from support import bits
from torch import Tensor

import zoo
from zoo import ZooError
from zoo.data.spec import Batch, DataSpec
from zoo.models.trees import DecisionTree, tree_model
from zoo.models.trees.bins import bins_of, code_rows, encode, merge_sketches, sketch_rows
from zoo.models.trees.trees import Trees, find_leaves


def data(name: str) -> tuple[Tensor, Tensor]:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return torch.from_numpy(x).double(), torch.from_numpy(y)


def fitted(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    batch_size: int | None = None,
    kept_bytes: int = 0,
    **hparams: Any,
) -> DecisionTree:
    """A tree of rows, in memory, or in passes over batches of `batch_size`, whose codes may take `kept_bytes`."""
    classes = None if y.is_floating_point() else int(y.max()) + 1
    targets = 1 if y.ndim == 1 else y.shape[1]
    spec = DataSpec(
        "tabular", (x.shape[1],), "value" if classes is None else "class", num_classes=classes, num_targets=targets,
        dtype=str(x.dtype).removeprefix("torch."),
    )  # fmt: skip
    model = zoo.create_model("decision_tree", spec, **{"num_bins": None, "seed": 0, **hparams})
    whole = Batch(x, y, weight)
    rows = torch.arange(len(x)).split(batch_size or len(x))
    with mock.patch.object(tree_model, "KEPT_BYTES", kept_bytes):
        model.fit_batches(lambda: [whole.rows(index) for index in rows])
    return model.eval()


def theirs(x: Tensor, y: Tensor, weight: Tensor | None = None, **options: Any) -> Any:
    kind = DecisionTreeRegressor if y.is_floating_point() else DecisionTreeClassifier
    return kind(random_state=0, **options).fit(x.numpy(), y.numpy(), None if weight is None else weight.numpy())


def assert_same_splits(ours: DecisionTree, peer: Any, x: Tensor) -> None:
    """Walk both trees from the root: the same question, rows and answer in each node, and gains where none decides."""
    trees, tree = ours.trees, peer.tree_
    assert (len(trees.feature), trees.max_depth) == (tree.node_count, peer.get_depth())
    stack = [(0, 0)]
    while stack:
        a, b = stack.pop()
        assert int(trees.num_rows[a]) == tree.n_node_samples[b]
        value = tree.value[b].ravel()
        np.testing.assert_allclose(trees.value[a].numpy(), value, rtol=1e-9, atol=1e-12)
        if tree.children_left[b] < 0:
            assert int(trees.left[a]) < 0
            continue
        assert int(trees.feature[a]) == tree.feature[b]
        assert float(trees.threshold[a]) == pytest.approx(tree.threshold[b], rel=1e-6)  # theirs are of float32 values
        left = int(trees.left[a])
        stack += [(left, tree.children_left[b]), (left + 1, tree.children_right[b])]
    importance = peer.feature_importances_
    np.testing.assert_allclose(ours.importances.numpy(), importance, rtol=1e-6, atol=1e-9)


def without_ties(seed: int, rows: int = 400, features: int = 6) -> tuple[Tensor, Tensor]:
    """Features of float32 values, all different, and noisy values that no two splits part equally well."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=make).double()
    y = x[:, 0].sin() + x[:, 1] * x[:, 2] + 0.3 * torch.randn(rows, generator=make).double()
    return x, y


# -- the figures that must hold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 100])
@pytest.mark.parametrize(
    ("name", "nodes", "depth"), [("iris", 17, 5), ("wine", 23, 5), ("breast_cancer", 43, 7), ("digits", 335, 15)]
)
def test_nodes_and_depth(name: str, nodes: int, depth: int, batch_size: int | None) -> None:
    x, y = data(name)
    model = fitted(x, y, batch_size=batch_size, num_bins=1000)
    assert (len(model.trees.feature), model.trees.max_depth) == (nodes, depth)
    assert torch.equal(model.predict(x), y)


@pytest.mark.parametrize(
    "options",
    [
        {"max_depth": 3},
        {"min_samples_leaf": 7},
        {"min_samples_split": 20},
        {"max_leaf_nodes": 12, "min_samples_leaf": 7},
        {"min_weight_fraction_leaf": 0.05},
        {"ccp_alpha": 0.01, "min_samples_leaf": 7},
        {"criterion": "poisson"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", ["compiled", "torch"])
def test_values_are_split_as_by_scikit_learn(
    options: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "torch":
        monkeypatch.setenv("ZOO_KERNELS", "0")
    x, y = without_ties(1)
    if options.get("criterion") == "poisson":
        y = y.exp()
        options = {**options, "min_samples_leaf": 5}
    assert_same_splits(fitted(x, y, **options), theirs(x, y, **options), x)


def test_min_gain_is_scikit_learns_min_impurity_decrease() -> None:
    x, y = without_ties(2)
    options = {"min_samples_leaf": 5}
    ours, peer = fitted(x, y, min_gain=0.004, **options), theirs(x, y, min_impurity_decrease=0.004, **options)
    assert 10 < len(ours.trees.feature) < 100
    assert_same_splits(ours, peer, x)


def test_weighted_rows_and_several_targets() -> None:
    x, y = without_ties(3)
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(1)).double() * 5
    assert_same_splits(fitted(x, y, weight, min_samples_leaf=4), theirs(x, y, weight, min_samples_leaf=4), x)
    both = torch.stack([y, x[:, 3].cos() + 0.2 * y], dim=1)
    assert_same_splits(fitted(x, both, min_samples_leaf=5), theirs(x, both, min_samples_leaf=5), x)


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
@pytest.mark.parametrize("options", [{"min_samples_leaf": 10}, {"max_leaf_nodes": 6, "min_samples_leaf": 10}], ids=str)
def test_classes_are_split_as_by_scikit_learn(criterion: str, options: dict[str, Any]) -> None:
    x, value = without_ties(4, rows=900)
    y = torch.bucketize(value, torch.tensor([-0.7, 0.6], dtype=torch.float64))
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(1)).double() + 0.5  # no two counts alike
    options = {**options, "criterion": criterion}
    assert_same_splits(fitted(x, y, weight, **options), theirs(x, y, weight, **options), x)


def test_missing_values_take_the_better_direction() -> None:
    x, y = without_ties(5)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.2] = torch.nan
    ours, peer = fitted(x, y, min_samples_leaf=15), theirs(x, y, min_samples_leaf=15)
    assert_same_splits(ours, peer, x)
    np.testing.assert_allclose(ours(x)[:, 0].numpy(), peer.predict(x.numpy()), rtol=1e-9)


def test_monotone_constraints() -> None:
    x, y = without_ties(6)
    options = {"min_samples_leaf": 5}
    ours = fitted(x, y, monotone=[1, 0, -1, 0, 0, 0], **options)
    peer = theirs(x, y, monotonic_cst=[1, 0, -1, 0, 0, 0], **options)
    assert_same_splits(ours, peer, x)
    grid = x[:50].repeat_interleave(40, 0)
    for feature, sign in ((0, 1), (2, -1)):
        moved = grid.clone()
        moved[:, feature] = torch.linspace(-3, 3, 40).double().repeat(50)
        steps = ours(moved)[:, 0].view(50, 40).diff(dim=1) * sign
        assert bool((steps >= 0).all())
        assert bool((steps > 0).any())


def best_loss(x: Tensor, y: Tensor, loss: Any) -> float:
    """The least sum of losses of both sides over all thresholds, by trying them all."""
    found = []
    for feature in range(x.shape[1]):
        for threshold in x[:, feature].unique()[:-1]:
            left = x[:, feature] <= threshold
            found.append(float(loss(y[left]) + loss(y[~left])))
    return min(found)


@pytest.mark.parametrize("seed", range(4))
def test_absolute_error_against_all_splits(seed: int) -> None:
    x, y = without_ties(seed, rows=60, features=3)
    model = fitted(x, y, criterion="absolute_error", max_depth=1)
    ours = (model(x)[:, 0] - y).abs().sum()
    assert float(ours) == pytest.approx(best_loss(x, y, lambda part: (part - part.quantile(0.5)).abs().sum()), rel=1e-9)


def test_each_split_by_absolute_error_is_the_best_of_all() -> None:
    x, y = without_ties(7, rows=120, features=3)
    model = fitted(x, y, criterion="absolute_error", min_samples_leaf=9)
    trees, rows = model.trees, {0: torch.arange(len(x))}

    def error(part: Tensor) -> float:
        return float((part - part.quantile(0.5)).abs().sum())

    for node in range(len(trees.feature)):
        here = rows[node]
        column = x[here]
        sides = [(column[:, f] <= t) for f in range(3) for t in column[:, f]]
        gains = [
            error(y[here]) - error(y[here[side]]) - error(y[here[~side]])
            for side in sides
            if 9 <= int(side.sum()) <= len(here) - 9
        ]
        left = int(trees.left[node])
        if left < 0:
            assert max(gains, default=0.0) < 1e-9
            continue
        assert float(trees.gain[node]) == pytest.approx(max(gains), rel=1e-9)
        side = column[:, int(trees.feature[node])] <= trees.threshold[node]
        rows[left], rows[left + 1] = here[side], here[~side]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", ["class", "value"])
def test_categories_against_all_subsets(target: str, seed: int) -> None:
    """Of two classes, and of values, the order by mean target finds the best of all 2⁵ subsets."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randint(6, (80, 1), generator=make).double() * 10
    y = torch.randn(6, generator=make).double()[(x[:, 0] / 10).long()] + torch.randn(80, generator=make).double()

    def squared(part: Tensor) -> float:
        return float((part - part.mean()).square().sum()) if len(part) else 0.0

    targets = (y > 0).long() if target == "class" else y
    values = targets.double()
    model = fitted(x, targets, categorical_features=[0], max_depth=1)
    best = min(
        squared(values[left]) + squared(values[~left])
        for size in range(1, 6)
        for subset in itertools.combinations(range(6), size)
        for left in [torch.isin(x[:, 0], torch.tensor(subset).double() * 10)]
    )
    leaf = find_leaves(model.trees, x)[0]
    assert sum(squared(values[leaf == node]) for node in leaf.unique()) == pytest.approx(best, rel=1e-9)
    unknown = torch.tensor([[70.0], [torch.nan]]).double()
    assert torch.equal(model(unknown)[0], model(unknown)[1])  # a category never seen is a missing value


# -- every way in which rows may come ----------------------------------------------------------------------------------


def rows_for_all_rules(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(240, 5, generator=make).double()
    x[:, 3] = x[:, 3].round()
    x[torch.rand(x.shape, generator=make) < 0.1] = torch.nan
    y = torch.randint(3, (240,), generator=make)
    return x, y, torch.rand(240, generator=make).double()


@pytest.mark.parametrize(
    "options",
    [
        {}, {"num_bins": 8}, {"max_features": 2}, {"max_leaf_nodes": 9}, {"categorical_features": [3]},
        {"num_bins": 8, "histogram_mb": 1}, {"min_samples_leaf": 4, "criterion": "entropy"},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_bits_for_any_batches_and_order(options: dict[str, Any]) -> None:
    x, y, weight = (rows[:120] for rows in rows_for_all_rules())  # batches of one row are slow
    state = None
    for batch_size, seed in ((None, None), (1, None), (7, 1), (64, 2), (120, 3)):
        order = (
            torch.arange(120) if seed is None else torch.randperm(120, generator=torch.Generator().manual_seed(seed))
        )
        model = fitted(x[order], y[order], weight[order], batch_size, **{"max_depth": 6, **options})
        found = bits(model.trees._asdict())
        assert found == (state or found), (batch_size, seed)
        state = found


def test_a_histogram_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.models.trees.growth import Growth

    x, y, weight = rows_for_all_rules(1)
    whole = fitted(x, y, weight, 50, num_bins=16)
    limits = Growth.limits
    monkeypatch.setattr(Growth, "limits", lambda *known: dataclasses.replace(limits(*known), histogram_size=600))
    parts = fitted(x, y, weight, 50, num_bins=16)
    assert bits(parts.trees._asdict()) == bits(whole.trees._asdict())


def test_in_float32_strided_shifted_and_scaled() -> None:
    x, y, weight = rows_for_all_rules(2)
    x = x.float().double()
    plain = fitted(x, y, weight)
    for same in (x.float(), x.T.contiguous().T, torch.cat([x, x], 1)[:, :5], x.repeat_interleave(2, 0)[::2]):
        assert bits(fitted(same, y, weight).trees._asdict()) == bits(plain.trees._asdict())
    leaves = find_leaves(plain.trees, x)[0]
    for scale in (2.0**-900, 2.0**900):
        model = fitted(x * scale, y, weight)
        assert torch.equal(find_leaves(model.trees, x * scale)[0], leaves)
    rows, values = without_ties(1)
    tree = fitted(rows, values)
    for factor, shift in ((1e-150, 0.0), (1e150, 0.0), (1.0, 1e8)):
        other = fitted(rows, values * factor + shift, max_depth=4)
        expected = fitted(rows, values, max_depth=4)
        assert torch.equal(other.trees.feature, expected.trees.feature)
        torch.testing.assert_close(other.trees.value, expected.trees.value * factor + shift, rtol=1e-7, atol=0.0)
    heavy = fitted(rows, values, torch.full((len(rows),), 1e250, dtype=torch.float64))
    assert bits({"feature": heavy.trees.feature}) == bits({"feature": tree.trees.feature})
    assert tree.trees.num_leaves == len(rows)


def test_rows_that_leave_nothing_to_split() -> None:
    y = torch.tensor([0, 1, 1, 0])
    for x in (torch.ones(4, 3).double(), torch.full((4, 2), torch.nan).double()):
        model = fitted(x, y)
        assert len(model.trees.feature) == 1
        torch.testing.assert_close(model(x).exp(), torch.full((4, 2), 0.5).double())
    one = fitted(torch.ones(1, 2).double(), torch.tensor([2.5]).double())
    assert one.predict(torch.zeros(3, 2)).tolist() == [2.5, 2.5, 2.5]
    same = fitted(torch.randn(9, 2).double(), torch.full((9,), 0.1).double())
    assert len(same.trees.feature) == 1


def test_exclusive_or_is_learned_though_the_first_split_gains_nothing() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double().repeat(5, 1)
    y = (x[:, 0] != x[:, 1]).long()
    for batch_size in (None, 3):
        assert torch.equal(fitted(x, y, batch_size=batch_size).predict(x), y)


def test_weights_repeat_rows_and_zero_leaves_them_out() -> None:
    x, y = without_ties(8, rows=120)
    weight = torch.arange(120) % 3
    repeated = fitted(x.repeat_interleave(weight, 0), y.repeat_interleave(weight), max_depth=5)
    weighted = fitted(x, y, weight.double(), max_depth=5)
    torch.testing.assert_close(weighted(x), repeated(x), rtol=1e-9, atol=1e-12)


# -- bins --------------------------------------------------------------------------------------------------------------


def test_a_sketch_does_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.models.trees import bins as module

    monkeypatch.setattr(module, "_SAMPLE_ROWS", 300)
    x = torch.randn(1000, 3).double()
    x[:, 1] = x[:, 1].round()
    x[::7, 2] = torch.nan
    whole = bins_of(sketch_rows(x, 20), 20)
    for batch_size in (1, 33, 400):
        parts = [sketch_rows(part, 20) for part in x[torch.randperm(1000)].split(batch_size)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merge_sketches([merged, part], 20)
        for a, b in zip(bins_of(merged, 20), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert whole.number[1] == len(x[:, 1].unique())
    counts = torch.bincount(encode(x, whole).rows[:, 0].long(), minlength=20)
    assert counts.min() > 20  # 50 on average, of a sample of 300


def test_a_value_that_fills_many_bins_leaves_them_to_the_others() -> None:
    x = torch.cat([torch.zeros(9000), torch.randn(1000)]).double().view(-1, 1)
    bins, codes = code_rows(x, 16)
    assert int(bins.number[0]) >= 12
    assert int(torch.bincount(codes.rows[9000:, 0].long()).max()) < 300


def test_ranks_are_the_codes_of_all_distinct_values() -> None:
    x = torch.randn(500, 3).double()
    x[:, 1] = x[:, 1].round()
    x[::5, 2], x[3, 0], x[4, 0], x[5, 1], x[6, 1] = torch.nan, torch.inf, -torch.inf, 0.0, -0.0
    bins, codes = code_rows(x, None)
    other = bins_of(sketch_rows(x, None), None)
    for a, b in zip(bins, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(codes.rows.long(), encode(x, other).rows.long())


# -- one line ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"max_depth": 0}, "model.max_depth must be at least 1, not 0"),
        ({"min_samples_split": 1}, "model.min_samples_split must be at least 2"),
        ({"max_features": 0}, "model.max_features must be above 0"),
        ({"max_features": 1.5}, "model.max_features must be above 0 and at most 1"),
        ({"monotone": [2]}, "model.monotone must hold 1, 0 or -1"),
        ({"monotone": [1]}, "model.monotone needs a number for each of the 2 features, not 1"),
        ({"categorical_features": [5]}, "model.categorical_features must be between 0 and 1"),
        ({"criterion": "poisson"}, "model.criterion=poisson does not fit class targets: choose gini or entropy"),
    ],
)  # fmt: skip
def test_a_bad_hyperparameter_is_one_line(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        zoo.create_model("decision_tree", DataSpec("tabular", (2,), "class", num_classes=2), **hparams)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hparams", [{}, {"num_bins": 9}, {"criterion": "absolute_error", "max_depth": 4}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_rows_that_are_kept_give_the_tree_of_passes(name: str, weighted: bool, hparams: dict[str, Any]) -> None:
    x, y = data(name)
    if "criterion" in hparams and not y.is_floating_point():
        hparams = {"criterion": "entropy"}
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(0)).double() if weighted else None
    if weight is not None:
        weight[::7] = 0
    kept = fitted(x, y, weight, 50, kept_bytes=1 << 28, **hparams)
    passes = fitted(x, y, weight, 50, **hparams)
    assert not kept.coded_rows.numel()
    for column, ours, other in zip(Trees._fields, kept.trees, passes.trees, strict=True):
        bound = 1e-12 if column == "gain" else 0.0  # of weights it is a sum, which the kernel rounds by itself
        torch.testing.assert_close(ours, other, rtol=bound, atol=bound, equal_nan=True)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_bad_rows_are_one_line(batch_size: int | None) -> None:
    x, y = torch.randn(6, 2).double(), torch.tensor([0, 1, 0, 1, 0, 1])
    spec = DataSpec("tabular", (2,), "class", num_classes=2)

    def fit(x: Tensor, y: Tensor | None, weight: Tensor | None = None, spec: DataSpec = spec, **hparams: Any) -> None:
        model = zoo.create_model("decision_tree", spec, **hparams)
        batches = [Batch(x, y, weight).rows(i) for i in torch.arange(6).split(batch_size or 6)]
        model.fit_batches(lambda: batches)

    values = DataSpec("tabular", (2,), "value")
    for arguments, message in (
        ((x, torch.zeros(6).long()), "a single class"),
        ((x, y, -torch.ones(6)), "negative sample weights"),
        ((x, y, torch.zeros(6)), "no rows with a weight above 0"),
        ((x, torch.tensor([1.0, torch.nan, 1, 1, 1, 1]), None, values), "targets that are NaN or infinite"),
        ((x, None, None, values), "the data have none"),
    ):
        with pytest.raises(ZooError, match=message) as caught:
            fit(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(ZooError, match="poisson needs targets of 0 or more"):
        fit(x, -torch.ones(6).double(), None, values, criterion="poisson")
    with pytest.raises(ZooError, match=r"Categorical feature 0 has more than 3 categories: raise model.num_bins"):
        fit(x, y, categorical_features=[0], num_bins=3)


def test_more_bins_than_memory_is_one_line() -> None:
    x, y = torch.randn(9000, 30).double(), torch.randint(2, (9000,))
    with pytest.raises(ZooError, match=r"The histogram of one node would hold .* lower model.num_bins"):
        fitted(x, y, batch_size=4500, histogram_mb=1)


# -- what users read off a tree ----------------------------------------------------------------------------------------


def test_text_graphviz_and_pictures() -> None:
    x, y = data("iris")
    model = zoo.fit(zoo.create_model("decision_tree", max_depth=2, num_bins=None), x, y)
    assert model.to_text().splitlines()[0].startswith("|-- x[")
    dot = model.to_graphviz()
    assert dot.count("->") == len(model.trees.feature) - 1
    assert dot.count("label=") == 2 * len(model.trees.feature) - 1
    figure = model.diagram()
    assert len(figure.axes[0].texts) == 2 * len(model.trees.feature)
    names = [name for name, _ in model.pictures(Batch(x, y), model.predict_columns(x))]
    assert names == ["tree", "importances"]
    (table,) = model.tables()
    assert sum(row["importance"] for row in table[1]) == pytest.approx(1.0)


def test_a_categorical_question_in_words() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(5).double().view(-1, 1)
    model = fitted(x, ((x[:, 0] == 1) | (x[:, 0] == 3)).long(), categorical_features=[0])
    assert len(model.trees.feature) == 3
    assert "x[0] in {0, 2}: 0" in model.to_text() or "x[0] in {1, 3}: 1" in model.to_text()


def test_a_leaf_alone_is_loaded_as_it_was() -> None:
    model = fitted(torch.ones(10, 2).double(), torch.tensor([0, 1] * 5))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = zoo.create_model("decision_tree", model.spec)
    loaded.load_state_dict(state)
    assert loaded.to_text() == model.to_text() == "0 (50%), 10 rows"
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]) or bool((value.isnan() & state[name].isnan()).all()), name


def test_models_that_begin_alike_share_nothing_that_changes() -> None:
    spec = DataSpec("tabular", (13,), "class", num_classes=2)
    with torch.device("meta"):
        zoo.create_model("decision_tree", spec)
    with torch.inference_mode():
        zoo.create_model("decision_tree", DataSpec("tabular", (14,), "value"))
    one, other, model = (zoo.create_model("decision_tree", spec) for _ in range(3))
    assert all(value.device.type == "cpu" for value in one.state_dict().values())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    fitted_to = Batch(torch.ones(8, 13).double(), torch.tensor([0, 1] * 4))
    model.fit_batches(lambda: [fitted_to])
    one.load_state_dict(model.state_dict())
    one.load_state_dict(other.state_dict())
    values = zoo.create_model("decision_tree", DataSpec("tabular", (14,), "value"))
    assert not any(value.is_inference() for value in values.state_dict().values())
    for name, value in other.state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7)), name
