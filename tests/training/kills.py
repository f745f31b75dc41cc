"""Runs of all families and schedules, killed at random moments and gone on with: `kills.py NUMBER SEED`.

Each run is a fork of this process, which has imported everything, so that a hundred take minutes. What follows the
fit (test, pictures) is left out. A run is killed up to three times, then finished; its model, optimizer, schedule and
random states are compared with those of a run that was left alone, and so is its best checkpoint.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from support import CPU, TINY, run_command
from test_resume import SHORT, final

import zoo
from zoo.training import run

torch.set_num_threads(1)
SCHEDULES = {
    "none": [],
    "cosine": ["scheduler=cosine"],
    "warmup": ["scheduler=warmup", "scheduler.warmup_steps=4"],
    "step": ["scheduler=step", "scheduler.step_size=3"],
    "one_cycle": ["scheduler=one_cycle"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "optimizer.lr=0.3"],
}
STOPPING = "regularization.early_stopping.patience=1"
SHORTEST = {name: [f"model={name}", *SHORT, *TINY.get(name, [])] for name in zoo.list_models()}
GRADIENT = {name: run for name, run in SHORTEST.items() if not zoo.create_model(name).streaming}
GRADIENT["mlp"] = ["model=mlp", "data=iris", "data.batch_size=16", "model.dropout=0.3", "trainer.max_epochs=4"]
for linear in ("linear_regression", "logistic_regression", "svm"):
    GRADIENT[linear] = [f"model={linear}", "model.solver=gradient", *SHORT]
CASES = {f"{name}, three passes": run for name, run in SHORTEST.items()}
for (name, base), (schedule, options) in itertools.product(GRADIENT.items(), SCHEDULES.items()):
    clips = "gradient_clipping" in zoo.create_model(name).heeds
    if name == "word2vec" and schedule == "plateau":
        continue  # its rate changes with each batch, and it says so
    if name == "gpt" and schedule == "plateau":  # which validates by steps
        base = [*base, "trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0"]
    CASES[f"{name}, {schedule}"] = [*base, *options]
    names = "early_stopping,gradient_clipping" if clips else "early_stopping"
    CASES[f"{name}, {schedule}, early stopping"] = [*base, *options, f"regularization=[{names}]", STOPPING]


def start(overrides: list[str], folder: Path) -> int:
    """Train in a fork of this process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run._finish = lambda *args, **options: None
        code = run_command([*overrides, CPU, "checkpoint_seconds=0", f"run_dir={folder}"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(overrides: list[str], folder: Path) -> None:
    _, status = os.waitpid(start(overrides, folder), 0)
    if status:
        raise RuntimeError(f"{' '.join(overrides)} ended with {status}:\n{folder.with_suffix('.log').read_text()}")


def result(folder: Path) -> tuple[tuple[str, str], tuple[str, str] | None]:
    """Digests of the last and of the best checkpoint."""
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    return (
        final(torch.load(last, weights_only=True)),
        final(torch.load(best, weights_only=True)) if best.exists() else None,
    )


def campaign(kills: int, seed: int, folder: Path) -> tuple[int, int, int, list[str]]:
    """Kill `kills` runs; return how many were killed, of how many kinds, how many with a checkpoint, what differs."""
    rng, names, killed, resumed, number = random.Random(seed), list(CASES), 0, 0, 0
    alone: dict[str, Any] = {}
    differ: list[str] = []
    rng.shuffle(names)
    while killed < kills:
        name = names[number % len(names)]
        if name not in alone:
            began = time.time()
            apart = folder / f"alone{number}"
            finish(CASES[name], apart)
            fit, end = (
                file.stat().st_mtime - began for file in (apart / "config.yaml", apart / "checkpoints/last.ckpt")
            )
            alone[name] = result(apart), fit, end
        whole, fit, end = alone[name]
        here = folder / f"{number}"
        for _ in range(rng.choice([1, 2, 3])):
            before = (here / "checkpoints" / "last.ckpt").exists()
            pid = start(CASES[name], here)
            time.sleep(max(0.0, fit + rng.uniform(-0.1, 1.1) * (end - fit)))  # before that there is nothing to lose
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                killed += 1
                resumed += before or (here / "checkpoints" / "last.ckpt").exists()
        finish(CASES[name], here)
        if result(here) != whole:
            differ.append(f"{name} (run {number})")
        number += 1
    return killed, len(alone), resumed, differ


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        killed, kinds, resumed, differ = campaign(int(sys.argv[1]), int(sys.argv[2]), Path(work))
    print(f"{killed} kills over {kinds} of {len(CASES)} kinds of run, {resumed} with a checkpoint to go on from: "
          f"{len(differ)} runs ended in other bits {differ or ''}".rstrip())  # fmt: skip
    sys.exit(bool(differ))
