"""What a grid of jobs says as a whole: its cells, kept in a file, their geometric mean and worst, and a picture."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import Result

__all__ = ["Cell", "draw", "name_of", "read", "save", "summary"]

BETWEEN = {"rows": "", "features": " × "}  # what stands before a number of the place; else its name


@dataclass(frozen=True)
class Cell:
    """What is kept of a job that was measured: amounts are medians, `low` and `high` the ends of its ratios.

    `load` is the machine's over the minute before.
    """

    name: str
    where: dict[str, Any]
    ours: float
    peer: float
    peer_name: str
    ratio: float
    low: float
    high: float
    bound: float
    load: float

    @classmethod
    def of(cls, result: Result) -> Cell:
        """Keep what was just measured."""
        job, ratios, load = result.job, result.ratios, round(os.getloadavg()[0], 1)
        amounts = (float(f"{value:.4g}") for value in (*result.middles, result.ratio, ratios[0], ratios[-1]))
        ours, peer, ratio, low, high = amounts
        return cls(job.name, job.where, ours, peer, job.peer_name, ratio, low, high, job.bound, load)


def read(path: Path) -> dict[str, Cell]:
    """The cells of a file by name, of none if there is no such file."""
    return {cell["name"]: Cell(**cell) for cell in json.loads(path.read_text())} if path.exists() else {}


def save(path: Path, cells: Sequence[Cell]) -> None:
    """Write cells, each on a line of its own."""
    path.write_text("[\n" + ",\n".join(json.dumps(asdict(cell), ensure_ascii=False) for cell in cells) + "\n]\n")


def name_of(**where: object) -> str:
    """Return the name of a cell.

    >>> name_of(rows=1_000, features=32, K=8, dtype="float32")
    '1,000 × 32, K = 8, float32'
    >>> name_of(parameters=1_000, tensors=10, dtype="float32")
    'parameters = 1,000, tensors = 10, float32'
    """
    parts = ""
    for key, value in where.items():
        said = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        parts += BETWEEN[key] + said if key in BETWEEN else f", {said}" if key == "dtype" else f", {key} = {said}"
    return parts.removeprefix(", ")


def summary(cells: Sequence[Cell], missing: int = 0) -> str:
    """Say the geometric mean of the ratios, and the worst, of all cells and of those with a thousand rows or more."""
    mean = math.exp(statistics.fmean(math.log(cell.ratio) for cell in cells))
    worst = max(cells, key=lambda cell: cell.ratio)
    large = [cell for cell in cells if cell.where.get("rows", 0) >= 1000]
    text = f"{len(cells)} cells: geometric mean {mean:.2f}, worst {worst.ratio:.2f} ({worst.name})"
    if large and worst not in large:
        worst = max(large, key=lambda cell: cell.ratio)
        text += f"; from 1,000 rows on worst {worst.ratio:.2f} ({worst.name})"
    return text + (f"; {missing} more not measured." if missing else ".")


def draw(title: str, cells: Sequence[Cell], path: Path) -> None:
    """Draw the ratio of each cell over its size, a colour for each second size, and write it to `path`.

    The two are the first of a cell's place, such as rows and features.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    along, apart = list(cells[0].where)[:2]
    widths = sorted({cell.where[apart] for cell in cells})
    for number, width in enumerate(widths):
        chosen = [cell for cell in cells if cell.where[apart] == width]
        axes.scatter(
            [cell.where[along] for cell in chosen],
            [cell.ratio for cell in chosen],
            color=f"C{number}",
            marker="osD^vP*X"[number % 8],
            label=f"{width:,}" if isinstance(width, int) else width,
        )
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=along, ylabel="ours / peer", title=title)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(title=apart, fontsize="small", ncols=2)
    figure.savefig(path, dpi=100)
