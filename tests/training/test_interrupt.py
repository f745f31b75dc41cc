"""Ctrl-C and SIGTERM in the first second, while the libraries are imported, are an exit code and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import CHECKOUT

AT_IMPORT = """
import importlib.abc, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.{signum})

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background passes on that it is ignored
from zoo.training.main import {command}
sys.argv = [{command!r}, *{arguments!r}]
sys.exit({command}())
"""


@pytest.mark.parametrize(
    ("command", "module", "signum", "exit_code"),
    [
        ("train", "hydra", "SIGINT", 130),
        ("train", "hydra", "SIGTERM", 143),
        ("train", "omegaconf", "SIGINT", 130),
        ("train", "lightning.pytorch", "SIGINT", 130),
        ("train", "lightning.pytorch", "SIGTERM", 143),
        ("evaluate", "hydra", "SIGINT", 130),
    ],
)
def test_a_signal_while_a_library_is_imported(
    command: str, module: str, signum: str, exit_code: int, tmp_path: Path
) -> None:
    arguments = ["model=mlp", "data=iris", "run_dir=run"] if command == "train" else ["run=run"]
    code = AT_IMPORT.format(module=module, command=command, arguments=arguments, signum=signum)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    assert done.returncode == exit_code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
