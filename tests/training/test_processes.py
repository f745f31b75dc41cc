"""Several processes of one run, and several runs of one folder: they agree, and none goes on without another."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from support import CHECKOUT, CPU, free_port, in_two_processes, run_command, spawn

from zoo import kernels, load_model
from zoo.errors import ZooError
from zoo.training import links, processes
from zoo.training.links import linked
from zoo.training.lock import run_lock
from zoo.training.processes import agree, file_of_first, global_rank, in_world
from zoo.training.run import check_places, check_restarts, check_trainer

RUN = ["model=mlp", "data=iris", "trainer.max_epochs=1", CPU]
TWO = ["model=mlp", "data=digits", "data.batch_size=2", "trainer.max_epochs=500", "checkpoint_seconds=0", CPU,
       "trainer.strategy=ddp", "trainer.devices=2"]  # fmt: skip


# -- one process a folder --------------------------------------------------------------------------------------------


def test_a_second_process_in_a_run_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_lock(tmp_path):
        assert run_command([*RUN, f"run_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path} is in use: another process trains there. Wait for it to end, or choose another run_dir.\n"
    )
    assert not (tmp_path / "config.yaml").exists()
    with run_lock(tmp_path):  # free again
        pass
    assert not list(tmp_path.glob("*lock*"))


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    code = f"from pathlib import Path\nfrom zoo.training.lock import run_lock\nimport time\n" \
           f"with run_lock(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(100)"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ZooError, match="is in use"), run_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        pass


# -- agreement ---------------------------------------------------------------------------------------------------------


class Store(dict):
    """The store of torchrun, in this process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def get(self, key: str) -> bytes:  # type: ignore[override]
        return self[key]


def test_processes_that_torchrun_starts_take_what_the_first_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_stores", [Store()])
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    said = [{"seed": 1, "folder": "runs/10-00-00"}, {"seed": 2, "folder": "runs/10-00-01"}]
    heard: list[Any] = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr(processes, "_times_asked", {})
        heard += [agree("settings", said[rank]), agree("settings", f"again from {rank}")]
    assert heard == [said[0], "again from 0"] * 2


def test_processes_that_lightning_starts_find_it_in_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZOO_RUN_CHECKPOINT", '"of an earlier job"')
    assert agree("checkpoint", None) is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert agree("checkpoint", "last.ckpt, which was written meanwhile") is None


def hear(folder: Path) -> None:
    """What each of two processes does; the first one stays until the other has heard it, as a run does."""
    (folder / f"{global_rank()}").write_text(str(agree("seed", 7 + global_rank())))
    while not (folder / "1").exists():
        time.sleep(0.01)


def test_two_processes_agree_through_the_store_that_the_first_one_opens(tmp_path: Path) -> None:
    in_two_processes(hear, tmp_path)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "7"


