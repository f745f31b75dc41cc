"""Files of the user's that are damaged in every way: they load as numbers or are refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import zoo
from zoo.errors import ZooError


def table() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=40), "b": rng.normal(size=40), "kind": np.array(["no", "yes"])[rng.integers(0, 2, 40)]}


def write_csv(path: Path) -> None:
    columns = table()
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""]))


def write_series(path: Path) -> None:
    path.write_text("\n".join(["day,value", *(f"{day},{np.sin(day / 5):.5f}" for day in range(80)), ""]))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table(table()), path)


def write_text(path: Path) -> None:
    path.write_text("the quick brown fox jumps over the lazy dog, and so on.\n" * 60)


FILES: dict[str, tuple[str, Callable[[Path], None], dict[str, object]]] = {
    "csv": ("csv", write_csv, {"target": "kind"}),
    "parquet": ("parquet", write_parquet, {"target": "kind"}),
    "series": ("csv", write_series, {"column": "value", "window": 8}),
    "text_file": ("txt", write_text, {}),
}
JUNK = [
    b"\x00",
    b"\xff\xfe",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"nan",
    b"inf",
    b"1e400",
    b"\xc3\x28",
    "∞".encode(),
    b"\n\n",
    b";",
]


def damage(data: bytearray, rng: random.Random) -> str:
    at, how = rng.randrange(len(data)), rng.choice(["flip", "truncate", "blank", "cut", "insert", "repeat", "empty"])
    if how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[at:]
    elif how == "blank":
        data[at : at + 30] = bytes(len(data[at : at + 30]))
    elif how == "cut":
        del data[at : at + rng.randrange(1, 60)]
    elif how == "insert":
        data[at:at] = rng.choice(JUNK)
    elif how == "repeat":
        data[at:at] = data[at : at + 100]
    elif rng.random() < 0.2:
        data.clear()
    return how


def load_damaged(name: str, folder: Path, times: int) -> tuple[int, int]:
    """Return how many damaged files were refused and how many gave rows of finite numbers."""
    ending, write, options = FILES[name]
    write(folder / f"whole.{ending}")
    whole, refused, read, rng = (folder / f"whole.{ending}").read_bytes(), 0, 0, random.Random(3)
    for _ in range(times):
        data = bytearray(whole)
        how = damage(data, rng)
        (folder / f"damaged.{ending}").write_bytes(data)
        try:
            source = zoo.create_data(name, path=str(folder / f"damaged.{ending}"), **options)
            rows = source.rows("train")
            batch = rows[torch.arange(len(rows))]
        except ZooError as error:
            assert "\n" not in str(error), how  # noqa: PT017
            refused += 1
        else:
            for tensor in batch:
                assert tensor is None or bool(torch.isfinite(tensor.double()).all()), how
            read += 1
    return refused, read


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_load_as_numbers_or_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refused, read = load_damaged(name, tmp_path, 60)
    assert refused + read == 60


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_thousand_damaged_files_load_as_numbers_or_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refused, read = load_damaged(name, tmp_path, 1000)
    print(f"{name}: {refused} refused, {read} read")
