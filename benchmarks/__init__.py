"""Ours beside the peer, in one run: `python -m benchmarks [NAME...]`.

A module of this package is one benchmark and has `jobs()`, which yields `Job`s. Ours and the peer's are called
alternately after a warm-up of each, so that whatever else the machine does hits both alike; what counts is the median
of the pairs' ratios.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Job", "Result", "device_name", "measure"]


@dataclass
class Job:
    """One row of the table.

    Attributes:
        name: what is done, with its size.
        ours: called without arguments.
        peer: called without arguments; it does the same work.
        peer_name: whose it is.
        pairs: how many times each is called.
        bound: the ratio that we mean to stay within.
        setup: called before every single call, outside the time that is taken.
        check: called once with both results after the warm-up; raises if they do not agree.
    """

    name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    peer_name: str
    pairs: int = 5
    bound: float = 1.0
    setup: Callable[[], Any] | None = None
    check: Callable[[Any, Any], None] | None = None


@dataclass
class Result:
    """The times of a job, in seconds, pair by pair."""

    job: Job
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's, of each pair."""
        return sorted(a / b for a, b in zip(self.ours, self.peer, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


def synchronize() -> None:
    """Wait for a GPU's queue, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _time(call: Callable[[], Any], setup: Callable[[], Any] | None) -> float:
    if setup is not None:
        setup()
    gc.collect()
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def measure(job: Job) -> Result:
    """Warm both up, check that they agree, then time `job.pairs` pairs, each first by turns."""
    if job.setup is not None:
        job.setup()
    ours = job.ours()
    if job.setup is not None:
        job.setup()
    peer = job.peer()
    if job.check is not None:
        job.check(ours, peer)
    del ours, peer
    result = Result(job)
    for pair in range(job.pairs):
        turns = [(job.ours, result.ours), (job.peer, result.peer)]
        for call, times in turns if pair % 2 == 0 else reversed(turns):
            times.append(_time(call, job.setup))
    return result


def device_name() -> str:
    """Return the name of the device that was measured."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({os.cpu_count()} cores, {platform.machine()})"
