"""Run the examples of docs/examples/ and write each as a page: text, code, what that printed and the pictures it drew.

An example is a Python script in the percent format, which editors open as a notebook: `# %%` begins a cell of code,
`# %% [markdown]` one of text, and `# %% language="bash"` one of commands. As in a notebook, the value of a cell's last
line is shown. A command of the zoo runs in a fork of this process, which has loaded the libraries once for all.

    python -m website.examples docs/examples/first_run.py PAGE.md
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["cells", "load_libraries", "run"]

LIBRARIES = ("torch", "sklearn.datasets", "matplotlib.pyplot", "zoo.analysis", "zoo.training.main", "zoo.training.run")
COMMAND = re.compile(r"(?:(zoo-\w+)|(zoo)|python -m zoo)\s+([^|]*?)\s*(?:\|\s*(.*))?")


def load_libraries() -> None:
    """Import what every example needs, so that forks of this process have it."""
    for name in LIBRARIES:
        importlib.import_module(name)


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
    """What commands print, one after the other: those of the zoo in forks, what stands between them in a shell."""
    said: list[str] = []
    for ours, group in itertools.groupby(text.splitlines(), lambda line: bool(COMMAND.fullmatch(line))):
        lines = list(group)
        said += [_run_ours(line) for line in lines] if ours else [_run_shell("\n".join(lines))]
    return "\n".join(line.rstrip() for line in "".join(said).splitlines()).strip("\n")


def _run_shell(text: str, given: str = "") -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command, environment = ["bash", "-euo", "pipefail", "-c", text], {**os.environ, "PATH": path}
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{text}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _run_ours(line: str) -> str:
    """What a command of the zoo prints, through the pipe behind it."""
    program, group, arguments, pipe = COMMAND.fullmatch(line).groups()  # type: ignore[union-attr]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_in_child(program, shlex.split(arguments), modules_here=not (program or group)))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        said, noted = out.read(), err.read()
    if code:
        raise RuntimeError(f"{line}\nended with {code}:\n{said}{noted}")
    return _run_shell(pipe, said) if pipe else said


def _in_child(program: str | None, arguments: list[str], modules_here: bool) -> int:
    """Run a command as its program would; return its exit code."""
    from zoo.training import main

    os.environ.update(COLUMNS="110", NO_COLOR="1")
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.argv = [program or "zoo", *arguments]
    sys.path[:0] = [os.getcwd()] if modules_here else []  # as `python -m` does
    try:
        return int(getattr(main, program.removeprefix("zoo-") if program else "main")() or 0)
    except BaseException as error:
        traceback.print_exc()
        return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    load_libraries()
    run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
