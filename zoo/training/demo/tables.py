"""Fill in a row, a field a column, or drop a table.

Legend: N rows, F features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.columns import Column
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.demo.subject import Subject, say
from zoo.training.demo.widgets import drop_zone, explained

__all__ = ["Field", "fields_of", "row_of"]

MOST_FIELDS = 64  # more are no form that anyone fills in
ACROSS = (2, 3)  # fields side by side of few, and of more than eight


@dataclass(frozen=True)
class Field:
    """A column of the form.

    Attributes:
        name: the column's name.
        default: the median of the training rows, or the most frequent category.
        choices: the categories; none where the column holds numbers.
    """

    name: str
    default: float | str | None
    choices: tuple[str, ...] = ()


def fields_of(model: ZooModel, rows: Tensor | None) -> list[Field]:
    """Return a field for each column that the model reads.

    Args:
        model: a model of rows with its preprocessing.
        rows: training rows in the user's units, with coded categories, (N, F); None where they are not there, so that
            their mean, if the model scales by it, stands in for the median.

    Example:
        >>> import zoo
        >>> frame = {"size": [1.0, 2.0, 3.0, 8.0]}
        >>> model = zoo.fit(zoo.create_model("decision_tree"), frame, ["a", "b", "a", "a"])
        >>> fields_of(model, torch.tensor(frame["size"]).view(4, 1))
        [Field(name='size', default=2.5, choices=())]
    """
    assert model.spec is not None
    assert model.preprocessing is not None
    count, encoder, scaling = model.spec.num_features, model.preprocessing.encoder, model.preprocessing.scaling
    if rows is None or not len(rows):
        rows = (torch.zeros(()) if scaling is None else scaling.mean).expand(1, count)
    names = model.spec.feature_names or tuple(f"feature {number}" for number in range(count))
    columns = [Column(name, "number") for name in names] if encoder is None else encoder.features
    parts = rows.double().split([column.width for column in columns], dim=1)
    return [_field(column, part) for column, part in zip(columns, parts, strict=True)]


def _field(column: Column, values: Tensor) -> Field:
    """Return the field of a column from its coded values (N, width)."""
    values = values[~values.isnan().any(1)]
    if column.kind == "number":
        median = values.quantile(0.5).item() if len(values) else None
        return Field(column.name, None if median is None else float(f"{median:.6g}"))
    names = tuple(map(str, column.categories or ()))
    if column.coding != "onehot":
        values = torch.nn.functional.one_hot(values[values >= 0].round().long(), len(names))
    return Field(column.name, names[int(values.sum(0).argmax())] if names else None, names)


def row_of(model: ZooModel, fields: Sequence[Field], values: Sequence[Any]) -> Any:
    """Return what stands in the fields as a table of one row, or as an array where the columns have no rules.

    An empty field is a missing value.

    Raises:
        ZooError: for an empty field, by its name, where the model knows nothing that stands for it.
    """
    assert model.preprocessing is not None
    if model.preprocessing.encoder is not None:
        return {field.name: [value] for field, value in zip(fields, values, strict=True)}
    empty = [field.name for field, value in zip(fields, values, strict=True) if value is None]
    if empty and not model.preprocessing.missing:
        raise ZooError(f"'{empty[0]}' is empty: fill it in.")
    return torch.tensor([[torch.nan if value is None else float(value) for value in values]], dtype=torch.float64)


def page(subject: Subject) -> None:
    """Add a form, what the model says of it as it is filled in, and a place to drop a table."""
    import gradio as gr

    model, spec = subject.model, subject.spec
    fields = fields_of(model, subject.raw)

    def answer(*values: Any) -> Any:
        return say(model, row_of(model, fields, values)).label

    first = None
    with contextlib.suppress(ZooError):  # a field may have to be filled in
        first = answer(*(field.default for field in fields))
    with gr.Tabs():
        if len(fields) <= MOST_FIELDS:
            with gr.Tab("Fill in a row"), gr.Row():
                with gr.Column(scale=3):
                    boxes = _form(fields)
                with gr.Column(scale=2):
                    label = gr.Label(first, label=_asked(spec), num_top_classes=5, elem_id="answer")
            changes = [box.change for box in boxes]
            gr.on(changes, explained(answer), boxes, label, show_progress="hidden", trigger_mode="always_last")
        with gr.Tab("Drop a table"):
            drop_zone(subject, (".csv", ".tsv", ".parquet", ".npy"))


def _form(fields: Sequence[Field]) -> list[Any]:
    """Add a number or a choice for each field, some side by side."""
    import gradio as gr

    boxes = []
    across = ACROSS[len(fields) > 8]
    for start in range(0, len(fields), across):
        with gr.Row():
            for number, field in enumerate(fields[start : start + across], start):
                label = field.name.replace("_", "_\N{ZERO WIDTH SPACE}")  # where a long name may go on in a new line
                options = {"label": label, "elem_id": f"field_{number}", "min_width": 80}
                if field.choices:
                    boxes.append(gr.Dropdown(list(field.choices), value=field.default, **options))
                else:
                    boxes.append(gr.Number(field.default, **options))
    return boxes


def _asked(spec: DataSpec) -> str:
    if spec.target == "value" and spec.target_names:
        return ", ".join(spec.target_names)
    return {"class": "Class", "value": "Value"}.get(spec.target or "", "Answer")
