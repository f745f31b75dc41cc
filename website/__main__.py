"""`python -m website` builds the site, `serve` shows it at 127.0.0.1:8000, `check` names what is amiss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from website import check

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS, SITE = CHECKOUT / "docs", CHECKOUT / "site"
MODULES = CHECKOUT / "website" / "node_modules"


def prepare() -> None:
    """Lay what is not kept in the repository into docs/: MathJax, and the pages of the examples that changed."""
    target = DOCS / "assets" / "mathjax"
    if not (target / "tex-chtml.js").is_file():
        font = "mathjax-newcm-font"
        shutil.copytree(MODULES / "@mathjax" / font / "chtml", target / font / "chtml")
        shutil.copy(MODULES / "@mathjax" / font / "chtml.js", target / font)
        shutil.copytree(MODULES / "mathjax" / "input" / "tex", target / "input" / "tex")
        shutil.copy(MODULES / "mathjax" / "tex-chtml.js", target)
    sources = [
        *(CHECKOUT / "zoo").rglob("*.py"),
        *(CHECKOUT / "configs").rglob("*.yaml"),
        *(CHECKOUT / "website").glob("*.py"),
    ]
    changed = max(path.stat().st_mtime for path in sources)
    scripts = [script for script in sorted((DOCS / "examples").glob("*.py")) if not _is_newer(script, changed)]
    with ThreadPoolExecutor(max_workers=max(1, min(2, os.cpu_count() or 1))) as pool:
        list(pool.map(_run_example, scripts))


def _is_newer(script: Path, changed: float) -> bool:
    """Whether an example's page is newer than its script and than all that it may use."""
    page = script.with_suffix(".md")
    return page.is_file() and page.stat().st_mtime > max(changed, script.stat().st_mtime)


def _run_example(script: Path) -> None:
    begin = time.monotonic()
    command = [sys.executable, "-m", "website.examples", str(script), str(script.with_suffix(".md"))]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}  # two at a time
    done = subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script.name} failed:\n{done.stderr}")
    print(f"{script.name}: {time.monotonic() - begin:.0f} s", flush=True)


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
