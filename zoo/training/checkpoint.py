"""Checkpoints that are whole or absent, checked by SHA-256, and never unpickled.

A checkpoint is written to a temporary file in its own folder, synced and moved into place, so that a process killed at
any moment leaves the previous one intact. `NAME.sha256` beside it, in the format of `sha256sum`, holds the digest. It
is written first, with the old digest kept as a second line until the move is done, so that at no moment (not even
after several kills) a whole checkpoint stands beside a digest that denies it. The digests of its tensors and values
travel inside (`zoo.training.digests`): they are checked too, and hold where the sidecar was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from zoo.errors import ZooError
from zoo.training.bounds import BoundedBuild
from zoo.training.digests import check_digests, digests_of

if TYPE_CHECKING:
    from zoo.models.base import ZooModel

__all__ = [
    "AtomicCheckpointIO",
    "check_learnt",
    "checkpoint_of",
    "find_checkpoint",
    "load_checkpoint",
    "load_model",
    "model_of",
    "save_checkpoint",
    "save_model",
    "write_whole",
]


log = logging.getLogger("zoo")


class _HashingFile:
    """A file that digests what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digests(path: Path) -> list[str]:
    """The digests that the file may have, or an empty list where no sidecar lies beside it."""
    with contextlib.suppress(FileNotFoundError):
        return [line.partition(b" ")[0].decode("latin1") for line in _sidecar(path).read_bytes().splitlines()]
    return []


