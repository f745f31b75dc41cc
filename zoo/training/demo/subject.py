"""What every page shows: a trained model, some of the rows that it was trained on, and what it says of a new one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.evaluation import data_of
from zoo.training.run_config import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Answer", "Subject", "pictures", "say"]

log = logging.getLogger(__name__)

ROWS = 1000  # training rows that defaults are taken from
# Pictures of a model that say something of the row before it, and not of the model or of many rows.
OF_A_ROW = ("alignment", "attention", "attention_memory", "attention_source", "gates", "glances", "heads")


@dataclass(frozen=True)
class Subject:
    """A trained model, and the run folder that it comes from.

    Attributes:
        model: the model.
        run: its folder, a checkpoint alone, or the name of weights that travel with the package.
        folder: where files of the page lie while it is open.
        settings: the run's config; empty for a checkpoint alone.
    """

    model: ZooModel
    run: Path
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ZooModel, run: Path, folder: Path) -> Subject:
        """Return the model with the config of its run, where it has one."""
        file = run / "config.yaml"
        return cls(model, run, folder, read_config(file) if file.is_file() else {})

    @property
    def spec(self) -> DataSpec:
        """What the model was built for."""
        assert self.model.spec is not None
        return self.model.spec

    @property
    def title(self) -> str:
        """The model and its data."""
        of_package = bool(self.settings) and not self.run.exists()  # MODEL/DATA
        data = self.run.name if of_package else self.settings.get("data", {}).get("name")
        return f"{self.model.entry.name} on {data}" if data else self.model.entry.name

    @functools.cached_property
    def data(self) -> Any:
        """The data of the run, or None where they are not there any more."""
        if not self.settings:
            return None
        try:
            data, _ = data_of(self.run, self.settings["data"], {}, self.model)
            data.has("train")
        except (ZooError, OSError) as error:
            log.info("The training data are not there (%s): the page begins without them.", error)
            return None
        return data

    @functools.cached_property
    def rows(self) -> Batch | None:
        """Some training rows, evenly spaced, as the model sees them."""
        if self.data is None:
            return None
        rows = self.data.rows("train")
        return rows[torch.linspace(0, len(rows) - 1, min(len(rows), ROWS)).round().long()]

    @property
    def raw(self) -> Tensor | None:
        """Their inputs in the user's units, (N, *shape): coded, but not scaled."""
        if self.rows is None or self.rows.x is None:
            return None
        x = self.rows.x.to_dense() if self.rows.x.layout == torch.sparse_csr else self.rows.x
        scaling = self.model.preprocessing.scaling if self.model.preprocessing else None
        return x if scaling is None else x * scaling.std + scaling.mean


class Answer(NamedTuple):
    """What a model says of a row.

    Attributes:
        text: the class, the value or whatever it predicts.
        shares: the probability of each class; None where the model has none.
    """

    text: str
    shares: dict[str, float] | None = None

    @property
    def label(self) -> str | dict[str, float]:
        """What Gradio's `Label` takes: bars where the class is the most probable one, else the text."""
        if self.shares and max(self.shares, key=self.shares.__getitem__) == self.text:
            return self.shares
        return self.text


def say(model: ZooModel, row: Any) -> Answer:
    """Return what a model says of one row, which comes as `predict` takes rows: a table, an array or a list of one.

    Example:
        >>> import zoo
        >>> model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), [[0.0], [1.0]], [1.0, 3.0])
        >>> say(model, [[2.0]])
        Answer(text='5', shares=None)
    """
    assert model.spec is not None
    columns = model.predict_columns(row)
    table = model.answers({"prediction": columns["prediction"]})
    name = "prediction_name" if "prediction_name" in table.column_names else "prediction"
    text = written(table.column(name)[0].as_py())
    probability = columns.get("probability")
    if probability is None or probability.ndim != 2:
        return Answer(text)
    names = model.spec.class_names or tuple(map(str, range(probability.shape[1])))
    return Answer(text, dict(zip(names, probability[0].tolist(), strict=True)))


def written(value: Any) -> str:
    """Return an answer as text: six digits of a number, eight numbers of many, and a dash for none.

    >>> written(0.1 + 0.2), written([1.0, 2.5]), written(None)
    ('0.3', '1, 2.5', '–')
    """
    if isinstance(value, list):
        return ", ".join(map(written, value[:8])) + (f", … ({len(value)} numbers)" if len(value) > 8 else "")
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@torch.inference_mode()
def pictures(model: ZooModel, batch: Batch) -> Iterator[tuple[str, Figure]]:
    """Yield what a model shows of the first row of a prepared batch, such as its attention, by name."""
    batch = model.as_batch(batch)
    for name, figure in model.pictures(batch, model.predict_batch(batch)):
        if name in OF_A_ROW:
            yield name, figure