@pytest.mark.parametrize(
    ("given", "world", "said"),
    [
        ({}, (4, 2), {"devices": 2, "num_nodes": 2, "strategy": "ddp"}),
        ({"devices": "auto", "strategy": "fsdp"}, (2, 1), {"devices": 1, "num_nodes": 2, "strategy": "fsdp"}),
        ({"devices": 2, "num_nodes": 2, "strategy": "auto"}, (4, 2), {"devices": 2, "num_nodes": 2, "strategy": "ddp"}),
        ({"devices": 3}, (4, 2), "trainer.devices=3 was asked for, and 4 processes were started, 2 on each machine"),
        ({"num_nodes": 3}, (4, 2), "trainer.num_nodes=3 was asked for.*leave trainer.num_nodes out"),
        ({}, (3, 2), "2 of 3 processes run on this machine: start as many on each"),
    ],
)
def test_devices_nodes_and_strategy_are_those_of_the_world(
    given: dict, world: tuple[int, int], said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert in_world(given) == given
    described = dict(zip(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), map(str, world), strict=True))
    for name, value in {**described, "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    if isinstance(said, dict):
        assert in_world(given) == said
        return
    with pytest.raises(ZooError, match=said):
        in_world(given)


def test_processes_are_counted_however_they_are_spread_over_machines(tmp_path: Path) -> None:
    now = {"trainer": {"devices": 1, "num_nodes": 4}}
    check_trainer(tmp_path, {"devices": 2, "num_nodes": 2}, now)
    check_trainer(tmp_path, {"devices": 4}, now)
    with pytest.raises(ZooError, match=r"another trainer\.devices"):
        check_trainer(tmp_path, {"devices": 2}, now)


def test_a_run_that_lies_with_another_process_than_the_first_is_not_begun_anew(tmp_path: Path) -> None:
    for there in ([False, False], [True, False], [True, True]):
        check_places(tmp_path, there)
    with pytest.raises(ZooError, match="does on that of process 3: pass a run_dir that all machines see"):
        check_places(tmp_path, [False, False, True])


def test_a_run_that_would_be_started_again_needs_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    check_restarts(["model=mlp"])
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    check_restarts(["model=mlp", "run_dir=runs/mine"])
    with pytest.raises(ZooError, match="pass run_dir=FOLDER"):
        check_restarts(["model=mlp"])


def read_of_first(folder: Path) -> None:
    """What each of two processes does, of which the second has the first one's file, another in its place, or none."""
    first, sent = global_rank() == 0, bytes(range(256)) * 10
    processes._CHUNK = 1000  # bytes, of which a piece is
    own = folder / f"{global_rank()}"  # the disk of each
    own.mkdir()
    os.chdir(own)
    assert file_of_first("nothing", None) is None
    for name, theirs in (("absent", None), ("stale", b"of another run"), ("same", sent)):
        content = sent if first else theirs
        if content is not None:
            Path(name).write_bytes(content)
        found = file_of_first(name, Path(name) if first else None)
        assert found is not None
        assert found.read_bytes() == sent
        assert (found == Path(name)) == (content == sent)
        if content != sent:
            digest = found.with_name(f"{name}.sha256").read_text()
            assert digest == f"{hashlib.sha256(sent).hexdigest()}  {name}\n"
            assert content is None or Path(name).read_bytes() == content
    agree("over", None)
    (folder / f"done {global_rank()}").touch()
    while not (folder / "done 1").exists():
        time.sleep(0.01)


def test_a_process_without_the_first_ones_disk_reads_a_copy(tmp_path: Path) -> None:
    in_two_processes(read_of_first, tmp_path)


def start_again(folder: Path) -> None:
    """What each of two processes does: it finds in the store what others said there before."""
    from torch.distributed import rendezvous

    store = next(iter(rendezvous("env://")))[0]
    if global_rank() == 0:
        store.set("zoo/hello/1", "of-before")
        store.set("zoo/welcome/1", "of-before part-of-before")
        store.set("zoo/part-of-before/1", "")
        store.set("zoo/part-of-before/seed/0", "99")
        store.set("ready", "")
    store.get("ready")
    hear(folder)


def test_processes_that_are_started_again_hear_nothing_of_the_former_ones(tmp_path: Path) -> None:
    in_two_processes(start_again, tmp_path)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "7"


# -- a process that is gone --------------------------------------------------------------------------------------------


class Watching(threading.Event):
    """Says that the watch over the other process has begun."""

    file: Path

    def wait(self, timeout: float | None = None) -> bool:
        self.file.touch()
        return super().wait(timeout)


def watch_over(others: list[subprocess.Popen], folder: Path) -> None:
    """What a process of two does that has nothing to do."""
    sys.stderr = (folder / "errors").open("w", buffering=1)
    Watching.file = folder / "watching"
    processes.threading.Event = Watching  # type: ignore[misc]
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(launcher=SimpleNamespace(procs=others)))
    with processes.together(trainer):
        while not (folder / "watching").exists():
            time.sleep(0.01)
        for other in others:
            other.kill()
        time.sleep(100)
    os._exit(0)


def start_one(folder: Path, killed: str) -> None:
    """What the first of two processes does, of which one is killed: the other ends with 1."""
    if killed == "second":
        watch_over([subprocess.Popen(["sleep", "100"])], folder)
    elif os.fork() == 0:
        watch_over([], folder)
    while not (folder / "watching").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("killed", "said"),
    [("second", "process 2 of 2 was ended by SIGKILL"), ("first", "the first of 2 processes has ended")],
)
def test_a_process_that_lightning_started_misses_the_other_in_a_line(killed: str, said: str, tmp_path: Path) -> None:
    process = torch.multiprocessing.get_context("fork").Process(target=start_one, args=(tmp_path, killed))
    process.start()
    process.join(100)
    assert process.exitcode == (1 if killed == "second" else -9)
    until = time.monotonic() + 100
    while not (tmp_path / "errors").read_text() and time.monotonic() < until:
        time.sleep(0.01)
    assert (tmp_path / "errors").read_text() == f"error: {processes.ended(said)}\n"


@pytest.mark.slow  # the test above has stand-ins for both
@pytest.mark.parametrize("killed", ["second", "first"])
def test_of_two_processes_the_other_ends_within_seconds_in_a_line(killed: str, tmp_path: Path) -> None:
    process = spawn([*TWO, f"run_dir={tmp_path / 'run'}"], tmp_path)
    lines: dict[str, str] = {}
    readers = [
        threading.Thread(target=lambda name=name: lines.update({name: getattr(process, name).read()}))
        for name in ("stdout", "stderr")
    ]
    for reader in readers:
        reader.start()
    while process.poll() is None and not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.05)
    others = psutil.Process(process.pid).children()
    assert len(others) == 1, lines
    (others[0] if killed == "second" else process).send_signal(signal.SIGKILL)
    assert process.wait(200) == (1 if killed == "second" else -9)
    _, alive = psutil.wait_procs(others, 200)
    for left in alive:
        left.kill()
    assert not alive
    for reader in readers:
        reader.join()
    errors = lines["stderr"].splitlines()
    assert len(errors) < 10, lines["stderr"]
    assert "Traceback" not in lines["stderr"]
    said = "process 2 of 2 was ended by SIGKILL" if killed == "second" else "the first of 2 processes has ended"
    assert [line for line in errors if line.startswith("error: ")] == [
        f"error: {said}, and the run with it: repeat the command to go on from the last checkpoint."
    ]


