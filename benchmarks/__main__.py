"""Run benchmarks and write `benchmarks/results/<device>.md`: `python -m benchmarks [NAME...] [--quick]`.

`--quick` takes of each grid some cells, in about a minute, and writes nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks import Job, Result, circumstances, device_name, measure
from benchmarks._grid import draw, summary

RESULTS = Path(__file__).parent / "results"
HEADER = "| job | ours | peer | whose | ratio (median) | spread | bound |\n|---|---|---|---|---|---|---|\n"


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


def amount(value: float, unit: str) -> str:
    """Say seconds, or an amount of something else."""
    return f"{value:.3g} {unit}" if unit else f"{value:.3g} s" if abs(value) >= 1 else f"{value * 1e3:.3g} ms"


def row(result: Result) -> str:
    """One line of the table: amounts are medians, the spread is that of the ratios; a missed bound is marked."""
    job, middle, ratios = result.job, len(result.ours) // 2, result.ratios
    ours, peer = (amount(sorted(times)[middle], job.unit) for times in (result.ours, result.peer))

    def said(ratio: float) -> str:
        return f"{amount(ratio, job.unit)} more" if job.beyond else f"{ratio:.2f}"

    bound = amount(job.bound, job.unit) if job.beyond else f"{job.bound:g}"
    name = job.name.replace("|", "\\|")
    return (
        f"| {name} | {ours} | {peer} | {job.peer_name} | {said(result.ratio)} "
        f"| {said(ratios[0])} to {said(ratios[-1])} | {bound}{' **missed**' if result.missed else ''} |"
    )


def device_file() -> str:
    """The name of the device's file, without a suffix."""
    return re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")


def write(name: str, rows: list[str], said: str = "") -> Path:
    """Replace the section of one benchmark in the device's file, leaving the others as they are."""
    return keep(name, f"{said}{circumstances()}\n\n{HEADER}" + "\n".join(rows))


def keep(name: str, section: str) -> Path:
    """Put a section of that name in the device's file, leaving the others as they are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{device_file()}.md"
    text = path.read_text() if path.exists() else f"# {device_name()}\n\nWritten by `python -m benchmarks`.\n"
    sections = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    sections[name] = f"{section}\n\n"
    head = text.split("\n## ")[0].rstrip() + "\n\n"
    path.write_text(head + "".join(f"## {key}\n\n{sections[key]}" for key in sorted(sections)).rstrip() + "\n")
    return path


def measured(name: str, jobs: Iterable[Job]) -> list[Result]:
    """Measure jobs, each printed as it is done."""
    print(f"## {name}\n\n{circumstances()}\n\n{HEADER}", end="")
    results = []
    for job in jobs:
        results.append(measure(job))
        print(row(results[-1]), flush=True)
    print()
    return results


def grids(name: str, module: ModuleType) -> dict[str, Callable[[], Iterable[Job]]]:
    """The grids of a benchmark by name: `grid()`, or several, each with a summary and a picture: `grid_forest()`, …"""
    found = {key.removeprefix("grid").replace("_", "-"): make for key, make in vars(module).items() if is_grid(key)}
    return {f"{name}{key}": make for key, make in found.items()}


def is_grid(name: str) -> bool:
    """Whether a function of that name yields a grid."""
    return name == "grid" or name.startswith("grid_")


def main(arguments: list[str]) -> int:
    quick, chosen = "--quick" in arguments, [name for name in arguments if name != "--quick"]
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        print(f"error: no benchmark named {', '.join(unknown)}. Available: {', '.join(names())}.", file=sys.stderr)
        return 1
    for name in chosen or names():
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "report"):
            if not quick:
                print(f"{(text := module.report())}\n\nwritten to {keep(name, text)}\n")
            continue
        if not quick:
            results = measured(name, module.jobs())
            print(f"written to {write(name, [row(result) for result in results])}\n")
        for kind, grid in grids(name, module).items():
            results = measured(f"{kind}-grid", (job for job in grid() if job.quick or not quick))
            print(summary(results) + "\n" if results else "", end="")
            if results and not quick:
                picture = RESULTS / f"{device_file()}-{kind}.png"
                draw(kind, results, picture)
                said = f"{summary(results)}\n\n![ratio over size]({picture.name})\n\n"
                print(f"written to {write(f'{kind}-grid', [row(result) for result in results], said)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
