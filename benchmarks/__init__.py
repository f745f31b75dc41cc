"""Ours beside the peer, in one run: `python -m benchmarks [NAME...] [--quick]`.

A module of this package is one benchmark, or makes a `report()` of its own. Its `jobs()` yields `Job`s: chosen cases,
by the clock. Its `grid()`, where it has one, yields `Job`s with a place, `where`: rows, features, classes and types
from small to large, on one thread by CPU time or on several by the clock, of which a geometric mean, the worst and a
picture are made, or a `Later` for one that takes long to make. Ours and the peer's are called alternately after a
warm-up of each, so that whatever else the machine does hits both alike; what counts is the median of the pairs' ratios.
Ratios that scatter are taken again.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

__all__ = ["Clock", "Job", "Later", "Result", "device_name", "limited", "measure"]

Clock = Callable[[], float]

SPREAD = 0.3  # of the ratios about their median, as a share of it, above which a job is measured again
ROUNDS = 3  # in which it is measured at most
LONG = 10  # seconds of a cell's warm-up, from which on three pairs are enough
LEAST = 0.02  # seconds that a timing takes at least, so that the clock's ticks do not matter
ALONE = 0.3  # the same by the clock: for a while the threads of the other side still look for work
VERSIONS = ("torch", "numpy", "scikit-learn", "scipy")


@dataclass
class Job:
    """One row of the table.

    Attributes:
        name: what is done, with its size.
        ours: called without arguments.
        peer: called without arguments; it does the same work.
        peer_name: whose it is.
        pairs: how many times each is called.
        bound: the ratio that we mean to stay within; of a difference, its amount.
        setup: called before every single call, outside the time that is taken.
        check: called once with both results after the warm-up; raises if they do not agree.
        where: its place among others: `rows`, `features` and what else there is. Such a job is measured on one thread,
            by CPU time, unless its grid is asked for more threads.
        quick: whether `--quick` takes it.
        unit: of what the calls return, where that is what counts (such as MB of another process) and not their time.
        beyond: whether what counts is ours less the peer's, and not the ratio.
    """

    name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    peer_name: str
    pairs: int = 5
    bound: float = 1.0
    setup: Callable[[], Any] | None = None
    check: Callable[[Any, Any], None] | None = None
    where: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    unit: str = ""
    beyond: bool = False


@dataclass(frozen=True)
class Later:
    """A job of a grid that is made when it is measured, since its data or the choice of its peer take long.

    Attributes:
        name: of the job.
        make: the job.
        quick: whether `--quick` takes it.
    """

    name: str
    make: Callable[[], Job]
    quick: bool = False


@dataclass
class Result:
    """What was measured of a job, pair by pair: seconds, or what its calls return."""

    job: Job
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's of each pair, or ours less the peer's."""
        pairs = zip(self.ours, self.peer, strict=True)
        return sorted(a - b if self.job.beyond else a / b for a, b in pairs)

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def middles(self) -> tuple[float, float]:
        """The medians of both."""
        return statistics.median(self.ours), statistics.median(self.peer)

    @property
    def scatters(self) -> bool:
        """Whether the middle half of the ratios lies further from their median than `SPREAD`."""
        ratios, quarter = self.ratios, len(self.ours) // 4
        kept = ratios[quarter : len(ratios) - quarter]
        return any(abs(ratio - self.ratio) > SPREAD * abs(self.ratio) for ratio in kept)

    @property
    def missed(self) -> bool:
        """Whether ours takes more than we mean to."""
        return self.ratio > self.job.bound


def synchronize() -> None:
    """Wait for a GPU's queue, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _time(call: Callable[[], Any], job: Job, clock: Clock, times: int = 1) -> float:
    """The seconds of a call, or what it returns where that counts."""
    if job.setup is not None:
        job.setup()
    gc.collect()
    synchronize()
    start = clock()
    for _ in range(times):
        value = call()
    synchronize()
    return float(value) if job.unit else (clock() - start) / times


def measure(job: Job, clock: Clock = time.perf_counter) -> Result:
    """Warm both up, check that they agree, then time `job.pairs` pairs, each first by turns; again if they scatter."""
    result = Result(job)
    calls = ((job.ours, result.ours), (job.peer, result.peer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a few iterations were not enough
        start = time.perf_counter()
        _warm_up(job)
        pairs = job.pairs if not job.where or time.perf_counter() - start < LONG else min(job.pairs, 3)
        gc.collect()
        gc.freeze()  # what is there already is not looked through before each call
        times = [1, 1]
        if job.where and pairs == job.pairs:
            first = [_time(call, job, clock) for call, _ in calls]
            least = ALONE if clock is time.perf_counter else LEAST
            times = [max(1, min(1000, math.ceil(least / max(seconds, 1e-6)))) for seconds in first]
        for _ in range(ROUNDS):
            for pair in range(pairs):
                for which in (0, 1) if pair % 2 == 0 else (1, 0):
                    call, found = calls[which]
                    found.append(_time(call, job, clock, times[which]))
            if not result.scatters:
                break
        gc.unfreeze()
    return result


def _warm_up(job: Job) -> None:
    """Call both once, and check that they agree."""
    if job.setup is not None:
        job.setup()
    ours = job.ours()
    if job.setup is not None:
        job.setup()
    peer = job.peer()
    if job.check is not None:
        job.check(ours, peer)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let all libraries use so many threads; with one, CPU time is what the work takes."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def device_name() -> str:
    """Return the name of the device that was measured."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({os.cpu_count()} cores, {platform.machine()})"


def circumstances() -> str:
    """Return how loaded the machine is, and the versions of what is measured."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    return f"Load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {versions}."