def test_lightnings_own_watch_over_processes_which_kills_without_a_word_is_dismissed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    observer = _ChildProcessObserver(os.getpid(), [child], sleep_period=0.05)  # type: ignore[arg-type]
    observer.start()
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[])))
    with processes.together(trainer):
        observer.join(10)
        assert not observer.is_alive()
    child.kill()
    child.wait()


def lines() -> dict:
    """To whom this process listens."""
    return next(thread.lines for thread in threading.enumerate() if isinstance(thread, links._Watch))


def part_ways(folder: Path, how: str) -> None:
    """What each of two linked processes does: the second ends in some way, while the first has nothing to do."""
    os.dup2(os.open(folder / f"errors {global_rank()}", os.O_CREAT | os.O_WRONLY), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    if how == "in concert":
        links._Watch._end = lambda *arguments, **options: os._exit(9)
    try:
        with linked():
            while not lines():
                time.sleep(0.01)
            if global_rank() == 0:
                while lines() or how != "in concert":
                    time.sleep(0.01)
            elif how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "raises":
                raise ValueError("of its own")
    except ValueError:
        os._exit(3)
    os._exit(0)


@pytest.mark.parametrize(("how", "codes"), [("killed", [1, -9]), ("raises", [1, 3]), ("in concert", [0, 0])])
def test_a_process_that_another_program_started_misses_the_other_at_once(
    how: str, codes: list[int], tmp_path: Path
) -> None:
    assert in_two_processes(part_ways, tmp_path, how, codes=None) == codes
    said = f"error: {processes.ended('process 2 of 2 has ended')}\n"
    assert (tmp_path / "errors 0").read_text() == ("" if how == "in concert" else said)
    assert (tmp_path / "errors 1").read_text() == ""


# -- what may change when a run goes on ------------------------------------------------------------------------------


def test_a_run_is_not_gone_on_with_under_another_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*RUN, f"run_dir={tmp_path}"]) == 0
    for change in (
        "accumulate_grad_batches=2", "precision=64-true", "limit_train_batches=2", "val_check_interval=0.5"
    ):  # fmt: skip
        capsys.readouterr()
        assert run_command([*RUN, f"run_dir={tmp_path}", f"trainer.{change}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path} holds a run with another trainer.{change.split('=')[0]} (")
        assert error.count("\n") == 1


def test_a_longer_run_goes_on_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*RUN, f"run_dir={tmp_path}"]) == 0
    assert run_command([*RUN, f"run_dir={tmp_path}", "trainer.max_epochs=2"]) == 0
    assert "Going on with trainer.max_epochs=2, which was 1." in capsys.readouterr().out
    assert run_command([*RUN, "scheduler=cosine", f"run_dir={tmp_path / 'cosine'}"]) == 0
    assert run_command([*RUN, "scheduler=cosine", f"run_dir={tmp_path / 'cosine'}", "trainer.max_epochs=2"]) == 1
    error = capsys.readouterr().err
    assert "another trainer.max_epochs (1, not 2), over which scheduler=cosine is drawn" in error


@pytest.mark.skipif(kernels.status().variant is None, reason="no kernels are built here")
def test_a_run_that_goes_on_with_other_kernels_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*RUN, f"run_dir={tmp_path}"]) == 0
    capsys.readouterr()
    try:
        assert run_command([*RUN, f"run_dir={tmp_path}", "kernels=false", "trainer.max_epochs=2"]) == 0
    finally:
        kernels.use(True)
    said = (
        f"began with kernels: {kernels.status().variant} and goes on with kernels: none, so its last digits may differ."
    )
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_that_torchrun_starts_end_in_the_numbers_of_one(tmp_path: Path) -> None:
    command = ["model=linear_regression", CPU]
    assert run_command([*command, f"run_dir={tmp_path / 'one'}"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    arguments = [*command, "trainer.devices=2", "trainer.strategy=ddp", f"run_dir={tmp_path / 'two'}"]
    done = subprocess.run(
        [*torchrun, str(CHECKOUT / "train.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("linear_regression on diabetes") == 2  # at the start and at the end, by the first process
    one, two = (load_model(tmp_path / name).state_dict() for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
