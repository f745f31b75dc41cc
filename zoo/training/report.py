"""What a run says of itself: what it begins with, where it goes on, how it ended, and what to do next."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo import kernels
from zoo.training.terminal import called, duration, make_console, print_folded, shown_path

__all__ = ["Course", "print_end", "print_metrics", "print_row", "print_start"]

LABEL = 13  # columns of the words at the left


def print_start(
    trainer: pl.Trainer, model: Any, data: Any, name: str, run_dir: Path, console: Console | None = None
) -> None:
    """Print what is trained on what, by what, and where the run goes."""
    console = console or make_console()
    parameters = sum(p.numel() for p in model.parameters()) if not model.streaming else 0
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    some = f", {learning:,} of which learn" if learning < parameters else ""
    size = f" ({parameters:,} parameters{some})" if parameters else ""
    rows = ", ".join(f"{len(data.rows(split)):,} {split}" for split in ("train", "val", "test") if data.has(split))
    facts = [
        f"{rows} {units_of(data.spec.kind)}",
        *shape_of(data.spec, targets=not model.entry.unsupervised),
        *machine(trainer),
    ]
    text = Text.assemble((model.entry.name, "bold"), size, " on ", (name, "bold"), ": ", ", ".join(facts))
    print_folded(console, text)
    sample = data.sample() if hasattr(data, "sample") else []
    if sample:
        print_row(console, "tokens", " ".join(token for token, _ in sample))
        print_row(console, "ids", " ".join(str(number) for _, number in sample))
    if not getattr(trainer, "fast_dev_run", False):  # which leaves nothing behind
        print_row(console, "run folder", shown_path(run_dir), whole=True)


def units_of(kind: str) -> str:
    """Return what an example of a kind of data is called."""
    names = {"image": "images", "transactions": "baskets", "tokens": "texts", "series": "windows", "pairs": "pairs"}
    return names.get(kind, "sequences" if kind == "sequence" else "rows")


def shape_of(spec: Any, targets: bool = True) -> list[str]:
    """Say the shape of the inputs and what is to be learnt from them, where a model looks at `targets`."""
    shape = "×".join(map(str, spec.shape))
    facts = [f"{spec.num_features:,} feature{'s' * (spec.num_features != 1)}" if spec.kind == "tabular" else shape]
    if spec.vocab_size:
        facts.append(f"{spec.vocab_size:,} {'items' if spec.kind == 'transactions' else 'tokens'}")
    if not targets:
        return [fact for fact in facts if fact]
    if spec.target == "class":
        facts.append(f"{spec.num_classes:,} classes")
    elif spec.target == "value":
        facts.append(f"{spec.num_targets} value{'s' * (spec.num_targets != 1)}")
    return [fact for fact in facts if fact]


def machine(trainer: pl.Trainer) -> list[str]:
    """Say what computes."""
    device = trainer.strategy.root_device
    facts = [str(device)]
    if device.type == "cuda":
        import torch

        facts = [f"{device} ({torch.cuda.get_device_name(device)})"]
    if trainer.world_size > 1:
        facts.append(f"{trainer.world_size} processes")
    if trainer.precision != "32-true":
        facts.append(f"precision {trainer.precision}")
    if device.type == "cpu":
        facts.append(f"kernels {kernels.status().variant or 'none'}")
    if device.type == "cuda":
        facts.append(f"kernels {kernels.status().gpu or 'none'}")
    return facts


def print_row(console: Console, label: str, text: str, *, whole: bool = False) -> None:
    """Print a label and what it says, folded beside it; what a user copies is left `whole`."""
    print_folded(console, text, f"{label:<{LABEL}}", whole=whole)


class Course(Callback):
    """Say where a resumed run goes on, and remember what its end is told by."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.began: float | None = None  # None: there was nothing to train
        self.seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self.began = time.monotonic()
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            name, steps = ("pass" if model.streaming else "epoch"), trainer.global_step
            where = f"{name} {trainer.current_epoch}" + (f", step {steps:,}" if steps else "")
            print_row(self.console, "resumed", f"going on in {where}, from the last checkpoint")

    def on_train_end(self, trainer: pl.Trainer, model: Any) -> None:
        self.seconds = time.monotonic() - (self.began or time.monotonic())


