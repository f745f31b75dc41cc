"""Benchmarks on the site: of what lies in benchmarks/results a page shows what it asks for in a comment.

`<!-- benchmarks: kmeans -->` becomes the ratios of that benchmark beside the peers, with its pictures and tables;
`<!-- benchmarks -->` an overview of all and every table. Where nothing was measured, nothing is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

__all__ = ["PICTURES", "Section", "Speed", "everything", "makeExtension", "of_family", "ratios", "sections"]

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
PICTURES = "assets/benchmarks"  # in docs/, where the pictures are copied to
MARK = re.compile(r"^<!-- benchmarks(?:: ([\w, -]+))? -->$")


class Section(NamedTuple):
    """What one benchmark wrote on one machine."""

    device: str
    name: str
    text: str


def sections(folder: Path) -> list[Section]:
    """Read the results of all machines, `## NAME` by `## NAME`."""
    found = []
    for file in sorted(folder.glob("*.md")):
        text = file.read_text(encoding="utf8")
        device = text.partition("\n")[0].removeprefix("# ")
        parts = re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        found += [Section(device, name, _placed(body.strip())) for name, body in parts]
    return found


def _placed(text: str) -> str:
    """Let pictures be found from a page at the top of docs/."""
    return re.sub(r"(!\[[^\]]*\]\()([^)/]+\.png\))", rf"\g<1>{PICTURES}/\2", text)


def ratios(text: str) -> list[float]:
    """Return the ratios of a table of jobs, ours over the peer's: its fifth column.

    >>> ratios("| job | ours | peer | whose | ratio |\\n|---|---|---|---|---|\\n| a | 1 s | 2 s | torch | 0.50 |")
    [0.5]
    """
    cells = (line.strip("| ").split(" | ") for line in text.splitlines())
    return [float(row[4]) for row in cells if len(row) > 4 and re.fullmatch(r"\d+\.\d+", row[4])]


def mean(values: list[float]) -> float:
    """Return the geometric mean; what was rounded to 0.00 counts as half a hundredth."""
    return math.exp(sum(math.log(max(value, 0.005)) for value in values) / len(values))


def _summary(name: str, found: list[float]) -> str:
    least, most = min(found), max(found)
    return f"{name}: {len(found)} job{'s' * (len(found) > 1)}, ratio {mean(found):.2f} ({least:.2f} to {most:.2f})"


def of_family(names: list[str], results: list[Section]) -> Iterator[str]:
    """Yield the lines of a family's page: the pictures, and each table folded under its ratios."""
    for device, name, text in results:
        found = ratios(text)
        if re.sub(r"-grid(-\d+-threads)?$", "", name) not in names or not found:
            continue
        yield from re.findall(r"^!\[.*$", text, re.M)
        rest = re.sub(r"^!\[.*\n", "", text, flags=re.M)
        yield from ["", f'??? note results "Beside the peers on {device}: {_summary(name, found)}"', ""]
        yield from (f"    {line}" for line in rest.splitlines())
        yield ""


def everything(results: list[Section]) -> Iterator[str]:
    """Yield the lines of the page of all benchmarks: ratios of each, then what each wrote."""
    for device in dict.fromkeys(section.device for section in results):
        here = [section for section in results if section.device == device]
        yield from [
            f"## {device}",
            "",
            "| benchmark | jobs | ratio, geometric mean | least | most |",
            "|---|---|---|---|---|",
        ]
        for _, name, text in here:
            if found := ratios(text):
                cells = (
                    f"[{name}](#{name.lower()})",
                    len(found),
                    *(f"{v:.2f}" for v in (mean(found), min(found), max(found))),
                )
                yield f"| {' | '.join(map(str, cells))} |"
        yield ""
        for _, name, text in here:
            yield from [f"### {name}", "", '<div class="results" markdown>', "", *text.splitlines(), "", "</div>", ""]


class _Processor(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        shown: list[str] = []
        for line in lines:
            if not (mark := MARK.match(line)):
                shown.append(line)
            elif mark[1] is None:
                shown += everything(sections(RESULTS))
            else:
                shown += of_family(mark[1].split(", "), sections(RESULTS))
        return shown


class Speed(Extension):
    """The Markdown extension, before code blocks and tables are looked for."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Processor(md), "zoo_speed", 40)


def makeExtension(**options: Any) -> Speed:
    """What Markdown calls."""
    return Speed(**options)
