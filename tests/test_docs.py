"""What the docs show works: examples in docstrings, commands, Python blocks' names, links and pictures."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from pages import PAGES, code_lines, combinations, ends_of_intervals, split_code
from support import compose

import zoo
from zoo.data.registry import create_data
from zoo.optimizers import Recipe
from zoo.registry import model_entry
from zoo.training.cluster import asked
from zoo.training.main import _quoted
from zoo.training.reference import print_key
from zoo.training.tables import LISTS

MODULES = ["zoo", *(module.name for module in pkgutil.walk_packages(zoo.__path__, "zoo."))]


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed


def test_public_functions_have_docstrings() -> None:
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", []):
            value = getattr(module, public)
            if (inspect.isfunction(value) or inspect.isclass(value)) and not value.__doc__:
                missing.append(f"{name}.{public}")
    assert not missing


def command_of(line: str) -> tuple[str, list[str]] | None:
    """The config name and the overrides of a command line of the zoo, or None."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["make", "train"] or words[:2] == ["make", "evaluate"]:
        arguments = next((word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")), "")
        return words[1], shlex.split(arguments)
    for head, name in (
        (["python", "train.py"], "train"), (["zoo-train"], "train"),
        (["python", "evaluate.py"], "evaluate"), (["zoo-evaluate"], "evaluate"),
        (["python", "export.py"], "export"), (["zoo-export"], "export"), (["zoo", "export"], "export"),
        (["zoo", "train"], "train"), (["zoo", "evaluate"], "evaluate"), (["zoo", "help"], "help"),
        (["zoo", "list"], "list"), (["python", "-m", "zoo", "train"], "train"),
    ):  # fmt: skip
        if words[: len(head)] == head:
            return name, words[len(head) :]
    return None


def commands() -> list[tuple[str, str, list[str]]]:
    found = []
    for page in PAGES:
        for line in code_lines(page):
            if re.match(
                r"(python (train|evaluate|export)\.py|zoo-(train|evaluate|export)|(python -m )?zoo "
                r"|make (train|evaluate))\b",
                line,
            ):
                command = command_of(line)
                if command and not re.search(r"\.\.\.|…|=[A-Z]+\b", " ".join(command[1])):
                    found.append((page.name, *command))
    return found


COMMANDS = commands()


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize(
    ("page", "name", "arguments"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:80]
)
def test_commands_that_the_docs_show_are_right(page: str, name: str, arguments: list[str]) -> None:
    overrides = [_quoted(argument) for argument in asked(arguments)[0] if not argument.startswith("-")]
    overrides = ends_of_intervals(overrides)
    if name == "help" or "--help" in arguments:
        for key in overrides:
            print_key(key, command=name if name in ("evaluate", "predict") else "train")
        return
    if name == "list":
        assert set(overrides) <= set(LISTS)
        return
    if "--shell-completion" in arguments:
        return  # tests/training/test_reference.py
    if any(override.startswith("list=") for override in overrides):
        assert {override.removeprefix("list=") for override in overrides} <= set(LISTS)
        return
    if any(override.startswith("plugins=") for override in overrides):
        pytest.skip("a model of the reader's own")
    sweep = {"-m", "--multirun"} & set(arguments)
    for job in combinations(overrides) if sweep else [overrides]:
        if name in ("evaluate", "export"):
            compose(*job, name=name)
            continue
        settings = compose(*job)
        sections = {key: dict(settings[key]) for key in ("model", "data", "optimizer", "scheduler")}
        names = {key: section.pop("name") for key, section in sections.items()}
        model = zoo.create_model(names["model"], **sections["model"])
        penalties = settings["regularization"]
        Recipe(
            names["optimizer"], sections["optimizer"], names["scheduler"], sections["scheduler"],
            penalties["l1"], penalties["l2"],
        )  # fmt: skip
        if not (names["data"] in ("csv", "parquet", "npy") and "..." in str(sections["data"])):
            assert create_data(names["data"], **sections["data"]).name == names["data"]
        assert model.entry.name == names["model"]


def test_the_docs_show_commands() -> None:
    with_commands = {page for page, _, _ in COMMANDS}
    assert "README.md" in with_commands
    assert {f"{model_entry(name).docs}.md" for name in zoo.list_models()} <= with_commands


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = split_code(page)[1]
    titles = re.findall(r"^#+ +(.+?)\s*$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_the_docs_are_there(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", split_code(page)[1])
    for link in re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'src="([^"]+)"', text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_blocks_import_is_there(page: Path) -> None:
    for block in (code for language, code in split_code(page)[0] if language == "python"):
        compile(block.replace("...", "None") if "..." in block else block, page.name, "exec")
        for module, names in re.findall(r"^from (zoo[\w.]*) import ([\w, ]+)$", block, re.M):
            for name in names.split(","):
                assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"
        for name in re.findall(r"\bzoo\.(\w+)\(", block):
            assert hasattr(zoo, name), f"zoo.{name}"
