"""Predictions of new rows by a finished run: streamed from files or standard input to a file or standard output."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from zoo.checks import check_type
from zoo.data.files import check_delimiter
from zoo.data.new_rows import new_files, read_new_rows
from zoo.data.provenance import read_digests
from zoo.errors import ZooError
from zoo.training.checkpoint import find_checkpoint, load_model
from zoo.training.plugins import import_plugins
from zoo.training.run import device_of
from zoo.training.run_config import read_config

if TYPE_CHECKING:
    import pyarrow as pa

    from zoo.models.base import ZooModel

__all__ = ["predict_files", "predict_run", "write_tables", "written_forms"]

FORMS = ("delimiter", "encoding", "columns", "null_values", "column")  # how files are written
_BEHIND = 4  # tables that wait to be written


def predict_run(config: DictConfig) -> None:
    """Load the run's model, read rows some at a time, and write what it says of each, in their order."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    run, output = Path(options["run"]), options["output"]
    batch_size = check_type("batch_size", options["batch_size"], int)
    if batch_size < 1:
        raise ZooError(f"batch_size must be at least 1, not {batch_size}.")
    import_plugins(options["plugins"])
    model = load_model(find_checkpoint(run, options["checkpoint"]))
    if model.preprocessing is None:
        raise ZooError(
            f"{run} is of an earlier version and keeps no preprocessing: train it again to predict raw rows."
        )
    settings = read_config(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    given = {key: value for key, value in options["data"].items() if value is not None}
    path = given.pop("path", None)
    if path is None:
        raise ZooError("data.path is missing: pass data.path=FILE of new rows, or data.path=- for standard input.")
    unknown = set(given) - set(FORMS)
    if unknown:
        raise ZooError(f"predict has no data.{min(unknown)}: it takes data.path and {', '.join(FORMS)}.")
    assert model.spec is not None
    if "column" in given and model.spec.kind != "series":
        raise ZooError("data.column names the column of a series, and this run was trained on none: leave it out.")
    check_delimiter(given.get("delimiter"))
    _check_output(output, new_files(path, model.spec, model.preprocessing), run)
    model.to(device_of(options["accelerator"]))
    if model.spec.kind == "tabular":
        torch.set_num_threads(1)  # the cores read the table meanwhile, and threads of both would wait for each other
    count = write_tables(predict_files(model, path, {**written_forms(settings), **given}, batch_size), output)
    if output != "-":
        print(f"{count:,} predictions in {output}")


def _check_output(output: str, new: list[str], run: Path) -> None:
    """Raise one line where the answers would take the place of what is read, or of what the run was trained on."""
    trained = (read_digests(run) or {}) if run.is_dir() else {}
    for files, what in ((new, "the new rows"), (trained, "the rows that the run was trained on")):
        if output != "-" and Path(output).resolve() in [Path(file).resolve() for file in files]:
            raise ZooError(f"output={output} holds {what}, which the answers would replace: name another file.")


def written_forms(settings: dict[str, Any]) -> dict[str, Any]:
    """Return how the files of a run were written, which new ones are taken to be as well.

    Args:
        settings: the run's config; may be empty.
    """
    return {key: value for key, value in settings.get("data", {}).items() if key in FORMS}


def predict_files(model: ZooModel, path: Any, options: dict[str, Any], batch_size: int = 65536) -> Iterator[pa.Table]:
    """Yield what a model says of the rows of files, some at a time.

    Args:
        model: a trained model with its preprocessing.
        path: files, as `data.path` names them.
        options: how they are written, as `written_forms` returns it.
        batch_size: rows at a time.
    """
    import pyarrow as pa

    assert model.spec is not None
    assert model.preprocessing is not None
    for rows, where, names in read_new_rows(path, model.spec, model.preprocessing, options):
        table = model.answers(model.predict_columns(model.prepare(rows, where=where), batch_size))
        for name, values in names.items():
            table = table.add_column(0, name, pa.array(values))
        yield table


def write_tables(tables: Iterator[pa.Table], output: str) -> int:
    """Write tables as they come, to a Parquet file, a CSV file or standard output; return the number of rows.

    A file is whole or absent: it gets its name at the end.
    """
    first = next(tables, None)
    if first is None:
        raise ZooError("There are no rows to predict.")
    if output == "-":
        import pyarrow.csv as pacsv

        return _drain(pacsv.CSVWriter(sys.stdout.buffer, _flat(first).schema), first, tables, _flat)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix in (".parquet", ".pq"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            # Values that hardly repeat make poor dictionaries and do not shrink, and trying takes most of the time.
            leaves = _leaves(first.schema)
            packed = [name for name, kind in leaves.items() if not pa.types.is_floating(kind)]
            codecs = {name: "snappy" if name in packed else "none" for name in leaves}
            file = pq.ParquetWriter(
                partial, first.schema, use_dictionary=packed, compression=codecs, write_statistics=packed
            )
            count = _drain(file, first, tables, lambda table: table)
        elif path.suffix == ".csv":
            import pyarrow.csv as pacsv

            count = _drain(pacsv.CSVWriter(partial, _flat(first).schema), first, tables, _flat)
        else:
            raise ZooError(f"output={output} is no .parquet or .csv file, nor - for standard output.")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _leaves(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return what Parquet calls each column, or the elements of its lists, with their type."""
    import pyarrow as pa

    leaves = {}
    for field in schema:
        if pa.types.is_large_list(field.type):
            leaves[f"{field.name}.list.element"] = field.type.value_type
        else:
            leaves[field.name] = field.type
    return leaves


def _drain(writer: Any, first: pa.Table, tables: Iterator[pa.Table], form: Any) -> int:
    """Write tables in a thread of its own while the next ones are made; return the number of rows."""
    count = 0
    with writer, ThreadPoolExecutor(1, "zoo-write") as thread:
        writing: deque[Future[None]] = deque()
        for table in chain([first], tables):
            writing.append(thread.submit(writer.write_table, form(table)))
            count += len(table)
            if len(writing) > _BEHIND:
                writing.popleft().result()
        for written in writing:
            written.result()
    return count


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with a list column as one text column, its values apart by blanks: CSV knows no lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, field in enumerate(table.schema):
        if pa.types.is_large_list(field.type):
            words = pc.binary_join(pc.cast(table.column(number), pa.large_list(pa.string())), " ")
            table = table.set_column(number, field.name, words)
    return table
