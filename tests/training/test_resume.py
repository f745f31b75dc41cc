"""A run that is killed and goes on ends in the same bits as one left alone, wherever it was stopped."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, TINY, bits, checkpoint_bits, compose, run_command, spawn

import zoo
from zoo.training.callbacks import Checkpointer
from zoo.training.run import build
from zoo.training.trainer import make_trainer, seed_all

MLP = ["model=mlp", "data=iris", "data.batch_size=32", "model.widths=[8]", "model.dropout=0.3"]
SHORT = ["trainer.limit_train_batches=3", "trainer.max_epochs=3"]
PLATEAU = ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "optimizer.lr=0.3"]
SWA = ["averaging=swa", "averaging.start=0.3", "averaging.swa_lr=0.01"]
STOPPING = ["regularization=early_stopping", "regularization.early_stopping.patience=1", "optimizer.lr=0.3"]
RUNS = {
    "momentum and cosine": [*MLP, "optimizer=sgd", "optimizer.momentum=0.9", "scheduler=cosine"],
    "adam and one cycle": [*MLP, "scheduler=one_cycle", "model.batch_norm=true"],
    "plateau and clipping": [*MLP, "scheduler=plateau", "scheduler.patience=0", "regularization=gradient_clipping"],
    "accumulated gradients": [*MLP, "trainer.accumulate_grad_batches=2"],
    "plateau that falls": [*MLP, *PLATEAU, "trainer.max_epochs=5"],
    "plateau every second epoch": [*MLP, *PLATEAU, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5"],
    "early stopping": [*MLP, "regularization=early_stopping", "regularization.early_stopping.patience=1"],
    "early stopping that stops": [*MLP, *STOPPING, "trainer.max_epochs=6"],
    "early stopping within epochs": [*MLP, *STOPPING, "trainer.val_check_interval=2", "trainer.max_epochs=6"],
    "plateau and early stopping": [*MLP, *PLATEAU, *STOPPING, "trainer.max_epochs=6"],
    "validation within epochs": [*MLP, "trainer.val_check_interval=2", "scheduler=plateau", "scheduler.patience=0"],
    "a limit on the batches": [*MLP, "trainer.limit_train_batches=2"],
    "a limit on the steps": [*MLP, "trainer.max_steps=7"],
    "worker processes": [*MLP, "data.num_workers=2"],
    "lbfgs": [*MLP, "optimizer=lbfgs", "optimizer.max_iter=3"],
    "float64": [*MLP, "trainer.precision=64-true"],
    "exponential average, all noise": [*MLP, "averaging=ema", "regularization=[mixup,label_noise,weight_noise]"],
    "mean of the last weights": [*MLP, *SWA, "model.batch_norm=true"],
    "exact, one pass": ["model=linear_regression"],
    "gradient solver": ["model=linear_regression", "model.solver=gradient"],
}
RUNS = {name: [*run, "trainer.max_epochs=3"] if "max_epochs" not in str(run) else run for name, run in RUNS.items()}
RUNS |= {f"{name}, three short passes": [f"model={name}", *SHORT, *TINY.get(name, [])] for name in zoo.list_models()}


def train(overrides: Sequence[str], folder: Path, resume: Path | None = None) -> dict[str, Any]:
    """Train as the overrides say, saving wherever a run can be stopped; return the final checkpoint."""
    settings = compose(*overrides, CPU, "checkpoint_seconds=0")
    seed_all(settings["seed"])
    model, data = build(settings)
    regularization = settings["regularization"]
    trainer = make_trainer(
        model,
        run_dir=folder,
        checkpoint_seconds=0 if resume is None else 1000,
        early_stopping=regularization["early_stopping"],
        gradient_clip_val=regularization["gradient_clip_val"],
        averaging=settings["averaging"],
        progress=False,
        logger=False,
        **settings["trainer"],
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    last = folder / "checkpoints" / "last.ckpt"
    return torch.load(last if last.exists() or resume is None else resume, weights_only=True)  # nothing left to do


def final(checkpoint: dict[str, Any]) -> tuple[str, str]:
    """Digests of the model, and of the optimizer, the schedule, what stops the run and the random states."""
    rest = {f"{i}.{k}.{key}": value for i, state in enumerate(checkpoint["optimizer_states"])
            for k, values in state.get("state", {}).items() for key, value in values.items()
            if isinstance(value, torch.Tensor)}  # fmt: skip
    rest |= {f"averaged {name}": value for name, value in checkpoint.get("averaging", {}).get("weights", {}).items()}
    rest["random"] = checkpoint["random_states"][0]["torch"]
    rates = [group["lr"] for state in checkpoint["optimizer_states"] for group in state.get("param_groups", [])]
    rest["rates"] = torch.tensor(rates, dtype=torch.float64)
    rest["where"] = torch.tensor([checkpoint["epoch"], checkpoint["global_step"]])
    bests = [state["best"] for state in checkpoint["callbacks"].values() if "best" in state]
    rest["best"] = torch.tensor([best for best in bests if best is not None], dtype=torch.float64)
    stops = [{key: state.get(key) for key in ("wait_count", "stopped", "validated")}
             for name, state in sorted(checkpoint["callbacks"].items())]  # fmt: skip
    rest["decisions"] = torch.tensor(list(repr((checkpoint["lr_schedulers"], stops)).encode()))
    return bits(checkpoint["state_dict"]), bits(rest)


@pytest.mark.parametrize("run", RUNS)
def test_from_every_point_a_run_goes_on_to_the_same_bits(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[Path] = []
    save = Checkpointer.save

    def save_and_copy(self: Checkpointer, trainer: Any) -> None:
        save(self, trainer)
        points.append(Path(shutil.copy(self.last_path, tmp_path / f"{len(points)}.ckpt")))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save_and_copy)
        undisturbed = final(train(RUNS[run], tmp_path / "undisturbed"))
    assert points
    # Each costs a training, and those with worker processes ten.
    most = 12 if run == "momentum and cosine" else 3 if "passes" in run or "processes" in run else 5
    points = [points[(len(points) - 1) * k // (most - 1)] for k in range(most)] if len(points) > most else points
    for n, point in enumerate(points):
        resumed = train(RUNS[run], tmp_path / f"resumed{n}", resume=point)
        assert final(resumed) == undisturbed, f"point {n} of {len(points)}"


def test_adapters_go_on_without_the_run_that_they_adapt(tmp_path: Path) -> None:
    """And activations that are computed again draw the masks of dropout that they drew."""
    small = ["model=gpt", *TINY["gpt"], "model.num_layers=1", "scheduler=none", *SHORT, "trainer.max_epochs=1"]
    train(small, tmp_path / "before")
    adapted = [*small, f"model.pretrained={tmp_path / 'before'}", "model.lora_rank=2", "model.dropout=0.2"]
    adapted += ["trainer.max_epochs=2", "trainer.activation_checkpointing=true"]
    undisturbed = train(adapted, tmp_path / "undisturbed")
    train([*adapted, "trainer.max_epochs=1"], tmp_path / "resumed")
    shutil.rmtree(tmp_path / "before")
    train([*small, "seed=1"], tmp_path / "before")  # what it holds now is not what the run began with
    resumed = train(adapted, tmp_path / "resumed", resume=tmp_path / "resumed" / "checkpoints" / "last.ckpt")
    assert final(resumed) == final(undisturbed)
    assert any("parametrizations" in name for name in resumed["state_dict"])


@pytest.mark.parametrize("more", [["trainer.max_epochs=2"], ["trainer.max_epochs=2", "trainer.max_steps=5"]])
def test_a_finished_run_goes_on_where_more_is_asked_for(more: list[str], tmp_path: Path) -> None:
    """Also where its epochs were cut short, and where it ended within one."""
    run = ["model=mlp", "data=digits", "model.dropout=0.3", "trainer.limit_train_batches=4"]
    train([*run, "trainer.max_epochs=1"] if len(more) == 1 else [*run, "trainer.max_steps=3"], tmp_path / "run")
    resumed = train([*run, *more], tmp_path / "run", resume=tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert final(resumed) == final(train([*run, *more], tmp_path / "straight"))


KILLED = {
    "mlp": ["model=mlp", "data=digits", "model.dropout=0.3", "trainer.max_epochs=6", "optimizer=sgd",
            "optimizer.momentum=0.9", "scheduler=cosine"],
    "linear_regression": ["model=linear_regression", "data.batch_size=1"],
    "kmeans": ["model=kmeans", "data=digits", "data.batch_size=16"],
}  # fmt: skip
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130}}


def wait_for(file: Path, process: subprocess.Popen) -> None:
    while process.poll() is None and not file.exists():
        time.sleep(0.01)


def stop_and_go_on(name: str, signals: Sequence[int], folder: Path, rng: random.Random) -> list[int]:
    """Run a command, stopping it by each signal in turn at a random moment after its first checkpoint."""
    command = [*KILLED[name], CPU, "checkpoint_seconds=0", f"run_dir={folder}"]
    codes = []
    for signum in signals:
        process = spawn(command, folder.parent)
        wait_for(folder / "config.yaml", process)
        if codes:  # going on: the checkpoint is there before the process has come so far
            time.sleep(0.5)
        wait_for(folder / "checkpoints" / "last.ckpt", process)
        time.sleep(rng.random() * 0.7)
        process.send_signal(signum)
        _, error = process.communicate(timeout=300)
        codes.append(process.returncode)
        assert process.returncode in CODES[signum] | {0}, error
        assert "Traceback" not in error
    process = spawn(command, folder.parent)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return codes


def check_stopped(name: str, rounds: Sequence[Sequence[int]], tmp_path: Path) -> None:
    if name not in zoo.list_models():
        pytest.skip(f"{name} is not in the zoo")
    last = Path("checkpoints", "last.ckpt")
    command = [*KILLED[name], CPU, "checkpoint_seconds=0", f"run_dir={tmp_path / 'undisturbed'}"]
    assert run_command(command) == 0
    undisturbed = checkpoint_bits(tmp_path / "undisturbed" / last)
    rng, stopped = random.Random(1), 0
    for n, signals in enumerate(rounds):
        codes = stop_and_go_on(name, signals, tmp_path / str(n), rng)
        stopped += sum(code != 0 for code in codes)
        assert checkpoint_bits(tmp_path / str(n) / last) == undisturbed, (n, codes)
    assert stopped, "no signal came in time to stop anything"


@pytest.mark.slow  # test_kills.py kills over families and schedules in every run
def test_kill_terminate_and_interrupt_at_random_moments(tmp_path: Path) -> None:
    check_stopped("mlp", [[signal.SIGKILL, signal.SIGTERM, signal.SIGINT]], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "kmeans", "linear_regression"])
def test_ten_kills_and_ten_terminations_at_random_moments(name: str, tmp_path: Path) -> None:
    check_stopped(name, [[signal.SIGKILL, signal.SIGTERM], [signal.SIGTERM, signal.SIGKILL]] * 5, tmp_path)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    """The signal reaches the first process alone."""
    command = [*KILLED["mlp"], CPU, "checkpoint_seconds=0", "data.batch_size=4", "trainer.strategy=ddp"]
    command += ["trainer.devices=2", "trainer.max_epochs=2"]
    last = Path("checkpoints", "last.ckpt")
    process = spawn([*command, f"run_dir={tmp_path / 'undisturbed'}"], tmp_path)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    process = spawn([*command, f"run_dir={tmp_path / 'run'}"], tmp_path, start_new_session=True)
    wait_for(tmp_path / "run" / last, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 143, error
    process = spawn([*command, f"run_dir={tmp_path / 'run'}"], tmp_path)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert checkpoint_bits(tmp_path / "run" / last) == checkpoint_bits(tmp_path / "undisturbed" / last)


class SendSignal:
    """A stand-in for a signal from outside, at a moment that the test chooses."""

    def __init__(self, signum: int, hook: str, call: int) -> None:
        self.signum, self.hook, self.left = signum, hook, call

    def install(self, patch: pytest.MonkeyPatch) -> None:
        from zoo.training.callbacks import SignalExit

        original = getattr(SignalExit, self.hook)

        def hooked(callback: Any, *args: Any) -> None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.signum)
            original(callback, *args)

        patch.setattr(SignalExit, self.hook, hooked)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bits that a run ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_command([*RUNS["momentum and cosine"], CPU, f"run_dir={folder}"]) == 0
    return checkpoint_bits(folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    ("hook", "call", "signum"),
    [
        ("on_train_batch_end", 1, signal.SIGTERM), ("on_train_batch_end", 4, signal.SIGTERM),
        ("on_train_batch_end", 6, signal.SIGTERM), ("on_train_batch_end", 12, signal.SIGTERM),
        ("on_train_epoch_start", 1, signal.SIGTERM), ("on_train_epoch_start", 3, signal.SIGTERM),
        ("on_validation_batch_end", 2, signal.SIGTERM), ("on_validation_batch_end", 3, signal.SIGTERM),
        ("on_train_batch_end", 6, signal.SIGINT), ("on_train_epoch_start", 3, signal.SIGINT),
        ("on_validation_batch_end", 2, signal.SIGINT),
    ],
)  # fmt: skip
def test_a_signal_at_any_moment_is_an_exit_code_and_the_same_command_goes_on(
    hook: str,
    call: int,
    signum: int,
    undisturbed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Four batches an epoch, three epochs; also at the last batch of an epoch and of the run."""
    command = [*RUNS["momentum and cosine"], CPU]
    with monkeypatch.context() as patch:
        SendSignal(signum, hook, call).install(patch)
        capsys.readouterr()
        assert run_command([*command, f"run_dir={tmp_path / 'run'}"]) == 128 + signum
        said = capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()  # a validation of a moment is waited for
    stopped = rf"stopped by {signal.Signals(signum).name} in epoch \d(, step \d+)?\. Repeat the command to go on\.\n"
    assert re.fullmatch(stopped, said), said
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert run_command([*command, f"run_dir={tmp_path / 'run'}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("resumed going on in epoch" in out) != ("nothing was left to train" in out)
    assert checkpoint_bits(tmp_path / "run" / "checkpoints" / "last.ckpt") == undisturbed


def test_a_finished_run_repeated_tests_again_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, last = [*RUNS["momentum and cosine"], CPU, f"run_dir={tmp_path}"], tmp_path / "checkpoints" / "last.ckpt"
    assert run_command(command) == 0
    before, first = checkpoint_bits(last), capsys.readouterr().out
    assert run_command(command) == 0
    assert checkpoint_bits(last) == before
    table = [line for line in first.splitlines() if "test/" in line]
    assert table
    assert table == [line for line in capsys.readouterr().out.splitlines() if "test/" in line]


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    command = [*RUNS["momentum and cosine"], CPU, f"run_dir={folder}"]
    assert run_command([*command, "trainer.max_epochs=1"]) == 0
    before = checkpoint_bits(folder / "checkpoints" / "last.ckpt")
    for change, named in (
        ("optimizer.lr=0.5", "optimizer"), ("model.widths=[9]", "model"), ("data.batch_size=16", "data"),
        ("seed=1", "seed"), ("scheduler=none", "scheduler"), ("regularization=l2", "regularization"),
    ):  # fmt: skip
        capsys.readouterr()
        assert run_command([*command, change]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {folder} holds a run with another ")
        assert named in error
        assert error.count("\n") == 1
    assert checkpoint_bits(folder / "checkpoints" / "last.ckpt") == before


def test_a_signal_saves_after_all_that_counts_the_batch(tmp_path: Path) -> None:
    """Else the curve over rows goes on a batch too early."""
    model = zoo.create_model("mlp", zoo.create_data("iris").spec)
    names = [type(callback).__name__ for callback in make_trainer(model, run_dir=tmp_path, logger=False).callbacks]
    assert names.index("SignalExit") > max(names.index("LossByRows"), names.index("Gauges"))
