"""What there is to choose from, read from the sources and the configs, without an import, so that a list is quick."""

from __future__ import annotations

import ast
import builtins
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.checks import Range
from zoo.registry import _MODULES, list_models, model_entry
from zoo.tasks import task_names

__all__ = ["Choice", "config_dir", "data_choices", "group_choices", "model_choices", "options_of"]

ZOO = Path(__file__).parents[1]
NAMES = {
    "Annotated": Annotated,
    "Any": Any,
    "Callable": Callable,
    "Literal": Literal,
    "Range": Range,
    "Sequence": Sequence,
}


def config_dir() -> Path:
    """Return the folder of the configs: inside an installed package, beside it in a checkout."""
    return ZOO / "configs" if (ZOO / "configs").is_dir() else ZOO.parent / "configs"


@dataclass(frozen=True)
class Choice:
    """What a list says of a model or of data: its name, some facts in words, and what it is."""

    name: str
    facts: tuple[str, ...]
    summary: str


def model_choices() -> list[Choice]:
    """Return every model with its family, its tasks and what it accepts."""
    found = {}
    for name in sorted(_MODULES):
        declared = _declared(_sources(_MODULES[name]), "register_model").get(name)
        if declared is None:  # written in another way: then it is imported
            continue
        node, options = declared
        targets = {k: v if isinstance(v, tuple) else (v,) for k, v in options["accepts"].items()}
        pairs = tuple((kind, target) for kind, each in targets.items() for target in each)
        tasks = (options["task"],) if options.get("task") else task_names(pairs)
        found[name] = Choice(name, (options["family"], ", ".join(tasks), in_words(pairs)), _summary(node))
    foreign = set(list_models()) - set(_MODULES) if entry_points(group="zoo.models") else set()
    for name in {*_MODULES, *foreign} - set(found):
        entry = model_entry(name)
        facts = (entry.family, ", ".join(entry.task), in_words(entry.accepts))
        found[name] = Choice(name, facts, entry.summary)
    return [found[name] for name in sorted(found)]


def in_words(pairs: tuple[tuple[str, str | None], ...]) -> str:
    """Say which pairs of data and target a model accepts.

    >>> in_words((("tabular", "class"), ("tabular", "value"), ("image", None)))
    'tabular (class, value), image'
    """
    targets: dict[str, list[str]] = {}
    for kind, target in pairs:
        targets.setdefault(kind, []).extend([target] if target not in (None, kind) else [])  # type: ignore[list-item]
    return ", ".join(f"{kind} ({', '.join(of)})" if of else kind for kind, of in targets.items())


def data_choices() -> list[Choice]:
    """Return all data with their kind and target."""
    found = _declared(tuple((ZOO / "data").glob("*.py")), "register_data")
    choices = [
        Choice(name, (options["kind"], options["target"] or "none"), _summary(node))
        for name, (node, options) in found.items()
    ]
    return sorted(choices, key=lambda choice: choice.name)


def group_choices(group: str) -> list[Choice]:
    """Return the choices of a group of the configs, with the comment at the head of each."""
    return [
        Choice(file.stem, (), next((c for c in _head(file) if not c.startswith("@package")), ""))
        for file in sorted((config_dir() / group).glob("*.yaml"))
    ]


def _head(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf8").splitlines():
        if not line.startswith("#"):
            return
        yield line.lstrip("# ").strip()


@functools.cache
def options_of(group: str, name: str) -> dict[str, Any]:
    """Return the constructor's options of a model or of data, with what each may be, where that can be read."""
    files = _sources(_MODULES[name]) if group == "model" else tuple((ZOO / "data").glob("*.py"))
    declared = _declared(files, f"register_{group}").get(name)
    classes = {node.name: node for file in files for node in _tree(file).body if isinstance(node, ast.ClassDef)}
    found: dict[str, Any] = {}
    node = declared and declared[0]
    while node is not None:
        init = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
        for argument in init.args.kwonlyargs if init else ():
            if (declared_type := _annotation(argument.annotation, files)) is not None:
                bounds = _ranges(init).get(argument.arg)  # type: ignore[arg-type]
                found.setdefault(argument.arg, Annotated[declared_type, bounds] if bounds else declared_type)
        if init and not init.args.kwarg:
            break
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        node = next((classes[base] for base in bases if base in classes), None)
    return found


def _ranges(init: ast.FunctionDef) -> dict[str, Range]:
    """The ranges to which a constructor holds its arguments by `check_range`, also in a loop over their names."""
    found: dict[str, Range] = {}
    loops = [node for node in ast.walk(init) if isinstance(node, ast.For)]
    for scope in (*loops, init):
        for call in ast.walk(scope):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check_range"):
                continue
            names = [call.args[0]]
            if isinstance(scope, ast.For) and isinstance(scope.iter, ast.Tuple):
                names = [pair.elts[0] for pair in scope.iter.elts if isinstance(pair, ast.Tuple)]
            try:
                open_low = any(w.arg == "open_low" and ast.literal_eval(w.value) for w in call.keywords)
                low, high = [*map(ast.literal_eval, call.args[2:]), math.inf][:2]
                bounds = Range(low, high, open_low)
                found |= {ast.literal_eval(name): bounds for name in names if isinstance(name, ast.Constant)}
            except (ValueError, TypeError):
                continue
    return found


def _annotation(node: ast.expr | None, files: Sequence[Path]) -> Any:
    """The type that an annotation says, where its names are plain, or such as the files import from the zoo."""
    if node is None:
        return None
    known: dict[str, Any] = {name: _alias(name, files) for name in _names_in(node) - set(NAMES)}
    if None in known.values():
        return None
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), {**NAMES, **known})
    except (NameError, TypeError):
        return None


def _names_in(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and not hasattr(builtins, part.id)}


def _alias(name: str, files: Sequence[Path]) -> Any:
    """The type that another module of the zoo has a name for."""
    for node in (node for file in files for node in _tree(file).body):
        if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}:
            home = ZOO.parent.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            for line in _tree(home).body if home.is_file() else ():
                if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == name:
                    return _annotation(line.value, (home,))
    return None


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf8"))


def _sources(module: str) -> tuple[Path, ...]:
    """The files of a module or package of the zoo."""
    path = ZOO.joinpath(*module.split(".")[1:])
    return tuple(path.glob("*.py")) if path.is_dir() else (path.with_suffix(".py"),)


@functools.cache
def _declared(files: tuple[Path, ...], decorator: str) -> dict[str, tuple[ast.ClassDef, dict[str, Any]]]:
    """The classes that carry a decorator `decorator("name", key=literal, ...)`, by that name, with its arguments."""
    found = {}
    for file in files:
        for node in _tree(file).body:
            for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                    try:
                        found[ast.literal_eval(call.args[0])] = (node, _keywords(call, _tree(file)))
                    except (ValueError, KeyError):
                        continue
    return found  # type: ignore[return-value]


def _keywords(call: ast.Call, tree: ast.Module) -> dict[str, Any]:
    """The keyword arguments of a call: literals, names of literals, and `**NAME` of a dictionary of them."""
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found: dict[str, Any] = {}
    for word in call.keywords:
        value = ast.literal_eval(named[word.value.id] if isinstance(word.value, ast.Name) else word.value)
        found |= value if word.arg is None else {word.arg: value}
    return found


def _summary(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n", 1)[0]
