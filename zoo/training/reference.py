"""The commands explained: `--help`, and `--help KEY` for a key of the config, read from the configs and the schema."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from zoo.checks import describe_type
from zoo.errors import ZooError, nearest
from zoo.training.catalogue import config_dir, group_choices, options_of
from zoo.training.schema import MoreTrainer, keys_of
from zoo.training.terminal import called, make_console, print_folded

__all__ = ["Setting", "print_help", "print_key", "settings"]

GROUPS = ("model", "data", "optimizer", "scheduler", "regularization", "trainer", "training", "averaging", "experiment")
INDENT = 10


@dataclass(frozen=True)
class Setting:
    """A key of the config as a file of it says it.

    Attributes:
        key: such as `optimizer.lr`.
        default: as it stands in the file.
        comment: what stands behind it.
        group: of the file; empty for the config of the command itself.
        choice: the name of the file in its group.
    """

    key: str
    default: str
    comment: str
    group: str = ""
    choice: str = ""


LINE = re.compile(r"(?P<indent> *)(?P<key>\w+): *(?P<value>[^# ].*?)?(?: +# (?P<comment>.*))?$")


def read_settings(file: Path, group: str = "") -> Iterator[Setting]:
    """Yield the keys of a file of the configs, with the key of the section before each."""
    text = file.read_text(encoding="utf8")
    section = [] if not group or "@package _global_" in text else [group]
    levels: list[str] = []
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        levels = [*levels[: len(found["indent"]) // 2], found["key"]]
        if levels[0] in ("defaults", "hydra") or levels[-1] == "name":
            continue
        key = ".".join([*section, *levels])
        if found["value"]:  # else it is a section
            yield Setting(key, found["value"], found["comment"] or "", group, file.stem if group else "")


@functools.cache
def settings(command: str = "train") -> tuple[Setting, ...]:
    """Return every key of a command's config, once for each choice that has it."""
    found = list(read_settings(config_dir() / f"{command}.yaml"))
    for group in GROUPS if command == "train" else ():
        for file in sorted((config_dir() / group).glob("*.yaml")):
            found += read_settings(file, group)
    return tuple(found)


def print_key(
    key: str, chosen: dict[str, str] | None = None, command: str = "train", console: Console | None = None
) -> None:
    """Explain one key of a command's config, or all keys of a group or of one of its choices.

    Args:
        key: such as `optimizer.lr`, `optimizer` or `optimizer=sgd`.
        chosen: the choices of the command line, such as `{"model": "lstm"}`, to which the answer is held.
        command: `train`, `evaluate`, `predict`, `demo` or `export`.
        console: where; standard output by default.

    Raises:
        ZooError: for an unknown key, with the nearest ones.
    """
    console, chosen = console or make_console(), dict(chosen or {})
    every = settings(command)
    key, _, choice = key.lstrip("+~").partition("=")
    if choice and key in GROUPS:
        chosen[key] = choice
    own = [s for s in every if s.group in ("", key.partition(".")[0])]  # another group's choice may set the key, too
    found = [s for s in own if s.key == key and not s.group] or [s for s in own if s.key == key]
    section = [s for s in own if s.key.startswith(f"{key}.")]
    more = {f"trainer.{name}": kind for name, kind in keys_of(MoreTrainer).items()} if command == "train" else {}
    if key in GROUPS and command == "train":
        _print_group(console, key, chosen.get(key), section)
    elif found:
        _print_found(console, key, found, chosen, [s for s in every if s.key == key and s not in found])
    elif section:
        console.print(Text(key, "bold"))
        _print_settings(console, section)
    elif key in more:
        console.print(Text(key, "bold"))
        _row(console, "type", describe_type(more[key]))
        _row(console, "set it by", f"+{key}=VALUE: it is in no file of the configs")
    else:
        known = {s.key for s in every} | set(more) | set(GROUPS)
        ends = sorted(name for name in known if name.rpartition(".")[2] == key)
        guess = f" Did you mean {' or '.join(ends)}?" if ends else nearest(key, known)
        raise ZooError(
            f"There is no key '{key}'.{guess} {called('help')} shows the groups, and {called('help')} GROUP their keys."
        )


def _print_group(console: Console, group: str, choice: str | None, section: list[Setting]) -> None:
    """Print the choices of a group with what each is, or the keys of one of them."""
    choices = {c.name: c.summary for c in group_choices(group)}
    if choice is None and len(choices) == 1:
        choice = next(iter(choices))
    if choice is not None:
        if choice not in choices:
            raise ZooError(f"Unknown {group} '{choice}'.{nearest(choice, choices)} Available: {', '.join(choices)}.")
        console.print(Text.assemble((f"{group}={choice}", "bold")))
        print_folded(console, choices[choice], "    ")
        _print_settings(console, [s for s in section if s.choice == choice])
        return
    console.print(
        Text.assemble((group, "bold"), f": choose one with {group}=NAME; {called('help')} {group}=NAME shows its keys")
    )
    for name, summary in choices.items():
        console.print(Text(f"    {name}", "bold"), soft_wrap=True)
        print_folded(console, summary, "        ")


def _print_settings(console: Console, found: Iterable[Setting]) -> None:
    for setting in found:
        shown = f"    {setting.key}={setting.default}"
        console.print(Text(shown, "bold"), soft_wrap=True)
        if setting.comment:
            print_folded(console, setting.comment, "        ")


