"""Rows in the hands of other libraries: the same model as from arrays, or one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import zoo
from zoo.data.foreign import opened

N = 30
X = np.random.default_rng(0).normal(size=(N, 3))
Y = (X @ [1.0, -2.0, 0.5] > 0).astype(int)
NAMES = ("a", "b", "c")
COLUMNS = {name: X[:, i] for i, name in enumerate(NAMES)}


def fitted(x: Any, y: Any = None, **options: Any) -> Any:
    return zoo.fit(zoo.create_model("logistic_regression", solver="exact"), x, y, l2=0.1, **options)


@pytest.fixture(scope="module")
def probabilities() -> torch.Tensor:
    return fitted(X, Y).predict_columns(X)["probability"]


class Lazy:
    """As Hugging Face's Dataset: rows behind an index, which an Arrow table is made of when it is asked for."""

    __arrow_array__ = None

    def __init__(self, table: pa.Table) -> None:
        self.table, self.column_names = table, table.schema.names

    def __len__(self) -> int:
        return len(self.table)

    def with_format(self, form: str) -> Lazy:
        assert form == "arrow"
        return self

    def __getitem__(self, rows: slice) -> pa.Table:
        return self.table[rows]


class Mapped(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return X[row], int(Y[row])


class Streamed(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(zip(torch.from_numpy(X), Y, strict=True))


class Listed(Dataset):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


def table_of(library: str) -> Any:
    columns = {**COLUMNS, "label": Y}
    if library == "dict":
        return columns
    if library in ("pandas", "polars", "polars, lazy"):
        frame = pytest.importorskip(library.partition(",")[0]).DataFrame(columns)
        return frame.lazy() if "lazy" in library else frame
    table = pa.table(columns)
    makers = {
        "pyarrow": lambda: table, "a reader": table.to_reader, "a dataset": lambda: pyarrow.dataset.dataset(table),
        "another": lambda: Lazy(table),
    }  # fmt: skip
    return makers[library]()


@pytest.mark.parametrize(
    "library", ["dict", "pandas", "polars", "polars, lazy", "pyarrow", "a reader", "a dataset", "another"]
)
def test_a_table_of_any_library_with_the_targets_column_by_name(library: str, probabilities: torch.Tensor) -> None:
    model = fitted(table_of(library), "label")
    assert model.spec.feature_names == NAMES
    found = model.predict_columns(table_of(library))["probability"]
    torch.testing.assert_close(found, probabilities, rtol=1e-9, atol=1e-9)
    assert model.score(table_of(library), "label") == zoo.evaluate(model, table_of(library), "label")["accuracy"]


def test_hugging_faces_datasets(probabilities: torch.Tensor) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({**COLUMNS, "label": Y})
    for x, y in ((rows, "label"), (rows.remove_columns("label"), rows["label"])):
        found = fitted(x, y).predict_columns(rows)["probability"]
        torch.testing.assert_close(found, probabilities, rtol=1e-9, atol=1e-9)
    order = np.random.default_rng(1).permutation(N)
    chosen = fitted(rows, "label").predict_columns(rows.select(order))["probability"]  # by its index, not its table
    torch.testing.assert_close(chosen, probabilities[torch.from_numpy(order)], rtol=1e-9, atol=1e-9)
    for odd, said in (
        (datasets.DatasetDict(train=rows), r"as in X\['train'\]"),
        (rows.to_iterable_dataset(), "stream"),
    ):
        with pytest.raises(zoo.ZooError, match=said):
            fitted(odd, "label")
    images = datasets.Dataset.from_dict({"image": [grey(i) for i in range(4)], "label": [0, 1, 0, 1]})
    assert torch.equal(opened(images, "label").x, opened([grey(i) for i in range(4)]).x)


TENSORS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize(
    "rows",
    [
        TENSORS, Mapped(), Streamed(), DataLoader(TENSORS, batch_size=7), DataLoader(Mapped(), batch_size=16),
        DataLoader(Streamed(), batch_size=4), DataLoader(Mapped(), batch_size=None), Subset(TENSORS, range(N)),
    ],
    ids=["tensors", "mapped", "streamed", "loader", "loader, mapped", "loader, streamed", "unbatched", "subset"],
)  # fmt: skip
def test_datasets_and_loaders_of_torch(rows: Any, probabilities: torch.Tensor) -> None:
    model = fitted(rows)
    torch.testing.assert_close(model.predict_columns(rows)["probability"], probabilities, rtol=1e-9, atol=1e-9)
    assert model.score(rows) == zoo.evaluate(model, rows)["accuracy"] == model.score(X, Y)


def test_a_part_of_a_dataset_is_those_rows() -> None:
    part = Subset(Subset(TENSORS, range(20)), [3, 1])
    found = opened(part)
    assert torch.equal(found.x, TENSORS.tensors[0][[3, 1]])
    assert torch.equal(found.y, TENSORS.tensors[1][[3, 1]])


def test_inputs_alone_and_targets_beside_them() -> None:
    assert fitted(TensorDataset(torch.from_numpy(X)), Y).score(X, Y) == fitted(X, Y).score(X, Y)
    clusters = zoo.fit(zoo.create_model("kmeans", num_clusters=2), TENSORS)  # which has no use for the targets
    assert clusters.predict(DataLoader(TENSORS, batch_size=8)).shape == (N,)


def test_a_loader_says_the_batch_size_of_a_network_and_its_draws_leave_the_callers_stream_alone() -> None:
    loader = DataLoader(TENSORS, batch_size=10, shuffle=True)
    assert opened(loader).batch_size == 10
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = opened(loader, seed=1), opened(loader, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, opened(loader, seed=2).x)
    assert torch.equal(first.x.sort(0).values, TENSORS.tensors[0].sort(0).values)


def grey(level: int, size: tuple[int, int] = (4, 3)) -> Any:
    return Image.fromarray(np.full(size[::-1], 50 * level, dtype=np.uint8))


def test_images_become_numbers_from_0_to_1_with_the_channels_first() -> None:
    colour = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (3, 4, 3), dtype=np.uint8)) for i in range(4)]
    for images in ([grey(i) for i in range(4)], colour):
        pixels = [np.asarray(image)[..., None] if image.mode == "L" else np.asarray(image) for image in images]
        expected = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255)
        assert torch.equal(opened(images).x, expected)
        found = opened(Listed([(image, i % 2) for i, image in enumerate(images)]))
        assert torch.equal(found.x, expected)
        assert found.y == [0, 1, 0, 1]
    mixed = opened([grey(0), colour[0]]).x
    assert mixed.shape == (2, 3, 3, 4)


