"""How far a training has come: one line that is drawn anew on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zoo.training.terminal import duration, make_console

__all__ = ["Progress", "Standing"]

REDRAWN = 0.1  # least seconds between two drawings of the line
WIDEST_BAR, NARROWEST_BAR = 30, 8
FIRST_LINES = 10  # epochs that a plain log shows one by one
WITHIN = 30.0  # least seconds between two lines within an epoch


@dataclass(frozen=True)
class Standing:
    """How far a training has come, at one moment.

    Attributes:
        name: what is counted: `epoch`, or `pass` for a model that is solved.
        number: of the epoch, from 0 as in TensorBoard and `history.csv`.
        last: number of the last epoch, where it is known.
        batch: batches of the epoch that are done.
        batches: batches of an epoch, where that is known.
        values: what to show, the most important first.
        elapsed: seconds since the start.
        left: seconds to go, where that can be said.
        doing: `validation` or `test` while that is being done.
    """

    name: str
    number: int
    last: int | None = None
    batch: int = 0
    batches: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    left: float | None = None
    doing: str = ""

    @property
    def title(self) -> str:
        """Such as `epoch 3/19`."""
        if self.doing == "test":
            return "test"
        count = f"{self.name} {self.number}" + (f"/{self.last}" if self.last else "")
        return f"{count} {self.doing}" if self.doing else count

    @property
    def time(self) -> str:
        return f"{duration(self.elapsed)}" if self.left is None else f"{duration(self.left)} left"

    def bar(self, width: int) -> Table:
        """The line of a terminal: what does not fit into `width` is left out, the least important first."""
        counted = f"{self.batch:{len(str(self.batches))}}/{self.batches}" if self.batches else f"batch {self.batch}"
        shown, free = [], width - len(self.title) - len(counted) - len(self.time) - 7
        for name, value in self.values.items():
            text = f"{name} {value:.4g}"
            if free - len(text) - 2 < NARROWEST_BAR * bool(self.batches):
                break
            shown.append(text)
            free -= len(text) + 2
        cells: list[Any] = [Text(self.title, "bold")]
        if self.batches and free >= NARROWEST_BAR:
            bar_width = min(free, WIDEST_BAR)
            cells.append(ProgressBar(self.batches, self.batch, width=bar_width, style="dim", complete_style="green"))
        cells += [Text(counted, "dim"), *map(Text, shown), Text(self.time, "cyan")]
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line

    def line(self, width: int) -> str:
        """A line of a log, of as many values as fit into `width`."""
        part = f" {100 * self.batch // self.batches} %" if self.doing == "training" and self.batches else ""
        text = self.title.removesuffix(" training") + part
        ending = f"  {duration(self.elapsed)}" + ("" if self.left is None else f", {self.time}")
        for name, value in self.values.items():
            more = f"  {name} {value:.4g}"
            if len(text) + len(more) + len(ending) > width:
                break
            text += more
        return text + ending


class Progress(Callback):
    """Show how far the training has come, from the first process alone.

    A terminal gets one line, drawn anew ten times a second at most and gone at the end. A pipe, a file and a dumb
    terminal get plain lines: of the first epochs each, then one when a fiftieth of the time so far has gone by since
    the last, and within an epoch that takes minutes. Numbers are read from the model's device only when they are shown.

    Args:
        console: where; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.draws = self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty()
        self.live: Live | None = None
        self.began = self.shown_at = time.monotonic()
        self.begun_at = 0.0  # share of the work that was done before
        self.lines = 0

    # -- hooks ---------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, model: Any) -> None:
        self.began = self.shown_at = time.monotonic()
        self.begun_at = share_done(trainer, model) or 0.0
        self.lines = 0
        self._open(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        if self.live is not None:
            if now - self.shown_at >= REDRAWN:
                self._draw(self.standing(trainer, model))
        elif now - self.shown_at >= WITHIN and now - self.shown_at >= self._pause(now):
            self._print(trainer, self.standing(trainer, model, doing="training"))

    def on_validation_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        self._draw_loop(trainer, model, "validation")

    def on_test_batch_end(self, trainer: pl.Trainer, model: Any, *args: Any) -> None:
        self._draw_loop(trainer, model, "test")

    def on_train_epoch_end(self, trainer: pl.Trainer, model: Any) -> None:
        _ = trainer.callback_metrics  # the epoch's means, which processes may have to pool: in all of them
        now = time.monotonic()
        if self.live is not None:
            if now - self.shown_at >= REDRAWN:
                self._draw(self.standing(trainer, model))
        elif self.lines < FIRST_LINES or now - self.shown_at >= self._pause(now) or is_over(trainer, model):
            self._print(trainer, self.standing(trainer, model, ended=True))

    def on_train_end(self, *args: Any) -> None:
        self._close()

    def on_test_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.began = self.shown_at = time.monotonic()
        self._open(trainer)

    def on_test_end(self, *args: Any) -> None:
        self._close()

    def on_exception(self, *args: Any) -> None:
        self._close()

    # -- what is shown -------------------------------------------------------------------------------------------

    def standing(self, trainer: pl.Trainer, model: Any, doing: str = "", ended: bool = False) -> Standing:
        """Return how far the training has come; `ended` at the end of an epoch, whose means then stand for it."""
        batches = trainer.num_training_batches
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        metrics = trainer.callback_metrics if ended else trainer.progress_bar_metrics
        elapsed, share = time.monotonic() - self.began, share_done(trainer, model, ended)
        left = None
        if share is not None and self.begun_at < share < 1 and elapsed > 1:
            left = elapsed * (1 - share) / (share - self.begun_at)
        total = epochs_in_all(trainer, model)
        return Standing(
            name="pass" if model.streaming else "epoch",
            number=trainer.current_epoch,
            last=None if total is None else total - 1,
            batch=progress.processed,
            batches=int(batches) if math.isfinite(batches) else None,
            values=in_order({key: float(value) for key, value in metrics.items()}, model.monitor),
            elapsed=elapsed,
            left=left,
            doing=doing,
        )

    def _pause(self, now: float) -> float:
        return max(1.0, 0.02 * (now - self.began))

    def _draw_loop(self, trainer: Any, model: Any, doing: str) -> None:
        """Draw the line of a validation or a test."""
        if self.live is None or time.monotonic() - self.shown_at < REDRAWN:
            return
        loop = trainer.test_loop if doing == "test" else trainer.fit_loop.epoch_loop.val_loop
        total = sum(n for n in loop.max_batches if math.isfinite(n))
        standing = Standing(
            name="pass" if model.streaming else "epoch",
            number=trainer.current_epoch,
            batch=loop.batch_progress.current.processed,
            batches=int(total) or None,
            elapsed=time.monotonic() - self.began,
            doing=doing,
        )
        self._draw(standing)

    def _open(self, trainer: pl.Trainer) -> None:
        if self.draws and trainer.is_global_zero and self.live is None:
            self.live = Live(
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),  # a file gets its own
            )
            self.live.start()

    def _close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _draw(self, standing: Standing) -> None:
        assert self.live is not None
        self.live.update(standing.bar(self.console.width), refresh=True)
        self.shown_at = time.monotonic()

    def _print(self, trainer: pl.Trainer, standing: Standing) -> None:
        self.shown_at = time.monotonic()
        self.lines += 1
        if trainer.is_global_zero:
            self.console.print(standing.line(self.console.width), soft_wrap=True)


def epochs_in_all(trainer: Any, model: Any) -> int | None:
    """Return how many epochs there will be at most, where the trainer or the model knows it."""
    limits = [trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None]
    limits.append(model.passes_needed if model.streaming else None)
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def share_done(trainer: Any, model: Any, ended: bool = False) -> float | None:
    """Return the share of the training that is done, 0 to 1; None where nobody knows how long it will be."""
    total = epochs_in_all(trainer, model)
    batches = trainer.num_training_batches
    shares = []
    if total:
        within = trainer.fit_loop.epoch_loop.batch_progress.current.processed / batches if batches else 0.0
        shares.append((trainer.current_epoch + (1.0 if ended else min(within, 1.0))) / total)
    if trainer.max_steps and trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares) if shares else None


def is_over(trainer: Any, model: Any) -> bool:
    """Whether the epoch that ends is the last."""
    total = trainer.max_epochs
    return (
        trainer.should_stop
        or (model.streaming and model.done)
        or (total is not None and 0 <= total <= trainer.current_epoch + 1)
        or 0 <= trainer.max_steps <= trainer.global_step
    )


def in_order(values: Mapping[str, float], monitor: str | None) -> dict[str, float]:
    """Return values to show: of the training first, then the monitored one, then the others; of each one form.

    >>> in_order({"val/f1": 0.4, "val/accuracy": 0.5, "train/loss_step": 2.0}, "val/accuracy")
    {'loss': 2.0, 'val/accuracy': 0.5, 'val/f1': 0.4}
    """
    names = [name for name in values if not (name.endswith("_step") and name.removesuffix("_step") in values)]
    names.sort(key=lambda name: (not name.startswith("train/"), name != monitor))
    return {name.removeprefix("train/").removesuffix("_step"): values[name] for name in names if name != "v_num"}
