"""What is amiss in the built site: dead links, files from elsewhere, raw formulas, public names without entry."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["Page", "dead_links", "faults", "public_names", "report"]

CHECKOUT = Path(__file__).resolve().parents[1]
RAW = re.compile(r"\$\$|\\[(\[]|\\begin\{|```|(?<![\w$])\$[^$\s](?:[^$\n]*[^$\s])?\$(?!\w)|^::: ", re.M)
REFERENCE = re.compile(r"\]\[\w+\.[\w.]+\]")  # of the API, to a name that has no entry


class Page(HTMLParser):
    """The anchors, links, loaded files, formulas and prose of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.formulas: list[str] = []
        self.prose: list[str] = []
        self._open: list[str] = []  # elements whose text is a formula, or is no prose
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values and (name == "id" or tag == "a")}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "source", "iframe") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and "stylesheet" in values.get("rel", ""):
            self.loaded.append(values["href"])
        if self._open:
            self._open += [tag] if tag == self._open[0] else []
        elif "arithmatex" in values.get("class", "").split():
            self._open = [tag]
            self.formulas.append("")
        elif tag in ("code", "pre", "script", "style", "svg"):
            self._open = [tag]

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.prose.append(data)
        elif self._open[0] in ("span", "div"):
            self.formulas[-1] += data


def read(site: Path) -> dict[Path, Page]:
    """Return the pages of a built site by their files."""
    return {file: Page(file.read_text(encoding="utf8")) for file in sorted(site.rglob("*.html"))}


def dead_links(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Name the links that lead to no file or anchor of the site, and the files that are loaded from elsewhere."""
    for file, page in pages.items():
        if file.name == "404.html":  # shown for any address: its links begin at the root of a server
            continue
        where = file.relative_to(site)
        yield from (f"{where} loads {link}" for link in page.loaded if urlsplit(link).netloc)
        yield from (f"{where}: {found[0]} names no entry" for found in REFERENCE.finditer("".join(page.prose)))
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{where}: {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where}: {link} leads to a page without that anchor"


def raw_formulas(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Name formulas that stand in the text as they were typed."""
    for file, page in pages.items():
        for found in RAW.finditer("".join(page.prose)):
            yield f"{file.relative_to(site)}: {found[0]!r} stands in the text as it was typed"


def refused_formulas(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Name formulas that MathJax's own parser refuses, in Node.js."""
    where: dict[str, Path] = {}
    for file, page in pages.items():
        for formula in page.formulas:
            where.setdefault(formula.strip(), file.relative_to(site))
    script = Path(__file__).with_name("formulas.js")
    said = subprocess.run(
        ["node", str(script)], input=json.dumps(list(where)), capture_output=True, text=True, check=True
    ).stdout
    for formula, reason in json.loads(said).items():
        yield f"{where[formula]}: {formula} is refused: {reason}"


def public_names(package: Path) -> Iterator[str]:
    """Yield module.name for each name of each module's `__all__`, read from the sources."""
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for statement in ast.parse(file.read_text(encoding="utf8")).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) == "__all__":
                yield from (f"{module}.{name}" for name in ast.literal_eval(statement.value))


def names_without_entry(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Name public names that no page of the API has."""
    entries = {anchor for file, page in pages.items() if "api" in file.parts for anchor in page.anchors}
    yield from (f"{name} has no entry in the API" for name in public_names(CHECKOUT / "zoo") if name not in entries)


def faults(site: Path) -> dict[str, list[str]]:
    """Return what is amiss, by kind."""
    pages = read(site)
    return {
        "dead links": list(dead_links(site, pages)),
        "formulas that are not rendered": [*raw_formulas(site, pages), *refused_formulas(site, pages)],
        "public names without an entry": list(names_without_entry(site, pages)),
    }


def report(site: Path) -> int:
    """Print what is amiss; return 1 if anything is."""
    if not site.is_dir():
        print("there is no site yet: make docs")
        return 1
    found = faults(site)
    for kind, lines in found.items():
        print(f"{kind}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    return int(any(found.values()))