def _print_found(
    console: Console, key: str, found: list[Setting], chosen: dict[str, str], elsewhere: list[Setting]
) -> None:
    group = key.partition(".")[0]
    if group in chosen:
        mine = [s for s in found if s.choice == chosen[group]]
        if not mine and found[0].group:
            raise ZooError(
                f"{group}={chosen[group]} has no {key}; it is a key of {', '.join(s.choice for s in found)}."
            )
        found = mine or found
    same: dict[tuple[str, str, str], list[str]] = {}
    for setting in found:
        same.setdefault((setting.comment, type_of(setting), setting.default), []).append(setting.choice)
    console.print(Text(key, "bold"))
    of_all = {choice.name for choice in group_choices(group)} if found[0].group else set()
    for (comment, kind, default), choices in same.items():
        if choices != [""] and set(choices) < of_all:
            print_folded(console, Text(f"of {group}={','.join(choices)}", "cyan"), "    ")
        _row(console, "", comment)
        _row(console, "type", kind)
        _row(console, "default", default)
    for setting in elsewhere:
        if chosen.get(setting.group, setting.choice) == setting.choice:
            _row(console, "", f"{setting.default} with {setting.group}={setting.choice}")


def type_of(setting: Setting) -> str:
    """Say what a key may be: by the schema of the run, by the factory of an optimizer, or by a constructor."""
    group, _, name = setting.key.partition(".")
    declared: Any = keys_of().get(setting.key)
    if declared is None and group in ("optimizer", "scheduler", "averaging") and setting.choice != "none":
        from zoo.optimizers import AVERAGES, OPTIMIZERS, SCHEDULERS
        from zoo.optimizers.options import option_types

        tables: dict[str, Any] = {"optimizer": OPTIMIZERS, "scheduler": SCHEDULERS, "averaging": AVERAGES}
        declared = option_types(tables[group][setting.choice]).get(name)
    elif declared is None and group in ("model", "data"):
        declared = options_of(group, setting.choice).get(name)
    elif declared is None and group == "generate":
        from zoo.training.continuation import GENERATE

        declared = GENERATE.get(name)
    return "" if declared is None else describe_type(declared)


def _row(console: Console, label: str, text: str) -> None:
    if text:
        print_folded(console, text, f"    {label:<{INDENT}}")


ABOUT = {
    "train": "Train a model of the zoo, test it, and write the run to runs/ for TensorBoard.",
    "evaluate": (
        "Evaluate a finished run: metrics.json, predictions.parquet and pictures go into its folder and to TensorBoard."
    ),
    "predict": (
        "Predict new rows with a finished run, streamed: CSV, Parquet, NumPy, images, text, baskets or standard input."
    ),
    "demo": "Show a finished run in the browser: draw a digit, fill in a row, type a prompt or click points.",
    "export": (
        "Write a finished run, with its preprocessing, as one file for programs without the zoo, which answers as "
        "predict does: ONNX, torch.export or safetensors."
    ),
}
LISTED = "List models, data, optimizers, schedulers, regularization or experiments."
EXPLAINED = "Explain a command, a key of the config such as optimizer.lr, or the keys of a choice such as model=mlp."
EXAMPLES = {
    "train": (
        ("model=mlp data=iris optimizer.lr=0.01 trainer.max_epochs=50", ""),
        ("-m model=mlp,cnn seed=0,1", "a sweep over all combinations"),
        ("list=models", "every model, what it does and what data it accepts"),
        ("list=data", "all data; also optimizers, schedulers, experiments"),
        ("--help optimizer.lr", "one key: what it means, its type, its default"),
        ("--help model=mlp", "all keys of a choice"),
        ("model=mlp --cfg job", "every key with its value"),
        ("--shell-completion install=bash", "what completes names and keys: eval it"),
    ),
    "evaluate": (
        ("run=runs/cnn/digits/2026-01-31_12-00-00 split=val", ""),
        ("run=runs/mlp/csv/2026-01-31_12-00-00 data.path=new.csv", "new rows with targets"),
        ('run=runs/gpt/python_source/2026-01-31_12-00-00 generate.prompt="def "', "what a language model makes of it"),
    ),
    "predict": (
        ("run=runs/mlp/iris/2026-01-31_12-00-00 data.path=new.csv output=answers.parquet", ""),
        ("run=runs/mlp/iris/2026-01-31_12-00-00 data.path=- < new.csv", "standard input"),
    ),
    "demo": (("run=runs/cnn/digits/2026-01-31_12-00-00", ""),),
    "export": (
        ("run=runs/mlp/iris/2026-01-31_12-00-00", "export/model.onnx in the run's folder"),
        ("run=runs/cnn/digits/2026-01-31_12-00-00 format=torch output=cnn.pt2", "for torch.export.load"),
    ),
}


def print_commands(console: Console | None = None) -> None:
    """Print what the commands are."""
    console = console or make_console()
    console.print(Text("Every model of machine learning, from the command line.", "bold"))
    for command, what in {**ABOUT, "list": LISTED, "help": EXPLAINED}.items():
        console.print(Text(f"  {called(command)}", "bold"), soft_wrap=True)
        print_folded(console, what, "      ")


def print_help(command: str = "train", console: Console | None = None) -> None:
    """Print what a command does, examples, and what there is to choose from."""
    console = console or make_console()
    print_folded(console, ABOUT[command])
    for arguments, meaning in EXAMPLES[command]:
        line = Text.assemble("  ", (f"{called(command)} {arguments}", "bold"))
        console.print(line, soft_wrap=True)
        if meaning:
            print_folded(console, meaning, "      ")
    console.print()
    if command != "train":
        _print_settings(console, settings(command))
        return
    print_folded(console, "Choices (choose with GROUP=NAME, override with KEY=VALUE)")
    for group in sorted(GROUPS):
        print_folded(console, f"{group}: {', '.join(choice.name for choice in group_choices(group))}", "  ")
