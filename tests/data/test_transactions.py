"""Baskets from lists, matrices, files and Python's own library."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.data.registry import create_data
from zoo.data.transactions import BasketData, BasketRows, encode_baskets, imported_modules

BASKETS = [["milk", "bread", "milk"], [], ["jam"], ["bread"]]


def shown(data: Any, split: str = "train") -> list[list[str]]:
    """The baskets of a split by name, read back one by one."""
    rows, names = data.rows(split), data.spec.feature_names
    return [[names[item] for item in rows[torch.tensor([i])].items.tolist()] for i in range(len(rows))]


def test_items_are_numbered_by_name_and_stand_once_in_a_basket() -> None:
    items, lengths, names = encode_baskets(BASKETS)
    assert names == ("bread", "jam", "milk")
    assert items.tolist() == [0, 2, 1, 0]
    assert lengths.tolist() == [2, 0, 1, 1]


def test_whole_numbers_are_sorted_as_numbers() -> None:
    assert encode_baskets([["10", "9"], ["-1"]])[2] == ("-1", "9", "10")
    assert encode_baskets([[10, 9], [100]])[2] == ("9", "10", "100")
    assert encode_baskets([["10", "9", "x"]])[2] == ("10", "9", "x")


def test_batches_hold_the_chosen_baskets_in_their_order() -> None:
    items, lengths, _ = encode_baskets(BASKETS)
    rows = BasketRows(items, lengths)
    batch = rows[torch.tensor([3, 1, 0])]
    assert (batch.size, batch.items.tolist(), batch.lengths.tolist()) == (3, [0, 0, 2], [1, 0, 2])
    assert batch.items.dtype == torch.int64
    assert rows[torch.tensor([1])].items.tolist() == []
    assert rows[slice(None)].items.tolist() == items.tolist()


def test_lists_come_back() -> None:
    data = BasketData(BASKETS)
    assert shown(data) == [["bread", "milk"], [], ["jam"], ["bread"]]
    assert (data.spec.kind, data.spec.shape, data.spec.target) == ("transactions", (3,), None)


def test_a_matrix_comes_back() -> None:
    data = BasketData(torch.tensor([[1, 0, 1], [0, 0, 0]]), names=["a", "b", "c"])
    assert shown(data) == [["a", "c"], []]
    assert data.spec.feature_names == ("a", "b", "c")


def test_splits_are_disjoint_and_whole() -> None:
    data = BasketData([[str(i), str(i + 1)] for i in range(40)], val_fraction=0.25, test_fraction=0.25)
    parts = [shown(data, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [20, 10, 10]
    assert len({tuple(basket) for basket in itertools.chain(*parts)}) == 40


def test_the_loader_yields_every_basket_once() -> None:
    data = BasketData([[str(i)] * (i % 3) + ["all"] for i in range(50)], batch_size=7)
    batches = list(data.loader("train", shuffle=True))
    assert [batch.size for batch in batches] == [7] * 7 + [1]
    assert sum(len(batch.items) for batch in batches) == len(data.rows("train").items)


# -- files -----------------------------------------------------------------------------------------------------------


def test_groceries_keep_their_169_items(shared_data: Path) -> None:
    data = create_data("baskets", path=str(shared_data / "baskets" / "groceries.csv"))
    assert len(data.rows("train")) == 9835
    assert data.spec.shape == (169,)
    assert sum(name.endswith(" ") for name in data.spec.feature_names) == 2  # type: ignore[union-attr]
    assert int(data.rows("train").lengths.sum()) == 43367  # type: ignore[attr-defined]


def test_mushroom_has_119_items(shared_data: Path) -> None:
    data = create_data("baskets", path=str(shared_data / "baskets" / "mushroom.dat.gz"))
    assert len(data.rows("train")) == 8124
    assert data.spec.feature_names == tuple(str(i) for i in range(1, 120))
    assert set(data.rows("train").lengths.tolist()) == {23}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.csv", 'milk,bread\n\n"jam, red",milk,\n', [["bread", "milk"], [], ["jam, red", "milk"]]),
        ("a.txt", "b,a\r\na,a\r\n", [["a", "b"], ["a"]]),
        ("a.dat", "3 1  2 \n10\n", [["1", "2", "3"], ["10"]]),
        ("a.dat", "1 2", [["1", "2"]]),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_lines_of_items(tmp_path: Path, name: str, text: str, wanted: list[list[str]], compressed: bool) -> None:
    path = tmp_path / (name + ".gz" if compressed else name)
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert shown(create_data("baskets", path=str(path))) == wanted


def test_another_delimiter_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("Käse;Brot\n".encode("latin1"))
    data = create_data("baskets", path=str(tmp_path), delimiter=";", encoding="latin1")
    assert shown(data) == [["Brot", "Käse"]]


def test_several_files_are_one_after_the_other(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(f"{name}\n")
    assert shown(create_data("baskets", path=str(tmp_path / "*.csv"))) == [["a.csv"], ["b.csv"]]


@pytest.mark.parametrize("values", [[True, False, True], [1, 0, 1]])
def test_one_hot_parquet(tmp_path: Path, values: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"tea": values, "jam": [type(values[0])(0), *values[:2]]}), tmp_path / "a.parquet")
    assert shown(create_data("baskets", path=str(tmp_path / "a.parquet"))) == [["tea"], ["jam"], ["tea"]]


def test_parquet_of_other_values_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"tea": [0, 2]}), tmp_path / "a.parquet")
    with pytest.raises(zoo.ZooError, match="column 'tea' holds other values than 0 and 1"):
        create_data("baskets", path=str(tmp_path / "a.parquet")).spec  # noqa: B018


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"", {}, "hold no item"),
        ("a.csv", b"\n\n", {}, "hold no item"),
        ("a.csv", b"K\xe4se\n", {}, "is not utf8 text .* data.encoding"),
        ("a.dat.gz", gzip.compress(b"1 2 3\n" * 999, mtime=0)[:-9], {}, "truncated or damaged"),
        ("a.csv", b"a,b\n", {"delimiter": ";;"}, "data.delimiter=';;'"),
        ("a.parquet", b"PAR1", {}, "not a whole Parquet file"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(zoo.ZooError, match=message) as caught:
        create_data("baskets", path=str(tmp_path / name), **options).spec  # noqa: B018
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match="No such file"):
        create_data("baskets", path=str(tmp_path / "none.csv")).spec  # noqa: B018
    with pytest.raises(zoo.ZooError, match=r"data\.path is not set"):
        create_data("baskets").spec  # noqa: B018


@pytest.mark.parametrize("matrix", [[[0.5, 1.0]], [1.0, 0.0]])
def test_other_matrices_are_refused(matrix: Any) -> None:
    with pytest.raises(zoo.ZooError, match="zeros and ones alone"):
        BasketData(torch.tensor(matrix)).spec  # noqa: B018


# -- Python's own imports --------------------------------------------------------------------------------------------


def test_the_standard_library_imports_what_its_files_say() -> None:
    data = create_data("python_imports")
    names = data.spec.feature_names
    assert names is not None
    assert {"sys", "os", "re"} <= set(names)
    assert len(data.rows("train")) > 200
    wanted = sorted(set(imported_modules(Path(json.__file__))))
    assert "codecs" in wanted
    assert wanted in shown(data)


def test_relative_imports_and_broken_files_count_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("import os.path as p, re\nfrom . import x\nfrom .y import z\nfrom sys import path\n'import no'\n")
    assert list(imported_modules(file)) == ["os", "re", "sys"]
    file.write_text("import (\n")
    assert list(imported_modules(file)) == []
