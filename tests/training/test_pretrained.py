"""Trained weights: those that travel with the package, those of one's own, and training that begins with them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from support import CHECKOUT, CPU, run_command

import zoo
from zoo.training import shipped
from zoo.training.run_config import read_config
from zoo.training.shipped import FOLDER, index
from zoo.training.shipping import SHIPPED, metrics_of
from zoo.training.weight_files import read_about

KEYS = sorted(index())


def test_the_index_says_what_each_file_is() -> None:
    assert set(KEYS) <= set(SHIPPED)
    assert {about["file"] for about in index().values()} == {file.name for file in FOLDER.glob("*.safetensors")}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8 << 20
    for key, about in index().items():
        path = FOLDER / about["file"]
        assert about["bytes"] == path.stat().st_size
        assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert about["metrics"]
        assert about["licence"]
        assert about["command"].startswith("python train.py model=" + key.partition("/")[0])
        assert (read_about(path) or {})["model"] == key.partition("/")[0]


@pytest.mark.parametrize("key", KEYS)
def test_each_card_reads_as_the_hub_reads_it(key: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = (FOLDER / index()[key]["file"]).with_suffix(".md").read_text()
    data = hub.ModelCard(text).data
    assert data.license == index()[key]["licence"]
    assert {r.metric_type: r.metric_value for r in data.eval_results} == index()[key]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_each_file_reaches_what_its_card_says(key: str, request: pytest.FixtureRequest) -> None:
    outside = any("{DATA}" in str(value) for value in index()[key]["data"].values())
    folder = request.getfixturevalue("shared_data") if outside else Path()
    found = metrics_of(key, folder)
    assert found == pytest.approx(index()[key]["metrics"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("key", ["linear_regression/diabetes", "decision_tree/iris"])
def test_what_is_quickly_asked_reaches_what_its_card_says(key: str) -> None:
    assert metrics_of(key, Path()) == pytest.approx(index()[key]["metrics"], rel=1e-6, abs=1e-6)


def test_a_model_is_created_with_trained_weights() -> None:
    model = zoo.create_model("cnn", pretrained="digits")
    assert model.spec is not None
    assert model.preprocessing is not None
    assert torch.equal(model.predict(torch.zeros(2, 1, 8, 8)), model.predict(torch.zeros(2, 1, 8, 8)))
    assert type(zoo.load_pretrained("cnn/digits")) is type(model)
    assert zoo.list_pretrained("cnn/*") == [key for key in KEYS if key.startswith("cnn/")]
    other = zoo.create_model("cnn", zoo.DataSpec("image", (1, 12, 12), "class", num_classes=3), pretrained="digits")
    state, trained = other.state_dict(), model.state_dict()
    same = {
        name for name in state if state[name].shape == trained[name].shape and torch.equal(state[name], trained[name])
    }
    assert same == {name for name in state if not name.startswith("head.")}
    assert zoo.create_model("cnn", pretrained="digits", dropout=0.5).hparams.dropout == 0.5


def test_torch_hub_knows_the_models() -> None:
    model = torch.hub.load(str(CHECKOUT), "linear_regression", source="local", pretrained="diabetes")
    assert model.entry.name == "linear_regression"


def test_wrong_names_and_altered_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, weights, message in (
        ("cnn", "digit", r"There are no weights 'digit'. Did you mean digits\? Of cnn there are: digits"),
        ("glove", "text8", "Of glove there are none"),
        ("mlp", "cnn/digits", "holds weights of cnn, not of mlp"),
        ("cnn", "https://127.0.0.1/x.safetensors", "is not fetched unchecked"),
        ("cnn", "https://127.0.0.1:9/x.safetensors#sha256=" + 64 * "0", "cannot be fetched"),
        ("cnn", "nowhere/at/all", "There is no file or folder nowhere/at/all"),
        ("cnn", "nowhere.safetensors", "There are no weights 'nowhere.safetensors'"),
        ("cnn", str(tmp_path), "has no config.json"),
        ("cnn", "", "An empty name was given"),
        ("cnn", "s3://bucket/m.safetensors", r"s3://bucket/m\.safetensors is not read from there"),
    ):
        with pytest.raises(zoo.ZooError, match=message) as caught:
            zoo.create_model(name, pretrained=weights)
        assert "\n" not in str(caught.value)
    with pytest.raises(zoo.ZooError, match=r"There are no weights 'cnn/digit'. Did you mean cnn/digits"):
        zoo.load_pretrained("cnn/digit")
    with pytest.raises(zoo.ZooError, match=r"without the name of a model: pass .*decision_tree/iris"):
        zoo.load_pretrained("iris")
    with pytest.raises(zoo.ZooError, match="spec must be"):
        zoo.create_model("cnn", 3, pretrained="digits")  # type: ignore[arg-type]
    with pytest.raises(zoo.ZooError, match="pattern must be a string"):
        zoo.list_pretrained(3)  # type: ignore[arg-type]
    spec = zoo.DataSpec("image", (3, 12, 12), "class", num_classes=3)
    with pytest.raises(zoo.ZooError, match=r"pretrained=digits does not fit: stages.0"):
        zoo.create_model("cnn", spec, pretrained="digits", channels=[4])
    folder = shutil.copytree(FOLDER, tmp_path / "weights")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    file = folder / index()["cnn/digits"]["file"]
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    with pytest.raises(zoo.ZooError, match=r"was altered or truncated: its SHA-256 is not that of"):
        zoo.create_model("cnn", pretrained="digits")
    file.unlink()
    with pytest.raises(zoo.ZooError, match="missing from this installation"):
        zoo.create_model("cnn", pretrained="digits")


def test_a_digest_in_an_address_is_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FOLDER / index()["linear_regression/diabetes"]["file"]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fetch(address: str, path: str, hash_prefix: str, progress: bool) -> None:
        if hashlib.sha256(file.read_bytes()).hexdigest() != hash_prefix:
            raise RuntimeError("invalid hash value")
        shutil.copy(file, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    address = f"https://example.org/m.safetensors#sha256={index()['linear_regression/diabetes']['sha256']}"
    assert zoo.create_model("linear_regression", pretrained=address).spec is not None
    assert len(list((tmp_path / "zoo").iterdir())) == 1
    with pytest.raises(zoo.ZooError, match="was refused: its SHA-256 is not"):
        zoo.load_pretrained(f"https://example.org/m.safetensors#sha256={64 * '0'}")


def test_a_run_and_a_model_are_kept_with_a_card(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_command(["model=naive_bayes", f"run_dir={run}", CPU]) == 0
    zoo.save_pretrained(run, tmp_path / "kept", licence="cc0-1.0")
    text = (tmp_path / "kept" / "README.md").read_text()
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert f"| test/accuracy | {metrics['test/accuracy']:.6g} |" in text
    assert "license: cc0-1.0" in text
    assert "model=naive_bayes" in text
    again = zoo.load_pretrained(tmp_path / "kept")
    x = torch.rand(5, 13) * 10
    assert torch.equal(again.predict(x), zoo.load_model(run).predict(x))
    zoo.save_pretrained(again, tmp_path / "again")
    assert "## What it reached" not in (tmp_path / "again" / "README.md").read_text()  # nobody has said
    with pytest.raises(zoo.ZooError, match="not a finished run"):
        zoo.save_pretrained(tmp_path / "kept", tmp_path / "other")
    with pytest.raises(zoo.ZooError, match="There is no run"):
        zoo.save_pretrained(tmp_path / "nowhere", tmp_path / "other")
    with pytest.raises(zoo.ZooError, match="has learnt nothing"):
        zoo.save_pretrained(zoo.create_model("kmeans", zoo.DataSpec("tabular", (2,))), tmp_path / "other")


def test_nothing_of_others_is_overwritten_by_weights(tmp_path: Path) -> None:
    model = zoo.load_pretrained("naive_bayes/wine")
    for name in ("README.md", "config.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(zoo.ZooError, match=f"holds {name} and no weights"):
            zoo.save_pretrained(model, folder)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
    for path, message in (("", "is no folder"), (tmp_path / "a.safetensors", "names a file"), (None, "path must be")):
        with pytest.raises(zoo.ZooError, match=message):
            zoo.save_pretrained(model, path)  # type: ignore[arg-type]
    kept = tmp_path / "Gewichte für mich"
    for _ in range(2):  # its own may be written anew
        zoo.save_pretrained(model, kept)
    (tmp_path / "link.safetensors").symlink_to(kept, target_is_directory=True)
    x = torch.rand(3, 13)
    assert torch.equal(zoo.load_pretrained(tmp_path / "link.safetensors").predict(x), model.predict(x))


def test_weights_that_find_no_place_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="zoo"):
        zoo.create_model("gpt", pretrained="tinyshakespeare", num_layers=1)
    assert "of its tensors have no place: " in caplog.text


def test_a_model_in_bfloat16_answers_as_a_table() -> None:
    model = zoo.load_pretrained("mlp/digits").to(torch.bfloat16)
    table = model.predict_table(torch.ones(2, 1, 8, 8))
    assert sum(table[f"probability_{digit}"][0].as_py() for digit in range(10)) == pytest.approx(1, abs=0.05)


def test_training_goes_on_from_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ["model=cnn", "trainer.max_epochs=1", "optimizer.lr=1e-9", f"run_dir={run}", CPU]
    assert run_command([*arguments, "pretrained=digits"]) == 0
    said = json.loads((run / "metrics.json").read_text())["metrics"]["test/accuracy"]
    assert said == pytest.approx(index()["cnn/digits"]["metrics"]["test/accuracy"], abs=0.01)
    assert read_config(run / "config.yaml")["pretrained"] == "digits"
    capsys.readouterr()
    for more, message in (
        (["model=cnn", "pretrained=digit"], "Did you mean digits?"),
        (["model=kmeans", "data=digits", "pretrained=digits"], "is solved anew in each fit"),
        (["model=cnn", "pretrained=digits", "model.channels=[4]"], "does not fit"),
        (["model=cnn", "pretrained=3"], "pretrained must be"),
    ):
        assert run_command([*more, f"run_dir={tmp_path / 'other'}", CPU]) == 1
        line = capsys.readouterr().err
        assert message in line, line
        assert line.count("\n") == 1
    assert not (tmp_path / "other").exists()
