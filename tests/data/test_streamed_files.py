"""Files beyond the memory limit: the same rows, classes and scaling as in memory, read group by group."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from zoo.data import create_data
from zoo.errors import ZooError

WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}


def table(num_rows: int = 1000) -> pa.Table:
    rng = np.random.default_rng(0)
    a = rng.normal(3.0, 2.0, num_rows)
    return pa.table(
        {
            "a": pa.array(a, mask=rng.random(num_rows) < 0.1),
            "skipped": ["-"] * num_rows,
            "c": rng.choice(["u", "v", "w"], num_rows),
            "n": np.arange(num_rows),
            "y": rng.choice(["no", "yes"], num_rows),
        }
    )


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    """Two files of several row groups each, the last ones smaller."""
    rows = table()
    pq.write_table(rows.slice(0, 700), tmp_path / "0.parquet", row_group_size=64)
    pq.write_table(rows.slice(700), tmp_path / "1.parquet", row_group_size=200)
    return str(tmp_path)


def everything(data: Any, split: str = "train") -> Any:
    return data.rows(split)[torch.arange(len(data.rows(split)))]


@pytest.mark.parametrize("missing", ["mean", "zero", "drop"])
def test_streamed_parquet_equals_parquet_in_memory(parquet: str, missing: str) -> None:
    options: dict = {"path": parquet, "target": "y", "drop": ["skipped"], "missing": missing, **WHOLE}
    held, streamed = (create_data("parquet", in_memory_limit=limit, **options) for limit in (1 << 30, 0))
    assert held.spec == streamed.spec
    assert streamed.rows("train").block_size is not None
    expected, found = everything(held), everything(streamed)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.y, expected.y)
    index = torch.randperm(len(found.y))
    assert torch.equal(streamed.rows("train")[index].x, found.x[index])


def test_streamed_splits_are_disjoint_and_scaled_by_the_training_rows(parquet: str) -> None:
    options: dict = {"path": parquet, "features": ["n"], "in_memory_limit": 0, "seed": 4}
    raw = create_data("parquet", standardize=False, **options)
    parts = {name: everything(raw, name).x.squeeze(1) for name in ("train", "val", "test")}
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(1000))
    assert [len(part) for part in parts.values()] == [700, 100, 200]
    scaled = create_data("parquet", **options)
    train = parts["train"]
    expected = (parts["test"] - train.mean()) / train.std(correction=0)
    torch.testing.assert_close(everything(scaled, "test").x.squeeze(1), expected, rtol=1e-9, atol=1e-12)
    other = create_data("parquet", standardize=False, **{**options, "seed": 5})
    assert not torch.equal(everything(other).x, everything(raw).x)


def test_an_epoch_reads_every_row_once_and_each_group_once(parquet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = create_data("parquet", path=parquet, features=["n"], in_memory_limit=0, batch_size=32, **WHOLE)
    rows: Any = data.rows("train")
    rows.block_size, rows.capacity = 100, 4  # blocks that do not end where the groups do
    reads: list[int] = []
    read = rows.source.read
    monkeypatch.setattr(rows.source, "read", lambda group: reads.append(group) or read(group))
    rows.cache.clear()
    seen = torch.cat([batch.x for batch in data.loader("train")])
    assert sorted(reads) == list(range(len(rows.ends)))
    assert sorted(seen.flatten().tolist()) == sorted(everything(data).x.flatten().tolist())
    assert len(rows.cache) <= rows.capacity


def test_worker_processes_serve_the_same_batches(parquet: str) -> None:
    options: dict = {"path": parquet, "features": ["n"], "in_memory_limit": 0, "batch_size": 300, **WHOLE}
    alone = [batch.x for batch in create_data("parquet", **options).train_dataloader()]
    helped = [batch.x for batch in create_data("parquet", num_workers=1, **options).train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_integers_with_more_values_than_classes_are_values(parquet: str) -> None:
    options: dict = {"path": parquet, "features": ["c"], "target": "n", "in_memory_limit": 0, **WHOLE}
    assert create_data("parquet", **options).spec.target == "value"


def test_median_is_refused_where_rows_are_streamed(parquet: str) -> None:
    with pytest.raises(ZooError, match="median needs all rows at once"):
        _ = create_data("parquet", path=parquet, missing="median", in_memory_limit=0).spec


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_missing_values_are_refused_by_file_and_column(parquet: str, limit: int) -> None:
    with pytest.raises(ZooError, match=r"0\.parquet: column 'a' lacks \d+ of"):
        _ = create_data("parquet", path=parquet, drop=["skipped"], in_memory_limit=limit).spec


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_damaged_parquet(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(), path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    options: dict = {"path": str(path), "features": ["n"], "in_memory_limit": limit}
    with pytest.raises(ZooError, match=r"x\.parquet cannot be read"):
        _ = create_data("parquet", **options).spec
    place = bytes(content).index(np.arange(500, 510).tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match=r"x\.parquet cannot be read"):
        _ = create_data("parquet", **options).spec


def test_types_of_parquet(tmp_path: Path) -> None:
    from decimal import Decimal

    columns = {
        "d": pa.array([Decimal("1.25"), Decimal("2.5")]),
        "b": pa.array([True, False]),
        "c": pa.array(["u", "v"]).dictionary_encode(),
        "f": pa.array([1.5, float("nan")], pa.float32()),
        "l": pa.array([[1], [2]]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    options: dict = {"path": str(tmp_path / "x.parquet"), "missing": "zero", "standardize": False, **WHOLE}
    found = everything(create_data("parquet", drop=["l"], **options)).x
    assert found.tolist() == [[1.25, 1, 1, 0, 1.5], [2.5, 0, 0, 1, 0]]
    with pytest.raises(ZooError, match="column 'l' holds values of type list"):
        _ = create_data("parquet", **options).spec


def write_csv(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_streamed_csv_equals_csv_in_memory(tmp_path: Path) -> None:
    lines = ["a,c,y", *(f"{i},{'uvw'[i % 3]},{i % 2}" for i in range(500))]
    path = write_csv(tmp_path / "x.csv", lines)
    options: dict = {"path": path, "target": "y", "cache_dir": str(tmp_path / "cache"), **WHOLE}
    held, streamed = (create_data("csv", in_memory_limit=limit, **options) for limit in (1 << 30, 0))
    assert held.spec == streamed.spec
    torch.testing.assert_close(everything(streamed).x, everything(held).x, rtol=1e-9, atol=1e-12)
    assert torch.equal(everything(streamed).y, everything(held).y)


def test_the_kept_copy_is_used_again_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = write_csv(tmp_path / "x.csv", ["a", "1", "2"]), tmp_path / "cache"
    options: dict = {"path": path, "cache_dir": str(cache), "in_memory_limit": 0, "standardize": False, **WHOLE}
    everything(create_data("csv", **options))
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    everything(create_data("csv", **options))
    assert [kept.stat().st_mtime_ns] == [before]
    write_csv(tmp_path / "x.csv", ["a", "1", "2", "3"])
    assert everything(create_data("csv", **options)).x.flatten().tolist() == [1, 2, 3]
    assert len(list(cache.iterdir())) == 2


def test_integers_that_turn_into_decimals_far_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.data.tables import CsvFormat

    arguments = CsvFormat.arguments
    monkeypatch.setattr(CsvFormat, "arguments", lambda self, size=0, types=None: arguments(self, 1000, types))
    lines = ["a,b", *("1,2" for _ in range(2000)), "1.5,2"]
    path = write_csv(tmp_path / "x.csv", lines)
    options: dict = {"in_memory_limit": 0, "cache_dir": str(tmp_path / "cache"), "standardize": False, **WHOLE}
    assert everything(create_data("csv", path=path, **options)).x[-1].tolist() == [1.5, 2]
    path = write_csv(tmp_path / "y.csv", [*lines, "x,2"])
    with pytest.raises(ZooError, match=r"y\.csv cannot be read: column 'a': .*invalid value 'x'"):
        _ = create_data("csv", path=path, **options).spec
    assert len(list((tmp_path / "cache").iterdir())) == 1, "nothing half-written stays"


@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="needs a path that cannot be a folder")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["a", "1"])
    with pytest.raises(ZooError, match=r"cannot be written .* pass data\.cache_dir=FOLDER"):
        _ = create_data("csv", path=path, in_memory_limit=0, cache_dir="/dev/full").spec


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    path, cache = write_csv(tmp_path / "x.csv", ["a", "1"]), tmp_path / "cache"
    with pytest.raises(ZooError, match=r"cannot be written \(No space left on device\): pass data\.cache_dir=FOLDER"):
        _ = create_data("csv", path=path, in_memory_limit=0, cache_dir=str(cache)).spec
    assert not list(cache.iterdir()), "nothing half-written stays"


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize(
    ("shape", "kind"), [((300, 4), "tabular"), ((300, 5, 2), "sequence"), ((300, 1, 4, 4), "image")]
)
def test_npy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], kind: str, limit: int) -> None:
    monkeypatch.setattr("zoo.data.mapped._SLICE_BYTES", 10_000)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=shape), rng.integers(0, 3, shape[0])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    files = {"path": str(tmp_path / "x.npy"), "target": str(tmp_path / "y.npy")}
    data = create_data("npy", in_memory_limit=limit, standardize=False, **files)
    assert (data.spec.kind, data.spec.shape, data.spec.num_classes) == (kind, shape[1:], 3)
    parts = [everything(data, name) for name in ("train", "val", "test")]
    assert [len(part.y) for part in parts] == [210, 30, 60]
    found = torch.cat([part.x.flatten(1) for part in parts])
    order = found[:, 0].argsort()
    torch.testing.assert_close(found[order], torch.from_numpy(x[x[(..., *[0] * (x.ndim - 1))].argsort()]).flatten(1))
    labels = dict(zip(x[(slice(None), *[0] * (x.ndim - 1))].tolist(), y.tolist(), strict=True))
    assert all(labels[float(v)] == int(k) for p in parts for v, k in zip(p.x.flatten(1)[:, 0], p.y, strict=True))
    again = pickle.loads(pickle.dumps(data.rows("train")))[torch.arange(5)]
    assert torch.equal(again.x, parts[0].x[:5])


def test_npy_scaled_slice_by_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.mapped._SLICE_BYTES", 1000)
    np.save(tmp_path / "x.npy", np.random.default_rng(2).normal(5, 3, (400, 3)))
    data = create_data("npy", path=str(tmp_path / "x.npy"), in_memory_limit=0)
    x = everything(data).x
    assert x.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3, dtype=x.dtype), rtol=1e-9, atol=0)


def test_npy_task(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 1)))
    np.save(tmp_path / "int.npy", np.array([4, 9, 4]))
    np.save(tmp_path / "float.npy", np.array([0.5, 2.5, 0.5]))
    np.save(tmp_path / "text.npy", np.array(["b", "a", "b"]))
    options: dict = {"path": str(tmp_path / "x.npy"), **WHOLE}
    assert create_data("npy", target=str(tmp_path / "int.npy"), task="regression", **options).spec.target == "value"
    assert create_data("npy", target=str(tmp_path / "float.npy"), **options).spec.target == "value"
    data = create_data("npy", target=str(tmp_path / "float.npy"), task="classification", **options)
    assert everything(data).y.tolist() == [0, 1, 0]
    assert create_data("npy", target=str(tmp_path / "text.npy"), **options).spec.class_names == ("a", "b")


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_npy_mistakes(tmp_path: Path, limit: int) -> None:
    def refusal(x: Any, y: Any = None, **options: Any) -> str:
        np.save(tmp_path / "x.npy", x, allow_pickle=True)
        if y is not None:
            np.save(tmp_path / "y.npy", y)
            options["target"] = str(tmp_path / "y.npy")
        with pytest.raises(ZooError) as error:
            _ = create_data("npy", path=str(tmp_path / "x.npy"), in_memory_limit=limit, **options).spec
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "it holds Python objects" in refusal(np.array([[object()]]))
    assert "holds 1 NaN values" in refusal(np.array([[1.0], [np.nan], [2.0]]), val_fraction=0.0, test_fraction=0.0)
    assert "X[:, None]" in refusal(np.ones(4))
    assert "X[:, None]" in refusal(np.float64(4))
    assert "is empty" in refusal(np.ones((0, 4)))
    assert "X has 4 rows and y has 3" in refusal(np.ones((4, 1)), np.array([0, 1, 0]))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-8])
    with pytest.raises(ZooError, match=r"x\.npy cannot be read as a NumPy array"):
        _ = create_data("npy", path=str(tmp_path / "x.npy"), in_memory_limit=limit).spec
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(ZooError, match="archive of several arrays"):
        _ = create_data("npy", path=str(tmp_path / "x.npz")).spec
