"""The layout that DESIGN describes, read from the imports: they go one way, and importing goes round in no circle."""

from __future__ import annotations

import ast
import functools
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import CHECKOUT

from zoo.tasks import TASKS

ZOO = CHECKOUT / "zoo"

# Each floor may import from those before it, and from itself.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("zoo.errors", "zoo.lean"),
    ("zoo.checks",),
    ("zoo.kernels",),
    ("zoo.numerics", "zoo.layers", "zoo.text", "zoo.tasks", "zoo.registry"),
    ("zoo.optimizers", "zoo.data"),
    ("zoo.visual",),
    ("zoo.models.base",),
    ("zoo.models",),
    ("zoo.training",),
    ("zoo.analysis", "zoo.sklearn"),
    ("zoo.__main__",),
)
# What stands on one floor and yet needs its neighbour.
NEIGHBOURS = {("zoo.registry", "zoo.tasks"), ("zoo.data", "zoo.text")}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(ZOO.rglob("*.py"))}
ROOMS = sorted(p.name for p in (ZOO / "models").iterdir() if p.is_dir() and p.name not in ("base", "__pycache__"))


def type_checking(node: ast.stmt) -> bool:
    """Whether the statement is `if TYPE_CHECKING:`, which no program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node: ast.AST) -> Iterator[str]:
    """The modules that a file imports anywhere, also inside of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in MODULES else child.module
        else:
            yield from imports(child)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """What each module imports of the zoo."""
    trees = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in MODULES.items()}
    return {name: {to for to in imports(tree) if to.split(".")[0] == "zoo"} for name, tree in trees.items()}


def within(name: str, group: str) -> bool:
    return f"{name}.".startswith(f"{group}.")


def group_of(name: str) -> str:
    """The part of the house that a module belongs to."""
    groups = [group for floor in FLOORS for group in floor if within(name, group)]
    return max(groups, key=len)


def floor_of(group: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if group in floor)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("zoo", "zoo.models", "zoo.configs")])
def test_imports_go_one_way(name: str) -> None:
    group = group_of(name)
    for target in arrows()[name]:
        if target == "zoo":
            assert floor_of(group) > floor_of("zoo.models"), f"{name} imports the package that holds it"
            continue
        other = group_of(target)
        allowed = floor_of(other) < floor_of(group) or other == group or (group, other) in NEIGHBOURS
        assert allowed, f"{name} imports {target}"


def test_no_import_goes_round_in_a_circle() -> None:
    """Leave out, again and again, what imports nothing that is left: a circle is what remains."""
    left = {name: {t for t in targets if t in MODULES and t != name} for name, targets in arrows().items()}
    while leaves := {name for name, targets in left.items() if not targets}:
        left = {name: targets - leaves for name, targets in left.items() if name not in leaves}
    assert not left


@pytest.mark.parametrize("room", ROOMS)
def test_no_family_imports_another(room: str) -> None:
    for name in (name for name in MODULES if within(name, f"zoo.models.{room}")):
        for target in arrows()[name]:
            family = within(target, "zoo.models") and not within(target, "zoo.models.base")
            assert not family or within(target, f"zoo.models.{room}"), f"{name} imports {target}"


@pytest.mark.parametrize("path", sorted(p for r in ROOMS for p in (ZOO / "models" / r).glob("*.py")), ids=module_of)
def test_what_registers_no_model_is_mathematics_alone(path: Path) -> None:
    """A file beside a model that is not a model imports torch, numerics and errors (and kernels) alone."""
    name = module_of(path)
    if path.name == "__init__.py" or any(within(t, "zoo.models.base") or t == "zoo.registry" for t in arrows()[name]):
        return
    home = name.rpartition(".")[0]
    groups = ("zoo.errors", "zoo.numerics", "zoo.kernels", home)
    assert all(any(within(target, group) for group in groups) for target in arrows()[name]), arrows()[name]


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "zoo.layers")])
def test_layers_import_torch_alone(name: str) -> None:
    assert all(within(t, "zoo.layers") or within(t, "zoo.kernels") or within(t, "zoo.errors") for t in arrows()[name])


def test_a_base_class_has_two_users_or_is_none() -> None:
    """A class from which one other derives is of use by itself, too: it is called, or registered."""
    nodes = [node for path in MODULES.values() for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    bases = Counter(name for node in classes for base in node.bases if (name := called(base)))
    used = {called(node.func) for node in nodes if isinstance(node, ast.Call)}
    used |= {task.objective for task in TASKS.values()}  # made by their names
    used |= {node.name for node in classes if any("register" in ast.unparse(d) for d in node.decorator_list)}
    single = {node.name for node in classes if bases[node.name] == 1}
    assert not single - used


def called(node: ast.expr) -> str:
    """The last name of `a.b.Name`."""
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def test_every_package_travels_in_the_wheel() -> None:
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {module_of(path) for path in ZOO.rglob("__init__.py")}
    assert set(listed) == found | {"zoo.configs", "hydra_plugins.zoo_sweeps"}


def test_models_stand_at_most_three_levels_above_lightning() -> None:
    import lightning.pytorch as pl

    import zoo
    from zoo.registry import model_entry

    def levels(cls: type) -> int:
        above = [levels(base) for base in cls.__bases__ if issubclass(base, pl.LightningModule)]
        return 0 if cls is pl.LightningModule else 1 + max(above, default=0)

    deep = {name: levels(model_entry(name).cls) for name in zoo.list_models()}
    assert not {name: level for name, level in deep.items() if level > 3}
