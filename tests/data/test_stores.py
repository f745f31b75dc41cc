"""Tables in object stores: the same rows as from this machine's disk, of which each process reads its share."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
from support import CHECKOUT, CPU, free_port, has_module, run_command

import zoo
from zoo.data import stores
from zoo.data.new_rows import read_new_rows
from zoo.data.provenance import absolute_paths, changed_files, digests, sha256sums
from zoo.data.tables import ParquetFiles, find_files

NUM_ROWS = 200


def table(seed: int = 0, num_rows: int = NUM_ROWS) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 3))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": (x @ [1.0, 2.0, -1.0] > 0).astype(int)})


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the bucket `s3://bucket`."""
    folder = tmp_path / "store" / "bucket"
    (folder / "deep" / "er").mkdir(parents=True)
    system = pafs.SubTreeFileSystem(str(folder.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(stores, "_opened", lambda root, query: (system, root.partition("://")[2]))
    write_csv(folder / "rows.csv", table())
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    for name, seed in (("deep/0.parquet", 0), ("deep/1.parquet", 1), ("deep/er/2.parquet", 2)):
        pq.write_table(table(seed), folder / name, row_group_size=64)
    return folder


def write_csv(path: Path, rows: pa.Table) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([rows.schema.names, *zip(*rows.to_pydict().values(), strict=True)])


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["held", "streamed"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "deep/0.parquet", "deep"])
def test_rows_are_those_of_the_same_files_here(name: str, limit: int, bucket: Path, tmp_path: Path) -> None:
    kind = "csv" if "csv" in name else "parquet"
    options = {"target": "y", "in_memory_limit": limit, "seed": 3}
    if kind == "csv":
        options["cache_dir"] = str(tmp_path / "cache")
    here, there = (zoo.create_data(kind, path=path, **options) for path in (str(bucket / name), f"s3://bucket/{name}"))
    assert here.spec == there.spec
    for split in ("train", "val", "test"):
        index = torch.arange(len(here.rows(split)))
        mine, theirs = here.rows(split)[index], pickle.loads(pickle.dumps(there.rows(split)))[index]  # as workers do
        assert torch.equal(mine.x, theirs.x)
        assert torch.equal(mine.y, theirs.y)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("s3://bucket/deep/0.parquet", ["deep/0.parquet"]),
        ("s3://bucket/deep", ["deep/0.parquet", "deep/1.parquet"]),
        ("s3://bucket/deep/", ["deep/0.parquet", "deep/1.parquet"]),
        ("s3://bucket/deep/*.parquet", ["deep/0.parquet", "deep/1.parquet"]),
        ("s3://bucket/d*/1.*?region=here", ["deep/1.parquet"]),
        ("s3://bucket/deep/**/*.parquet?region=here", ["deep/0.parquet", "deep/1.parquet", "deep/er/2.parquet"]),
        (["s3://bucket/deep/1.parquet", "s3://bucket/deep/0.parquet"], ["deep/1.parquet", "deep/0.parquet"]),
    ],
)
def test_files_folders_patterns_and_lists(path: Any, names: list[str], bucket: Path) -> None:
    found = find_files(path, (".parquet",))
    assert found == [f"s3://bucket/{name}" for name in names]
    assert {file.query for file in found} == {"region=here" if "region" in path else ""}


