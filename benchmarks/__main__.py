"""Run benchmarks and write `benchmarks/results/<device>.md`: `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import benchmarks
from benchmarks import Result, device_name, measure

RESULTS = Path(__file__).parent / "results"
HEADER = "| job | ours | peer | whose | ratio (median) | spread | bound |\n|---|---|---|---|---|---|---|\n"


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


def seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def row(result: Result) -> str:
    """One line of the table: times are medians, the spread is that of the ratios."""
    job, middle = result.job, len(result.ours) // 2
    ours, peer = sorted(result.ours)[middle], sorted(result.peer)[middle]
    return (
        f"| {job.name} | {seconds(ours)} | {seconds(peer)} | {job.peer_name} | {result.ratio:.2f} "
        f"| {result.ratios[0]:.2f} to {result.ratios[-1]:.2f} | {job.bound:g} |"
    )


def write(name: str, rows: list[str]) -> Path:
    """Replace the section of one benchmark in the device's file, leaving the others as they are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-") + ".md")
    text = path.read_text() if path.exists() else f"# {device_name()}\n\nWritten by `python -m benchmarks`.\n"
    sections = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    sections[name] = HEADER + "\n".join(rows) + "\n\n"
    head = text.split("\n## ")[0].rstrip() + "\n\n"
    path.write_text(head + "".join(f"## {key}\n\n{sections[key]}" for key in sorted(sections)).rstrip() + "\n")
    return path


def main(chosen: list[str]) -> int:
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        print(f"error: no benchmark named {', '.join(unknown)}. Available: {', '.join(names())}.", file=sys.stderr)
        return 1
    for name in chosen or names():
        rows = []
        print(f"## {name}\n\n{HEADER}", end="")
        for job in importlib.import_module(f"benchmarks.{name}").jobs():
            rows.append(row(measure(job)))
            print(rows[-1], flush=True)
        print(f"\nwritten to {write(name, rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