def how_ended(trainer: Any, model: Any, course: Course) -> str:
    """Say after how many epochs the training ended, and why."""
    count, steps = trainer.current_epoch, trainer.global_step
    what = ("pass" if count == 1 else "passes") if model.streaming else ("epoch" if count == 1 else "epochs")
    after = f"after {count:,} {what}" + (f", {steps:,} steps" if steps else "")
    if course.began is None:
        limit = "trainer.max_steps" if trainer.max_steps > 0 else "trainer.max_epochs"
        more = "" if trainer.should_stop else f"; raise {limit} to train on"
        return f"{after}, in an earlier run: nothing was left to train{more}"
    return f"{after} in {duration(course.seconds)}: {reason(trainer, model)}"


def reason(trainer: Any, model: Any) -> str:
    """Say what made a training end."""
    stopping = next((c for c in trainer.callbacks if isinstance(c, EarlyStopping)), None)
    if stopping is not None and stopping.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
        verb = "fallen" if stopping.mode == "min" else "risen"
        return f"stopped early, as {stopping.monitor} has not {verb} for {stopping.patience} validations"
    if model.streaming and model.done:
        return "the model is done"
    timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)
    if timer is not None and (timer.time_remaining() or 0) <= 0:
        return "trainer.max_time is over"
    if trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps:
        return f"trainer.max_steps={trainer.max_steps}"
    return f"trainer.max_epochs={trainer.max_epochs}"


def print_end(
    trainer: Any,
    model: Any,
    course: Course,
    *,
    best: tuple[str, int] | None,
    value: float | None,
    run_dir: Path,
) -> None:
    """Print how the training ended, and which checkpoint is the best.

    Args:
        trainer: after the fit.
        model: the model.
        course: what was remembered.
        best: the name of the kept checkpoint and its epoch, where there is one.
        value: the monitored value at it.
        run_dir: the run folder.
    """
    print_row(course.console, "ended", how_ended(trainer, model, course))
    if best is not None:
        name, epoch = best
        which = "pass" if model.streaming else "epoch"
        seen = (
            f"{model.monitor} {value:.6g} in {which} {epoch}"
            if model.monitor and value is not None
            else f"{which} {epoch}"
        )
        print_row(course.console, name, f"{seen}: checkpoints/{name}.ckpt")
    for file in sorted(run_dir.glob("*profile*.txt")):
        print_row(course.console, "profile", shown_path(file), whole=True)


def print_metrics(
    model: str,
    data: str,
    metrics: dict[str, float],
    run_dir: Path,
    of: Mapping[str, str],
    hints: Sequence[str] = (),
    written: Path | None = None,
    console: Console | None = None,
) -> None:
    """Print the metrics, each with the checkpoint or epoch that it is `of`, where more lies, and what to do next.

    Args:
        model: its name.
        data: their name.
        metrics: by name.
        run_dir: the run folder.
        of: the checkpoint or epoch of each.
        hints: what to go on with, of `evaluate`, `predict` and `look`.
        written: where in the run an evaluation lies.
        console: where; standard output by default.
    """
    console = console or make_console()
    table = Table("metric", "value", "of", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[:2]:
        column.no_wrap = True
    for name, value in sorted(metrics.items()):
        table.add_row(name, f"{value:.6g}", of.get(name, ""))
    console.print(Text.assemble((model, "bold"), " on ", (data, "bold")))
    console.print(table)
    commands = {
        "evaluate": f"{called('evaluate')} run={shown_path(run_dir)}",
        "predict": f"{called('predict')} run={shown_path(run_dir)} data.path=FILE",
        "look": "tensorboard --logdir runs",
    }
    print_row(console, "run folder", shown_path(run_dir), whole=True)
    if written is not None:
        print_row(console, "written to", shown_path(written), whole=True)
    for hint in hints:
        print_row(console, hint, commands[hint], whole=True)
