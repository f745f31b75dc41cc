"""Where curves go: TensorBoard, with an HParams tab that compares runs of different families, and other loggers."""

from __future__ import annotations

import importlib.util
import io
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from zoo.errors import ZooError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN = 1.0  # seconds after which TensorBoard sees what was logged
QUEUE = 1000  # records that wait for TensorBoard's thread at most

__all__ = ["LOGGERS", "RunLogger", "make_loggers", "png_of", "show_png"]


class RunLogger(TensorBoardLogger):
    """Lightning's logger, writing straight into the run folder and the hyperparameters once, with the final metrics.

    The values of steps are kept for a second, with the moments that they are of, before they go to TensorBoard's thread
    together: each time that it wakes it takes a core from the threads of a step.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__(save_dir=run_dir, name="", version="", max_queue=QUEUE)
        self._flushed_at = time.monotonic()
        self._kept: list[tuple[dict[str, float], int | None, float]] = []  # values, step, seconds since 1970

    @property
    def experiment(self) -> Any:
        """TensorBoard's writer, which has all that was logged before."""
        writer = super().experiment
        if self._kept:
            from tensorboard.compat.proto.summary_pb2 import Summary

            kept, self._kept = self._kept, []
            for values, step, moment in kept:
                record = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
                writer._get_file_writer().add_summary(Summary(value=record), step, moment)
        return writer

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Do nothing: Lightning's summary of the experiment would make TensorBoard take one run's columns for all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        """Take the values of a step as one record, which costs little more than one value."""
        if any(isinstance(value, dict) for value in metrics.values()):  # several curves in one chart
            super().log_metrics(dict(metrics), step)
            return
        self._kept.append(({name: float(value) for name, value in metrics.items()}, step, time.time()))
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Let those who look on see what was logged, once a second: Lightning asks at every step that is logged."""
        if time.monotonic() - self._flushed_at >= SEEN:
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Wait until all that was logged is in the file."""
        self._flushed_at = time.monotonic()
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest, however the run has ended."""
        if self._kept:
            self.flush()
        super().finalize(status)

    @rank_zero_only
    def log_config(self, text: str) -> None:
        """Show the resolved config in the text tab."""
        self.experiment.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))  # Markdown for code

    @rank_zero_only
    def log_diagnosis(self, text: str, curves: Mapping[str, Sequence[float]], step: int) -> None:
        """Show what a training came to in the text tab, and beside it the losses that it is told by."""
        from zoo import visual

        self.experiment.add_text("diagnosis", text, step)
        lengths = {len(curve) for curve in curves.values()}
        if len(lengths) == 1 and lengths.pop() > 1:  # a validation for each epoch
            figure = visual.curve(curves, title=text.partition(":")[0], xlabel="epoch", ylabel="loss")
            show_png(self.experiment, "diagnosis", png_of(figure), step)

    @rank_zero_only
    def log_run(self, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the session's hyperparameters; TensorBoard finds their metrics among the scalars."""
        from torch.utils.tensorboard.summary import hparams as summaries

        plain = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in hparams.items() if v is not None}
        _, start, end = summaries(plain, dict(metrics))
        self.experiment._get_file_writer().add_summary(start)
        self.experiment._get_file_writer().add_summary(end)
        self.experiment.flush()


def png_of(figure: Figure) -> bytes:
    """Return a picture as what a PNG file of it holds."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=120, bbox_inches="tight")
    return memory.getvalue()


def show_png(writer: Any, tag: str, png: bytes, step: int) -> None:
    """Show a PNG file's content in TensorBoard.

    `SummaryWriter.add_figure` renders the figure once more, which takes longer than all else that a small run ends
    with, and imports pyplot, which takes longer still.

    Args:
        writer: TensorBoard's SummaryWriter.
        tag: the picture's name.
        png: its content.
        step: the step that it is of.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))  # in the header of each PNG file
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


LOGGERS = ("tensorboard", "csv", "wandb", "mlflow")


def make_loggers(names: Iterable[str], run_dir: Path) -> list[Logger]:
    """Return the loggers of a run by name; one whose package is missing raises in one line.

    Example:
        >>> [type(logger).__name__ for logger in make_loggers(["tensorboard"], Path("run"))]
        ['RunLogger']
    """
    return [_make_logger(name, run_dir) for name in dict.fromkeys(names)]


def _make_logger(name: str, run_dir: Path) -> Logger:
    if name == "tensorboard":
        return RunLogger(str(run_dir))
    if name == "csv":
        return CSVLogger(str(run_dir), name="", version="")
    package = {"wandb": "wandb", "mlflow": "mlflow-skinny"}[name]
    if importlib.util.find_spec(name) is None:
        raise ZooError(f"logger={name} needs the package {package}: pip install 'refzoo[{name}]'.")
    if name == "wandb":
        return WandbLogger(save_dir=str(run_dir), name="/".join(run_dir.parts[-3:]), offline=True)
    os.environ.setdefault(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # a folder of the run; a database would need a package more
    return MLFlowLogger(tracking_uri=(run_dir / "mlruns").as_uri(), run_name="/".join(run_dir.parts[-3:]))
