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
            signal.raise_signal(signals.pop(0))

signals = [getattr(signal, name) for name in {signals!r}]
sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background passes on that it is ignored
from zoo.training.main import {command}
sys.argv = [{command!r}, *{arguments!r}]
while True:
    code = {command}()
    if not signals:
        sys.exit(code)
    print(code, flush=True)  # and once more, as torch is there by now, which takes seconds
"""


CODES = {"SIGINT": 130, "SIGTERM": 143}


@pytest.mark.parametrize(
    ("command", "module", "signals"),
    [
        ("train", "hydra", ["SIGINT"]),
        ("train", "hydra", ["SIGTERM"]),
        ("train", "omegaconf", ["SIGINT"]),
        ("train", "lightning.pytorch", ["SIGINT", "SIGTERM"]),
        ("evaluate", "hydra", ["SIGINT"]),
    ],
)
def test_a_signal_while_a_library_is_imported(command: str, module: str, signals: list[str], tmp_path: Path) -> None:
    arguments = ["model=mlp", "data=iris", "run_dir=run"] if command == "train" else ["run=run"]
    code = AT_IMPORT.format(module=module, command=command, arguments=arguments, signals=signals)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    assert [*map(int, done.stdout.split()), done.returncode] == [CODES[name] for name in signals]
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == len(signals)
