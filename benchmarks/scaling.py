"""How time grows with rows, features and parameters, and what a second thread or process is worth.

`python -m benchmarks scaling` measures each case at several sizes, by CPU time on one thread, in rounds that go through
all sizes, and fits time = c · sizeᵃ by least squares of the logarithms, over the sizes that take long enough. Its
tables are what docs/scaling.md extrapolates. Memory is what a fit holds beside the rows: the model's sums, counted.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks import circumstances

CHECKOUT = Path(__file__).resolve().parents[1]
ROUNDS = 3
LEAST = 0.02  # seconds: of what takes less the calls themselves are a good part

ROWS = (30_000, 100_000, 300_000, 1_000_000)  # of 32 features
FEATURES = (32, 64, 128, 256, 512)  # of 10,000 rows
WIDTHS = (64, 128, 256, 512, 1024)  # of the layers of a network


@dataclass
class Case:
    """A family at several sizes.

    Attributes:
        name: what is done.
        over: what grows.
        calls: of each size.
        seconds: what each took, the least of the rounds.
    """

    name: str
    over: str
    calls: dict[int, Callable[[], Any]]
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def exponent(self) -> float:
        """a of time = c · sizeᵃ."""
        points = [(math.log(size), math.log(s)) for size, s in self.seconds.items() if s >= LEAST]
        return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else math.nan

    def row(self) -> str:
        """One line of the table."""
        (low, first), *_, (before, less), (high, last) = self.seconds.items()
        exponent = "too quick" if math.isnan(self.exponent) else f"{self.exponent:.2f}"
        more = (last - less) / (high - before)  # of the two largest
        return (
            f"| {self.name} | {self.over}, {low:,} to {high:,} | {first * 1e3:,.3g} ms to {last * 1e3:,.0f} ms "
            f"| {exponent} | {more * 1e9:,.0f} ns |"
        )


def table_of(rows: int, features: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, values and classes that depend on them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    value = x @ torch.randn(features, generator=generator, dtype=torch.float64)
    value += torch.randn(rows, generator=generator, dtype=torch.float64) * features**0.5
    return x, value, (value > 0).long()


def fits(x: torch.Tensor, value: torch.Tensor, label: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """A fit of each family; iterations are as many at all sizes, so that their cost is seen."""

    def fit(name: str, target: torch.Tensor | None = None, **options: Any) -> Callable[[], Any]:
        l2 = options.pop("l2", 0.0)
        return lambda: zoo.fit(zoo.create_model(name, **options), x, target, device="cpu", l2=l2)

    return {
        "naive_bayes": fit("naive_bayes", label),
        "kmeans, K = 16, 10 iterations": fit("kmeans", num_clusters=16, max_iter=10, tolerance=0.0, seed=0),
        "pca, covariance": fit("pca", num_components=8),
        "linear_regression": fit("linear_regression", value),
        "logistic_regression, Newton, 6 passes": fit(
            "logistic_regression", label, method="newton", max_iter=6, tol=0.0, l2=1e-4
        ),
        "logistic_regression, L-BFGS, 20 passes": fit(
            "logistic_regression", label, method="lbfgs", max_iter=20, tol=0.0, l2=1e-4
        ),
    }


def cases() -> Iterator[Case]:
    """The cases, over rows and over features, and training steps over the number of parameters."""
    for over, sizes in (("rows", [(n, 32) for n in ROWS]), ("features", [(10_000, d) for d in FEATURES])):
        found = {size[over == "features"]: fits(*table_of(*size)) for size in sizes}
        for name in next(iter(found.values())):
            yield Case(name, over, {size: calls[name] for size, calls in found.items()})
    yield Case("mlp, a step of 256 rows, 3 layers", "parameters", dict(map(step, WIDTHS)))


def step(width: int) -> tuple[int, Callable[[], Any]]:
    """The parameters of a network, and a training step of it."""
    sizes = [width] * 4
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x = torch.randn(256, width)

    def call() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return sum(p.numel() for p in network.parameters()), call


def measure(found: list[Case], clock: Callable[[], float] = time.process_time) -> None:
    """Take the least of some rounds of each, so that what else the machine does is left out."""
    for number in range(ROUNDS + 1):  # the first warms up
        for case in found:
            for size, call in case.calls.items():
                start = clock()
                call()
                seconds = clock() - start
                if number:
                    case.seconds[size] = min(case.seconds.get(size, math.inf), seconds)


def memory() -> Iterator[str]:
    """What a fit holds beside its rows, at 32 and at 1,000 features: the sums of a pass and the state."""
    for name, options in (
        ("naive_bayes", {}),
        ("kmeans", {"num_clusters": 16}),
        ("pca", {}),
        ("linear_regression", {}),
        ("logistic_regression", {"method": "newton"}),
        ("logistic_regression", {"method": "lbfgs"}),
    ):
        amounts = []
        for features in (32, 1_000):
            x, value, label = table_of(2 * features, features)
            target = {"linear_regression": value, "naive_bayes": label, "logistic_regression": label}.get(name)
            model = zoo.fit(zoo.create_model(name, **options), x, target, device="cpu")
            state = {**dict(model.named_buffers()), **dict(model.named_parameters())}
            amounts.append(sum(t.numel() * t.element_size() for t in state.values()))
        said = ", ".join(f"{key}={value}" for key, value in options.items())
        yield f"| {name} | {said} | {amounts[0] / 1e3:,.0f} kB | {amounts[1] / 1e3:,.0f} kB |"


def threads() -> Iterator[str]:
    """Wall time of the largest fits with one thread over that with two."""
    from threadpoolctl import threadpool_limits

    calls, before = fits(*table_of(ROWS[-1], 32)), torch.get_num_threads()
    for name, call in calls.items():
        ratios = []
        for _ in range(ROUNDS):
            seconds = []
            for number in (1, 2):
                torch.set_num_threads(number)
                with threadpool_limits(number):
                    start = time.perf_counter()
                    call()
                    seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
        torch.set_num_threads(before)
        yield f"| {name}, {ROWS[-1]:,} × 32 | 2 threads | {statistics.median(ratios):.2f} |"


def processes() -> Iterator[str]:
    """Rows a second of passes over blobs that are made as they are asked for, in one process and in two."""
    few, many, speeds = 1_000_000, 20_000_000, []  # so many that the start of processes does not matter
    for devices in (1, 2):
        least = {}
        for rows in (few, many):
            options = [f"data.num_rows={rows}", f"trainer.devices={devices}", "trainer.max_epochs=4"]
            with tempfile.TemporaryDirectory() as folder:
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
                command = [sys.executable, str(CHECKOUT / "train.py"), "model=kmeans", "data.batch_size=65536"]
                taken = []
                for number in range(2):
                    start = time.perf_counter()
                    more = ["model.tolerance=0", f"run_dir={folder}/{number}"]
                    subprocess.run([*command, *options, *more], env=environment, check=True, capture_output=True)
                    taken.append(time.perf_counter() - start)
                least[rows] = min(taken)
        speeds.append(4 * (many - few) / (least[many] - least[few]))
    yield f"| kmeans, blobs made as they are read | 2 processes | {speeds[1] / speeds[0]:.2f} |"
    yield f"| | rows a second of one process | {speeds[0]:,.0f} |"


def report() -> str:
    """Measure, and return the tables as Markdown."""
    found = list(cases())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        measure(found)
    torch.set_num_threads(before)
    lines = [
        circumstances(),
        "",
        "| what | over | CPU time, one thread | exponent | of one more |",
        "|---|---|---|---|---|",
    ]
    lines += [case.row() for case in found]
    lines += ["", "| what | options | state, 32 features | state, 1,000 features |", "|---|---|---|---|", *memory()]
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        lines += ["", "What a second thread and process are worth was not taken: others had the cores."]
    else:
        lines += ["", "| what | with | speed beside one |", "|---|---|---|", *threads(), *processes()]
    return "\n".join(lines)
