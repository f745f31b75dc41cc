"""The user's files that a run learns from: their digests are kept, and a run goes on with the same files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.data.provenance import changed_files, digests, sha256sums
from zoo.data.registry import create_data
from zoo.errors import ZooError
from zoo.training.checkpoint import write_whole

__all__ = ["check_unchanged", "keep_digests"]


def keep_digests(run_dir: Path, data: Any) -> None:
    """Write the digests of the files that the run is trained on, where the data come from files."""
    files = data.files() if hasattr(data, "files") else []
    if files:
        text = sha256sums(digests(files), run_dir)
        write_whole(run_dir / "data.sha256", lambda file: file.write(text.encode()))


def check_unchanged(run_dir: Path, section: dict[str, Any]) -> None:
    """Raise one line if a file is no longer what a run to go on with began with: it would learn of two data sets."""
    if not (run_dir / "checkpoints" / "last.ckpt").exists():
        return
    data = create_data(section["name"], **{key: value for key, value in section.items() if key != "name"})
    changed = changed_files(run_dir, data.files()) if hasattr(data, "files") else []
    if changed:
        raise ZooError(f"{changed[0]} has changed since this run began: restore it, or choose another run_dir.")
