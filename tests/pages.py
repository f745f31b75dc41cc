"""What README and docs show: code blocks, the lines of shell blocks, and inline code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from support import CHECKOUT

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("**/*.md"))]
# Pages that examples were made into are theirs: tests/test_site.py
PAGES = [page for page in PAGES if page.is_file() and not page.with_suffix(".py").is_file()]
SHELL = ("bash", "sh", "shell", "console")


def split_code(page: Path) -> tuple[list[tuple[str, str]], str]:
    """The code blocks of a page as (language, code), and the prose around them."""
    blocks: list[tuple[str, str]] = []
    prose, language, code = [], None, []
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            if language is None:
                language, code = line[3:].strip(), []
            else:
                blocks.append((language, "\n".join(code) + "\n"))
                language = None
        else:
            (prose if language is None else code).append(line)
    return blocks, "\n".join(prose)


def code_lines(page: Path) -> Iterator[str]:
    """The lines of shell blocks, and inline code, with continued lines joined."""
    blocks, prose = split_code(page)
    for language, code in blocks:
        if language in ("", "text", *SHELL):
            lines = code.replace("\\\n", " ").splitlines()
            yield from (line.strip().removeprefix("$ ") for line in lines)
    yield from re.findall(r"`([^`\n]+)`", prose)


def combinations(overrides: list[str]) -> Iterator[list[str]]:
    """The jobs of a sweep: one override of each comma-separated list."""
    choices = []
    for override in overrides:
        key, _, value = override.partition("=")
        parts = re.split(r",(?![^\[{(]*[\]})])", value)
        choices.append([f"{key}={part}" for part in parts])
    yield from (list(job) for job in itertools.product(*choices))


def ends_of_intervals(overrides: list[str]) -> list[str]:
    """The overrides with the ends of each interval that a sweep searches, in its place."""
    return [re.sub(r"(?:tag\(log, )?interval\(([^,]+), ([^)]+)\)+", r"\1,\2", override) for override in overrides]
