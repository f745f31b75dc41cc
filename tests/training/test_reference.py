"""The lists of what there is and the help of each key: right, whole at any width, and there at once."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from rich.console import Console
from support import CHECKOUT, compose, run_command

import zoo
from zoo.checks import Range, describe_type
from zoo.data.registry import _options, data_entries
from zoo.registry import model_entry
from zoo.training import main
from zoo.training.catalogue import data_choices, in_words, model_choices, options_of
from zoo.training.reference import print_help, print_key, settings
from zoo.training.tables import LISTS, print_list
from zoo.training.terminal import called, make_console


def shown(function: typing.Callable[..., None], *arguments: typing.Any, width: int = 80) -> str:
    """What is printed on a console of a width."""
    console = Console(file=io.StringIO(), width=width)
    function(*arguments, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_read_from_the_sources_is_what_is_registered() -> None:
    models = {choice.name: choice for choice in model_choices()}
    assert set(models) == set(zoo.list_models())
    for name, choice in models.items():
        entry = model_entry(name)
        assert choice.facts == (entry.family, ", ".join(entry.task), in_words(entry.accepts))
        assert choice.summary == entry.summary
    data = {choice.name: choice for choice in data_choices()}
    for name, found in data_entries().items():
        assert data[name].facts == (found.kind, found.target or "none")
        assert data[name].summary == found.summary
    assert set(data) == set(data_entries())


def test_the_types_that_are_read_from_the_sources_are_those_of_the_constructors() -> None:
    for name in zoo.list_models():
        hints = typing.get_type_hints(model_entry(name).cls.__init__)
        assert set(options_of("model", name)) == set(hints) - {"return"}
        for key, declared in options_of("model", name).items():
            plain = typing.get_args(declared)[0] if _bounds(declared) else declared
            assert describe_type(plain) == describe_type(hints[key]), (name, key)
    for name, entry in data_entries().items():
        theirs = _options(entry.cls)
        assert set(options_of("data", name)) == set(theirs)
        for key, declared in options_of("data", name).items():
            plain = typing.get_args(declared)[0] if _bounds(declared) else declared
            assert describe_type(plain) == describe_type(theirs[key]), (name, key)


def _bounds(declared: typing.Any) -> list[Range]:
    return [bound for bound in getattr(declared, "__metadata__", ()) if isinstance(bound, Range)]


def test_a_range_that_is_shown_is_one_that_is_held() -> None:
    """Just outside of what is shown, the model refuses."""
    tried = 0
    for name in zoo.list_models():
        for key, declared in options_of("model", name).items():
            for bound in _bounds(declared):
                outside = int(bound.low) - 1 if float(bound.low).is_integer() else bound.low / 2
                kind = typing.get_args(declared)[0]
                with pytest.raises(zoo.ZooError, match=key):
                    zoo.create_model(name, **{key: float(outside) if kind is float else outside})
                tried += 1
    assert tried > 30


@pytest.mark.parametrize("width", [20, 40, 80, 130, 300])
@pytest.mark.parametrize("what", sorted(LISTS))
def test_a_list_keeps_names_whole_and_fits(what: str, width: int) -> None:
    out = shown(print_list, what, width=width)
    words, lines = out.split(), out.splitlines()
    names = [choice.name for choice in LISTS[what][0]()]
    assert set(names) <= set(words)
    assert "…" not in out
    assert all(len(line) <= width or line in names for line in lines)
    texts = " ".join(words)
    for choice in LISTS[what][0]() if width >= 80 else ():
        assert all(part in texts for part in choice.summary.split())


def test_in_a_pipe_a_list_has_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file = io.StringIO()
    print_list("models", make_console(file, unfolded=True))
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1:]] == zoo.list_models()
    for line, choice in zip(lines[1:], model_choices(), strict=True):
        assert all(fact in line for fact in (*choice.facts, choice.summary))


def test_every_key_of_the_config_has_help_with_its_comment_and_default() -> None:
    listed = {setting.key for setting in settings()}
    composed = compose("model=mlp", "data=csv", "regularization=early_stopping", "scheduler=cosine")
    flat = {f"{a}.{b}" for a, v in composed.items() if isinstance(v, dict) for b in v if b != "name"}
    assert flat - {"regularization.early_stopping"} <= listed
    for key in sorted(listed):
        out = shown(print_key, key)
        assert out.startswith(f"{key}\n")
        assert all(len(line) <= 80 for line in out.splitlines())
        assert "default" in out, key
        comments = {setting.comment for setting in settings() if setting.key == key and not setting.group}
        assert all(word in out.split() for comment in comments for word in comment.split())


KEYS = {
    "optimizer.lr": ("a number above 0", "0.01 with model=logistic_regression"),
    "model.num_clusters": ("an integer of at least 1", "of model=bisecting_kmeans,kmeans"),
    "trainer.max_epochs": ("an integer of at least 1 or -1 or null", "null: 20 for gradient models"),
    "data.delimiter": ("a string", "what stands between values"),
    "trainer.profiler": ("one of simple, advanced, pytorch", "+trainer.profiler=VALUE"),
    "regularization.l2": ("a number of at least 0", "1.0e-4 with regularization=l2"),
    "model.activation": ("one of relu, tanh", "of model=mlp"),
    "model": ("model=NAME", "Multilayer perceptron of any widths"),
    "optimizer=sgd": ("optimizer.momentum=0.0", "Stochastic gradient descent"),
}


@pytest.mark.parametrize("key", KEYS)
def test_help_of_a_key_says_its_type_and_who_has_it(key: str) -> None:
    out = " ".join(shown(print_key, key).split())
    assert all(words in out for words in KEYS[key]), out


def test_help_holds_to_what_is_chosen_and_knows_near_misses() -> None:
    out = shown(print_key, "model.max_iter", {"model": "kmeans"})
    assert "iterations at most" in out
    assert "logistic" not in out
    for key, message in {
        "optimizer.lrr": r"no key 'optimizer\.lrr'\. Did you mean optimizer\.lr",
        "lr": r"Did you mean optimizer\.lr\?",
        "model=mpl": r"Unknown model 'mpl'\. Did you mean mlp",
    }.items():
        with pytest.raises(zoo.ZooError, match=message):
            shown(print_key, key)
    with pytest.raises(zoo.ZooError, match=r"model=mlp has no model\.max_iter; it is a key of .*kmeans"):
        shown(print_key, "model.max_iter", {"model": "mlp"})


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "demo", "export"])
def test_help_folds(command: str) -> None:
    out = shown(print_help, command)
    assert all(len(line) <= 80 or called(command) in line for line in out.splitlines())


@pytest.mark.parametrize(
    ("program", "train", "evaluate", "asked"),
    [
        ("train.py", "python train.py", "python evaluate.py", "python train.py --help"),
        ("../zoo/evaluate.py", "python ../zoo/train.py", "python ../zoo/evaluate.py", "python ../zoo/train.py --help"),
        ("/usr/bin/zoo-train", "zoo-train", "zoo-evaluate", "zoo-train --help"),
        ("/usr/bin/zoo", "zoo train", "zoo evaluate", "zoo help"),
        (str(Path(zoo.__file__).parent / "__main__.py"), "python -m zoo train", "python -m zoo evaluate",
         "python -m zoo help"),
    ],
)  # fmt: skip
def test_messages_name_the_command_that_was_used(
    program: str, train: str, evaluate: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert (called("train"), called("evaluate"), called("help")) == (train, evaluate, asked)
    assert f"{train} list=models" in shown(print_help)


def zoo_command(*arguments: str) -> int:
    """Run `zoo ...` in this process."""
    before = sys.argv
    sys.argv = ["zoo", *arguments]
    try:
        return main.main()
    finally:
        sys.argv = before
        os.environ.pop("ZOO_COMMAND", None)


def test_the_command_zoo_has_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo_command() == 0
    assert "zoo predict" in capsys.readouterr().out
    assert zoo_command("list", "optimizers") == 0
    assert "lbfgs" in capsys.readouterr().out
    assert zoo_command("help", "optimizer.lr") == 0
    assert "above 0" in capsys.readouterr().out
    assert zoo_command("help", "evaluate", "split") == 0
    assert "train, val or test" in capsys.readouterr().out
    assert zoo_command("trian") == 1
    assert "Unknown command 'trian'. Did you mean train?" in capsys.readouterr().err
    assert zoo_command("train", "model=mpl") == 1
    assert "Did you mean mlp" in capsys.readouterr().err
    assert run_command(["--help", "model.widths", "model=mlp"]) == 0
    assert "[128, 128]" in capsys.readouterr().out


def test_a_shell_completes_names_and_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(line: str, run: typing.Callable[..., int]) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        capsys.readouterr()
        assert run("-sc", "query=bash") == 0
        return capsys.readouterr().out.split()

    train = lambda *arguments: run_command(list(arguments))  # noqa: E731
    assert completed("python train.py model=ls", train) == ["model=lstm"]
    assert {"model.widths.", "model.dropout="} <= set(completed("python train.py model=mlp model.", train))
    assert completed("zoo tr", zoo_command) == ["train"]
    assert completed("zoo train model=ls", zoo_command) == ["model=lstm"]
    assert run_command(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out


def test_lists_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom zoo.training.main import main\n"
        "for words in ('list models', 'list data', 'help model.widths', 'help trainer.max_epochs'):\n"
        "    sys.argv = ['zoo', *words.split()]\n"
        "    assert main() == 0\n"
        "heavy = {'torch', 'lightning', 'sklearn', 'numpy', 'hydra'} & {name.split('.')[0] for name in sys.modules}\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert importlib.util.find_spec("zoo.__main__")
