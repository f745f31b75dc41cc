"""Several processes of one run: they agree before they start, and none goes on without another."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = [
    "agree",
    "ended",
    "explained",
    "file_of_first",
    "gathered",
    "global_rank",
    "in_world",
    "meet_again",
    "together",
    "with_store",
]

_CHUNK = 1 << 25  # bytes of a file that are sent at a time
_PATIENCE = timedelta(minutes=30)  # the first process may have large data to read
_times_asked: dict[str, int] = {}
_stores: list[Any] = []


def global_rank() -> int:
    """Return the number of this process among those of the run, before Lightning has started them all."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def with_store() -> bool:
    """Whether another program, such as torchrun, has started all processes, which find each other through its store."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)


def agree(name: str, value: Any) -> Any:
    """Return what the first process of the run passed as `value`, in all of them.

    Processes that Lightning starts find it in their environment. Those that torchrun starts ask its store, for each of
    them composed a config, and a time for the folder, of its own.

    Args:
        name: what it is.
        value: plain values, as JSON has them.
    """
    number = _times_asked[name] = _times_asked.get(name, -1) + 1
    if with_store():
        key = f"{name}/{number}"
        if global_rank() == 0:
            _store().set(key, json.dumps(value))
            return value
        with explained():
            return json.loads(_store().get(key))
    variable = f"ZOO_RUN_{name.upper()}"
    if global_rank() == 0:
        os.environ[variable] = json.dumps(value)
    elif variable in os.environ:
        return json.loads(os.environ[variable])
    return value


def gathered(name: str, value: Any) -> list[Any]:
    """Return what each process that another program has started passed as `value`, the first one's first."""
    if not with_store():
        return [value]
    number = _times_asked[name] = _times_asked.get(name, -1) + 1
    keys = [f"{name}/{number}/{rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]
    _store().set(keys[global_rank()], json.dumps(value))
    with explained():
        return [json.loads(_store().get(key)) for key in keys]


def _store() -> Any:
    """The store through which processes that another program started find each other."""
    if not _stores:
        from torch.distributed import distributed_c10d, is_initialized, rendezvous

        if is_initialized():  # by that program, as Ray does
            store = distributed_c10d._get_default_store()
        else:
            store = next(iter(rendezvous("env://", timeout=_PATIENCE)))[0]
        with explained():
            _stores.append(_of_this_start(store))
    return _stores[0]


def _of_this_start(store: Any) -> Any:
    """Return the part of a store that no earlier processes have written to.

    torchrun keeps the store when it starts processes again, with all that the former ones said. So each process says a
    word that nobody has said before, until the first one has heard it and answered with the name of the part.
    """
    from torch.distributed import PrefixStore

    rank, word = global_rank(), secrets.token_hex(8)
    until = time.monotonic() + _PATIENCE.total_seconds()
    waiting, part = set(range(1, int(os.environ["WORLD_SIZE"]))) if rank == 0 else {rank}, word
    if rank > 0:
        store.set(f"zoo/hello/{rank}", word)
    while waiting:
        for other in sorted(waiting):
            hello, welcome = f"zoo/hello/{other}", f"zoo/welcome/{other}"
            if rank == 0 and store.check([hello]):
                store.set(welcome, f"{store.get(hello).decode()} {part}")
                waiting -= {other} if store.check([f"zoo/{part}/{other}"]) else set()
            elif rank > 0 and store.check([welcome]):
                heard, part = store.get(welcome).decode().split()
                if heard == word:
                    store.set(f"zoo/{part}/{rank}", "")
                    waiting.clear()
        if time.monotonic() > until:
            raise ZooError("another process of the run has not come.")
        time.sleep(0.02)
    return PrefixStore(f"zoo/{part}", store)


def meet_again(device: Any) -> None:
    """Let processes that torchrun has started again join their group, which torch would look for among the former ones.

    Args:
        device: of this process.
    """
    if not with_store() or not any(gathered("restarts", int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0))):
        return
    from torch import distributed

    if not distributed.is_initialized():
        backend = distributed.get_default_backend_for_device(device)
        world_size = int(os.environ["WORLD_SIZE"])
        distributed.init_process_group(backend, store=_store(), rank=global_rank(), world_size=world_size)


