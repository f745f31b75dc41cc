"""The encoder of tables: the short way of plain numbers gives what the long one gives."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
import torch

from zoo.data.columns import TableOptions
from zoo.data.encoder import TableEncoder
from zoo.errors import ZooError


def encoder(missing: str = "refuse") -> TableEncoder:
    """Return one that has read a training table of the columns b and a."""
    table = pa.table({"b": [1.0, 3.0], "a": [0.0, 1.0]})
    made = TableEncoder(table.schema, TableOptions(missing=missing), "train.csv")
    made.learn_features([table])
    return made


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int32(), pa.decimal128(24, 3)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_numbers_of_any_type_in_any_order_of_columns(kind: pa.DataType, rows: int) -> None:
    a, b = (pa.array([start + i for i in range(9)]).cast(kind).slice(1, rows) for start in (0, 100))
    table = pa.table({"a": pa.chunked_array([a[:3], a[3:]]), "more": a, "b": pa.chunked_array([b])})
    expected = torch.arange(1.0, rows + 1, dtype=torch.float64)
    torch.testing.assert_close(
        encoder().encode_inputs(table, "new"), torch.stack([expected + 100, expected], 1), rtol=0, atol=0
    )


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_missing_value_takes_the_long_way(nothing: float | None) -> None:
    table = pa.table({"a": pa.array([1.0, nothing]), "b": pa.array([3.0, 4.0])})
    with pytest.raises(ZooError, match="'a'"):
        encoder().encode_inputs(table, "new")
    assert encoder("mean").encode_inputs(table, "new").tolist() == [[3.0, 1.0], [4.0, 0.5]]


def test_infinite_values_are_named_and_huge_ones_are_not() -> None:
    with pytest.raises(ZooError, match="'b' holds 1 infinite"):
        encoder().encode_inputs(pa.table({"a": [1.0, 2.0], "b": [math.inf, 2.0]}), "new")
    huge = pa.table({"a": [1e308, 1e308], "b": [1e308, 1e308]})  # whose sum is infinite
    assert bool((encoder().encode_inputs(huge, "new") == 1e308).all())
