"""Two machines, as torchrun sees them: agents with a folder each, of which one is killed and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from support import CHECKOUT, CPU, checkpoint_bits, free_port, run_command

from zoo import load_model

pytestmark = pytest.mark.slow

WIDE = ["data.num_rows=60000", "data.num_features=8"]
GPT = ["model=gpt", "model.num_layers=2", "model.hidden_size=32", "model.num_heads=2", "data.sequence_length=32",
       "trainer.max_steps=150", "trainer.limit_val_batches=4", "trainer.limit_test_batches=4"]  # fmt: skip
# of each model: the command, what one process gets instead, rows a batch, and the bound
RUNS: dict[str, tuple[list[str], list[str], int, float]] = {
    "kmeans": (["model=kmeans", "data=blobs", *WIDE], [], 20, 1e-9),
    "pca": (["model=pca", "data=blobs", *WIDE], [], 20, 1e-9),
    "mlp": (["model=mlp", "data=digits", "trainer.max_epochs=4", "trainer.precision=64-true"], [], 8, 1e-9),
    "gpt": ([*GPT, "trainer.strategy=fsdp"], ["trainer.strategy=auto"], 4, 1e-3),  # in float32, 150 steps
}


class Agents:
    """Two agents of torchrun on this machine, each in a folder of its own."""

    def __init__(self, folder: Path, arguments: list[str], *options: str) -> None:
        port = free_port()
        self.folders = [folder / "a", folder / "b"]
        self.errors = [path.with_suffix(".err") for path in self.folders]
        self.said = [path.with_suffix(".out") for path in self.folders]
        self.processes = []
        for rank, path in enumerate(self.folders):
            path.mkdir(exist_ok=True)
            agent = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}",
                     "--master-addr=127.0.0.1", f"--master-port={port}", *options]  # fmt: skip
            command = [sys.executable, *agent, str(CHECKOUT / "train.py"), *arguments, "logger=[csv]", CPU]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with self.errors[rank].open("w") as errors, self.said[rank].open("w") as said:
                self.processes.append(subprocess.Popen(command, cwd=path, stdout=said, stderr=errors, env=environment))

    def wait(self) -> list[int]:
        """Return the exit codes; no agent may hang."""
        return [process.wait(300) for process in self.processes]

    def workers(self) -> list[psutil.Process]:
        return [worker for process in self.processes for worker in psutil.Process(process.pid).children()]

    def until(self, file: str) -> None:
        """Wait for a file of the first agent's."""
        while not (self.folders[0] / file).exists():
            assert [process.poll() for process in self.processes] == [None, None], self.told()
            time.sleep(0.05)

    def told(self) -> str:
        return "\n".join(path.read_text() for path in self.errors)

    def lines(self, rank: int) -> list[str]:
        """What the run itself says of its end; torchrun says more."""
        return [line for line in self.errors[rank].read_text().splitlines() if line.startswith("error: ")]


def numbers(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_model(run).state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize("name", list(RUNS))
def test_two_agents_train_lose_one_and_go_on_to_the_same_end(name: str, tmp_path: Path) -> None:
    command, instead, rows, bound = RUNS[name]
    both = [*command, f"data.batch_size={rows}", "checkpoint_seconds=0"]
    one = [*command, *instead, f"data.batch_size={2 * rows}", "logger=[csv]", CPU, f"run_dir={tmp_path / 'one'}"]
    assert run_command(one) == 0

    whole = Agents(tmp_path, [*both, "run_dir=whole"])
    assert whole.wait() == [0, 0], whole.told()
    assert not list(whole.folders[1].iterdir())  # rank 0's folder is the run's
    assert whole.said[1].read_text() == ""
    expected, found = numbers(tmp_path / "one"), numbers(tmp_path / "a" / "whole")
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=bound, atol=bound, msg=f"{name}: {key}")

    cut = Agents(tmp_path, [*both, "run_dir=cut"])
    cut.until("cut/checkpoints/last.ckpt")
    workers = cut.workers()
    killed = time.monotonic()
    cut.processes[1].kill()
    assert cut.wait() == [1, -signal.SIGKILL]
    _, alive = psutil.wait_procs(workers, 60)
    print(f"{name}: all have ended {time.monotonic() - killed:.1f} s after one was killed")
    for left in alive:
        left.kill()
    assert not alive
    said = "and the run with it: repeat the command to go on from the last checkpoint."
    assert cut.lines(0) == [f"error: process 2 of 2 has ended, {said}"]
    assert cut.lines(1) == [f"error: what started this process has ended, {said}"]

    again = Agents(tmp_path, [*both, "run_dir=cut"])
    assert again.wait() == [0, 0], again.told()
    assert not list(again.folders[1].iterdir())
    last = [checkpoint_bits(tmp_path / "a" / run / "checkpoints" / "last.ckpt") for run in ("whole", "cut")]
    assert last[0] == last[1]


def test_a_killed_worker_starts_again_and_the_run_goes_on(tmp_path: Path) -> None:
    command = [*RUNS["mlp"][0], "data.batch_size=8", "checkpoint_seconds=0"]
    whole = Agents(tmp_path, [*command, "run_dir=whole"])
    assert whole.wait() == [0, 0], whole.told()
    agents = Agents(tmp_path, [*command, "run_dir=mine"], "--max-restarts=1")
    agents.until("mine/checkpoints/last.ckpt")
    psutil.Process(agents.processes[1].pid).children()[0].kill()
    assert agents.wait() == [0, 0], agents.told()
    last = [checkpoint_bits(tmp_path / "a" / run / "checkpoints" / "last.ckpt") for run in ("whole", "mine")]
    assert last[0] == last[1]


def test_a_run_that_would_not_be_found_again_is_refused(tmp_path: Path) -> None:
    agents = Agents(tmp_path, [*RUNS["mlp"][0]], "--max-restarts=1")
    assert agents.wait() == [1, 1]
    assert "error: torchrun --max-restarts starts a run again" in agents.told()
    assert not any(list(folder.iterdir()) for folder in agents.folders)
