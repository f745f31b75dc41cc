"""The site: all pages are in its navigation, all public names in its API; its checks work, its examples run."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import CHECKOUT

from website import check, examples

DOCS = CHECKOUT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))


class Loader(yaml.SafeLoader):
    """mkdocs.yml names functions of its Markdown extensions, which are left alone here."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
CONFIG: dict[str, Any] = yaml.load((CHECKOUT / "mkdocs.yml").read_text(encoding="utf8"), Loader)


def pages_of(nav: Any) -> Iterator[str]:
    for value in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(value, str):
            yield value
        else:
            yield from pages_of(value)


def test_every_page_is_in_the_navigation_once() -> None:
    made = {example.with_suffix(".md") for example in EXAMPLES}
    there = {page.relative_to(DOCS).as_posix() for page in {*DOCS.rglob("*.md"), *made}}
    shown = list(pages_of(CONFIG["nav"]))
    assert sorted(shown) == sorted(there), "give each page of docs/ one line of nav in mkdocs.yml"


def test_every_public_name_has_a_page_of_the_api() -> None:
    links = pytest.importorskip("website.links", reason="Markdown comes with tensorboard")
    names = list(check.public_names(CHECKOUT / "zoo"))
    assert "zoo.layers.recurrent.lstm.LSTM" in names
    assert "zoo.fit" in names
    modules = {name.rpartition(".")[0] for name in names}
    without = sorted(module for module in modules if links.page_of_module(module) is None)
    assert not without, "name them in docs/api: ::: MODULE"


@pytest.mark.parametrize("name", ["links", "docstrings", "examples", "speed"])
def test_examples_in_docstrings(name: str) -> None:
    pytest.importorskip({"links": "markdown", "speed": "markdown", "docstrings": "griffe"}.get(name, "doctest"))
    failed, tried = doctest.testmod(importlib.import_module(f"website.{name}"))
    assert tried
    assert not failed


def test_the_checks_of_the_site_find_what_is_amiss(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">T</h1><a href="sub/#there">a</a><a href="sub/#missing">b</a><a href="gone/">c</a>'
        '<script src="https://elsewhere.example/x.js"></script><p>$$x^2$$ and <code>$$</code> cost $5, \\(y\\)</p>'
        '<span class="arithmatex">\\(z\\)</span><p>[<code>x</code>][zoo.gone.x] x[i][j]</p>',
        encoding="utf8",
    )
    (tmp_path / "sub" / "index.html").write_text('<i id="there"></i><a href="../#top">up</a>', encoding="utf8")
    pages = check.read(tmp_path)
    assert sorted(check.dead_links(tmp_path, pages)) == [
        "index.html loads https://elsewhere.example/x.js",
        "index.html: ][zoo.gone.x] names no entry",
        "index.html: gone/ leads nowhere",
        "index.html: sub/#missing leads to a page without that anchor",
    ]
    raw = list(check.raw_formulas(tmp_path, pages))
    assert [re.search(r"'(.*)'", line)[1] for line in raw] == ["$$", "$$", "\\\\("]  # type: ignore[index]
    assert pages[tmp_path / "index.html"].formulas == ["\\(z\\)"]


