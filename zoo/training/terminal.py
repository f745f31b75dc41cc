"""Where the commands print, how they say what was typed to call them, and how a duration is written."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.text import Text

__all__ = ["called", "duration", "make_console", "print_folded", "shown_path", "text_table"]

SCRIPTS = ("train.py", "evaluate.py", "predict.py", "export.py")


def make_console(file: IO[str] | None = None, *, unfolded: bool = False) -> Console:
    """Return a console on standard output (or `file`), as wide as the terminal or as `COLUMNS` says.

    A dumb terminal and a pipe get plain text, 80 columns of it.

    Args:
        file: another stream.
        unfolded: whether lines are as long as they come where nobody said how wide a line is, as in a pipe.

    Example:
        >>> import io
        >>> make_console(io.StringIO()).is_terminal
        False
    """
    console = Console(file=file, highlight=False, soft_wrap=False)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        console.size = (int(columns), console.height)  # type: ignore[assignment]
    elif not console.is_terminal:
        console.size = (10_000 if unfolded else 80, console.height)  # type: ignore[assignment]
    return console


def print_folded(console: Console, text: str | Text, begin: str = "", *, whole: bool = False) -> None:
    """Print a text folded between words beside what stands at its beginning; what a user copies is left `whole`.

    Example:
        >>> print_folded(Console(width=20), "one two three four", "say  ")
        say  one two three
             four
    """
    text = Text(text) if isinstance(text, str) else text
    lines = [text] if whole else text.wrap(console, max(console.width - len(begin), 10))
    for number, line in enumerate(lines):
        line.rstrip()
        console.print(Text.assemble((" " * len(begin) if number else begin, "dim"), line), soft_wrap=True)


def called(command: str) -> str:
    """Return what to type for a command of the zoo, in the way in which this one was called.

    Args:
        command: `train`, `evaluate`, `predict`, `export` or `help`.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.object(sys, "argv", ["bin/zoo-train"]):
        ...     called("evaluate"), called("help")
        ('zoo-evaluate', 'zoo-train --help')
    """
    program = Path(sys.argv[0])
    if program.name == "__main__.py" and program.parent.name == "zoo":
        return f"python -m zoo {command}"
    if program.stem == "zoo":
        return f"zoo {command}"
    if command == "help":
        return f"{called('train')} --help"
    if program.name in SCRIPTS:
        return f"python {shlex.quote(str(program.with_name(f'{command}.py')))}"
    return f"zoo-{command}"


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as lines of text, a column for each key of the first.

    >>> print(text_table([{"depth": 2, "error": 0.25}, {"depth": 10, "error": 0.125}]))
    depth  error
    2      0.25
    10     0.125
    """
    lines = [tuple(rows[0])] if rows else []
    lines += [tuple(_cell(row.get(key)) for key in rows[0]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def shown_path(path: str | Path) -> str:
    """Return a path as a user of this folder would type it."""
    path = Path(path)
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds.

    >>> duration(7), duration(3723.4)
    ('0:07', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