def test_texts_and_sequences_of_different_lengths() -> None:
    texts = Listed([("good and nice", "pos"), ("bad and poor", "neg")] * 12)
    assert fitted(texts).score(texts) == 1.0
    assert fitted(DataLoader(texts, batch_size=5)).score(texts) == 1.0
    ragged = opened(Listed([(torch.zeros(i + 1, 2), i % 2) for i in range(3)])).x
    assert [len(row) for row in ragged] == [1, 2, 3]


def test_a_table_of_texts_alone_is_read() -> None:
    table = pa.table({"review": [f"good {i}" if i % 2 else f"bad {i}" for i in range(40)], "y": [0, 1] * 20})
    model = fitted(table, "y")
    assert model.score(table, "y") == 1.0
    assert set(model.spec.feature_names) >= {"good", "bad"}
    codes = fitted(table, "y", text="codes")
    assert codes.spec.feature_names == ("review",)
    few = pa.table({"city": ["A", "B"] * 20, "y": [0, 1] * 20})
    assert fitted(few, "y").spec.feature_names == ("city=A", "city=B")
    assert set(fitted(few, "y", text="binary").spec.feature_names) == {"A", "B"}


class Odd:
    pass


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (TENSORS, Y, "gives pairs of inputs and targets: leave y out"),
        (TensorDataset(*TENSORS.tensors, *TENSORS.tensors), None, "gives 4 values a row.*sample_weight"),
        (Listed([{"x": 1.0, "y": 2}]), None, "gives dicts of x, y.*y='COLUMN'"),
        (Listed([(Odd(), 1)]), None, "rows of type Odd"),
        (Listed([]), None, "has no row"),
        (Listed([(grey(0), 0), (grey(1, (5, 3)), 1)]), None, "different sizes, such as 3×4 and 3×5"),
        (Listed([(torch.zeros(1, 3, 4), 0), (torch.zeros(1, 3, 5), 1)]), None, "different shapes.*resize"),
        (Listed([(torch.zeros(2), 0), (torch.zeros(1, 2), 1)]), None, "different shapes"),
        ({"a": [1.0, 2.0], "label": [0, 1]}, "lable", "no column 'lable'. Did you mean label"),
        ({"label": [0, 1]}, "label", "no column beside its target"),
        (X, "label", "y='label' names a column, and X is no table"),
        (pa.table({"a": [[1.0]], "b": [[1.0]], "y": [1]}), "y", r"several columns of arrays \(a, b\)"),
        (pa.table({"a": [{"u": 1}], "y": [1]}), "y", r"'a' holds fields \(u\)"),
    ],
)
def test_what_cannot_be_read_is_one_line(x: Any, y: Any, said: str) -> None:
    with pytest.raises(zoo.ZooError, match=said) as refused:
        fitted(x, y)
    assert "\n" not in str(refused.value)


def test_a_loader_of_a_datamodule_and_a_dataset_without_a_length() -> None:
    with pytest.raises(zoo.ZooError, match="pass the DataModule itself"):
        fitted(zoo.create_data("blobs", num_rows=20).loader("train"))

    class Endless(Dataset):
        def __getitem__(self, row: int) -> Any:
            return row

    with pytest.raises(zoo.ZooError, match="without a length"):
        fitted(Endless())


def test_more_than_is_held_is_refused_before_all_of_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unending(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield torch.zeros(1000), 0

    monkeypatch.setattr("zoo.data.foreign._LIMIT", 1 << 20)
    with pytest.raises(zoo.ZooError, match="streamed"):
        fitted(Unending())


def test_what_is_read_once_is_refused_by_its_kind() -> None:
    with pytest.raises(zoo.ZooError, match=r"X is read once and then gone \(generator\): pass list\(X\)"):
        opened(x for x in [[1.0], [2.0]])