@pytest.mark.parametrize(
    ("path", "suffixes", "said"),
    [
        ("s3://bucket/rows.cvs", (".csv",), r"No such file: s3://bucket/rows.cvs \(data.path\). Did you mean rows.csv"),
        ("s3://bucket/deep", (".csv",), "The folder s3://bucket/deep holds no .csv file"),
        ("s3://bucket/rows.npy", (".npy",), "CSV and Parquet are read from where they are stored; copy this here"),
        ("s3://me:secret@bucket/rows.csv", (".csv",), "holds a password.*AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_not_there_is_one_line(path: str, suffixes: tuple[str, ...], said: str, bucket: Path) -> None:
    with pytest.raises(zoo.ZooError, match=said) as refused:
        find_files(path, suffixes)
    assert "\n" not in str(refused.value)


def test_an_option_that_the_store_does_not_know_is_one_line() -> None:
    for path, said in (
        ("s3://bucket/rows.csv?regoin=here", "Unexpected query parameter"),
        ("s3://bucket/rows.csv?anonymous=true&bucket=b", "takes endpoint_override, region, scheme, not bucket"),
        ("nowhere://bucket/rows.csv", "nowhere://bucket cannot be opened"),
    ):
        with pytest.raises(zoo.ZooError, match=said):
            find_files(path, (".csv",))


def test_a_changed_file_is_told_by_its_size_and_time(bucket: Path, tmp_path: Path) -> None:
    section = {"name": "csv", "path": "s3://bucket/rows.csv?region=here"}
    assert absolute_paths(section, "/elsewhere") == section
    files, run = find_files(section["path"], (".csv",)), tmp_path / "run"
    run.mkdir()
    (run / "data.sha256").write_text(sha256sums(digests(files), run))
    assert changed_files(run, files) == []
    os.utime(bucket / "rows.csv", ns=(0, 10**18))
    assert changed_files(run, files) == ["s3://bucket/rows.csv"]


def test_a_run_trains_goes_on_and_predicts_from_a_store(bucket: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    command = ["model=logistic_regression", "model.solver=exact", "data=csv", "data.path=s3://bucket/rows.csv?region=a",
               "data.target=y", f"run_dir={run}", "logger=[csv]", CPU]  # fmt: skip
    assert run_command(command) == 0
    model = zoo.load_model(run)
    (new,) = [rows for rows, _, _ in read_new_rows("s3://bucket/deep/1.parquet", model.spec, model.preprocessing, {})][
        :1
    ]
    assert new.schema.names == ["a", "b", "c"]
    assert (model.predict(table(1)) == torch.tensor(table(1)["y"].to_pylist())).double().mean() > 0.9
    answers = tmp_path / "answers.csv"
    assert run_command([f"run={run}", "data.path=s3://bucket/rows.csv.gz", f"output={answers}"], "predict") == 0
    with answers.open() as file:
        predicted = [int(row["prediction"]) for row in csv.DictReader(file)]
    assert predicted == model.predict(table()).tolist()
    os.utime(bucket / "rows.csv", ns=(0, 10**18))
    capsys.readouterr()
    assert run_command(command) == 1
    assert "s3://bucket/rows.csv has changed since this run began" in capsys.readouterr().err


# -- a server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What stands behind the `?` of an address at a server on this machine."""
    if not has_module("moto") or not has_module("flask"):
        pytest.skip("moto is not installed")
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    serving = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    serving.stop()


@pytest.mark.slow
def test_row_groups_of_a_server_over_one_two_and_three_processes(server: str, tmp_path: Path) -> None:
    """10 row groups of different sizes, streamed, against the same file here."""
    pieces = [table(seed, 500 + 317 * seed) for seed in range(10)]
    here = tmp_path / "rows.parquet"
    with pq.ParquetWriter(here, pieces[0].schema) as writer:
        for piece in pieces:
            writer.write_table(piece)
    assert [pq.ParquetFile(here).metadata.row_group(g).num_rows for g in range(10)] == [len(piece) for piece in pieces]
    system, _ = pafs.FileSystem.from_uri(f"s3://rows?{server}&allow_bucket_creation=true")
    system.create_dir("rows")
    with system.open_output_stream("rows/rows.parquet") as file:
        file.write(here.read_bytes())
    there = f"s3://rows/rows.parquet?{server}"
    assert len(ParquetFiles(find_files(there, (".parquet",))).groups) == 10
    command = ["data=parquet", "data.target=y", "data.in_memory_limit=0", "data.batch_size=500", "logger=[csv]", CPU]
    exact = ["model=logistic_regression", "model.solver=exact"]
    clusters = ["model=kmeans", "model.num_clusters=4"]
    for name, model in (("exact", exact), ("clusters", clusters)):
        assert run_command([*model, *command, f"data.path={here}", f"run_dir={tmp_path / name}"]) == 0
        expected = zoo.load_model(tmp_path / name).state_dict()
        for world in (1, 2, 3):
            run = tmp_path / f"{name} over {world}"
            torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={world}", f"--master-port={free_port()}"]
            done = subprocess.run(
                [sys.executable, *torchrun, str(CHECKOUT / "train.py"), *model, *command, f"data.path={there}",
                 f"run_dir={run}"],
                cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            found = zoo.load_model(run).state_dict()
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, msg=f"{name} over {world}: {key}")


def test_google_is_not_asked_for_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Systems:
        @staticmethod
        def from_uri(address: str) -> tuple[None, str]:
            asked.append(address)
            return None, "bucket"

    monkeypatch.setattr(pafs, "FileSystem", Systems)
    queries = {"gs://none-1": "", "gs://none-2": "anonymous=true", "gs://none-3": "retry_limit_seconds=7"}
    for name, query in queries.items():
        stores._opened(name, query)
    assert asked[0] == "gs://none-1?retry_limit_seconds=20"
    assert asked[1] == "gs://anonymous@none-2?retry_limit_seconds=20"
    assert asked[2] == "gs://none-3?retry_limit_seconds=7"
