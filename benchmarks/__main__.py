"""Run benchmarks and write `benchmarks/results/<device>.md`: `python -m benchmarks [NAME...] [--quick]`.

`NAME-grid` is the grid of a benchmark alone, whose cells are kept in `<device>-NAME.json` beside its picture. A cell
stands until it is measured anew, so that a grid may be measured in parts: `--minutes` ends it in time, as Ctrl-C does,
`--rest` measures what is not there yet, and `--only` what has a name of that pattern. `--quick` takes of each grid some
cells, in about a minute, and writes nothing. `--threads 2` measures by the clock with so many threads, and keeps such
cells apart.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib
import math
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks import Job, Later, Result, circumstances, device_name, limited, measure
from benchmarks._grid import Cell, draw, read, save, summary

RESULTS = Path(__file__).parent / "results"
HEADER = "| job | ours | peer | whose | ratio (median) | spread | bound |\n|---|---|---|---|---|---|---|\n"
MISSED, BAR = " **missed**", "\\|"


@dataclass(frozen=True)
class Choice:
    """Which cells of a grid are measured in this run."""

    quick: bool = False
    only: str = "*"
    rest: bool = False
    end: float = math.inf  # of `time.monotonic`, after which no cell is begun
    threads: int = 1

    @property
    def aside(self) -> str:
        """What the names of a grid's files and section end with."""
        return f"-{self.threads}-threads" if self.threads > 1 else ""

    def takes(self, job: Job | Later, kept: Iterable[str]) -> bool:
        """Whether a job is measured, given the names of the cells that are there."""
        wanted = fnmatch.fnmatchcase(job.name, self.only) and not (self.rest and job.name in kept)
        return wanted and (job.quick or not self.quick)


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


def amount(value: float, unit: str) -> str:
    """Say seconds, or an amount of something else."""
    return f"{value:.3g} {unit}" if unit else f"{value:.3g} s" if abs(value) >= 1 else f"{value * 1e3:.3g} ms"


def row(result: Result) -> str:
    """One line of the table: amounts are medians, the spread is that of the ratios; a missed bound is marked."""
    job, unit = result.job, result.job.unit
    ours, peer = (amount(value, unit) for value in result.middles)

    def said(ratio: float) -> str:
        return f"{amount(ratio, unit)} more" if job.beyond else f"{ratio:.2f}"

    bound = amount(job.bound, unit) if job.beyond else f"{job.bound:g}"
    ratios = said(result.ratio), f"{said(result.ratios[0])} to {said(result.ratios[-1])}"
    return line(job.name, ours, peer, job.peer_name, *ratios, bound + MISSED * result.missed)


def cell_row(cell: Cell) -> str:
    """One line of a grid's table."""
    times, bound = (amount(cell.ours, ""), amount(cell.peer, "")), f"{cell.bound:g}"
    ratios = f"{cell.ratio:.2f}", f"{cell.low:.2f} to {cell.high:.2f}"
    return line(cell.name, *times, cell.peer_name, *ratios, bound + MISSED * (cell.ratio > cell.bound))


def line(name: str, *parts: str) -> str:
    """A line of the table."""
    return f"| {' | '.join((name.replace('|', BAR), *parts))} |"


def device_file() -> str:
    """The name of the device's file, without a suffix."""
    return re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")


def write(name: str, rows: Iterable[str], said: str = "") -> Path:
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


def measured(name: str, jobs: Iterable[Job]) -> list[str]:
    """Measure jobs, print the line of each as it is done, and return the lines."""
    print(f"## {name}\n\n{circumstances()}\n\n{HEADER}", end="")
    rows = []
    for job in jobs:
        with limited(1) if job.where else contextlib.nullcontext():
            rows.append(row(measure(job, time.process_time if job.where else time.perf_counter)))
        print(rows[-1], flush=True)
    print()
    return rows


