"""Links of the docs that lead out of `docs/` in the repository lead to pages of the site."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

__all__ = ["Links", "makeExtension", "page_of_module", "place_on_site"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {  # what stands at the top of the repository
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "benchmarks": "benchmarks.md",
    "benchmarks/results": "benchmarks.md",
    **{
        f"benchmarks/results/{file.name}": "benchmarks.md"
        for file in (DOCS.parent / "benchmarks" / "results").glob("*.md")
    },
}


@functools.cache
def _api_pages() -> dict[str, str]:
    """The page, from docs/, of each module that has a `:::` line of its own."""
    return {
        module: page.relative_to(DOCS).as_posix()
        for page in sorted((DOCS / "api").rglob("*.md"))
        for module in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf8"), re.M)
    }


def page_of_module(module: str) -> str | None:
    """Return the page, from docs/, with the entry of a module: its own, or that of the package that it lies in.

    >>> page_of_module("zoo.layers.attention")
    'api/layers.md'
    """
    while module not in _api_pages() and module.count(".") > 1:
        module = module.rpartition(".")[0]
    return _api_pages().get(module)


def place_on_site(link: str) -> str:
    """Return the link from a page in `docs/` to what a link of the repository means.

    >>> place_on_site("../zoo/models/pca.py")
    'api/models/pca.md#zoo.models.pca'
    >>> place_on_site("../README.md#models"), place_on_site("docs/gpt.md#training"), place_on_site("kmeans.md")
    ('overview.md#models', 'gpt.md#training', 'kmeans.md')
    >>> place_on_site("docs/examples/own_data.py")
    'examples/own_data.md'
    """
    path, mark, anchor = link.partition("#")
    climbs = len(re.match(r"(?:\.\./)*", path)[0]) // 3  # type: ignore[index]
    inside, up = path[3 * climbs :].rstrip("/"), "../" * (climbs - 1)
    if not climbs and inside.startswith("docs/"):  # on a page that stands at the top of the repository
        return place_on_site(link.removeprefix("docs/"))
    if re.fullmatch(r"examples/\w+\.py", inside):
        return link.replace(".py", ".md")
    if inside in PAGES and not (climbs == 0 and (DOCS / inside).exists()):
        return f"{up}{PAGES[inside]}{mark}{anchor}"
    if climbs and inside.startswith("zoo"):
        module = inside.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        page = page_of_module(module)
        return f"{up}{page}#{module}" if page else link
    return link


class _Processor(Treeprocessor):
    def run(self, root: Element) -> None:
        for element in root.iter():
            for name in {"a": ("href",), "img": ("src",)}.get(element.tag, ()):
                if element.get(name):
                    element.set(name, place_on_site(element.get(name, "")))


class Links(Extension):
    """The Markdown extension, after the inline patterns and before links between pages are settled."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_Processor(md), "zoo_links", 15)


def makeExtension(**options: Any) -> Links:
    """What Markdown calls."""
    return Links(**options)
