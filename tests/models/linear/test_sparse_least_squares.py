"""Linear regression of sparse rows beside that of the same rows with their zeros."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.errors import NotConverged, ZooError
from zoo.models.linear import LinearRegression
from zoo.optimizers import Recipe


def bag(rows: int, features: int, targets: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, some of them never there, twice there or in all rows, with empty rows; targets and weights."""
    make = torch.Generator().manual_seed(rows)
    x = torch.poisson(torch.full((rows, features), 0.3, dtype=torch.float64), make)
    x[:, 1], x[:, 2], x[:, 3], x[::9] = 0.0, x[:, 4], 1.0, 0.0
    y = x @ torch.randn(features, targets, generator=make, dtype=torch.float64)
    y += 5 + torch.randn(rows, targets, generator=make, dtype=torch.float64)
    return x, y, torch.randint(3, (rows,), generator=make).double()


def fitted(x: Tensor, y: Tensor, weight: Tensor | None, sparse: bool, size: int = 1000, **options) -> LinearRegression:
    recipe = Recipe(l1=options.pop("l1", 0.0), l2=options.pop("l2", 0.0))
    spec = DataSpec("tabular", (x.shape[1],), "value", num_targets=y.shape[1], sparse=sparse)
    model = LinearRegression(**options)
    model.recipe = recipe
    model.build(spec)
    parts = [Batch(x, y, weight).rows(i) for i in torch.arange(len(x)).split(size)]
    parts = [part._replace(x=part.x.to_sparse_csr()) for part in parts] if sparse else parts
    model.fit_batches(lambda: parts)
    return model


@pytest.mark.parametrize(("shape", "dtype"), [((60, 15, 2), torch.float64), ((25, 40, 1), torch.float32)], ids=str)
@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 1e-9),
        ({"fit_intercept": False}, 1e-9),
        ({"l2": 0.01}, 1e-9),
        ({"l1": 0.05, "l2": 0.01}, 1e-6),
        ({"positive": True, "l2": 0.01}, 1e-6),
    ],
    ids=str,
)
def test_sparse_rows_give_the_coefficients_of_dense_ones(shape, dtype, options: dict, bound: float) -> None:
    """The shortest ones, where the rows determine none; with weights, and batch by batch in any order."""
    x, y, weight = bag(*shape)
    x = x.to(dtype)
    for s in (None, weight) if dtype == torch.float64 else (weight,):
        theirs = fitted(x, y, s, sparse=False, **options)
        ours = fitted(x, y, s, sparse=True, **options)
        assert ours.takes_sparse
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=bound, atol=bound)
        torch.testing.assert_close(ours.bias, theirs.bias, rtol=bound, atol=bound)
        torch.testing.assert_close(ours(x.double().to_sparse_csr()), theirs(x.double()), rtol=bound, atol=10 * bound)
        if "l1" in options:
            assert torch.equal(ours.weight == 0, theirs.weight == 0)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        again = fitted(x[order], y[order], None if s is None else s[order], sparse=True, size=7, **options)
        assert torch.equal(again.weight, ours.weight)


def test_what_is_left_of_the_targets() -> None:
    """The figures of a run are those of dense rows, whose features are independent here."""
    make = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((50, 6), 0.5), make).double()
    y = x @ torch.randn(6, 1, generator=make).double() + torch.randn(50, 1, generator=make).double()
    spec = {sparse: DataSpec("tabular", (6,), "value", sparse=sparse) for sparse in (False, True)}
    found = {}
    for sparse in (False, True):
        model = LinearRegression().build(spec[sparse])
        found[sparse] = model.fit_batches(lambda sparse=sparse: [Batch(x.to_sparse_csr() if sparse else x, y)])
    for name, value in found[False].items():
        torch.testing.assert_close(torch.as_tensor(found[True][name]), torch.as_tensor(value), rtol=1e-9, atol=1e-12)


def test_what_does_not_converge_says_so() -> None:
    x, y, _ = bag(90, 20)
    with pytest.warns(NotConverged, match="in 2 steps: raise model.max_iter"):
        model = fitted(x, y, None, sparse=True, max_iter=2)
    with pytest.raises(ZooError, match="A path needs the factor of dense rows"):
        model.path()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = fitted(x, y * 0 + 3, None, sparse=True)
    assert constant.weight.abs().max() < 1e-12
    assert constant.bias.item() == pytest.approx(3.0)
    none = fitted(x * 0, y, None, sparse=True)
    assert not none.weight.any()
    torch.testing.assert_close(none.bias, y.mean(0))
    with pytest.raises(ZooError, match="no row with a positive weight"):
        fitted(x, y, torch.zeros(len(x)), sparse=True)


def test_texts_to_values() -> None:
    texts = ["good", "very good", "bad", "very bad"] * 5
    model = zoo.fit(zoo.create_model("linear_regression"), texts, [1.0, 2.0, -1.0, -2.0] * 5)
    good, bad = model.predict(["good", "bad"]).flatten().tolist()
    assert good > 0.5 > -0.5 > bad
