"""Codes of sparse rows beside those of the same rows with their zeros."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from support import bits

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.trees import bins as bins_module
from zoo.models.trees.bins import code_rows
from zoo.models.trees.sparse_codes import code_sparse_rows


@pytest.mark.parametrize("num_bins", [2, 5, 255, None])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_bins_and_codes_of_dense_rows(num_bins: int | None, share: float) -> None:
    """Of features that are always or never there, missing, negative, or zero though stored; and by a sample."""
    make = torch.Generator().manual_seed(int(10 * share))
    for rows in (1, 2, 300):
        x = torch.randn(rows, 7, generator=make, dtype=torch.float64) * 10.0 ** torch.arange(-3, 4)
        x *= torch.rand(rows, 7, generator=make) < share
        x[:, 1], x[::3, 2], x[:, 3] = x[:, 1].round(), torch.nan, 4.0
        x[:, 4] = torch.randint(3, (rows,), generator=make).double() - 1
        for sample in (1 << 24, 7 * 50):
            with mock.patch.object(bins_module, "_SAMPLE_VALUES", sample):
                bins, codes = code_sparse_rows(x.to_sparse_csr(), num_bins)
                dense, dense_codes = code_rows(x + 0.0, num_bins)
            for ours, theirs in zip(bins, dense, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(codes.rows, dense_codes.rows)
    stored = x.to_sparse_csr()
    stored.values()[::2] = 0.0
    assert torch.equal(code_sparse_rows(stored, num_bins)[1].rows, code_rows(stored.to_dense(), num_bins)[1].rows)


@pytest.mark.parametrize(
    ("name", "hparams"),
    [
        ("decision_tree", {}),
        ("decision_tree", {"criterion": "absolute_error", "max_depth": 3}),
        ("decision_tree", {"random_thresholds": True, "seed": 1}),
        ("random_forest", {"num_trees": 5, "seed": 0}),
        ("random_forest", {"num_trees": 3, "num_bins": None, "monotone": [1] + [0] * 29, "seed": 0}),
        ("gradient_boosting", {"num_trees": 6, "seed": 0}),
        ("gradient_boosting", {"num_trees": 4, "patience": 3, "max_samples": 0.5, "max_features": 0.3, "seed": 0}),
    ],
    ids=str,
)
def test_trees_of_sparse_rows_are_those_of_dense_ones(name: str, hparams: dict) -> None:
    """To the bit, also of values that many bins hold, weighted, batch by batch in another order, and in float32."""
    make = torch.Generator().manual_seed(0)
    x = torch.randn(400, 30, generator=make).mul_(torch.rand(400, 30, generator=make) < 0.15)
    y = x[:, 0] - x[:, 1] * x[:, 2] + 0.1 * torch.randn(400, generator=make)
    weight = torch.randint(3, (400,), generator=make).double()
    spec = DataSpec("tabular", (30,), "value", dtype="float64")
    sparse = DataSpec("tabular", (30,), "value", dtype="float64", sparse=True)
    theirs = zoo.create_model(name, spec, **hparams)
    theirs.fit_batches(lambda: [Batch(x, y, weight)])
    order = torch.randperm(400, generator=make)
    for rows in ([order], order.split(33)):
        ours = zoo.create_model(name, sparse, **hparams)
        ours.fit_batches(lambda rows=rows: [Batch(x[r].to_sparse_csr(), y[r], weight[r]) for r in rows])
        assert ours.takes_sparse != bool(hparams.get("random_thresholds") or hparams.get("criterion"))
        if name == "gradient_boosting":  # whose start is a mean, of rows in another order
            torch.testing.assert_close(ours.trees, theirs.trees, rtol=1e-10, atol=1e-12, equal_nan=True)
        else:
            assert bits(ours.trees._asdict()) == bits(theirs.trees._asdict())
        if name == "random_forest":
            torch.testing.assert_close(ours.out_of_bag_score, theirs.out_of_bag_score, rtol=1e-12, atol=0)
        csr = Batch(x.to_sparse_csr(), y)
        torch.testing.assert_close(ours.predict(csr), theirs.predict(x, raw=False), rtol=1e-10, atol=1e-12)
        assert torch.equal(ours.apply_trees(csr.x), theirs.apply_trees(x))