def _write_digests(path: Path, digests: list[str]) -> None:
    lines = "".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests))
    write_whole(_sidecar(path), lambda sidecar: sidecar.write(lines.encode()))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call `write(file)` on a temporary file beside `path`, sync it and move it into place."""
    temporary = path.with_name(f".{path.name}.partial")  # one name, so that killed writes do not pile up
    with contextlib.suppress(FileNotFoundError):  # in a folder from elsewhere it may be a link to a file of the user's
        os.unlink(temporary)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write tensors and primitives to `path`, so that the file is whole or absent, with its digest beside it.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the previous file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in checkpoint.items() if key != "digests"}  # a loaded one may bring its own
    checkpoint = _unexpanded(kept)
    checkpoint = {**checkpoint, "digests": digests_of(checkpoint)}

    def write(file: IO[bytes]) -> None:
        hashing = _HashingFile(file)
        try:
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]
        except RuntimeError as error:  # torch's writer wraps what the file raised
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        # Before the move: the new digest beside that of the file that still stands there.
        _write_digests(path, [hashing.digest.hexdigest(), *_digests(path)])

    write_whole(path, write)
    _sync_folder(path.parent)
    _write_digests(path, _digests(path)[:1])


def _unexpanded(value: Any) -> Any:
    """Return the content with memory of its own for each element of expanded tensors, as `load_checkpoint` asks."""
    if isinstance(value, torch.Tensor):
        return value.contiguous() if value.nbytes > value.untyped_storage().nbytes() else value
    if isinstance(value, dict):
        kept = {key: _unexpanded(item) for key, item in value.items()}
        return kept if any(kept[key] is not value[key] for key in kept) else value  # a state dict has attributes
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_unexpanded(item) for item in value)
    return value


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint after checking its digest; nothing in it is ever executed.

    Raises:
        ZooError: if the file is missing, truncated, altered, or holds anything but tensors and primitives.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"There is no checkpoint at {path}.")
    digests = _digests(path)
    if digests:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() not in digests:
                raise ZooError(
                    f"{path} was altered or truncated: its SHA-256 differs from {_sidecar(path).name}. Use another."
                )
    else:
        log.warning("%s has no %s beside it: its inner digests are checked alone.", path, _sidecar(path).name)
    _check_archive(path, sums=not digests)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a foreign pickle, which is refused in a line
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ZooError(
            f"{path} holds more than tensors and plain values and was refused; nothing in it was executed."
        ) from error
    except Exception as error:  # damaged bytes make torch's reader fail in many ways
        raise ZooError(f"{path} is not a whole checkpoint: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise ZooError(f"{path} is not a checkpoint of the zoo: it holds a {type(checkpoint).__name__}.")
    inner = checkpoint.pop("digests", None)
    try:
        check_digests(checkpoint, inner, most_values=path.stat().st_size)
    except Exception as error:  # what a hostile file holds fails in many ways
        raise ZooError(f"{path} was refused: {_first_line(error)}. Use another.") from error
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_archive(path: Path, sums: bool) -> None:
    """Check that the archive is no larger than its file, and, with `sums`, its CRC sums, which torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            damaged = archive.testzip() if sums and unpacked <= path.stat().st_size else None
    except Exception as error:  # damaged bytes make the archive's reader fail in many ways
        raise ZooError(f"{path} is not a whole checkpoint of the zoo: {_first_line(error)}.") from error
    if unpacked > path.stat().st_size:
        raise ZooError(f"{path} was refused: it unpacks to {unpacked:,} bytes, more than it holds.")
    if damaged:
        raise ZooError(f"{path} was altered or truncated: its part {damaged} fails its checksum. Use another.")


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to `save_checkpoint` and `load_checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        for file in (Path(path), _sidecar(Path(path))):
            file.unlink(missing_ok=True)


def find_checkpoint(path: str | Path, which: str | None = None) -> Path:
    """Return the checkpoint that `path` means: the file itself, or the best (else the last) one of a run folder."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise ZooError(f"There is no run or checkpoint at {path}.")
    for name in [which] if which else ["best", "last"]:
        if (path / "checkpoints" / f"{name}.ckpt").is_file():
            return path / "checkpoints" / f"{name}.ckpt"
    others = sorted(file.stem for file in (path / "checkpoints").glob("*.ckpt"))
    if which and others:
        raise ZooError(f"{path} holds no checkpoint named {which}: pass checkpoint={others[-1]}, or leave it out.")
    raise ZooError(f"{path} holds no checkpoint: it is not a finished run.")


def described(path: Path) -> str:
    """Say which checkpoint a file is, and of which epoch, as in `best checkpoint, epoch 7`.

    Args:
        path: a file that `load_checkpoint` has read, and found whole.
    """
    epoch = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("epoch")
    if epoch is None:
        return f"{path.stem} checkpoint"
    if path.stem == "last":  # it counts the epochs that are done
        return f"last checkpoint, after {epoch} epoch{'s' * (epoch != 1)}"
    return f"{path.stem} checkpoint, epoch {epoch}"


def load_model(path: str | Path, map_location: Any = "cpu") -> ZooModel:
    """Rebuild a trained model from a checkpoint file or a run folder (its best checkpoint).

    Raises:
        ZooError: if the checkpoint is missing, altered, unsafe, or of a model that is not registered.

    Example:
        >>> import tempfile, torch, zoo
        >>> model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), torch.eye(3), torch.ones(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     zoo.save_model(model, f"{folder}/model.ckpt")
        ...     again = zoo.load_model(f"{folder}/model.ckpt")
        >>> bool((again.predict(torch.eye(3)) == model.predict(torch.eye(3))).all())
        True
    """
    file = find_checkpoint(path)
    return model_of(load_checkpoint(file, map_location), file)


def model_of(checkpoint: dict[str, Any], where: str | Path) -> ZooModel:
    """Rebuild the model that a checkpoint holds.

    Args:
        checkpoint: what `load_checkpoint` or `checkpoint_of` returned.
        where: what messages call it.

    Raises:
        ZooError: if it is of a model that is not registered, or does not fit.
    """
    from zoo.data.preprocessing import Preprocessing
    from zoo.data.spec import DataSpec
    from zoo.registry import make_model

    about = checkpoint.get("zoo") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict):
        raise ZooError(f"{where} is not a checkpoint of the zoo: it does not name its model.")
    try:
        with BoundedBuild(checkpoint["state_dict"]):
            model = make_model(about["model"], **checkpoint.get("hyper_parameters", {}))
            model.build(DataSpec.from_dict(about["spec"]))
        if "preprocessing" in about:  # checkpoints of before take prepared rows
            model.preprocessing = Preprocessing.from_dict(about["preprocessing"])
        _take_dtypes(model, checkpoint["state_dict"])
        _take_state(model, checkpoint["state_dict"])
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from error
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ZooError(f"{where} does not fit this version of {about.get('model')}: {reason}") from error
    return model.eval()


def _take_state(model: ZooModel, state: dict[str, torch.Tensor]) -> None:
    """Load tensors, of which those that answers do without may be absent."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    idle = model.idle() if model.streaming else ()  # type: ignore[operator]
    lacking = [name for name in missing if name not in idle]
    if lacking or unexpected:
        what = f"it lacks {lacking[0]}" if lacking else f"it holds {unexpected[0]}, of which the model knows nothing"
        raise RuntimeError(what)


def _take_dtypes(model: ZooModel, state: dict[str, torch.Tensor]) -> None:
    """Give each tensor the type that it was saved in: training in float64 is in no hyperparameter."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in state:
            tensor.data = tensor.data.to(state[name].dtype)


def save_model(model: ZooModel, path: str | Path) -> None:
    """Write a fitted model, with its preprocessing, so that `load_model` rebuilds it.

    Raises:
        ZooError: if it has not been fitted, or for a folder.
    """
    model.check_fitted()
    if Path(path).is_dir():
        raise ZooError(f"{path} is a folder: pass the file to write, such as {Path(path) / 'model.ckpt'}.")
    save_checkpoint(checkpoint_of(model), path)


def check_learnt(model: ZooModel) -> None:
    """Raise one line for a model that has met no data, or is solved from data and has met none but their shape."""
    model.check_fitted()
    if model.streaming and not model._begun:
        raise ZooError(f"This {type(model).__name__} was built and has learnt nothing: call zoo.fit(model, X) first.")


def checkpoint_of(model: ZooModel) -> dict[str, Any]:
    """Return what a checkpoint of a fitted model holds: its tensors, its hyperparameters, and what it was built for."""
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint
