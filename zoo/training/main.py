"""The commands `train`, `evaluate`, `predict`, `demo` and `export`, for train.py, evaluate.py and so on, and their
console-script twins, and `zoo`, which has them all.

Nothing heavy is imported here: `--help` and a mistyped option answer before Lightning is loaded, and Ctrl-C while Hydra
is loaded is an exit code too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import is_too_large
from zoo.errors import ZooError, nearest, unknown_name
from zoo.training.catalogue import config_dir
from zoo.training.plugins import import_plugins
from zoo.training.processes import global_rank
from zoo.training.schema import check_config, check_groups, instead, module_names

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from zoo.training.sweep import Outcome, Sweep

__all__ = ["config_dir", "demo", "evaluate", "export", "main", "predict", "train"]


JOBS = ("train", "evaluate", "predict", "demo", "export")
COMMANDS = (*JOBS, "list", "help")


def main() -> int:
    """Do what `zoo COMMAND ...` or `python -m zoo COMMAND ...` says; return the exit code."""
    arguments = sys.argv[1:]
    if "COMP_LINE" in os.environ and {"-sc", "--shell-completion"} & set(arguments):
        return _complete(arguments)
    command = arguments[0] if arguments else "help"
    if command in COMMANDS:
        os.environ["ZOO_COMMAND"] = command  # for the processes that Lightning starts with what is left
        del sys.argv[1:2]
    else:
        command = os.environ.get("ZOO_COMMAND", command) if "LOCAL_RANK" in os.environ else command
    if command in JOBS:
        return _entry(command)()
    if command == "list":
        return _guarded(lambda: _list(sys.argv[1].removeprefix("list=") if sys.argv[1:] else "models"))
    if command in ("help", "-h", "--help"):
        return _guarded(lambda: _explain(sys.argv[1:]))
    return _guarded(lambda: _refuse(command))


def _explain(about: list[str]) -> None:
    """Explain the commands, one of them, or keys."""
    about = [word for word in about if word not in ("help", "-h", "--help")]
    if not about:
        from zoo.training.reference import print_commands

        return print_commands()
    command = about[0] if about[0] in JOBS else "train"
    return _help(command, [word for word in about if word != command])


def _refuse(command: str) -> None:
    raise unknown_name("command", command, COMMANDS)


def _complete(arguments: list[str]) -> int:
    """Print what a shell may go on with: commands, or what Hydra knows of the one that stands there."""
    words = os.environ["COMP_LINE"].split(" ")
    if len(words) < 3 or words[1] not in JOBS:
        print(" ".join(name for name in COMMANDS if len(words) < 3 and name.startswith(words[-1])))
        return 0
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return _entry(words[1])()


def _entry(command: str) -> Callable[[], int]:
    return {"train": train, "evaluate": evaluate, "predict": predict, "demo": demo, "export": export}[command]


def train() -> int:
    """Train a model as the command line says; return the exit code."""
    if any(argument.startswith("cluster") for argument in sys.argv[1:]):
        return _guarded(_train_on_cluster)
    return _run("train", _train_job)


def _train_on_cluster() -> None:
    from zoo.training.cluster import asked, on_cluster

    sys.argv[1:], options = asked(sys.argv[1:])
    if options is None:
        _hydra_main("train", _train_job, sys.argv[1:])
    else:
        on_cluster(train, sys.argv[1:], options)


def evaluate() -> int:
    """Evaluate a finished run as the command line says; return the exit code."""
    sys.argv[1:] = map(quoted_text, sys.argv[1:])
    return _run("evaluate", _evaluate_job)


_TEXTS = ("prompt", "generate.prompt", "generate.stop")


def quoted_text(argument: str) -> str:
    """Return an argument that is a text as Hydra reads it whole: blanks at its ends, commas and braces are part of it.

    >>> quoted_text("generate.prompt=def "), quoted_text("prompt=[a,b]"), quoted_text("split=val")
    ('generate.prompt="def "', 'prompt=[a,b]', 'split=val')
    """
    key, _, text = argument.partition("=")
    if key not in _TEXTS or text[:1] in ("", "[", "'", '"') or text == "null":
        return argument
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + (found[2] and "\\" + found[2]), text)
    return f'{key}="{escaped}"'


def predict() -> int:
    """Predict new rows with a finished run as the command line says; return the exit code."""
    return _run("predict", _predict_job)


def export() -> int:
    """Write a finished run as one file for other programs as the command line says; return the exit code."""
    return _run("export", _export_job)


def demo() -> int:
    """Show a finished run in the browser as the command line says; return the exit code."""
    return _run("demo", _demo_job)


def _run(command: str, job: Callable[[DictConfig], Any]) -> int:
    """Do what the command line asks of a command: to list, to explain, or its job."""
    arguments = sys.argv[1:]
    wanted = [argument.removeprefix("list=") for argument in arguments if argument.startswith("list=")]
    if wanted and command == "train":
        return _guarded(lambda: _list(wanted[0]))
    if {"--help", "-h"} & set(arguments):
        return _guarded(lambda: _help(command, [a for a in arguments if not a.startswith("-")]))
    return _guarded(lambda: _hydra_main(command, job, arguments))


class _Notes(logging.Handler):
    """Prints to standard output, or to standard error where the output is the answer itself."""

    to_errors = False

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr if self.to_errors else sys.stdout, flush=True)


def _show_notes(to_errors: bool = False) -> None:
    """Print what the zoo notes, such as how a text column was coded; the first process alone says it."""
    notes = logging.getLogger("zoo")
    if global_rank() != 0:
        return
    if not notes.handlers:
        notes.addHandler(_Notes())
        notes.setLevel(logging.INFO)
    for handler in notes.handlers:
        if isinstance(handler, _Notes):
            handler.to_errors = to_errors


def _train_job(config: DictConfig) -> Outcome:
    from omegaconf import OmegaConf

    # Before Lightning is imported, which takes seconds.
    check_config(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    from zoo.training.run import train_run

    _show_notes()
    return train_run(config)


def _evaluate_job(config: DictConfig) -> None:
    from zoo.training.evaluation import evaluate_run

    _show_notes()
    evaluate_run(config)


def _predict_job(config: DictConfig) -> None:
    from zoo.training.predict import predict_run

    _show_notes(to_errors=config.output == "-")
    predict_run(config)


def _export_job(config: DictConfig) -> None:
    from zoo.training.export import export_run

    _show_notes()
    export_run(config)


def _demo_job(config: DictConfig) -> None:
    from zoo.training.demo.command import demo_run

    _show_notes()
    demo_run(config)


def _list(what: str) -> None:
    from zoo.training.tables import LISTS, print_list

    if what not in LISTS:
        raise unknown_name("list", what, LISTS)
    print_list(what)


def _help(command: str, about: list[str]) -> None:
    """Explain the keys in `about`, for the choices that stand among them, or the command."""
    from zoo.training.reference import GROUPS, print_help, print_key

    chosen = dict(word.split("=", 1) for word in about if word.partition("=")[0] in GROUPS and "=" in word)
    keys = [word for word in about if "=" not in word]
    for key in keys or [f"{group}={name}" for group, name in chosen.items()]:
        print_key(key, chosen, command)
    if not about:
        print_help(command)


def _hydra_main(name: str, job: Callable[[DictConfig], Any], arguments: list[str]) -> None:
    import hydra

    _register_sweeper()

    sys.argv[1:] = arguments = [_quoted(argument) for argument in arguments]
    check_groups(arguments)
    for argument in arguments:  # before the config is composed: a plugin's model may be chosen in it
        if argument.startswith("plugins="):
            import_plugins(module_names(argument.removeprefix("plugins=")))
    _store_foreign_models(arguments)
    from zoo.training.sweep import Sweep
    from zoo.training.trials import Pruned, current, search_of

    failures: list[Exception] = []
    search_of.sweep = sweep = Sweep()

    def guarded(config: DictConfig) -> float | None:
        number = _number_in_sweep()
        try:
            outcome = job(config)
        except Pruned as error:
            if number is not None:
                _add(sweep, number, failure=str(error))
            return None
        except Exception as error:  # raised through Hydra, it would print a line of its own
            failures.append(error)
            if number is not None:
                _add(sweep, number, failure=explain(error) or f"{type(error).__name__}: {error}")
            return None
        if number is not None:
            _add(sweep, number, outcome)
        if (trial := current()) is not None:
            trial.outcome = outcome
        return outcome and outcome.value  # which sweepers look for

    try:
        hydra.main(config_path=str(config_dir()), config_name=name, version_base="1.3")(guarded)()
    except Exception as error:
        if global_rank() == 0:
            sweep.leave_nothing_if_refused()
        if explain(error) is not None:
            raise
        # Of the job nothing comes out here: it is the command line that Hydra fails at.
        raise ZooError(f"the command line is not understood: {' '.join(str(error).split())}") from error
    finally:
        sweep.collect()
        if sweep.runs and global_rank() == 0:
            sweep.leave_nothing_if_refused()
            sweep.print()
    if len(sweep.runs) > 1 and global_rank() == 0:
        from zoo.training.sweep_ways import draw_ways  # Lightning has been imported by then

        draw_ways(sweep)
    failed = [str(run.number) for run in sweep.runs if run.failed]
    if failed and not failures:  # in processes of their own
        raise ZooError(f"{len(failed)} of {len(sweep.runs)} runs failed: {', '.join(failed)}.")
    if failures:  # of a sweep, the first: the other jobs have run
        if failed and explain(failures[0]) is not None:
            raise ZooError(f"{len(failed)} of {len(sweep.runs)} runs failed: {', '.join(failed)}.") from failures[0]
        raise failures[0]


def _quoted(argument: str) -> str:
    """Return an override with its value in quotes where Hydra's grammar does not know a sign in it, such as ä or (.

    >>> _quoted("data.path=Daten für mich (1).csv")
    "data.path='Daten für mich (1).csv'"
    """
    key, equals, value = argument.partition("=")
    if not equals or not value or argument.startswith("-") or value[0] in "[{'\"" or "${" in value:
        return argument
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    def understood(override: str) -> bool:
        try:
            OverridesParser.create().parse_override(override)
        except HydraException:
            return False
        return True

    # Within quotes a backslash is itself, but before a quote, where it has to be doubled.
    inside = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    quoted = f"{key}='{inside}'"
    return quoted if (value.isspace() or not understood(argument)) and understood(quoted) else argument


def _number_in_sweep() -> int | None:
    """The number of the run that begins, announced; None outside of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or global_rank() != 0:
        return None
    number = int(hydra.job.num)
    print(f"{chr(10) * (number > 0)}run {number} of the sweep: {' '.join(hydra.overrides.task)}", flush=True)
    return number


def _add(sweep: Sweep, number: int, outcome: Outcome | None = None, failure: str = "") -> None:
    from hydra.core.hydra_config import HydraConfig

    from zoo.training.sweep import Run, parts_of

    if failure:
        _say(f"run {number} {'was' if failure.startswith('pruned') else 'failed:'} {failure}")
    sweep.add(Run(number, parts_of(HydraConfig.get().overrides.task), outcome, failure))


def _register_sweeper() -> None:
    """Hand Hydra what it finds by itself, unless the package is an editable installation elsewhere."""
    from hydra.core.plugins import Plugins

    known = Plugins.instance()  # which imports the module, if it finds it
    from hydra_plugins.zoo_sweeps import OptunaSweeper

    known.register(OptunaSweeper)


def _store_foreign_models(arguments: list[str]) -> None:
    """Give the models that other packages registered a config of their defaults."""
    chosen = {name for a in arguments if a.startswith("model=") for name in a.removeprefix("model=").split(",")}
    if all((config_dir() / "model" / f"{name}.yaml").exists() for name in chosen):
        return
    if not (entry_points(group="zoo.models") or any(a.startswith("plugins=") for a in arguments)):
        return  # nobody has registered anything, and a mistyped name need not wait for torch
    from hydra.core.config_store import ConfigStore

    from zoo.registry import list_models, model_entry

    for name in chosen & set(list_models()):
        if not (config_dir() / "model" / f"{name}.yaml").exists():
            defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in model_entry(name).hyperparameters.items()}
            ConfigStore.instance().store(group="model", name=name, node={"name": name, **defaults})


