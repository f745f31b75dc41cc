"""What a process takes to start, beyond the import of torch: CPU time and memory of processes of their own."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Job

CHECKOUT = Path(__file__).resolve().parents[1]
TORCH, SKLEARN = "import torch", "import torch, sklearn.cluster"
ESTIMATOR = f"{SKLEARN}; from zoo.sklearn import KMeans"
MEMORY = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
BASKETS = """
import torch, zoo
from benchmarks.apriori import synthetic_baskets
from zoo.data.transactions import BasketData
rows = synthetic_baskets(88_000)
items = rows.items.split(rows.lengths.tolist())
baskets = [basket.tolist() for basket in items]
def fit(baskets=baskets):
    return zoo.fit(zoo.create_model("apriori", min_support=0.02), BasketData(baskets))
fit([["bread", "milk"], ["bread"]])  # whatever is imported for it
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
"""
TRAININGS = {"list=models": 0.6, "model=kmeans": 2.5, "model=mlp trainer.max_epochs=1": 5.0}


def process(*arguments: str, folder: str | Path = CHECKOUT) -> str:
    """Run Python with these arguments on one thread, and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    return done.stdout


def seconds(*arguments: str) -> float:
    """The CPU seconds of a process, in a folder of its own."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    with tempfile.TemporaryDirectory() as folder:
        process(*arguments, folder=folder)
    return used() - before


def megabytes(code: str) -> float:
    """The largest memory of a process that runs some code."""
    return int(process("-c", code + MEMORY).split()[-1]) / 1024


def jobs() -> Iterator[Job]:
    torch, train = functools.partial(seconds, "-c", TORCH), functools.partial(seconds, str(CHECKOUT / "train.py"))
    for words, bound in TRAININGS.items():
        name = f"train.py {words}"
        yield Job(name, functools.partial(train, *words.split()), torch, TORCH, bound=bound, unit="s", beyond=True)
    for unit, bound, used in (("s", 0.5, lambda code: seconds("-c", code)), ("MB", 60, megabytes)):
        ours, base = functools.partial(used, ESTIMATOR), functools.partial(used, SKLEARN)
        yield Job("import zoo.sklearn, an estimator", ours, base, SKLEARN, bound=bound, unit=unit, beyond=True)
    ours, base = functools.partial(megabytes, BASKETS + "fit()"), functools.partial(megabytes, BASKETS)
    yield Job("apriori, 88,000 baskets", ours, base, "the baskets alone", bound=70, unit="MB", beyond=True)
