"""The lists of what there is: `list=models`, `list=data`, and the choices of each group of the configs."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo.training.catalogue import Choice, data_choices, group_choices, model_choices
from zoo.training.terminal import make_console, print_folded

__all__ = ["LISTS", "print_list"]

LISTS: dict[str, tuple[Callable[[], list[Choice]], tuple[str, ...]]] = {
    "models": (model_choices, ("model", "family", "task", "accepts", "summary")),
    "data": (data_choices, ("data", "kind", "target", "summary")),
    "optimizers": (lambda: group_choices("optimizer"), ("optimizer", "summary")),
    "schedulers": (lambda: group_choices("scheduler"), ("scheduler", "summary")),
    "regularization": (lambda: group_choices("regularization"), ("regularization", "summary")),
    "experiments": (lambda: group_choices("experiment"), ("experiment", "summary")),
}
SUMMARY = 40  # columns that a summary needs beside the others


def print_list(what: str, console: Console | None = None) -> None:
    """Print what there is of a kind: a line each in a pipe and on a wide terminal, else folded under the name.

    Names are whole at any width.
    """
    choices, header = LISTS[what][0](), LISTS[what][1]
    console = console or make_console(unfolded=True)
    rows = [(choice.name, *choice.facts, choice.summary) for choice in choices]
    widths = [max(map(len, column)) for column in list(zip(header, *rows, strict=True))[:-1]]
    if console.width >= sum(widths) + 2 * len(widths) + SUMMARY:
        table = Table(*header, box=None, header_style="bold", pad_edge=False)
        for column in table.columns[:-1]:
            column.no_wrap = True
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    for name, *facts, summary in rows:
        console.print(Text(name, "bold"), soft_wrap=True)
        for line in (*([" · ".join(dict.fromkeys(facts))] if facts else []), summary):
            print_folded(console, line, "    ")
