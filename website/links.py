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
PAGES = {"README.md": "README.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


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
    >>> place_on_site("../CHANGELOG.md"), place_on_site("docs/gpt.md#training"), place_on_site("kmeans.md")
    ('changelog.md', 'gpt.md#training', 'kmeans.md')
    """
    path, mark, anchor = link.partition("#")
    if path.startswith("docs/"):  # on a page that stands at the top of the repository
        return path.removeprefix("docs/") + mark + anchor
    climbs = len(re.match(r"(?:\.\./)*", path)[0]) // 3
    inside, up = path[3 * climbs :].rstrip("/"), "../" * (climbs - 1)
    if not climbs or (DOCS / inside).exists():
        return link
    if inside.startswith("zoo"):
        module = inside.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        page = page_of_module(module)
        return f"{up}{page}#{module}" if page else link
    page = "benchmarks.md" if inside.startswith("benchmarks") else PAGES.get(inside)
    return f"{up}{page}{mark}{anchor}" if page else link


class _Processor(Treeprocessor):
    def run(self, root: Element) -> None:
        for element in root.iter("a"):
            if re.match(r"\.\./|docs/", element.get("href", "")):
                element.set("href", place_on_site(element.get("href", "")))


class Links(Extension):
    """The Markdown extension, after the inline patterns and before links between pages are settled."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_Processor(md), "zoo_links", 15)


def makeExtension(**options: Any) -> Links:
    """What Markdown calls."""
    return Links(**options)
