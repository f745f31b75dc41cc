"""Run the examples of docs/examples/ and write each as a page: text, code, what that printed and the pictures it drew.

An example is a Python script in the percent format, which editors open as a notebook: `# %%` begins a cell of code,
`# %% [markdown]` one of text, and `# %% language="bash"` one of commands. As in a notebook, the value of a cell's last
line is shown.

    python -m website.examples docs/examples/first_run.py PAGE.md
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["cells", "run"]

CHECKOUT = Path(__file__).resolve().parents[1]


def cells(script: str) -> Iterator[tuple[str, str]]:
    """Yield (markdown, bash or python, text) of each cell.

    >>> list(cells("# %% [markdown]\\n# # Title\\n# %%\\n1 + 1"))
    [('markdown', '# Title'), ('python', '1 + 1')]
    """
    for marker, text in re.findall(r"^# %%(.*)\n((?:(?!# %%).*(?:\n|\Z))*)", script, re.M):
        kind = "markdown" if "[markdown]" in marker else "bash" if 'language="bash"' in marker else "python"
        if kind != "python":
            text = re.sub(r"^# ?", "", text, flags=re.M)
        if text.strip():
            yield kind, text.strip("\n")


def run(script: Path, page: Path) -> None:
    """Run an example in a folder of its own, and write its page with the pictures beside it; its errors go through."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    namespace: dict[str, Any] = {"__name__": "__main__"}
    page.parent.mkdir(parents=True, exist_ok=True)
    parts, pictures = [], 0
    source, page, before = script.read_text(encoding="utf8"), page.resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for kind, text in cells(source):
                if kind == "markdown":
                    parts.append(text)
                    continue
                parts.append(f"```{kind}\n{text}\n```")
                said, figures = (_run_commands(text), []) if kind == "bash" else _run_code(text, namespace, script.name)
                if said:
                    parts.append(f'<div class="output" markdown>\n\n```text\n{said}\n```\n\n</div>')
                for figure in [*figures, *map(plt.figure, plt.get_fignums())]:
                    pictures += 1
                    name = f"{page.stem}-{pictures}.png"
                    figure.savefig(page.parent / name, bbox_inches="tight", dpi=110)
                    parts.append(f"![What the cell above draws]({name})")
                plt.close("all")
        finally:
            os.chdir(before)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf8")


def _run_code(text: str, namespace: dict[str, Any], name: str) -> tuple[str, list[Any]]:
    """What a cell prints with the value of its last line, or the figure that this is."""
    from matplotlib.figure import Figure

    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    out, figures = io.StringIO(), []
    with contextlib.redirect_stdout(out):
        exec(compile(tree, name, "exec"), namespace)
        value = None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if isinstance(value, Figure):
            figures.append(value)
        elif value is not None:
            print(repr(value))
    return out.getvalue().rstrip(), figures


def _run_commands(text: str) -> str:
    """What commands print; the programs of this Python and the modules of this checkout come first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "110", "NO_COLOR": "1"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, env=variables)
    if done.returncode:
        raise RuntimeError(f"{text}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n")


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
