"""Run benchmarks and write `benchmarks/results/<device>.md`: `python -m benchmarks [NAME...] [--quick]`.

`--quick` takes of each grid some cells, in about a minute, and writes nothing. `NAME-grid` is the grid of a benchmark
alone; of one that Ctrl-C ends the cells that were measured are kept, and what is written says so.
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


def measured(name: str, jobs: Iterable[Job], results: list[Result]) -> list[Result]:
    """Measure jobs, each printed as it is done, and return the results, to which each is added."""
    print(f"## {name}\n\n{circumstances()}\n\n{HEADER}", end="")
    for job in jobs:
        results.append(measure(job))
        print(row(results[-1]), flush=True)
    print()
    return results


def run_grid(kind: str, jobs: Iterable[Job], quick: bool) -> bool:
    """Measure a grid, print what it says as a whole, and write it unless it is quick; return whether none ended it."""
    results: list[Result] = []
    ended = ""
    try:
        measured(f"{kind}-grid", (job for job in jobs if job.quick or not quick), results)
    except KeyboardInterrupt:
        ended = " Ended before its last cell."
    if results:
        said = f"{summary(results)}{ended}"
        print(f"{said}\n")
        if not quick:
            picture = RESULTS / f"{device_file()}-{kind}.png"
            draw(kind, results, picture)
            text = f"{said}\n\n![ratio over size]({picture.name})\n\n"
            print(f"written to {write(f'{kind}-grid', [row(result) for result in results], text)}\n")
    return not ended


def grids(name: str, module: ModuleType) -> dict[str, Callable[[], Iterable[Job]]]:
    """The grids of a benchmark by name: `grid()`, or several, each with a summary and a picture: `grid_forest()`, …"""
    found = {key.removeprefix("grid").replace("_", "-"): make for key, make in vars(module).items() if is_grid(key)}
    return {f"{name}{key}": make for key, make in found.items()}


def is_grid(name: str) -> bool:
    """Whether a function of that name yields a grid."""
    return name == "grid" or name.startswith("grid_")


def main(arguments: list[str]) -> int:
    quick, chosen = "--quick" in arguments, [name for name in arguments if name != "--quick"]
    unknown = sorted({name.split("-")[0] for name in chosen} - set(names()))
    if unknown:
        print(f"error: no benchmark named {', '.join(unknown)}. Available: {', '.join(names())}.", file=sys.stderr)
        return 1
    for wanted in chosen or names():
        name, _, part = wanted.partition("-")
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "report"):
            if not quick:
                print(f"{(text := module.report())}\n\nwritten to {keep(name, text)}\n")
            continue
        if not quick and not part:
            results = measured(name, module.jobs(), [])
            print(f"written to {write(name, [row(result) for result in results])}\n")
        chosen_grids = {
            kind: grid for kind, grid in grids(name, module).items() if part in ("", "grid") or wanted == f"{kind}-grid"
        }
        if part and not chosen_grids:
            kinds = ", ".join(f"{kind}-grid" for kind in grids(name, module)) or "none"
            print(f"error: {name} has no {wanted}. Its grids: {kinds}.", file=sys.stderr)
            return 1
        for kind, grid in chosen_grids.items():
            if not run_grid(kind, grid(), quick):
                return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
