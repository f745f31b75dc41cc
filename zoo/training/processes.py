"""Several processes of one run: they agree before they start, and none goes on without another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = ["agree", "global_rank", "together", "with_store"]

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
        key = f"zoo/{name}/{number}"
        if global_rank() == 0:
            _store().set(key, json.dumps(value))
            return value
        return json.loads(_store().get(key))
    variable = f"ZOO_RUN_{name.upper()}"
    if global_rank() == 0:
        os.environ[variable] = json.dumps(value)
    elif variable in os.environ:
        return json.loads(os.environ[variable])
    return value


def _store() -> Any:
    """The store through which processes that another program started find each other."""
    if not _stores:
        from torch.distributed import rendezvous

        _stores.append(next(iter(rendezvous("env://", timeout=_PATIENCE)))[0])
    return _stores[0]


@contextlib.contextmanager
def together(trainer: pl.Trainer) -> Iterator[None]:
    """End this process within a second or two of another's end, in one line, while the block runs.

    A killed process would otherwise be missed only in the next exchange between all, which for a streaming model is the
    end of the pass, and in a traceback a process.
    """
    if trainer.world_size == 1:
        yield
        return
    _dismiss_observer()
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(trainer, over), daemon=True, name="zoo-watch")
    watch.start()
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        time.sleep(3)  # the watch knows who is gone, and ends this process
        raise ZooError(_ended("another process")) from error
    finally:
        over.set()


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
                print(f"error: {_ended(f'process {rank + 1} of {world_size}', how)}", file=sys.stderr, flush=True)
                for other in started:
                    other.kill()
                os._exit(1)
        if os.getppid() != parent:
            print(f"error: {_ended(f'the first of {world_size} processes')}", file=sys.stderr, flush=True)
            os._exit(1)


def _ended(who: str, how: str = "has ended") -> str:
    return f"{who} {how}, and the run with it: repeat the command to go on from the last checkpoint."


def _is_lost_connection(error: BaseException) -> bool:
    import torch

    text = str(error)
    signs = ("onnection closed", "onnection reset", "onnection refused", "roken pipe", "gloo", "NCCL", "ncclRemote")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)
