"""Runs killed at random moments end in the bits of one left alone, over all families and schedules."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import CHECKOUT

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forks of one process")


def kill(kills: int, seed: int) -> str:
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), str(kills), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_fork
def test_three_kills_over_families_and_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are forks of this process: to import what they need takes one of its own longer than all three."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    killed, _, _, differ = importlib.import_module("kills").campaign(3, 2, tmp_path)
    assert killed >= 3
    assert differ == []


@needs_fork
@pytest.mark.slow
def test_a_hundred_kills_over_all_families_and_schedules() -> None:
    said = kill(100, seed=1)
    print(said)
    assert "0 runs ended in other bits" in said
