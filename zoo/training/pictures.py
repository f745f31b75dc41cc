"""Pictures, graph and projector of a trained model: in TensorBoard and as PNG files."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from zoo import visual
from zoo.data.spec import Batch
from zoo.models.base import ZooModel
from zoo.training.checkpoint import write_whole
from zoo.training.logger import png_of, show_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "held_out", "keep_picture", "spread", "write_csv"]

MAX_ROWS = 2000  # enough for a picture of rows, little enough for any model
MAX_VALUES = 1 << 23  # of targets and answers that are held at once, for the pictures of all rows: 64 MB
ANSWERS = ("prediction", "probability", "decision")
MAX_SCORES = 1 << 24  # numbers that a language model may say of those rows
log = logging.getLogger(__name__)


def held_out(model: ZooModel, data: Any, split: str) -> Batch:
    """Return up to `MAX_ROWS` rows of a split, spread evenly over it; fewer where each step scores a vocabulary."""
    rows, spec, most = data.rows(split), model.spec, MAX_ROWS
    if spec is not None and spec.target == "tokens" and not model.entry.unsupervised:
        steps = spec.shape[-1] if spec.kind == "pairs" else spec.num_features  # of pairs the targets alone are scored
        most = max(1, min(MAX_ROWS, MAX_SCORES // max(1, steps * (spec.vocab_size or 1))))
    return model.as_batch(rows[spread(len(rows), most)])


def spread(num_rows: int, most: int) -> Tensor:
    """Return at most that many row numbers, spread evenly."""
    return torch.linspace(0, num_rows - 1, min(num_rows, most), dtype=torch.float64).round().long()


def answers(model: ZooModel, data: Any, split: str, batch: Batch, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the targets `y` of all rows of a split (or as many as `MAX_VALUES` allows), and what is said of them.

    Args:
        model: the trained model.
        data: its DataModule.
        split: whose rows.
        batch: the rows of `held_out`, which are all that there are of a small split.
        columns: what the model says of them.
    """
    assert batch.y is not None
    rows = data.rows(split)
    found = {"y": batch.y, **{name: columns[name] for name in ANSWERS if name in columns}}
    if len(rows) <= batch.size:
        return found
    width = sum(values[0].numel() for values in found.values())
    parts: dict[str, list[Tensor]] = {name: [] for name in found}
    for index in spread(len(rows), max(MAX_ROWS, MAX_VALUES // width)).split(MAX_ROWS):
        part = model.as_batch(rows[index])
        said = {"y": part.y, **model.predict_batch(part)}
        for name, kept in parts.items():
            kept.append(said[name].cpu())  # type: ignore[union-attr]
    return {name: torch.cat(kept) for name, kept in parts.items()}


@torch.inference_mode()
def draw(model: ZooModel, data: Any, split: str, folder: Path, writer: Any = None, *, graph: bool = True) -> list[Path]:
    """Draw the model's pictures on held-out rows; return the PNG files.

    Args:
        model: the trained model.
        data: its DataModule.
        split: whose rows.
        folder: where the PNG files go.
        writer: TensorBoard's SummaryWriter, or None.
        graph: whether TensorBoard has yet to be shown the graph.
    """
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, rows in model.tables():
        write_csv(folder.parent / f"{name}.csv", rows)

    def titled(shown: int) -> str:
        total = len(data.rows(split))
        return split if shown == total else f"{shown:,} of {total:,} {split} rows"

    step = model.global_step or model.current_epoch
    with _kept_alive():
        batch = held_out(model, data, split)
        columns = model.predict_batch(batch)
        if batch.y is not None and _has_answers(model):
            said = answers(model, data, split, batch, columns)
            y = said.pop("y")
            files += keep_pictures(model.pictures_of_answers(y, said), titled(len(y)), folder, writer, step)
        files += keep_pictures(model.pictures(batch, columns), titled(batch.size), folder, writer, step)
        if writer is not None:
            sample = data.sample() if hasattr(data, "sample") else []
            if sample:
                writer.add_text("tokens", token_table(sample))
            _extras(model, batch, columns, writer, graph)
    if writer is not None:
        writer.flush()
    return files


def keep_pictures(
    pictures: Iterable[tuple[str, Figure]], title: str, folder: Path, writer: Any, step: int
) -> list[Path]:
    """Write pictures into a folder, as far as they can be drawn; return their files.

    Args:
        pictures: the pictures by name, drawn as they are asked for.
        title: the rows that they are of.
        folder: where they go.
        writer: TensorBoard's SummaryWriter, or None.
        step: their step there.
    """
    files: list[Path] = []
    with _kept_alive(), visual.rows_of(title):
        for name, figure in pictures:
            files.append(folder / f"{name}.png")
            keep_picture(figure, files[-1], writer, name, step)
    return files


def keep_picture(figure: Figure, file: Path, writer: Any, tag: str, step: int) -> None:
    """Write a picture as a PNG file, and show TensorBoard the same: rendering it takes longer than all else.

    Args:
        figure: the picture.
        file: where it goes.
        writer: TensorBoard's SummaryWriter, or None.
        tag: its name in TensorBoard.
        step: its step there.
    """
    png = png_of(figure)
    file.write_bytes(png)
    if writer is not None:
        show_png(writer, tag, png, step)


@contextmanager
def _kept_alive() -> Iterator[None]:
    """Say in one line what cannot be drawn, and go on: a finished run loses nothing else by it."""
    try:
        yield
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        log.warning(
            "Not all pictures could be drawn (%s: %s); the run is whole without them.", type(error).__name__, first
        )


def _has_answers(model: ZooModel) -> bool:
    """Whether what the model says of a row stands beside the row's own class or value."""
    return model.spec is not None and not model.entry.unsupervised and model.spec.target in ("class", "value")


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


def _extras(model: ZooModel, batch: Batch, columns: dict[str, torch.Tensor], writer: Any, graph: bool) -> None:
    for name, values in model.curves():
        for number, value in enumerate(values, 1):
            writer.add_scalar(name, value, global_step=number)
    for name, text in (*model.texts(), *model.samples(batch)):
        writer.add_text(name, text)
    embeddings = model.embeddings(batch, columns)
    if embeddings is not None:
        points, labels = embeddings
        writer.add_embedding(points, metadata=labels, tag=model.entry.name)
    if graph and any(True for _ in model.parameters()) and type(model).forward is not pl.LightningModule.forward:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                named = type(model.entry.name, (_Forward,), {})  # the name that the graph shows
                inputs = model.graph_input(batch)
                # The check of a trace imports the half of torch that is about sharded tensors.
                writer.add_graph(torch.jit.trace(named(model).eval(), inputs, check_trace=False), inputs)
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

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call[0](*inputs)
