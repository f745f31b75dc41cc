"""Which axes of arrays are channels, pixels and steps: as they look, or as they are said to be."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import CPU, run_command

import zoo
from zoo.data.layout import layout_of
from zoo.data.preprocessing import Preprocessing
from zoo.errors import ZooError


@pytest.mark.parametrize(
    ("shape", "kinds", "layout", "said"),
    [
        ((9, 5), (), "NF", ""),
        ((9, 5, 4), (), "NTF", ""),
        ((9, 8, 8), ("image", "tabular"), "NHW", "layout=NTF"),
        ((9, 8, 8), ("image", "sequence"), "NTF", "layout=NHW"),
        ((9, 8, 8), ("sequence",), "NTF", ""),
        ((9, 32, 32, 3), ("image",), "NHWC", "layout=NCHW"),
        ((9, 7, 5, 1), (), "NHWC", "layout=NCHW"),
        ((9, 3, 32, 32), (), "NCHW", ""),
        ((9, 3, 28, 3), (), "NCHW", ""),
        ((9, 16, 4, 4), (), "NCHW", ""),
        ((9, 16, 32, 32), (), "NCHW", ""),
    ],
)
def test_axes_are_what_they_look_like(
    shape: tuple[int, ...], kinds: tuple[str, ...], layout: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "zoo"):
        assert layout_of(shape, kinds=kinds) == layout
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Grey squares, of which one in two is brighter in its upper half."""
    x = np.random.default_rng(0).random((60, 6, 8)).astype(np.float32)
    y = np.arange(60) % 2
    x[y == 1, :3] += 1
    return x, y


def fitted(x: Any, y: Any, **options: Any) -> Any:
    return zoo.fit(zoo.create_model("mlp", widths=[4]), x, y, max_epochs=2, device="cpu", **options)


def test_channels_last_and_none_are_trained_on_as_channels_first(images: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = images
    first = fitted(x[:, None], y)
    assert first.spec.shape == (1, 6, 8)
    coloured = np.repeat(x[..., None], 3, axis=-1)
    assert fitted(coloured, y).spec.shape == (3, 6, 8)
    assert fitted(coloured, y, layout="NCHW").spec.shape == (6, 8, 3)
    for other in (x, torch.from_numpy(x), x.tolist(), x[..., None]):
        model = fitted(other, y)
        assert model.spec.shape == (1, 6, 8)
        for name, value in first.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
        assert torch.equal(model.predict(other), first.predict(x[:, None]))


def test_sequences_may_be_said_to_be_images(images: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = images
    options: dict[str, Any] = {"max_epochs": 1, "device": "cpu"}
    encoder = zoo.fit(zoo.create_model("transformer_encoder", hidden_size=8), x, y, layout="NHW", **options)
    assert (encoder.spec.kind, encoder.spec.shape) == ("image", (1, 6, 8))
    lstm = zoo.fit(zoo.create_model("lstm", hidden_size=4), x, y, **options)
    assert lstm.spec.kind == "sequence"


def test_another_number_of_axes_is_one_line(images: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = images
    with pytest.raises(ZooError, match=r"layout=NHWC is of 4 axes, and X has the shape \(60, 6, 8\)\.$"):
        fitted(x, y, layout="NHWC")
    with pytest.raises(ZooError, match=r"layout .*'NHC'"):
        fitted(x, y, layout="NHC")
    with pytest.raises(ZooError, match="pass layout with arrays only"):
        fitted(zoo.create_data("digits"), None, layout="NCHW")
    for rows in (
        ["a b", "b c", "c", "a"],
        {"a": [0.5, 1.0, 2.0, 4.0], "b": ["x", "y", "x", "y"]},
        [[1], [2, 3], [4], [5]],
    ):
        with pytest.raises(ZooError, match=r"^layout says what the axes of an array of numbers are: leave it out\.$"):
            fitted(rows, [0, 1, 0, 1], layout="NCHW")


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize("axes", ["NHW", "NHWC", "NCHW"])
def test_files_are_read_alike(images: tuple[np.ndarray, np.ndarray], tmp_path: Path, axes: str, limit: int) -> None:
    x, y = images
    np.save(tmp_path / "x.npy", {"NHW": x, "NHWC": x[..., None], "NCHW": x[:, None]}[axes])
    np.save(tmp_path / "y.npy", y)
    files = {"path": str(tmp_path / "x.npy"), "target": str(tmp_path / "y.npy")}
    for layout in (axes, "auto"):
        data = zoo.create_data("npy", layout=layout, in_memory_limit=limit, shuffle=False, batch_size=0, **files)
        data.kinds = ("image", "tabular")
        data.setup()
        assert data.spec.shape == (1, 6, 8)
        batch = next(iter(data.train_dataloader()))
        one = batch.x[0, 0].numpy()
        assert any(np.array_equal(one, row) for row in x)
        rows = data.rows("train")
        elsewhere = pickle.loads(pickle.dumps(rows))  # as in a worker process, which maps the file for itself
        assert torch.equal(elsewhere[torch.arange(9)].x, rows[torch.arange(9)].x)
    with pytest.raises(ZooError, match=r"^data.layout=NF is of 2 axes"):
        zoo.create_data("npy", layout="NF", **files).setup()


def test_a_run_on_grey_images_predicts_and_evaluates(
    images: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = images
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = ["model=cnn", "data=npy", "data.path=x.npy", "data.target=y.npy", "model.channels=[2]", "run_dir=run"]
    assert run_command([*words, CPU, "trainer.max_epochs=2"]) == 0
    assert run_command(["run=run"], "evaluate") == 0
    model = zoo.load_model("run")
    assert model.spec.shape == (1, 6, 8)
    assert torch.equal(model.predict(x), model.predict(x[:, None]))


def test_axes_of_one_length_are_read_as_they_were_in_training() -> None:
    x, y = np.random.default_rng(0).random((80, 5, 5, 5)).astype(np.float32), np.arange(80) % 2
    x[y == 1, :, :, 2] += 1
    last = fitted(x, y, layout="NHWC")
    first = fitted(x.transpose(0, 3, 1, 2), y)
    assert torch.equal(last.predict(x), first.predict(x.transpose(0, 3, 1, 2)))
    assert last.score(x, y) == first.score(x.transpose(0, 3, 1, 2), y)
    assert Preprocessing.from_dict(last.preprocessing.to_dict()).layout == "NHWC"


def test_rows_of_different_lengths_are_no_table() -> None:
    with pytest.raises(ZooError, match=r"^X is a list of rows of different lengths: all must have the same\.$"):
        zoo.fit(zoo.create_model("decision_tree"), [[1.5, 2.0], [2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 4.0]], [0, 1, 0, 1])