def in_world(options: dict[str, Any]) -> dict[str, Any]:
    """Return the trainer's options with the devices, nodes and strategy of the processes that are there.

    Args:
        options: `devices`, `num_nodes` and `strategy` among them.

    Raises:
        ZooError: for options that say otherwise.

    Example:
        >>> in_world({"devices": 1, "strategy": "auto"})  # of a single process
        {'devices': 1, 'strategy': 'auto'}
    """
    if not with_store():
        return options
    size, here = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if size % here:
        raise ZooError(f"{here} of {size} processes run on this machine: start as many on each.")
    world: dict[str, Any] = {"devices": here, "num_nodes": size // here}
    for key, number in world.items():
        if options.get(key, 1) not in (1, "1", "auto", number, str(number)):
            raise ZooError(
                f"trainer.{key}={options[key]} was asked for, and {size} processes were started, {here} on each "
                f"machine: leave trainer.{key} out."
            )
    strategy = options.get("strategy") or "auto"
    return {**options, **world, "strategy": "ddp" if strategy == "auto" else strategy}


def file_of_first(name: str, path: Path | None) -> Path | None:
    """Return where this process reads a file of the first one: where that does, or a copy where it has no such disk.

    Args:
        name: what it is.
        path: what the first process reads; the others need not know it.
    """
    if not with_store():
        return path
    said = agree(name, None if path is None else [str(path), _digest(path)])
    if said is None:
        return None
    found, digest = said
    path, key, rank = Path(found), f"{name}/{_times_asked[name]}", global_rank()
    if rank > 0:
        lacks = _digest(path) != digest
        _store().set(f"{key}/lacks/{rank}", str(lacks))
        return _received(path, key, digest) if lacks else path
    others = range(1, int(os.environ["WORLD_SIZE"]))
    _send(path, key, [other for other in others if _store().get(f"{key}/lacks/{other}") == b"True"])
    return path


def _digest(path: Path) -> str | None:
    """The digest of a file, or None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _send(path: Path, key: str, others: list[int]) -> None:
    """Hand a file to other processes through the store, which holds a piece of it at a time."""
    store = _store()
    with path.open("rb") as file:
        for number in itertools.count() if others else ():
            piece = file.read(_CHUNK)
            store.set(f"{key}/{number}", piece)
            for other in others:
                store.get(f"{key}/{number}/{other}")
            store.delete_key(f"{key}/{number}")
            if not piece:
                return


def _received(path: Path, key: str, digest: str) -> Path:
    """Return a copy of the file that the first process sends, which goes with this process."""
    folder = tempfile.mkdtemp(prefix="zoo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder) / path.name
    with copy.open("wb") as file:
        for number in itertools.count():
            file.write(piece := _store().get(f"{key}/{number}"))
            _store().set(f"{key}/{number}/{global_rank()}", "taken")
            if not piece:
                break
    copy.with_name(f"{copy.name}.sha256").write_text(f"{digest}  {copy.name}\n")  # by which it is checked
    return copy


@contextlib.contextmanager
def together(trainer: pl.Trainer) -> Iterator[None]:
    """End this process within a second or two of another's end, in one line, while the block runs.

    A killed process would otherwise be missed only in the next exchange between all, which for a streaming model is the
    end of the pass, and in a traceback a process.
    """
    if trainer.world_size == 1 or with_store():  # then `zoo.training.links` does it
        yield
        return
    _dismiss_observer()
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(trainer, over), daemon=True, name="zoo-watch")
    watch.start()
    try:
        with explained():
            yield
    finally:
        over.set()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say in one line that a connection was lost, where no watch, which knows who is gone, does so before."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        time.sleep(3)  # the watch ends this process
        raise ZooError(ended("another process has ended")) from error


def _dismiss_observer() -> None:
    """Stop Lightning's own watch, which every five seconds would kill all processes without a word."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # type: ignore[attr-defined]


def _watch(trainer: pl.Trainer, over: threading.Event) -> None:
    parent, world_size = os.getppid(), trainer.world_size
    while not over.wait(0.5):
        started = getattr(trainer.strategy.launcher, "procs", [])
        for rank, process in enumerate(started, 1):
            code = process.poll()
            if code and code not in (128 + signal.SIGTERM, 128 + signal.SIGINT):  # those stop all, and are said
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                print(f"error: {ended(f'process {rank + 1} of {world_size} {how}')}", file=sys.stderr, flush=True)
                for other in started:
                    other.kill()
                os._exit(1)
        if os.getppid() != parent:
            print(f"error: {ended(f'the first of {world_size} processes has ended')}", file=sys.stderr, flush=True)
            os._exit(1)


def ended(what: str) -> str:
    """Return what to say where one process has ended, and all others with it."""
    return f"{what}, and the run with it: repeat the command to go on from the last checkpoint."


def _is_lost_connection(error: BaseException) -> bool:
    import torch

    text = str(error)
    signs = ("onnection closed", "onnection reset", "onnection refused", "roken pipe", "gloo", "NCCL", "ncclRemote")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)
