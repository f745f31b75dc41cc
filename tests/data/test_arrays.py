"""Arrays of every sort as data, and one clear line for each that is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import zoo
from zoo.data.array_data import ArrayData
from zoo.data.arrays import encode_targets, spec_from_arrays, to_tensor
from zoo.errors import ZooError

NUMBERS = [[1.5, 2.0], [3.0, 4.25]]


@pytest.mark.parametrize(
    "x",
    [
        NUMBERS,
        tuple(map(tuple, NUMBERS)),
        np.array(NUMBERS),
        np.array(NUMBERS, dtype=">f8"),
        np.array(NUMBERS, dtype=np.longdouble),
        np.array(NUMBERS, dtype=object),
        np.asfortranarray(NUMBERS),
        np.array(NUMBERS)[::-1][::-1],
        np.array(NUMBERS[::-1])[::-1],
        torch.tensor(NUMBERS, dtype=torch.float64),
        [torch.tensor(row, dtype=torch.float64) for row in NUMBERS],
        pd.DataFrame(NUMBERS, columns=["a", "b"]),
        pa.table({"a": [1.5, 3.0], "b": [2.0, 4.25]}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_whatever_holds_numbers_becomes_the_same_tensor(x: Any) -> None:
    assert torch.equal(to_tensor(x).double(), torch.tensor(NUMBERS, dtype=torch.float64))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.float64, torch.float64),
        (np.float32, torch.float32),
        (np.float16, torch.float32),
        (np.int64, torch.float32),
        (np.uint8, torch.float32),
        (np.bool_, torch.float32),
        (np.uint16, torch.float32),
    ],
)
def test_types(source: type, target: torch.dtype) -> None:
    assert to_tensor(np.ones((2, 2), dtype=source)).dtype == target


def test_read_only_arrays_are_taken_without_a_copy_or_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    x = np.ones((3, 2))
    x.flags.writeable = False
    assert to_tensor(x).data_ptr() == x.ctypes.data
    assert not recwarn.list


def test_large_but_finite_values_pass() -> None:
    x = torch.full((4, 4), 1e38)
    assert torch.equal(to_tensor(x), x)  # their sum is infinite


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, float("nan")], [float("nan"), 2.0]], "X holds 2 NaN values"),
        ([[float("inf"), float("nan")]], "X holds 1 NaN and 1 infinite values"),
        ([["a", "b"]], "X holds text (such as 'a') where numbers"),
        ([[1.0], [2.0, 3.0]], "different lengths"),
        (np.array([[1 + 2j]]), "complex"),
        (torch.eye(2).to_sparse(), "sparse tensor"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "X holds dates"),
        (np.array([[None, 1.0]], dtype=object), "X holds 1 NaN"),
        (pd.DataFrame({"age": [1.0], "city": ["Rome"]}), "Column 'city' of X holds text (such as 'Rome')"),
        (pa.table({"a": ["x"]}), "Column 'a' of X holds text"),
    ],
)
def test_unfit_inputs(x: Any, message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)) as error:
        to_tensor(x)
    assert "\n" not in str(error.value)


def test_scipy_sparse_matrix_says_what_to_pass() -> None:
    from scipy.sparse import eye

    with pytest.raises(ZooError, match=r"pass X\.toarray\(\)"):
        to_tensor(eye(3))


@pytest.mark.parametrize(("shape", "kind"), [((6, 3), "tabular"), ((6, 4, 3), "sequence"), ((6, 1, 5, 5), "image")])
def test_kind_follows_from_the_axes(shape: tuple[int, ...], kind: str) -> None:
    spec = spec_from_arrays(np.zeros(shape))
    assert (spec.kind, spec.shape, spec.target, spec.dtype) == (kind, shape[1:], None, "float64")


def test_feature_names_come_from_the_columns() -> None:
    assert spec_from_arrays(pd.DataFrame({"a": [1.0], "b": [2.0]})).feature_names == ("a", "b")


@pytest.mark.parametrize(
    ("y", "codes", "names"),
    [
        ([0, 2, 1], [0, 2, 1], None),
        ([True, False, True], [1, 0, 1], ("False", "True")),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (np.array(["no", "yes", "no"], dtype=object), [0, 1, 0], ("no", "yes")),
        (pd.Series(["u", "v", "u"]), [0, 1, 0], ("u", "v")),
        (pa.chunked_array([["u", "v"], ["u"]]), [0, 1, 0], ("u", "v")),
        (torch.tensor([[0], [1], [1]]), [0, 1, 1], None),
        (np.array([0, 1, 1], dtype=np.uint8), [0, 1, 1], None),
        ([1, -1, 1], [1, 0, 1], ("-1", "1")),
        (np.array([7, 10**12, 3, 7]), [1, 2, 0, 1], ("3", "7", "1000000000000")),
        (torch.tensor([True, False]), [1, 0], ("False", "True")),
    ],
)
def test_labels(y: Any, codes: list[int], names: tuple[str, ...] | None) -> None:
    tensor, fields = encode_targets(y)
    assert tensor.tolist() == codes
    assert tensor.dtype == torch.int64
    assert fields == {"target": "class", "num_classes": max(codes) + 1, "class_names": names}


def test_values() -> None:
    tensor, fields = encode_targets(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert tensor.dtype == torch.float64
    assert fields == {"target": "value", "num_targets": 2}


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (range(-1, 40), "41 different integers from -1 to 39, which are rather values"),
        (np.arange(4000).repeat(3) * 10**6, "pass floats for values"),
        ([1, 1, 1], "a single class (1)"),
        (["x", "x"], "a single class (x)"),
        ([1.0, float("nan")], "y holds 1 NaN"),
        (np.zeros((2, 2, 2)), "must have shape (N,) or (N, K)"),
        (np.eye(3, dtype=int), "must have shape (N,), not (3, 3)"),
    ],
)
def test_unfit_targets(y: Any, message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)):
        encode_targets(y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(5),), "pass X[:, None]"),
        ((3.0,), "pass X[:, None]"),
        ((np.zeros((0, 3)),), "is empty"),
        ((np.zeros((3, 0)),), "is empty"),
        ((np.zeros((1, 1, 1, 1, 1)),), "5 axes"),
        ((np.zeros((3, 2)), [0, 1]), "X has 3 rows and y has 2"),
        ((np.zeros((3, 2)), None, [1.0, 2.0]), "one weight for each of the 3 rows"),
        ((np.zeros((2, 2)), None, [1.0, -2.0]), "non-negative"),
        ((np.zeros((2, 2)), None, [0.0, 0.0]), "positive for at least one"),
    ],
)
def test_arrays_that_do_not_fit_together(arguments: tuple, message: str) -> None:
    with pytest.raises(ZooError, match=re.escape(message)):
        ArrayData(*arguments)


def test_rows_keep_their_targets_and_weights_through_the_splits() -> None:
    x = torch.arange(40.0).view(20, 2)
    data = ArrayData(x, x.sum(1), x[:, 0] + 1, val_fraction=0.2, test_fraction=0.2, batch_size=5)
    seen = 0
    for split in ("train", "val", "test"):
        for batch in data.loader(split):
            assert torch.equal(batch.y, batch.x.sum(1))
            assert torch.equal(batch.weight, batch.x[:, 0] + 1)
            seen += batch.size
    assert seen == 20


# -- targets of further rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["maybe"] * 4, "the class 'maybe', which the training rows lack"),
        (np.ones(4), "the class '1.0', which the training rows lack"),
        (["no", "yes"], "X has 4 rows and y has shape"),
        (np.zeros((4, 2)), r"Class targets must have shape \(N,\)"),
    ],
)
def test_score_of_classes_that_the_training_rows_lack(y: Any, said: str) -> None:
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    model = zoo.fit(zoo.create_model("naive_bayes"), x, ["no", "no", "yes", "yes"])
    assert model.score(x, ["no", "no", "yes", "no"]) == 0.75
    with pytest.raises(ZooError, match=said):
        model.score(x, y)
    numbers = zoo.fit(zoo.create_model("naive_bayes"), x, [0, 0, 1, 1])
    assert numbers.score(x, [0.0, 0.0, 1.0, 0.0]) == 0.75
    with pytest.raises(ZooError, match="the class 'a', which the training rows lack"):
        numbers.score(x, ["a", "b", "a", "b"])


def test_score_of_values_takes_numbers_alone() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), x, [0.0, 1.0, 2.0, 4.0])
    assert model.score(x, [0, 1, 2, 4]) == pytest.approx(1.0)
    with pytest.raises(ZooError, match="y holds text"):
        model.score(x, ["a"] * 4)


BOOLEANS = [
    lambda y: y,
    lambda y: y.tolist(),
    lambda y: torch.from_numpy(y),
    lambda y: pd.Series(y),
    lambda y: pd.Series(y, dtype="boolean"),
    lambda y: pd.Series(y, dtype=object),
    lambda y: pd.DataFrame({"y": y}),
    lambda y: pa.table({"y": y}),
]


@pytest.mark.parametrize("given", BOOLEANS)
def test_booleans_come_back_as_booleans(given: Any, tmp_path: Path) -> None:
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    y = np.array([True, True, False, False])
    model = zoo.fit(zoo.create_model("naive_bayes"), x, given(y))
    zoo.save_model(model, tmp_path / "model.ckpt")
    for fitted in (model, zoo.load_model(tmp_path / "model.ckpt")):
        assert fitted.predict(x).tolist() == y.tolist()
        assert fitted.predict(x).dtype == torch.bool
        table = fitted.predict_table(x)
        assert table.column_names == ["prediction", "probability_False", "probability_True"]
        assert table["prediction"].to_pylist() == y.tolist()
        assert fitted.score(x, given(y)) == 1.0


@pytest.mark.parametrize("dtype", [str, object, "category"])
def test_a_table_of_one_column_is_taken_as_targets(dtype: Any) -> None:
    x, y = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), pd.Series(["no", "no", "yes", "yes"], name="y").astype(dtype)
    model = zoo.fit(zoo.create_model("naive_bayes"), x, y.to_frame())
    assert model.predict(x).tolist() == y.tolist()
    assert model.score(x, y.to_frame()) == 1.0


def test_a_dict_of_single_values_is_a_line() -> None:
    table = pd.DataFrame({"a": [0.0, 0.1, 5.0, 5.1], "b": ["u", "v", "u", "v"]})
    for frame in (table, table[["a"]]):
        model = zoo.fit(zoo.create_model("naive_bayes"), frame, [0, 0, 1, 1])
        with pytest.raises(ZooError, match="A dict holds columns, and 'a' of this one is a single value"):
            model.predict(dict(frame.iloc[0]))
        assert model.predict({name: [frame.iloc[0][name]] for name in frame}).tolist() == [0]
