"""What the commands print: rich tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

__all__ = ["print_data", "print_models"]


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
