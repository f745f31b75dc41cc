"""Exported models say what `predict` says: the portable module, its trace, ONNX under onnxruntime, files of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from support import CPU, create, default_data, fit_tiny, has_module, run_command, tiny_batch

import zoo
from zoo.data.registry import create_data
from zoo.models.base import ZooModel
from zoo.training import export
from zoo.training.export import FORMATS, LARGEST, difference, export_model, largest_difference, onnx_runner, trace
from zoo.training.portable import Portable
from zoo.training.weight_files import read_weights, write_weights

MODELS = zoo.list_models()
onnx = pytest.mark.skipif(
    not all(map(has_module, ("onnx", "onnxscript", "onnxruntime"))), reason="pip install 'refzoo[onnx]'"
)


def fitted(name: str, data: str | None = None, **hparams: Any) -> tuple[ZooModel, Any]:
    """A model that saw a few rows of its data, as a run would leave it, and some of these."""
    source = default_data(name) if data is None else create_data(data)
    batch, model = tiny_batch(source), create(name, source, **hparams)
    fit_tiny(model, batch, steps=3)
    model.preprocessing = source.preprocessing
    return model.eval(), batch


LOOPS = ("zoo.layers.recurrent.scan", "zoo.layers.memory.machine", "zoo.models.base.translates", "zoo.models.tsne.tsne")


def loop(step: Any, state: Any, inputs: torch.Tensor) -> tuple[Any, Any]:
    """What `traced_loop` stands for, which needs torch's compiler itself."""
    outputs = []
    for now in inputs:
        state, output = step(state, now)
        outputs.append(output)
    return state, torch.stack(outputs)


