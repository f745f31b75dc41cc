"""CSV files as users have them: the stated rules, and one line that names file, column and remedy where they end."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch

import zoo
from zoo.data import create_data
from zoo.data.tables import CsvFormat, header_of
from zoo.errors import ZooError

WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0, "standardize": False}


def write(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def load(path: Any, kind: str = "csv", **options: Any) -> Any:
    """Return the DataModule and all its training rows."""
    data = create_data(kind, path=path, **{**WHOLE, **options})
    return data, data.rows("train")[torch.arange(len(data.rows("train")))]


def refusal(path: Any, kind: str = "csv", **options: Any) -> str:
    with pytest.raises(ZooError) as error:
        load(path, kind, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_numbers_and_a_value(tmp_path: Path) -> None:
    data, batch = load(write(tmp_path, "a,b,y\n1,2.5,10\n3,-4e2,20.5\n"), target="y")
    assert batch.x.tolist() == [[1.0, 2.5], [3.0, -400.0]]
    assert batch.y.tolist() == [10.0, 20.5]
    assert (data.spec.target, data.spec.feature_names, data.spec.target_names) == ("value", ("a", "b"), ("y",))
    assert batch.x.dtype == batch.y.dtype == torch.float64


def test_text_and_integers_are_classes_unless_told(tmp_path: Path) -> None:
    path = write(tmp_path, "x,word,digit\n1,no,3\n2,yes,7\n3,no,3\n")
    data, batch = load(path, target="word", drop=["digit"])
    assert batch.y.tolist() == [0, 1, 0]
    assert data.spec.class_names == ("no", "yes")
    data, batch = load(path, target="digit", features=["x"])
    assert batch.y.tolist() == [0, 1, 0]
    assert data.spec.class_names == ("3", "7")
    data, batch = load(path, target="digit", features=["x"], task="regression")
    assert batch.y.tolist() == [3.0, 7.0, 3.0]
    data, batch = load(path, target="x", features=["digit"], task="classification")
    assert data.spec.num_classes == 3


def test_more_than_twenty_integers_are_values(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i}" for i in range(21))
    assert load(write(tmp_path, f"x,y\n{rows}\n"), target="y")[0].spec.target == "value"
    assert load(write(tmp_path, f"x,y\n{rows}\n"), target="y", task="classification")[0].spec.num_classes == 21


def test_without_a_target(tmp_path: Path) -> None:
    data, batch = load(write(tmp_path, "a,b\n1,2\n3,4\n"))
    assert batch.y is None
    assert data.spec.target is None


def test_onehot_is_said_in_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data, batch = load(write(tmp_path, "city,n\nRome,1\nBonn,2\n Rome ,3\n"))
    assert data.spec.feature_names == ("city=Bonn", "city=Rome", "n")
    assert batch.x.tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 3]]
    assert "Column 'city' holds text: 2 values, coded as onehot." in caplog.text


def test_codes(tmp_path: Path) -> None:
    _, batch = load(write(tmp_path, "city\nRome\nBonn\nRome\n"), text="codes")
    assert batch.x.tolist() == [[1], [0], [1]]


def test_text_of_many_values_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "name\n" + "\n".join(f"name {i}" for i in range(21)) + "\n")
    assert "Column 'name' holds text of more than 20 different values (such as 'name 0')" in refusal(path)
    assert load(path, text="codes")[1].x[:, 0].max() == 20
    assert load(path, text="onehot")[1].x.shape == (21, 21)
    assert "data.drop=[name]" in refusal(path, text="refuse")


@pytest.mark.parametrize("form", ["{},25", "1.{:03},5", '"1,{:03}.5"', "{} %", "{}%"])
def test_numbers_in_another_notation_are_no_codes(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, "a;b\n" + "".join(f"{form.format(i)};x\n" for i in range(21)))
    message = refusal(path, delimiter=";")
    assert "Column 'a' holds text of more than 20" in message
    assert "they are numbers, which are read with a point and without other signs: write them so" in message
    assert "codes" not in message


def test_columns_are_left_out_by_names_that_a_shell_hands_on(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b c,"d,e",\n1,,,\n2,,,\n')
    assert """or "data.drop=['b c', 'd,e', '']".""" in refusal(path)
    _, batch = load(path, drop=["b c", "d,e", ""])
    assert batch.x.tolist() == [[1], [2]]


def test_text_in_a_numeric_column(tmp_path: Path) -> None:
    path = write(tmp_path, "age\n1\n2\nabc\n4\n")
    assert "Column 'age' holds numbers but also text (such as 'abc')" in refusal(path)
    _, batch = load(path, null_values=["abc"], missing="zero")
    assert batch.x.flatten().tolist() == [1, 2, 0, 4]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("mean", [1, 4, 3, 8]), ("median", [1, 3, 3, 8]), ("zero", [1, 0, 3, 8]), ("drop", [1, 3, 8])],
)
def test_missing_values(tmp_path: Path, missing: str, expected: list[float]) -> None:
    path = write(tmp_path, "a,b\n1,x\n?,y\n3,x\n8,x\n")
    assert load(path, missing=missing)[1].x[:, 0].tolist() == expected


def test_missing_values_are_refused_by_name_and_count(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2,3\n,2,\n,5,6\n")
    message = refusal(path)
    assert "column 'a' lacks 2 of 3 values (and 1 more columns): pass data.missing=mean" in message
    assert "data.drop=[a,c]" in message


def test_missing_text_is_all_zeros(tmp_path: Path) -> None:
    _, batch = load(write(tmp_path, "a,b\nu,1\n?,2\nv,3\n"), missing="mean")
    assert batch.x[:, :2].tolist() == [[1, 0], [0, 0], [0, 1]]


def test_missing_targets(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n1,2.5\n2,\n3,4.5\n")
    assert "target column 'y' lacks 1 of 3 values: pass data.missing=drop" in refusal(path, target="y", missing="mean")
    assert load(path, target="y", missing="drop")[1].y.tolist() == [2.5, 4.5]


def test_fill_values_and_categories_come_from_the_training_rows(tmp_path: Path) -> None:
    train = write(tmp_path, "a,c,y\n1,u,0\n3,v,1\n,u,1\n", "train.csv")
    test = write(tmp_path, "y,c,a\n1,w,\n0,v,1000\n", "test.csv")
    data, batch = load(train, target="y", missing="mean", test_path=test)
    assert batch.x.tolist() == [[1, 1, 0], [3, 0, 1], [2, 1, 0]]
    held_out = data.rows("test")[torch.arange(2)]
    assert held_out.x.tolist() == [[2, 0, 0], [1000, 0, 1]], "columns by name; an unknown category is all zeros"
    assert held_out.y.tolist() == [1, 0]
    assert not data.has("val")


def test_given_splits_replace_fractions(tmp_path: Path) -> None:
    rows = "a,y\n" + "\n".join(f"{i},{i % 2}" for i in range(20)) + "\n"
    train, val, test = (write(tmp_path, rows, name) for name in ("a.csv", "b.csv", "c.csv"))
    data = create_data("csv", path=train, target="y", val_path=val, test_path=test)
    assert [len(data.rows(name)) for name in ("train", "val", "test")] == [20, 20, 20]
    data = create_data("csv", path=train, target="y", test_path=test)
    assert [len(data.rows(name)) for name in ("train", "val", "test")] == [18, 2, 20]


def test_an_unknown_class_in_the_test_file(tmp_path: Path) -> None:
    train = write(tmp_path, "a,y\n1,no\n2,yes\n", "train.csv")
    test = write(tmp_path, "a,y\n1,no.\n", "test.csv")
    message = refusal(train, target="y", test_path=test)
    assert f"{test}: target 'y' has the class 'no.', which the training rows lack" in message
    data, _ = load(train, target="y", test_path=test, replace=[["no.", "no"]])
    assert data.rows("test")[torch.arange(1)].y.tolist() == [0]


def test_files_without_a_header_gzip_lists_folders_and_patterns(tmp_path: Path) -> None:
    for name, text in (("a.csv.gz", "1, u\n2, v\n"), ("b.csv.gz", "3, u\n")):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    both = [str(tmp_path / "a.csv.gz"), str(tmp_path / "b.csv.gz")]
    for path in (both, str(tmp_path), str(tmp_path / "*.csv.gz")):
        _, batch = load(path, columns=["n", "c"], target="c")
        assert batch.x.flatten().tolist() == [1, 2, 3]
        assert batch.y.tolist() == [0, 1, 0]


def test_quotes_delimiters_encodings_and_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffa;"b;c"\r\n1;"two\nlines"\r\n2;x\r\n')
    data, _ = load(path, delimiter=";")
    assert data.spec.feature_names == ("a", "b;c=two\nlines", "b;c=x")
    (tmp_path / "latin.csv").write_bytes("é,n\nà,1\nü,2\n".encode("latin1"))
    data, _ = load(str(tmp_path / "latin.csv"), encoding="latin1")
    assert data.spec.feature_names == ("é=à", "é=ü", "n")


def test_booleans_and_large_integers(tmp_path: Path) -> None:
    _, batch = load(write(tmp_path, "a,b\ntrue,9007199254740993\nfalse,12345678901234567890123\n"))
    assert batch.x[:, 0].tolist() == [1, 0]
    assert batch.x[:, 1].tolist() == [9007199254740993.0, 12345678901234567890123.0]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_boolean_target_keeps_its_name_and_type(form: str, tmp_path: Path) -> None:
    table = pa.table({"a": [0.1 * i for i in range(20)], "y": [i > 9 for i in range(20)]})
    if form == "csv":
        pacsv.write_csv(table, tmp_path / "t.csv")
    else:
        pq.write_table(table, tmp_path / "t.parquet")
    data = create_data(form, path=str(tmp_path / f"t.{form}"), target="y", val_fraction=0.0, test_fraction=0.0)
    model = zoo.fit(zoo.create_model("naive_bayes"), data)
    zoo.save_model(model, tmp_path / "model.ckpt")
    answer = zoo.load_model(tmp_path / "model.ckpt").predict_table(table.select(["a"]))
    assert answer.column_names == ["prediction", "probability_False", "probability_True"]
    assert answer["prediction"].to_pylist() == table["y"].to_pylist()


def test_same_numbers_as_pandas(shared_data: Path) -> None:
    path = shared_data / "tables" / "california_housing" / "housing.csv.gz"
    data, batch = load(str(path), target="median_house_value", missing="mean")
    frame = pd.get_dummies(pd.read_csv(path), columns=["ocean_proximity"], prefix_sep="=").astype(float)
    frame = frame.fillna(frame.mean())
    assert batch.y.tolist() == frame.pop("median_house_value").tolist()
    np.testing.assert_allclose(batch.x.numpy(), frame.to_numpy(), rtol=1e-12)
    assert data.spec.feature_names == tuple(frame.columns)


def test_census_with_its_own_test_file(shared_data: Path) -> None:
    """No header, blanks after commas, '?' for missing, and a dot after each class in the test file."""
    numbers = ["age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
    columns = ["age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"]
    columns += ["relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country"]
    columns += ["income"]
    folder = shared_data / "tables" / "adult"
    data, batch = load(
        str(folder / "adult-train.csv.gz"),
        columns=columns,
        target="income",
        text="onehot",
        missing="drop",
        test_path=str(folder / "adult-test.csv.gz"),
        replace=[["<=50K.", "<=50K"], [">50K.", ">50K"]],
    )
    assert data.spec.class_names == ("<=50K", ">50K")
    assert set(numbers) <= set(data.spec.feature_names)
    # The counts without unknown values that UCI's own description of the set states.
    assert (len(batch.y), len(data.rows("test"))) == (30_162, 15_060)
    assert abs(batch.y.double().mean().item() - 0.2478) < 5e-3


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "table.csv cannot be read: Empty CSV file"),
        ("a,b\n", {}, "table.csv holds a header line but no rows"),
        ("a,b\n1,2\n1,2,3\n", {}, "Expected 2 columns, got 3"),
        ("a,b\n1,2\n1\n", {}, "Expected 2 columns, got 1"),
        ("a,a\n1,2\n", {}, "has several columns named 'a'"),
        ("age,b\n1,2\n", {"target": "aeg"}, "has no column 'aeg'. Did you mean age? Its columns: age, b."),
        ("a,b\n1,2\n", {"features": ["c"]}, "has no column 'c'"),
        ("a,b\n1,2\n", {"drop": ["c"]}, "has no column 'c'"),
        ("a,b\n1,2\n", {"drop": ["a", "b"]}, "has no column left to learn from"),
        ("a,b\n1,2\n", {"target": "a", "features": ["a", "b"]}, "among data.features too"),
        ("a,y\n1,x\n2,x\n", {"target": "y"}, "Target column 'y' holds a single class (x)"),
        ("a,y\n1,x\n2,z\n", {"target": "y", "task": "regression"}, "Target column 'y' holds text"),
        ("a,b\n1,inf\n", {}, "column 'b' holds 1 infinite values"),
        ("a,b\n1,2020-01-01\n", {}, "column 'b' holds values of type date32[day]"),
        ("a,b\n,1\n,2\n", {"missing": "mean"}, "Column 'a' has no value in the training rows"),
        ("a\n?\n?\n", {"missing": "drop"}, "no row is left after data.missing=drop"),
        ("a\n1\n", {"delimiter": "::"}, "data.delimiter must be one character"),
        ("a\n1\n", {"replace": [["a"]]}, "data.replace must be a list of pairs"),
        ("a\n1\n", {"missing": "guess"}, "data.missing must be one of auto, refuse, mean, median, drop, zero, keep"),
        ("a\n1\n", {"encoding": "utf9"}, "table.csv cannot be read"),
        ("a;b\n1;2\n", {"target": "b"}, "has no column 'b'. Its only column is 'a;b': pass data.delimiter=';'."),
        ("a;b\n1,0;2,5\n", {}, "Expected 1 columns, got 3: 1,0;2,5: pass data.delimiter=';' if that stands between"),
        ("a;b\n1,0;2,5\n", {"delimiter": "|", "target": "b"}, "pass data.delimiter=';'"),
        ("a\n1\n", {"test_path": "nowhere.csv"}, "No such file: nowhere.csv (data.test_path)"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, options: dict, message: str) -> None:
    assert message in refusal(write(tmp_path, text), **options)


@pytest.mark.parametrize(("encoding", "remedy"), [("latin1", "latin1, or what it is written in"), ("utf16", "utf16")])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, remedy: str) -> None:
    """For a file to learn from, and for new rows, whose header line is read first."""
    path = tmp_path / "table.csv"
    path.write_bytes("a,ß\nx,é\ny,ö\n".encode(encoding))
    assert refusal(str(path), target="a", text="ß").endswith(f": pass data.encoding={remedy}.")
    assert create_data("csv", path=str(path), encoding=encoding, target="a").spec.feature_names
    with pytest.raises(ZooError, match=f"table.csv is not utf8 text.*: pass data.encoding={remedy}."):
        header_of(str(path), CsvFormat())
    with pytest.raises(ZooError, match=r"data\.encoding=klingon is not known"):
        header_of(str(path), CsvFormat(encoding="klingon"))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "a\n1\n", "housing.csv")
    assert "data.path is not set: pass data.path=FILE" in refusal(None)
    assert "No such file" in refusal(str(tmp_path / "hosing.csv"))
    assert "Did you mean housing.csv?" in refusal(str(tmp_path / "hosing.csv"))
    (tmp_path / "empty").mkdir()
    assert "holds no .csv" in refusal(str(tmp_path / "empty"))


def test_damaged_files(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert "cut.csv.gz cannot be read" in refusal(str(tmp_path / "cut.csv.gz"))
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
    assert re.search("column 'b' holds bytes|cannot be read", refusal(str(tmp_path / "bytes.csv")))


def test_files_of_different_columns(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a,b\n1,2\n", "one.csv"), write(tmp_path, "a,c\n1,2\n", "two.csv")]
    assert "two.csv and" in refusal(paths)
    assert "'b' is in one of them alone" in refusal(paths)
    paths = [write(tmp_path, "a\n1\n", "one.csv"), write(tmp_path, "a\nx\n", "two.csv")]
    assert "one.csv" in refusal(paths)


def test_a_test_file_without_a_column(tmp_path: Path) -> None:
    train, test = write(tmp_path, "a,b\n1,2\n", "train.csv"), write(tmp_path, "a\n1\n", "test.csv")
    assert f"{test} has no column 'b', which {train} has" in refusal(train, test_path=test)
    test = write(tmp_path, "a,b\n1,x\n", "test.csv")
    assert f"{test}: column 'b' holds text where numbers are expected" in refusal(train, test_path=test)
