"""A run is a model: moved, its training files gone, it says of the user's raw rows what the run said of them."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from support import CPU, TINY, run_command

import zoo
from zoo.registry import model_entry

N, WORDS = 90, ["bread", "milk", "eggs", "tea", "salt"]


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def table(folder: Path, target: str | None) -> tuple[list[str], Any]:
    """A CSV of numbers far from 0 and a column of text, and the same rows with the columns in another order."""
    random = generator()
    x = random.normal([1000.0, -3.0, 0.0], [50.0, 0.01, 1.0], (N, 3))
    color = random.choice(["red", "green", "blue"], N)
    signal = (x[:, 0] - 1000) / 50 + (color == "red")
    columns: dict[str, Any] = {"a": x[:, 0], "color": color, "b": x[:, 1], "c": x[:, 2]}
    if target == "class":
        columns["y"] = np.where(signal > 0.3, "yes", "no")
    elif target == "value":
        columns["y"] = signal * 100 + 0.5
    rows = pa.table(columns)
    pacsv.write_csv(rows, folder / "rows.csv")
    options = ["data=csv", f"data.path={folder}/rows.csv", "data.test_fraction=0", "data.val_fraction=0"]
    options += ["data.target=y"] if target else []
    shuffled = rows.select([*(["c", "b", "color", "a"]), *(["y"] if target else [])])
    return options, shuffled.append_column("extra", pa.array(["?"] * N))


def images(folder: Path) -> tuple[list[str], Any]:
    from PIL import Image

    pixels = generator().integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        path = folder / "images" / "train" / ("dark" if i < 20 else "light") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    split = ["data.val_fraction=0", "data.test_fraction=0"]
    return ["data=image_folder", f"data.path={folder}/images", *split], pixels[:, :, :, None]  # channels last


def sequences(folder: Path, target: str) -> tuple[list[str], Any]:
    x = generator().normal(size=(40, 6, 2))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.where(x[:, 0, 0] > 0, "up", "down") if target == "class" else x[:, 0, 0] * 3.0)
    files = [f"data.path={folder}/x.npy", f"data.target={folder}/y.npy"]
    return ["data=npy", *files, "data.test_fraction=0", "data.val_fraction=0"], x


def series(folder: Path) -> tuple[list[str], Any]:
    values = np.cumsum(generator().normal(size=120)).astype(np.float32)
    pacsv.write_csv(pa.table({"value": values}), folder / "series.csv")
    windows = np.lib.stride_tricks.sliding_window_view(values[:-1], 12)[:, :, None]
    options = ["data=series", f"data.path={folder}/series.csv", "data.window=12"]
    return [*options, "data.test_fraction=0", "data.val_fraction=0"], windows


def tokens(folder: Path) -> tuple[list[str], Any]:
    text = "the cat sat on the mat. " * 20
    (folder / "text.txt").write_text(text)
    options = ["data=text_file", f"data.path={folder}/text.txt", "data.sequence_length=10", "data.batch_size=1"]
    options += ["data.tokenizer=char"]
    rows = [text[i : i + 10] for i in range(0, len(text) - 10, 10)]
    return [*options, "data.test_fraction=0", "data.val_fraction=0"], rows


def baskets(folder: Path) -> tuple[list[str], Any]:
    random = generator()
    rows = [sorted(random.choice(WORDS, random.integers(1, 4), replace=False)) for _ in range(60)]
    (folder / "baskets.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    return ["data=baskets", f"data.path={folder}/baskets.csv"], [row[::-1] for row in rows]


MAKERS: dict[tuple[str, str | None], Any] = {
    ("tabular", "class"): functools.partial(table, target="class"),
    ("tabular", "value"): functools.partial(table, target="value"),
    ("tabular", None): functools.partial(table, target=None),
    ("image", "class"): images,
    ("sequence", "class"): functools.partial(sequences, target="class"),
    ("sequence", "value"): functools.partial(sequences, target="value"),
    ("series", "series"): series,
    ("tokens", "tokens"): tokens,
    ("transactions", None): baskets,
}
PAIRS = []
for name in zoo.list_models():
    fitting = [
        pair for pair in MAKERS if pair in model_entry(name).accepts or (pair[0], "any") in model_entry(name).accepts
    ]
    PAIRS += [pytest.param(name, pair, marks=[] if i == 0 else pytest.mark.slow) for i, pair in enumerate(fitting)]
SMALL = {
    "kmeans": ["model.num_clusters=3"],
    "tsne": ["model.perplexity=5"],
    "apriori": ["model.min_support=0.05", "model.min_confidence=0.3"],
    "agglomerative_clustering": ["model.num_clusters=3"],
}


def trained(tmp_path: Path, name: str, options: list[str]) -> Path:
    short = [] if zoo.create_model(name).streaming else ["trainer.max_epochs=2"]
    small = [option for option in TINY.get(name, []) if option.startswith("model.")] + SMALL.get(name, [])
    run = tmp_path / "run"
    assert run_command([f"model={name}", *small, *options, *short, CPU, f"run_dir={run}"]) == 0
    return run


def same(ours: Any, theirs: list[Any]) -> bool:
    if isinstance(ours, np.ndarray):
        return ours.tolist() == theirs
    found, said = ours.flatten(1).double() if ours.ndim > 1 else ours, torch.tensor(theirs)
    return torch.equal(found, said) if not found.is_floating_point() else torch.allclose(
        found.double(), said.double(), rtol=1e-5, atol=1e-6
    )  # fmt: skip


@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_a_moved_run_says_of_raw_rows_what_the_run_said(
    name: str, pair: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    options, rows = MAKERS[pair](files)
    run = trained(tmp_path, name, options)
    assert run_command([f"run={run}", "split=train", "accelerator=cpu"], "evaluate") == 0
    said = pq.read_table(run / "evaluation" / "predictions.parquet")
    shutil.rmtree(files)
    shutil.move(run, tmp_path / "elsewhere" / "model")
    monkeypatch.chdir(tmp_path)
    model = zoo.load_model(tmp_path / "elsewhere" / "model")
    assert said.num_rows == len(rows)
    assert same(model.predict(rows), said["prediction"].to_pylist())
    found = model.predict_table(rows)
    assert [c for c in said.column_names if not c.startswith("target")] == found.column_names
    for column in found.column_names:
        if column.startswith("probability"):
            np.testing.assert_allclose(found[column].to_numpy(), said[column].to_numpy(), rtol=1e-4, atol=1e-6)


def trained_on(run: Path) -> str:
    return (run / "data.sha256").read_text().partition("  ")[2].strip()


def test_tables_of_every_library_are_read_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    options, rows = table(tmp_path, "class")
    model = zoo.load_model(trained(tmp_path, "logistic_regression", options))
    expected = model.predict(rows).tolist()
    assert set(expected) == {"no", "yes"}
    frame = rows.to_pandas()
    assert model.predict(frame).tolist() == expected
    assert model.predict(frame[frame.columns[::-1]]).tolist() == expected
    assert model.predict(frame.iloc[::-1]).tolist() == expected[::-1]
    assert model.predict(rows.to_batches()[0]).tolist() == expected
    assert list(model.predict_table(frame).column_names) == ["prediction", "probability_no", "probability_yes"]
    assert model.score(frame, frame["y"]) == pytest.approx(zoo.evaluate(model, frame, frame["y"])["accuracy"])
    assert isinstance(pandas.DataFrame(model.predict_table(frame).to_pandas()), pandas.DataFrame)


def test_what_is_wrong_with_new_rows_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options, rows = table(tmp_path, "class")
    model = zoo.load_model(trained(tmp_path, "logistic_regression", options))
    for bad, message in [
        (rows.drop_columns("color"), "X has no column 'color', which the training table has"),
        (rows.rename_columns(["c", "b", "colour", "a", "y", "extra"]), "no column 'color'.*Did you mean colour"),
        (rows.set_column(0, "c", pa.array([None] * N, pa.float64())), "X: column 'c' lacks 90 of 90 values: fill"),
        (rows.set_column(0, "c", pa.array(["x"] * N)), "column 'c' holds text where numbers are expected"),
        (np.zeros((3, 4)), "X must be a table: column 'color' of the training table holds text"),
    ]:
        with pytest.raises(zoo.ZooError, match=message) as caught:
            model.predict(bad)
        assert "\n" not in str(caught.value)
    with caplog.at_level("INFO"):
        unknown = rows.set_column(2, "color", pa.array(["violet"] * N))  # as at training: no column of zeros and ones
        assert set(model.predict(unknown)) <= {"no", "yes"}
    assert "'extra' ignored" in caplog.text
    with pytest.raises(zoo.ZooError, match="y has the class 'maybe', which the training rows lack"):
        zoo.evaluate(model, rows, ["maybe"] * N)


def test_predict_writes_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, rows = table(tmp_path, "class")
    run = trained(tmp_path, "logistic_regression", options)
    expected = zoo.load_model(run).predict_table(rows).to_pydict()
    pacsv.write_csv(rows, tmp_path / "new.csv")
    pq.write_table(rows, tmp_path / "new.parquet")
    for source in ("new.csv", "new.parquet"):
        for target in ("out.parquet", "out.csv"):
            new, out = tmp_path / source, tmp_path / target
            assert run_command([f"run={run}", f"data.path={new}", f"output={out}"], "predict") == 0
            found = pq.read_table(out) if target == "out.parquet" else pacsv.read_csv(out)
            assert found["prediction"].to_pylist() == expected["prediction"]
            np.testing.assert_allclose(found["probability_yes"].to_numpy(), expected["probability_yes"], rtol=1e-5)
    assert not list(tmp_path.glob(".*"))
    pacsv.write_csv(rows.drop_columns("a"), tmp_path / "bad.csv")
    (tmp_path / "semicolons (1).csv").write_text("a;b;c;color\n1;2;3;red\n")
    before = (tmp_path / "new.csv").read_bytes()
    for arguments, message in [
        ([f"data.path={tmp_path}/bad.csv"], "has no column 'a', which the training table has"),
        ([], "data.path is missing"),
        ([f"data.path={tmp_path}/new.csv", f"output={tmp_path}/out.xlsx"], "is no .parquet or .csv file"),
        ([f"data.path={tmp_path}/*.csv", f"output={tmp_path}/../{tmp_path.name}/new.csv"], "holds the new rows"),
        ([f"data.path={tmp_path}/bad.csv", f"output={trained_on(run)}"], "holds the rows that the run was trained on"),
        ([f"data.path={tmp_path}/new.csv", "data.delimiter=ab"], "data.delimiter must be one character, not 'ab'"),
        ([f"data.path={tmp_path}/new.csv", "data.column=a"], "data.column names the column of a series"),
        ([f"data.path={tmp_path}/semicolons (1).csv"], "pass data.delimiter=';'"),
        ([f"data.path={tmp_path}/new.csv", "checkpoint=first"], "pass checkpoint=last, or leave it out"),
    ]:
        capsys.readouterr()
        assert run_command([f"run={run}", *arguments], "predict") == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "new.csv").read_bytes() == before


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin1", "utf-8"])
def test_a_file_in_another_encoding_under_any_name_is_read(encoding: str, tmp_path: Path) -> None:
    options, rows = table(tmp_path, "class")
    run = trained(tmp_path, "logistic_regression", options)
    pacsv.write_csv(rows, tmp_path / "new.csv")
    file, out = tmp_path / "für mich's (ü=1) & ~.csv", tmp_path / "hin ä.parquet"
    file.write_bytes((tmp_path / "new.csv").read_text().encode(encoding))
    arguments = [f"run={run}", f"data.path={file}", f"output={out}", f"data.encoding={encoding}"]
    assert run_command(arguments, "predict") == 0
    assert pq.read_table(out)["prediction"].to_pylist() == list(zoo.load_model(run).predict(rows))


def test_evaluate_refuses_a_target_that_was_not_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, rows = table(tmp_path, "class")
    run = trained(tmp_path, "logistic_regression", options)
    pacsv.write_csv(rows, tmp_path / "new.csv")
    for name in ("a", "nowhere"):
        arguments = [f"run={run}", f"data.path={tmp_path}/new.csv", f"data.target={name}"]
        assert run_command(arguments, "evaluate") == 1
        assert f"data.target={name} is not what the model learnt to say, 'y'" in capsys.readouterr().err


def test_predict_reads_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    options, rows = table(tmp_path, "value")
    run = trained(tmp_path, "linear_regression", options)
    sink = io.BytesIO()
    pacsv.write_csv(rows, sink)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(sink.getvalue()))))  # type: ignore[arg-type]
    capfdbinary.readouterr()
    assert run_command([f"run={run}", "data.path=-"], "predict") == 0
    found = pacsv.read_csv(io.BytesIO(capfdbinary.readouterr().out))["prediction"].to_numpy()
    np.testing.assert_allclose(found, zoo.load_model(run).predict(rows).numpy(), rtol=1e-6)


@pytest.mark.parametrize("source", ["images", "series", "tokens", "baskets", "sequences"])
def test_predict_reads_data_of_every_kind(source: str, tmp_path: Path) -> None:
    name, maker, path = {
        "images": ("cnn", images, "images/train/*/*.png"),
        "series": ("lstm", series, "series.csv"),
        "tokens": ("gru", tokens, "text.txt"),
        "baskets": ("apriori", baskets, "baskets.csv"),
        "sequences": ("rnn", functools.partial(sequences, target="class"), "x.npy"),
    }[source]
    options, rows = maker(tmp_path)
    run = trained(tmp_path, name, options)
    out = tmp_path / "out.parquet"
    assert run_command([f"run={run}", f"data.path={tmp_path}/{path}", f"output={out}"], "predict") == 0
    found = pq.read_table(out)
    if source == "images":
        assert [Path(p).stem for p in found["path"].to_pylist()] == [f"{i:02d}" for i in range(len(rows))]
    if source != "tokens":
        theirs = found["prediction"].to_pylist()[: len(rows)]
        assert same(zoo.load_model(run).predict(rows), theirs)
    if source == "series":
        assert found.num_rows == len(rows) + 1  # what follows the last step, too


def test_a_model_keeps_its_preprocessing_in_a_file_of_its_own(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    random = generator()
    frame = pandas.DataFrame({"a": random.normal(1000, 50, 80), "b": random.normal(-3, 0.01, 80)})
    y = np.where(frame["a"] > 1000, "yes", "no")
    model = zoo.fit(zoo.create_model("mlp", widths=[8]), frame, y, lr=0.05, max_epochs=20, device="cpu")
    assert model.score(frame, y) > 0.9  # without scaling, every row falls into one class
    zoo.save_model(model, tmp_path / "model.ckpt")
    again = zoo.load_model(tmp_path / "model.ckpt")
    for found in (again.predict(frame), again.predict(frame[["b", "a"]]), again.predict(frame.to_numpy())):
        assert found.tolist() == model.predict(frame).tolist()
    with pytest.raises(zoo.ZooError, match="X has no column 'b'"):
        again.predict(frame[["a"]])
    prepared = model.preprocessing.scaling(zoo.Batch(torch.from_numpy(frame.to_numpy())))  # type: ignore[union-attr, misc]
    assert torch.equal(model.predict_columns(prepared)["probability"], model.predict_columns(frame)["probability"])
    assert torch.equal(
        model.predict_columns(prepared.x, raw=False)["probability"], model.predict_columns(frame)["probability"]
    )


def test_a_checkpoint_without_preprocessing_takes_prepared_rows(tmp_path: Path) -> None:
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), torch.eye(3), torch.ones(3))
    model.preprocessing = None
    zoo.save_model(model, tmp_path / "old.ckpt")
    old = zoo.load_model(tmp_path / "old.ckpt")
    assert old.preprocessing is None
    assert torch.equal(old.predict(torch.eye(3)), model.predict(torch.eye(3)))


def test_scores_are_scikit_learns() -> None:
    from sklearn.metrics import r2_score

    random = generator()
    x = random.normal(size=(60, 3))
    weight = random.uniform(0.1, 2, 60)
    for scale in (1e-9, 1.0, 1e9):
        y = (x @ [1.0, -2.0, 0.5] + random.normal(size=60)) * scale
        model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), x, y)
        predicted = model.predict(x).numpy()
        assert model.score(x, y) == pytest.approx(r2_score(y, predicted), rel=1e-9)
        assert model.score(x, y, weight) == pytest.approx(r2_score(y, predicted, sample_weight=weight), rel=1e-9)
    kmeans = zoo.fit(zoo.create_model("kmeans", num_clusters=2), x)
    with pytest.raises(zoo.ZooError, match="kmeans predicts no targets"):
        kmeans.score(x, y)
    assert zoo.evaluate(kmeans, x)["inertia"] > 0


def test_a_model_shows_its_hyperparameters_and_state() -> None:
    model = zoo.create_model("kmeans", num_clusters=3)
    assert "num_clusters=3" in repr(model)
    assert "not fitted" in repr(model)
    zoo.fit(model, torch.randn(9, 2))
    assert "for tabular data (2)" in repr(model)
    assert "<th>num_clusters</th><td>3</td>" in model._repr_html_()


def evaluated(run: Path, *arguments: str) -> int:
    return run_command([f"run={run}", "accelerator=cpu", *arguments], "evaluate")


def test_files_that_changed_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, rows = table(tmp_path, "class")
    options = [option.replace("test_fraction=0", "test_fraction=0.3") for option in options]
    monkeypatch.chdir(tmp_path)
    relative = [option.replace(f"{tmp_path}/", "") for option in options]
    run = trained(tmp_path, "logistic_regression", relative)
    monkeypatch.chdir("/")  # from any folder
    assert evaluated(run) == 0
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert "has changed" not in capsys.readouterr().out

    pacsv.write_csv(rows, tmp_path / "rows.csv")  # the same rows: columns in another order, and a new one
    assert evaluated(run) == 0
    printed = capsys.readouterr().out
    assert "rows.csv has changed since training" in printed
    assert "'extra' ignored" in printed
    assert json.loads((run / "evaluation" / "metrics.json").read_text()) == pytest.approx(metrics)

    again = [f"model={'logistic_regression'}", *options, "trainer.max_epochs=3", CPU, f"run_dir={run}"]
    assert run_command(again) == 1
    assert "rows.csv has changed since this run began: restore it" in capsys.readouterr().err

    renamed = rows.rename_columns(["gamma", *rows.column_names[1:]])
    unknown = rows.set_column(4, "y", pa.array(["maybe"] * N))
    for bad, message in [(renamed, "has no column 'c', which"), (unknown, "has the class 'maybe', which the training")]:
        pacsv.write_csv(bad, tmp_path / "rows.csv")
        assert evaluated(run) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_evaluate_takes_new_rows_and_files_that_moved(tmp_path: Path) -> None:
    options, rows = table(tmp_path, "class")
    options = [option.replace("test_fraction=0", "test_fraction=0.3") for option in options]
    run = trained(tmp_path, "logistic_regression", options)
    (tmp_path / "rows.csv").rename(tmp_path / "moved.csv")
    assert evaluated(run, f"data.path={tmp_path}/moved.csv") == 0  # the same digest: the same test rows
    assert pq.read_table(run / "evaluation" / "predictions.parquet").num_rows == round(0.3 * N)
    pacsv.write_csv(rows.slice(0, 40), tmp_path / "new.csv")
    assert evaluated(run, f"data.path={tmp_path}/new.csv") == 0
    found = pq.read_table(run / "evaluation" / "new" / "predictions.parquet")
    metrics = json.loads((run / "evaluation" / "new" / "metrics.json").read_text())
    assert found["target"].to_pylist() == rows["y"].to_pylist()[:40]
    assert metrics["new/accuracy"] == pytest.approx(zoo.load_model(run).score(rows.slice(0, 40), rows["y"][:40]))


def test_a_run_that_holds_its_data_moves_with_them(tmp_path: Path) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    options, _ = table(tmp_path / "run" / "data", "class")
    run = trained(tmp_path, "logistic_regression", options)
    shutil.move(run, tmp_path / "elsewhere")
    assert "path: data/rows.csv" in (tmp_path / "elsewhere" / "config.yaml").read_text()
    assert evaluated(tmp_path / "elsewhere") == 0