@contextmanager
def as_traced() -> Iterator[None]:
    """Within it models take the formulas that a trace takes, without the time of one."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.compiler, "is_exporting", return_value=True))
        for module in LOOPS:
            stack.enter_context(mock.patch(f"{module}.traced_loop", loop))
        yield


LOAD_LONG = ("apriori",)  # its default data are read from all of the standard library


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LOAD_LONG else n for n in MODELS])
def test_the_portable_module_says_what_predict_says(name: str) -> None:
    few: dict[str, Any] = {"num_steps": 20, "placement_steps": 20} if name == "tsne" else {}
    model, batch = fitted(name, **few)
    portable = Portable(model)

    def run(raw: torch.Tensor) -> list[torch.Tensor]:
        with as_traced(), torch.no_grad():
            return list(portable(raw))

    for rows in (batch, None):
        assert largest_difference(portable, model, run, rows) <= LARGEST
    json.dumps(portable.about())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", [pytest.param("onnx", marks=onnx), "torch"])
def test_every_exported_model_says_what_predict_says(name: str, form: str, tmp_path: Path) -> None:
    model, batch = fitted(name)
    assert export_model(model, tmp_path / f"model{FORMATS[form]}", format=form, prepared=batch) <= LARGEST


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("kmeans", {"spherical": True}),
    ("pca", {"whiten": True, "num_components": 3}),
    ("linear_regression", {"solver": "gradient"}),
    ("logistic_regression", {"solver": "gradient"}),
    ("lstm", {"bidirectional": True, "num_layers": 2, "proj_size": 4}),
    ("gru", {"bidirectional": True}),
    ("rnn", {"nonlinearity": "relu", "num_layers": 2}),
    ("lstm", {"layers": "torch", "bidirectional": True}),
    ("lstm", {"layer_norm": True, "peepholes": True, "zoneout": 0.1}),
    ("gru", {"reset_after": False, "update_gate": "new", "layer_norm": True}),
    ("ntm", {"controller": "lstm", "num_read_heads": 2}),
    ("dnc", {"controller": "feedforward"}),
    ("ntm", {"controller": "lstm", "span": 4.0, "initial_memory": "learned"}),
    ("ram", {"num_paths": 3}),
    ("svm", {"features": "nystroem", "num_components": 8}),
    ("svm", {"features": "rff", "num_components": 8}),
    ("kernel_svm", {"kernel": "poly", "degree": 2}),
    ("kernel_svm", {"probability": True}),
    ("kernel_svm", {"probability": True, "data": "iris"}),
    ("kernel_svm", {"decision": "ovo", "data": "iris"}),
    ("naive_bayes", {"likelihood": "bernoulli", "threshold": 0.0}),
    ("one_class_svm", {"kernel": "sigmoid"}),
    ("decision_tree", {"data": "diabetes"}),
    ("gradient_boosting", {"data": "iris"}),
    ("gradient_boosting", {"data": "diabetes", "loss": "poisson"}),
    ("linear_regression", {"data": "diabetes", "solver": "gradient"}),
    ("mlp", {"data": "diabetes"}),
    ("gru", {"data": "temperatures"}),
    ("cnn", {"layers": "zoo", "residual": True, "pool": "avg"}),
    ("mlp", {"batch_norm": True, "binary_logit": True, "activation": "gelu"}),
    ("transformer_encoder", {"positions": "rotary"}),
    ("transformer_encoder", {"positions": "alibi", "readout": "cls"}),
    ("transformer_encoder", {"positions": "learned", "norm_first": False}),
    ("gpt", {"tie_embeddings": False, "bias": False}),
    ("seq2seq", {"cell": "lstm", "num_layers": 2, "attention": "multiplicative", "tie_embeddings": False}),
    ("seq2seq", {"input_feeding": True, "layers": "torch"}),
    ("transformer", {"norm_first": False, "tie_embeddings": False}),
    ("transformer", {"layers": "torch"}),
    ("tsne", {"num_components": 3, "precision": "double"}),
    ("tsne", {"metric": "cosine"}),
    ("agglomerative_clustering", {"linkage": "average", "metric": "manhattan"}),
    ("agglomerative_clustering", {"linkage": "average", "metric": "cosine"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
@pytest.mark.parametrize("form", [pytest.param("onnx", marks=onnx)])
def test_variants_say_what_predict_says(name: str, hparams: dict[str, Any], form: str, tmp_path: Path) -> None:
    model, batch = fitted(name, **hparams)
    assert export_model(model, tmp_path / f"model{FORMATS[form]}", format=form, prepared=batch) <= LARGEST


# -- tables with text and gaps -----------------------------------------------------------------------------------------

TABLE = {
    "size": [1.0, 2.5, None, 4.0, 5.5, 3.0, 2.0, 8.0],
    "colour": ["red", "blue", "green", None, "red", "blue", "green", "red"],
    "old": [True, False, True, True, False, False, True, False],
    "kind": ["a", "b", "a", "b", "a", "b", "a", "b"],
}


def table_model(name: str, text: str, **options: Any) -> ZooModel:
    rows = {key: values for key, values in TABLE.items() if key != "kind"}
    model = zoo.create_model(name)
    return zoo.fit(model, rows, TABLE["kind"], text=text, **options)


@pytest.mark.parametrize("text", ["onehot", "codes"])
@pytest.mark.parametrize(("name", "missing"), [("naive_bayes", "mean"), ("decision_tree", "auto")])
def test_raw_rows_of_a_table_are_coded_inside(name: str, missing: str, text: str) -> None:
    model = table_model(name, text, missing=missing)
    portable = Portable(model)
    new = {"size": [None, 3.25, 9.0], "old": [True, True, False], "colour": ["green", "unheard of", None]}
    raw = portable.tensor(new)
    assert raw.dtype == torch.float64
    wanted = model.predict_columns(new)
    said = dict(zip(portable.outputs, portable(raw), strict=True))
    assert torch.equal(said["prediction"], wanted["prediction"])
    torch.testing.assert_close(said["probability"], wanted["probability"], rtol=0, atol=1e-12)
    about = portable.about()
    assert about["columns"] == ["size", "colour", "old"]
    assert about["categories"] == {"colour": ["blue", "green", "red"]}
    assert about["labels"] == ["a", "b"]
    prepared = portable.preparation(raw)
    again = portable.preparation(portable.preparation.undone(prepared))
    torch.testing.assert_close(again, prepared, rtol=0, atol=1e-12, equal_nan=True)
    back = portable.rows(portable.examples(5))
    assert difference(portable(portable.tensor(back)), model.predict_columns(back).values()) <= LARGEST


def test_where_training_refused_a_missing_number_the_answer_is_none() -> None:
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), {"a": [0.0, 1.0, 2.0]}, [1.0, 3.0, 5.0])
    portable = Portable(model)
    assert portable(torch.tensor([[torch.nan]], dtype=portable.input.dtype))[0].isnan().all()
    assert float(portable(torch.tensor([[2.0]], dtype=portable.input.dtype))[0]) == pytest.approx(5.0)
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    for name in ("decision_tree", "kmeans", "naive_bayes"):
        labels = None if name == "kmeans" else ["a", "a", "b", "b"]
        model = zoo.create_model(name, **({"num_clusters": 2} if name == "kmeans" else {}))
        model = zoo.fit(model, rows, labels, missing="refuse")
        portable = Portable(model)
        lacking = rows.to(portable.input.dtype).clone()
        lacking[1, 0] = torch.nan
        said = dict(zip(portable.outputs, portable(lacking), strict=True))
        wanted = model.predict_columns(rows)
        there = torch.tensor([0, 2, 3])
        for key, values in said.items():
            gone = values[1].isnan() if values.is_floating_point() else values[1] == -1
            assert bool(gone.all()), (name, key)
            torch.testing.assert_close(values[there], wanted[key][there], rtol=0, atol=1e-9)


def test_a_tree_that_learnt_from_missing_numbers_answers_them_in_a_file() -> None:
    rows = torch.tensor([[0.0], [1.0], [torch.nan], [torch.nan]])
    model = zoo.fit(zoo.create_model("decision_tree"), rows, ["a", "a", "b", "b"])
    portable = Portable(model)
    assert portable(rows.to(portable.input.dtype))[0].tolist() == [0, 0, 1, 1]


# -- traces and files --------------------------------------------------------------------------------------------------


def test_a_trace_takes_any_number_of_rows_and_steps_and_needs_no_zoo(tmp_path: Path) -> None:
    model, batch = fitted("lstm")
    path = tmp_path / "model.pt2"
    assert export_model(model, path, format="torch", prepared=batch) <= LARGEST
    extra = {"zoo.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["zoo.json"])["input"]["shape"] == ["rows", "steps", 8]
    x = torch.randn(5, 23, 8)
    torch.testing.assert_close(program.module()(x)[1], model.predict_columns(x)["probability"], rtol=0, atol=1e-5)
    assert not any("zoo" in str(node.target) for node in program.graph.nodes if node.op == "call_function")


@pytest.mark.slow
@onnx
def test_an_onnx_file_says_what_it_is_and_runs_by_itself(tmp_path: Path) -> None:
    import onnxruntime

    model = table_model("decision_tree", "onehot")
    path = tmp_path / "model.onnx"
    assert export_model(model, path) <= LARGEST
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # in one file
    session = onnxruntime.InferenceSession(str(path))
    assert (session.get_inputs()[0].name, session.get_inputs()[0].shape) == ("x", ["rows", 3])
    about = json.loads(session.get_modelmeta().custom_metadata_map["zoo"])
    codes = about["categories"]["colour"].index("green")
    new = {"size": [3.25], "colour": ["green"], "old": [True]}
    said = onnx_runner(path)(torch.tensor([[3.25, codes, 1.0]], dtype=torch.float64))
    assert about["labels"][int(said[0])] == model.predict(new)[0]


def test_what_differs_is_not_written(tmp_path: Path) -> None:
    model, batch = fitted("linear_regression")
    path = tmp_path / "model.pt2"
    path.write_text("before")
    with (
        mock.patch.object(Portable, "rows", lambda self, raw: raw * 1.01),
        pytest.raises(zoo.ZooError, match="was not written: what the exported linear_regression says differs"),
    ):
        export_model(model, path, format="torch", prepared=batch)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_no_graph_holds_is_refused_in_a_line(tmp_path: Path) -> None:
    apart = torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]])
    clusters = zoo.create_model("agglomerative_clustering", num_clusters=2, metric="precomputed", linkage="average")
    large = zoo.create_model("tsne", perplexity=1.5, num_steps=1)
    for model, rows, why in ((clusters, apart, "is not exported"), (large, apart * 1e9, "scale them")):
        with pytest.raises(zoo.ZooError, match=why):
            export_model(zoo.fit(model, rows), tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())


def test_unfitted_models_and_wrong_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = zoo.DataSpec("tabular", (2,))
    for model, message in (
        (zoo.create_model("kmeans"), "has seen no data yet"),
        (zoo.create_model("kmeans", spec), "has learnt nothing"),
    ):
        for kind, suffix in FORMATS.items():
            with pytest.raises(zoo.ZooError, match=message):
                export_model(model, tmp_path / f"m{suffix}", format=kind)
    done, _ = fitted("linear_regression")
    with pytest.raises(zoo.ZooError, match=r"Unknown format 'onx'. Did you mean onnx\?"):
        export_model(done, tmp_path / "m.onnx", format="onx")
    with pytest.raises(zoo.ZooError, match=r"a file of format onnx ends in \.onnx"):
        export_model(done, tmp_path / "m.bin")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(zoo.ZooError, match=r"needs onnxscript: pip install 'refzoo\[onnx\]'"):
        export_model(done, tmp_path / "m.onnx")


@pytest.mark.parametrize("coding", ["onehot", "codes"])
def test_rows_that_are_drawn_lack_nothing_that_is_refused(coding: str) -> None:
    """A table fitted in Python, its text coded, was exported as "column 'city' lacks 1 of 7 values"."""
    table = {"size": [40.0, 90.0, 120.0] * 8, "city": ["Bern", "Chur", "Basel"] * 8}
    for missing in ("refuse", "mean"):
        model = zoo.fit(zoo.create_model("naive_bayes"), table, ["a", "b", "b"] * 8, text=coding, missing=missing)
        portable = Portable(model)
        assert portable.examples(50).isnan().any() == (missing != "refuse")
        assert len(model.predict(portable.rows(portable.examples(50)))) == 50


def test_the_command_exports_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert run_command(["model=naive_bayes", f"run_dir={run}", CPU]) == 0
    capsys.readouterr()
    assert run_command([f"run={run}", "format=safetensors"], "export") == 0
    assert "model.safetensors" in capsys.readouterr().out
    again = read_weights(run / "export" / "model.safetensors")
    x = torch.rand(4, 13)
    assert torch.equal(again.predict(x), zoo.load_model(run).predict(x))
    for arguments, message in (
        ([f"run={tmp_path / 'nowhere'}"], "no run or checkpoint"),
        ([f"run={tmp_path}"], "not a finished run"),
        ([f"run={run}", "format=onx"], "Did you mean onnx?"),
        ([f"run={run}", "out=x"], "no key 'out'"),
        (["format=onnx"], "run is missing: pass run=..."),
    ):
        assert run_command(arguments, "export") == 1
        line = capsys.readouterr().err
        assert message in line, line
        assert line.count("\n") == 1


def test_statistics_that_no_answer_needs_stay_out_of_the_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    for name in ("naive_bayes", "agglomerative_clustering", "kmeans"):
        model, batch = fitted(name)
        path = tmp_path / f"{name}.safetensors"
        write_weights(model, path)
        with safe_open(path, "pt") as file:
            held = set(file.keys())
        assert held.isdisjoint(model.idle())  # type: ignore[operator]
        assert set(model.state_dict()) - set(model.idle()) <= held  # type: ignore[operator]
        again = read_weights(path)
        assert difference(again.predict_columns(batch).values(), model.predict_columns(batch).values()) == 0
        zoo.fit(again, batch.x, **({} if model.entry.unsupervised else {"y": batch.y}))  # it may be fitted anew


@pytest.mark.parametrize("name", ["decision_tree", "random_forest", "gradient_boosting", "kernel_svm", "pca"])
def test_files_of_weights_hold_what_the_model_holds_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, batch = fitted(name)
    path = tmp_path / "model.safetensors"
    assert export_model(model, path, format="safetensors", prepared=batch) == 0
    other = mock.patch.object(export, "read_weights", return_value=fitted("naive_bayes")[0])
    with other, pytest.raises(zoo.ZooError, match="was not written"):
        export_model(model, tmp_path / "other.safetensors", format="safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_flipped_byte_anywhere_is_one_line(tmp_path: Path) -> None:
    model, _ = fitted("naive_bayes")
    path = tmp_path / "model.safetensors"
    write_weights(model, path)
    whole = path.read_bytes()
    for place in (0, 9, 60, 400, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(zoo.ZooError) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole[:-7])
    with pytest.raises(zoo.ZooError, match="no whole file of weights"):
        read_weights(path)


def test_traces_of_models_have_operations_of_torch_alone() -> None:
    model, _ = fitted("decision_tree")
    assert trace(Portable(model)).graph.find_nodes(op="call_function", target=torch.ops.aten.le.Tensor)
