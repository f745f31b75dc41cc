"""Checkpoints: whole or absent, checked to the bit, and nothing in them is ever executed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, bits, run_command

import zoo
from zoo.errors import ZooError
from zoo.training import checkpoint as module
from zoo.training.checkpoint import find_checkpoint, load_checkpoint, load_model, save_checkpoint, save_model

CONTENT = {"state_dict": {"w": torch.arange(64.0), "n": torch.tensor(3)}, "epoch": 2, "names": ["a", "b"]}


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small checkpoint."""
    save_checkpoint(CONTENT, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    assert run_command(["model=mlp", "data=iris", "trainer.max_epochs=1", CPU, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def run_copy(run: Path, tmp_path: Path) -> Path:
    """A finished run to spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(same(a[k], b[k]) for k in a) if isinstance(a, dict) else a == b


def test_what_was_saved_is_loaded_and_the_digest_is_that_of_sha256sum(file: Path) -> None:
    assert same(load_checkpoint(file), CONTENT)
    assert sidecar(file).read_text() == f"{hashlib.sha256(file.read_bytes()).hexdigest()}  a.ckpt\n"
    assert sorted(os.listdir(file.parent)) == ["a.ckpt", "a.ckpt.sha256"]


def test_files_have_ordinary_permissions(file: Path) -> None:
    reference = file.parent / "reference"
    reference.touch()
    assert file.stat().st_mode == reference.stat().st_mode == sidecar(file).stat().st_mode


class Unwritable:
    """Pickling this fails half-way."""

    def __reduce__(self) -> Any:
        raise OSError(28, "No space left on device")


def test_what_is_written_is_synced_before_the_move_and_the_move_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, replace = [], os.replace
    kind = lambda descriptor: "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(f"sync {kind(descriptor)}"))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(f"move {new.suffix}"), replace(old, new)))
    save_checkpoint({"a": torch.ones(2)}, tmp_path / "model.ckpt")
    digests = ["sync file", "move .sha256"]
    assert done == [*digests, "sync file", "move .ckpt", "sync folder", *digests]


def test_a_failing_write_leaves_the_old_file_and_no_litter(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({"tensor": torch.ones(100_000), "last": Unwritable()}, file)
    assert file.read_bytes() == before
    assert same(load_checkpoint(file), CONTENT)
    assert sorted(os.listdir(file.parent)) == ["a.ckpt", "a.ckpt.sha256"]


class Killed(BaseException):
    """Stands for a kill: nothing may run after it."""


@pytest.mark.parametrize("kills", [1, 2, 3])
def test_a_kill_between_digest_and_move_leaves_a_checkpoint_that_loads(
    file: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    replace = os.replace

    def killed(source: Any, target: Any) -> None:
        if str(target).endswith(".ckpt"):
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        for n in range(kills):
            with pytest.raises(Killed):
                save_checkpoint({"epoch": n}, file)
            assert same(load_checkpoint(file), CONTENT)
    save_checkpoint({"epoch": 9}, file)
    assert load_checkpoint(file) == {"epoch": 9}
    assert len(sidecar(file).read_text().splitlines()) == 1
    assert sorted(os.listdir(file.parent)) == ["a.ckpt", "a.ckpt.sha256"]


def test_a_kill_after_the_move_leaves_a_checkpoint_that_loads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path) -> None:
        raise Killed

    monkeypatch.setattr(module, "_sync_folder", killed)
    with pytest.raises(Killed):
        save_checkpoint({"epoch": 1}, file)
    assert load_checkpoint(file) == {"epoch": 1}


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_one_flipped_bit_anywhere_is_refused_by_name(file: Path) -> None:
    data = file.read_bytes()
    for position in range(0, len(data), 7):
        file.write_bytes(flipped(data, position, position % 8))
        with pytest.raises(ZooError, match=r"a\.ckpt was altered or truncated: its SHA-256 differs"):
            load_checkpoint(file)


def test_without_the_digest_a_flipped_bit_is_refused_or_changes_nothing(file: Path) -> None:
    """Bits of the archive's own padding and dates are covered by no checksum: they must not matter."""
    sidecar(file).unlink()
    data, harmless = file.read_bytes(), 0
    for position in range(0, len(data), 3):
        file.write_bytes(flipped(data, position, position % 8))
        try:
            loaded = load_checkpoint(file)
        except ZooError as error:
            assert "a.ckpt" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert same(loaded, CONTENT)
            harmless += 1
    assert harmless < len(data) / 3 / 2


def test_every_bit_of_every_tensor_is_covered_without_the_digest(file: Path) -> None:
    sidecar(file).unlink()
    data = file.read_bytes()
    start = data.index(CONTENT["state_dict"]["w"].numpy().tobytes())  # type: ignore[index]
    for position in range(start, start + 256):
        file.write_bytes(flipped(data, position, position % 8))
        with pytest.raises(ZooError, match=r"a\.ckpt was altered or truncated: its part .* fails its checksum"):
            load_checkpoint(file)


@pytest.mark.parametrize("with_digest", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(file: Path, with_digest: bool, share: float) -> None:
    if not with_digest:
        sidecar(file).unlink()
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ZooError, match=r"a\.ckpt (was altered or truncated|is not a whole checkpoint)"):
        load_checkpoint(file)


def test_a_digest_of_something_else_is_refused(file: Path) -> None:
    sidecar(file).write_text("0" * 64 + "  a.ckpt\n")
    with pytest.raises(ZooError, match=r"SHA-256 differs from a\.ckpt\.sha256"):
        load_checkpoint(file)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"There is no checkpoint at .*b\.ckpt"):
        load_checkpoint(tmp_path / "b.ckpt")
    with pytest.raises(ZooError, match=r"There is no run or checkpoint at .*nowhere"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ZooError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


class Payload:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def poison(path: Path, mark: Path, how: str) -> None:
    """Put a malicious pickle in the place of a checkpoint."""
    content = {"state_dict": {}, "zoo": {"model": "mlp"}, "payload": Payload(mark)}
    if how == "archive":
        torch.save(content, path)
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif how == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    elif how == "added to a real one":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, pickle.dumps(content) if name.endswith("data.pkl") else data)
    sidecar(path).unlink(missing_ok=True)


POISONS = ["archive", "legacy", "bare pickle", "added to a real one"]


@pytest.mark.parametrize("with_digest", [True, False])
@pytest.mark.parametrize("how", POISONS)
def test_a_malicious_pickle_is_refused_and_not_executed(
    run_copy: Path, tmp_path: Path, how: str, with_digest: bool
) -> None:
    path, mark = run_copy / "checkpoints" / "best.ckpt", tmp_path / "executed"
    poison(path, mark, how)
    if with_digest:  # the attacker can write that file too
        sidecar(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    for load in (load_checkpoint, load_model, zoo.load_model):
        with pytest.raises(ZooError, match=r"best\.ckpt"):
            load(path)
    assert not mark.exists()


def test_the_malicious_pickle_would_have_run_elsewhere(tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    torch.save({"payload": Payload(tmp_path / "executed")}, tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_evaluation_refuses_a_malicious_checkpoint(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(run_copy / "checkpoints" / "best.ckpt", tmp_path / "executed", "archive")
    assert run_command([f"run={run_copy}"], "evaluate") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "best.ckpt" in error
    assert "nothing in it was executed" in error
    assert not (tmp_path / "executed").exists()


def test_resuming_refuses_a_malicious_checkpoint(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(run_copy / "checkpoints" / "last.ckpt", tmp_path / "executed", "archive")
    assert run_command(["model=mlp", "data=iris", "trainer.max_epochs=2", CPU, f"run_dir={run_copy}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "last.ckpt" in error
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint(small_disk: Path) -> None:
    path = small_disk / "a.ckpt"
    save_checkpoint(CONTENT, path)
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint({"w": torch.ones(100_000)}, path)
    assert same(load_checkpoint(path), CONTENT)
    assert sorted(os.listdir(small_disk)) == ["a.ckpt", "a.ckpt.sha256"]


class FullFile:
    """A file whose disk is full after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *args: Any) -> None:
        self.file.close()


@pytest.mark.parametrize("room", [0, 10, 1000, 100_000])
def test_a_disk_that_fills_up_at_any_byte_leaves_the_old_checkpoint(
    file: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *mode, **kw: FullFile(opened(self, *mode, **kw), room))
        with pytest.raises(OSError, match="No space left on device"):
            save_checkpoint({"w": torch.ones(100_000)}, file)
    assert same(load_checkpoint(file), CONTENT)
    assert sorted(os.listdir(file.parent)) == ["a.ckpt", "a.ckpt.sha256"]


def resave(path: Path, change: Any) -> None:
    """What someone would write who computes the digests anew."""
    content = torch.load(path, weights_only=True)
    change(content)
    save_checkpoint(content, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["zoo"].update(model="mpl"), "Unknown model 'mpl'. Did you mean mlp"),
        (lambda c: c.pop("zoo"), "does not name its model"),
        (lambda c: c["zoo"].pop("spec"), "does not fit this version of mlp"),
        (lambda c: c["hyper_parameters"].update(depth=3), "no hyperparameter 'depth'"),
        (lambda c: c["hyper_parameters"].update(widths=[3]), "does not fit this version of mlp"),
        (lambda c: c.pop("state_dict"), "does not fit this version of mlp"),
        (lambda c: c["zoo"]["spec"].update(flavour=1), "does not fit this version of mlp"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(run_copy: Path, change: Any, message: str) -> None:
    path = run_copy / "checkpoints" / "best.ckpt"
    resave(path, change)
    with pytest.raises(ZooError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert "best.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_folder_means_its_best_checkpoint(run_copy: Path) -> None:
    assert find_checkpoint(run_copy).name == "best.ckpt"
    assert find_checkpoint(run_copy, "last").name == "last.ckpt"
    with pytest.raises(ZooError, match="no checkpoint named first"):
        find_checkpoint(run_copy, "first")
    (run_copy / "checkpoints" / "best.ckpt").unlink()
    assert find_checkpoint(run_copy).name == "last.ckpt"


def test_float64_statistics_and_float32_weights_keep_their_types(tmp_path: Path) -> None:
    model = zoo.create_model("mlp", zoo.DataSpec("tabular", (2,), "class", num_classes=2), widths=[3])
    model.register_buffer("statistic", torch.full((2,), 1 / 3, dtype=torch.float64))
    state = model.state_dict()
    module._take_dtypes(model.half(), state)
    model.load_state_dict(state)
    assert bits(model.state_dict()) == bits(state)
    with contextlib.suppress(ZooError):
        save_model(zoo.create_model("mlp"), tmp_path / "unbuilt.ckpt")
    assert not (tmp_path / "unbuilt.ckpt").exists()


def test_a_model_trained_in_float64_comes_back_in_float64(tmp_path: Path) -> None:
    model = zoo.create_model("mlp", zoo.DataSpec("tabular", (2,), "class", num_classes=2), widths=[3]).double()
    save_model(model, tmp_path / "a.ckpt")
    again = load_model(tmp_path / "a.ckpt")
    assert {p.dtype for p in again.parameters()} == {torch.float64}
    assert bits(again.state_dict()) == bits(model.state_dict())


@pytest.mark.parametrize("full", ["metrics.json", "predictions.parquet"])
def test_a_disk_that_fills_up_in_an_evaluation_leaves_the_files_of_the_one_before(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    assert run_command([f"run={run_copy}"], "evaluate") == 0
    before = {file.name: file.read_bytes() for file in (run_copy / "evaluation").iterdir() if file.is_file()}
    opened = Path.open

    def open_full(self: Path, *mode: Any, **options: Any) -> Any:
        file = opened(self, *mode, **options)
        return FullFile(file, 0) if full in self.name else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        capsys.readouterr()
        assert run_command([f"run={run_copy}"], "evaluate") == 1
    assert capsys.readouterr().err == "error: No space left on device\n"
    assert {file.name: file.read_bytes() for file in (run_copy / "evaluation").iterdir() if file.is_file()} == before


def test_a_file_is_not_written_through_a_link_that_came_with_a_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / ".a.json.partial").symlink_to(mine)
    (tmp_path / "a.json").symlink_to(mine)
    module.write_whole(tmp_path / "a.json", lambda file: file.write(b"new"))
    assert mine.read_text() == "precious"
    assert (tmp_path / "a.json").read_bytes() == b"new"
    assert not (tmp_path / "a.json").is_symlink()


def test_a_model_is_saved_to_a_file_and_not_to_a_folder(tmp_path: Path) -> None:
    model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), torch.eye(3), torch.ones(3))
    with pytest.raises(ZooError, match=r"is a folder: pass the file to write, such as .*model\.ckpt"):
        zoo.save_model(model, tmp_path)
    with pytest.raises(ZooError, match=r"There is no run or checkpoint at .*nope"):
        zoo.load_model(tmp_path / "nope")
    assert not list(tmp_path.iterdir())