def run_grid(kind: str, jobs: Iterable[Job | Later], choice: Choice) -> bool:
    """Measure the chosen cells of a grid, print what all say as a whole, and write it; return whether none ended it."""
    path = RESULTS / f"{device_file()}-{kind}{choice.aside}.json"
    kept = {} if choice.quick else read(path)
    cells: dict[str, Cell] = {}
    missing, ended, said = 0, False, ""
    print(f"## {kind}-grid{choice.aside}\n\n{circumstances()}\n\n{HEADER}", end="")
    clock = time.process_time if choice.threads == 1 else time.perf_counter
    try:
        with limited(choice.threads):
            for job in jobs:
                if time.monotonic() > choice.end:
                    raise TimeoutError
                if job.name in cells:
                    raise ValueError(f"two cells of the grid are named {job.name}")
                if choice.takes(job, kept):
                    cells[job.name] = Cell.of(measure(job.make() if isinstance(job, Later) else job, clock))
                    print(cell_row(cells[job.name]), flush=True)
                elif job.name in kept:
                    cells[job.name] = kept[job.name]
                else:
                    missing += 1
    except (KeyboardInterrupt, TimeoutError) as error:
        ended, said = isinstance(error, KeyboardInterrupt), " Ended before its last cell."
        cells |= {name: cell for name, cell in kept.items() if name not in cells}
    if cells:
        said = summary(list(cells.values()), 0 if choice.quick else missing) + said
        print(f"\n{said}\n")
        if not choice.quick:
            print(f"written to {write_grid(kind, path, list(cells.values()), said, choice.threads)}\n")
    return not ended


def write_grid(kind: str, path: Path, cells: list[Cell], said: str, threads: int = 1) -> Path:
    """Write the cells of a grid to its file, its picture, and its section of the device's file."""
    RESULTS.mkdir(exist_ok=True)
    save(path, cells)
    way = "CPU time, one thread" if threads == 1 else f"{threads} threads"
    draw(f"{kind}: {way}", cells, picture := path.with_suffix(".png"))
    loads = sorted(cell.load for cell in cells)
    load = f"Load of the machine {loads[0]} to {loads[-1]}. "
    name = f"{kind}-grid{Choice(threads=threads).aside}"
    return write(name, map(cell_row, cells), f"{said}\n\n![ratio over size]({picture.name})\n\n{load}")


def grids(name: str, module: ModuleType) -> dict[str, Callable[[], Iterable[Job | Later]]]:
    """The grids of a benchmark by name: `grid()`, or several, each with a summary and a picture: `grid_forest()`, …"""
    found = {key.removeprefix("grid").replace("_", "-"): make for key, make in vars(module).items() if is_grid(key)}
    return {f"{name}{key}": make for key, make in found.items()}


def is_grid(name: str) -> bool:
    """Whether a function of that name yields a grid."""
    return name == "grid" or name.startswith("grid_")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all without a name")
    parser.add_argument("--quick", action="store_true", help="of each grid some cells; nothing is written")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no cell of a grid is begun")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells of grids with such a name: 'Ridge*'")
    parser.add_argument("--rest", action="store_true", help="cells of grids that were not measured yet")
    parser.add_argument(
        "--threads", type=int, default=1, help="of cells of grids, which are kept apart if there are more"
    )
    options = parser.parse_args(arguments)
    chosen = options.names
    choice = Choice(options.quick, options.only, options.rest, time.monotonic() + 60 * options.minutes, options.threads)
    unknown = sorted({name.split("-")[0] for name in chosen} - set(names()))
    if unknown:
        print(f"error: no benchmark named {', '.join(unknown)}. Available: {', '.join(names())}.", file=sys.stderr)
        return 1
    for wanted in chosen or names():
        name, _, part = wanted.partition("-")
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "report"):
            if not choice.quick:
                print(f"{(text := module.report())}\n\nwritten to {keep(name, text)}\n")
            continue
        if not choice.quick and not part:
            print(f"written to {write(name, measured(name, module.jobs()))}\n")
        chosen_grids = {
            kind: grid for kind, grid in grids(name, module).items() if part in ("", "grid") or wanted == f"{kind}-grid"
        }
        if part and not chosen_grids:
            kinds = ", ".join(f"{kind}-grid" for kind in grids(name, module)) or "none"
            print(f"error: {name} has no {wanted}. Its grids: {kinds}.", file=sys.stderr)
            return 1
        for kind, grid in chosen_grids.items():
            if not run_grid(kind, grid(), choice):
                return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
