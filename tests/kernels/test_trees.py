"""The compiled growth of trees beside the form in torch operations: the same trees, to the bit."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo import kernels
from zoo.kernels.codes import encode_rows
from zoo.kernels.trees import grow_trees
from zoo.models.trees import bins as tree_bins
from zoo.models.trees import in_memory
from zoo.models.trees.bins import Bins, Codes, bins_of, code_rows, encode, sketch_rows
from zoo.models.trees.bootstrap import Bootstrap, bootstrap_keys, poisson_thresholds
from zoo.models.trees.criteria import Criterion, units_for
from zoo.models.trees.nodes import Limits, RowSums, root_paths
from zoo.models.trees.sparse_codes import SparseCodes, code_sparse_rows
from zoo.models.trees.splits import Rules
from zoo.models.trees.trees import Trees, trees_of
from zoo.numerics.hashing import content_hash

COMPILED = list(kernels.runnable())


@pytest.fixture(params=COMPILED)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ZOO_KERNELS", request.param)
    if kernels.status().variant is None:
        pytest.skip(str(kernels.status()))
    return request.param


def a_case(seed: int, sparse: bool = False) -> tuple[Bins, Codes | SparseCodes, RowSums, Rules, Limits, dict[str, Any]]:
    """Rows, rules and limits of every kind, drawn; of sparse rows those that the kernel takes as they are."""
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, features = draw.choice([1, 2, 3, 10, 60, 300, 1500]), draw.choice([1, 2, 5, 12])
    x = torch.randn(rows, features, generator=make, dtype=torch.float64) * 10.0 ** draw.randint(-3, 4)
    if sparse:
        rows, features = min(rows, 300), draw.choice([1, 5, 12, 60])  # few of many features are met by few rows
        x = torch.randn(rows, features, generator=make, dtype=torch.float64) * 3
        x *= torch.rand(rows, features, generator=make) < draw.choice([0.02, 0.1, 0.6, 1.0])
    categorical = () if sparse or draw.random() >= 0.3 else tuple(f for f in range(features) if draw.random() < 0.5)
    x[:, list(categorical)] = (x[:, list(categorical)] * 3).round() % 11
    if draw.random() < 0.5:
        x = x.round()
    if draw.random() < 0.4:
        x[torch.rand(rows, features, generator=make) < 0.1] = torch.nan
    num_bins = draw.choice([16, 255] if categorical else [2, 4, 16, 255, None])
    bins, codes = code_sparse_rows(x.to_sparse_csr(), num_bins) if sparse else code_rows(x, num_bins, categorical)
    trees = draw.choice([1, 3])
    weight = torch.ones(rows, dtype=torch.float64)
    if draw.random() < 0.4:
        weight = torch.rand(rows, generator=make, dtype=torch.float64)
    if draw.random() < 0.2:
        weight[::3] = 0
    bootstrap, most = None, 1.0
    if trees > 1:
        rate = draw.choice([1.0, 0.4])
        bootstrap, most = Bootstrap(content_hash(x), bootstrap_keys(5, trees), poisson_thresholds(rate)), 15.0
    name = draw.choice(["gini", "entropy", "newton", "poisson", *([] if categorical or sparse else ["absolute_error"])])
    monotone = None
    if name in ("gini", "entropy"):
        sums = draw.choice([2, 3, 7])
        y = torch.randint(sums, (rows,), generator=make)
        criterion = Criterion(name, units_for(rows, float(weight.max()) * most))
        amounts = RowSums(criterion.units.fixed_weight(weight), y, None, bootstrap)
        directed = sums == 2
    elif name == "absolute_error":
        noise = torch.randn(rows, generator=make, dtype=torch.float64)
        values, place = (
            (x.nan_to_num(0)[:, 0].tanh() + noise).round(decimals=draw.choice([0, 1, 9])).unique(return_inverse=True)
        )
        sums, directed = len(values), True
        criterion = Criterion(name, units_for(rows, float(weight.max()) * most), values=values)
        amounts = RowSums(criterion.units.fixed_weight(weight), place, None, bootstrap)
    else:
        sums = 2 if name == "poisson" else draw.choice([2, 2, 4])
        noise = torch.randn(rows, sums - 1, generator=make, dtype=torch.float64).round(decimals=1)
        y = x.nan_to_num(0)[:, :1].tanh() + noise
        gradient = (y.abs().round() if name == "poisson" else y) * weight.unsqueeze(1)
        units = units_for(rows, float(weight.max()) * most, float(gradient.abs().max()) * most)
        criterion = Criterion(name, units, l2=draw.choice([0.0, 1.0]) if name == "newton" else 0.0)
        amounts = RowSums(units.fixed_weight(weight), None, units.fixed_gradient(gradient), bootstrap)
        directed = sums == 2 and name == "newton"
    if directed and draw.random() < 0.4:
        monotone = tuple(0 if f in categorical else draw.choice([-1, 0, 1]) for f in range(features))
    may_draw = not categorical and not sparse
    rules = Rules(
        criterion, min_samples_leaf=draw.choice([1, 1, 3]), min_weight_leaf=draw.choice([0.0, 0.0, 1.5]),
        categorical=categorical, monotone=monotone, random_thresholds=draw.random() < 0.3 and may_draw,
    )  # fmt: skip
    limits = Limits(
        max_depth=draw.choice([None, None, 3]), min_gain=draw.choice([0.0, 0.0, 1e-3]),
        max_leaf_nodes=draw.choice([None, None, 2, 9]),
        max_features=draw.choice([None, 1, 2, *([12] if sparse else [])]),
        histogram_size=1 << draw.choice([19, 25]),
    )  # fmt: skip
    return (
        bins,
        codes,
        amounts,
        rules,
        limits,
        {"num_trees": trees, "num_sums": sums, "paths": root_paths(draw.randrange(100), trees)},
    )


def assert_same_trees(ours: Trees, theirs: Trees) -> None:
    """The same questions and rows in every node; what is computed from sums agrees to rounding."""
    for name, a, b in zip(Trees._fields, ours, theirs, strict=True):
        if name in ("gain", "value", "weight"):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, equal_nan=True, msg=name)
        else:
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=name)


@functools.cache
def by_torch(seed: int, sparse: bool) -> tuple[Trees, Tensor]:
    """The trees of a case and the leaf of each row in torch operations, which every variant is held to."""
    bins, codes, amounts, rules, limits, options = a_case(seed, sparse)
    return in_torch(codes, amounts, bins, rules, limits, **options)


def in_torch(codes: Any, amounts: RowSums, bins: Bins, rules: Rules, limits: Limits, **options: Any) -> Any:
    nodes, leaf = in_memory.grow(codes.rows, amounts, bins, rules, limits, **options)
    return trees_of(nodes, options["num_trees"], rules, bins, leaf)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", range(6))
def test_the_kernel_grows_the_trees_of_the_torch_form(variant: str, threads: int, block: int) -> None:
    torch.set_num_threads(threads)
    for seed in range(15 * block, 15 * block + 15):
        assert_the_torch_forms_trees(seed)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 200), marks=pytest.mark.slow)])
def test_the_kernel_grows_the_trees_of_sparse_rows(threads: int, seeds: range) -> None:
    torch.set_num_threads(threads)
    for seed in seeds:
        assert_the_torch_forms_trees(seed, sparse=True)


def assert_the_torch_forms_trees(seed: int, sparse: bool = False) -> None:
    bins, codes, amounts, rules, limits, options = a_case(seed, sparse)
    plain, leaf = by_torch(seed, sparse)
    compiled, compiled_leaf = in_memory.grow_trees(codes, amounts, bins, rules, limits, **options)
    assert_same_trees(compiled, plain)
    assert torch.equal(compiled_leaf, leaf), seed
    without, _ = in_memory.grow_trees(codes, amounts, bins, rules, limits, **options, leaves=False)
    assert_same_trees(without, compiled)


def test_a_large_node_shares_its_features_among_threads(variant: str) -> None:
    x = torch.randn(60_000, 7, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] + 0.3 * torch.randn(60_000) > 0).long()
    for num_bins in (64, None):
        bins, codes = code_rows(x, num_bins)
        criterion = Criterion("gini", units_for(len(x), 1.0))
        amounts = RowSums(criterion.units.fixed_weight(torch.ones(len(x))), y)
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                in_memory.grow_trees(
                    codes, amounts, bins, Rules(criterion), Limits(max_depth=6), num_trees=1, num_sums=2
                )[0]
            )
        assert_same_trees(found[1], found[0])
        assert_same_trees(found[2], found[0])


def test_rows_are_encoded_as_by_searching(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(12):
        make = torch.Generator().manual_seed(seed)
        x = torch.randn(1 + 300 * seed, 4, generator=make, dtype=torch.float64) * 10.0 ** (50 * seed - 300)
        x[torch.rand(x.shape, generator=make) < 0.1] = torch.nan
        x[torch.rand(x.shape, generator=make) < 0.05] = torch.inf
        x[torch.rand(x.shape, generator=make) < 0.05] = -torch.inf
        for rows in (x, x[::2], x.T.contiguous().T, x[:, 1:3], x[:0], x[:1].expand(5, -1)):
            for num_bins in (3, 255, None):
                bins = bins_of(sketch_rows(x[:, : rows.shape[1]], num_bins), num_bins)
                monkeypatch.setenv("ZOO_KERNELS", variant)
                ours = encode(rows, bins)
                monkeypatch.setenv("ZOO_KERNELS", "0")
                theirs = encode(rows, bins)
                assert torch.equal(ours.rows, theirs.rows)
                assert torch.equal(ours.columns, theirs.columns)


def odd_rows(seed: int) -> Tensor:
    """Rows of every kind of column: noise, few values, heavy ones, missing and infinite ones, of many scales."""
    make = torch.Generator().manual_seed(seed)
    rows = [0, 1, 2, 48, 49, 300, 1003, 5000][seed % 8]
    x = torch.randn(rows, 11, generator=make, dtype=torch.float64) * 10.0 ** (30 * seed - 300)
    x[:, 1] = x[:, 1].sign()
    x[:, 2] = torch.nan
    x[:, 3] = torch.where(torch.rand(rows, generator=make) < 0.5, 0.0, x[:, 3])
    x[:, 4] = torch.randint(300, (rows,), generator=make).double().square()
    x[:, 5] = x[:, 5].float().double()
    x[:, 6] = torch.where(torch.rand(rows, generator=make) < 0.3, torch.inf, x[:, 6])
    x[:, 7] = torch.where(torch.rand(rows, generator=make) < 0.3, -torch.inf, x[:, 7])
    x[:, 8] = torch.where(torch.rand(rows, generator=make) < 0.8, torch.nan, x[:, 8])
    x[:, 9] = torch.where(torch.rand(rows, generator=make) < 0.7, x[:1, 9], x[:, 9])
    return x


@pytest.mark.parametrize("threads", [1, 3])
def test_bins_and_codes_are_those_of_sketches(variant: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(threads)
    for seed in range(16):
        x = odd_rows(seed)
        monkeypatch.setattr(tree_bins, "_SAMPLE_ROWS", [1 << 16, 700][seed // 8])
        for rows in (x, x[::3], x[:, 2:7], x[:, :0], x.T.contiguous().T):
            for num_bins in (None, 2, 255, 300, 4000):
                monkeypatch.setenv("ZOO_KERNELS", variant)
                ours = code_rows(rows, num_bins)
                monkeypatch.setenv("ZOO_KERNELS", "0")
                theirs = code_rows(rows, num_bins)
                for a, b in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
                    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_what_does_not_fit_is_refused(variant: str) -> None:
    bins, codes, *_ = a_case(9)
    edges, count = bins.edges, (bins.number - 1).clamp_min(0)
    x = torch.zeros(2, len(count), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="zoo::encode_rows: x and edges must be float64"):
        encode_rows(x.float(), edges, count, bins.missing)
    with pytest.raises(RuntimeError, match="count and missing must fit"):
        encode_rows(x, edges, count + bins.missing + 1, bins.missing)
    rest = (
        torch.zeros(1, dtype=torch.int64),
        None,
        None,
        2,
        0,
        12,
        1.0,
        1.0,
        0.0,
        -1,
        2,
        1,
        -1,
        1,
        False,
        0.0,
        0.0,
        False,
    )
    rows, features = codes.rows.shape
    weight, index = torch.ones(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    bin_ends = (torch.zeros(features, 2, dtype=torch.float64),) * 2
    columns = torch.zeros(features, rows, dtype=torch.uint8)
    arguments = [columns, columns.T.contiguous(), [], *bin_ends, weight, index, *[None] * 5, *rest]
    grow_trees(*arguments)
    entries = [
        torch.zeros(rows + 1, dtype=torch.int64), *[torch.zeros(0, dtype=torch.int32)] * 2,
        torch.zeros(features + 1, dtype=torch.int64), *[torch.zeros(0, dtype=torch.int32)] * 2,
        torch.zeros(features, dtype=torch.int32),
    ]  # fmt: skip
    grow_trees(*arguments[:2], entries, *arguments[3:])
    one = torch.ones(1, dtype=torch.int32)
    for place, wrong, message in (
        (0, columns + 3, "out of range"), (6, index + 2, "out of range"), (6, index - 1, "out of range"),
        (5, weight.float(), "weight must be int64"), (6, None, "one of index and gradient"),
        (1, columns, "rows must be"), (8, torch.zeros(2, dtype=torch.float64), "values must be"),
        (0, columns[:, 1:], "columns must be"), (2, entries[:3], "entries must be"),
        (2, [*entries[:6], entries[6] + 3], "zero_code"), (2, [entries[0] + 1, *entries[1:]], "no entries"),
        (2, [entries[0], one, one, entries[3], one, one, entries[6]], "no entries"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"zoo::grow_trees: .*{message}"):
            grow_trees(*[wrong if i == place else value for i, value in enumerate(arguments)])


def test_fake_tensors_pass_through() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        columns, rows = encode_rows(
            torch.empty(5, 3, dtype=torch.float64), torch.empty(3, 9, dtype=torch.float64),
            torch.empty(3, dtype=torch.int64), 10,
        )  # fmt: skip
    assert (tuple(columns.shape), tuple(rows.shape), rows.dtype) == ((3, 5), (5, 3), torch.uint8)


def odd_cases() -> Iterator[tuple[Bins, Codes, RowSums, Rules, Limits, dict[str, Any]]]:
    """One row, equal rows, features of nothing but missing values, one bin, as many codes as fit a byte."""
    infinite = torch.inf
    for rows, num_bins in itertools.product((1, 2, 5, 300, 700), (2, 254, 255, 256, None)):
        noise = torch.randn(rows, 1, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
        places = torch.arange(rows, dtype=torch.float64).unsqueeze(1)
        tables = {
            "equal": torch.zeros(rows, 3, dtype=torch.float64), "missing": torch.full((rows, 2), torch.nan).double(),
            "mixed": torch.cat([noise, noise * torch.nan, noise * 0, places % 255, places], dim=1),
            "ends": torch.cat([noise.sign() * infinite, places.where(places > rows / 2, torch.nan)], dim=1),
        }  # fmt: skip
        for name, (trees, leaves) in itertools.product(tables, ((1, None), (3, 7))):
            x = tables[name]
            categorical = (3,) if name == "mixed" and num_bins in (255, 256) else ()
            bins, codes = code_rows(x, num_bins, categorical)
            bootstrap = None
            if trees > 1:
                bootstrap = Bootstrap(content_hash(x), bootstrap_keys(5, trees), poisson_thresholds(1.0))
            units = units_for(rows, 15.0, 15.0)
            fixed, y = units.fixed_weight(torch.ones(rows)), (places[:, 0] % 2).long()
            of_classes = RowSums(fixed, y, None, bootstrap)
            of_values = RowSums(fixed, None, units.fixed_gradient(noise.clamp(-1, 1)), bootstrap)
            for criterion, sums in (("gini", of_classes), ("newton", of_values)):
                for places_looked_at, drawn in ((None, False), (1, False), (None, not categorical)):
                    rules = Rules(Criterion(criterion, units), categorical=categorical, random_thresholds=drawn)
                    limits = Limits(max_leaf_nodes=leaves, max_features=places_looked_at)
                    yield bins, codes, sums, rules, limits, {"num_trees": trees, "num_sums": 2}


def test_odd_cases(variant: str) -> None:
    for number, (bins, codes, sums, rules, limits, options) in enumerate(odd_cases()):
        if number % 101:  # all of them under the sanitizers
            continue
        plain, leaf = in_torch(codes, sums, bins, rules, limits, **options)
        compiled, compiled_leaf = in_memory.grow_trees(codes, sums, bins, rules, limits, **options)
        assert_same_trees(compiled, plain)
        assert torch.equal(compiled_leaf, leaf)


def test_no_finding_under_the_sanitizers(sanitized: Callable[[str], None]) -> None:
    script = """
import torch
from test_trees import a_case, code_rows, in_memory, odd_cases, odd_rows
for threads in (1, 3):
    torch.set_num_threads(threads)
    for seed in range(16):
        for num_bins in (None, 2, 255, 300):
            code_rows(odd_rows(seed), num_bins)
    for seed in range(600):
        bins, codes, sums, rules, limits, options = a_case(seed, sparse=seed >= 300)
        in_memory.grow_trees(codes, sums, bins, rules, limits, **options)
for bins, codes, sums, rules, limits, options in odd_cases():
    in_memory.grow_trees(codes, sums, bins, rules, limits, **options)
"""
    sanitized(script)
