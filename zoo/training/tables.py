"""What the commands print: rich tables."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["print_data", "print_metrics", "print_models"]


def print_models() -> None:
    """Print every model with its family, task, the data that it accepts and its summary."""
    from zoo.registry import list_models, model_entry

    table = Table("model", "family", "task", "accepts", "summary", box=None, header_style="bold", pad_edge=False)
    for name in list_models():
        entry = model_entry(name)
        accepts = ", ".join(kind if target is None else f"{kind}/{target}" for kind, target in entry.accepts)
        table.add_row(name, entry.family, ", ".join(entry.task), accepts, entry.summary)
    Console().print(table)


def print_data() -> None:
    """Print all data with kind, target and summary."""
    from zoo.data.registry import data_entries

    table = Table("data", "kind", "target", "summary", box=None, header_style="bold", pad_edge=False)
    for name, entry in sorted(data_entries().items()):
        table.add_row(name, entry.kind, entry.target or "none", entry.summary)
    Console().print(table)


def print_metrics(
    model: str, data: str, metrics: dict[str, float], run_dir: Path, of: Mapping[str, str] | None = None
) -> None:
    """Print the metrics, each with the checkpoint or epoch that it is `of`, the run folder and the next commands."""
    table = Table("metric", "value", *(["of"] if of else []), header_style="bold")
    for name, value in sorted(metrics.items()):
        table.add_row(name, f"{value:.6g}", *([of.get(name, "")] if of else []))
    console = Console()
    console.print(f"[bold]{model}[/bold] on [bold]{data}[/bold]", highlight=False)
    console.print(table)
    folder = Path(run_dir)
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    command = "zoo-evaluate" if Path(sys.argv[0]).name == "zoo-train" else "python evaluate.py"
    console.print(f"run folder   {folder}", soft_wrap=True, highlight=False)
    console.print(f"evaluate     {command} run={shlex.quote(str(folder))}", soft_wrap=True, highlight=False)
    console.print("look         tensorboard --logdir runs", soft_wrap=True, highlight=False)
