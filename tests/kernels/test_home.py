"""The same command and seed end in the same bits, whatever the home folder holds: nothing is cached there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import CPU, checkpoint_bits, spawn

COMMAND = ["model=lstm", "data=digits_rows", "model.hidden_size=16", "trainer.max_epochs=1", "logger=[csv]", CPU]


@pytest.mark.slow  # the whole command; test_kernels.py holds the same of a layer in every run
def test_a_fresh_home_and_a_used_one_give_the_same_bits(tmp_path: Path) -> None:
    found = []
    folder = tmp_path / "home"
    folder.mkdir()
    for _ in ("fresh", "used"):
        run = tmp_path / f"run{len(found)}"
        environment = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
        process = spawn([*COMMAND, f"run_dir={run}"], tmp_path, env=environment)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        found.append(checkpoint_bits(run / "checkpoints" / "last.ckpt"))
        assert not [file for file in folder.rglob("*") if file.suffix in (".so", ".c", ".o", ".dll", ".dylib")]
    assert len(set(found)) == 1