def test_pages_show_the_benchmarks_that_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = pytest.importorskip("markdown", reason="Markdown comes with tensorboard")
    pytest.importorskip("pymdownx", reason="the site's extensions come with the extra `docs`")
    from website import speed

    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    page = "# Page\n\n<!-- benchmarks: kmeans -->\n\nend\n"

    def shown(page: str) -> str:
        return markdown.Markdown(extensions=["tables", "pymdownx.details", speed.Speed()]).convert(page)

    assert shown(page) == "<h1>Page</h1>\n<p>end</p>"
    head = "| job | ours | peer | whose | ratio (median) | spread | bound |\n|---|---|---|---|---|---|---|\n"
    (tmp_path / "cpu.md").write_text(
        f"# CPU\n\n## kmeans\n\n{head}| small | 1 s | 2 s | torch | 0.50 | 0.4 to 0.6 | 1 |\n\n"
        f"## kmeans-grid\n\n![ratio over size](cpu-kmeans.png)\n\n{head}"
        "| large | 2 s | 1 s | torch | 2.00 | 2 to 2 | 1 |\n\n"
        f"## kmeans-grid-2-threads\n\n{head}| both | 3 s | 1 s | torch | 3.00 | 3 to 3 | 1 |\n\n"
        f"## kmeans-other-grid\n\n{head}| other | 4 s | 1 s | torch | 4.00 | 4 to 4 | 1 |\n\n"
        "## scaling\n\n| what | over |\n|---|---|\n| kmeans | rows |\n"
    )
    found = shown(page)
    assert '<img alt="ratio over size" src="assets/benchmarks/cpu-kmeans.png"' in found
    assert "on CPU: kmeans: 1 job, ratio 0.50 (0.50 to 0.50)" in found
    assert "on CPU: kmeans-grid: 1 job, ratio 2.00 (2.00 to 2.00)" in found
    assert "<td>large</td>" in found
    assert "<td>both</td>" in found
    assert "<td>other</td>" not in found
    assert "<td>other</td>" in shown("<!-- benchmarks: kmeans-other -->\n")
    assert "scaling" not in found
    everything = shown("<!-- benchmarks -->\n")
    assert everything.count("<h3") == 5
    assert '<td><a href="#kmeans-grid">kmeans-grid</a></td>' in everything


def test_pages_show_each_benchmark_that_is_there_and_each_grid() -> None:
    pages = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    lines = re.findall(r"^<!-- benchmarks: ([\w, -]+) -->$", pages, re.M)
    asked = {name for line in lines for name in line.split(", ")}
    folder = CHECKOUT / "benchmarks"
    assert not [name for name in asked if not (folder / f"{name.partition('-')[0]}.py").is_file()]
    grids = {
        f"{path.stem}{part.replace('_', '-')}"
        for path in folder.glob("*.py")
        for part in re.findall(r"^def grid((?:_\w+)?)\(", path.read_text(), re.M)
    }
    assert "trees-forest" in grids
    assert not grids - asked


def needs_mathjax() -> None:
    if not (CHECKOUT / "website" / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip("MathJax is not there: `make docs` fetches it")


def test_formulas_that_mathjax_refuses_are_named(tmp_path: Path) -> None:
    needs_mathjax()
    formulas = [r"\(\frac{1}{2}\)", r"\(\frac{1}{2\)", r"\[\nosuch x\]"]
    text = "".join(f'<span class="arithmatex">{formula}</span>' for formula in formulas)
    (tmp_path / "index.html").write_text(text, encoding="utf8")
    assert list(check.refused_formulas(tmp_path, check.read(tmp_path))) == [
        r"index.html: \(\frac{1}{2\) is refused: Missing close brace",
        r"index.html: \[\nosuch x\] is refused: Undefined control sequence \nosuch",
    ]


def test_an_example_becomes_a_page(tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text('# %% [markdown]\n# # Small\n# %%\nx = 2\nprint("a")\nx + 1\n# %% language="bash"\n# echo said\n')
    examples.run(script, tmp_path / "small.md")
    page = (tmp_path / "small.md").read_text()
    assert page.startswith("# Small\n\n```python\n")
    assert "```text\na\n3\n```" in page
    assert "```bash\necho said\n```" in page
    assert "```text\nsaid\n```" in page
    script.write_text('# %% language="bash"\n# false | cat\n')
    with pytest.raises(RuntimeError, match="false"):
        examples.run(script, tmp_path / "small.md")


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_examples_run(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "website.examples", str(script), str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_site_builds_and_nothing_is_amiss() -> None:
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    needs_mathjax()
    done = subprocess.run([sys.executable, "-m", "website"], cwd=CHECKOUT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
