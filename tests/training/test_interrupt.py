"""Ctrl-C in the first second, while the libraries are imported, is an exit code and no traceback."""

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
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background passes on that it is ignored
from zoo.training.main import {command}
sys.argv = [{command!r}, *{arguments!r}]
sys.exit({command}())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [("train", "hydra"), ("train", "omegaconf"), ("train", "lightning.pytorch"), ("evaluate", "hydra")],
)
def test_an_interrupt_while_a_library_is_imported(command: str, module: str, tmp_path: Path) -> None:
    arguments = ["model=mlp", "data=iris", "run_dir=run"] if command == "train" else ["run=run"]
    code = AT_IMPORT.format(module=module, command=command, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