def _guarded(command: Callable[[], None]) -> int:
    """Run a command; whatever a user can get wrong becomes one line and a non-zero exit code."""
    # Hydra prints its errors itself, over several lines, unless told to let them through.
    asked = os.environ.setdefault("ZOO_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
    traceback = asked or any(a in ("debug=true", "debug=True") for a in sys.argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="replace")  # a × that a terminal does not know is no reason to fail
    try:
        with warnings.catch_warnings(), _terminable():
            if not traceback:
                warnings.showwarning = _show_warning  # type: ignore[assignment]
            command()
        return 0
    except KeyboardInterrupt:
        return _interrupted()
    except BaseException as error:
        if isinstance(code := getattr(error, "code", None), int) and not isinstance(error, Exception):
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes it an exit with code 1
                return _interrupted()
            if hasattr(error, "saved") and global_rank() == 0:  # a run that a signal ended
                _say(f"{error} {_how_to_go_on(error.saved)}")
            return code
        line = explain(error)
        if traceback or line is None:
            raise
        _say(f"error: {line}")
        return 1


def _say(line: str) -> None:
    """Print to standard error: one line, which a terminal gets folded between words."""
    if sys.stderr.isatty():
        line = textwrap.fill(line, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr, flush=True)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning in one line, from the first process alone."""
    if global_rank() == 0:
        _say(f"warning: {' '.join(str(message).split())}")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Say so where SIGTERM ends a command; training, which has something to save, has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: Any) -> None:
        if global_rank() == 0:
            _say("error: terminated, while nothing was being trained.")
        os._exit(128 + signum)  # an exception would go through whatever is being imported, and torch aborts then

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _interrupted() -> int:
    _say("error: interrupted, before there was anything to save.")
    return 130


def _how_to_go_on(saved: Path | None) -> str:
    """What a run that was stopped leaves, and what to type to go on with it."""
    if saved is None:
        return "Nothing was saved."
    if any(argument.startswith("run_dir=") for argument in sys.argv):
        return "Repeat the command to go on."
    from zoo.training.terminal import shown_path

    return f"Repeat the command with run_dir={shown_path(saved.parents[1])} to go on."


def explain(error: BaseException) -> str | None:
    """Return one line for an error that a user can mend, or None for a defect that deserves its traceback."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, ZooError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing_config(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error.strerror or error)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not an override of the form key=value."
    if type(error).__name__ == "MisconfigurationException" or (isinstance(error, ValueError) and _by_lightning(error)):
        return f"trainer: {' '.join(str(error).split())}"
    if is_too_large(error):
        elsewhere = ", or take trainer.accelerator=cpu" if "CU" in str(error) else ""  # of CUDA or cuBLAS
        return f"out of memory: lower data.batch_size or the model's sizes{elsewhere}."
    chain = error
    while chain is not None:
        if isinstance(chain, MissingMandatoryValue):
            key = str(chain.full_key or chain.key)
            return f"{key} is missing: pass {key}=..."
        if isinstance(chain, OmegaConfBaseException) and chain.key is not None and chain.parent_node is not None:
            return _explain_key(chain)
        chain = chain.__cause__  # type: ignore[assignment]
    if str(error).startswith("Error merging override ") and not isinstance(
        error.__cause__, ZooError
    ):  # a mapping for a list
        override = str(error).removeprefix("Error merging override ").splitlines()[0]
        key = override.partition("=")[0].lstrip("+")
        return (
            f"{key} must be of the kind that its default is, not {override.partition('=')[2]}: zoo help {key} shows it."
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    return None


def _by_lightning(error: BaseException) -> bool:
    """Whether Lightning raised it, which refuses some combinations of options only when it begins."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__")).startswith("lightning.")


def _explain_missing_config(error: Any) -> str:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if name and group == "optimizer":
        from zoo.optimizers.recipe import common_optimizers

        return str(unknown_name(group, name, common_optimizers()))
    if name.startswith("launcher/submitit"):
        return f"{group}/{name.replace('/', '=')} needs the package hydra-submitit-launcher: pip install it."
    if name and error.options:
        return str(unknown_name(group, name, error.options))
    return " ".join(str(error).split())


def _explain_key(error: Any) -> str:
    valid = [str(key) for key in error.parent_node if key != "name"] if hasattr(error.parent_node, "keys") else []
    key, full = str(error.key), str(error.full_key or error.key)
    if key in valid:
        return " ".join(str(error).split())
    where = full.rpartition(".")[0] or "the config"
    remedy = instead(full) or nearest(key, valid)
    return f"{where} has no key '{key}'.{remedy} Valid: {', '.join(valid)}."
