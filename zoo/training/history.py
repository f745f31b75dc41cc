"""What a run says of itself in its folder: the history of its metrics, its end, and where it came from."""

from __future__ import annotations

import csv
import functools
import io
import json
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from zoo import kernels
from zoo.training.checkpoint import write_whole
from zoo.training.terminal import called

__all__ = ["History", "environment", "write_json", "write_rows"]


class History(Callback):
    """Keep `history.csv`: a row an epoch, with the means over its rows of what was logged, and before it a row for each
    step of the model's own that its pass was made of, such as the rounds of boosting.

    A resumed run goes on with the rows of the epochs that it does not repeat. Written every second, and with every
    checkpoint, so that short epochs do not wait for the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._written_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        module: Any = trainer.lightning_module
        curves = dict(module.curves())
        for number in range(max(map(len, curves.values()), default=0)):
            steps = {name: values[number] for name, values in curves.items() if number < len(values)}
            self.rows.append({"epoch": trainer.current_epoch, "step": number + 1, **steps})
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **values})
        if time.monotonic() - self._written_at >= 1:
            self._write(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        self._written_at = time.monotonic()
        if self.rows and trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(self.path, self.rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table with a column for every key that a row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a mapping, whole or not at all."""
    write_whole(path, lambda file: file.write((json.dumps(values, indent=2) + "\n").encode()))


_PACKAGES = (
    "zoo",
    "torch",
    "lightning",
    "hydra-core",
    "torchmetrics",
    "scikit-learn",
    "pyarrow",
    "tokenizers",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Return the command line, the versions, the git commit and the kernels of this process."""
    return {
        "command": f"{called('train')} {shlex.join(sys.argv[1:])}",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "kernels": kernels.status()._asdict(),
    }


# Each is asked once a process, which goes on with what it has imported; the jobs of a sweep share one.


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the code that runs, with a + where files differ from it; None outside of a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
