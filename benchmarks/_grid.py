"""What a grid of jobs says as a whole: its geometric mean, its worst cell, and a picture of the ratio over the size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks import Result

__all__ = ["draw", "name_of", "summary"]

BETWEEN = {"rows": "", "features": " × "}  # what stands before a number of the place; else its name


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


def summary(results: Sequence[Result]) -> str:
    """Say the geometric mean of the ratios, and the worst, of all cells and of those with a thousand rows or more."""
    mean = math.exp(statistics.fmean(math.log(result.ratio) for result in results))
    worst = max(results, key=lambda result: result.ratio)
    large = [result for result in results if result.job.where.get("rows", 0) >= 1000]
    text = f"{len(results)} cells: geometric mean {mean:.2f}, worst {worst.ratio:.2f} ({worst.job.name})"
    if large and worst not in large:
        worst = max(large, key=lambda result: result.ratio)
        text += f"; from 1,000 rows on worst {worst.ratio:.2f} ({worst.job.name})"
    return text + "."


def draw(name: str, results: Sequence[Result], path: Path) -> None:
    """Draw the ratio of each cell over its size, a colour for each second size, and write it to `path`.

    The two are the first of a cell's place, such as rows and features.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    along, apart = list(results[0].job.where)[:2]
    widths = sorted({result.job.where[apart] for result in results})
    for number, width in enumerate(widths):
        cells = [result for result in results if result.job.where[apart] == width]
        axes.scatter(
            [result.job.where[along] for result in cells],
            [result.ratio for result in cells],
            color=f"C{number}",
            marker="osD^vP*X"[number % 8],
            label=f"{width:,}" if isinstance(width, int) else width,
        )
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=along, ylabel="ours / peer", title=f"{name}: CPU time, one thread")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(title=apart, fontsize="small", ncols=2)
    figure.savefig(path, dpi=100)
