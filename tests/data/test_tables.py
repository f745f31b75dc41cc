"""A CSV that two threads parse in pieces: the rows of the file, in its order, whatever its lines hold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from zoo.data import tables
from zoo.data.tables import CsvFormat, open_csv
from zoo.errors import ZooError

TYPES = {"a": pa.float64(), "b": pa.string()}


def rows_of(path: Path, form: CsvFormat | None = None) -> list[dict]:
    form = form or CsvFormat()
    return [row for table in open_csv(str(path), ["a", "b"], form, TYPES, "new.csv") for row in table.to_pylist()]


def lines(rng: random.Random, count: int, quoted: float) -> list[str]:
    words = ["", "x", "é" * 5, "word " * rng.randint(1, 12), "NA"]
    special = ['"a, b"', '"two\nlines"', '"a ""quoted"" one"']
    return [
        "" if rng.random() < 0.05 else f"{rng.choice([rng.randint(-9, 9), rng.random(), ''])},"
        f"{rng.choice(special) if rng.random() < quoted else rng.choice(words)}"
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_the_pieces_are_the_whole(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside PyArrow on the whole file: no quote or some, any line end, blank lines, a long one, a byte order mark."""
    rng = random.Random(seed)
    monkeypatch.setattr(tables, "_PIECE", rng.choice([40, 100, 1000]))
    monkeypatch.setattr(tables, "_TABLE", 200)
    body = lines(rng, rng.choice([0, 1, 30, 200]), rng.choice([0, 0, 0.01, 0.2]))
    if rng.random() < 0.2:
        body.insert(rng.randint(0, len(body)), "1," + "long " * 500)
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    text = end.join([rng.choice(["a,b", '"a","b"']), *body]) + (rng.choice(["", end]) if body else end)
    path = tmp_path / "new.csv"
    path.write_bytes(rng.choice([b"", b"\xef\xbb\xbf"]) + text.encode())
    options = CsvFormat().arguments()
    options["convert_options"].column_types = TYPES
    assert rows_of(path) == pacsv.read_csv(path, **options).to_pylist()


@pytest.fixture(params=[1, 2])
def arrow_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """PyArrow counts rows where it has one thread, and names none where it has two."""
    before = pa.cpu_count()
    pa.set_cpu_count(request.param)
    yield
    pa.set_cpu_count(before)


@pytest.mark.usefixtures("arrow_threads")
@pytest.mark.parametrize("line", [0, 1, 50, 199])
@pytest.mark.parametrize(("wrong", "message"), [("x,y", "column 'a': row {}: .*'x'"), ("1,2,3", "row {}: Expected 2")])
def test_a_wrong_value_is_found_with_its_row(
    line: int, wrong: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_PIECE", 64)
    body = [f"{i},w" for i in range(200)]
    body[line] = wrong
    path = tmp_path / "new.csv"
    path.write_text("\n".join(["a,b", *body]))
    with pytest.raises(ZooError, match=message.format(line + 2)):  # the header is row 1
        rows_of(path)
    path.write_text("\n".join(['"a","b"', '0,"w"', *body]))
    with pytest.raises(ZooError, match=message.format(line + 3)):
        rows_of(path)
    path.write_text("\n".join(body))
    with pytest.raises(ZooError, match=message.format(line + 1)):
        rows_of(path, CsvFormat(columns=["a", "b"]))


def test_quoted_names_part_no_file_from_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyArrow itself writes such headers, and what is streamed is parsed by one thread."""
    monkeypatch.setattr(tables, "_PIECE", 64)
    monkeypatch.setattr(tables.pacsv, "open_csv", None)
    path = tmp_path / "new.csv"
    pacsv.write_csv(pa.table({"a": range(200), "b": range(200)}), path)
    assert path.read_text().startswith('"a","b"')
    assert [row["a"] for row in rows_of(path)] == list(range(200))


def test_what_is_left_unread_keeps_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_PIECE", 64)
    path = tmp_path / "new.csv"
    path.write_text("a,b\n" + "1,2\n" * 1000)
    found = open_csv(str(path), ["a", "b"], CsvFormat(), TYPES, "new.csv")
    assert next(found).to_pylist()[0] == {"a": 1.0, "b": "2"}
    found.close()


def test_a_header_alone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("a,b")
    with pytest.raises(ZooError, match="it holds a header line but no rows"):
        rows_of(path)
