"""`python -m website` builds the site, `serve` shows it at 127.0.0.1:8000, `check` names what is amiss."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from website import check, examples

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS, SITE = CHECKOUT / "docs", CHECKOUT / "site"
MODULES = CHECKOUT / "website" / "node_modules"


def prepare() -> None:
    """Lay what is not kept in the repository into docs/: MathJax, pictures of benchmarks, and examples that changed."""
    target = DOCS / "assets" / "mathjax"
    if not (target / "tex-chtml.js").is_file():
        font = "mathjax-newcm-font"
        shutil.copytree(MODULES / "@mathjax" / font / "chtml", target / font / "chtml")
        shutil.copy(MODULES / "@mathjax" / font / "chtml.js", target / font)
        shutil.copytree(MODULES / "mathjax" / "input" / "tex", target / "input" / "tex")
        shutil.copy(MODULES / "mathjax" / "tex-chtml.js", target)
    pictures = DOCS / "assets" / "benchmarks"
    shutil.rmtree(pictures, ignore_errors=True)
    shutil.copytree(CHECKOUT / "benchmarks" / "results", pictures, ignore=shutil.ignore_patterns("*.md", "*.json"))
    stale = [script for script in (DOCS / "examples").glob("*.py") if not _is_made(script)]
    stale.sort(key=lambda script: -script.stat().st_size)  # long ones first
    if stale:
        os.environ["OMP_NUM_THREADS"] = "1"  # two at a time
        examples.load_libraries()
        with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count() or 1), maxtasksperchild=1) as pool:
            for script, seconds in pool.imap_unordered(_make, stale):
                print(f"{script}: {seconds:.0f} s", flush=True)


@functools.cache
def _digest_of_sources() -> str:
    """A digest of all that an example may use: the zoo, its configs, how examples are made, and the libraries."""
    digest = hashlib.sha256()
    files = [Path(examples.__file__), *(CHECKOUT / "configs").rglob("*.yaml")]
    files += [file for file in (CHECKOUT / "zoo").rglob("*") if file.suffix in (".py", ".c", ".h", ".safetensors")]
    for file in sorted(files):
        digest.update(f"{file.relative_to(CHECKOUT)} {file.stat().st_size} ".encode() + file.read_bytes())
    for library in ("torch", "lightning", "scikit-learn", "matplotlib"):
        digest.update(f"{library} {metadata.version(library)} ".encode())
    return digest.hexdigest()


def _mark(script: Path) -> str:
    """What stands at the end of an example's page: of what it was made."""
    digest = hashlib.sha256(_digest_of_sources().encode() + script.read_bytes()).hexdigest()
    return f"<!-- made of {digest} -->"


def _is_made(script: Path) -> bool:
    page = script.with_suffix(".md")
    return page.is_file() and page.read_text(encoding="utf8").endswith(_mark(script) + "\n")


def _make(script: Path) -> tuple[str, float]:
    """Run an example and write its page, in a process of its own."""
    begin, page = time.monotonic(), script.with_suffix(".md")
    examples.run(script, page)
    with page.open("a", encoding="utf8") as file:
        file.write(f"\n{_mark(script)}\n")
    return script.name, time.monotonic() - begin


def main(arguments: list[str]) -> int:
    """Do what is asked, and return the exit code."""
    command = arguments[0] if arguments else "build"
    if command not in ("build", "serve", "check"):
        print(f"there is no {command!r}: build, serve or check")
        return 2
    if command == "check":
        return check.report(SITE)
    begin = time.monotonic()
    prepare()
    if command == "serve":
        return subprocess.run([sys.executable, "-m", "zensical", "serve"], cwd=CHECKOUT).returncode
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=CHECKOUT).returncode
    print(f"built in {time.monotonic() - begin:.0f} s")
    return built or check.report(SITE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
