"""Pictures, graph and projector of a trained model: in TensorBoard and as PNG files."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import nn

from zoo import visual
from zoo.data.spec import Batch
from zoo.models.base import ZooModel
from zoo.training.checkpoint import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "held_out"]

MAX_ROWS = 2000  # enough for any picture, little enough for any model
log = logging.getLogger(__name__)


def held_out(model: ZooModel, data: Any, split: str) -> Batch:
    """Return up to `MAX_ROWS` rows of a split, spread evenly over it."""
    rows = data.rows(split)
    index = torch.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).round().long()
    return model.as_batch(rows[index])


@torch.inference_mode()
def draw(model: ZooModel, data: Any, split: str, folder: Path, writer: Any = None) -> list[Path]:
    """Draw the model's pictures on held-out rows; return the PNG files.

    Args:
        model: the trained model.
        data: its DataModule.
        split: whose rows.
        folder: where the PNG files go.
        writer: TensorBoard's SummaryWriter, or None.
    """
    model.eval()
    batch = held_out(model, data, split)
    columns = model.predict_batch(batch)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, rows in model.tables():
        write_csv(folder.parent / f"{name}.csv", rows)
    with visual.rows_of(split):
        for name, figure in (*model.pictures(batch, columns), *_threshold_pictures(model, batch, columns)):
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1], dpi=120, bbox_inches="tight")
            if writer is not None:
                writer.add_figure(name, figure, global_step=model.global_step or model.current_epoch)
    if writer is not None:
        sample = data.sample() if hasattr(data, "sample") else []
        if sample:
            writer.add_text("tokens", token_table(sample))
        _extras(model, batch, columns, writer)
        writer.flush()
    return files


def _threshold_pictures(
    model: ZooModel, batch: Batch, columns: dict[str, torch.Tensor]
) -> Iterator[tuple[str, Figure]]:
    """Yield the curves over all thresholds of any model that gives classes a probability."""
    probability, spec = columns.get("probability"), model.spec
    if spec is None or spec.target != "class" or batch.y is None or probability is None or probability.ndim != 2:
        return
    if len(batch.y.unique()) > 1 and bool(probability.isfinite().all()):
        yield "roc", visual.roc(batch.y, probability, spec)
        yield "precision_recall", visual.precision_recall(batch.y, probability, spec)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table with a header line; one without rows gives an empty file."""

    def write(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, newline="", encoding="utf8")
        writer = csv.DictWriter(text, rows[0] if rows else [])
        if rows:
            writer.writeheader()
        writer.writerows(rows)
        text.detach()  # flushed, and the file is left open

    write_whole(path, write)


def _extras(model: ZooModel, batch: Batch, columns: dict[str, torch.Tensor], writer: Any) -> None:
    for name, values in model.curves():
        for number, value in enumerate(values, 1):
            writer.add_scalar(name, value, global_step=number)
    for name, text in model.texts():
        writer.add_text(name, text)
    embeddings = model.embeddings(batch, columns)
    if embeddings is not None:
        points, labels = embeddings
        writer.add_embedding(points, metadata=labels, tag=model.entry.name)
    if any(True for _ in model.parameters()) and type(model).forward is not pl.LightningModule.forward:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                named = type(model.entry.name, (_Forward,), {})  # the name that the graph shows
                writer.add_graph(named(model), model.graph_input(batch))
        except Exception as error:  # tracing is a convenience, and not every model can be traced
            log.info("No graph for TensorBoard: %s", error)


def token_table(sample: list[tuple[str, int]]) -> str:
    """Return tokens above their ids as a table in Markdown."""
    tokens, ids = [token.replace("|", "\\|") for token, _ in sample], [str(number) for _, number in sample]
    return "\n".join(f"|{'|'.join(row)}|" for row in (["token", *tokens], ["---"] * (1 + len(ids)), ["id", *ids]))


class _Forward(nn.Module):
    """The model's forward alone: tracing a LightningModule would ask for its trainer."""

    def __init__(self, model: ZooModel) -> None:
        super().__init__()
        for name, child in model.named_children():
            if name != "evaluations":
                self.add_module(name, child)
        self.call = [model.forward]  # in a list, so that the model is no submodule

    def forward(self, x: torch.Tensor) -> Any:
        return self.call[0](x)
