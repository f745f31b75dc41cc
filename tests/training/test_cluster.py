"""`cluster=ray`: what a command line says of it, and a run by two processes of Ray's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import CHECKOUT, CPU, has_module, run_command

from zoo import load_model
from zoo.errors import ZooError
from zoo.training.cluster import asked


def test_what_a_command_says_of_a_cluster_is_no_part_of_the_run() -> None:
    kept, options = asked(["model=mlp", "cluster=ray", "cluster.num_workers=4", "cluster.address=ray://head:10001"])
    assert kept == ["model=mlp"]
    assert options == {
        "num_workers": 4, "cpus_per_worker": 1, "gpus_per_worker": 0, "max_failures": 0, "address": "ray://head:10001",
    }  # fmt: skip
    assert asked(["cluster=none", "model=mlp"]) == (["model=mlp"], None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster=rey"], "Unknown cluster 'rey'. Did you mean ray?"),
        (["cluster=ray", "cluster.workers=4"], "cluster has no key 'workers'. Did you mean num_workers"),
        (["cluster=ray", "cluster.num_workers=0"], "cluster.num_workers must be an integer of at least 1, not 0"),
        (["cluster=ray", "cluster.num_workers=two"], "cluster.num_workers must be an integer of at least 1, not 'two'"),
        (["cluster.num_workers=4"], "cluster.num_workers does nothing without cluster=ray"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(ZooError) as refused:
        asked(arguments)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_two_processes_of_ray_end_in_the_numbers_of_one(tmp_path: Path) -> None:
    if not has_module("ray"):
        pytest.skip("ray is not installed")
    command = ["model=kmeans", "data=blobs", "data.num_rows=2000", "logger=[csv]", CPU]
    assert run_command([*command, f"run_dir={tmp_path / 'one'}"]) == 0
    arguments = [*command, "cluster=ray", "cluster.num_workers=2", f"run_dir={tmp_path / 'two'}"]
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "train.py"), *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (load_model(tmp_path / name).state_dict() for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "runs", "two"]
